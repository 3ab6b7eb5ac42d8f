//! The end of an exchange: its outcome is recorded, and its connection given back.

use std::{sync::Arc, time::Instant};

use chaperone_model::{BodyDigest, CallId, CallOutcome, Event, Head, OutcomeStatus, SessionId};
use http::StatusCode;
use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::{
    DataPlane,
    body::streams::{BodyError, Sent},
    call::exchange::micros,
    upstream::pool::Lease,
};

/// What the end of an answer still has to do.
pub(crate) struct OutcomeRecorder {
    pub(crate) shared: Arc<DataPlane>,
    pub(crate) id: CallId,
    pub(crate) session: SessionId,
    pub(crate) began: Instant,
    pub(crate) ttfb_us: Option<u64>,
    pub(crate) status: StatusCode,
    pub(crate) head: Head,
    pub(crate) aws_request_id: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) lease: Option<Lease>,
    pub(crate) sent: Arc<Mutex<Sent>>,
}

impl OutcomeRecorder {
    pub(crate) fn close(self, response: Option<BodyDigest>, error: Option<BodyError>) {
        let mut sent = std::mem::take(&mut *self.sent.lock());
        sent.end();
        let error = error.or(sent.error);
        let duration_us = micros(self.began);
        self.shared.metrics.seconds.observe(duration_us);
        let event = Event::CallOutcome(Box::new(CallOutcome {
            id: self.id,
            session: self.session,
            at: OffsetDateTime::now_utc(),
            outcome: if error.is_none() { OutcomeStatus::Completed } else { OutcomeStatus::Aborted },
            status: Some(self.status.as_u16()),
            aws_request_id: self.aws_request_id,
            error_code: self.error_code,
            error: error.map(|error| error.to_string()),
            head: Some(self.head),
            request: sent.digest,
            request_payload: sent.payload,
            response,
            duration_us,
            ttfb_us: self.ttfb_us,
        }));
        if let Err(error) = self.shared.journal.append_now(&event) {
            tracing::error!(call = %self.id, %error, "an outcome could not be recorded");
        }
        if let Some(lease) = self.lease
            && sent_all(&event)
        {
            self.shared.upstream.put_back(lease);
        }
    }
}

/// Only a connection whose exchange went to its end may be used again.
fn sent_all(event: &Event) -> bool {
    matches!(event, Event::CallOutcome(outcome) if outcome.outcome == OutcomeStatus::Completed && outcome.request.is_some())
}
