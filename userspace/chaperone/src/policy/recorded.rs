//! Recorded calls, from the journal or from ClickHouse, each with who made it; and what other policies say of them.
//!
//! What the record doesn't hold is never made up: of a decision that depends on it, it is said that it can't be said.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use chaperone_aws::Catalog;
use chaperone_model::{CallIntent, ConnectionOpened, Decision, Event, Identity, Reason, Session, SessionId, Verdict};
use chaperone_policy::{
    Approval, CallFacts, Egress, EgressKind, Engine, NeedReport, PolicyVersion, Principal, Ruling, body_bytes, is_retry,
};
use chaperone_query::EventFilter;
use futures_util::TryStreamExt as _;
use serde::Serialize;
use time::OffsetDateTime;

use super::Range;
use crate::{commands, config::Config};

/// What policies say of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// A person has to say yes.
    Ask,
    /// No.
    Deny,
    /// Yes.
    Permit,
}

impl Said {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Deny => "deny",
            Self::Permit => "permit",
        }
    }

    /// What was said when the call was made; `None` if no policy was asked, or something else refused it.
    pub fn of_record(decision: &Decision) -> Option<Self> {
        let asked = decision.message.contains("; it needs the approval of ")
            || decision.message.starts_with("waiting for approval ");
        match (decision.verdict, decision.reason) {
            (Verdict::Allow, _) if decision.message.starts_with("approved by ") => Some(Self::Ask),
            (Verdict::Allow, _) => Some(Self::Permit),
            (Verdict::Deny, Reason::Forbidden) if asked => Some(Self::Ask),
            (Verdict::Deny, Reason::Forbidden | Reason::NotPermitted | Reason::PolicyError) => Some(Self::Deny),
            _ => None,
        }
    }

    pub const fn of(ruling: &Ruling) -> Self {
        match ruling {
            Ruling::Permit(_) => Self::Permit,
            Ruling::Deny(_) => Self::Deny,
            Ruling::Ask(_) => Self::Ask,
        }
    }
}

/// Who made the calls of the sessions that were seen so far.
#[derive(Debug, Default)]
pub struct Sessions {
    known: HashMap<SessionId, KnownSession>,
}

#[derive(Clone, Debug)]
struct KnownSession {
    session: Session,
    /// In the order of time.
    identities: Vec<(OffsetDateTime, Identity)>,
}

impl Sessions {
    /// Takes what an event says of a session.
    pub fn take(&mut self, event: Event) {
        match event {
            // A later daemon resumes sessions, and says so by another beginning.
            Event::SessionStarted(started) => {
                self.known
                    .entry(started.session.id)
                    .or_insert(KnownSession { session: started.session, identities: Vec::new() });
            }
            Event::SessionIdentified(identified) => {
                if let Some(known) = self.known.get_mut(&identified.id) {
                    known.identities.push((identified.at, identified.identity));
                }
            }
            _ => {}
        }
    }

    /// Takes what another knows of a session.
    pub fn copy(&mut self, session: SessionId, from: &Self) {
        if let Some(known) = from.known.get(&session) {
            self.known.insert(session, known.clone());
        }
    }

    /// The session of a call, and who it was then.
    fn of(&self, intent: &CallIntent) -> Option<(&Session, Option<&Identity>)> {
        self.at(intent.session, intent.at)
    }

    fn at(&self, session: SessionId, at: OffsetDateTime) -> Option<(&Session, Option<&Identity>)> {
        let known = self.known.get(&session)?;
        let then = known.identities.iter().rev().find(|(since, _)| *since <= at).map(|(_, identity)| identity);
        Some((&known.session, then))
    }

    /// Whose session it is, if its beginning was seen.
    pub fn agent(&self, session: SessionId) -> Option<&str> {
        self.known.get(&session).map(|known| known.session.agent.as_str())
    }
}

/// Which calls are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    agent: Option<String>,
    sessions: HashSet<SessionId>,
}

impl Wanted {
    pub fn new(range: &Range, sessions: &[SessionId]) -> Self {
        Self {
            since: range.since,
            until: range.until,
            agent: range.agent.clone(),
            sessions: sessions.iter().copied().collect(),
        }
    }

    fn wants(&self, one: &Recorded, known: &Sessions) -> bool {
        let (at, session, agent) = match one {
            Recorded::Call(intent) => (intent.at, intent.session, Some(intent.agent.as_str())),
            Recorded::Connection(opened) => (opened.at, opened.session, known.agent(opened.session)),
        };
        self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
            && self.agent.as_ref().is_none_or(|wanted| agent == Some(wanted))
            && (self.sessions.is_empty() || self.sessions.contains(&session))
    }
}

/// What policies decided.
#[derive(Debug)]
pub enum Recorded {
    /// A call.
    Call(Box<CallIntent>),
    /// A connection, of which some were decided.
    Connection(Box<ConnectionOpened>),
}

/// Shows every wanted call, with the sessions that are known when it comes.
pub fn each_call(
    config: &Path,
    warehouse: bool,
    wanted: &Wanted,
    mut see: impl FnMut(CallIntent, &Sessions) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    each(config, warehouse, wanted, false, |one, sessions| match one {
        Recorded::Call(intent) => see(*intent, sessions),
        Recorded::Connection(_) => Ok(()),
    })
}

/// Shows every wanted call, and with `connections` every wanted connection, with the sessions that are known when it comes.
pub fn each(
    config: &Path,
    warehouse: bool,
    wanted: &Wanted,
    connections: bool,
    mut see: impl FnMut(Recorded, &Sessions) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let config = Config::read(config)?;
    // What is said of a session may be long before its calls.
    let events = EventFilter {
        names: if connections { vec!["call-intent", "connection-opened"] } else { vec!["call-intent"] },
        since: wanted.since,
        always: vec!["session-started", "session-identified"],
    };
    commands::query(&config, warehouse, async |record| {
        let mut sessions = Sessions::default();
        let mut events = record.events(events);
        while let Some(event) = events.try_next().await? {
            let one = match event {
                Event::CallIntent(intent) => Recorded::Call(intent),
                Event::ConnectionOpened(opened) => Recorded::Connection(opened),
                other => {
                    sessions.take(other);
                    continue;
                }
            };
            if wanted.wants(&one, &sessions) {
                see(one, &sessions)?;
            }
        }
        Ok(())
    })
}

/// Decides recorded calls by policies that aren't in force.
#[derive(Debug)]
pub struct Judge {
    engine: Engine,
    principals: HashMap<(SessionId, String), Principal>,
}

/// What isn't in the record of any call.
const UNRECORDED: [&str; 1] = ["over_budget"];

impl Judge {
    pub fn new(version: PolicyVersion) -> Self {
        Self { engine: Engine::new(version), principals: HashMap::new() }
    }

    /// What the policies say of a call, or why that can't be said.
    pub fn rule(&mut self, intent: &CallIntent, sessions: &Sessions) -> Result<Ruling, String> {
        let principal = self.principal(intent, sessions)?;
        let call = intent.call.as_ref().ok_or("it was not understood when it came")?;
        let id = intent.session.to_string();
        let started = sessions.of(intent).map(|(session, _)| session.started);
        let ruling = self.engine.rule(&principal, call, facts(intent, &id, started), Approval::None);
        match &ruling {
            Ruling::Deny(denial) => {
                // Whatever isn't known of a call that came so, it wasn't known then, either: the decision is the same. But
                // of parameters that were cut policies had what they looked for, and it isn't recorded.
                let certain = denial.refused.iter().any(|one| one.incomplete.is_none() && !self.asks(&one.policies));
                match denial.refused.iter().find(|one| one.unrecorded) {
                    Some(_) if !certain && call.has_cut_texts() => {
                        Err("it depends on parameters that were cut in the record".to_owned())
                    }
                    Some(one) if !certain => {
                        let what = one.incomplete.as_deref().unwrap_or_default();
                        Err(format!("it depends on {what}, which is not in the record"))
                    }
                    _ => Ok(ruling),
                }
            }
            Ruling::Permit(_) | Ruling::Ask(_) => Ok(ruling),
        }
    }

    /// What every policy made of a call.
    pub fn report(&mut self, intent: &CallIntent, sessions: &Sessions) -> Result<Vec<NeedReport>, String> {
        let principal = self.principal(intent, sessions)?;
        let call = intent.call.as_ref().ok_or("it was not understood when it came")?;
        let id = intent.session.to_string();
        let started = sessions.of(intent).map(|(session, _)| session.started);
        Ok(self.engine.report(&principal, call, facts(intent, &id, started), Approval::None))
    }

    /// What the policies say of a connection that was decided, or why that can't be said.
    pub fn egress(&mut self, opened: &ConnectionOpened, sessions: &Sessions) -> Result<Decision, String> {
        let mut decided: Option<Decision> = None;
        self.for_each_kind(opened, sessions, |engine, principal, connection| {
            let decision = engine.egress(principal, connection);
            if decided.as_ref().is_some_and(|other| other.verdict != decision.verdict) {
                return Err("it depends on what the connection began with, which is not in the record".to_owned());
            }
            decided.get_or_insert(decision);
            Ok(())
        })?;
        decided.ok_or_else(|| "BUG: a connection of no kind".to_owned())
    }

    /// What every policy made of it, for each kind that it may have been.
    pub fn report_egress(&mut self, opened: &ConnectionOpened, sessions: &Sessions) -> Result<Vec<NeedReport>, String> {
        let mut reports = Vec::new();
        self.for_each_kind(opened, sessions, |engine, principal, connection| {
            reports.push(engine.report_egress(principal, connection));
            Ok(())
        })?;
        Ok(reports)
    }

    fn for_each_kind(
        &mut self,
        opened: &ConnectionOpened,
        sessions: &Sessions,
        mut see: impl FnMut(&Engine, &Principal, &Egress<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let (session, identity) =
            sessions.at(opened.session, opened.at).ok_or("the record of its session's beginning is not there")?;
        let principal = self.engine.identified(session, identity);
        // By which port it was captured tells what it began with; one to a proxy may have been anything. Of AWS's names
        // nothing else is passed on than IoT's MQTT.
        let is_aws = opened.name.as_deref().is_some_and(|name| Catalog::global().host(name).is_some());
        let kinds: &[EgressKind] = match opened.destination.0.port() {
            _ if is_aws => &[EgressKind::Mqtt],
            443 | 8443 => &[EgressKind::Tls],
            80 => &[EgressKind::Http],
            _ => &[EgressKind::Http, EgressKind::Tcp, EgressKind::Tls],
        };
        let id = opened.session.to_string();
        for &kind in kinds {
            let connection = Egress {
                kind,
                host: opened.name.as_deref(),
                address: opened.upstream.unwrap_or(opened.destination.0),
                session: &id,
                exe: &opened.process.exe,
                argv: &opened.process.argv,
                at: opened.at,
                session_started: session.started,
            };
            see(&self.engine, &principal, &connection)?;
        }
        Ok(())
    }

    fn asks(&self, policies: &[String]) -> bool {
        let asking = |id: &String| self.engine.version().approver_groups().any(|(policy, _)| policy == *id);
        !policies.is_empty() && policies.iter().all(asking)
    }

    fn principal(&mut self, intent: &CallIntent, sessions: &Sessions) -> Result<Principal, String> {
        let (session, identity) = sessions.of(intent).ok_or("the record of its session's beginning is not there")?;
        let token = identity.map(|identity| identity.token_id.clone()).unwrap_or_default();
        let made = || self.engine.identified(session, identity);
        Ok(self.principals.entry((session.id, token)).or_insert_with(made).clone())
    }
}

fn facts<'a>(intent: &'a CallIntent, session: &'a str, started: Option<OffsetDateTime>) -> CallFacts<'a> {
    let head = &intent.head;
    CallFacts {
        method: &intent.method,
        host: &intent.host,
        path: intent.target.split('?').next().unwrap_or_default(),
        session,
        exe: &intent.process.exe,
        argv: &intent.process.argv,
        over_budget: &[],
        at: Some(intent.at),
        session_started: started,
        body_bytes: body_bytes(&head.version, |name| head.value(name)),
        retry: is_retry(|name| head.value(name)),
        unknown: &UNRECORDED,
    }
}
