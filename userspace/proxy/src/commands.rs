//! What agents execute, recorded.

use std::{collections::HashSet, path::Path, sync::Arc};

use chaperone_capture::{CommandEvent, StartedCommand, cgroup_path};
use chaperone_model::{CommandEnded, CommandStarted, CommandsLost, Event, SessionId};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::Shared;

/// How many commands of containers that are no agent's are remembered, until they end: as many as the hooks remember.
const MAX_NOBODYS: usize = 65_536;

impl Shared {
    /// Records commands as they come, until there come no more. What can't be recorded is counted, and told as soon as
    /// something can be again; `recorded` hears of each count of losses that is in the journal.
    pub async fn record_commands(
        self: Arc<Self>,
        mut commands: mpsc::Receiver<CommandEvent>,
        recorded: impl Fn(u64) + Send,
    ) {
        // Those that the hooks had no room for, which outlive the daemon; and ours, which don't.
        let (mut untold, mut unrecorded) = (0_u64, 0_u64);
        let mut nobodys = HashSet::new();
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
                CommandEvent::Started(started) => {
                    let session = self.session_of(&started).await;
                    if session.is_none() && self.is_nobodys(&started) {
                        // Of a container that was held, and is no agent's.
                        if nobodys.len() < MAX_NOBODYS {
                            nobodys.insert(started.id);
                        }
                        continue;
                    }
                    Some(Event::CommandStarted(Box::new(of(*started, session))))
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
        let path = cgroup_path(&self.cgroup_root, started.cgroup).ok();
        self.sessions.is_nobodys(started.cgroup, path.as_deref())
    }

    /// A cgroup that is empty by now makes no session any more: its command is the last one's that was there.
    async fn session_of(&self, started: &StartedCommand) -> Option<SessionId> {
        let path = cgroup_path(&self.cgroup_root, started.cgroup).ok()?;
        if let Some(known) = self.sessions.known(&path, |folder: &Path| chaperone_capture::cgroup_id(folder).ok()) {
            return Some(known);
        }
        match self.begin_session(&path).await {
            Ok(session) => Some(session.session.id),
            Err(error) => {
                tracing::debug!(error, path, "a command in no session");
                None
            }
        }
    }
}

fn of(started: StartedCommand, session: Option<SessionId>) -> CommandStarted {
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
        exe_sha256: started.exe_sha256.map(hex::encode),
        argv: started.argv,
        argv_cut: started.argv_cut,
        directory: started.directory,
        found: started.found,
    }
}
