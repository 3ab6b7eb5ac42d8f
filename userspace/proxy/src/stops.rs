//! Agents and sessions that an operator has stopped: nothing of theirs goes out until they are resumed, not over connections
//! that are open either, and not after a restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use chaperone_model::{Reason, Session, SessionId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    approvals::durable,
    call::error::{Kind, Refusal},
};

/// That an agent or a session is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Who or what.
    pub of: Stopped,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who stopped it.
    pub by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
}

/// What is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// All sessions of this agent, those to come as well.
    Agent(String),
    /// One session, and what runs in cgroups below its own. After a restart of the daemon its cgroup has another session's
    /// id, and is still stopped.
    Session {
        /// The session that was named.
        id: SessionId,
        /// Whose it is.
        agent: String,
        /// Its cgroup.
        cgroup: String,
        /// That cgroup's own number, which no later one of the same path has until the machine is started again.
        number: u64,
        /// The machine's start that the number belongs to.
        boot: String,
    },
}

impl Stopped {
    /// This session.
    pub fn session(session: &Session, boot: &str) -> Self {
        Self::Session {
            id: session.id,
            agent: session.agent.clone(),
            cgroup: session.cgroup_path.clone(),
            number: session.cgroup.0,
            boot: boot.to_owned(),
        }
    }

    /// The name that resumes it.
    pub fn name(&self) -> String {
        match self {
            Self::Agent(name) => name.clone(),
            Self::Session { id, .. } => id.to_string(),
        }
    }
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(name) => write!(f, "the agent `{name}`"),
            Self::Session { id, agent, .. } => write!(f, "the session {id} of `{agent}`"),
        }
    }
}

impl Stop {
    fn holds(&self, session: &Session, boot: &str) -> bool {
        match &self.of {
            Stopped::Agent(name) => *name == session.agent,
            Stopped::Session { id, cgroup, number, boot: then, .. } => {
                *id == session.id
                    || then == boot
                        && (*number == session.cgroup.0
                            || session.cgroup_path.strip_prefix(cgroup).is_some_and(|rest| rest.starts_with('/')))
            }
        }
    }

    /// Who stopped it, as an agent is told: people's names are none of its business.
    fn whom(&self) -> &'static str {
        if self.by.starts_with("budget ") { "its budget" } else { "an operator" }
    }

    /// What the agent is told: language models read errors.
    pub(crate) fn refusal(&self) -> Refusal {
        let why = match self.reason.as_str() {
            "" => String::new(),
            why => format!(" (\"{why}\")"),
        };
        let message = format!(
            "not permitted: {} is stopped by {}{why}; no call is made until it is resumed, so trying again doesn't help",
            self.of,
            self.whom()
        );
        Refusal::denied(Kind::AccessDenied, Reason::Stopped, message)
    }
}

/// Why a stop can't be kept.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct StopsError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// All that is stopped on this host.
#[derive(Debug)]
pub struct Stops {
    current: watch::Sender<Arc<Vec<Stop>>>,
    path: PathBuf,
    boot: String,
    /// One at a time writes, so that what is on disk is what came last.
    writing: parking_lot::Mutex<()>,
}

impl Stops {
    /// What an earlier daemon was told. A file that can't be read is an error: who was stopped would run again.
    pub fn open(path: &Path, boot: &str) -> Result<Arc<Self>, StopsError> {
        let failed = |source| StopsError { doing: "reading who is stopped from", path: path.to_owned(), source };
        let stops: Vec<Stop> = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(io::Error::other(error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let current = watch::Sender::new(Arc::new(stops));
        Ok(Arc::new(Self {
            current,
            path: path.to_owned(),
            boot: boot.to_owned(),
            writing: parking_lot::Mutex::default(),
        }))
    }

    /// What keeps this session from anything.
    pub fn of(&self, session: &Session) -> Option<Stop> {
        self.current.borrow().iter().find(|stop| stop.holds(session, &self.boot)).cloned()
    }

    /// Waits until the session is stopped.
    pub(crate) async fn stopped(&self, session: &Session) -> Stop {
        let mut changes = self.current.subscribe();
        loop {
            if let Some(stop) = changes.borrow_and_update().iter().find(|stop| stop.holds(session, &self.boot)) {
                return stop.clone();
            }
            let _ = changes.changed().await;
        }
    }

    /// Waits until the session is not stopped.
    pub(crate) async fn resumed(&self, session: &Session) {
        let mut changes = self.current.subscribe();
        let _ = changes.wait_for(|stops| !stops.iter().any(|stop| stop.holds(session, &self.boot))).await;
    }

    /// All of them.
    pub fn list(&self) -> Arc<Vec<Stop>> {
        self.current.borrow().clone()
    }

    /// The machine's start that cgroups' numbers belong to.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Puts it in force. [`keep`](Self::keep) writes it down.
    pub fn stop(&self, stop: Stop) {
        self.current.send_modify(|stops| {
            let mut all: Vec<_> = stops.iter().filter(|other| other.of != stop.of).cloned().collect();
            all.push(stop);
            *stops = Arc::new(all);
        });
    }

    /// Writes down who is stopped. It blocks.
    pub fn keep(&self) -> Result<(), StopsError> {
        let _alone = self.writing.lock();
        self.write(&self.list())
    }

    /// Writes down that it is no more, and then lets it go on. Gives what that was.
    pub fn resume(&self, name: &str) -> Result<Vec<Stop>, StopsError> {
        let _alone = self.writing.lock();
        let (gone, left): (Vec<_>, Vec<_>) = self.list().iter().cloned().partition(|stop| stop.of.name() == name);
        if !gone.is_empty() {
            self.write(&left)?;
            // Others may have been stopped meanwhile.
            self.current.send_modify(|stops| {
                *stops = Arc::new(stops.iter().filter(|stop| !gone.contains(stop)).cloned().collect());
            });
        }
        Ok(gone)
    }

    fn write(&self, stops: &[Stop]) -> Result<(), StopsError> {
        let bytes = serde_json::to_vec_pretty(stops).map_err(io::Error::other);
        let failed = |source| StopsError { doing: "keeping who is stopped in", path: self.path.clone(), source };
        bytes.and_then(|bytes| durable(&self.path, &bytes)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use chaperone_model::CgroupId;

    use super::*;

    fn session(agent: &str, cgroup: u64, path: &str) -> Session {
        Session {
            id: SessionId::new(),
            agent: agent.into(),
            groups: Vec::new(),
            cgroup: CgroupId(cgroup),
            cgroup_path: path.into(),
            container: None,
            parent: None,
            started: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn stop(of: Stopped) -> Stop {
        Stop { of, at: OffsetDateTime::UNIX_EPOCH, by: "alice".into(), reason: "it deletes things".into() }
    }

    fn one(session: &Session, boot: &str) -> Stop {
        stop(Stopped::session(session, boot))
    }

    #[test]
    fn who_is_stopped_stays_so_over_a_restart_and_until_it_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stops.json");
        let open = || Stops::open(&path, "boot-1").unwrap();
        let (own, other) = (session("coder", 7, "/agents/a"), session("coder", 8, "/agents/ab"));
        let stops = open();
        assert!(stops.of(&own).is_none());
        stops.stop(one(&own, "boot-1"));
        stops.keep().unwrap();
        let (inside, again) = (session("coder", 9, "/agents/a/libpod-1"), session("coder", 7, "/agents/a"));
        for stops in [stops, open()] {
            assert!(stops.of(&own).is_some() && stops.of(&inside).is_some() && stops.of(&again).is_some());
            assert!(stops.of(&other).is_none());
        }
        // The same number after the machine was started again is another cgroup's.
        assert!(Stops::open(&path, "boot-2").unwrap().of(&again).is_none());

        let stops = open();
        stops.stop(stop(Stopped::Agent("coder".into())));
        let told = stops.of(&other).unwrap().refusal().message;
        assert!(told.contains("the agent `coder` is stopped") && told.contains("it deletes things"), "{told}");
        assert!(stops.of(&session("builder", 10, "/b")).is_none());
        assert_eq!(stops.resume("nobody").unwrap(), []);
        assert_eq!(stops.resume("coder").unwrap().len(), 1);
        assert!(stops.of(&other).is_none() && stops.of(&own).is_some());
        assert_eq!(stops.resume(&own.id.to_string()).unwrap().len(), 1);
        assert!(open().list().is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stops.json");
        fs::write(&path, "[{").unwrap();
        let error = Stops::open(&path, "b").unwrap_err().to_string();
        assert!(error.contains("reading who is stopped from") && error.contains("stops.json"), "{error}");
    }

    #[tokio::test]
    async fn who_waits_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let stops = Stops::open(&folder.path().join("stops.json"), "b").unwrap();
        let own = session("coder", 7, "/agents/a");
        let waiting = {
            let (stops, own) = (stops.clone(), own.clone());
            tokio::spawn(async move { stops.stopped(&own).await })
        };
        stops.stop(stop(Stopped::Agent("builder".into())));
        stops.stop(stop(Stopped::Agent("coder".into())));
        assert_eq!(waiting.await.unwrap().of, Stopped::Agent("coder".into()));
        let waiting = {
            let (stops, own) = (stops.clone(), own.clone());
            tokio::spawn(async move { stops.resumed(&own).await })
        };
        stops.resume("coder").unwrap();
        waiting.await.unwrap();
    }
}
