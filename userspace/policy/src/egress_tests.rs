use std::path::PathBuf;

use chaperone_model::{CgroupId, Session, SessionId};

use super::*;
use crate::{ActionCatalog, PolicyVersion};

/// With Amazon Connect, whose prefix is the word that was nearest.
struct Few;

impl ActionCatalog for Few {
    fn level(&self, action: &str) -> Option<AccessLevel> {
        (action == "connect:CreateUser").then_some(AccessLevel::Write)
    }
    fn has_prefix(&self, prefix: &str) -> bool {
        prefix == "connect"
    }
    fn actions(&self) -> Vec<(String, AccessLevel)> {
        vec![("connect:CreateUser".to_owned(), AccessLevel::Write)]
    }
}

fn engine(text: &str) -> Engine {
    Engine::new(PolicyVersion::parse(&[(PathBuf::from("test.cedar"), text.to_owned())], &Few).unwrap())
}

fn ask(engine: &Engine, kind: EgressKind, host: &str, address: &str) -> Decision {
    let session = Session {
        id: SessionId::new(),
        agent: "coder".into(),
        groups: Vec::new(),
        cgroup: CgroupId(1),
        cgroup_path: "/agents".into(),
        container: None,
        parent: None,
        started: OffsetDateTime::UNIX_EPOCH,
    };
    let host = Some(host).filter(|host| !host.is_empty());
    let (address, at) = (address.parse().unwrap(), OffsetDateTime::UNIX_EPOCH);
    engine.egress(
        &engine.principal(&session),
        &Egress { kind, host, address, session: "s", exe: "/usr/bin/curl", argv: &[], at, session_started: at },
    )
}

fn may(text: &str, host: &str) -> bool {
    ask(&engine(text), EgressKind::Tls, host, "192.0.2.1:443").is_allowed()
}

#[test]
fn without_a_policy_about_them_connections_are_passed_on() {
    for text in [
        "permit (principal, action == Action::\"connect:CreateUser\", resource);",
        "permit (principal, action in Action::\"Read\", resource);",
        "permit (principal, action in Action::\"connect:*\", resource);",
        // Of no level, and Amazon Connect's is another prefix.
        "forbid (principal, action in [Action::\"Read\", Action::\"Write\", Action::\"connect:*\"], resource);",
    ] {
        assert!(may(text, "github.com"), "{text}");
    }
    let decision = ask(
        &engine("@id(\"all\") permit (principal, action, resource);"),
        EgressKind::Http,
        "github.com",
        "[2001:db8::1]:80",
    );
    assert_eq!((decision.is_allowed(), decision.policies), (true, vec!["all".to_owned()]));
}

/// "AWS, GitHub and the model's API, and nothing else": either way it is one policy.
#[test]
fn one_policy_says_where_agents_get() {
    let by_name = "@id(\"only\") forbid (principal, action in Action::\"egress:*\", resource)
         unless { resource in [Resource::\"github.com\", Resource::\"api.anthropic.com\"] };";
    let listed = "permit (principal, action in Action::\"egress:*\", resource)
         when { [\"github.com\", \"api.github.com\", \"api.anthropic.com\"].contains(context.host) };";
    for text in [by_name, listed] {
        for good in ["github.com", "api.github.com", "api.anthropic.com"] {
            assert!(may(text, good), "{good}: {text}");
        }
        for bad in ["example.com", "notgithub.com", "github.com.example.com", "anthropic.com", ""] {
            assert!(!may(text, bad), "{bad}: {text}");
        }
    }
    let refused = ask(&engine(by_name), EgressKind::Tls, "example.com", "192.0.2.1:443");
    assert_eq!((refused.reason, &refused.policies[..]), (Reason::Forbidden, &["only".to_owned()][..]));
    assert!(refused.message.contains("egress:TLS on resource: example.com"), "{}", refused.message);
}

#[test]
fn addresses_ports_and_kinds_are_told_apart() {
    let text = "forbid (principal, action == Action::\"egress:HTTP\", resource);
        forbid (principal, action == Action::\"egress:TLS\", resource) when { context.port == 8443 };
        forbid (principal, action == Action::\"egress:TLS\", resource)
          when { context.host == \"\" && !context.address.isInRange(ip(\"10.0.0.0/8\")) };
        forbid (principal, action, resource)
          when { context has address && context.address.isInRange(ip(\"2001:db8::/32\")) };";
    let engine = engine(text);
    let may = |kind, host, address| ask(&engine, kind, host, address).is_allowed();
    assert!(may(EgressKind::Tls, "github.com", "192.0.2.1:443"));
    assert!(!may(EgressKind::Http, "github.com", "192.0.2.1:80"));
    assert!(!may(EgressKind::Tls, "github.com", "192.0.2.1:8443"));
    assert!(may(EgressKind::Tls, "", "[::ffff:10.1.2.3]:443"));
    assert!(!may(EgressKind::Tls, "", "192.0.2.1:443"));
    assert!(!may(EgressKind::Tls, "github.com", "[2001:db8::1]:443"));
}

/// It goes to AWS, by another authority than the agent's role.
#[test]
fn mqtt_by_a_devices_own_certificate_must_be_permitted() {
    let broker = "a1b2-ats.iot.eu-west-1.amazonaws.com";
    let may = |text: &str, kind, host| ask(&engine(text), kind, host, "192.0.2.1:443").is_allowed();
    assert!(!may("permit (principal, action in Action::\"Read\", resource);", EgressKind::Mqtt, broker));
    assert!(!may("permit (principal, action == Action::\"egress:TLS\", resource);", EgressKind::Mqtt, broker));
    let by_name = format!("permit (principal, action == Action::\"egress:MQTT\", resource == Resource::\"{broker}\");");
    assert!(may(&by_name, EgressKind::Mqtt, broker));
    assert!(!may(&by_name, EgressKind::Mqtt, "other-ats.iot.eu-west-1.amazonaws.com"));
    assert!(may(&by_name, EgressKind::Tls, "github.com"), "it says nothing of others");
    assert!(may("permit (principal, action, resource);", EgressKind::Mqtt, broker));
    let forbidden = format!("{by_name} forbid (principal, action in Action::\"egress:*\", resource);");
    assert!(!may(&forbidden, EgressKind::Mqtt, broker));
}

/// Nobody can be asked about a connection, and a `forbid` that can't be evaluated holds.
#[test]
fn what_waits_for_approval_is_refused() {
    assert!(!may(
        "@approvers(\"sre\") forbid (principal, action in Action::\"egress:*\", resource) unless { context.approved };",
        "github.com"
    ));
    let overflow = "forbid (principal, action == Action::\"egress:TLS\", resource)
         when { context.port + 9223372036854775807 > 0 };";
    let refused = ask(&engine(overflow), EgressKind::Tls, "github.com", "192.0.2.1:443");
    assert_eq!(refused.reason, Reason::PolicyError);
}

/// What every call has, for policies that are about any action.
#[test]
fn a_policy_about_any_action_finds_what_it_looks_for() {
    let text = |condition: &str| format!("forbid (principal, action, resource) when {{ {condition} }};");
    for forbidden in
        ["context.hour == 0", "context.weekday == \"Thursday\"", "context.body_bytes > 1000", "context.level == \"\""]
    {
        assert!(!may(&text(forbidden), "github.com"), "{forbidden}");
    }
    for other in
        ["context.retry", "context.session_age > 0", "context.arguments like \"*x*\"", "context.region != \"global\""]
    {
        assert!(may(&text(other), "github.com"), "{other}");
    }
}

#[test]
fn names_of_actions_that_do_not_exist_are_found() {
    let parse = |name: &str| {
        let text = format!("permit (principal, action == Action::\"{name}\", resource);");
        PolicyVersion::parse(&[(PathBuf::from("test.cedar"), text)], &Few)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    parse("egress:TLS").unwrap();
    for wrong in ["egress:QUIC", "connect:TLS", "connect:*x"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
