//! A record on its way to the writer, and who waits for it.

use bytes::Bytes;
use chaperone_model::{Event, SessionId};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::{
    JournalError,
    fit::fitted,
    kind::Kind,
    open_work::Mark,
    record::{HEAD, Seq, sha256},
};

/// What an append waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The operating system has the record: it survives the daemon.
    Written,
    /// The disk has it: it survives the machine.
    Durable,
}

/// An append that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) level: Level,
    pub(crate) answer: oneshot::Sender<Result<Seq, JournalError>>,
}

/// Where who waits is told.
pub(crate) type Answer = oneshot::Receiver<Result<Seq, JournalError>>;

impl Waiter {
    pub(crate) fn new(level: Level) -> (Self, Answer) {
        let (answer, receiver) = oneshot::channel();
        (Self { level, answer }, receiver)
    }

    /// Answers; whoever waited may have gone away.
    pub(crate) fn answer(self, result: Result<Seq, JournalError>) {
        drop(self.answer.send(result));
    }
}

/// A record that is not written yet.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) id: [u8; 16],
    pub(crate) time_us: u64,
    pub(crate) body_offset: u64,
    pub(crate) digest: [u8; 32],
    pub(crate) payload: Bytes,
    pub(crate) mark: Option<Mark>,
    /// Whose it is, if it counts for somebody's share; a body's is known by its call.
    pub(crate) session: Option<SessionId>,
    /// Its number among the staged records, or 0.
    pub(crate) staged: u64,
    pub(crate) waiter: Option<Waiter>,
}

impl Item {
    /// A record with a JSON payload.
    pub(crate) fn json(kind: Kind, id: [u8; 16], value: &impl serde::Serialize) -> Result<Self, JournalError> {
        let payload = serde_json::to_vec(value).map_err(|error| JournalError::Encode(error.to_string()))?;
        Ok(Self {
            kind,
            flags: 0,
            id,
            time_us: now_us(),
            body_offset: 0,
            digest: sha256(&payload),
            payload: payload.into(),
            mark: None,
            session: None,
            staged: 0,
            waiter: None,
        })
    }

    pub(crate) fn event(event: &Event, max: usize) -> Result<Self, JournalError> {
        let mut item = Self::json(Kind::Event, event.about(), event)?;
        if item.payload.len() > max
            && let Event::CallIntent(intent) = event
        {
            let fitted = Event::CallIntent(Box::new(fitted(intent, &item.payload, max)));
            item = Self::json(Kind::Event, event.about(), &fitted)?;
        }
        if item.payload.len() > max {
            return Err(JournalError::TooLarge { bytes: item.payload.len(), limit: max });
        }
        Ok(Self { mark: Mark::of(event), session: event.session(), ..item })
    }

    pub(crate) fn record_len(&self) -> usize {
        HEAD + self.payload.len()
    }
}

pub(crate) fn now_us() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000).unwrap_or(0)
}
