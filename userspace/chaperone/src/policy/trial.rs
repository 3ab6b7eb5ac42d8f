//! `chaperone policy try`: recorded calls, decided again by other policies.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use chaperone_model::{CallIntent, ConnectionOpened, Verdict};
use serde::Serialize;

use super::{
    Try, read,
    recorded::{Judge, Recorded, Said, Sessions, Wanted, each},
};
use crate::output::{clean, cut, json_line, table};

/// Calls that would change, and those of which that can't be said.
#[derive(Debug, Default, Serialize)]
pub struct Trial {
    /// Calls that were decided again.
    pub calls: u64,
    /// Connections, likewise: of those that weren't to AWS it was decided whether they are passed on.
    pub connections: u64,
    /// As before.
    pub same: u64,
    /// Refused for other reasons than the policies': not decided again.
    pub not_asked: u64,
    #[serde(skip)]
    changes: BTreeMap<Change, Seen>,
    #[serde(skip)]
    unsaid: BTreeMap<Unsaid, Seen>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Change {
    from: Said,
    to: Said,
    agent: String,
    action: String,
    /// The policies that would decide.
    by: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Unsaid {
    agent: String,
    action: String,
    why: String,
}

#[derive(Debug, Default, Serialize)]
struct Seen {
    calls: u64,
    /// Of calls, and of connections.
    examples: Vec<String>,
}

impl Seen {
    fn add(&mut self, one: &dyn std::fmt::Display, examples: usize) {
        self.calls += 1;
        if self.examples.len() < examples {
            self.examples.push(one.to_string());
        }
    }
}

impl Trial {
    /// Decides one call again.
    pub fn take(&mut self, judge: &mut Judge, intent: &CallIntent, sessions: &Sessions, examples: usize) {
        let Some(from) = Said::of_record(&intent.decision) else {
            self.not_asked += 1;
            return;
        };
        self.calls += 1;
        let action = || {
            let actions = intent.call.iter().flat_map(|call| &call.actions);
            let mut names: Vec<&str> = actions.map(|action| &*action.name).collect();
            names.dedup();
            names.join(" ")
        };
        match judge.rule(intent, sessions) {
            Ok(ruling) if Said::of(&ruling) == from => self.same += 1,
            Ok(ruling) => {
                let (to, by) = (Said::of(&ruling), ruling.decision().policies);
                let change = Change { from, to, agent: intent.agent.clone(), action: action(), by };
                self.changes.entry(change).or_default().add(&intent.id, examples);
            }
            Err(why) => {
                let unsaid = Unsaid { agent: intent.agent.clone(), action: action(), why };
                self.unsaid.entry(unsaid).or_default().add(&intent.id, examples);
            }
        }
    }

    /// Decides one connection again, if it was decided.
    pub fn take_connection(
        &mut self,
        judge: &mut Judge,
        opened: &ConnectionOpened,
        sessions: &Sessions,
        examples: usize,
    ) {
        let Some(from) = opened.decision.as_ref().and_then(Said::of_record) else { return };
        self.connections += 1;
        let agent = || sessions.agent(opened.session).unwrap_or_default().to_owned();
        let action = format!("egress to {}", opened.name.as_deref().unwrap_or("an address without a name"));
        match judge.egress(opened, sessions) {
            Ok(decision) => {
                let to = if decision.verdict == Verdict::Allow { Said::Permit } else { Said::Deny };
                if from == to {
                    self.same += 1;
                    return;
                }
                let change = Change { from, to, agent: agent(), action, by: decision.policies };
                self.changes.entry(change).or_default().add(&opened.id, examples);
            }
            Err(why) => {
                self.unsaid.entry(Unsaid { agent: agent(), action, why }).or_default().add(&opened.id, examples);
            }
        }
    }

    fn count(seen: &BTreeMap<impl Ord, Seen>) -> u64 {
        seen.values().map(|seen| seen.calls).sum()
    }

    fn is_same(&self) -> bool {
        self.changes.is_empty() && self.unsaid.is_empty()
    }
}

/// `chaperone policy try`.
pub fn run(config: &Path, what: &Try, json: bool) -> anyhow::Result<ExitCode> {
    let mut judge = Judge::new(read(config, Some(&what.path))?);
    let mut trial = Trial::default();
    each(config, what.range.warehouse, &Wanted::new(&what.range, &what.session), true, |one, sessions| {
        match one {
            Recorded::Call(intent) => trial.take(&mut judge, &intent, sessions, what.examples),
            Recorded::Connection(opened) => trial.take_connection(&mut judge, &opened, sessions, what.examples),
        }
        Ok(())
    })?;
    let mut out = io::stdout().lock();
    if json {
        in_json(&mut out, &trial)?;
    } else {
        for_people(&mut out, &trial)?;
    }
    Ok(ExitCode::from(u8::from(!trial.is_same())))
}

/// One line for each change, then for what can't be said, then the sum.
fn in_json(out: &mut impl Write, trial: &Trial) -> anyhow::Result<()> {
    let line = |kind: &str, of: serde_json::Value, seen: &Seen| {
        let mut value = serde_json::json!({ "kind": kind, "calls": seen.calls, "examples": seen.examples });
        if let (Some(into), serde_json::Value::Object(from)) = (value.as_object_mut(), of) {
            into.extend(from);
        }
        value
    };
    for (change, seen) in &trial.changes {
        json_line(out, &line("change", serde_json::to_value(change)?, seen))?;
    }
    for (unsaid, seen) in &trial.unsaid {
        json_line(out, &line("unsaid", serde_json::to_value(unsaid)?, seen))?;
    }
    let sum = serde_json::json!({
        "kind": "sum", "calls": trial.calls, "connections": trial.connections, "same": trial.same, "changed": Trial::count(&trial.changes),
        "unsaid": Trial::count(&trial.unsaid), "not_asked": trial.not_asked,
    });
    json_line(out, &sum)?;
    Ok(())
}

fn for_people(out: &mut impl Write, trial: &Trial) -> io::Result<()> {
    let examples = |seen: &Seen| seen.examples.join(" ");
    let mut changes: Vec<_> = trial.changes.iter().collect();
    changes.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.calls));
    if !changes.is_empty() {
        let rows: Vec<Vec<String>> = changes
            .iter()
            .map(|(change, seen)| {
                vec![
                    seen.calls.to_string(),
                    cut(&change.agent, 24),
                    cut(&change.action, 48),
                    format!("{} → {}", change.from.as_str(), change.to.as_str()),
                    cut(
                        &if change.by.is_empty() { "(no policy permits it)".to_owned() } else { change.by.join(", ") },
                        40,
                    ),
                    examples(seen),
                ]
            })
            .collect();
        table(out, &["CALLS", "AGENT", "ACTION", "CHANGE", "BY", "EXAMPLES"], &rows)?;
    }
    for (unsaid, seen) in &trial.unsaid {
        writeln!(
            out,
            "can't be said: {} times of {}, {}: {} ({})",
            seen.calls,
            clean(&unsaid.agent),
            clean(&unsaid.action),
            clean(&unsaid.why),
            examples(seen)
        )?;
    }
    writeln!(
        out,
        "{} calls and {} connections decided again: {} as before, {} would change, {} can't be said",
        trial.calls,
        trial.connections,
        trial.same,
        Trial::count(&trial.changes),
        Trial::count(&trial.unsaid)
    )?;
    if trial.not_asked > 0 {
        writeln!(
            out,
            "{} more were refused before any policy was asked, or for other reasons than policies",
            trial.not_asked
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chaperone_model::{Decision, Reason, TRUNCATED, Verdict};

    use super::*;
    use crate::policy::samples::{self, judge};

    const NEW: &str = r#"
        @id("reads") permit (principal, action == Action::"s3:GetObject", resource);
        @id("puts") permit (principal, action == Action::"s3:PutObject", resource) when { context.body_bytes < 100 };
        @id("asks") @approvers("ops") forbid (principal, action == Action::"s3:PutObject", resource)
          when { resource.arn like "*prod*" } unless { context.approved };
        @id("types") forbid (principal, action, resource)
          when { context.parameters.hasTag("Owner") && context.parameters.getTag("Owner").contains("x") };
        @id("spent") forbid (principal, action == Action::"sqs:SendMessage", resource) when { context.over_budget.contains("b") };
        @id("sends") permit (principal, action == Action::"sqs:SendMessage", resource);
    "#;

    fn denied(reason: Reason, message: &str) -> Decision {
        Decision {
            verdict: Verdict::Deny,
            reason,
            policies: vec![],
            policy_version: String::new(),
            message: message.into(),
        }
    }

    #[test]
    fn what_would_change_is_grouped_and_what_the_record_lacks_is_said() {
        let (mut judge, mut trial, recorded) = (judge(NEW), Trial::default(), samples::Recorded::default());
        let mut take = |action: &str, resource: &str, change: &dyn Fn(&mut CallIntent)| {
            let mut intent = recorded.call(action, resource);
            change(&mut intent);
            trial.take(&mut judge, &intent, recorded.sessions(), 2);
        };
        let data = "arn:aws:s3:::data/k";
        (0..3).for_each(|_| take("s3:GetObject", data, &|_| {}));
        (0..3).for_each(|_| take("s3:DeleteObject", data, &|_| {}));
        take("s3:PutObject", "arn:aws:s3:::prod/k", &|_| {});
        take("s3:PutObject", "arn:aws:s3:::prod/k", &|it| it.decision.message = "approved by a (1)".into());
        take("s3:PutObject", data, &|it| it.head.headers = vec![("content-length".into(), "500".into())]);
        take("s3:GetObject", data, &|it| it.decision = denied(Reason::NotPermitted, ""));
        take("s3:DeleteObject", data, &|it| it.decision = denied(Reason::Forbidden, ""));
        for reason in [Reason::OverBudget, Reason::Stopped, Reason::Undecodable, Reason::InvalidSignature] {
            take("s3:GetObject", data, &|it| it.decision = denied(reason, ""));
        }
        // Cut parameters: of no consequence where no policy looks at them and decides by it.
        let cut = |it: &mut CallIntent| it.call.as_mut().unwrap().parameters = serde_json::json!({ TRUNCATED: true });
        take("s3:GetObject", data, &cut);
        take("s3:DeleteObject", data, &cut);
        take("sqs:SendMessage", "arn:aws:sqs:eu-west-1:1:q", &|_| {});
        let mut lost = samples::Recorded::default().call("s3:GetObject", data);
        lost.id = chaperone_model::CallId::new();
        trial.take(&mut judge, &lost, recorded.sessions(), 2);

        let changes: Vec<_> = trial
            .changes
            .iter()
            .map(|(it, seen)| {
                format!("{} {}-{} {} {}", it.action, it.from.as_str(), it.to.as_str(), it.by.join(","), seen.calls)
            })
            .collect();
        assert_eq!(
            changes,
            [
                "s3:GetObject deny-permit reads 1",
                "s3:PutObject permit-ask asks 1",
                "s3:DeleteObject permit-deny  3",
                "s3:PutObject permit-deny  1",
            ]
        );
        let unsaid: Vec<_> = trial.unsaid.keys().map(|it| format!("{}: {}", it.action, it.why)).collect();
        assert_eq!(
            unsaid,
            [
                "s3:DeleteObject: it depends on parameters that were cut in the record",
                "s3:GetObject: it depends on parameters that were cut in the record",
                "s3:GetObject: the record of its session's beginning is not there",
                "sqs:SendMessage: it depends on context.over_budget, which is not in the record",
            ]
        );
        assert_eq!((trial.not_asked, trial.same), (4, 5));
        assert!(trial.changes.values().all(|seen| seen.examples.len() <= 2));
        let mut out = Vec::new();
        in_json(&mut out, &trial).unwrap();
        let last: serde_json::Value =
            serde_json::from_slice(out.trim_ascii().rsplit(|it| *it == b'\n').next().unwrap()).unwrap();
        assert_eq!((&last["changed"], &last["unsaid"]), (&6.into(), &4.into()));
    }
}
