//! `chaperone policy why`: what each policy made of a recorded call, and which would have to change.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::anyhow;
use chaperone_model::{CallId, CallIntent, ConnectionId, ConnectionOpened, Decision, Reason, Verdict};
use chaperone_policy::{NeedReport, PolicyReport, PolicyVersion, Truth};
use serde_json::json;

use super::{
    Range, Why, read,
    recorded::{Judge, Recorded, Said, Sessions, Wanted, each, each_call},
};
use crate::{
    commands,
    config::{Config, ConfigError},
    output::{clean, json_line},
};

/// How many policies that don't match are shown for each need, the nearest first.
const NEAREST: usize = 5;

/// `chaperone policy why`.
pub fn run(config: &Path, what: &Why, json: bool) -> anyhow::Result<ExitCode> {
    let version = read(config, what.policies.as_deref())?;
    let digest = version.digest.clone();
    let Some((intent, sessions)) = find(config, what)? else { return connection(config, what, version, json) };
    let mut judge = Judge::new(version);
    let needs = judge.report(&intent, &sessions).map_err(|why| anyhow!("the call {}: {why}", what.call))?;
    let said = match judge.rule(&intent, &sessions) {
        Ok(ruling) => Ok((Said::of(&ruling), ruling.decision())),
        Err(why) => Err(why),
    };
    let mut out = io::stdout().lock();
    if json {
        let (is, decision) = match &said {
            Ok((said, decision)) => (json!(said), json!(decision)),
            Err(why) => (json!("unsaid"), json!({ "message": why })),
        };
        let value = json!({
            "call": intent.id, "agent": intent.agent, "recorded": intent.decision, "is": is, "decision": decision,
            "needs": needs, "changes": needs.iter().flat_map(changes).collect::<Vec<_>>(),
        });
        json_line(&mut out, &value)?;
    } else {
        let was = &intent.decision;
        let was_said = Said::of_record(was).map_or("refused without asking policies", Said::as_str);
        writeln!(out, "call       {} by {}", intent.id, clean(&intent.agent))?;
        writeln!(out, "recorded   {was_said} {} {}", by(&was.policies), clean(&was.message))?;
        match &said {
            Ok((is, decision)) => {
                writeln!(out, "now        {} {} {}", is.as_str(), by(&decision.policies), clean(&decision.message))?;
            }
            Err(why) => writeln!(out, "now        can't be said: {why}")?,
        }
        if was.policy_version != digest {
            writeln!(out, "           these are not the policies that decided it when it came")?;
        }
        for need in &needs {
            for_people(&mut out, need, what.all)?;
        }
    }
    Ok(ExitCode::from(u8::from(!matches!(said, Ok((Said::Permit, _))))))
}

fn by(policies: &[String]) -> String {
    if policies.is_empty() { String::new() } else { format!("by {}", clean(&policies.join(", "))) }
}

/// The call, and what is known of its session; `None`: there is no such call.
fn find(config: &Path, what: &Why) -> anyhow::Result<Option<(CallIntent, Sessions)>> {
    let read = Config::read(config)?;
    let call: CallId = what.call;
    let found = commands::query(&read, what.warehouse, async |record| Ok(record.exchange(call).await?))?;
    let Some(intent) = found.map(|exchange| exchange.intent) else { return Ok(None) };
    let mut own = Sessions::default();
    let range = Range { since: Some(intent.at), until: None, agent: None, warehouse: what.warehouse };
    each_call(config, what.warehouse, &Wanted::new(&range, &[intent.session]), |one, sessions| {
        if one.id == call {
            own.copy(intent.session, sessions);
        }
        Ok(())
    })?;
    Ok(Some((intent, own)))
}

/// What each policy made of a connection that wasn't to AWS.
fn connection(config: &Path, what: &Why, version: PolicyVersion, json: bool) -> anyhow::Result<ExitCode> {
    let wanted = ConnectionId::from_bytes(*what.call.as_bytes());
    let mut found: Option<(ConnectionOpened, Sessions)> = None;
    let range = Range { since: None, until: None, agent: None, warehouse: what.warehouse };
    each(config, what.warehouse, &Wanted::new(&range, &[]), true, |one, sessions| {
        if let Recorded::Connection(opened) = one
            && opened.id == wanted
        {
            let mut own = Sessions::default();
            own.copy(opened.session, sessions);
            found = Some((*opened, own));
        }
        Ok(())
    })?;
    let id = what.call;
    let none = || {
        let lists = "`chaperone calls` and `chaperone connections` list them";
        ConfigError(format!("there is no call {id}, and no connection: {lists}"))
    };
    let (opened, sessions) = found.ok_or_else(none)?;
    let Some(was) = &opened.decision else {
        let what = "no policy was asked whether it may be passed on";
        return Err(anyhow!("the connection {id}: {what}; of one that was opened, each call was decided by itself"));
    };
    let digest = version.digest.clone();
    let mut judge = Judge::new(version);
    let needs = judge.report_egress(&opened, &sessions).map_err(|why| anyhow!("the connection {id}: {why}"))?;
    let said = judge.egress(&opened, &sessions);
    let agent = sessions.agent(opened.session).unwrap_or_default();
    let mut out = io::stdout().lock();
    if json {
        let (is, decision) = match &said {
            Ok(decision) => (json!(said_of(decision)), json!(decision)),
            Err(why) => (json!("unsaid"), json!({ "message": why })),
        };
        let value = json!({
            "connection": opened.id, "agent": agent, "recorded": was, "is": is, "decision": decision,
            "needs": needs, "changes": needs.iter().flat_map(changes).collect::<Vec<_>>(),
        });
        json_line(&mut out, &value)?;
    } else {
        writeln!(out, "connection {} by {}", opened.id, clean(agent))?;
        writeln!(out, "recorded   {} {} {}", said_of(was).as_str(), by(&was.policies), clean(&was.message))?;
        match &said {
            Ok(is) => writeln!(out, "now        {} {} {}", said_of(is).as_str(), by(&is.policies), clean(&is.message))?,
            Err(why) => writeln!(out, "now        can't be said: {why}")?,
        }
        if was.policy_version != digest {
            writeln!(out, "           these are not the policies that decided it when it came")?;
        }
        needs.iter().try_for_each(|need| for_people(&mut out, need, what.all))?;
    }
    let is_permitted = said.is_ok_and(|decision| decision.verdict == Verdict::Allow);
    Ok(ExitCode::from(u8::from(!is_permitted)))
}

fn said_of(decision: &Decision) -> Said {
    if decision.verdict == Verdict::Allow { Said::Permit } else { Said::Deny }
}

/// What would have to change for another decision, each in a sentence.
fn changes(need: &NeedReport) -> Vec<String> {
    let of = |effect: &'static str, matched: bool| {
        need.policies.iter().filter(move |it| it.effect == effect && it.matched == matched)
    };
    let on = format!("{} on {}", need.action, need.resource);
    match need.reason {
        Reason::Permitted => {
            let by: Vec<_> = of("permit", true).map(|it| format!("`{}`", it.id)).collect();
            if by.is_empty() {
                let list =
                    "or a permit would have to name an egress: action, after which only what is permitted is passed on";
                return vec![format!("to refuse {on}: a forbid, {list}")];
            }
            vec![format!("to refuse {on}: a forbid, or {} would have to match no more", by.join(" and "))]
        }
        Reason::NotPermitted if need.alias => Vec::new(),
        Reason::NotPermitted => {
            let mut nearest: Vec<_> = of("permit", false).collect();
            nearest.sort_by_key(|it| it.distance());
            let least = nearest.first().map_or(0, |it| it.distance());
            let near: Vec<_> = nearest.iter().take_while(|it| it.distance() == least).take(3).collect();
            if near.is_empty() {
                return vec![format!("to permit {on}: a permit, since there is none")];
            }
            near.iter().map(|it| format!("to permit {on}: `{}`, by {}", it.id, obstacles(it).join(" and "))).collect()
        }
        _ => {
            let by = of("forbid", true).map(|it| match &it.approvers {
                Some(who) => format!("to permit {on}: the approval of {} (`{}`)", clean(who), it.id),
                None => format!("to permit {on}: `{}` would have to match no more, as no permit outweighs it", it.id),
            });
            let mut all: Vec<_> = by.collect();
            if of("permit", true).next().is_none() {
                all.push(format!("and a permit for {on} would have to match: none does"));
            }
            all
        }
    }
}

/// What keeps a policy from matching.
fn obstacles(policy: &PolicyReport) -> Vec<String> {
    let scope = policy.outside.iter().map(|part| format!("another {part} in its scope"));
    let conditions = policy.conditions.iter().filter(|it| it.is_in_the_way()).map(|it| {
        let values: Vec<_> = it.values.iter().map(|(name, value)| format!("{name} is {value}")).collect();
        format!("its `{} {{ {} }}` ({})", it.kind, it.text, values.join(", "))
    });
    scope.chain(conditions).collect()
}

fn for_people(out: &mut impl Write, need: &NeedReport, all: bool) -> io::Result<()> {
    let came_to = match need.reason {
        Reason::Permitted => "permitted",
        Reason::Forbidden => "forbidden",
        Reason::NotPermitted if need.alias => "not forbidden",
        Reason::NotPermitted => "not permitted",
        _ => "failed",
    };
    let perhaps = if need.incomplete { ", since not all is known of it" } else { "" };
    writeln!(out, "\n{} on {}: {came_to}{perhaps}", clean(&need.action), clean(&need.resource))?;
    let mut far = 0;
    for (index, policy) in need.policies.iter().enumerate() {
        // Of those that are about something else there can be thousands.
        if !policy.matched && !all && (index >= NEAREST || policy.outside.contains(&"action")) {
            far += 1;
            continue;
        }
        let mark = if policy.matched { "matched" } else { "did not match" };
        let scope =
            if policy.outside.is_empty() { String::new() } else { format!(": other {}", policy.outside.join(", ")) };
        writeln!(out, "  {} {} {mark}{scope}", policy.effect, clean(&policy.id))?;
        for condition in &policy.conditions {
            let is = match condition.is {
                Truth::True => "true",
                Truth::False => "false",
                Truth::Unknown => "not known",
                Truth::Failed => "failed",
            };
            writeln!(out, "    {} {{ {} }} is {is}", condition.kind, clean(&condition.text))?;
            for (name, value) in &condition.values {
                writeln!(out, "      {} = {}", clean(name), clean(value))?;
            }
        }
    }
    if far > 0 {
        writeln!(out, "  {far} more policies are about something else (--all shows them)")?;
    }
    changes(need).iter().try_for_each(|text| writeln!(out, "  → {}", clean(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::samples::{self, judge};

    const POLICIES: &str = r#"
        @id("reads") permit (principal, action == Action::"s3:GetObject", resource) when { context.region == "us-east-1" };
        @id("deletes") permit (principal, action == Action::"s3:DeleteObject", resource);
        @id("never") forbid (principal, action == Action::"s3:DeleteObject", resource) when { resource.arn like "*prod*" };
        @id("asks") @approvers("ops") forbid (principal, action == Action::"s3:DeleteObject", resource)
          when { resource.arn like "*data*" } unless { context.approved };
    "#;

    fn told(action: &str, resource: &str) -> (String, Vec<String>) {
        let recorded = samples::Recorded::default();
        let needs = judge(POLICIES).report(&recorded.call(action, resource), recorded.sessions()).unwrap();
        let mut out = Vec::new();
        for need in &needs {
            for_people(&mut out, need, false).unwrap();
        }
        (String::from_utf8(out).unwrap(), needs.iter().flat_map(changes).collect())
    }

    #[test]
    fn what_would_have_to_change_is_said() {
        let (text, changes) = told("s3:GetObject", "arn:aws:s3:::data/k");
        assert!(text.contains("context.region = \"eu-west-1\"") && text.contains("is false"), "{text}");
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].contains("`reads`, by its `when") && changes[0].contains("is \"eu-west-1\""), "{changes:?}");

        let (text, changes) = told("s3:DeleteObject", "arn:aws:s3:::prod/k");
        assert!(text.contains("forbid never matched") && text.contains("permit deletes matched"), "{text}");
        assert_eq!(changes.len(), 1);
        assert!(changes[0].contains("`never` would have to match no more"), "{changes:?}");

        let (_, changes) = told("s3:DeleteObject", "arn:aws:s3:::data/k");
        assert!(changes[0].contains("the approval of ops (`asks`)"), "{changes:?}");
        let (_, changes) = told("s3:DeleteObject", "arn:aws:s3:::x/k");
        assert!(changes[0].contains("to refuse") && changes[0].contains("`deletes`"), "{changes:?}");
        let (text, changes) = told("sqs:ListQueues", "*");
        assert!(text.contains("more policies are about something else"), "{text}");
        assert!(changes.iter().all(|it| it.contains("another action in its scope")), "{changes:?}");
    }
}
