//! The fourth stage: what the policies say.

use std::time::Instant;

use chaperone_model::Call;
use chaperone_policy::{Approval, CallFacts, Engine, Permit, Ruling};
use http::request::Parts;
use http_body::Body as _;

use crate::{
    body::{digests::MessageDigests, masked::MaskedAnswer, transform::Transforms},
    budgets::Tally,
    call::{
        approval,
        authenticated::{Authentication, Subject},
        decoded::{Decoded, has_signed_chunks},
        error::{CallError, Refusal},
        exchange::{Exchange, RequestBody, micros},
        over_budget,
        unmasked::unmask,
    },
    connection::quota::Memory,
    identities::IdentityState,
    websocket::handshake::MAX_EVENT,
};

/// A request that the policies permit.
pub struct Authorized<'e> {
    pub(super) exchange: &'e mut Exchange,
    pub(super) parts: Parts,
    pub(super) subject: Subject,
    pub(super) transforms: Transforms,
    pub(super) permit: Permit,
    /// What it was counted for.
    pub(super) tally: Tally,
    /// The memory in which chunks are held to be checked.
    pub(super) held: Option<Memory>,
}

impl<'e> Decoded<'e> {
    /// Asks the policies, and people where the policies say so.
    pub async fn authorize(self) -> Result<Authorized<'e>, CallError> {
        let Decoded { exchange, mut parts, subject, mut transforms } = self;
        let tally = {
            let call = exchange.call.as_ref().ok_or_else(undecoded)?;
            exchange.connection.plane.budgets.charge(exchange.who(), exchange.id, call)
        };
        let standing = exchange.connection.plane.standing(&exchange.connection.session)?;
        let permit = rule(exchange, &parts, &standing, &tally).await?;
        let call = exchange.call.as_ref().ok_or_else(undecoded)?;
        let (own, generation) = (&exchange.connection.session.own, &exchange.generation);
        let masks = generation.engine.masks(&standing.principal, call, facts(exchange, &tally));
        let masking = &generation.settings.masking;
        let may_unmask = generation.engine.version().has_unmasks();
        let answer = MaskedAnswer::of(call, masks, masking, &own.masking, &mut parts, &exchange.masked, may_unmask);
        let masks_any = answer.is_some();
        transforms.add(answer);
        let held = hold_chunks(exchange, call, &subject)?;
        let unmasked = unmask(exchange, &parts, &subject, call).await?;
        if masks_any || unmasked.is_some() {
            transforms.add(MessageDigests::of(call, &exchange.masked, unmasked.is_some()));
        }
        exchange.unmasked = unmasked;
        Ok(Authorized { exchange, parts, subject, transforms, permit, tally, held })
    }
}

async fn rule(
    exchange: &Exchange,
    parts: &Parts,
    standing: &IdentityState,
    tally: &Tally,
) -> Result<Permit, CallError> {
    let call = exchange.call.as_ref().ok_or_else(undecoded)?;
    let connection = &exchange.connection;
    let facts = facts(exchange, tally);
    let ask = |engine: &Engine, approval| engine.rule(&standing.principal, call, facts, approval);
    let denied = |ruling: &Ruling| CallError::Denied(Box::new(ruling.decision()));
    let engine = &exchange.generation.engine;
    let began = Instant::now();
    let ruling = ask(engine, Approval::None);
    connection.plane.metrics.ruling.observe(micros(began));
    if let Ruling::Deny(_) = &ruling {
        return Err(denied(&ruling));
    }
    // Nobody is asked about what isn't made anyway.
    if let Some(refusal) = over_budget::refusal(exchange, tally) {
        return Err(refusal.into());
    }
    let question = match ruling {
        Ruling::Permit(permit) => return Ok(permit),
        Ruling::Ask(question) => question,
        Ruling::Deny(_) => unreachable!("BUG: returned above"),
    };
    let by = approval::wait(exchange, parts, call, &question, standing).await?;
    // A person took their time: the identity that was asked for must still hold, and be the same.
    let standing = &*connection.plane.standing(&connection.session)?;
    let ask = |engine: &Engine, approval| engine.rule(&standing.principal, call, facts, approval);
    // Policies may have changed meanwhile: what was approved must be permitted by those as well.
    let now = connection.plane.generation();
    if now.number != exchange.generation.number
        && let ruling @ (Ruling::Deny(_) | Ruling::Ask(_)) = ask(&now.engine, Approval::Given)
    {
        return Err(denied(&ruling));
    }
    match ask(engine, Approval::Given) {
        Ruling::Permit(permit) => Ok(permit.approved(by)),
        ruling => Err(denied(&ruling)),
    }
}

/// What the policies may look at besides the call.
fn facts<'a>(exchange: &'a Exchange, tally: &'a Tally) -> CallFacts<'a> {
    let connection = &exchange.connection;
    CallFacts {
        method: exchange.method.as_str(),
        host: &exchange.host,
        path: &exchange.path,
        session: &connection.session.own.id,
        exe: &connection.process.exe,
        argv: &connection.process.argv,
        over_budget: tally.over(),
        at: Some(exchange.at),
        session_started: Some(connection.session.session.started),
        body_bytes: body_bytes(exchange),
        retry: chaperone_policy::is_retry(|name| exchange.head.value(name)),
        unknown: &[],
    }
}

/// The length of the body, as far as it is known before it has gone: of an aws-chunked one its payload's.
fn body_bytes(exchange: &Exchange) -> Option<u64> {
    let head = &exchange.head;
    let said = chaperone_policy::body_bytes(&head.version, |name| head.value(name));
    match &exchange.body {
        Some(RequestBody::Whole(bytes, ..)) if head.value("x-amz-decoded-content-length").is_none() => {
            Some(bytes.len() as u64)
        }
        Some(RequestBody::Streaming(body)) if body.is_end_stream() => Some(0),
        _ => said,
    }
}

fn undecoded() -> CallError {
    Refusal::not_supported("BUG: a decoded request without a call").into()
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
