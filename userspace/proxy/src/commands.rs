//! What agents execute, recorded.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use chaperone_capture::{CommandEvent, StartedCommand, cgroup_path};
use chaperone_model::{CgroupId, CommandEnded, CommandStarted, CommandsLost, Event, SessionId};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::data_plane::DataPlane;

/// How many commands of containers that are no agent's are remembered, until they end: as many as the hooks remember.
const MAX_NOBODYS: usize = 65_536;
/// How long the record of all commands waits for the description of one's container, in its engine's files.
const MAX_DESCRIBING: Duration = Duration::from_secs(2);

/// Sessions whose containers take longer to be described than anybody waits, by their enrolled cgroups.
type Late = HashMap<CgroupId, JoinHandle<Result<SessionId, String>>>;

impl DataPlane {
    /// Records commands as they come, until there come no more. What can't be recorded is counted, and told as soon as
    /// something can be again; `recorded` hears of each count of losses that is in the journal.
    pub async fn record_commands(
        self: Arc<Self>,
        mut commands: mpsc::Receiver<CommandEvent>,
        recorded: impl Fn(u64) + Send,
    ) {
        // Those that the hooks had no room for, which outlive the daemon; and ours, which don't.
        let (mut untold, mut unrecorded) = (0_u64, 0_u64);
        let (mut nobodys, mut late) = (HashSet::new(), Late::new());
        while let Some(event) = commands.recv().await {
            let event = match event {
                CommandEvent::Ended { id, .. } if nobodys.remove(&id) => None,
                CommandEvent::Ended { id, at, exit } => {
                    Some(Event::CommandEnded(CommandEnded { id, at: at.into(), exit }))
                }
                CommandEvent::Lost(count) => {
                    untold = untold.saturating_add(count);
                    None
                }
                // Perhaps others', perhaps agents'.
                CommandEvent::Missed(count) => {
                    unrecorded = unrecorded.saturating_add(count);
                    None
                }
                // The daemon's own to act upon.
                CommandEvent::Namespace { .. } => None,
                CommandEvent::Started(mut started) => {
                    let session = self.session_of_command(&started, &mut late).await;
                    if session.is_none() && self.is_nobodys(&started) {
                        // Of a container that was held, and is no agent's.
                        if nobodys.len() < MAX_NOBODYS {
                            nobodys.insert(started.id);
                        }
                        continue;
                    }
                    // Those that wait behind it are not to be lost for a digest.
                    let is_crowded = commands.len() > commands.max_capacity() / 2;
                    let digest = if is_crowded { started.exe_sha256.now() } else { started.exe_sha256.wait().await };
                    if digest.is_none() {
                        self.metrics.undigested.inc();
                    }
                    Some(Event::CommandStarted(Box::new(of(*started, session, digest))))
                }
            };
            if untold + unrecorded > 0 {
                let count = untold + unrecorded;
                let lost = Event::CommandsLost(CommandsLost { at: OffsetDateTime::now_utc(), count });
                match self.journal.append(&lost, true).await {
                    Ok(()) => {
                        tracing::warn!(count, "commands of agents' began or ended, and it isn't known which");
                        recorded(untold);
                        (untold, unrecorded) = (0, 0);
                    }
                    Err(error) => tracing::error!(%error, count, "lost commands could not be recorded"),
                }
            }
            if let Some(event) = event
                && let Err(error) = self.journal.append(&event, false).await
            {
                unrecorded += 1;
                tracing::error!(%error, "a command could not be recorded");
            }
        }
    }

    fn is_nobodys(&self, started: &StartedCommand) -> bool {
        let path = started.path.clone().or_else(|| started.enrolled_path.clone());
        self.sessions.is_nobodys(started.cgroup, path.as_deref())
            || self.sessions.is_nobodys(started.enrolled, started.enrolled_path.as_deref())
    }

    /// The session of the process's cgroup, by the path that it has or had; of the enrolled one above it, if nobody saw that. If
    /// they are gone, the session that they had or would have had.
    async fn session_of_command(self: &Arc<Self>, started: &StartedCommand, late: &mut Late) -> Option<SessionId> {
        let path = || started.path.clone().or_else(|| cgroup_path(&self.cgroup_root, started.enrolled).ok());
        if let Some(path) = path() {
            let known = self.sessions.known(&path, |folder: &Path| chaperone_capture::cgroup_id(folder).ok());
            if known.is_some() {
                return known;
            }
            match self.beginning(path, started.enrolled, late).await {
                Some(Ok(session)) => return Some(session),
                // It may be gone by now.
                Some(Err(error)) => tracing::debug!(error, "a command's session doesn't begin"),
                None => return None,
            }
        }
        if let Some(known) = self.sessions.last_of([started.cgroup, started.enrolled]) {
            return Some(known);
        }
        let (cgroup, path) = match (&started.path, &started.enrolled_path) {
            (Some(path), _) => (started.cgroup, path),
            (None, path) => (started.enrolled, path.as_ref()?),
        };
        match self.missed_session(cgroup, path).await {
            Ok(session) => Some(session),
            Err(error) => {
                tracing::debug!(error, "a command in no session");
                None
            }
        }
    }

    /// The session that begins at that path; `None` if its container takes longer to be described than everybody's commands
    /// may wait. It begins later, and later commands are of it.
    async fn beginning(
        self: &Arc<Self>,
        path: String,
        enrolled: CgroupId,
        late: &mut Late,
    ) -> Option<Result<SessionId, String>> {
        late.retain(|_, beginning| !beginning.is_finished());
        if late.contains_key(&enrolled) {
            return None;
        }
        let (shared, at) = (self.clone(), path.clone());
        let (described, is_described) = oneshot::channel();
        let beginning = tokio::spawn(async move {
            let container = shared.describe(&at).await;
            // Perhaps nobody waits any more.
            let _ = described.send(());
            let (session, recorded) = shared.session_of(&at, container).await?;
            recorded.map(|()| session.session.id).map_err(|error| error.to_string())
        });
        // An error of the channel's is the task's end, which is as good as its word.
        if tokio::time::timeout(MAX_DESCRIBING, is_described).await.is_err() {
            tracing::warn!(
                cgroup = path,
                "a session doesn't begin, for its container's engine is slow to be read: its commands are recorded \
                 without it until it does"
            );
            late.insert(enrolled, beginning);
            return None;
        }
        let begun = beginning.await;
        Some(begun.unwrap_or_else(|error| Err(format!("BUG: beginning a session panicked: {error}"))))
    }
}

fn of(started: StartedCommand, session: Option<SessionId>, digest: Option<[u8; 32]>) -> CommandStarted {
    CommandStarted {
        id: started.id,
        session,
        parent: started.parent,
        at: started.at.into(),
        pid: started.pid,
        parent_pid: started.parent_pid,
        uid: started.uid,
        cgroup: started.cgroup,
        exe: started.exe,
        exe_sha256: digest.map(hex::encode),
        argv: started.argv,
        argv_cut: started.argv_cut,
        directory: started.directory,
        found: started.found,
    }
}
