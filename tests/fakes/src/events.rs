//! An event stream's other end: it checks each message's signature, and answers each with an event
//! that says how long it was.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use aws_credential_types::Credentials;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sigv4::{
    http_request::{PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4::SigningParams,
};
use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::{backend::Answer, server::BoxError, verify};

const DATE_FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// The one key that streams are signed by.
pub struct Events {
    id: String,
    secret: String,
}

impl Events {
    /// The id and the secret are the two lines of `key`.
    pub fn new(key: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(key).with_context(|| format!("reading {}", key.display()))?;
        let (id, secret) =
            text.trim().split_once('\n').with_context(|| format!("{} has not two lines", key.display()))?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The id and the secret.
    pub fn key(&self) -> (&str, &str) {
        (&self.id, &self.secret)
    }

    /// A URL that reads this object for five minutes, by the SDK's signer.
    pub fn presigned(&self, url: &str) -> Result<String, BoxError> {
        let identity = Credentials::new(&self.id, &self.secret, None, None, "lab").into();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_mins(5));
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        let params = SigningParams::builder().identity(&identity).region("eu-west-1").name("s3");
        let params = params.time(SystemTime::now()).settings(settings).build()?.into();
        let signable = SignableRequest::new("GET", url, std::iter::empty(), SignableBody::UnsignedPayload)?;
        let mut request = Request::get(url).body(())?;
        sign(signable, &params)?.into_parts().0.apply_to_request_http1x(&mut request);
        Ok(request.uri().to_string())
    }

    /// Answers while the stream still comes.
    pub fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
    {
        let (parts, mut body) = request.into_parts();
        let (events, receiver) = mpsc::channel(16);
        let chain = Chain::of(&parts.headers, &self.id, &self.secret);
        tokio::spawn(async move {
            let told = match chain {
                None => exception("the head is not signed for an event stream by the key that is known here"),
                Some(mut chain) => {
                    let mut decoder = MessageFrameDecoder::new();
                    let mut held = BytesMut::new();
                    'stream: loop {
                        match body.frame().await {
                            None => break event("End", &format!("{{\"messages\":{}}}", chain.count)),
                            Some(Err(error)) => break exception(&error.to_string()),
                            Some(Ok(frame)) => held.extend_from_slice(&frame.into_data().unwrap_or_default()),
                        }
                        loop {
                            match decoder.decode_frame(&mut held) {
                                Ok(DecodedFrame::Incomplete) => break,
                                Ok(DecodedFrame::Complete(message)) => match chain.check(&message) {
                                    Ok(length) => {
                                        let _ = events.send(event("Got", &format!("{{\"bytes\":{length}}}"))).await;
                                    }
                                    Err(why) => break 'stream exception(&why),
                                },
                                Err(error) => break 'stream exception(&error.to_string()),
                            }
                        }
                    }
                }
            };
            let _ = events.send(told).await;
        });
        let frames =
            stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| Some((receiver.recv().await?, receiver)));
        let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
        let kind = header::HeaderValue::from_static("application/vnd.amazon.eventstream");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }
}

/// Where the chain of signatures has got to.
struct Chain {
    secret: String,
    region: String,
    service: String,
    previous: String,
    count: usize,
}

impl Chain {
    fn of(headers: &HeaderMap, id: &str, secret: &str) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        if text("x-amz-content-sha256") != Some("STREAMING-AWS4-HMAC-SHA256-EVENTS") {
            return None;
        }
        let field = text("authorization")?;
        let scope = field.split_once("Credential=")?.1.split(',').next()?;
        let parts: Vec<&str> = scope.split('/').collect();
        let [key, _, region, service, "aws4_request"] = parts[..] else { return None };
        (key == id).then(|| Self {
            secret: secret.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            previous: field.rsplit("Signature=").next().unwrap_or_default().to_owned(),
            count: 0,
        })
    }

    /// The length of what is inside, if it is signed right.
    fn check(&mut self, message: &Message) -> Result<usize, String> {
        let of = |name: &str| message.headers().iter().find(|it| it.name().as_str() == name).map(Header::value);
        let (Some(HeaderValue::Timestamp(date)), Some(HeaderValue::ByteArray(signature))) =
            (of(":date"), of(":chunk-signature"))
        else {
            return Err("a message without a date or a signature".to_owned());
        };
        let payload = message.payload();
        // The SDK's own signer knows whole seconds alone, and the JavaScript SDK sends its milliseconds.
        let millis = date.to_millis().map_err(|error| error.to_string())?;
        let header = [b"\x05:date\x08".as_slice(), &millis.to_be_bytes()].concat();
        let time = OffsetDateTime::from_unix_timestamp(date.secs()).map_err(|error| error.to_string())?;
        let stamp = time.format(DATE_FORMAT).map_err(|error| error.to_string())?;
        let scope = [&stamp[..8], &self.region, &self.service, "aws4_request"];
        let hash = |bytes: &[u8]| hex::encode(digest(&SHA256, bytes));
        let lines =
            ["AWS4-HMAC-SHA256-PAYLOAD", &stamp, &scope.join("/"), &self.previous, &hash(&header), &hash(payload)];
        let right = hex::encode(verify::hmac(&verify::key(&self.secret, &scope), &lines.join("\n")));
        if hex::encode(signature) != right {
            return Err(format!("the signature of message {} is wrong", self.count));
        }
        self.previous = right;
        self.count += 1;
        Ok(payload.len())
    }
}

/// An event of that type.
pub fn event(kind: &str, payload: &str) -> Result<Frame<Bytes>, io::Error> {
    framed("event", ":event-type", kind, payload)
}

fn exception(why: &str) -> Result<Frame<Bytes>, io::Error> {
    framed("exception", ":exception-type", "BadRequestException", why)
}

fn framed(kind: &'static str, name: &'static str, value: &str, payload: &str) -> Result<Frame<Bytes>, io::Error> {
    let message = Message::new(payload.as_bytes().to_vec())
        .add_header(Header::new(":message-type", HeaderValue::String(kind.into())))
        .add_header(Header::new(name, HeaderValue::String(value.to_owned().into())));
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).map_err(io::Error::other)?;
    Ok(Frame::data(Bytes::from(bytes)))
}
