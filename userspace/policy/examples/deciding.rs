//! What a decision costs with 10 and with 1,000 policies, on the slice and on the whole set.
//!
//! `cargo run --release -p chaperone-policy --example deciding`

#![allow(clippy::unwrap_used)] // a measurement that can't go on ends

use std::{fmt::Write, path::PathBuf, time::Instant};

use cedar_policy::{Authorizer, Context, Entities, PolicySet, Request};
use chaperone_model::{AccessLevel, Action, Call, CgroupId, Payload, Protocol, Session, SessionId};
use chaperone_policy::{ActionCatalog, CallFacts, Engine, PolicyVersion};

const ROUNDS: u32 = 20_000;

/// Every name of the form `s3:…` is a read.
struct Any;

impl ActionCatalog for Any {
    fn level(&self, action: &str) -> Option<AccessLevel> {
        action.starts_with("s3:").then_some(AccessLevel::Read)
    }

    fn has_prefix(&self, prefix: &str) -> bool {
        prefix == "s3"
    }

    fn actions(&self) -> Vec<(String, AccessLevel)> {
        Vec::new()
    }
}

/// Policies of which five can match the call that is measured: teams of an organisation, each with its own.
fn policies(count: usize) -> String {
    let mut text = String::from(
        "permit (principal in Group::\"developers\", action in [Action::\"Read\"], resource);\n\
         forbid (principal, action in Action::\"PermissionsManagement\", resource);\n\
         permit (principal == Agent::\"coder\", action == Action::\"s3:GetObject\", resource);\n\
         forbid (principal, action, resource) when { context.region == \"us-gov-west-1\" };\n\
         forbid (principal in Group::\"developers\", action == Action::\"s3:GetObject\", resource in Resource::\"arn:aws:s3:::secret\");\n",
    );
    for team in 0..count - 5 {
        let _ = writeln!(
            text,
            "permit (principal in Group::\"team-{team}\", action == Action::\"s3:Action{team}\", resource) \
             when {{ context.region == \"eu-west-1\" && resource.arn like \"arn:aws:s3:::team-{team}*\" }};"
        );
    }
    text
}

fn main() {
    let call = Call {
        partition: "aws".into(),
        region: Some("eu-west-1".into()),
        account: Some("123456789012".into()),
        service: "s3".into(),
        signing_name: "s3".into(),
        operation: "GetObject".into(),
        candidates: vec![],
        protocol: Protocol::RestXml,
        actions: vec![Action { name: "s3:GetObject".into(), level: AccessLevel::Read }],
        resources: vec!["arn:aws:s3:::data/a/b".into()],
        pairs: vec![],
        unknown: vec![],
        unread: vec![],
        references: chaperone_model::References::default(),
        parameters: serde_json::json!({"Bucket": "data", "Key": "a/b"}),
        looked_up: None,
        payload: Payload::DeclaredHash,
    };
    let session = Session {
        id: SessionId::new(),
        agent: "coder".into(),
        groups: vec!["developers".into()],
        cgroup: CgroupId(1),
        cgroup_path: "/agents/coder".into(),
        container: None,
        started: time::OffsetDateTime::UNIX_EPOCH,
    };
    let facts = CallFacts {
        method: "GET",
        host: "data.s3.amazonaws.com",
        path: "/a/b",
        session: "s",
        exe: "/bin/aws",
        at: Some(time::OffsetDateTime::UNIX_EPOCH),
        session_started: Some(time::OffsetDateTime::UNIX_EPOCH),
        body_bytes: Some(0),
        ..CallFacts::default()
    };
    for count in [10, 100, 1_000] {
        let text = policies(count);
        let file = [(PathBuf::from("measure.cedar"), text.clone())];
        let engine = Engine::new(PolicyVersion::parse(&file, &Any).unwrap());
        let principal = engine.principal(&session);
        assert!(engine.decide(&principal, &call, facts).is_allowed());
        let began = Instant::now();
        for _ in 0..ROUNDS {
            std::hint::black_box(engine.decide(&principal, &call, facts));
        }
        let sliced = began.elapsed() / ROUNDS;

        // What Cedar alone does with the whole set, for the same request with as little around it as can be.
        let whole: PolicySet = text.parse().unwrap();
        let request = Request::new(
            r#"Agent::"coder""#.parse().unwrap(),
            r#"Action::"s3:GetObject""#.parse().unwrap(),
            r#"Resource::"arn:aws:s3:::data/a/b""#.parse().unwrap(),
            Context::empty(),
            None,
        )
        .unwrap();
        let (authorizer, entities) = (Authorizer::new(), Entities::empty());
        let began = Instant::now();
        for _ in 0..ROUNDS / 20 {
            std::hint::black_box(authorizer.is_authorized(&request, &whole, &entities));
        }
        let all = began.elapsed() / (ROUNDS / 20);
        println!("{count:>5} policies: decide {:>7.1} us, Cedar on the whole set {:>7.1} us", us(sliced), us(all));
    }
}

fn us(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
