//! The nouns that all rooms share: who called (`Origin`, `Session`), what was asked (`Call`), what was decided
//! (`Decision`) and what is recorded of it (`Event`).
//!
//! Nothing here does I/O. Every type that reaches the journal is (de)serialised by its field names, so that a record
//! written by one version is read by the next: fields may be added with a default, never renamed or removed.

#![forbid(unsafe_code)]

mod call;
mod causes;
mod decision;
mod documented;
mod event;
mod id;
mod like;
mod origin;
mod session;
mod visible;

pub use call::{
    AccessLevel, Action, CUT, Call, LookedUp, ONLY_TEXTS, Payload, Protocol, References, TRUNCATED, UnknownResources,
};
pub use causes::with_causes;
pub use decision::{Decision, Reason, Verdict};
pub use documented::Field;
pub use event::{
    Actor, ApprovalAnswered, ApprovalAsked, ApprovalDelivered, ApprovalEnded, ApprovalRequirement, Approver,
    BodyDigest, CallIntent, CallOutcome, CommandEnded, CommandExit, CommandStarted, CommandsLost, ConnectionClosed,
    ConnectionKind, ConnectionOpened, DaemonStarted, DaemonStopped, Direction, Event, EventKind, Head, HooksRemoved,
    Masked, OperatorActed, OperatorRefused, OutcomeStatus, RecordedEvent, SessionEnded, SessionIdentified,
    SessionIdentityRefused, SessionStarted,
};
pub use id::{ApprovalId, CallId, CommandId, ConnectionId, ParseIdError, SessionId};
pub use like::is_like;
pub use origin::{CgroupId, NetnsCookie, Origin, OriginalDst, ProcessFacts, SocketCookie};
pub use session::{Container, Identity, Session};
pub use visible::{misleads, visible};
