//! A connection whose process and session are known.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use chaperone_identity::Resolved;
use chaperone_journal::JournalError;
use chaperone_model::{ConnectionId, ConnectionKind, ConnectionOpened, Decision, Event, ProcessFacts};
use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::{
    connection::quota::{Place, Quota},
    data_plane::{DataPlane, SessionContext},
};

/// A connection of a known process in a known session.
pub(super) struct Accepted {
    pub(super) shared: Arc<DataPlane>,
    pub(super) session: Arc<Resolved<SessionContext>>,
    pub(super) id: ConnectionId,
    pub(super) process: Arc<ProcessFacts>,
    pub(super) destination: SocketAddr,
    /// What the proxy there was asked for, if that is a proxy.
    pub(super) asked: OnceLock<Asked>,
    /// What it uses of what agents have in common.
    pub(super) share: Arc<Quota>,
    /// Its place among its session's connections, or why it is refused.
    pub(super) place: Result<Place, String>,
    /// Whether it came from the daemon's own network namespace.
    pub(super) at_home: bool,
    pub(super) opened: Mutex<bool>,
    /// Why nothing of this connection can go on: its session's or its own beginning is not recorded.
    pub(super) unrecorded: OnceLock<JournalError>,
}

/// What an agent asked a proxy for, which was answered here.
#[derive(Debug)]
pub(super) struct Asked {
    /// The name.
    pub(super) name: Option<String>,
    /// Where that is; of a name, as far as this host's resolver knows.
    pub(super) address: SocketAddr,
    /// The head that the proxy gets.
    pub(super) head: Bytes,
    /// Whether that is for a connection, and not for one answer.
    pub(super) connects: bool,
}

/// What becomes of a connection.
pub(super) struct Opening<'a> {
    /// The name that it is for.
    pub(super) name: Option<&'a str>,
    /// Where it goes on to.
    pub(super) upstream: Option<SocketAddr>,
    pub(super) kind: ConnectionKind,
    /// Why it is refused.
    pub(super) error: Option<String>,
    /// What the policies said of passing it on.
    pub(super) decision: Option<Decision>,
}

impl<'a> Opening<'a> {
    /// Its requests are looked into.
    pub(super) const fn inspected(name: &'a str, upstream: SocketAddr) -> Self {
        let kind = ConnectionKind::Inspected;
        Self { name: Some(name), upstream: Some(upstream), kind, error: None, decision: None }
    }

    pub(super) const fn metadata() -> Self {
        Self { name: None, upstream: None, kind: ConnectionKind::Metadata, error: None, decision: None }
    }

    pub(super) const fn refused(name: Option<&'a str>, why: String) -> Self {
        Self { name, upstream: None, kind: ConnectionKind::Refused, error: Some(why), decision: None }
    }
}

impl Accepted {
    /// Records what becomes of the connection, before it does.
    pub(super) async fn open(&self, opening: Opening<'_>) -> Result<(), String> {
        let Opening { name, upstream, kind, error, decision } = opening;
        *self.opened.lock() = true;
        let event = Event::ConnectionOpened(Box::new(ConnectionOpened {
            id: self.id,
            session: self.session.session.id,
            at: OffsetDateTime::now_utc(),
            process: self.process.clone(),
            destination: chaperone_model::OriginalDst(self.destination),
            upstream,
            name: name.map(str::to_owned),
            kind,
            error,
            decision,
        }));
        // A passed connection may change anything anywhere, as far as we can see.
        let wait = self.shared.journal.must_wait(kind == ConnectionKind::Passed);
        let recorded = match self.unrecorded.get() {
            Some(error) => Err(error.clone()),
            None => self.shared.journal.append(&event, wait).await,
        };
        match recorded {
            Ok(()) => Ok(()),
            // Each request is told so in AWS's own words; of the stand-in's answers nothing goes anywhere.
            Err(error) if matches!(kind, ConnectionKind::Inspected | ConnectionKind::Metadata) => {
                tracing::error!(%error, "a connection can't be recorded: nothing of it will go on");
                self.unrecorded.get_or_init(|| error);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Where the agent wants to get to.
    pub(super) fn target(&self) -> SocketAddr {
        self.asked.get().map_or(self.destination, |asked| asked.address)
    }

    /// Whether the daemon dials that name where the agent did.
    pub(super) async fn check_reach(&self, name: &str) -> Result<(), String> {
        if let Some(asked) = self.asked.get()
            && asked.name.is_some()
        {
            return Ok(()); // The daemon's own resolver has it there.
        }
        let after = self.shared.limits.connect_timeout;
        let checked = Box::pin(self.shared.reach.check(name, self.target(), &self.share, after)).await;
        checked.map_err(|error| error.to_string())
    }
}
