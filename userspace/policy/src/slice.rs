//! The policies of a set whose scope can match a principal and an action.
//!
//! Cedar evaluates every policy of a set. Most name an action or a group in their scope that a given call hasn't got,
//! so the set is cut down once for each (principal, action) and the cut is kept.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

use cedar_policy::{ActionConstraint, Entities, EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint};
use serde_json::Value;

use crate::{
    incomplete::{Rewritten, Unknown},
    inputs::Decisions,
};

/// Slices kept for a policy version; past this the cache starts over.
const MAX_SLICES: usize = 8192;

/// Slices by principal, then by action.
#[derive(Default)]
pub(crate) struct Slices {
    by_principal: HashMap<Arc<str>, HashMap<String, Arc<Slice>>>,
    count: usize,
}

impl Slices {
    pub(crate) fn of(&self, principal: &str, action: &str) -> Option<Arc<Slice>> {
        self.by_principal.get(principal)?.get(action).cloned()
    }

    pub(crate) fn keep(&mut self, principal: Arc<str>, action: &str, slice: Arc<Slice>) {
        if self.count >= MAX_SLICES {
            self.by_principal.clear();
            self.count = 0;
        }
        self.by_principal.entry(principal).or_default().insert(action.to_owned(), slice);
        self.count += 1;
    }
}

/// What is needed to decide an action of a principal.
pub(crate) struct Slice {
    /// The policies by what they look at: what all parts say is what the whole says.
    pub(crate) parts: Vec<Part>,
    pub(crate) decisions: Arc<Decisions>,
    pub(crate) policies: PolicySet,
    pub(crate) action: EntityUid,
    /// The principal and the action, each with what it is in.
    pub(crate) entities: Entities,
    pub(crate) reads: Reads,
    /// The policies in Cedar's JSON form, made when a call first needs them.
    pub(crate) json: OnceLock<Result<Vec<(PolicyId, Value)>, String>>,
}

impl Slice {
    /// The policies as they stand where something isn't known, and the ids of those that differ for it.
    pub(crate) fn with_unknown(&self, unknown: &Unknown<'_>) -> Result<(Cow<'_, PolicySet>, BTreeSet<String>), String> {
        let json = self.json.get_or_init(|| {
            let json = |policy: &Policy| {
                Ok((policy.id().clone(), policy.to_json().map_err(|error| format!("{}: {error}", policy.id()))?))
            };
            self.policies.policies().map(json).collect()
        });
        let mut policies = Vec::new();
        let mut rewritten = BTreeSet::new();
        for (id, json) in json.as_ref().map_err(Clone::clone)? {
            let instead = match unknown.rewrite(json) {
                Rewritten::Same => {
                    policies.extend(self.policies.policy(id).cloned());
                    continue;
                }
                Rewritten::Never => None,
                Rewritten::Instead(json) => {
                    Some(Policy::from_json(Some(id.clone()), json).map_err(|error| format!("{id}: {error}"))?)
                }
            };
            rewritten.insert(id.to_string());
            policies.extend(instead);
        }
        if rewritten.is_empty() {
            return Ok((Cow::Borrowed(&self.policies), rewritten));
        }
        Ok((Cow::Owned(PolicySet::from_policies(policies).map_err(|error| error.to_string())?), rewritten))
    }
}

/// Some policies of a slice.
pub(crate) struct Part {
    /// Its own among those that [`Decisions`] are of.
    pub(crate) id: u64,
    pub(crate) policies: PolicySet,
    pub(crate) reads: Reads,
}

impl Part {
    pub(crate) fn of(decisions: &Decisions, policies: Vec<Policy>, reads: Reads) -> Self {
        let policies = PolicySet::from_policies(policies).expect("BUG: a subset of a policy set is one");
        Self { id: decisions.id(), policies, reads }
    }
}

/// What the policies of a slice look at. The rest of a call needn't be put into Cedar's terms, which costs more than
/// evaluating most policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    /// Names of attributes that are read of anything at all.
    attributes: BTreeSet<String>,
    /// The context is used as a value of its own: all of it may be read.
    whole_context: bool,
    /// Something may be asked to be in something else.
    hierarchy: bool,
    /// The resource is looked at, be it by its name alone.
    any_resource: bool,
    /// Everything may be read.
    everything: bool,
    /// Paths of parameters that are looked for by their names.
    parameters: BTreeSet<String>,
    /// Parameters are looked for in other ways.
    any_parameter: bool,
}

impl Reads {
    pub(crate) const fn everything() -> Self {
        Self {
            attributes: BTreeSet::new(),
            whole_context: true,
            hierarchy: true,
            any_resource: true,
            everything: true,
            parameters: BTreeSet::new(),
            any_parameter: true,
        }
    }

    pub(crate) fn of<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        let mut reads = Self::default();
        for policy in policies {
            match policy.to_json() {
                Ok(json) => reads.note(&json),
                Err(_) => return Self::everything(),
            }
        }
        reads
    }

    /// An attribute of the context.
    pub(crate) fn context(&self, name: &str) -> bool {
        self.whole_context || self.attributes.contains(name)
    }

    /// The paths of parameters that are read; `None`: any may be.
    pub(crate) fn parameters(&self) -> Option<&BTreeSet<String>> {
        (!self.any_parameter && !self.whole_context).then_some(&self.parameters)
    }

    /// The paths of parameters that are read by their names.
    pub(crate) fn into_parameters(self) -> BTreeSet<String> {
        self.parameters
    }

    /// An attribute of the resource. An entity as a value is only ever compared by its name.
    pub(crate) fn resource(&self, name: &str) -> bool {
        self.everything || self.attributes.contains(name)
    }

    pub(crate) const fn any_resource(&self) -> bool {
        self.any_resource
    }

    /// It looks at nothing that is in every call another: who calls, where, and by what program.
    pub(crate) fn is_of_the_agent(&self) -> bool {
        const OF_CALLS: [&str; 6] = ["arns", "body_bytes", "parameters", "path", "retry", "session_age"];
        !self.any_resource && !OF_CALLS.iter().any(|name| self.context(name))
    }

    pub(crate) const fn hierarchy(&self) -> bool {
        self.hierarchy
    }

    /// Notes what a policy in Cedar's JSON format reads: attributes by `.` and `has` (`context["x"]` is a `.` too),
    /// hierarchy by `in` and `is … in`. A key of a record that looks like one of these adds something that isn't read,
    /// which does no harm.
    fn note(&mut self, policy: &Value) {
        self.any_resource |= policy["resource"]["op"] != "All";
        self.hierarchy |= policy["resource"]["op"] != "All" && policy["resource"]["op"] != "==";
        self.walk(&policy["conditions"]);
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(members) => {
                for (operator, operand) in members {
                    match operator.as_str() {
                        "hasTag" | "getTag"
                            if operand["left"] == parameters() && operand["right"]["Value"].is_string() =>
                        {
                            self.attributes.insert("parameters".to_owned());
                            self.parameters.extend(operand["right"]["Value"].as_str().map(str::to_owned));
                            continue;
                        }
                        "." | "has" => {
                            self.any_parameter |= operand["attr"] == "parameters" && operator == ".";
                            self.name(&operand["attr"]);
                            if operand["left"] == serde_json::json!({ "Var": "context" }) {
                                continue;
                            }
                        }
                        "in" => self.hierarchy = true,
                        "Var" => {
                            self.whole_context |= operand == "context";
                            self.any_resource |= operand == "resource";
                        }
                        _ => {}
                    }
                    self.walk(operand);
                }
            }
            _ => {}
        }
    }

    fn name(&mut self, attribute: &Value) {
        match attribute {
            Value::String(name) => {
                self.attributes.insert(name.clone());
            }
            Value::Array(names) => names.iter().for_each(|name| self.name(name)),
            // Not a form that this version knows of.
            _ => *self = Self::everything(),
        }
    }
}

/// `context.parameters`
fn parameters() -> Value {
    serde_json::json!({ ".": { "left": { "Var": "context" }, "attr": "parameters" } })
}

/// The policies that can match `principal` (in `groups`) doing `action` (in `action_groups`).
pub(crate) fn cut<'a>(
    policies: &'a [Policy],
    principal: &EntityUid,
    groups: &[EntityUid],
    action: &EntityUid,
    action_groups: &[EntityUid],
) -> impl Iterator<Item = &'a Policy> {
    let is_in = |entity: &EntityUid, own: &EntityUid, parents: &[EntityUid]| entity == own || parents.contains(entity);
    policies.iter().filter(move |policy| {
        let principal_fits = match policy.principal_constraint() {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => uid == *principal,
            PrincipalConstraint::In(uid) => is_in(&uid, principal, groups),
            PrincipalConstraint::Is(kind) => kind == *principal.type_name(),
            PrincipalConstraint::IsIn(kind, uid) => kind == *principal.type_name() && is_in(&uid, principal, groups),
        };
        principal_fits
            && match policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(uid) => uid == *action,
                ActionConstraint::In(uids) => uids.iter().any(|uid| is_in(uid, action, action_groups)),
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(condition: &str) -> Reads {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        Reads::of([&Policy::parse(None, text).unwrap()])
    }

    #[test]
    fn what_is_read_is_found_in_every_form() {
        let attributes = |condition: &str| reads(condition).attributes.into_iter().collect::<Vec<_>>();
        assert_eq!(attributes("context.level == \"Read\""), ["level"]);
        assert_eq!(attributes("context[\"exe\"] like \"/usr/*\""), ["exe"]);
        assert_eq!(attributes("context has host && resource has name"), ["host", "name"]);
        assert_eq!(attributes("context has a.b && principal.name == resource.arn"), ["a", "arn", "b", "name"]);
        assert_eq!(attributes("context.parameters.hasTag(\"Tags.Key\")"), ["parameters"]);
        assert_eq!(attributes("[1, if resource.account == \"1\" then 2 else 3].contains(2)"), ["account"]);
        assert!(attributes("principal == Agent::\"a\"").is_empty());
    }

    #[test]
    fn a_context_that_is_a_value_is_read_whole() {
        for whole in ["context == {a: 1}", "[context].contains({})", "(if true then context else {a: 1}).a == 1"] {
            assert!(reads(whole).whole_context && reads(whole).context("anything"), "{whole}");
        }
        assert!(!reads("context.level == \"Read\" && context has exe").whole_context);
    }

    #[test]
    fn parameters_are_known_by_their_paths() {
        let paths = |condition: &str| reads(condition).parameters().map(|all| all.iter().cloned().collect::<Vec<_>>());
        let both = r#"context.parameters.hasTag("A.B") && context.parameters.getTag("C").contains("d")"#;
        assert_eq!(paths(both), Some(vec!["A.B".to_owned(), "C".to_owned()]));
        assert_eq!(paths("context.level == \"Read\""), Some(vec![]));
        for any in [
            "context.parameters.hasTag(context.host)",
            "context.parameters == context.parameters",
            "(if true then context.parameters else context.parameters).hasTag(\"a\")",
            "[context].contains({})",
        ] {
            assert_eq!(paths(any), None, "{any}");
        }
    }

    #[test]
    fn hierarchy_is_needed_where_something_may_be_in_something() {
        assert!(!reads("resource == Resource::\"a\"").hierarchy);
        assert!(reads("resource in Resource::\"a\"").hierarchy);
        assert!(reads("resource is Resource in Resource::\"a\"").hierarchy);
        for scope in ["resource in Resource::\"a\"", "resource is Resource in Resource::\"a\""] {
            let policy = Policy::parse(None, format!("permit (principal, action, {scope});")).unwrap();
            assert!(Reads::of([&policy]).hierarchy, "{scope}");
        }
        for names in
            ["resource == Resource::\"a\"", "[resource].contains(principal)", "{a: resource} has a", "resource has arn"]
        {
            assert!(reads(names).any_resource(), "{names}");
        }
        assert!(!reads("context.region == \"resource\"").any_resource());
        let plain = Policy::parse(None, "permit (principal, action, resource);").unwrap();
        assert_eq!(Reads::of([&plain]), Reads::default());
    }
}
