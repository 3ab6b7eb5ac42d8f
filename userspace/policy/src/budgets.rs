//! How much an agent or a session may do in a time: what is counted, and when it is too much.
//!
//! Nothing here does I/O or reads a clock. What is counted can be told again from the record: after a crash, what was
//! kept last and the intents and outcomes behind that give the same counts.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use chaperone_model::{CallId, CallIntent, CallOutcome, OutcomeStatus, Reason, SessionId, Verdict, is_like};
use serde::{Deserialize, Serialize};

use crate::approvals::Millis;

/// A window's parts: what happened is forgotten in such steps, never before its time.
const STEPS: u64 = 60;

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
    budget: String,
    of: String,
    step: u64,
    amount: u64,
    /// Those that weren't counted before.
    resources: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counter {
    steps: VecDeque<(u64, u64)>,
    /// What is counted once, with its step.
    seen: HashMap<String, u64>,
}

impl Counter {
    fn forget(&mut self, budget: &Budget, now: Millis) {
        if budget.window == 0 {
            return;
        }
        // What happened at a step's end is counted for the whole window after that.
        let oldest = now.saturating_sub(budget.window) / step_length(budget);
        while self.steps.front().is_some_and(|(step, _)| *step < oldest) {
            self.steps.pop_front();
        }
        self.seen.retain(|_, step| *step >= oldest);
    }

    fn used(&self) -> u64 {
        self.steps.iter().map(|(_, amount)| amount).sum()
    }

    fn add(&mut self, step: u64, amount: u64) {
        // The clock may have been set back.
        match self.steps.iter_mut().rev().find(|(at, _)| *at <= step) {
            Some((at, sum)) if *at == step => *sum = sum.saturating_add(amount),
            _ => {
                let place = self.steps.partition_point(|(at, _)| *at < step);
                self.steps.insert(place, (step, amount));
            }
        }
    }

    fn take_back(&mut self, added: &Added) {
        if let Some((_, sum)) = self.steps.iter_mut().find(|(at, _)| *at == added.step) {
            *sum = sum.saturating_sub(added.amount);
        }
        for resource in &added.resources {
            self.seen.remove(resource);
        }
    }
}

const fn step_length(budget: &Budget) -> u64 {
    let step = budget.window / STEPS;
    if step == 0 { 1 } else { step }
}

const fn step_of(budget: &Budget, now: Millis) -> u64 {
    if budget.window == 0 { 0 } else { now / step_length(budget) }
}

/// What is written down now and then.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept<P> {
    /// Up to where the record is in the counts; behind it, what stands in `charges` is.
    pub recorded: P,
    /// By what it was counted.
    rules: Vec<Budget>,
    counters: Vec<(String, String, Counter)>,
    charges: Vec<Charge>,
    agents: Vec<(SessionId, String)>,
}

/// All budgets, with what is used of them. `P` is a place in the record.
#[derive(Debug, Default)]
pub struct Budgets<P> {
    rules: Vec<Budget>,
    counters: BTreeMap<(String, String), Counter>,
    /// What was counted since `recorded`.
    charges: HashMap<(CallId, Part), Charge>,
    recorded: P,
    /// Whose sessions are, for outcomes don't tell.
    agents: HashMap<SessionId, String>,
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
        self.counters.retain(|(name, _), _| kept.iter().any(|budget| budget.name == *name));
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
            let key = (budget.name.clone(), budget.of(who));
            let counter = self.counters.entry(key.clone()).or_default();
            counter.forget(budget, now);
            let (amount, new) = match budget.count {
                Count::Calls => (1, Vec::new()),
                Count::Resources => {
                    let mut new: Vec<_> =
                        resources.iter().filter(|one| !counter.seen.contains_key(*one)).cloned().collect();
                    new.sort_unstable();
                    new.dedup();
                    (new.len() as u64, new)
                }
                // Nothing more once it is used up.
                Count::BytesOut | Count::Denied => {
                    if counter.used() >= budget.limit {
                        over.push(Over { budget: budget.clone(), of: key.1 });
                    }
                    continue;
                }
            };
            if bounded && counter.used().saturating_add(amount) > budget.limit {
                over.push(Over { budget: budget.clone(), of: key.1 });
                continue;
            }
            let step = step_of(budget, now);
            counter.add(step, amount);
            counter.seen.extend(new.iter().map(|one| (one.clone(), step)));
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
            charge.stage = stage;
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
                counter.take_back(added);
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
                let key = (budget.name.clone(), budget.of(who));
                let step = step_of(budget, now);
                let counter = self.counters.entry(key.clone()).or_default();
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
                who.agent.to_owned()
            });
        }
        if added.is_empty() {
            return;
        }
        self.changed = true;
        self.charges.insert((call, part), Charge { call, part, stage, older: false, added });
    }

    /// A session is over.
    pub fn end_session(&mut self, session: SessionId) {
        let of = session.to_string();
        self.counters.retain(|(_, other), _| *other != of);
        self.changed |= self.agents.remove(&session).is_some();
    }

    /// What is used of each.
    pub fn used(&mut self, now: Millis) -> Vec<Used> {
        let of_rule = |rules: &[Budget], name: &str| rules.iter().find(|budget| budget.name == name).cloned();
        let mut all = Vec::new();
        for ((name, of), counter) in &mut self.counters {
            let Some(budget) = of_rule(&self.rules, name) else { continue };
            counter.forget(&budget, now);
            all.push(Used { budget: name.clone(), of: of.clone(), used: counter.used(), limit: budget.limit });
        }
        all
    }

    /// What is to be written down, if anything has changed or the record has grown, which would have to be read again. From the next time on the record counts from `committed`, which
    /// is its end now.
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
        for charge in self.charges.values_mut() {
            charge.older |= charge.stage == Stage::Recording;
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
        self.agents.insert(intent.session, intent.agent.clone());
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
            charge.stage = Stage::Recorded;
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(count: Count, limit: u64) -> Budget {
        Budget {
            name: "b".into(),
            agents: Vec::new(),
            per: Per::Agent,
            count,
            actions: Vec::new(),
            limit,
            window: 60_000,
            over: OverBudget::Deny,
        }
    }

    fn of(rules: Vec<Budget>) -> Budgets<u64> {
        Budgets::restore(rules, None, 0)
    }

    fn coder() -> Who<'static> {
        Who { agent: "coder", session: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap() }
    }

    fn call(budgets: &mut Budgets<u64>, now: Millis, actions: &[&str], resources: &[&str]) -> bool {
        let id = CallId::new();
        let resources: Vec<_> = resources.iter().map(|&one| one.to_owned()).collect();
        let (_, over) = budgets.charge(now, coder(), id, actions, &resources);
        if over.is_empty() {
            budgets.commit(id);
        } else {
            budgets.release(id);
        }
        over.is_empty()
    }

    #[test]
    fn a_window_moves_and_never_forgets_early() {
        let mut budgets = of(vec![budget(Count::Calls, 2)]);
        assert!(call(&mut budgets, 500, &["s3:GetObject"], &[]));
        assert!(call(&mut budgets, 30_000, &["s3:GetObject"], &[]));
        for now in [30_001, 59_999, 60_000, 60_499] {
            assert!(!call(&mut budgets, now, &["s3:GetObject"], &[]), "{now}");
        }
        assert!(call(&mut budgets, 62_000, &["s3:GetObject"], &[]));
        assert!(!call(&mut budgets, 62_000, &["s3:GetObject"], &[]));
        // A clock that is set back brings nothing.
        assert!(!call(&mut budgets, 1_000, &["s3:GetObject"], &[]));
    }

    #[test]
    fn it_counts_what_it_is_about() {
        let runs = Budget { actions: vec!["ec2:Run*".into()], ..budget(Count::Calls, 1) };
        let mut budgets = of(vec![runs]);
        assert!(call(&mut budgets, 0, &["EC2:RunInstances", "iam:PassRole"], &[]));
        assert!(!call(&mut budgets, 0, &["iam:PassRole", "ec2:RunInstances"], &[]));
        assert!(call(&mut budgets, 0, &["ec2:DescribeInstances"], &[]));

        let mut budgets = of(vec![budget(Count::Resources, 2)]);
        assert!(call(&mut budgets, 0, &[], &["a", "b", "a"]));
        assert!(call(&mut budgets, 0, &[], &["b"]) && !call(&mut budgets, 0, &[], &["b", "c"]));
        assert!(call(&mut budgets, 0, &[], &["a"]));

        let mut budgets = of(vec![budget(Count::Denied, 2)]);
        for reason in [Reason::Waiting, Reason::OverBudget, Reason::Stopped, Reason::Forbidden] {
            budgets.denied(0, coder(), CallId::new(), &[], reason);
        }
        assert!(call(&mut budgets, 0, &[], &[]));
        budgets.denied(0, coder(), CallId::new(), &[], Reason::NotPermitted);
        assert!(!call(&mut budgets, 0, &[], &[]));

        let mut budgets = of(vec![budget(Count::BytesOut, 10)]);
        budgets.sent(0, coder(), CallId::new(), 9);
        assert!(call(&mut budgets, 0, &[], &[]));
        budgets.sent(0, coder(), CallId::new(), 2);
        assert!(!call(&mut budgets, 0, &[], &[]));
    }

    #[test]
    fn a_record_that_grows_without_counting_is_not_read_again_for_ever() {
        let mut budgets = of(vec![budget(Count::Calls, 2)]);
        assert!(budgets.keep(5).is_some() && budgets.keep(5).is_none());
        assert_eq!(budgets.keep(9).map(|kept| kept.recorded), Some(5));
        assert_eq!(budgets.keep(12).map(|kept| kept.recorded), Some(9));
    }

    #[test]
    fn what_was_counted_by_another_budget_of_the_name_is_not_taken_over() {
        let mut budgets = of(vec![budget(Count::Calls, 1)]);
        assert!(call(&mut budgets, 90_000_000, &[], &[]));
        let kept = serde_json::to_string(&budgets.keep(0)).unwrap();
        let again = |rule: Budget| {
            let mut budgets: Budgets<u64> = Budgets::restore(vec![rule], serde_json::from_str(&kept).unwrap(), 0);
            budgets.replayed();
            call(&mut budgets, 90_000_000, &[], &[])
        };
        assert!(!again(budget(Count::Calls, 1)) && again(budget(Count::Calls, 2)));
        // Its steps are of another length.
        assert!(again(Budget { window: 86_400_000, ..budget(Count::Calls, 1) }));
        assert!(again(Budget { per: Per::Session, ..budget(Count::Calls, 1) }));
    }

    #[test]
    fn sessions_have_their_own_and_end() {
        let mut budgets = of(vec![Budget { per: Per::Session, window: 0, ..budget(Count::Calls, 1) }]);
        let other = Who { session: SessionId::new(), ..coder() };
        assert!(budgets.charge(0, coder(), CallId::new(), &[], &[]).1.is_empty());
        assert!(budgets.charge(0, other, CallId::new(), &[], &[]).1.is_empty());
        assert_eq!(budgets.charge(u64::MAX, other, CallId::new(), &[], &[]).1[0].of, other.session.to_string());
        assert_eq!(budgets.used(0).len(), 2);
        budgets.end_session(other.session);
        assert_eq!(budgets.used(0).len(), 1);
    }

    /// An intent as the record has it.
    fn intent(id: CallId) -> CallIntent {
        let text = serde_json::json!({
            "id": id, "session": coder().session, "agent": "coder",
            "connection": "01890a5d-ac96-774b-bcce-b302099a8057", "at": "1970-01-01T00:00:00Z",
            "process": chaperone_model::ProcessFacts::default(), "method": "GET", "host": "h", "target": "/",
            "head": { "version": "HTTP/1.1", "headers": [] }, "call": null,
            "decision": { "verdict": "allow", "reason": "permitted", "policies": [], "policy_version": "", "message": "" },
        });
        serde_json::from_value(text).unwrap()
    }

    /// Calls that were under way when their counts were kept, and never came on record, had all places.
    #[test]
    fn a_recorded_call_counts_beside_those_that_were_lost() {
        let rules = vec![Budget { window: 0, ..budget(Count::Calls, 2) }];
        let mut budgets = of(rules.clone());
        for _ in 0..2 {
            assert!(budgets.charge(0, coder(), CallId::new(), &[], &[]).1.is_empty());
        }
        let kept = serde_json::to_string(&budgets.keep(0)).unwrap();
        let mut again: Budgets<u64> = Budgets::restore(rules, serde_json::from_str(&kept).unwrap(), 0);
        again.replay_intent(0, &intent(CallId::new()));
        again.replayed();
        assert_eq!(again.used(0)[0].used, 1);
    }

    proptest! {
        /// Whenever the daemon is killed, what it kept and the record give back exactly the calls that are on record.
        #[test]
        fn a_crash_loses_and_adds_nothing(steps in prop::collection::vec(0_u8..5, 0..60)) {
            let rules = vec![Budget { window: 0, ..budget(Count::Calls, 8) }];
            let (mut budgets, mut kept) = (of(rules.clone()), None);
            let mut record: Vec<CallId> = Vec::new();
            let mut under_way: VecDeque<(CallId, bool)> = VecDeque::new();
            for step in steps {
                match step {
                    // A call comes, gets its record, learns of it, or is given up.
                    0 => {
                        let id = CallId::new();
                        if budgets.charge(0, coder(), id, &[], &[]).1.is_empty() {
                            under_way.push_back((id, false));
                        } else {
                            budgets.release(id);
                        }
                    }
                    1 => if let Some(one) = under_way.iter_mut().find(|(_, recorded)| !recorded) {
                        budgets.recording(one.0);
                        one.1 = true;
                        record.push(one.0);
                    },
                    2 => if let Some((id, recorded)) = under_way.pop_front() {
                        if recorded { budgets.commit(id) } else { budgets.release(id) }
                    },
                    3 => {
                        // Only what has been committed for long is behind the place that is kept.
                        let end = record.len() as u64;
                        kept = budgets.keep(end).map(|kept| serde_json::to_string(&kept).unwrap()).or(kept);
                    }
                    _ => {
                        let read = kept.as_ref().map(|kept| serde_json::from_str(kept).unwrap());
                        budgets = Budgets::restore(rules.clone(), read, 0);
                        let from = usize::try_from(*budgets.recorded()).unwrap();
                        for id in &record[from..] {
                            budgets.replay_intent(0, &intent(*id));
                        }
                        budgets.replayed();
                        under_way.clear();
                        let used = budgets.used(0).first().map_or(0, |used| used.used);
                        prop_assert_eq!(used, record.len() as u64);
                    }
                }
                prop_assert!(record.len() <= 8);
            }
        }
    }
}
