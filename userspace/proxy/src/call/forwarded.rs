//! The last stages: AWS is asked, and its answer goes to the agent.

use std::time::Duration;

use bytes::Bytes;
use chaperone_journal::BodyRecorder;
use chaperone_model::Direction;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header::CONTENT_LENGTH, response::Parts};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, upgrade::Upgraded};
use tokio::time::timeout;

use crate::{
    body::{
        answer::{AnswerBody, AnswerStream},
        error::BodyError,
        request::{Outgoing, record_whole},
        stall::Stall,
        transform::{Mode, Transforms},
    },
    call::{
        error::{CallError, Failure},
        exchange::{AnswerFacts, Exchange, micros},
        outcome::OutcomeRecorder,
        redact,
        rescue::rescue,
        signed::{HOP_BY_HOP, Opening, Signed},
    },
    upstream::pool::Lease,
    websocket::{
        frames::AgentFrames,
        handshake::{MAX_EVENT, upgrade},
        relay::Relay,
    },
};

/// The most of an answer that is held because it must be read before any of it goes on, in bytes. Each transform has a
/// bound of its own below it.
const MAX_HELD_ANSWER: usize = 8 << 20;

/// AWS's answer, of which nothing has gone on yet.
pub struct Answer {
    response: Response<Incoming>,
    lease: Option<Lease<Outgoing>>,
    transforms: Transforms,
    websocket: Option<(Opening, Upgraded)>,
}

impl Signed<'_> {
    /// Sends it, and waits for the answer's head.
    pub async fn forward(self) -> Result<Answer, CallError> {
        let Self { exchange, target, request, transforms, permit, websocket, tells_time } = self;
        let upstream = &exchange.connection.plane.upstream;
        let Some(opening) = websocket else {
            let sent = upstream.send(&target, request).await;
            drop(permit);
            let answer = sent.map_err(|error| {
                // A body that is wrong makes hyper break off: then that is what happened.
                exchange.sent.lock().error.take().map_or(Failure::Upstream(error), Failure::Body)
            })?;
            let head = &answer.response;
            if tells_time && upstream.clock.learn(head.headers()) && matches!(head.status().as_u16(), 400 | 401 | 403) {
                // SDKs ask again, and then it is signed by the right time.
                return Err(Failure::Clock.into());
            }
            return Ok(Answer { response: answer.response, lease: answer.lease, transforms, websocket: None });
        };
        let (response, upgraded) = Box::pin(upstream.switch(&target, request)).await.map_err(Failure::Upstream)?;
        let Some(upgraded) = upgraded else {
            exchange.sent.lock().digest = Some(opening.recorder.finish());
            return Ok(Answer { response, lease: None, transforms, websocket: None });
        };
        let (head, body) = response.into_parts();
        if let Err(why) = opening.handshake.check(&head) {
            return Err(Failure::Answer(format!("it says that this is a WebSocket, and {why}")).into());
        }
        let response = Response::from_parts(head, body);
        Ok(Answer { response, lease: None, transforms, websocket: Some((opening, upgraded)) })
    }
}

impl Answer {
    /// What the agent gets of it. From here on the answer's body has the exchange, and ends it.
    pub(crate) async fn deliver(self, exchange: Exchange) -> Response<AnswerBody> {
        let Self { response, lease, mut transforms, websocket } = self;
        let (mut parts, inner) = response.into_parts();
        // Before anything of it is recorded.
        exchange.connection.session.own.masking.vault().clean(&mut parts.headers);
        if websocket.is_none() {
            transforms.fields(&mut parts);
        }
        let facts = facts(&parts, &exchange);
        for name in &HOP_BY_HOP {
            parts.headers.remove(name);
        }
        parts.version = Version::HTTP_11;
        one_length(&mut parts);
        let plane = exchange.connection.plane.clone();
        let recorder = plane.journal.body(exchange.id, Direction::Response);
        if let Some((opening, upgraded)) = websocket {
            let closing = OutcomeRecorder { exchange, facts, lease };
            return open(parts, closing, opening, upgraded, recorder);
        }
        let mode = transforms.head(&mut parts);
        if mode == Mode::Whole {
            return match Box::pin(hold(inner, &mut transforms, recorder, plane.limits.answer_timeout)).await {
                Ok((body, digest)) => {
                    transforms.settle(&mut parts);
                    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                    OutcomeRecorder { exchange, facts, lease }.close(Some(digest), None);
                    Response::from_parts(parts, AnswerBody::Whole(Some(body)))
                }
                Err(failure) => Box::pin(rescue(exchange, failure.into())).await,
            };
        }
        let mut stream = AnswerStream {
            recorder: Some(recorder),
            inner,
            first: None,
            broken: None,
            closing: Some(OutcomeRecorder { exchange, facts, lease }),
            transforms: (mode != Mode::Untouched).then_some(transforms),
            changed: std::collections::VecDeque::new(),
            stall: Stall::new(plane.limits.answer_timeout),
        };
        if stream.transforms.is_some() {
            // Its end is not AWS's.
        } else if stream.inner.is_end_stream() {
            // hyper doesn't ask for a body that is over: the outcome is due now.
            stream.end_now();
        } else {
            stream.look_ahead().await;
        }
        Response::from_parts(parts, AnswerBody::Streaming(Box::new(stream)))
    }
}

/// The length that the framing check found, said once; and none where there is no body, whatever was said of it.
fn one_length(parts: &mut Parts) {
    if parts.status == StatusCode::NO_CONTENT {
        parts.headers.remove(CONTENT_LENGTH);
        return;
    }
    let Some(length) = parts.headers.get(CONTENT_LENGTH) else { return };
    let first = length.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    if let Ok(length) = HeaderValue::from_bytes(first.trim_ascii()) {
        parts.headers.insert(CONTENT_LENGTH, length);
    }
}

/// The whole of an answer that must be read before any of it goes on, as the agent gets it, and on record.
async fn hold(
    mut inner: Incoming,
    transforms: &mut Transforms,
    recorder: BodyRecorder,
    after: Duration,
) -> Result<(Bytes, chaperone_model::BodyDigest), Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::Answer(error.to_string());
    let (mut given, mut read) = (Vec::new(), 0);
    loop {
        let frame = timeout(after, inner.frame()).await.map_err(|_| Failure::Broken(BodyError::Stalled(after)))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Failure::Broken(BodyError::http(&error)))?;
        let Ok(bytes) = frame.into_data() else { continue };
        read += bytes.len();
        if read > MAX_HELD_ANSWER {
            return Err(refused(&format!("it is larger than {MAX_HELD_ANSWER} bytes, and must be read as a whole")));
        }
        transforms.push(bytes, &mut given).map_err(|error| refused(&error))?;
    }
    transforms.finish(&mut given).map_err(|error| refused(&error))?;
    let body = match given.len() {
        1 => given.swap_remove(0),
        _ => given.concat().into(),
    };
    let digest = record_whole(recorder, &body).await.map_err(|error| Failure::Body(error.into()))?;
    Ok((body, digest))
}

/// From now on the connection is a WebSocket.
fn open(
    mut parts: Parts,
    closing: OutcomeRecorder,
    opening: Opening,
    upgraded: Upgraded,
    response: BodyRecorder,
) -> Response<AnswerBody> {
    use chaperone_aws::EventResigner;
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    upgrade(&mut parts.headers);
    let resigner = opening.keys.map(|(agents, ours)| EventResigner::new(agents, ours, MAX_EVENT).or_unsigned());
    let relay = Relay {
        plane: closing.exchange.connection.plane.clone(),
        upstream: Some(upgraded),
        frames: AgentFrames::new(resigner),
        request: Some(opening.recorder),
        response: Some(response),
        sent: closing.exchange.sent.clone(),
        closing: Some(closing),
        held: opening.held,
    };
    Response::from_parts(parts, AnswerBody::Relay(Box::new(relay)))
}

/// What is recorded of an answer's head: as AWS sent it.
fn facts(parts: &Parts, exchange: &Exchange) -> AnswerFacts {
    let text = |name: &str| text(&parts.headers, name);
    AnswerFacts {
        status: parts.status.as_u16(),
        head: Some(redact::head(parts.version, &parts.headers)),
        aws_request_id: text("x-amzn-requestid").or_else(|| text("x-amz-request-id")),
        error_code: text("x-amzn-errortype")
            .map(|code| code.split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default().to_owned())
            .or_else(|| text("x-amz-error-code")),
        ttfb_us: Some(micros(exchange.began)),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.chars().take(256).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_said_once_and_never_where_no_body_is() {
        let told = |status: u16, lengths: &[&str]| -> Vec<String> {
            let mut answer = Response::builder().status(status);
            for length in lengths {
                answer = answer.header(CONTENT_LENGTH, *length);
            }
            let mut parts = answer.body(()).unwrap().into_parts().0;
            one_length(&mut parts);
            parts.headers.get_all(CONTENT_LENGTH).iter().map(|it| it.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(told(200, &["5", "5"]), ["5"]);
        assert_eq!(told(200, &["5, 5"]), ["5"]);
        assert_eq!(told(200, &["5"]), ["5"]);
        assert!(told(200, &[]).is_empty());
        assert!(told(204, &["5"]).is_empty());
    }
}
