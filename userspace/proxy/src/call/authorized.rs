//! The fourth stage: what the policies say.

use chaperone_model::{Call, Decision};
use chaperone_policy::CallFacts;
use http::request::Parts;
use http_body::Body as _;

use crate::{
    body::transform::Transforms,
    call::{
        authenticated::{Authentication, Subject},
        decoded::{Decoded, has_signed_chunks},
        error::{CallError, Refusal},
        exchange::{Exchange, RequestBody},
    },
    connection::quota::Memory,
    websocket::handshake::MAX_EVENT,
};

/// A request that the policies permit.
pub struct Authorized<'e> {
    pub(super) exchange: &'e mut Exchange,
    pub(super) parts: Parts,
    pub(super) subject: Subject,
    pub(super) transforms: Transforms,
    pub(super) permit: Permit,
    /// The memory in which chunks are held to be checked.
    pub(super) held: Option<Memory>,
}

/// That the policies permit a call. Nothing but [`Decoded::authorize`] makes one, and recording takes it.
#[derive(Debug)]
pub struct Permit {
    decision: Decision,
}

impl Permit {
    /// What it rests on, for the record.
    pub(super) fn into_decision(self) -> Decision {
        self.decision
    }
}

impl<'e> Decoded<'e> {
    /// Asks the policies.
    pub fn authorize(self) -> Result<Authorized<'e>, CallError> {
        let Decoded { exchange, parts, subject, transforms } = self;
        let Some(call) = &exchange.call else {
            return Err(Refusal::not_supported("BUG: a decoded request without a call").into());
        };
        let connection = &exchange.connection;
        let facts = CallFacts {
            method: exchange.method.as_str(),
            host: &exchange.host,
            path: &exchange.path,
            session: &connection.session.own.id,
            exe: &connection.process.exe,
        };
        let decision = connection.plane.engine.decide(&connection.session.own.principal, call, facts);
        if !decision.is_allowed() {
            return Err(CallError::Denied(Box::new(decision)));
        }
        let held = hold_chunks(exchange, call, &subject)?;
        Ok(Authorized { exchange, parts, subject, transforms, permit: Permit { decision }, held })
    }
}

/// Sets memory aside for chunks or messages that are held until their signatures are checked.
fn hold_chunks(exchange: &Exchange, call: &Call, subject: &Subject) -> Result<Option<Memory>, Refusal> {
    let share = &exchange.connection.share;
    let Subject::Aws { auth, .. } = subject else { return Ok(None) };
    let handshake = match auth {
        Authentication::Signed { handshake, .. } => handshake.is_some(),
        Authentication::SignedQuery { .. } => true,
        _ => false,
    };
    if handshake && call.service == "transcribe-streaming" {
        return Ok(Some(share.hold(MAX_EVENT)?));
    }
    match &exchange.body {
        Some(RequestBody::Streaming(stream)) if has_signed_chunks(call.payload) && !stream.is_end_stream() => {
            // It grows with what is held.
            Ok(Some(share.memory()))
        }
        _ => Ok(None),
    }
}
