//! The sessions that are open.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use chaperone_model::{CgroupId, Container, Session, SessionId};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::io::unix::AsyncFd;

use crate::{Agent, Agents, Containers};

/// Sessions open at once; past it new ones are refused.
const MAX_SESSIONS: usize = 16_384;

/// Why a connection has no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No configured agent claims the cgroup.
    #[error("no rule of a configured agent names the cgroup {0}: `chaperone agents` shows them")]
    Unclaimed(String),
    /// The cgroup is gone, or can't be watched.
    #[error("watching the cgroup {path}: {source}")]
    Cgroup {
        /// The cgroup's folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too many sessions.
    #[error("{MAX_SESSIONS} sessions are open, and no more are taken: end some agents")]
    TooMany,
}

/// A session, with what its owner keeps for it.
#[derive(Debug)]
pub struct Resolved<T> {
    /// The session.
    pub session: Session,
    /// What belongs to it, such as its placeholder credentials.
    pub own: T,
}

/// A session that is over.
#[derive(Debug)]
pub struct Ended<T>(pub Arc<Resolved<T>>);

/// How many sessions that are over are remembered.
const MAX_PAST: usize = 1024;

/// How many containers inside of one session's cgroup are sessions by themselves.
const MAX_INSIDE: usize = 256;
/// How many containers are remembered; more are held.
const MAX_CONTAINERS: usize = 16_384;

/// Whose a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This agent's.
    Agent(String),
    /// No agent's.
    Nobody,
    /// That isn't known, for this reason.
    Unknown(String),
}

struct Open<T> {
    /// Containers whose cgroup no rule names, by that: the agent that a rule for containers makes them, if one does.
    containers: HashMap<String, Option<String>>,
    /// The latest that no rule makes an agent.
    nobodys: VecDeque<CgroupId>,
    /// The latest that are over.
    past: VecDeque<(CgroupId, SessionId)>,
    by_cgroup: HashMap<CgroupId, (Arc<Resolved<T>>, WatchDescriptor)>,
    by_watch: HashMap<WatchDescriptor, CgroupId>,
    agents: Agents,
}

impl<T> Open<T> {
    /// The agent that a process in this cgroup is, and the cgroup that makes its session. A rule for cgroups, where the
    /// operator puts things, comes before those for containers, which are whoever starts them's to be named by.
    ///
    /// A container that an agent starts in its own cgroup, such as a user's own podman does, is a session by itself.
    fn of<'a>(&self, path: &'a str) -> Option<(&Agent, &'a str)> {
        let container = Containers::cgroup(path);
        if let Some((agent, cgroup)) = self.agents.of(path) {
            let inside = container.filter(|inside| inside.len() > cgroup.len());
            return Some((agent, inside.filter(|inside| self.has_room(cgroup, inside)).unwrap_or(cgroup)));
        }
        let agent = self.containers.get(container?)?.as_deref()?;
        Some((self.agents.named(agent)?, container?))
    }

    /// The open session that the one of this cgroup is inside of: that of the cgroup which a rule names, above a container's.
    fn parent(&self, cgroup_path: &str) -> Option<SessionId> {
        let (_, outer) = self.agents.of(cgroup_path).filter(|(_, outer)| *outer != cgroup_path)?;
        let all = self.by_cgroup.values().map(|(it, _)| &it.session);
        // An earlier one of the same path may be yet to be seen to end.
        all.filter(|it| it.cgroup_path == outer).max_by_key(|it| it.started).map(|it| it.id)
    }

    fn remember(&mut self, cgroup: CgroupId, past: SessionId) {
        self.past.push_back((cgroup, past));
        if self.past.len() > MAX_PAST {
            self.past.pop_front();
        }
    }

    /// Whether the container is one of the sessions inside of that cgroup, or may become one: an agent may be able to make
    /// as many cgroups as it likes, and to name them so.
    fn has_room(&self, cgroup: &str, container: &str) -> bool {
        let inside = |path: &str| path.strip_prefix(cgroup).is_some_and(|rest| rest.starts_with('/'));
        let mut inside = self.by_cgroup.values().map(|(it, _)| &it.session.cgroup_path).filter(|path| inside(path));
        inside.clone().any(|path| path == container) || inside.nth(MAX_INSIDE - 1).is_none()
    }
}

/// All open sessions. `T` is what the owner keeps for each.
pub struct Sessions<T> {
    root: PathBuf,
    open: Mutex<Open<T>>,
    inotify: Inotify,
}

impl<T> std::fmt::Debug for Sessions<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("root", &self.root)
            .field("open", &self.open.lock().by_cgroup.len())
            .finish_non_exhaustive()
    }
}

impl<T> Sessions<T> {
    /// None open yet. `root` is where the cgroup v2 hierarchy is mounted.
    pub fn new(root: &Path, agents: Agents) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let open = Mutex::new(Open {
            containers: HashMap::new(),
            nobodys: VecDeque::new(),
            past: VecDeque::new(),
            by_cgroup: HashMap::new(),
            by_watch: HashMap::new(),
            agents,
        });
        Ok(Self { root: root.to_owned(), open, inotify })
    }

    /// Puts other agents in force, for sessions that begin from now on.
    pub fn replace_agents(&self, agents: Agents) {
        self.open.lock().agents = agents;
    }

    /// The cgroup of the container that the one at `path` is in, if only its description tells whose it is and that wasn't
    /// looked at yet.
    pub fn undecided<'a>(&self, path: &'a str) -> Option<&'a str> {
        let open = self.open.lock();
        let cgroup = Containers::cgroup(path)?;
        let decided = || open.containers.contains_key(cgroup) || open.agents.of(path).is_some();
        (open.agents.hold_containers() && !decided()).then_some(cgroup)
    }

    /// Whether this cgroup, at `path` if it is still there, is in a container that is no agent's, by its description.
    pub fn is_nobodys(&self, cgroup: CgroupId, path: Option<&str>) -> bool {
        let open = self.open.lock();
        let of_container = path.and_then(Containers::cgroup).and_then(|cgroup| open.containers.get(cgroup));
        of_container == Some(&None) || open.nobodys.contains(&cgroup)
    }

    /// Remembers the cgroup of a container that is no agent's, for what is told of it when it is gone.
    pub fn remember_nobodys(&self, cgroup: CgroupId) {
        let mut open = self.open.lock();
        open.nobodys.push_back(cgroup);
        if open.nobodys.len() > MAX_PAST {
            open.nobodys.pop_front();
        }
    }

    /// Whose the container is that has this cgroup, by its description, whole, if its engine has one.
    pub fn decide(&self, cgroup: &str, described: Option<&Container>) -> Ownership {
        let mut open = self.open.lock();
        if let Some((agent, _)) = open.agents.of(cgroup) {
            return Ownership::Agent(agent.name.clone());
        }
        let Some(described) = described else {
            return Ownership::Unknown("no engine's folder that `[containers]` names describes it".to_owned());
        };
        let agent = match open.agents.of_container(described) {
            Ok(agent) => agent.map(|agent| agent.name.clone()),
            Err(ambiguous) => return Ownership::Unknown(ambiguous.to_string()),
        };
        if open.containers.len() >= MAX_CONTAINERS && !open.containers.contains_key(cgroup) {
            return Ownership::Unknown(format!("{MAX_CONTAINERS} containers run, and no more are told apart"));
        }
        open.containers.insert(cgroup.to_owned(), agent.clone());
        agent.map_or(Ownership::Nobody, Ownership::Agent)
    }

    /// The session of the cgroup at `path` (below the root, such as `/agents/coder/sub`): an open one, or a new one
    /// with what `own` makes for it. The flag says whether it is new. `id_of` gives a cgroup folder's id; `container`
    /// describes a new session.
    pub fn resolve(
        &self,
        path: &str,
        id_of: impl FnOnce(&Path) -> io::Result<CgroupId>,
        container: Option<Container>,
        own: impl FnOnce(&Session) -> T,
    ) -> Result<(Arc<Resolved<T>>, bool), SessionError> {
        let mut open = self.open.lock();
        let Some((agent, cgroup_path)) = open.of(path) else {
            return Err(SessionError::Unclaimed(path.to_owned()));
        };
        let folder = self.root.join(cgroup_path.trim_start_matches('/'));
        let failed = |source| SessionError::Cgroup { path: folder.clone(), source };
        let cgroup = id_of(&folder).map_err(failed)?;
        if let Some((session, _)) = open.by_cgroup.get(&cgroup) {
            return Ok((session.clone(), false));
        }
        if open.by_cgroup.len() >= MAX_SESSIONS {
            return Err(SessionError::TooMany);
        }
        let session = Session {
            id: SessionId::new(),
            agent: agent.name.clone(),
            groups: agent.groups.clone(),
            cgroup,
            cgroup_path: cgroup_path.to_owned(),
            container,
            parent: open.parent(cgroup_path),
            started: OffsetDateTime::now_utc(),
        };
        // `cgroup.events` is modified when `populated` changes, and the watch ends when the folder goes.
        let watch = self
            .inotify
            .add_watch(&folder.join("cgroup.events"), AddWatchFlags::IN_MODIFY)
            .map_err(|error| failed(error.into()))?;
        let own = own(&session);
        let resolved = Arc::new(Resolved { session, own });
        open.by_watch.insert(watch, cgroup);
        open.by_cgroup.insert(cgroup, (resolved.clone(), watch));
        Ok((resolved, true))
    }

    /// The cgroup that makes the session of the one at `path`, if none is open for it.
    pub fn lacking<'a>(&self, path: &'a str, id_of: impl FnOnce(&Path) -> Option<CgroupId>) -> Option<&'a str> {
        let open = self.open.lock();
        let (_, cgroup_path) = open.of(path)?;
        let cgroup = id_of(&self.root.join(cgroup_path.trim_start_matches('/')))?;
        (!open.by_cgroup.contains_key(&cgroup)).then_some(cgroup_path)
    }

    /// The session of the cgroup at `path`, if one is open; if none is and the cgroup is empty, the last one of late. For
    /// what is told of processes that may be gone.
    pub fn known(&self, path: &str, id_of: impl FnOnce(&Path) -> Option<CgroupId>) -> Option<SessionId> {
        let open = self.open.lock();
        let (_, cgroup_path) = open.of(path)?;
        let folder = self.root.join(cgroup_path.trim_start_matches('/'));
        let cgroup = id_of(&folder)?;
        if let Some((session, _)) = open.by_cgroup.get(&cgroup) {
            return Some(session.session.id);
        }
        if is_populated(&folder) {
            return None;
        }
        open.past.iter().rev().find(|(past, _)| *past == cgroup).map(|(_, session)| *session)
    }

    /// The session of a process whose cgroup may be gone: that of the first of these cgroups which has or had one.
    pub fn last_of(&self, cgroups: [CgroupId; 2]) -> Option<SessionId> {
        let open = self.open.lock();
        let is_open = |cgroup| open.by_cgroup.get(cgroup).map(|(session, _)| session.session.id);
        let is_past = |cgroup| open.past.iter().rev().find(|(past, _)| past == cgroup).map(|(_, session)| *session);
        cgroups.iter().find_map(|cgroup| is_open(cgroup).or_else(|| is_past(cgroup)))
    }

    /// The session that this cgroup, which had that path, would have made if it weren't gone: it is not open, and once it is
    /// recorded it [is over](Self::is_over).
    pub fn missed(&self, cgroup: CgroupId, path: &str) -> Result<Session, SessionError> {
        let open = self.open.lock();
        let (agent, cgroup_path) = open.of(path).ok_or_else(|| SessionError::Unclaimed(path.to_owned()))?;
        Ok(Session {
            id: SessionId::new(),
            agent: agent.name.clone(),
            groups: agent.groups.clone(),
            cgroup,
            cgroup_path: cgroup_path.to_owned(),
            container: None,
            parent: open.parent(cgroup_path),
            started: OffsetDateTime::now_utc(),
        })
    }

    /// Remembers a session that is over, for what is told of its cgroup's processes.
    pub fn is_over(&self, session: &Session) {
        self.open.lock().remember(session.cgroup, session.id);
    }

    /// The cgroup by which it is counted what a process in the one at `path` uses of what agents have in common: the one that
    /// a rule names, with all containers that are started in there, though they are sessions by themselves; or a container's.
    /// Beside it, the agent that it is, if any.
    pub fn sharing<'a>(&self, path: &'a str) -> (&'a str, Option<String>) {
        let open = self.open.lock();
        if let Some((agent, cgroup)) = open.agents.of(path) {
            return (cgroup, Some(agent.name.clone()));
        }
        let agent = open.of(path).map(|(agent, _)| agent.name.clone());
        (Containers::cgroup(path).unwrap_or(path), agent)
    }

    /// The open session with this id.
    pub fn find(&self, id: SessionId) -> Option<Arc<Resolved<T>>> {
        self.open.lock().by_cgroup.values().map(|(it, _)| it).find(|it| it.session.id == id).cloned()
    }

    /// All open sessions.
    pub fn open(&self) -> Vec<Arc<Resolved<T>>> {
        self.open.lock().by_cgroup.values().map(|(it, _)| it.clone()).collect()
    }

    /// Waits until sessions are over (their cgroups empty or gone) and takes them out.
    pub async fn ended(&self) -> io::Result<Vec<Ended<T>>> {
        // The replacement is `unsafe`, which is forbidden here; a `BorrowedFd` is I/O safe, so that nothing is lost.
        #[allow(deprecated)]
        let ready = AsyncFd::new(self.inotify.as_fd())?;
        loop {
            let mut guard = ready.readable().await?;
            let changed = match self.inotify.read_events() {
                Ok(events) => events,
                Err(nix::errno::Errno::EAGAIN) => {
                    guard.clear_ready();
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let overflow = changed.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW));
            let mut open = self.open.lock();
            let candidates: Vec<CgroupId> = if overflow {
                open.by_cgroup.keys().copied().collect()
            } else {
                changed.iter().filter_map(|event| open.by_watch.get(&event.wd).copied()).collect()
            };
            let ended: Vec<_> = candidates.into_iter().filter_map(|id| self.take_if_over(&mut open, id)).collect();
            if !ended.is_empty() {
                return Ok(ended);
            }
        }
    }

    /// Takes out every session whose cgroup is empty or gone: one that emptied before it was watched has no event.
    pub fn sweep(&self) -> Vec<Ended<T>> {
        let mut open = self.open.lock();
        open.containers.retain(|cgroup, _| self.root.join(cgroup.trim_start_matches('/')).exists());
        let all: Vec<CgroupId> = open.by_cgroup.keys().copied().collect();
        all.into_iter().filter_map(|id| self.take_if_over(&mut open, id)).collect()
    }

    /// Takes out every session: the daemon stops.
    pub fn close(&self) -> Vec<Ended<T>> {
        let mut open = self.open.lock();
        open.by_watch.clear();
        open.by_cgroup.drain().map(|(_, (session, _))| Ended(session)).collect()
    }

    fn take_if_over(&self, open: &mut Open<T>, id: CgroupId) -> Option<Ended<T>> {
        let (session, watch) = open.by_cgroup.get(&id)?;
        let folder = self.root.join(session.session.cgroup_path.trim_start_matches('/'));
        if has_processes(&folder, id) {
            return None;
        }
        let (watch, past) = (*watch, session.session.id);
        open.remember(id, past);
        // It fails when the folder went and took the watch along, which is as good.
        let _ = self.inotify.rm_watch(watch);
        open.by_watch.remove(&watch);
        open.by_cgroup.remove(&id).map(|(session, _)| Ended(session))
    }
}

/// Whether this very cgroup is still at that path, and there are processes in it, or below: a CI runner, say, gives each job's
/// cgroup the same path.
fn has_processes(folder: &Path, cgroup: CgroupId) -> bool {
    fs::metadata(folder).is_ok_and(|found| found.ino() == cgroup.0) && is_populated(folder)
}

/// Whether there are processes in the cgroup that is there now, or below.
fn is_populated(folder: &Path) -> bool {
    fs::read_to_string(folder.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_inside_of_an_agents_cgroup_is_a_session_and_there_is_an_end_of_them() {
        let root = tempfile::tempdir().unwrap();
        let agent = Agent { name: "coder".into(), cgroups: vec!["/agents/*".into()], ..Agent::default() };
        let agents = Agents::new(vec![agent], |_| Err("no such user".to_owned())).unwrap();
        let sessions = Sessions::<()>::new(root.path(), agents).unwrap();
        let id_of = |folder: &Path| Ok(CgroupId(fs::metadata(folder)?.ino()));
        let session = |path: &str| {
            let folder = root.path().join(&path[1..]);
            fs::create_dir_all(&folder).unwrap();
            for folder in folder.ancestors().take_while(|folder| *folder != root.path()) {
                fs::write(folder.join("cgroup.events"), "populated 1\n").unwrap();
            }
            sessions.resolve(path, id_of, None, |_| ()).unwrap().0.session.cgroup_path.clone()
        };
        let container = |number: usize| format!("/agents/a/x/libpod-{number:064x}");
        assert_eq!(session("/agents/a/x"), "/agents/a");
        for number in 0..MAX_INSIDE {
            assert_eq!(session(&format!("{}/y", container(number))), container(number));
        }
        assert_eq!(session(&container(MAX_INSIDE)), "/agents/a");
        assert_eq!(sessions.sharing(&format!("{}/y", container(3))).0, "/agents/a", "they have no more for it");
        assert_eq!(sessions.sharing("/agents/b/y").0, "/agents/b");
        assert_eq!(sessions.sharing(&format!("/free/libpod-{:064x}/y", 1)).0, format!("/free/libpod-{:064x}", 1));
        assert_eq!(session(&container(3)), container(3));
        let other = format!("/agents/b/docker-{:064x}.scope", 1);
        assert_eq!(session(&other), other);
        // One that is gone, and was never seen.
        let gone = CgroupId(u64::MAX);
        assert_eq!(sessions.last_of([CgroupId(1), gone]), None);
        let missed = sessions.missed(gone, "/agents/c").unwrap();
        assert_eq!((missed.agent.as_str(), missed.cgroup_path.as_str(), missed.cgroup), ("coder", "/agents/c", gone));
        assert!(sessions.missed(gone, "/others/c").is_err());
        sessions.is_over(&missed);
        assert_eq!(sessions.last_of([CgroupId(1), gone]), Some(missed.id));
        let open = sessions.open()[0].session.clone();
        assert_eq!(sessions.last_of([open.cgroup, gone]), Some(open.id));
        // A container's session is inside of the other, if that is open; by itself it is inside of none.
        let parent =
            |path: &str| sessions.open().iter().find(|it| it.session.cgroup_path == path).unwrap().session.parent;
        let outer = sessions.open().iter().find(|it| it.session.cgroup_path == "/agents/a").unwrap().session.id;
        assert_eq!((parent("/agents/a"), parent(&container(3)), parent(&other)), (None, Some(outer), None));
        // A container that is the session already.
        let own = format!("/agents/libpod-{:064x}", 2);
        assert_eq!(session(&format!("{own}/libpod-{:064x}", 3)), own);
    }

    #[test]
    fn a_session_is_over_when_another_cgroup_has_its_path() {
        let root = tempfile::tempdir().unwrap();
        let agent = Agent { name: "ci".into(), cgroups: vec!["/jobs/*".into()], ..Agent::default() };
        let agents = Agents::new(vec![agent], |_| Err("no such user".to_owned())).unwrap();
        let sessions = Sessions::<()>::new(root.path(), agents).unwrap();
        let (folder, aside) = (root.path().join("jobs/runner"), root.path().join("jobs/aside"));
        let begin = || {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cgroup.events"), "populated 1\n").unwrap();
            let id_of = |folder: &Path| Ok(CgroupId(fs::metadata(folder)?.ino()));
            sessions.resolve("/jobs/runner", id_of, None, |_| ()).unwrap().0.session.id
        };
        let first = begin();
        assert!(sessions.sweep().is_empty(), "it goes on");
        // Not removed, so that the file system can't give its number again, which the kernel doesn't either.
        fs::rename(&folder, &aside).unwrap();
        let second = begin();
        let ended: Vec<_> = sessions.sweep().into_iter().map(|it| it.0.session.id).collect();
        assert_eq!(ended, [first]);
        assert_eq!(sessions.open().iter().map(|it| it.session.id).collect::<Vec<_>>(), [second]);
    }
}
