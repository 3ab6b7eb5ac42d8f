//! What the journal records: one table of events, from which their names, what they are about, whose they are and
//! their documentation come.
//!
//! An event is added by one entry in the table below and a struct in `contents.rs`. Adding is free: a version that
//! doesn't know an event keeps it, ships it and counts it. Changing or removing one is not.

mod contents;

use serde::{Deserialize, Serialize};

pub use contents::{
    Actor, ApprovalAnswered, ApprovalAsked, ApprovalDelivered, ApprovalEnded, ApprovalRequirement, Approver,
    BodyDigest, CallIntent, CallOutcome, CommandEnded, CommandExit, CommandStarted, CommandsLost, ConnectionClosed,
    ConnectionKind, ConnectionOpened, DaemonStarted, DaemonStopped, Direction, Head, HooksRemoved, Masked,
    OperatorActed, OperatorRefused, OutcomeStatus, SessionEnded, SessionIdentified, SessionIdentityRefused,
    SessionStarted,
};

use crate::SessionId;

/// What is known of a kind of event without any event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKind {
    /// Its name: the member `event` of its JSON.
    pub name: &'static str,
    /// What the record's id is the id of: `approval`, `call`, `command`, `connection`, `session` or `nothing`.
    pub about: &'static str,
    /// What it says.
    pub documentation: &'static str,
}

macro_rules! events {
    (@id nothing) => { [0; 16] };
    (@id $about:ident $id:expr) => { *$id.as_bytes() };
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident($event:ident: $contents:ty) = $name:literal, about: $about:ident $($id:expr)?, session: $session:expr;
    )+) => {
        /// One record of the journal, bodies' bytes excepted: those are frames of their own.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "event")]
        pub enum Event {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $name)]
                $variant($contents),
            )+
        }

        impl Event {
            /// All kinds of events, by name.
            pub const KINDS: &'static [EventKind] = &[
                $(EventKind { name: $name, about: stringify!($about), documentation: concat!($($doc),+) },)+
            ];

            /// Its name.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// The id of the approval, call, command, connection or session that it is about; zero if of none.
            #[allow(unused_variables)] // of events that are about nothing
            pub fn about(&self) -> [u8; 16] {
                match self {
                    $(Self::$variant($event) => events!(@id $about $($id)?),)+
                }
            }

            /// The session that it belongs to.
            #[allow(unused_variables)] // of events that are no session's
            pub fn session(&self) -> Option<SessionId> {
                match self {
                    $(Self::$variant($event) => $session,)+
                }
            }
        }
    };
}

events! {
    /// A person answered a question.
    ApprovalAnswered(e: Box<ApprovalAnswered>) = "approval-answered", about: approval e.id, session: Some(e.session);
    /// A call waits for people to approve it.
    ApprovalAsked(e: Box<ApprovalAsked>) = "approval-asked", about: approval e.id, session: Some(e.session);
    /// A message about a question went to a webhook or to Slack, or couldn't.
    ApprovalDelivered(e: Box<ApprovalDelivered>) = "approval-delivered", about: approval e.id, session: Some(e.session);
    /// A question is over: its call went out, or never will.
    ApprovalEnded(e: ApprovalEnded) = "approval-ended", about: approval e.id, session: Some(e.session);
    /// A call was decoded and decided; written before anything of it leaves for AWS.
    CallIntent(e: Box<CallIntent>) = "call-intent", about: call e.id, session: Some(e.session);
    /// A call is over.
    CallOutcome(e: Box<CallOutcome>) = "call-outcome", about: call e.id, session: Some(e.session);
    /// A command of an agent's ended.
    CommandEnded(e: CommandEnded) = "command-ended", about: command e.id, session: None;
    /// An agent executed something.
    CommandStarted(e: Box<CommandStarted>) = "command-started", about: command e.id, session: e.session;
    /// Commands began or ended, and it isn't known which.
    CommandsLost(e: CommandsLost) = "commands-lost", about: nothing, session: None;
    /// A connection of an agent ended.
    ConnectionClosed(e: ConnectionClosed) = "connection-closed", about: connection e.id, session: Some(e.session);
    /// A connection of an agent was accepted.
    ConnectionOpened(e: Box<ConnectionOpened>) = "connection-opened", about: connection e.id, session: Some(e.session);
    /// The daemon began to work.
    DaemonStarted(e: DaemonStarted) = "daemon-started", about: nothing, session: None;
    /// The daemon stopped in an orderly way.
    DaemonStopped(e: DaemonStopped) = "daemon-stopped", about: nothing, session: None;
    /// Somebody took the kernel hooks off: from here on agents reach AWS by themselves.
    HooksRemoved(e: HooksRemoved) = "hooks-removed", about: nothing, session: None;
    /// An operator asks the daemon to do something; written before it is done.
    OperatorActed(e: Box<OperatorActed>) = "operator-acted", about: nothing, session: None;
    /// The daemon didn't do what an operator asked for.
    OperatorRefused(e: Box<OperatorRefused>) = "operator-refused", about: nothing, session: None;
    /// A session is over.
    SessionEnded(e: SessionEnded) = "session-ended", about: session e.id, session: Some(e.id);
    /// Who a session's agent is has become known, or is known for longer.
    SessionIdentified(e: Box<SessionIdentified>) = "session-identified", about: session e.id, session: Some(e.id);
    /// A token that came for a session was refused.
    SessionIdentityRefused(e: SessionIdentityRefused) = "session-identity-refused", about: session e.id, session: Some(e.id);
    /// A session began.
    SessionStarted(e: SessionStarted) = "session-started", about: session e.session.id, session: Some(e.session.id);
}

/// An event as it was found, which may be a later version's.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // it is read and taken apart at once, and almost always known
pub enum RecordedEvent {
    /// One that this version knows.
    Known(Event),
    /// One that it doesn't, by its name.
    Unknown(String),
}

impl RecordedEvent {
    /// Reads an event's JSON. With `by_later`, it was written by a version that may know more: then an event whose name
    /// is known and whose contents aren't (a new way to end, say) is unknown too, and not an error.
    pub fn read(json: &[u8], by_later: bool) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Named {
            event: String,
        }
        serde_json::from_slice(json).map(Self::Known).or_else(|error| match serde_json::from_slice::<Named>(json) {
            Ok(Named { event }) if by_later || Event::KINDS.iter().all(|kind| kind.name != event) => {
                Ok(Self::Unknown(event))
            }
            _ => Err(error),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Known(event) => event.name(),
            Self::Unknown(name) => name,
        }
    }

    /// The event, if this version knows it.
    pub fn known(self) -> Option<Event> {
        match self {
            Self::Known(event) => Some(event),
            Self::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_sorted_and_each_name_stands_once() {
        assert!(Event::KINDS.is_sorted_by(|a, b| a.name < b.name));
        assert!(Event::KINDS.iter().all(|kind| !kind.documentation.trim().is_empty()));
    }

    #[test]
    fn the_name_in_the_json_is_the_one_in_the_table() {
        let event = Event::DaemonStopped(DaemonStopped { at: time::OffsetDateTime::UNIX_EPOCH });
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["event"], event.name());
        assert_eq!(event.about(), [0; 16]);
    }

    #[test]
    fn what_a_later_version_adds_is_unknown_and_what_is_broken_is_an_error() {
        let unknown = |name: &str| RecordedEvent::Unknown(name.into());
        let new = br#"{"event":"call-held","id":7}"#;
        for by_later in [false, true] {
            assert_eq!(RecordedEvent::read(new, by_later).unwrap(), unknown("call-held"));
        }
        let grown = br#"{"event":"daemon-stopped","at":"1970-01-01T00:00:00Z","why":"an update"}"#;
        assert!(matches!(RecordedEvent::read(grown, false).unwrap(), RecordedEvent::Known(Event::DaemonStopped(_))));
        let changed = br#"{"event":"command-ended","exit":{"core":1}}"#;
        assert_eq!(RecordedEvent::read(changed, true).unwrap(), unknown("command-ended"));
        assert!(RecordedEvent::read(changed, false).is_err());
        for broken in [b"{}".as_slice(), b"[1]", b"", br#"{"event":7}"#] {
            assert!(RecordedEvent::read(broken, true).is_err());
        }
    }
}
