//! What can be asked of a record: one trait, which this host's journal and the fleet's ClickHouse both answer.
//!
//! Who asks doesn't know where the answer comes from: the command line, the replay of recorded calls by other policies,
//! and whatever comes to stand beside them.

#![forbid(unsafe_code)]

mod answers;
mod error;
mod journal;
mod questions;

use bytes::Bytes;
use chaperone_journal::{CallFilter, CallRow, CommandRow, ConnectionRow, SessionRow};
use chaperone_model::{CallId, CallIntent, CallOutcome, Direction, Event, SessionId};
use futures_util::{future::BoxFuture, stream::BoxStream};
use time::OffsetDateTime;

pub use error::QueryError;
pub use journal::JournalQuery;
pub use questions::{Answer, Arguments, Parameter, QUESTIONS, Question};

/// Rows as they are read, none of them kept.
pub type Rows<'a, T> = BoxStream<'a, Result<T, QueryError>>;

/// What is to come, or why it doesn't.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, QueryError>>;

/// A record of what agents did, to be asked.
///
/// The journal's answers are read from files while they are awaited: whoever has other work on the same thread asks from
/// a thread that may wait.
pub trait Query: Send + Sync {
    /// All sessions, oldest first.
    fn sessions(&self) -> Rows<'_, SessionRow>;

    /// Calls, each when it ended; from the journal those that are open, too, at the end. ClickHouse gives at most `limit`,
    /// the oldest first.
    fn calls(&self, filter: CallFilter, limit: u64) -> Rows<'_, CallRow>;

    /// Commands, of one session or of all, likewise.
    fn commands(&self, session: Option<SessionId>, limit: u64) -> Rows<'_, CommandRow>;

    /// Connections, of one session or of all, likewise.
    fn connections(&self, session: Option<SessionId>, limit: u64) -> Rows<'_, ConnectionRow>;

    /// One call, whole but for its bodies; `None` if it isn't there (yet).
    fn exchange(&self, call: CallId) -> Asked<'_, Option<RecordedExchange>>;

    /// A body of a call, in parts of at most 64 KiB; nothing for a call that isn't there.
    fn body(&self, call: CallId, body: Body) -> Rows<'_, Bytes>;

    /// Events as they were written, each journal's in its order. Those of later versions are left out.
    fn events(&self, wanted: EventFilter) -> Rows<'_, Event>;

    /// Whether [`Query::ask`] can answer the question.
    fn answers(&self, question: &Question) -> bool;

    /// Answers a question by name, with at most `limit` rows.
    fn ask(&self, question: &'static Question, arguments: Arguments, limit: u64) -> Asked<'_, Answer>;
}

/// One call, as it was recorded.
#[derive(Debug)]
pub struct RecordedExchange {
    /// What was asked and decided.
    pub intent: CallIntent,
    /// How it ended; `None` while it is open.
    pub outcome: Option<CallOutcome>,
    /// Both in one row.
    pub row: CallRow,
}

/// Which body of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// What the agent sent, without the framing of aws-chunked, or what it got.
    Of(Direction),
    /// What the agent sent, byte for byte.
    Framed,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// By the names of [`Event::name`].
    pub names: Vec<&'static str>,
    /// Recorded at this time or later, and a few minutes' before: a record is written a moment after what it tells of.
    pub since: Option<OffsetDateTime>,
    /// … and events of these names, whenever they were.
    pub always: Vec<&'static str>,
}

/// How long before a time something of that time can have been recorded: clocks are corrected in small steps.
pub const SLACK: time::Duration = time::Duration::minutes(5);
