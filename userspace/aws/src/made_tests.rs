//! What operations need by IAM, and what they make, can be forbidden by its type: however a request names things, and
//! though what is made has no name yet. `tests/data/types.ndjson.zst` says what these are; it is made of the IAM data and
//! of the models' answers (`cargo xtask catalog`), by none of the rules that make the catalog's templates.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use serde::Deserialize;

use crate::{
    hostile_wire_tests::{CHANGES, Sent, decode, subject},
    lenient_tests::{Forbidding, SMUGGLED, WIDER, places, replaced},
    wire_tests::for_each_wire,
};

static TYPES: &[u8] = include_bytes!("../tests/data/types.ndjson.zst");

/// Types of resources, each by the patterns that its ARNs have.
#[derive(Deserialize)]
struct Types {
    s: String,
    o: String,
    /// Needed by the operation's action.
    n: Vec<Vec<String>>,
    /// Made by the operation.
    m: Vec<Vec<String>>,
}

fn types() -> HashMap<(String, String), Types> {
    let text = zstd::decode_all(TYPES).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let all = lines.map(|line| serde_json::from_slice::<Types>(line).unwrap());
    all.map(|one| ((one.s.clone(), one.o.clone()), one)).collect()
}

/// A policy's scope and condition that forbids all of a type.
fn all_of(patterns: &[String]) -> String {
    let mut condition = String::from("action, resource) when { false");
    for pattern in patterns {
        let _ = write!(condition, " || resource.arn like \"{pattern}\"");
    }
    condition + " }"
}

/// Types that IAM requires of an action and that a request of an operation doesn't touch: (service, operation, a part of
/// the type's pattern), each with the reason.
const NOT_TOUCHED: [(&str, &str, &str); 9] = [
    // A transaction of nothing.
    ("dynamodb", "TransactWriteItems", "table/"),
    // The names that are made up have the form of one's own.
    ("bedrock", "CreateProvisionedModelThroughput", "foundation-model/"),
    ("bedrock", "GetInferenceProfile", ":inference-profile/"),
    // `Type`, `ResourceType` and an ARN's type say which of the two.
    ("network-firewall", "DeleteRuleGroup", "rulegroup/"),
    ("pinpoint-sms-voice-v2", "CreateRegistrationAssociation", "phone-number/"),
    ("route53", "ChangeTagsForResource", "healthcheck/"),
    ("route53", "ChangeTagsForResource", "hostedzone/"),
    // At another bucket's host than a directory bucket's.
    ("s3", "CreateSession", "bucket/"),
    ("s3", "CreateSession", "accesspoint/"),
];

/// What could stand in the place of a name and tell that it is of another type than the name is asked for.
const OF_ANOTHER_TYPE: [&str; 12] = [
    "vpc-0123abcd",
    "subnet-0123abcd",
    "i-0123abcd",
    "mi-0123abcd",
    "eni-0123abcd",
    "vol-0123abcd",
    "snap-0123abcd",
    "ami-0123abcd",
    "tgw-attach-0123abcd",
    "ecs:cluster_task_runtime-1",
    "arn:aws:ec2:eu-west-1:123456789012:vpc/vpc-0123abcd",
    "arn:aws:s3:::decoy",
];

#[test]
fn what_is_needed_or_made_can_be_forbidden_by_its_type() {
    let types = types();
    let mut forbidding = Forbidding::default();
    let mut passed = BTreeMap::<String, String>::new();
    let (mut kinds, mut changed_requests) = (0_usize, 0_usize);
    for_each_wire(|wire| {
        let Some(types) = types.get(&(wire.service.clone(), wire.operation.clone())) else { return };
        // API Gateway's actions are HTTP's methods, on any of its paths.
        if !wire.variant.is_empty() || wire.service.starts_with("apigateway") {
            return;
        }
        let honest = Sent { parts: wire.parts.clone(), body: wire.body.clone() };
        let Some(Ok(call)) = decode(&honest) else { return };
        let Some(subject) = subject(&wire, &call) else { return };
        let service = subject.service.name;
        let is_touched = |patterns: &&Vec<String>| {
            !NOT_TOUCHED.iter().any(|(of, operation, part)| {
                (*of, *operation) == (&*wire.service, &*wire.operation) && patterns[0].contains(part)
            })
        };
        let wanted: BTreeSet<&Vec<String>> = types.n.iter().chain(&types.m).filter(is_touched).collect();
        // AWS's own, which other names have: `aws.browser.v1`.
        let wanted: Vec<_> =
            wanted.into_iter().filter(|one| !one[0].starts_with("arn:*:bedrock-agentcore:*:aws:")).collect();
        // An ARN of another service's is made up for members that are called `ResourceARN`: it says the type.
        let is_named_by_arn =
            call.resources.iter().any(|one| one.starts_with("arn:aws:kinesis:") && !service.starts_with("kinesis"));
        if is_named_by_arn {
            return;
        }
        kinds += wanted.len();
        let mut hold = |patterns: &Vec<String>, sent: &Sent, how: &str| {
            let Some(Ok(call)) = decode(sent) else { return };
            if forbidding.allows(service, &all_of(patterns), &call) {
                passed.entry(format!("{} {}, {how}", wire.name(), patterns[0])).or_insert_with(|| {
                    let body = String::from_utf8_lossy(&sent.body[..sent.body.len().min(300)]).into_owned();
                    format!("{} {body} {:?} {:?}", sent.parts.uri, call.resources, call.unknown)
                });
            }
        };
        for patterns in &wanted {
            hold(patterns, &honest, "honest");
        }
        let made: BTreeSet<&Vec<String>> = types.m.iter().filter(is_touched).collect();
        if made.is_empty() {
            return;
        }
        let mut changed = Vec::new();
        changed.extend(CHANGES.iter().filter_map(|(name, change)| Some((*name, change(&subject, &honest)?))));
        for place in places(&subject, &honest, &call) {
            changed.extend(SMUGGLED.iter().filter_map(|(name, smuggle)| Some((*name, smuggle(&honest, &place)?))));
            let last = place.value.rsplit([':', '/']).next().unwrap_or(&place.value);
            for resource in call.resources.iter().filter(|resource| resource.contains(last)) {
                let widened = WIDER.iter().filter_map(|(name, widen)| {
                    Some((*name, replaced(&honest, &place, &widen(&place.value, resource)?)?))
                });
                changed.extend(widened);
            }
            changed.extend(OF_ANOTHER_TYPE.iter().filter_map(|text| Some((*text, replaced(&honest, &place, text)?))));
        }
        changed_requests += changed.len();
        for (how, sent) in &changed {
            for patterns in &made {
                hold(patterns, sent, how);
            }
        }
    });
    println!("{kinds} types of requests, and {changed_requests} changed requests that make something");
    let shown: Vec<_> = passed.iter().take(300).map(|(what, how)| format!("{what}: {how}")).collect();
    assert!(passed.is_empty(), "{} passed:\n{}", passed.len(), shown.join("\n"));
    assert!(kinds > 0 && changed_requests > 0);
}
