//! `chaperone register`: who the session of a cgroup is, by a token.

use std::{
    fs,
    io::Read as _,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use chaperone_capture::{cgroup_id, cgroup_root};
use chaperone_console::{Actor, ControlError, ControlRequest, ControlResponse, ErrorCode, Token};
use chaperone_oidc::MAX_TOKEN_BYTES;
use chaperone_proxy::DataPlane;
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    commands::{ask_at, other_answer},
    config::{Config, Paths},
    output, sandbox,
};

/// Whose session, and by which token.
#[derive(Args, Debug)]
pub struct Register {
    /// The cgroup whose session it is.
    #[arg(long, required_unless_present = "pid", conflicts_with = "pid")]
    cgroup: Option<PathBuf>,
    /// A process of the session.
    #[arg(long)]
    pid: Option<i32>,
    /// The file with the token; `-` reads it from standard input.
    #[arg(long)]
    token_file: PathBuf,
}

/// Reads the token and hands it to the daemon.
pub fn run(config: &Path, what: &Register, json: bool) -> anyhow::Result<ExitCode> {
    // The kernel tells the daemon who asks.
    let is_root = nix::unistd::geteuid().is_root();
    let paths = match fs::File::open(config) {
        // Users may not be able to read it.
        Err(_) if !is_root => Paths::default(),
        _ => Config::read(config)?.paths,
    };
    let socket = if is_root { &paths.control } else { &paths.registrations };
    let root = cgroup_root().context("finding where cgroup v2 is mounted")?;
    let path = match (&what.cgroup, what.pid) {
        (Some(path), _) if path.starts_with(&root) => format!("/{}", path.strip_prefix(&root)?.display()),
        (Some(path), _) if path.is_absolute() => path.display().to_string(),
        (Some(path), _) => {
            bail!("--cgroup {}: give an absolute path, below {} or with it", path.display(), root.display())
        }
        (None, Some(pid)) => cgroup_of(pid).with_context(|| format!("looking for the cgroup of process {pid}"))?,
        (None, None) => bail!("name --cgroup or --pid"),
    };
    let folder = root.join(path.trim_start_matches('/'));
    let about = fs::metadata(&folder).with_context(|| format!("looking at the cgroup {}", folder.display()))?;
    let token = read(&what.token_file)?;
    let request =
        ControlRequest::Register { cgroup: path, id: about.ino(), pid: what.pid, token: Token(token), login: false };
    let ControlResponse::Registered(said) = ask_at(socket, &request)? else { return Err(other_answer()) };
    let mut out = std::io::stdout().lock();
    if json {
        output::json_line(&mut out, &said)?;
    } else {
        use std::io::Write as _;
        let text = |name: &str| output::clean(said["identity"][name].as_str().unwrap_or_default());
        let session = said["session"].as_str().unwrap_or_default();
        writeln!(out, "session {session} is {} at {}, until {}", text("subject"), text("issuer"), text("expires"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut token = String::new();
    let most = MAX_TOKEN_BYTES as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(most)
            .read_to_string(&mut token)
            .context("reading the token from standard input")?;
    } else {
        let file = fs::File::open(path).with_context(|| format!("opening the token {}", path.display()))?;
        file.take(most).read_to_string(&mut token).with_context(|| format!("reading the token {}", path.display()))?;
    }
    if token.len() > MAX_TOKEN_BYTES {
        bail!("the token {} has more than {MAX_TOKEN_BYTES} bytes, which no token has", path.display());
    }
    Ok(token)
}

fn cgroup_of(pid: i32) -> anyhow::Result<String> {
    sandbox::cgroup_of(&format!("/proc/{pid}/cgroup"))?.context("it is in no cgroup of version 2")
}

fn error(code: ErrorCode) -> impl Fn(String) -> ControlError {
    move |why| ControlError::new(code, why)
}

/// Whose session is meant.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// Its cgroup's path below the root of cgroup v2.
    pub cgroup: &'a str,
    /// The cgroup's id, as it was when whoever asks looked.
    pub id: u64,
    /// A process in it, if that is what it was named by.
    pub pid: Option<i32>,
}

/// The same in the daemon. Its answer says which session it is, and who.
pub async fn register(
    shared: &Arc<DataPlane>,
    actor: &Actor,
    of: &Of<'_>,
    token: &Token,
    login: bool,
) -> Result<serde_json::Value, ControlError> {
    let Of { cgroup: path, id, pid } = *of;
    let conflict = error(ErrorCode::Conflict);
    let wrong = error(ErrorCode::BadRequest);
    if !path.starts_with('/') || path.split('/').any(|step| step == "..") {
        return Err(wrong(format!("`{path}` is no path below the root of cgroup v2")));
    }
    let folder = shared.cgroup_root.join(path.trim_start_matches('/'));
    let is_it = || match cgroup_id(&folder) {
        Ok(now) if now.0 == id => Ok(()),
        Ok(_) => Err(conflict(format!("the cgroup {path} is another one now, of the same name: look again"))),
        Err(why) => Err(error(ErrorCode::NotFound)(format!("the cgroup {path}: {why}"))),
    };
    is_it()?;
    // Held, so that the number can't become another process's between looking at it and being done.
    let process = pid.map(|pid| open_process(pid).map_err(&conflict)).transpose()?;
    if let Some(pid) = pid {
        let now = cgroup_of(pid).map_err(|why| conflict(format!("process {pid}: {why:#}")))?;
        if now != path {
            return Err(conflict(format!("process {pid} is in the cgroup {now}, and not in {path}: look again")));
        }
    }
    let session = shared.begin_session(path).await.map_err(&conflict)?;
    let own = &session.session.cgroup_path;
    // A process names its session; a cgroup is meant to be one, and not one of many in it.
    if pid.is_none() && own != path {
        return Err(conflict(format!(
            "the cgroup {path} is in the session of {own}, which is more than it: register that one"
        )));
    }
    is_it()?;
    if let Some((process, pid)) = process.as_ref().zip(pid)
        && has_ended(process)
    {
        return Err(conflict(format!("process {pid} has ended")));
    }
    if let Some(uid) = actor.0.uid.filter(|uid| *uid != 0) {
        let session = shared.cgroup_root.join(own.trim_start_matches('/'));
        all_of(uid, &session).map_err(&conflict)?;
    }
    let identity = shared.register(&session, &token.0, login).await.map_err(&conflict)?;
    Ok(serde_json::json!({ "session": session.session.id, "agent": session.session.agent, "identity": identity }))
}

/// The most processes of a session that somebody besides root registers.
const MAX_PROCESSES: usize = 4096;

/// That every process in this cgroup, and below it, is this user's, with every id that it has; and that there is one.
fn all_of(uid: u32, cgroup: &Path) -> Result<(), String> {
    let shown = cgroup.display();
    let (mut folders, mut seen) = (vec![cgroup.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        let wrong = |error: std::io::Error| format!("looking into the cgroup {}: {error}", folder.display());
        let processes = fs::read_to_string(folder.join("cgroup.procs")).map_err(wrong)?;
        for pid in processes.lines() {
            seen += 1;
            if seen > MAX_PROCESSES {
                return Err(format!("the session of {shown} has more than {MAX_PROCESSES} processes: ask root"));
            }
            // One of a pid namespace that can't be seen from here has the number 0, and nobody knows whose it is.
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            let status = match status {
                Ok(status) => status,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && pid != "0" => continue,
                Err(error) => return Err(format!("looking at process {pid} in {shown}: {error}")),
            };
            let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
            let mut ids = ids.split_whitespace().map(str::parse::<u32>).peekable();
            if ids.peek().is_none() || !ids.all(|id| id == Ok(uid)) {
                return Err(format!(
                    "process {pid} in the session of {shown} isn't yours: who isn't root registers sessions of their own \
                     processes alone"
                ));
            }
        }
        for entry in fs::read_dir(&folder).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            if entry.file_type().map_err(wrong)?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    if seen == 0 {
        return Err(format!("the session of {shown} has no process: who isn't root registers running ones alone"));
    }
    Ok(())
}

fn open_process(pid: i32) -> Result<std::os::fd::OwnedFd, String> {
    chaperone_capture::pidfd(pid).map_err(|why| format!("process {pid}: {why}"))
}

/// Whether the process that this pidfd is of has ended.
fn has_ended(process: &std::os::fd::OwnedFd) -> bool {
    let mut ready = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_somebodys_if_each_of_its_processes_is() {
        let own = nix::unistd::getuid().as_raw();
        let cgroup = tempfile::tempdir().unwrap();
        let below = cgroup.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let put = |at: &Path, processes: &str| fs::write(at.join("cgroup.procs"), processes).unwrap();
        put(cgroup.path(), "");
        put(&cgroup.path().join("a"), "");
        put(&below, "");
        assert!(all_of(own, cgroup.path()).unwrap_err().contains("has no process"));
        let this = format!("{}\n", std::process::id());
        put(&below, &this);
        all_of(own, cgroup.path()).unwrap();
        assert!(all_of(own + 1, cgroup.path()).unwrap_err().contains("isn't yours"));
        // One that is gone is nobody's; one that can't be seen is somebody's.
        put(cgroup.path(), "999999999\n");
        all_of(own, cgroup.path()).unwrap();
        put(cgroup.path(), "0\n");
        assert!(all_of(own, cgroup.path()).unwrap_err().contains("process 0"));
        put(cgroup.path(), &this.repeat(MAX_PROCESSES + 1));
        assert!(all_of(own, cgroup.path()).unwrap_err().contains("more than 4096 processes"));
        fs::remove_file(below.join("cgroup.procs")).unwrap();
        put(cgroup.path(), &this);
        assert!(all_of(own, cgroup.path()).unwrap_err().contains("looking into the cgroup"));
    }
}
