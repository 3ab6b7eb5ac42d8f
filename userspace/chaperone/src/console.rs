//! What the daemon does when it is asked, over the control socket or by a signal, and what it tells of itself.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chaperone_approvals::Messages;
use chaperone_authority::{CertificateAuthority, Trust};
use chaperone_capture::{Capture, Counters};
use chaperone_console::{Actor, Backend, ControlError, ControlRequest, ControlResponse, ErrorCode, Launch, Metric};
use chaperone_identity::{Agents, Resolved};
use chaperone_model::{Event, OperatorActed, OperatorRefused};
use chaperone_proxy::{DataPlane, SessionContext};
use chaperone_warehouse::ShipperStatus;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{approvals, config::Config, daemon::settings, enrolment, register};

/// What the control API and the metrics tell.
pub struct Console {
    pub capture: Arc<Capture>,
    pub shared: Arc<DataPlane>,
    pub config: Mutex<Config>,
    pub path: PathBuf,
    pub authority: Arc<CertificateAuthority>,
    pub counters: Counters,
    pub started: OffsetDateTime,
    pub grants: AtomicUsize,
    pub shipping: Option<watch::Receiver<ShipperStatus>>,
    pub messages: Arc<Messages>,
}

impl Backend for Console {
    async fn handle(&self, actor: &Actor, request: ControlRequest) -> Result<ControlResponse, ControlError> {
        Ok(match request {
            ControlRequest::Agents => ControlResponse::Agents(self.agents()?),
            ControlRequest::CatchUp => {
                self.shared.journal.catch_up().await.map_err(unavailable)?;
                ControlResponse::CaughtUp
            }
            ControlRequest::Deliveries => ControlResponse::Deliveries(self.deliveries()),
            ControlRequest::Launch { agent } => ControlResponse::Launched(self.launch(&agent).await?),
            ControlRequest::Register { cgroup, id, pid, token, login } => {
                let of = register::Of { cgroup: &cgroup, id, pid };
                ControlResponse::Registered(register::register(&self.shared, actor, &of, &token, login).await?)
            }
            // It reads files, and no call waits for that.
            ControlRequest::Reload => ControlResponse::Reloaded(tokio::task::block_in_place(|| self.reload())?),
            ControlRequest::Resend { id } => {
                ControlResponse::Resent(tokio::task::block_in_place(|| self.messages.resend(&id)).map_err(unavailable)?)
            }
            ControlRequest::Resume { of } => {
                ControlResponse::Resumed(tokio::task::block_in_place(|| self.resume(&of))?)
            }
            ControlRequest::Stop { of, kill, reason } => {
                ControlResponse::Stopped(tokio::task::block_in_place(|| self.stop(actor, &of, kill, reason))?)
            }
            ControlRequest::Status => ControlResponse::Status(self.status()),
        })
    }

    async fn record(
        &self,
        actor: &Actor,
        request: &ControlRequest,
        refused: Option<&ControlError>,
    ) -> Result<(), String> {
        let Some((act, on)) = request.act() else { return Ok(()) };
        let (at, actor, act, on) = (OffsetDateTime::now_utc(), actor.0.clone(), act.to_owned(), on.map(str::to_owned));
        let event = match refused {
            None => Event::OperatorActed(Box::new(OperatorActed { at, actor, act, on })),
            Some(ControlError { code, message }) => Event::OperatorRefused(Box::new(OperatorRefused {
                at,
                actor,
                act,
                on,
                code: code.to_string(),
                why: message.clone(),
            })),
        };
        self.shared.journal.append(&event, true).await.map_err(|error| error.to_string())
    }

    fn metrics(&self) -> Vec<Metric> {
        crate::metrics::read(
            &self.shared,
            &self.counters,
            self.capture.trouble().is_none(),
            self.shipping.as_ref().map(|it| it.borrow().clone()).as_ref(),
            &self.messages.status(),
            self.authority.expires(),
        )
    }
}

impl Console {
    fn agents(&self) -> Result<serde_json::Value, ControlError> {
        let config = self.config.lock().clone();
        let agents = config.agents().map_err(conflict)?;
        let enrolled = self.capture.enrolled().map_err(conflict)?;
        let open = self.shared.sessions.open();
        let sessions = open.iter().map(|open| (open.session.cgroup, open.session.id)).collect();
        let rules = enrolment::Report::of(&config, &agents, &self.shared.cgroup_root).with(&enrolled, &sessions);
        serde_json::to_value(rules).map_err(|error| ControlError::new(ErrorCode::Internal, format!("BUG: {error}")))
    }

    fn deliveries(&self) -> Vec<serde_json::Value> {
        let of = |(to, heading): (String, _)| {
            let mut one = serde_json::to_value(heading).unwrap_or_default();
            one["to"] = to.into();
            one
        };
        self.messages.list().into_iter().map(of).collect()
    }

    fn status(&self) -> serde_json::Value {
        let metrics = &self.shared.metrics;
        let journal = self.shared.journal.state().map_or_else(
            |error| serde_json::json!({ "error": error.to_string() }),
            |state| {
                serde_json::json!({
                    "trouble": state.trouble,
                    "committed": state.committed.seq.0,
                    "segments": state.segments,
                    "used_bytes": state.used_bytes,
                    "room_bytes": state.room_bytes,
                    "direct_io": state.direct_io,
                })
            },
        );
        let described = |open: &Arc<Resolved<SessionContext>>| {
            chaperone_proxy::identities::described(&open.session, &open.own.standing.load())
        };
        let sessions: Vec<_> = self.shared.sessions.open().iter().map(described).collect();
        let generation = self.shared.generation();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": self.started.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
            "policy_version": generation.engine.version().digest,
            "policies": generation.engine.version().len(),
            "ca": self.authority.path(),
            "hooks": { "trouble": self.capture.trouble() },
            "journal": journal,
            "warehouse": self.shipping.as_ref().map(|shipping| shipping.borrow().clone()),
            "connections": metrics.connections.get(),
            "requests": metrics.requests.get(),
            "denied": metrics.denied.get(),
            "unrecorded": metrics.unrecorded.get(),
            "over_share": self.shared.over_share().into_iter().map(|(agent, what, times)| {
                serde_json::json!({ "agent": agent, "what": what, "times": times })
            }).collect::<Vec<_>>(),
            "stopped": self.shared.stops.list().iter().map(|stop| serde_json::json!({
                "of": stop.of.to_string(), "by": stop.by, "reason": stop.reason,
                "at": stop.at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
            })).collect::<Vec<_>>(),
            "budgets": self.shared.budgets.used(),
            "approvals": {
                "open": self.shared.approvals.questions().iter().filter(|asking| asking.state.is_open()).count(),
                "receivers": self.messages.status(),
            },
            "request_memory_bytes": self.shared.memory_used(),
            "sessions": sessions,
        })
    }

    async fn launch(&self, agent: &str) -> Result<Launch, ControlError> {
        let number = self.grants.fetch_add(1, Ordering::Relaxed);
        let name = format!("run-{}-{number}", std::process::id());
        let path = {
            let agents = self.config.lock().agents().map_err(conflict)?;
            let names = || agents.iter().map(|agent| agent.name.clone()).collect::<Vec<_>>().join(", ");
            if agents.named(agent).is_none() {
                let why = format!("there is no agent `{agent}` in the configuration; there are: {}", names());
                return Err(ControlError::new(ErrorCode::NotFound, why));
            }
            let mut own = agents.rules().filter(|(of, _)| of.name == agent);
            own.find_map(|(_, rule)| rule.cgroup_for(&name)).ok_or_else(|| {
                let why = format!(
                    "the agent `{agent}` has neither `cgroups` nor `run = true`: it is started by systemd alone"
                );
                ControlError::new(ErrorCode::Conflict, why)
            })?
        };
        let folder = self.shared.cgroup_root.join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder)
            .map_err(|error| conflict(format!("making the cgroup {}: {error}", folder.display())))?;
        let session = self.shared.begin_session(&path).await.map_err(unavailable)?;
        if session.session.agent != agent {
            let why = format!("BUG: the cgroup {path} is the agent `{}`'s", session.session.agent);
            return Err(ControlError::new(ErrorCode::Internal, why));
        }
        let environment = Trust::of_host().map_err(conflict)?.environment();
        Ok(Launch {
            session: session.session.id.to_string(),
            agent: agent.to_owned(),
            cgroup: folder,
            environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }

    fn reload(&self) -> Result<String, ControlError> {
        let config = Config::read(&self.path).map_err(conflict)?;
        let policies = config.policy.read().map_err(conflict)?;
        approvals::check_groups(&policies, &config).map_err(conflict)?;
        self.authority.check(&config.domains()).map_err(conflict)?;
        let agents = config.agents().map_err(conflict)?;
        let mut current = self.config.lock();
        let restart = crate::config::takes_restart(current.text(), config.text());
        if !restart.is_empty() {
            return Err(conflict(format!("this changed, which takes a restart: {}", restart.join(", "))));
        }
        let before = current.agents().map_err(conflict)?;
        let of = |agents: &Agents| {
            let containers: Vec<_> =
                agents.container_rules().map(|(of, rule)| (of.name.clone(), rule.clone())).collect();
            (agents.patterns(), agents.users().clone(), containers)
        };
        if of(&before) != of(&agents) {
            return Err(conflict(
                "the enrolled cgroups changed (agents: name, cgroups, slices, units, users, labels, images or run), which takes a \
                 restart",
            ));
        }
        self.shared
            .replace_identities(config.identities().map_err(conflict)?)
            .map_err(|error| conflict(config.wrong("identity.issuers", error)))?;
        let said = format!("reloaded: {} policies, version {}", policies.len(), &policies.digest[..12]);
        self.shared.sessions.replace_agents(agents);
        self.shared.budgets.replace(config.budgets());
        self.shared.approvals.replace_settings(config.approvals.settings());
        self.shared.replace_generation(policies, config.rules(), settings(&config));
        *current = config;
        Ok(said)
    }
}

pub fn conflict(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Conflict, why)
}

fn unavailable(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Unavailable, why)
}
