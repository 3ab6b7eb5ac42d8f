//! The end of an answer: its outcome is recorded, and its connection given back.

use chaperone_model::{BodyDigest, OutcomeStatus};

use crate::{
    body::{error::BodyError, request::Outgoing},
    call::exchange::{AnswerFacts, Ending, Exchange, micros},
    upstream::pool::Lease,
};

/// What the end of an answer still has to do. Dropped, it records that the agent went away.
pub(crate) struct OutcomeRecorder {
    pub(crate) exchange: Exchange,
    pub(crate) facts: AnswerFacts,
    pub(crate) lease: Option<Lease<Outgoing>>,
}

impl OutcomeRecorder {
    pub(crate) fn close(self, response: Option<BodyDigest>, error: Option<BodyError>) {
        let Self { exchange, facts, lease } = self;
        let plane = exchange.connection.plane.clone();
        plane.metrics.seconds.observe(micros(exchange.began));
        let whole = exchange.end(Ending {
            outcome: OutcomeStatus::Completed,
            answer: Some(facts),
            response,
            error: error.map(|error| error.to_string()),
        });
        // Only a connection whose exchange went to its end may be used again.
        if let Some(lease) = lease.filter(|_| whole) {
            plane.upstream.put_back(lease);
        }
    }
}
