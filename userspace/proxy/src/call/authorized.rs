//! The fourth stage: what the policies say.

use chaperone_model::Call;
use chaperone_policy::{Approval, CallFacts, Permit, Ruling};
use http::request::Parts;
use http_body::Body as _;

use crate::{
    body::{masked::MaskedAnswer, transform::Transforms},
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

impl<'e> Decoded<'e> {
    /// Asks the policies.
    pub fn authorize(self) -> Result<Authorized<'e>, CallError> {
        let Decoded { exchange, parts, subject, mut transforms } = self;
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
        let principal = &connection.session.own.principal;
        let permit = match exchange.generation.engine.rule(principal, call, facts, Approval::None) {
            Ruling::Permit(permit) => permit,
            Ruling::Deny(denial) => return Err(CallError::Denied(Box::new(denial.decision()))),
            // Nobody can be asked yet.
            Ruling::Ask(question) => return Err(CallError::Denied(Box::new(question.denial.decision()))),
        };
        let generation = &exchange.generation;
        let masks = generation.engine.masks(principal, call, facts);
        let masking = &generation.settings.masking;
        transforms.add(MaskedAnswer::of(
            call,
            masks,
            masking,
            &connection.session.own.masking,
            &parts.method,
            &exchange.masked,
        ));
        let held = hold_chunks(exchange, call, &subject)?;
        Ok(Authorized { exchange, parts, subject, transforms, permit, held })
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
