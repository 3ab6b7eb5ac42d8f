//! `chaperone stop` and `chaperone resume`: nothing more of an agent, at once, and whatever else is the matter.

use std::{fs, io, path::Path, process::ExitCode};

use chaperone_capture::cgroup_tree;
use chaperone_console::{Actor, ControlError, ControlRequest, ControlResponse, ErrorCode, Resumed, Stopped as Answer};
use chaperone_proxy::{Stop, Stopped};
use time::OffsetDateTime;

use crate::{
    commands::{ask, other_answer},
    config::Config,
    console::{Console, conflict},
    enrolment::MAX_CGROUPS,
    output::{clean, json_line},
};

/// Asks the daemon to stop it.
pub fn stop(config: &Path, of: &str, kill: bool, reason: &str, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let request = ControlRequest::Stop { of: of.to_owned(), kill, reason: reason.to_owned() };
    let ControlResponse::Stopped(answer) = ask(&config, &request)? else { return Err(other_answer()) };
    if json {
        json_line(&mut io::stdout(), &answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} is stopped, with {} open sessions", clean(&answer.stopped), answer.sessions.len());
    if kill {
        println!("the processes of {} cgroups were ended", answer.killed.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the daemon to let it go on.
pub fn resume(config: &Path, of: &str, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let request = ControlRequest::Resume { of: of.to_owned() };
    let ControlResponse::Resumed(answer) = ask(&config, &request)? else { return Err(other_answer()) };
    if json {
        json_line(&mut io::stdout(), &answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    for resumed in &answer.resumed {
        println!("{} goes on", clean(resumed));
    }
    for still in &answer.still_stopped {
        println!("{} is still stopped, and with it what belongs to it", clean(still));
    }
    Ok(ExitCode::SUCCESS)
}

impl Console {
    /// What can be stopped and resumed by that name: the id of an open session, or an agent.
    fn stoppable(&self, of: &str) -> Result<Stopped, ControlError> {
        let open = self.shared.sessions.open();
        if let Some(open) = open.iter().find(|open| open.session.id.to_string() == of) {
            let session = &open.session;
            return Ok(Stopped::session(session, self.shared.stops.boot()));
        }
        let agents = self.config.lock().agents().map_err(conflict)?;
        if agents.named(of).is_some() || open.iter().any(|open| open.session.agent == of) {
            return Ok(Stopped::Agent(of.to_owned()));
        }
        let names = agents.iter().map(|agent| agent.name.clone()).collect::<Vec<_>>().join(", ");
        let why = format!(
            "there is neither an agent nor an open session `{of}`; the agents are: {names}; `chaperone sessions` shows the sessions"
        );
        Err(ControlError::new(ErrorCode::NotFound, why))
    }

    /// Keeps an agent or a session from anything more.
    pub fn stop(&self, actor: &Actor, of: &str, kill: bool, reason: String) -> Result<Answer, ControlError> {
        let of = self.stoppable(of)?;
        let actor = &actor.0;
        let by = actor.name.clone().or_else(|| actor.uid.map(|uid| format!("uid {uid}")));
        let by = by.unwrap_or_else(|| actor.by.clone());
        let stop = Stop { of: of.clone(), at: OffsetDateTime::now_utc(), by, reason };
        tracing::warn!(of = %of, by = stop.by, reason = stop.reason, kill, "stopped");
        self.shared.stops.stop(stop);
        let kept = self.shared.stops.keep();
        let open = self.shared.sessions.open();
        let held: Vec<_> = open.iter().filter(|open| self.shared.stops.of(&open.session).is_some()).collect();
        let mut killed = Vec::new();
        if kill {
            let mut folders: Vec<_> = match &of {
                Stopped::Session { cgroup, .. } => vec![cgroup.clone()],
                Stopped::Agent(_) => held.iter().map(|open| open.session.cgroup_path.clone()).collect(),
            };
            if let Stopped::Agent(name) = &of {
                // Those that haven't called anything yet have no session.
                let tree = cgroup_tree(&self.shared.cgroup_root, MAX_CGROUPS);
                let enrolled = self.capture.enrolled().map_err(conflict)?;
                let own = tree.into_iter().filter(|(path, id)| {
                    enrolled.contains(id) && self.shared.sessions.sharing(path).1.as_deref() == Some(name)
                });
                folders.extend(own.map(|(path, _)| path));
            }
            folders.sort();
            folders.dedup();
            for folder in folders {
                let file = self.shared.cgroup_root.join(folder.trim_start_matches('/')).join("cgroup.kill");
                match fs::write(&file, "1") {
                    Ok(()) => killed.push(folder),
                    // It is over.
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound && !file.parent().is_some_and(Path::exists) => {}
                    Err(error) => {
                        let why = format!(
                            "{of} is stopped, but its processes could not be ended by {}: {error}",
                            file.display()
                        );
                        return Err(conflict(why));
                    }
                }
            }
        }
        kept.map_err(|error| {
            conflict(format!("{of} is stopped, but only until the daemon is started again: {error}"))
        })?;
        let sessions = held.iter().map(|open| open.session.id.to_string()).collect();
        Ok(Answer { stopped: of.to_string(), sessions, killed })
    }

    /// Lets it go on.
    pub fn resume(&self, of: &str) -> Result<Resumed, ControlError> {
        let stops = &self.shared.stops;
        let resumed = stops.resume(of).map_err(|error| conflict(format!("it stays stopped: {error}")))?;
        if resumed.is_empty() {
            let list = stops.list();
            let names = list.iter().map(|stop| stop.of.name()).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "nothing is".to_owned() } else { format!("these are: {names}") };
            return Err(ControlError::new(ErrorCode::NotFound, format!("`{of}` is not stopped; {names}")));
        }
        for stop in &resumed {
            tracing::warn!(of = %stop.of, "resumed");
        }
        let open = self.shared.sessions.open();
        let mine = open.iter().filter(|open| open.session.agent == of || open.session.id.to_string() == of);
        let mut still: Vec<_> =
            mine.filter_map(|open| stops.of(&open.session)).map(|stop| stop.of.to_string()).collect();
        still.dedup();
        Ok(Resumed { resumed: resumed.iter().map(|stop| stop.of.to_string()).collect(), still_stopped: still })
    }
}
