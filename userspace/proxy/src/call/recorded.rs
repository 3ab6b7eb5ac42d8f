//! The fifth stage: the intent is in the journal before anything leaves.

use std::time::Instant;

use chaperone_model::{Payload, Protocol};
use http::request::Parts;

use crate::{
    body::transform::Transforms,
    call::{
        authenticated::Subject,
        authorized::Authorized,
        error::CallError,
        exchange::{Exchange, micros},
    },
    connection::quota::Memory,
};

/// A request that is permitted, and of which that is on record.
pub struct Recorded<'e> {
    pub(super) exchange: &'e mut Exchange,
    pub(super) parts: Parts,
    pub(super) subject: Subject,
    pub(super) transforms: Transforms,
    pub(super) held: Option<Memory>,
    pub(super) shape: Payload,
    /// The WebSocket is one of event streams' messages.
    pub(super) events: bool,
}

impl<'e> Authorized<'e> {
    /// Records the intent.
    pub async fn record(self) -> Result<Recorded<'e>, CallError> {
        let Authorized { exchange, parts, subject, transforms, permit, tally, held } = self;
        let (mutating, shape, events, protocol) = match &exchange.call {
            Some(call) => (call.is_mutating(), call.payload, call.service == "transcribe-streaming", call.protocol),
            None => (true, Payload::None, false, Protocol::Http),
        };
        // The record takes the call; errors are still told in its protocol.
        exchange.protocol = protocol;
        let wait = exchange.connection.plane.journal.must_wait(mutating || tally.counts());
        // The permit ends here: it is for one record, and so for one call.
        let decision = permit.decision();
        drop(permit);
        tally.recording();
        let began = Instant::now();
        exchange.record_intent(decision, wait).await.map_err(CallError::Unrecorded)?;
        exchange.connection.plane.metrics.recording.observe(micros(began));
        tally.commit();
        // What else has come meanwhile gets as far as this first, and then all of it goes on together: AWS's side of
        // the host is woken once and not for each. Under load that is a quarter of a call's cost; alone it is a
        // microsecond.
        tokio::task::yield_now().await;
        Ok(Recorded { exchange, parts, subject, transforms, held, shape, events })
    }
}
