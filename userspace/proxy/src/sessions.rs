//! A session's life: where it begins, what it is given, and where it ends. All of it is recorded here and nowhere else.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use chaperone_capture::cgroup_id;
use chaperone_identity::{Containers, Ended, Ownership, Resolved};
use chaperone_journal::JournalError;
use chaperone_model::{CgroupId, Container, Event, Session, SessionEnded, SessionId, SessionStarted};
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use crate::{
    connection::subtree,
    data_plane::{DataPlane, SessionContext},
    identities::IdentityState,
};

/// How long an answer of the metadata stand-in waits for the record of its session's beginning.
const METADATA_PATIENCE: Duration = Duration::from_millis(300);

impl DataPlane {
    /// The session of a cgroup, which begins now if it hasn't. Its beginning is on disk before anything else of it;
    /// what can't be recorded is tried again by whoever comes next.
    pub(crate) async fn session_at(
        &self,
        path: &str,
    ) -> Result<(Arc<Resolved<SessionContext>>, Result<(), JournalError>), String> {
        let container = self.describe(path).await;
        self.session_of(path, container).await
    }

    /// What is to be known of a cgroup that is a container, for its session to begin. It reads files.
    pub(crate) async fn describe(&self, path: &str) -> Option<Container> {
        self.decide_at(path).await;
        self.container_at(path).await
    }

    /// As [`session_at`](Self::session_at), with what [`describe`](Self::describe) told.
    pub(crate) async fn session_of(
        &self,
        path: &str,
        container: Option<Container>,
    ) -> Result<(Arc<Resolved<SessionContext>>, Result<(), JournalError>), String> {
        let session = self.open_session(path, container)?;
        let recorded = self.record_beginning(&session).await;
        Ok((session, recorded))
    }

    /// As [`session_at`](Self::session_at), for whoever asks the metadata stand-in: SDKs give up after a second, and say that
    /// there are no credentials. A disk or a token file that takes longer is waited for by the calls that are made by them.
    pub(crate) async fn session_soon(
        self: &Arc<Self>,
        path: &str,
    ) -> Result<(Arc<Resolved<SessionContext>>, Result<(), JournalError>), String> {
        let container = self.describe(path).await;
        let session = self.open_session(path, container)?;
        let (shared, begins) = (Arc::clone(self), Arc::clone(&session));
        let beginning = tokio::spawn(async move { shared.record_beginning(&begins).await });
        let recorded = match tokio::time::timeout(METADATA_PATIENCE, beginning).await {
            Ok(Ok(recorded)) => recorded,
            Ok(Err(_)) | Err(_) => Ok(()),
        };
        Ok((session, recorded))
    }

    fn open_session(&self, path: &str, container: Option<Container>) -> Result<Arc<Resolved<SessionContext>>, String> {
        let id_of = |folder: &std::path::Path| cgroup_id(folder).map_err(io::Error::other);
        let (session, is_new) = self
            .sessions
            .resolve(path, id_of, container, |session| self.own(session))
            .map_err(|error| error.to_string())?;
        if is_new {
            let session = &session.session;
            tracing::info!(session = %session.id, agent = session.agent, cgroup = path, "a session began");
            let shared = self.cgroup_root.join(self.sessions.sharing(path).0.trim_start_matches('/'));
            if let Err(error) = subtree::bound(&shared, self.limits.session_cgroups) {
                tracing::warn!(cgroup = %shared.display(), %error, "how many cgroups it may make couldn't be bounded");
            }
            if let Some(runtime) = session.container.as_ref().and_then(Containers::unsupported_runtime) {
                tracing::error!(
                    session = %session.id,
                    agent = session.agent,
                    cgroup = path,
                    runtime,
                    "what this agent's container sends can't be captured: its runtime has a network of its own; run agents by \
                     runc or crun"
                );
            }
        }
        Ok(session)
    }

    /// Records that the session began, unless that is done; whoever comes while it is waits for it.
    async fn record_beginning(&self, session: &Resolved<SessionContext>) -> Result<(), JournalError> {
        let recorded = session.own.recorded.get_or_try_init(async || {
            let event =
                Event::SessionStarted(SessionStarted { session: session.session.clone(), host: self.host.clone() });
            self.journal.append(&event, true).await?;
            self.identify(session).await;
            Ok(())
        });
        recorded.await.copied()
    }

    /// Whose the container at `path` is. Reads files.
    pub fn decide(&self, path: &str) -> Ownership {
        let cgroup = Containers::cgroup(path).unwrap_or(path);
        self.sessions.decide(cgroup, self.containers.described(cgroup).as_ref())
    }

    /// Finds out whose a container is, if only its description tells.
    async fn decide_at(&self, path: &str) {
        let Some(cgroup) = self.sessions.undecided(path).map(str::to_owned) else { return };
        let described = self.descriptions.of(&cgroup).await;
        self.sessions.decide(&cgroup, described.as_deref());
    }

    /// What the session's cgroup is, if it is a container and the session is yet to begin.
    async fn container_at(&self, path: &str) -> Option<Container> {
        if !Containers::is_container(path) {
            return None;
        }
        let session = self.sessions.lacking(path, |folder| cgroup_id(folder).ok())?.to_owned();
        let described = self.descriptions.of(&session).await;
        Containers::told(&session, described.map(Arc::unwrap_or_clone))
    }

    /// A session for a process that is about to start in the cgroup at `path`.
    pub async fn begin_session(&self, path: &str) -> Result<Arc<Resolved<SessionContext>>, String> {
        let (session, recorded) = self.session_at(path).await?;
        recorded.map(|()| session).map_err(|error| error.to_string())
    }

    fn own(&self, session: &Session) -> SessionContext {
        let (key, boot) = &self.placeholders;
        // A cgroup's id is never used again before the next boot.
        let cgroup = session.cgroup.0.to_be_bytes();
        let generation = self.generation();
        SessionContext {
            placeholder: key.derive(session.id, &[boot.as_bytes(), &cgroup, session.agent.as_bytes()]),
            vended: chaperone_aws::VendedCredentials::default(),
            masking: crate::Placeholders::new(),
            lent: ArcSwap::new(generation.lending.to(session)),
            standing: ArcSwap::from_pointee(IdentityState::unidentified(generation.engine.principal(session))),
            identifying: tokio::sync::Mutex::new(()),
            id: session.id.to_string(),
            recorded: OnceCell::new(),
        }
    }

    /// Records a session that nobody saw, of a cgroup that is gone: it begins and ends at once.
    pub(crate) async fn missed_session(&self, cgroup: CgroupId, path: &str) -> Result<SessionId, String> {
        let session = self.sessions.missed(cgroup, path).map_err(|error| error.to_string())?;
        let (id, at) = (session.id, session.started);
        tracing::info!(session = %id, agent = session.agent, cgroup = path, "a session is over before it was seen");
        let begun = Event::SessionStarted(SessionStarted { session: session.clone(), host: self.host.clone() });
        let ended = Event::SessionEnded(SessionEnded { id, at, why: "its cgroup was gone at once".to_owned() });
        for event in [begun, ended] {
            self.journal.append(&event, false).await.map_err(|error| error.to_string())?;
        }
        self.sessions.is_over(&session);
        Ok(id)
    }

    /// Records the ends of sessions, until told to stop.
    pub async fn watch_sessions(self: Arc<Self>) {
        loop {
            let ended = tokio::select! {
                () = self.stop.cancelled() => break,
                ended = self.sessions.ended() => ended,
            };
            match ended {
                Ok(ended) => ended.into_iter().for_each(|it| self.end_session(it, "its cgroup is empty")),
                Err(error) => {
                    tracing::error!(%error, "cgroups can't be watched: sessions will not be seen to end");
                    break;
                }
            }
        }
    }

    /// Records the end of a session. One that is over before its beginning is on record, as a cgroup may be that has one short
    /// process, waits for that by itself: told the other way around, it would seem to be open for ever.
    pub(crate) fn end_session(self: &Arc<Self>, Ended(session): Ended<SessionContext>, why: &'static str) {
        let id = session.session.id;
        self.approvals.end_session(id);
        self.budgets.end_session(id);
        if session.own.recorded.initialized() {
            return self.record_end(id, why);
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            match shared.record_beginning(&session).await {
                Ok(()) => shared.record_end(id, why),
                Err(error) => tracing::error!(session = %id, %error, "a session is over that could not be recorded"),
            }
        });
    }

    fn record_end(&self, id: SessionId, why: &str) {
        let event = Event::SessionEnded(SessionEnded { id, at: OffsetDateTime::now_utc(), why: why.to_owned() });
        if let Err(error) = self.journal.append_now(&event) {
            tracing::error!(session = %id, %error, "the end of a session could not be recorded");
        }
    }
}
