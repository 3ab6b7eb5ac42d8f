//! What the daemon does for approvers, wherever they are.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chaperone_approvals::{Backend, BoxFuture, Person, Refused};
use chaperone_console::{ApprovalBackend, ApprovalRequest, ApprovalResponse, LogLimit, Peer};
use chaperone_model::{ApprovalId, Approver, Event};
use chaperone_policy::approvals::{Answer, Asking};
use chaperone_proxy::{AnswerFailed, DataPlane};
use nix::unistd::{Uid, User};
use tokio::sync::watch;

use crate::sandbox;

/// Lines about processes that may not ask, which may try as often as they like.
static REFUSED: LogLimit = LogLimit::new();

/// Serves approvers.
pub struct Desk(pub Arc<DataPlane>);

impl ApprovalBackend for Desk {
    async fn serve(&self, peer: Peer, request: ApprovalRequest) -> ApprovalResponse {
        match self.agent_of(peer) {
            Ok(None) => {}
            Ok(Some(agent)) => {
                if let Some(left_out) = REFUSED.admit() {
                    let Peer { uid, pid } = peer;
                    tracing::warn!(uid, pid, agent, left_out, "an agent's process asked for approvals");
                }
                let why = format!("this process belongs to the agent `{agent}`: agents approve nothing");
                return ApprovalResponse::Error(why);
            }
            // One that is gone before it is looked at could be anybody's.
            Err(why) => {
                if let Some(left_out) = REFUSED.admit() {
                    let Peer { uid, pid } = peer;
                    tracing::warn!(uid, pid, why, left_out, "nobody knows whose process asked for approvals");
                }
                return ApprovalResponse::Error(format!(
                    "whose process this is can't be told: {why}; ask again, and wait"
                ));
            }
        }
        let desk = &self.0.approvals;
        let (name, by_id) = (name_of(peer.uid), format!("uid:{}", peer.uid));
        // Known by whichever of the two the configuration has.
        let who = if desk.groups_of(&name).is_empty() && !desk.groups_of(&by_id).is_empty() { by_id } else { name };
        let groups = desk.groups_of(&who);
        match request {
            ApprovalRequest::List { ended } => {
                let theirs = |asking: &Asking| {
                    let mut asked = asking.asked.requirements.iter().flat_map(|one| &one.groups);
                    peer.uid == 0 || asked.any(|group| groups.contains(group))
                };
                let all = desk.questions().into_iter().filter(|asking| ended || asking.state.is_open());
                ApprovalResponse::Questions(all.filter(theirs).collect())
            }
            ApprovalRequest::Answer { id, allow, reason, scope, seconds } => {
                let now =
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + Duration::from_secs(seconds);
                let until = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
                let answer =
                    Answer { by: who.clone(), allow, reason, scope, until: if seconds == 0 { 0 } else { until } };
                let approver = Approver {
                    by: "command-line".into(),
                    uid: Some(peer.uid),
                    pid: peer.pid.and_then(|pid| u32::try_from(pid).ok()),
                    issuer: None,
                    subject: None,
                    address: None,
                    groups,
                };
                match desk.answer(id, answer, approver).await {
                    Ok(asking) => {
                        tracing::info!(approval = %id, by = who, allow, state = asking.state.as_str(), "a question was answered");
                        ApprovalResponse::Answered(Box::new(asking))
                    }
                    Err(error) => ApprovalResponse::Error(error.to_string()),
                }
            }
        }
    }
}

impl Desk {
    /// Whether somebody besides root may register sessions: who is configured, and no process of an agent's.
    pub fn may_register(&self, peer: Peer) -> Result<(), String> {
        if peer.uid != 0 && !self.0.identities.is_registrar(peer.uid) {
            return Err("this user is not in identity.registrars".to_owned());
        }
        let path = cgroup_of(peer)?;
        let held = self.0.sessions.undecided(&path).map(str::to_owned);
        // Also one that has no session yet.
        match self.0.sessions.sharing(&path).1.or(held).or(self.agent_of(peer)?) {
            None => Ok(()),
            Some(whose) => Err(format!("this process is an agent's ({whose}): agents don't say who they are")),
        }
    }

    /// The agent whose process this is. (Agents' users are kept out by not being in a group.)
    fn agent_of(&self, peer: Peer) -> Result<Option<String>, String> {
        let path = cgroup_of(peer)?;
        let below = |of: &str| path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let open = self.0.sessions.open();
        Ok(open.iter().find(|open| below(&open.session.cgroup_path)).map(|open| open.session.agent.clone()))
    }
}

/// The cgroup of the process that asks.
fn cgroup_of(peer: Peer) -> Result<String, String> {
    let pid = peer.pid.ok_or("the kernel doesn't name it")?;
    let file = format!("/proc/{pid}/cgroup");
    let cgroup = sandbox::cgroup_of(&file).map_err(|error| format!("reading {file}: {error}"))?;
    cgroup.ok_or_else(|| "it is in no cgroup".to_owned())
}

fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid:{uid}"),
    }
}

impl Backend for Desk {
    fn know<'a>(&'a self, person: &'a Person) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async {
            let desk = &self.0.approvals;
            let own = format!("{}:{}", person.provider, person.subject);
            let name = desk.settings().people.get(&own).cloned().unwrap_or_else(|| own.clone());
            // By whichever of them an agent's sponsor may be known: as tokens say it, or as a user of this host.
            let mut also: Vec<String> = person.also.iter().chain([&person.subject, &own]).cloned().collect();
            also.extend(also.clone().iter().filter_map(|other| self.0.identities.user(other)));
            also.sort();
            also.dedup();
            let known = desk.know(&name, person.groups.clone(), also).await;
            known.map(|()| name).map_err(|error| error.to_string())
        })
    }

    fn groups(&self, name: &str) -> Vec<String> {
        self.0.approvals.groups_of(name)
    }

    fn questions(&self) -> Vec<Asking> {
        self.0.approvals.questions()
    }

    fn answer(&self, id: ApprovalId, answer: Answer, approver: Approver) -> BoxFuture<'_, Result<Asking, Refused>> {
        Box::pin(async move {
            self.0.approvals.answer(id, answer, approver).await.map_err(|error| match error {
                AnswerFailed::Answer(error) => Refused::Answer(error),
                AnswerFailed::Keep(error) => Refused::Unavailable(error.to_string()),
            })
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.approvals.subscribe()
    }

    fn record(&self, event: &Event) {
        self.0.approvals.record(event);
    }
}
