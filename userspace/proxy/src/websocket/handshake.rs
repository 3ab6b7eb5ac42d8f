//! A WebSocket's handshake, once it is permitted: signed again where the agent signed it, and the answer held to what was
//! asked. Everything up to the decision is as for any other request.

use std::sync::Arc;

use chaperone_aws::{EventKey, EventResigner, SignedHandshake, Signer, VendedCredential};
use chaperone_model::Direction;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, HOST, SEC_WEBSOCKET_EXTENSIONS, UPGRADE},
    request::Parts,
};
use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::{
    body::streams::{AnswerBody, Outgoing, Sent},
    call::checking::Signing,
    call::exchange::{HOP_BY_HOP, HttpConnection, Received},
    call::refusal::Failure,
    connection::quota::Memory,
    upstream::pool::Target,
    websocket::frames::{AgentFrames, Handshake},
    websocket::relay::Relay,
};

/// The largest message of an event stream in a WebSocket, in bytes, which is held until its signature is checked.
/// Transcribe's clients send 32 KiB at most.
pub(crate) const MAX_EVENT: usize = 128 << 10;

/// A handshake that was checked.
pub(crate) struct Opening {
    pub(crate) handshake: Handshake,
    /// `None`: it is signed in its head.
    pub(crate) signed: Option<SignedHandshake>,
    /// What passes is an event stream, whose messages may be signed.
    pub(crate) events: bool,
}

impl HttpConnection {
    /// Signs it, sends it, and opens the WebSocket if AWS does.
    pub(crate) async fn open_websocket(
        self: &Arc<Self>,
        received: &Received,
        mut parts: Parts,
        signing: Option<Signing>,
        opening: Opening,
        held: Option<Memory>,
    ) -> Result<Response<AnswerBody>, (Failure, Arc<Mutex<Sent>>)> {
        let sent = Arc::new(Mutex::new(Sent::default()));
        let failed = |failure: Failure| (failure, sent.clone());
        for name in &HOP_BY_HOP {
            parts.headers.remove(name);
        }
        parts.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        let authority = self.authority_of(received);
        parts.headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| failed(Failure::Target))?);
        let unsigned = || failed(Failure::Answer("BUG: a WebSocket's handshake that nobody signed".into()));
        let keys = self.sign_handshake(&mut parts, signing.ok_or_else(unsigned)?, &opening).await.map_err(failed)?;
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let uri = http::uri::Builder::new().scheme("https").authority(authority);
        let target = parts.uri.path_and_query().cloned().ok_or_else(|| failed(Failure::Target))?;
        parts.uri = uri.path_and_query(target).build().map_err(|_| failed(Failure::Target))?;
        let name = self.name.clone().unwrap_or_else(|| received.host.as_str().into());
        let target = Target { name, address: self.upstream, http2: None };
        let request = Request::from_parts(parts, Outgoing::Whole(None));
        let switched = self.shared.upstream.switch(&target, request).await;
        let (response, upgraded) = switched.map_err(|error| failed(Failure::Upstream(error)))?;
        let (answer, body) = response.into_parts();
        if upgraded.is_some()
            && let Err(why) = opening.handshake.check(&answer)
        {
            let why = format!("it says that this is a WebSocket, and {why}");
            return Err(failed(Failure::Answer(why)));
        }
        let (mut parts, mut stream) = self.begin_answer(received, Response::from_parts(answer, body), None, &sent);
        let recorder = self.shared.journal.body(received.id, Direction::Request);
        let Some(upgraded) = upgraded else {
            sent.lock().digest = Some(recorder.finish());
            return Ok(Self::pass_on(parts, stream).await);
        };
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let resigner = keys.map(|(agents, ours)| EventResigner::new(agents, ours, MAX_EVENT).or_unsigned());
        let switching = Relay {
            shared: self.shared.clone(),
            upstream: Some(upgraded),
            frames: AgentFrames::new(resigner),
            request: Some(recorder),
            response: stream.recorder.take(),
            sent,
            closing: stream.closing.take(),
            held,
        };
        Ok(Response::from_parts(parts, AnswerBody::Relay(Box::new(switching))))
    }

    /// Gives what messages are signed by, where they may be.
    async fn sign_handshake(
        &self,
        parts: &mut Parts,
        signing: Signing,
        opening: &Opening,
    ) -> Result<Option<(EventKey, EventKey)>, Failure> {
        let Signing { scope, lent, vended } = signing;
        let credentials = match &vended {
            Some(vended) => vended.credentials().clone(),
            None => lent.credentials.get().await.map_err(Failure::Credentials)?,
        };
        let own = &self.session.own.placeholder;
        let agents = vended.as_deref().map_or(own, VendedCredential::placeholder).secret_access_key();
        let ours = credentials.secret_access_key();
        let (signer, now) = (&self.shared.signer, OffsetDateTime::now_utc());
        let keys = match (&opening.signed, scope) {
            (Some(signed), _) => {
                let signature = signed.sign(signer, parts, &credentials, now).map_err(Failure::Sign)?;
                Some(signed.event_keys(agents, ours, signature))
            }
            (None, Some(scope)) => {
                let before = Signer::event_key(parts, agents);
                let empty = chaperone_aws::EMPTY_SHA256;
                signer.sign(parts, Some(&empty), &credentials, &scope, now).map_err(Failure::Sign)?;
                before.zip(Signer::event_key(parts, ours))
            }
            (None, None) => {
                let what = chaperone_aws::SignError::NotSupported("a WebSocket's handshake with SigV4A");
                return Err(Failure::Sign(what));
            }
        };
        Ok(keys.filter(|_| opening.events))
    }
}
