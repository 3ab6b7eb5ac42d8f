//! What a decision costs with 10 and with 1,000 policies: each of many is timed, for their median and 99th percentile; of one
//! call again and again, and of calls that are for another object each, which nothing is known of before. By
//! policies that look at names alone, and by such as look at all that there is in the context: who the agent is by its token,
//! its container's labels, parameters, arguments, and the clock. The marks are 5 µs and 20 µs.
//!
//! `cargo run --release -p chaperone-policy --example deciding`

#![allow(clippy::unwrap_used)] // a measurement that can't go on ends

use std::{
    fmt::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use cedar_policy::{Authorizer, Context, Entities, PolicySet, Request};
use chaperone_model::{
    AccessLevel, Action, Call, CgroupId, Container, Identity, Payload, Protocol, Session, SessionId,
};
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

/// What the richer context is for; all of it can match the call that is measured.
const RICH: [&str; 5] = [
    "forbid (principal, action in Action::\"Read\", resource) unless { principal.identified && principal.sponsor != \"\" };",
    "forbid (principal, action, resource) when { principal.hasTag(\"team\") && principal.getTag(\"team\") != \"red\" };",
    "forbid (principal, action, resource) when { principal.hasTag(\"label:env\") && principal.getTag(\"label:env\") == \"prod\" \
     && (context.hour < 6 || context.weekday == \"Sunday\") };",
    "forbid (principal, action, resource) when { context.parameters.hasTag(\"Bucket\") \
     && context.parameters.getTag(\"Bucket\").contains(\"payroll\") || context.arguments like \"* --no-verify-ssl*\" };",
    "forbid (principal, action, resource) when { context.retry && context.body_bytes > 1000000 || context.session_age > 86400 \
     || principal.parent != \"\" || context.accounts.contains(\"999999999999\") };",
];

/// Policies of which five, or ten with the rich ones, can match the call that is measured: teams of an organisation, each with
/// its own.
fn policies(count: usize, rich: bool) -> String {
    let rich: &[&str] = if rich { &RICH } else { &[] };
    let mut text = rich.join("\n");
    text.push_str(
        "\npermit (principal in Group::\"developers\", action in [Action::\"Read\"], resource);\n\
         forbid (principal, action in Action::\"PermissionsManagement\", resource);\n\
         permit (principal == Agent::\"coder\", action == Action::\"s3:GetObject\", resource);\n\
         forbid (principal, action, resource) when { context.region == \"us-gov-west-1\" };\n\
         forbid (principal in Group::\"developers\", action == Action::\"s3:GetObject\", resource in Resource::\"arn:aws:s3:::secret\");\n",
    );
    for team in 0..count - 5 - rich.len() {
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
        parent: None,
        started: time::OffsetDateTime::UNIX_EPOCH,
    };
    let argv = ["aws", "s3api", "get-object", "--bucket", "data", "--key", "a/b", "out"].map(str::to_owned);
    let facts = CallFacts {
        method: "GET",
        host: "data.s3.amazonaws.com",
        path: "/a/b",
        session: "s",
        exe: "/bin/aws",
        argv: &argv,
        // A Thursday at noon.
        at: Some(time::OffsetDateTime::UNIX_EPOCH + time::Duration::hours(12)),
        session_started: Some(time::OffsetDateTime::UNIX_EPOCH),
        body_bytes: Some(0),
        ..CallFacts::default()
    };
    let mut agent = session;
    agent.container = Some(Container {
        image: "example.com/agents/coder:1".into(),
        labels: [("env", "prod"), ("team", "red")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Container::default()
    });
    let identity = Identity {
        provider: "github".into(),
        issuer: "https://token.actions.githubusercontent.com".into(),
        subject: "repo:octo-org/octo-repo:environment:prod".into(),
        groups: (0..20).map(|number| format!("github:octo-org/repo-{number}")).collect(),
        sponsor: Some("octocat".into()),
        display_name: None,
        token_id: "t".into(),
        claims: [("team".to_owned(), "red".to_owned())].into(),
        expires: time::OffsetDateTime::UNIX_EPOCH,
    };
    for (count, rich) in [(10, false), (100, false), (1_000, false), (10, true), (100, true), (1_000, true)] {
        let text = policies(count, rich);
        let file = [(PathBuf::from("measure.cedar"), text.clone())];
        let engine = Engine::new(PolicyVersion::parse(&file, &Any).unwrap());
        let principal = engine.identified(&agent, Some(&identity));
        let decided = engine.decide(&principal, &call, facts);
        assert!(decided.is_allowed(), "{decided:?}");
        let time = |other_objects: bool| {
            let mut call = call.clone();
            let mut times: Vec<Duration> = (0..ROUNDS)
                .map(|round| {
                    if other_objects {
                        call.resources[0] = format!("arn:aws:s3:::data/a/{round}");
                    }
                    let began = Instant::now();
                    std::hint::black_box(engine.decide(&principal, &call, facts));
                    began.elapsed()
                })
                .collect();
            times.sort_unstable();
            (us(times[times.len() / 2]), us(times[times.len() * 99 / 100]))
        };
        let ((again, again_p99), (other, other_p99)) = (time(false), time(true));

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
        println!(
            "{count:>5} policies, {}: again {again:>5.1} us, p99 {again_p99:>5.1}; another object {other:>5.1} us, p99 \
             {other_p99:>5.1}; Cedar on the whole set {:>7.1} us",
            if rich { "rich " } else { "names" },
            us(all)
        );
    }
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
