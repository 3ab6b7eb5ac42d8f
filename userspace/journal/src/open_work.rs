//! What is open at a point of the journal: calls, connections and sessions that began and did not end.
//!
//! The writer keeps it up to date, every segment begins with a copy (so that a start reads one segment, not all), and
//! a start after a crash closes what is left in it.

use chaperone_model::{
    BodyDigest, CallId, CallOutcome, ConnectionClosed, ConnectionId, Direction, Event, OutcomeStatus, RecordedEvent,
    Session, SessionId,
};
use foldhash::HashMap;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{kind::Kind, record::RecordHead};

/// What an event opens or closes: all that the writer needs to know of it.
#[derive(Debug)]
pub(crate) enum Mark {
    CallOpened(CallId, SessionId),
    CallClosed(CallId),
    ConnectionOpened(ConnectionId, SessionId),
    ConnectionClosed(ConnectionId),
    SessionOpened(Box<Session>),
    SessionClosed(SessionId),
}

impl Mark {
    pub(crate) fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::CallIntent(intent) => Self::CallOpened(intent.id, intent.session),
            Event::CallOutcome(outcome) => Self::CallClosed(outcome.id),
            Event::ConnectionClosed(closed) => Self::ConnectionClosed(closed.id),
            Event::ConnectionOpened(opened) => Self::ConnectionOpened(opened.id, opened.session),
            Event::SessionEnded(ended) => Self::SessionClosed(ended.id),
            Event::SessionStarted(started) => Self::SessionOpened(Box::new(started.session.clone())),
            // A command's process goes on whether anybody watches it or not.
            _ => return None,
        })
    }

    /// Of an event of whatever version, with its record's id and payload. What a later version says of a call's end,
    /// say, may not be understood; that it ended is.
    pub(crate) fn of_recorded(event: &RecordedEvent, id: [u8; 16], payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Owned {
            session: SessionId,
        }
        let session = || serde_json::from_slice::<Owned>(payload).ok().map(|owned| owned.session);
        let name = match event {
            RecordedEvent::Known(event) => return Self::of(event),
            RecordedEvent::Unknown(name) => name.as_str(),
        };
        Some(match name {
            "call-intent" => Self::CallOpened(CallId::from_bytes(id), session()?),
            "call-outcome" => Self::CallClosed(CallId::from_bytes(id)),
            "connection-closed" => Self::ConnectionClosed(ConnectionId::from_bytes(id)),
            "connection-opened" => Self::ConnectionOpened(ConnectionId::from_bytes(id), session()?),
            "session-ended" => Self::SessionClosed(SessionId::from_bytes(id)),
            _ => return None,
        })
    }
}

/// A call without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenCall {
    pub(crate) session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<BodyDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<BodyDigest>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenWork {
    pub(crate) calls: HashMap<CallId, OpenCall>,
    pub(crate) connections: HashMap<ConnectionId, SessionId>,
    pub(crate) sessions: HashMap<SessionId, Session>,
}

/// The payload of a carry record: a part of what is open.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Carry {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) calls: Vec<(CallId, OpenCall)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) connections: Vec<(ConnectionId, SessionId)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sessions: Vec<Session>,
}

/// Entries in one carry record: a session's can be a few hundred bytes, and the record must stay under the limit.
const CARRY_ENTRIES: usize = 500;

impl OpenWork {
    pub(crate) fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::CallOpened(call, session) => {
                self.calls.insert(call, OpenCall { session, request: None, response: None });
            }
            Mark::CallClosed(call) => {
                self.calls.remove(&call);
            }
            Mark::ConnectionOpened(connection, session) => {
                self.connections.insert(connection, session);
            }
            Mark::ConnectionClosed(connection) => {
                self.connections.remove(&connection);
            }
            Mark::SessionOpened(session) => {
                self.sessions.insert(session.id, *session);
            }
            Mark::SessionClosed(session) => {
                self.sessions.remove(&session);
            }
        }
    }

    /// Notes how far a body has come.
    pub(crate) fn body(&mut self, head: &RecordHead) {
        if let Some(call) = self.calls.get_mut(&CallId::from_bytes(head.id)) {
            let bytes = head.body_offset + u64::from(head.payload_len);
            let so_far = Some(BodyDigest { bytes, sha256: head.digest, kept: None });
            match head.kind {
                Kind::RequestBody => call.request = so_far,
                _ => call.response = so_far,
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len() + self.connections.len() + self.sessions.len()
    }

    /// In parts that fit into one record each.
    pub(crate) fn carries(&self) -> Vec<Carry> {
        let mut carries = Vec::new();
        let calls: Vec<_> = self.calls.iter().map(|(id, call)| (*id, call.clone())).collect();
        carries.extend(calls.chunks(CARRY_ENTRIES).map(|part| Carry { calls: part.to_vec(), ..Carry::default() }));
        let connections: Vec<_> = self.connections.iter().map(|(id, session)| (*id, *session)).collect();
        carries.extend(
            connections.chunks(CARRY_ENTRIES).map(|part| Carry { connections: part.to_vec(), ..Carry::default() }),
        );
        let sessions: Vec<_> = self.sessions.values().cloned().collect();
        carries.extend(
            sessions.chunks(CARRY_ENTRIES / 10).map(|part| Carry { sessions: part.to_vec(), ..Carry::default() }),
        );
        carries
    }

    pub(crate) fn add(&mut self, carry: Carry) {
        self.calls.extend(carry.calls);
        self.connections.extend(carry.connections);
        self.sessions.extend(carry.sessions.into_iter().map(|session| (session.id, session)));
    }

    /// The events that close the calls and connections, oldest first. Sessions are the daemon's to end or resume.
    pub(crate) fn closing_events(&self, at: OffsetDateTime) -> Vec<Event> {
        let why = "the daemon stopped in the middle of it";
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by_key(|(id, _)| **id);
        let mut connections: Vec<_> = self.connections.iter().collect();
        connections.sort_by_key(|(id, _)| **id);
        let outcomes = calls.into_iter().map(|(id, call)| {
            Event::CallOutcome(Box::new(CallOutcome {
                id: *id,
                session: call.session,
                at,
                outcome: OutcomeStatus::Interrupted,
                status: None,
                aws_request_id: None,
                error_code: None,
                error: Some(why.into()),
                head: None,
                request: call.request,
                request_payload: None,
                response: call.response,
                duration_us: 0,
                ttfb_us: None,
                masked: Vec::new(),
                unmasked: Vec::new(),
            }))
        });
        let closed = connections.into_iter().map(|(id, session)| {
            Event::ConnectionClosed(ConnectionClosed {
                id: *id,
                session: *session,
                at,
                sent_bytes: 0,
                received_bytes: 0,
                error: Some(why.into()),
            })
        });
        outcomes.chain(closed).collect()
    }
}

/// The kind of a body's frames.
pub(crate) const fn body_kind(direction: Direction) -> Kind {
    match direction {
        Direction::Request => Kind::RequestBody,
        Direction::Response => Kind::ResponseBody,
    }
}
