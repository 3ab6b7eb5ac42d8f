//! How much an agent or a session may do in a time: what is counted, and when it is too much.
//!
//! Nothing here does I/O or reads a clock. What is counted can be told again from the record: after a crash, what was
//! kept last and the intents and outcomes behind that give the same counts.

mod counter;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use chaperone_model::{CallId, CallIntent, CallOutcome, OutcomeStatus, Reason, SessionId, Verdict, is_like};
use serde::{Deserialize, Serialize};

use self::counter::{Counter, step_of};
use crate::approvals::Millis;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// Bytes of request bodies that went out, which is known once a call is over: the one that goes over it has gone.
    BytesOut,
    /// Calls that are permitted.
    Calls,
    /// Calls that are refused.
    Denied,
    /// Different resources of calls that are permitted.
    Resources,
}

/// Whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// All sessions of an agent have it together.
    #[default]
    Agent,
    /// Each session has one.
    Session,
}

/// What becomes of a call that is over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverBudget {
    /// It is refused.
    #[default]
    Deny,
    /// Policies see it in `context.over_budget`, and say.
    Policy,
    /// It is refused, and the agent or the session is stopped.
    Stop,
}

/// A budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// The agents that it is for; all, if empty.
    pub agents: Vec<String>,
    /// Whose it is.
    pub per: Per,
    /// What is counted.
    pub count: Count,
    /// Of calls that need one of these actions, such as `ec2:RunInstances` or `s3:Delete*`; of all, if empty.
    pub actions: Vec<String>,
    /// How much is allowed.
    pub limit: u64,
    /// In so many milliseconds; 0 is for ever.
    pub window: Millis,
    /// What becomes of a call that is over it.
    pub over: OverBudget,
}

impl Budget {
    fn is_for(&self, agent: &str) -> bool {
        self.agents.is_empty() || self.agents.iter().any(|name| name == agent)
    }

    fn is_about<'a>(&self, mut actions: impl Iterator<Item = &'a str>) -> bool {
        self.actions.is_empty() || actions.any(|action| self.actions.iter().any(|pattern| is_like(pattern, action)))
    }

    fn of(&self, who: Who<'_>) -> String {
        match self.per {
            Per::Agent => who.agent.to_owned(),
            Per::Session => who.session.to_string(),
        }
    }

    /// What is allowed, in words.
    pub fn terms(&self) -> String {
        let what = match self.count {
            Count::BytesOut => "bytes sent",
            Count::Calls => "calls",
            Count::Denied => "refused calls",
            Count::Resources => "different resources",
        };
        let of = if self.actions.is_empty() { String::new() } else { format!(" of {}", self.actions.join(", ")) };
        let time = match self.window / 1000 {
            0 => String::new(),
            seconds if seconds % 86_400 == 0 => format!(" in {} days", seconds / 86_400),
            seconds if seconds % 3600 == 0 => format!(" in {} hours", seconds / 3600),
            seconds => format!(" in {seconds} seconds"),
        };
        format!("{} {what}{of}{time}", self.limit)
    }
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The agent.
    pub agent: &'a str,
    /// The session.
    pub session: SessionId,
}

/// A budget that a call is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which.
    pub budget: Budget,
    /// The agent's name or the session's id.
    pub of: String,
}

/// How much of a budget is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Used {
    /// Its name.
    pub budget: String,
    /// The agent's name or the session's id.
    pub of: String,
    /// So much.
    pub used: u64,
    /// Of so much.
    pub limit: u64,
}

/// What of a call was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Part {
    Bytes,
    Denied,
    Permitted,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// Nothing of it is on record, and it may yet be given back.
    Charged,
    /// It is being recorded.
    Recording,
    /// It is on record.
    Recorded,
}

/// What a call has added to the counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Charge {
    call: CallId,
    part: Part,
    stage: Stage,
    /// It was being recorded when the place in the record was taken that is read again from: its record may be before that.
    older: bool,
    added: Vec<Added>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Added {
    budget: Arc<str>,
    of: Arc<str>,
    step: u64,
    amount: u64,
    /// Those that weren't counted before.
    resources: Vec<String>,
}

/// What is written down now and then. It shares what is counted on, so that calls don't wait for a copy of all of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept<P> {
    /// Up to where the record is in the counts; behind it, what stands in `charges` is.
    pub recorded: P,
    /// By what it was counted.
    rules: Vec<Budget>,
    counters: Vec<(Arc<str>, Arc<str>, Arc<Counter>)>,
    charges: Vec<Arc<Charge>>,
    agents: Vec<(SessionId, Arc<str>)>,
}

/// All budgets, with what is used of them. `P` is a place in the record.
#[derive(Debug, Default)]
pub struct Budgets<P> {
    rules: Vec<Budget>,
    counters: BTreeMap<(Arc<str>, Arc<str>), Arc<Counter>>,
    /// What was counted since `recorded`.
    charges: HashMap<(CallId, Part), Arc<Charge>>,
    recorded: P,
    /// Whose sessions are, for outcomes don't tell.
    agents: HashMap<SessionId, Arc<str>>,
    /// While the record is read again: what of `charges` was found there.
    found: HashSet<(CallId, Part)>,
    changed: bool,
}

impl<P: Clone + Default + PartialEq> Budgets<P> {
    /// With what was kept; or none of it used, counted from `end` of the record.
    pub fn restore(rules: Vec<Budget>, kept: Option<Kept<P>>, end: P) -> Self {
        let Kept { recorded, rules: before, counters, charges, agents } =
            kept.unwrap_or_else(|| Kept { recorded: end, ..Kept::default() });
        let mut restored = Self {
            rules: before,
            counters: counters.into_iter().map(|(budget, of, counter)| ((budget, of), counter)).collect(),
            charges: charges.into_iter().map(|charge| ((charge.call, charge.part), charge)).collect(),
            recorded,
            agents: agents.into_iter().collect(),
            found: HashSet::new(),
            // From where to count must be known before there is anything.
            changed: true,
        };
        restored.replace(rules);
        restored
    }

    /// From where the record is to be read again.
    pub const fn recorded(&self) -> &P {
        &self.recorded
    }

    /// Puts other budgets in force. What was counted for one of the same name stays, unless it counts something else now.
    pub fn replace(&mut self, rules: Vec<Budget>) {
        let same = |one: &Budget, other: &Budget| {
            (&one.name, one.per, one.count, &one.actions, one.window)
                == (&other.name, other.per, other.count, &other.actions, other.window)
        };
        let before = std::mem::replace(&mut self.rules, rules);
        let kept: Vec<_> = before.iter().filter(|old| self.rules.iter().any(|new| same(old, new))).collect();
        self.counters.retain(|(name, _), _| kept.iter().any(|budget| *budget.name == **name));
        self.changed = true;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Counts a call that may be made, unless that is too much. What it is over isn't counted. Gives whether anything is.
    pub fn charge(
        &mut self,
        now: Millis,
        who: Who<'_>,
        call: CallId,
        actions: &[&str],
        resources: &[String],
    ) -> (bool, Vec<Over>) {
        self.charge_all(now, who, call, actions, resources, true)
    }

    /// Unless it is `bounded`, a call counts whatever is used: it was made.
    fn charge_all(
        &mut self,
        now: Millis,
        who: Who<'_>,
        call: CallId,
        actions: &[&str],
        resources: &[String],
        bounded: bool,
    ) -> (bool, Vec<Over>) {
        let mut over = Vec::new();
        let mut added = Vec::new();
        for budget in &self.rules {
            if !budget.is_for(who.agent) || !budget.is_about(actions.iter().copied()) {
                continue;
            }
            let key: (Arc<str>, Arc<str>) = (budget.name.as_str().into(), budget.of(who).into());
            let counter = Arc::make_mut(self.counters.entry(key.clone()).or_default());
            counter.forget(budget, now);
            let (amount, new) = match budget.count {
                Count::Calls => (1, Vec::new()),
                Count::Resources => {
                    let new = counter.unseen(resources);
                    (new.len() as u64, new)
                }
                // Nothing more once it is used up.
                Count::BytesOut | Count::Denied => {
                    if counter.used() >= budget.limit {
                        over.push(Over { budget: budget.clone(), of: key.1.to_string() });
                    }
                    continue;
                }
            };
            if bounded && counter.used().saturating_add(amount) > budget.limit {
                over.push(Over { budget: budget.clone(), of: key.1.to_string() });
                continue;
            }
            let step = step_of(budget, now);
            counter.add(step, amount);
            counter.see(step, &new);
            added.push(Added { budget: key.0, of: key.1, step, amount, resources: new });
        }
        let counted = !added.is_empty();
        self.log(who, call, Part::Permitted, Stage::Charged, added);
        (counted, over)
    }

    /// That the call may be made goes into the record now.
    pub fn recording(&mut self, call: CallId) {
        self.advance(call, Stage::Recording);
    }

    /// It is on record that the call may be made.
    pub fn commit(&mut self, call: CallId) {
        self.advance(call, Stage::Recorded);
    }

    fn advance(&mut self, call: CallId, stage: Stage) {
        if let Some(charge) = self.charges.get_mut(&(call, Part::Permitted)) {
            Arc::make_mut(charge).stage = stage;
        }
    }

    /// The call isn't made.
    pub fn release(&mut self, call: CallId) {
        let Some(charge) = self.charges.remove(&(call, Part::Permitted)) else { return };
        self.take_back(&charge);
    }

    fn take_back(&mut self, charge: &Charge) {
        for added in &charge.added {
            if let Some(counter) = self.counters.get_mut(&(added.budget.clone(), added.of.clone())) {
                Arc::make_mut(counter).take_back(added);
            }
        }
    }

    /// Counts a call that is refused. It is on record.
    pub fn denied(&mut self, now: Millis, who: Who<'_>, call: CallId, actions: &[&str], reason: Reason) {
        // Who is told to wait, or that it is enough, is not refused once more for trying again.
        if !matches!(reason, Reason::OverBudget | Reason::Stopped | Reason::Waiting) {
            self.count(now, who, (call, Part::Denied), Count::Denied, actions, 1);
        }
    }

    /// Counts what went out. It is on record.
    pub fn sent(&mut self, now: Millis, who: Who<'_>, call: CallId, bytes: u64) {
        self.count(now, who, (call, Part::Bytes), Count::BytesOut, &[], bytes);
    }

    fn count(
        &mut self,
        now: Millis,
        who: Who<'_>,
        (call, part): (CallId, Part),
        count: Count,
        actions: &[&str],
        amount: u64,
    ) {
        let mut added = Vec::new();
        for budget in &self.rules {
            if budget.count == count && budget.is_for(who.agent) && budget.is_about(actions.iter().copied()) {
                let key: (Arc<str>, Arc<str>) = (budget.name.as_str().into(), budget.of(who).into());
                let step = step_of(budget, now);
                let counter = Arc::make_mut(self.counters.entry(key.clone()).or_default());
                counter.forget(budget, now);
                counter.add(step, amount);
                added.push(Added { budget: key.0, of: key.1, step, amount, resources: Vec::new() });
            }
        }
        self.log(who, call, part, Stage::Recorded, added);
    }

    fn log(&mut self, who: Who<'_>, call: CallId, part: Part, stage: Stage, added: Vec<Added>) {
        if self.rules.iter().any(|budget| budget.count == Count::BytesOut) {
            self.agents.entry(who.session).or_insert_with(|| {
                self.changed = true;
                who.agent.into()
            });
        }
        if added.is_empty() {
            return;
        }
        self.changed = true;
        self.charges.insert((call, part), Arc::new(Charge { call, part, stage, older: false, added }));
    }

    /// A session is over.
    pub fn end_session(&mut self, session: SessionId) {
        let of = session.to_string();
        self.counters.retain(|(_, other), _| **other != *of);
        self.changed |= self.agents.remove(&session).is_some();
    }

    /// What is used of each.
    pub fn used(&self, now: Millis) -> Vec<Used> {
        let of = |((name, of), counter): (&(Arc<str>, Arc<str>), &Arc<Counter>)| {
            let budget = self.rules.iter().find(|budget| *budget.name == **name)?;
            let used = counter.used_at(budget, now);
            Some(Used { budget: name.to_string(), of: of.to_string(), used, limit: budget.limit })
        };
        self.counters.iter().filter_map(of).collect()
    }

    /// What is to be written down, if anything has changed or the record has grown, which would have to be read again. From
    /// the next time on the record counts from `committed`, which is its end now.
    pub fn keep(&mut self, committed: P) -> Option<Kept<P>> {
        if !std::mem::take(&mut self.changed) && self.recorded == committed {
            return None;
        }
        let kept = Kept {
            recorded: std::mem::replace(&mut self.recorded, committed),
            rules: self.rules.clone(),
            counters: self.counters.iter().map(|((name, of), one)| (name.clone(), of.clone(), one.clone())).collect(),
            charges: self.charges.values().cloned().collect(),
            agents: self.agents.iter().map(|(id, agent)| (*id, agent.clone())).collect(),
        };
        self.charges.retain(|_, charge| charge.stage != Stage::Recorded);
        for charge in self.charges.values_mut().filter(|charge| charge.stage == Stage::Recording && !charge.older) {
            Arc::make_mut(charge).older = true;
        }
        Some(kept)
    }

    /// It couldn't be written down: what was counted since the last time that it could isn't forgotten.
    pub fn not_kept(&mut self, kept: Kept<P>) {
        self.recorded = kept.recorded;
        for charge in kept.charges {
            self.charges.entry((charge.call, charge.part)).or_insert(charge);
        }
        self.changed = true;
    }

    /// Counts an intent of the record again.
    pub fn replay_intent(&mut self, at: Millis, intent: &CallIntent) {
        self.agents.insert(intent.session, intent.agent.as_str().into());
        let who = Who { agent: &intent.agent, session: intent.session };
        let (mut actions, mut resources) = (Vec::new(), &[][..]);
        if let Some(call) = &intent.call {
            actions.extend(call.actions.iter().map(|action| &*action.name));
            resources = &call.resources;
        }
        let part = if intent.decision.verdict == Verdict::Allow { Part::Permitted } else { Part::Denied };
        if self.charges.contains_key(&(intent.id, part)) {
            self.found.insert((intent.id, part));
        } else if part == Part::Permitted {
            // Others that never came on record may have had its place when that was kept.
            self.charge_all(at, who, intent.id, &actions, resources, false);
            self.found.insert((intent.id, part));
        } else {
            self.denied(at, who, intent.id, &actions, intent.decision.reason);
        }
    }

    /// Counts an outcome of the record again.
    pub fn replay_outcome(&mut self, at: Millis, outcome: &CallOutcome) {
        let Some(bytes) = bytes_out(outcome.outcome, outcome.request.as_ref().map(|digest| digest.bytes)) else {
            return;
        };
        let Some(agent) = self.agents.get(&outcome.session).cloned() else { return };
        if !self.charges.contains_key(&(outcome.id, Part::Bytes)) {
            self.sent(at, Who { agent: &agent, session: outcome.session }, outcome.id, bytes);
        }
    }

    /// All of the record was read: what isn't there was never made, unless that can't be known.
    pub fn replayed(&mut self) {
        let found = std::mem::take(&mut self.found);
        let lost: Vec<_> = self
            .charges
            .iter()
            .filter(|(key, charge)| charge.stage != Stage::Recorded && !charge.older && !found.contains(key))
            .map(|(key, _)| *key)
            .collect();
        for key in lost {
            if let Some(charge) = self.charges.remove(&key) {
                self.take_back(&charge);
            }
        }
        for charge in self.charges.values_mut() {
            Arc::make_mut(charge).stage = Stage::Recorded;
        }
        // Sessions begin anew with the daemon.
        self.agents.clear();
        let of_sessions = |name: &str| self.rules.iter().any(|one| one.name == name && one.per == Per::Session);
        self.counters.retain(|(name, _), _| !of_sessions(name));
        self.changed = true;
    }
}

/// What of a call counts as sent.
pub fn bytes_out(outcome: OutcomeStatus, bytes: Option<u64>) -> Option<u64> {
    matches!(outcome, OutcomeStatus::Completed | OutcomeStatus::Aborted).then_some(bytes?).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests;
