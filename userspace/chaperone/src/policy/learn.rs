//! `chaperone policy learn`: the least policy under which sessions could do what they did.
//!
//! Of every call that went out it takes the actions and the resources, as they were decided. It never permits more than
//! was permitted, but for what it is told to generalise; and it decides the same calls by what it made before it prints it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;
use chaperone_model::{CallIntent, Verdict};
use chaperone_policy::PolicyVersion;
use serde_json::json;

use super::{
    Breadth, Learn, iam,
    recorded::{Judge, Said, Sessions, Wanted, each_call},
};
use crate::{
    config::ConfigError,
    daemon::KnownActions,
    output::{clean, json_line},
};

/// Calls are kept until they are decided again; more than these are not learnt from at once.
const MAX_CALLS: usize = 1_000_000;
/// What a managed policy may have at most, in characters that aren't white space (IAM's own quota).
const IAM_CHARACTERS: usize = 6144;

/// Resources that an action is permitted on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// This one.
    Exact(String),
    /// All that are like this: `*` stands for anything.
    Like(String),
}

/// What sessions did: actions by agent and resource.
#[derive(Debug, Default)]
pub struct Learnt {
    did: BTreeMap<(String, Resource), BTreeSet<String>>,
    /// Calls of which not all was understood: what they touched isn't known.
    unread: u64,
}

/// What is permitted together.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    pub agent: String,
    pub actions: BTreeSet<String>,
    pub resources: BTreeSet<Resource>,
}

/// How resources are generalised.
#[derive(Debug)]
pub struct General {
    patterns: Vec<String>,
    by: Breadth,
}

impl General {
    pub const fn new(patterns: Vec<String>, by: Breadth) -> Self {
        Self { patterns, by }
    }

    fn of(&self, arn: &str) -> Resource {
        if let Some(pattern) = self.patterns.iter().find(|pattern| fits(pattern, arn)) {
            return Resource::Like(pattern.clone());
        }
        let exact = || Resource::Exact(arn.to_owned());
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", _, service, _, _, name] = parts[..] else { return exact() };
        let head = &arn[..arn.len() - name.len()];
        match self.by {
            Breadth::Exact => exact(),
            Breadth::Folder => match name.rfind('/') {
                Some(at) => Resource::Like(format!("{head}{}/*", &name[..at])),
                None => exact(),
            },
            Breadth::Kind => match name.find(['/', ':']) {
                Some(at) => Resource::Like(format!("{head}{}*", &name[..=at])),
                None => exact(),
            },
            // An S3 object's bucket is as good as its account: bucket names are the world's.
            Breadth::Service if service == "s3" => match name.find('/') {
                Some(at) => Resource::Like(format!("{head}{}*", &name[..=at])),
                None => exact(),
            },
            Breadth::Service => Resource::Like(format!("{head}*")),
        }
    }
}

/// Whether a text fits a pattern in which `*` stands for anything. Case counts.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl Learnt {
    /// Takes what a call did.
    pub fn take(&mut self, intent: &CallIntent, general: &General) {
        let Some(call) = &intent.call else { return };
        let mut note = |resource: Resource, action: &str| {
            self.did.entry((intent.agent.clone(), resource)).or_default().insert(action.to_owned());
        };
        let mut stood_for = BTreeSet::new();
        for (action, unknown) in call.unknown_resources() {
            if !unknown.alias {
                stood_for.insert(&*action.name);
                note(Resource::Like(unknown.pattern.clone().into_owned()), &action.name);
            }
        }
        for (action, resource) in call.needs() {
            // As deciding has it: nothing is named, but something is known to be touched.
            if resource != "*" || !stood_for.contains(&*action.name) {
                note(general.of(resource), &action.name);
            }
        }
        if !call.unread.is_empty() {
            self.unread += 1;
            call.actions.iter().for_each(|action| note(Resource::Like("*".into()), &action.name));
        }
    }

    /// Together what has the same actions.
    pub fn statements(&self) -> Vec<Statement> {
        // What is within a pattern that has the action, too, isn't said again.
        let mut did = self.did.clone();
        for ((agent, resource), actions) in &self.did {
            let Resource::Exact(arn) = resource else { continue };
            let covered: BTreeSet<&String> = self
                .did
                .iter()
                .filter(|((of, like), _)| of == agent && matches!(like, Resource::Like(pattern) if fits(pattern, arn)))
                .flat_map(|(_, actions)| actions)
                .collect();
            let left: BTreeSet<String> = actions.iter().filter(|action| !covered.contains(action)).cloned().collect();
            did.insert((agent.clone(), resource.clone()), left);
        }
        let mut together: BTreeMap<(String, BTreeSet<String>), BTreeSet<Resource>> = BTreeMap::new();
        for ((agent, resource), actions) in did {
            if !actions.is_empty() {
                together.entry((agent, actions)).or_default().insert(resource);
            }
        }
        together.into_iter().map(|((agent, actions), resources)| Statement { agent, actions, resources }).collect()
    }
}

/// The statements as Cedar policies.
pub fn cedar(statements: &[Statement], about: &str) -> String {
    let mut text = format!("// {about}\n");
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for Statement { agent, actions, resources } in statements {
        let number = numbers.entry(agent).or_default();
        *number += 1;
        let _ = write!(
            text,
            "\n@id({})\npermit (\n  principal == Agent::{},\n  action in [",
            quoted(&format!("learnt-{agent}-{number}")),
            quoted(agent)
        );
        let actions: Vec<_> = actions.iter().map(|action| format!("\n    Action::{}", quoted(action))).collect();
        let _ = write!(text, "{}\n  ],\n  resource\n)", actions.join(","));
        let exact: Vec<_> = resources
            .iter()
            .filter_map(|it| if let Resource::Exact(arn) = it { Some(format!("\n    {}", quoted(arn))) } else { None })
            .collect();
        let mut any = Vec::new();
        if !exact.is_empty() {
            any.push(format!("[{}\n  ].contains(resource.arn)", exact.join(",")));
        }
        for resource in resources {
            if let Resource::Like(pattern) = resource {
                any.push(format!("resource.arn like {}", quoted_pattern(pattern)));
            }
        }
        let _ = writeln!(text, " when {{\n  {}\n}};", any.join(" ||\n  "));
    }
    text
}

/// As a Cedar string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// As a pattern of Cedar's `like`, in which the stars are wildcards.
fn quoted_pattern(pattern: &str) -> String {
    quoted(pattern)
}

/// `chaperone policy learn`.
pub fn run(config: &Path, what: &Learn, json: bool) -> anyhow::Result<ExitCode> {
    let general = General::new(what.generalize.clone(), what.by);
    let (mut learnt, mut calls, mut refused) = (Learnt::default(), Vec::new(), 0_u64);
    let mut own = Sessions::default();
    let mut sessions_seen = BTreeSet::new();
    each_call(config, what.range.warehouse, &Wanted::new(&what.range, &what.sessions), |mut intent, sessions| {
        if intent.decision.verdict != Verdict::Allow {
            refused += 1;
            return Ok(());
        }
        if calls.len() >= MAX_CALLS {
            return Err(ConfigError(format!("more than {MAX_CALLS} calls: give fewer sessions, or --since")).into());
        }
        learnt.take(&intent, &general);
        if sessions_seen.insert(intent.session) {
            own.copy(intent.session, sessions);
        }
        // The rest of it decides nothing.
        intent.head.headers.retain(|(name, _)| name.contains("length") || name == "amz-sdk-request");
        calls.push(intent);
        Ok(())
    })?;
    if calls.is_empty() {
        return Err(ConfigError(
            "no call of these sessions went out: there is nothing to learn from (`chaperone sessions` lists them)"
                .into(),
        )
        .into());
    }
    let statements = learnt.statements();
    let about = format!(
        "Learnt from {} calls of {} sessions that went out; {refused} that were refused are not in it.",
        calls.len(),
        sessions_seen.len()
    );
    let text = cedar(&statements, &about);
    let document = iam::document(&statements);
    let failed = if what.iam { iam::prove(&document, &calls) } else { prove(&text, &calls, &own)? };
    let mut out = io::stdout().lock();
    let iam_text = serde_json::to_string_pretty(&document.json())?;
    if json {
        let value = json!({
            "calls": calls.len(), "sessions": sessions_seen.len(), "refused": refused, "unread": learnt.unread,
            "permitted": calls.len() - failed.len(), "failed": failed,
            "cedar": (!what.iam).then_some(&text), "iam": what.iam.then(|| document.json()),
            "left_out": if what.iam { document.left_out.clone() } else { BTreeSet::new() },
        });
        json_line(&mut out, &value)?;
    } else {
        writeln!(out, "{}", if what.iam { &iam_text } else { text.trim_end() })?;
    }
    out.flush()?;
    eprintln!("proven: {} of {} calls are permitted by it", calls.len() - failed.len(), calls.len());
    if learnt.unread > 0 {
        eprintln!(
            "{} calls had parts that were not understood: what they touched is not known, and their actions are permitted on \
             every resource",
            learnt.unread
        );
    }
    if what.iam {
        for action in &document.left_out {
            eprintln!("not IAM's, and left out: {}", clean(action));
        }
        let size = iam_text.chars().filter(|c| !c.is_whitespace()).count();
        if size > IAM_CHARACTERS {
            eprintln!(
                "the document has {size} characters, and a managed policy may have {IAM_CHARACTERS}: generalise \
                 (--generalize, --by), or split its statements over several policies"
            );
        }
    }
    for call in failed.iter().take(10) {
        eprintln!("not permitted: {}", clean(call));
    }
    Ok(ExitCode::from(u8::from(!failed.is_empty())))
}

/// Decides the calls by the policies; those that they don't permit.
fn prove(text: &str, calls: &[CallIntent], sessions: &Sessions) -> anyhow::Result<Vec<String>> {
    let version = PolicyVersion::parse(&[(PathBuf::from("learnt.cedar"), text.to_owned())], &KnownActions)
        .map_err(|error| anyhow!("BUG: what was learnt is not a policy: {error}"))?;
    let mut judge = Judge::new(version);
    let mut failed = Vec::new();
    for intent in calls {
        match judge.rule(intent, sessions) {
            Ok(ruling) if Said::of(&ruling) == Said::Permit => {}
            Ok(ruling) => failed.push(format!("{}: {}", intent.id, ruling.decision().message)),
            Err(why) => failed.push(format!("{}: {why}", intent.id)),
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use chaperone_model::UnknownResources;

    use super::*;
    use crate::policy::samples::{self, judge};

    const OTHERS: [(&str, &str); 6] = [
        ("s3:GetObject", "arn:aws:s3:::data/other"),
        ("s3:GetObject", "arn:aws:s3:::data/odd*nam"),
        ("s3:DeleteObject", "arn:aws:s3:::data/a"),
        ("ec2:TerminateInstances", "arn:aws:ec2:eu-west-2:123456789012:instance/i-1"),
        ("sqs:ListQueues", "arn:aws:sqs:eu-west-1:123456789012:q"),
        ("iam:CreateUser", "*"),
    ];

    fn did(recorded: &samples::Recorded) -> Vec<CallIntent> {
        let mut calls: Vec<CallIntent> = [
            ("s3:GetObject", "arn:aws:s3:::data/a"),
            ("s3:GetObject", "arn:aws:s3:::data/\"quoted\"\\"),
            ("s3:PutObject", "arn:aws:s3:::data/a"),
            ("sqs:ListQueues", "*"),
        ]
        .iter()
        .map(|(action, resource)| recorded.call(action, resource))
        .collect();
        let mut selected = recorded.call("ec2:TerminateInstances", "*");
        selected.call.as_mut().unwrap().unknown.push(UnknownResources {
            action: None,
            pattern: "arn:aws:ec2:eu-west-1:123456789012:instance/*".into(),
            why: "selected by Filters".into(),
            alias: false,
        });
        calls.push(selected);
        calls
    }

    fn learnt(calls: &[CallIntent], general: &General) -> Vec<Statement> {
        let mut learnt = Learnt::default();
        for call in calls {
            learnt.take(call, general);
        }
        learnt.statements()
    }

    #[test]
    fn what_was_done_is_permitted_and_nothing_else() {
        let recorded = samples::Recorded::default();
        let calls = did(&recorded);
        let statements = learnt(&calls, &General::new(vec![], Breadth::Exact));
        let text = cedar(&statements, "about");
        assert_eq!(prove(&text, &calls, recorded.sessions()).unwrap(), [""; 0], "{text}");
        let mut judge = judge(&text);
        for (action, resource) in OTHERS {
            let ruling = judge.rule(&recorded.call(action, resource), recorded.sessions()).unwrap();
            assert_eq!(Said::of(&ruling), Said::Deny, "{action} {resource}\n{text}");
        }
        // A session of another agent's.
        let mut other = calls[0].clone();
        other.session = chaperone_model::SessionId::new();
        assert!(judge.rule(&other, recorded.sessions()).is_err());
        let document = iam::document(&statements);
        assert_eq!(iam::prove(&document, &calls), [""; 0]);
        // To IAM `*` is every resource, of an action that it can't be narrowed for.
        for (action, resource) in OTHERS.into_iter().filter(|(action, _)| *action != "sqs:ListQueues") {
            assert_eq!(iam::prove(&document, &[recorded.call(action, resource)]).len(), 1, "{action} {resource}");
        }
    }

    #[test]
    fn resources_become_as_wide_as_is_asked_for() {
        let of = |by, arn: &str| General::new(vec!["arn:aws:s3:::logs-*/*".into()], by).of(arn);
        let like = |text: &str| Resource::Like(text.into());
        for by in [Breadth::Exact, Breadth::Folder, Breadth::Kind, Breadth::Service] {
            assert_eq!(of(by, "arn:aws:s3:::logs-1/a/b"), like("arn:aws:s3:::logs-*/*"));
            assert_eq!(of(by, "*"), Resource::Exact("*".into()));
            assert_eq!(of(by, "arn:aws:s3:::data"), Resource::Exact("arn:aws:s3:::data".into()));
        }
        assert_eq!(of(Breadth::Folder, "arn:aws:s3:::data/a/b"), like("arn:aws:s3:::data/a/*"));
        assert_eq!(of(Breadth::Kind, "arn:aws:s3:::data/a/b"), like("arn:aws:s3:::data/*"));
        assert_eq!(of(Breadth::Service, "arn:aws:s3:::data/a/b"), like("arn:aws:s3:::data/*"));
        assert_eq!(of(Breadth::Kind, "arn:aws:ec2:r:1:instance/i-1"), like("arn:aws:ec2:r:1:instance/*"));
        assert_eq!(of(Breadth::Kind, "arn:aws:lambda:r:1:function:f"), like("arn:aws:lambda:r:1:function:*"));
        assert_eq!(of(Breadth::Service, "arn:aws:ec2:r:1:instance/i-1"), like("arn:aws:ec2:r:1:*"));
    }

    #[test]
    fn what_a_pattern_covers_is_not_said_again() {
        let recorded = samples::Recorded::default();
        let calls = [
            recorded.call("s3:GetObject", "arn:aws:s3:::data/a"),
            recorded.call("s3:GetObject", "arn:aws:s3:::data/b"),
            recorded.call("s3:GetObject", "arn:aws:s3:::other/b"),
        ];
        let statements = learnt(&calls, &General::new(vec!["arn:aws:s3:::data/*".into()], Breadth::Exact));
        assert_eq!(statements.len(), 1);
        assert_eq!(statements[0].resources.len(), 2, "{statements:?}");
        assert_eq!(prove(&cedar(&statements, ""), &calls, recorded.sessions()).unwrap(), [""; 0]);
    }

    #[test]
    fn patterns_fit_with_stars() {
        for (pattern, text, wanted) in [
            ("a*c", "abc", true),
            ("*", "", true),
            ("a*b*c", "axbxbc", true),
            ("A*", "abc", false),
            ("a*c", "abd", false),
            ("", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(fits(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
