//! The starter packs in `policies/`: each does what its table says, and our deciding of them is Cedar's own.

use std::{collections::BTreeSet, fs, path::PathBuf, str::FromStr};

use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityId, EntityUid, PolicySet, Request, RestrictedExpression,
};
use chaperone_aws::Catalog;
use chaperone_model::{AccessLevel, CallIntent, Verdict};
use chaperone_policy::{Approval, CallFacts, DEFAULT_POLICY, Engine, PolicyVersion, Ruling};
use time::OffsetDateTime;

use super::{Agents, cases, samples};
use crate::daemon::KnownActions;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

/// Every pack, by its name, with its text.
fn packs() -> Vec<(String, String)> {
    let mut packs: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "cedar"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    packs.sort();
    packs
}

fn version(texts: &[&str]) -> PolicyVersion {
    let files: Vec<_> =
        texts.iter().enumerate().map(|(n, text)| (PathBuf::from(format!("{n}.cedar")), (*text).to_owned())).collect();
    PolicyVersion::parse(&files, &KnownActions).unwrap()
}

#[test]
fn every_pack_does_what_its_table_says() {
    let names: Vec<_> = packs().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "account-pin",
            "ask-before-destroy",
            "instance-types",
            "no-delete",
            "no-iam",
            "no-secrets",
            "read-only",
            "region-pin",
        ]
    );
    for name in names {
        let path = folder().join(&name).with_extension("cedar");
        let version = PolicyVersion::read(&path, &KnownActions).unwrap_or_else(|error| panic!("{error}"));
        assert!(version.warnings.is_empty(), "{name}: {:?}", version.warnings);
        let ran = cases::beside(&path, version, &Agents::default()).unwrap();
        assert!(ran.len() >= 5 && cases::failures(&ran).is_empty(), "{name}: {:#?}", cases::failures(&ran));
    }
    // All of them at once, beside each other and the default policy.
    let all: Vec<_> = packs().into_iter().map(|(_, text)| text).chain([DEFAULT_POLICY.to_owned()]).collect();
    version(&all.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn the_list_of_secrets_is_the_default_policys() {
    let list = |text: &str| text.split("// generated:").nth(1).unwrap().to_owned();
    let own = packs().into_iter().find(|(name, _)| name == "no-secrets").unwrap().1;
    assert_eq!(list(&own), list(DEFAULT_POLICY), "run `cargo xtask catalog`");
}

#[test]
fn nothing_that_destroys_by_its_name_is_permitted_where_nothing_may_be_deleted() {
    let pack = packs().into_iter().find(|(name, _)| name == "no-delete").unwrap().1;
    let engine = Engine::new(version(&[&pack, "permit (principal, action, resource);"]));
    let recorded = samples::Recorded::default();
    let mut missed = BTreeSet::new();
    let mut looked_at = 0;
    for (action, level) in KnownActions::all() {
        let destroys = ["Delet", "Terminat", "Purge", "Destroy"].iter().any(|word| action.contains(word));
        if !destroys || *level <= AccessLevel::Read {
            continue;
        }
        for (service, operation) in Catalog::global().operations_of(action) {
            let mut intent = recorded.call(action, "arn:aws:x:::y");
            let call = intent.call.as_mut().unwrap();
            (call.service, call.operation) = (service.into(), operation.into());
            looked_at += 1;
            if decide(&engine, &intent) == Verdict::Allow {
                missed.insert(format!("{action} by {service}:{operation}"));
            }
        }
    }
    assert!(looked_at > 2000, "{looked_at}");
    assert!(missed.is_empty(), "{} of {looked_at}: {missed:#?}", missed.len());
}

fn facts(intent: &CallIntent) -> CallFacts<'_> {
    CallFacts {
        method: &intent.method,
        host: &intent.host,
        path: "/",
        session: "s",
        exe: "/usr/bin/aws",
        at: Some(OffsetDateTime::UNIX_EPOCH),
        session_started: Some(OffsetDateTime::UNIX_EPOCH),
        body_bytes: Some(0),
        ..CallFacts::default()
    }
}

fn decide(engine: &Engine, intent: &CallIntent) -> Verdict {
    let principal = engine.principal(&samples::session());
    engine.decide(&principal, intent.call.as_ref().unwrap(), facts(intent)).verdict
}

/// Numbers that look random, and are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.next() % all.len() as u64).unwrap()]
    }
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

/// What Cedar says of a request with everything in it, by the whole set, put together here and not by our engine.
fn by_cedar(set: &PolicySet, intent: &CallIntent, approved: bool) -> bool {
    let call = intent.call.as_ref().unwrap();
    let uid = |kind: &str, id: &str| EntityUid::from_type_name_and_id(kind.parse().unwrap(), EntityId::new(id));
    let (action, arn) = (&call.actions[0], call.resources[0].as_str());
    let prefix = action.name.split(':').next().unwrap();
    let parts: Vec<&str> = arn.splitn(6, ':').chain([""; 6]).take(6).collect();
    let level = action.level.as_str();
    let groups = [uid("Action", level), uid("Action", &format!("{prefix}:*"))];
    let texts = ["name", "issuer", "subject", "sponsor", "displayName", "image", "parent"]
        .map(|name| (name.to_owned(), string(if name == "name" { "coder" } else { "" })));
    let principal = texts.into_iter().chain([("identified".to_owned(), RestrictedExpression::new_bool(false))]);
    let resource = ["arn", "partition", "service", "region", "account", "name"]
        .iter()
        .enumerate()
        .map(|(n, name)| ((*name).to_owned(), string(if n == 0 { arn } else { parts[n] })));
    let parents = match parts[5].split_once('/') {
        Some((bucket, _)) if parts[2] == "s3" => vec![uid("Resource", &format!("arn:aws:s3:::{bucket}"))],
        _ => vec![],
    };
    let tags = call
        .parameters
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), RestrictedExpression::new_set([string(value.as_str().unwrap())])));
    let entities = Entities::from_entities(
        [
            Entity::new(uid("Agent", "coder"), principal.collect(), [uid("Group", "developers")].into()).unwrap(),
            Entity::new_no_attrs(uid("Action", &action.name), groups.into_iter().collect()),
            Entity::new(uid("Resource", arn), resource.collect(), parents.into_iter().collect()).unwrap(),
            Entity::new_with_tags(uid("Parameters", ""), [], [], tags).unwrap(),
        ],
        None,
    )
    .unwrap();
    let set_of = |all: &[String]| RestrictedExpression::new_set(all.iter().map(|one| string(one)));
    let context = [
        ("service", string(&call.service)),
        ("operation", string(&call.operation)),
        ("level", string(level)),
        ("partition", string(&call.partition)),
        ("region", string(call.region.as_deref().unwrap_or("global"))),
        ("account", string(call.account.as_deref().unwrap_or_default())),
        ("method", string(&intent.method)),
        ("host", string(&intent.host)),
        ("path", string("/")),
        ("session", string("s")),
        ("exe", string("/usr/bin/aws")),
        ("arguments", string("")),
        ("parameters", RestrictedExpression::new_entity_uid(uid("Parameters", ""))),
        ("arns", set_of(&call.references.arns)),
        ("accounts", set_of(&call.references.accounts)),
        ("over_budget", set_of(&[])),
        ("approved", RestrictedExpression::new_bool(approved)),
        ("retry", RestrictedExpression::new_bool(false)),
        ("body_bytes", RestrictedExpression::new_long(0)),
        ("session_age", RestrictedExpression::new_long(0)),
        ("hour", RestrictedExpression::new_long(0)),
        ("minute", RestrictedExpression::new_long(0)),
        ("weekday", string("Thursday")),
        ("date", string("1970-01-01")),
    ];
    let context = Context::from_pairs(context.map(|(name, value)| (name.to_owned(), value))).unwrap();
    let request =
        Request::new(uid("Agent", "coder"), uid("Action", &action.name), uid("Resource", arn), context, None).unwrap();
    let response = Authorizer::new().is_authorized(&request, set, &entities);
    assert_eq!(response.diagnostics().errors().count(), 0);
    response.decision() == cedar_policy::Decision::Allow
}

#[test]
fn ten_thousand_requests_are_decided_as_cedar_decides_the_whole_set() {
    const REQUESTS: usize = 10_000;
    const PERMITS: &str = "permit (principal in Group::\"developers\", action, resource);";
    let packs = packs();
    let texts: Vec<Vec<&str>> = packs
        .iter()
        .map(|(_, text)| vec![PERMITS, text.as_str()])
        .chain([packs.iter().map(|(_, text)| text.as_str()).chain([PERMITS]).collect(), vec![DEFAULT_POLICY]])
        .collect();
    let both: Vec<_> = texts
        .iter()
        .map(|texts| {
            let engine = Engine::new(version(texts));
            let principal = engine.principal(&samples::session());
            (engine, principal, PolicySet::from_str(&texts.join("\n")).unwrap())
        })
        .collect();
    let actions: Vec<&String> = KnownActions::all().keys().collect();
    let often =
        ["s3:DeleteObject", "s3:GetObject", "ec2:RunInstances", "iam:PassRole", "sqs:PurgeQueue", "kms:Decrypt"];
    let resources = [
        "*",
        "arn:aws:s3:::data/a/b",
        "arn:aws:s3:::data",
        "arn:aws:ec2:us-east-1:123456789012:instance/i-1",
        "arn:aws:iam::210987654321:role/r",
        "arn:aws:apigateway:eu-west-1::/apikeys/a",
        "not-an-arn",
    ];
    let (mut numbers, recorded) = (Numbers(14), samples::Recorded::default());
    let (mut permitted, mut refused, mut asked) = (0, 0, 0);
    for n in 0..REQUESTS {
        let action: &str =
            if n % 3 == 0 { numbers.one_of::<&str>(&often) } else { numbers.one_of::<&String>(&actions) };
        let mut intent = recorded.call(action, numbers.one_of::<&str>(&resources));
        let call = intent.call.as_mut().unwrap();
        call.region = numbers.one_of(&[Some("eu-west-1"), Some("us-east-1"), None]).map(Into::into);
        call.account = numbers.one_of(&[Some("123456789012"), Some("210987654321"), None]).map(Into::into);
        call.references.accounts =
            numbers.one_of(&[vec![], vec!["123456789012".into()], vec!["210987654321".to_owned()]]).clone();
        call.parameters = numbers
            .one_of(&[
                serde_json::json!({}),
                serde_json::json!({ "InstanceType": "t3.micro" }),
                serde_json::json!({ "InstanceType": "p5.48xlarge" }),
            ])
            .clone();
        let (engine, principal, set) = &both[n % both.len()];
        let call = intent.call.as_ref().unwrap();
        for (approval, approved) in [(Approval::None, false), (Approval::Given, true)] {
            let ruling = engine.rule(principal, call, facts(&intent), approval);
            let is = matches!(ruling, Ruling::Permit(_));
            assert_eq!(is, by_cedar(set, &intent, approved), "{action} {call:?} {ruling:?}");
            match ruling {
                Ruling::Permit(_) => permitted += 1,
                Ruling::Deny(_) => refused += 1,
                Ruling::Ask(_) => asked += 1,
            }
        }
    }
    println!("{permitted} permitted, {refused} refused, {asked} asked");
    assert!(permitted > 2000 && refused > 2000 && asked > 100, "{permitted} {refused} {asked}");
}
