//! What each policy made of a call, for people: which matched, what its conditions looked at, and what kept it from
//! matching. Not on the call path.

use std::{collections::BTreeMap, str::FromStr};

use cedar_policy::{
    ActionConstraint, Effect, Entities, Expression, Policy, PolicyId, PolicySet, PrincipalConstraint, Request,
    eval_expression,
};
use chaperone_model::{AccessLevel, Action, Call, Reason};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    decide::{Approval, Engine, Principal, Ruled, unknown},
    egress::Egress,
    egress_actions,
    facts::CallFacts,
    incomplete::Unknown,
    slice::Slice,
};

/// What the policies made of one action on one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NeedReport {
    /// The action.
    pub action: String,
    /// The resource's ARN, or the pattern of those that aren't known.
    pub resource: String,
    /// What came of it.
    pub reason: Reason,
    /// Whether more of the call would have to be known to say so for certain.
    pub incomplete: bool,
    /// Whether only a `forbid` counts: it is another name of a resource that is decided besides.
    pub alias: bool,
    /// Each policy, those that took part first.
    pub policies: Vec<PolicyReport>,
}

/// What one policy made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyReport {
    /// Its `@id` or, without one, `FILE#N`.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// Who may approve what it forbids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvers: Option<String>,
    /// Whether it matched.
    pub matched: bool,
    /// Parts of its scope that don't match: `principal`, `action`, `resource`. Its conditions are looked at without any.
    pub outside: Vec<&'static str>,
    /// Its conditions, each `&&` by itself.
    pub conditions: Vec<ConditionReport>,
}

/// One condition of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionReport {
    /// `when` or `unless`.
    pub kind: String,
    /// As Cedar writes it.
    pub text: String,
    /// What it came to.
    pub is: Truth,
    /// What it looked at, each with its value for this call.
    pub values: BTreeMap<String, String>,
}

/// What a condition came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// It holds.
    True,
    /// It doesn't.
    False,
    /// It depends on what isn't known of the call.
    Unknown,
    /// Its evaluation failed.
    Failed,
}

impl ConditionReport {
    /// Whether it keeps its policy from matching.
    pub fn is_in_the_way(&self) -> bool {
        match self.is {
            Truth::True => self.kind == "unless",
            Truth::False => self.kind == "when",
            Truth::Unknown | Truth::Failed => true,
        }
    }
}

impl PolicyReport {
    /// How far it is from matching: how many conditions are in the way, and parts of its scope, which count for more, as
    /// what is outside of that is about something else.
    pub fn distance(&self) -> usize {
        const SCOPE: usize = 16;
        SCOPE * self.outside.len() + self.conditions.iter().filter(|condition| condition.is_in_the_way()).count()
    }
}

impl Engine {
    /// What every policy made of every need of a call.
    pub fn report(
        &self,
        principal: &Principal,
        call: &Call,
        facts: CallFacts<'_>,
        approval: Approval,
    ) -> Vec<NeedReport> {
        let approved = approval == Approval::Given;
        let mut reports = Vec::new();
        self.for_each_need(&self.version, principal, call, facts, approved, &mut |action, need, slice, ruled| {
            let (reason, incomplete) = match &ruled {
                Ok(_) => (Reason::Permitted, false),
                Err((reason, _, incomplete)) => (*reason, *incomplete),
            };
            let inputs = self.inputs(&slice.reads, action, need.resource, call, facts, approved);
            let asked = self.request(slice, &slice.reads, principal, &inputs).ok();
            let unknown = unknown(slice, need, call, &facts);
            let policies = self.policies(principal, action, need.resource, slice, asked.as_ref(), &unknown, &ruled);
            reports.push(NeedReport {
                action: action.name.clone().into_owned(),
                resource: need.resource.to_owned(),
                reason,
                incomplete,
                alias: need.alias,
                policies,
            });
        });
        reports
    }

    /// What every policy made of a connection that was to be passed on.
    pub fn report_egress(&self, principal: &Principal, connection: &Egress<'_>) -> NeedReport {
        let decision = self.egress(principal, connection);
        let action = Action { name: connection.kind.action().into(), level: AccessLevel::Write };
        let address = connection.address.ip().to_canonical().to_string();
        let resource = connection.host.unwrap_or(&address);
        let slice = self.slice(&self.version, principal, &action);
        let asked = self.egress_request(&slice, principal, connection, resource, &address).ok();
        let ruled = Ok(decision.policies);
        let nothing = Unknown { resource: None, parameters: false, references: false, context: Vec::new() };
        let policies = self.policies(principal, &action, resource, &slice, asked.as_ref(), &nothing, &ruled);
        let (action, resource) = (action.name.into_owned(), resource.to_owned());
        NeedReport { action, resource, reason: decision.reason, incomplete: false, alias: false, policies }
    }

    #[allow(clippy::too_many_arguments)] // as in deciding
    fn policies(
        &self,
        principal: &Principal,
        action: &Action,
        resource: &str,
        slice: &Slice,
        asked: Option<&(Request, Entities)>,
        unknown: &Unknown<'_>,
        ruled: &Ruled,
    ) -> Vec<PolicyReport> {
        let mut reports: Vec<PolicyReport> = self
            .version
            .policies
            .iter()
            .map(|policy| {
                let outside = outside(policy, principal, action, slice, resource, asked, unknown);
                let conditions = match asked {
                    Some((request, entities)) if slice.policies.policy(policy.id()).is_some() => {
                        conditions(policy, request, entities, unknown)
                    }
                    _ => Vec::new(),
                };
                let in_the_way = !outside.is_empty() || conditions.iter().any(ConditionReport::is_in_the_way);
                // What decided is what Cedar says; a policy that decided because something isn't known matched, too.
                let decided = match ruled {
                    Ok(ids) | Err((_, ids, _)) => ids.contains(&policy.id().to_string()),
                };
                PolicyReport {
                    id: policy.id().to_string(),
                    effect: if policy.effect() == Effect::Permit { "permit" } else { "forbid" },
                    approvers: policy.annotation("approvers").map(str::to_owned),
                    matched: decided || (!in_the_way && asked.is_some()),
                    outside,
                    conditions,
                }
            })
            .collect();
        reports
            .sort_by_key(|report| (!report.matched, report.distance(), report.effect == "permit", report.id.clone()));
        reports
    }
}

/// Which parts of a policy's scope don't match.
fn outside(
    policy: &Policy,
    principal: &Principal,
    action: &Action,
    slice: &Slice,
    resource: &str,
    asked: Option<&(Request, Entities)>,
    unknown: &Unknown<'_>,
) -> Vec<&'static str> {
    let mut outside = Vec::new();
    let is_in = |uid: &cedar_policy::EntityUid| *uid == principal.uid || principal.groups.contains(uid);
    let principal_fits = match policy.principal_constraint() {
        PrincipalConstraint::Any => true,
        PrincipalConstraint::Eq(uid) => uid == principal.uid,
        PrincipalConstraint::In(uid) => is_in(&uid),
        PrincipalConstraint::Is(kind) => kind == *principal.uid.type_name(),
        PrincipalConstraint::IsIn(kind, uid) => kind == *principal.uid.type_name() && is_in(&uid),
    };
    if !principal_fits {
        outside.push("principal");
    }
    let prefix = action.name.split(':').next().unwrap_or_default();
    // Connections are of no level.
    let level = if prefix == egress_actions::PREFIX { "" } else { action.level.as_str() };
    let groups = [level.to_owned(), format!("{prefix}:*")];
    let names = |uid: &cedar_policy::EntityUid| {
        *uid == slice.action || groups.iter().any(|group| uid.id().unescaped() == group)
    };
    let action_fits = match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid == slice.action,
        ActionConstraint::In(uids) => uids.iter().any(names),
    };
    if !action_fits {
        outside.push("action");
    }
    // The resource by Cedar itself, with the scope alone; where it isn't known, by the rewriting.
    let Ok(json) = policy.to_json() else { return outside };
    let fits = if unknown.resource.is_some() {
        unknown.scope_can_match(&json["resource"])
    } else {
        let alone = json!({
            "effect": "permit", "principal": { "op": "All" }, "action": { "op": "All" },
            "resource": json["resource"], "conditions": [],
        });
        let parent = is_in_bucket(&json["resource"], resource);
        parent
            || asked.is_none_or(|(request, entities)| {
                let set = Policy::from_json(Some(PolicyId::new("scope")), alone)
                    .ok()
                    .and_then(|policy| PolicySet::from_policies([policy]).ok());
                set.is_none_or(|set| {
                    let response = cedar_policy::Authorizer::new().is_authorized(request, &set, entities);
                    response.decision() == cedar_policy::Decision::Allow
                })
            })
    };
    if !fits {
        outside.push("resource");
    }
    outside
}

/// An S3 object is in its bucket; of policies beyond the slice nobody told Cedar so.
fn is_in_bucket(scope: &Value, resource: &str) -> bool {
    let entity = if scope["op"] == "is" { &scope["in"]["entity"] } else { &scope["entity"] };
    let id = entity.get("__entity").unwrap_or(entity)["id"].as_str();
    scope["op"] != "=="
        && id.is_some_and(|id| {
            id.starts_with("arn:aws")
                && id.contains(":s3:::")
                && resource.strip_prefix(id).is_some_and(|it| it.starts_with('/'))
        })
}

fn conditions(policy: &Policy, request: &Request, entities: &Entities, unknown: &Unknown<'_>) -> Vec<ConditionReport> {
    let Ok(json) = policy.to_json() else { return Vec::new() };
    let mut reports = Vec::new();
    for condition in json["conditions"].as_array().into_iter().flatten() {
        let kind = condition["kind"].as_str().unwrap_or_default();
        let mut parts = Vec::new();
        split(&condition["body"], if kind == "when" { "&&" } else { "||" }, &mut parts);
        for part in parts {
            let Some(text) = text_of(part) else { continue };
            let is = if unknown.touches(part) {
                Truth::Unknown
            } else {
                match evaluate(&text, request, entities).as_deref() {
                    Some("true") => Truth::True,
                    Some("false") => Truth::False,
                    _ => Truth::Failed,
                }
            };
            let mut values = BTreeMap::new();
            look(part, &mut |looked_at| {
                let Some(name) = text_of(looked_at) else { return };
                let value = if unknown.touches(looked_at) {
                    Some("(not known)".to_owned())
                } else {
                    evaluate(&name, request, entities)
                };
                values.insert(name, value.unwrap_or_else(|| "(not there)".to_owned()));
            });
            reports.push(ConditionReport { kind: kind.to_owned(), text, is, values });
        }
    }
    reports
}

/// The operands of nested `&&` or `||`.
fn split<'a>(expression: &'a Value, operator: &str, into: &mut Vec<&'a Value>) {
    match expression.get(operator) {
        Some(both) => ["left", "right"].into_iter().for_each(|side| split(&both[side], operator, into)),
        None => into.push(expression),
    }
}

/// What an expression looks at: attributes, tags, and the three entities themselves.
fn look(expression: &Value, see: &mut dyn FnMut(&Value)) {
    match expression {
        Value::Array(items) => items.iter().for_each(|item| look(item, see)),
        Value::Object(members) => {
            for (operator, operand) in members {
                match operator.as_str() {
                    "." | "getTag" => see(expression),
                    "Value" => {}
                    "hasTag" | "has" => {
                        see(expression);
                    }
                    "Var" if operand != "context" => see(expression),
                    _ => look(operand, see),
                }
            }
        }
        _ => {}
    }
}

/// An expression in Cedar's own words.
fn text_of(expression: &Value) -> Option<String> {
    let policy = json!({
        "effect": "permit", "principal": { "op": "All" }, "action": { "op": "All" }, "resource": { "op": "All" },
        "conditions": [{ "kind": "when", "body": expression }],
    });
    let text = Policy::from_json(Some(PolicyId::new("x")), policy).ok()?.to_string();
    let inside = text.split_once("when {")?.1.rsplit_once('}')?.0.trim();
    // Cedar puts every operation in parentheses.
    let bare = inside.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let is_one = |text: &str| {
        let mut depth = 0_i32;
        text.chars().all(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth >= 0
        }) && depth == 0
    };
    Some(bare.filter(|text| is_one(text) && !text.contains('"')).unwrap_or(inside).trim().to_owned())
}

fn evaluate(text: &str, request: &Request, entities: &Entities) -> Option<String> {
    let expression = Expression::from_str(text).ok()?;
    eval_expression(request, entities, &expression).ok().map(|value| value.to_string())
}

#[cfg(test)]
mod tests {
    use chaperone_model::Reason;

    use super::*;
    use crate::decide::tests::{FACTS, call, partly, session, version};

    const TEXT: &str = r#"
        @id("reads") permit (principal in Group::"developers", action == Action::"s3:GetObject", resource)
          when { context.region == "eu-west-1" && resource.name like "data/*" };
        @id("others") permit (principal in Group::"others", action, resource in Resource::"arn:aws:s3:::data");
        @id("types") forbid (principal, action == Action::"ec2:RunInstances", resource)
          unless { context.parameters.hasTag("InstanceType") && context.parameters.getTag("InstanceType").contains("t3.nano") };
        @id("prod") forbid (principal, action, resource) when { resource.arn like "*prod*" };
    "#;

    fn report(call: &Call) -> Vec<NeedReport> {
        let engine = Engine::new(version(TEXT).unwrap());
        engine.report(&engine.principal(&session(&["developers"])), call, FACTS, Approval::None)
    }

    fn of<'a>(report: &'a NeedReport, id: &str) -> &'a PolicyReport {
        report.policies.iter().find(|policy| policy.id == id).unwrap()
    }

    #[test]
    fn each_policy_says_what_it_looked_at() {
        let reports = report(&call(&["s3:GetObject"], &["arn:aws:s3:::data/a/b"]));
        assert_eq!((reports.len(), reports[0].reason), (1, Reason::Permitted));
        let reads = of(&reports[0], "reads");
        assert!(reads.matched && reads.outside.is_empty() && reads.distance() == 0);
        let seen: Vec<_> = reads.conditions.iter().flat_map(|it| &it.values).collect();
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (region, name) = (text("context.region", "\"eu-west-1\""), text("resource.name", "\"data/a/b\""));
        assert_eq!(seen, [(&region.0, &region.1), (&name.0, &name.1)], "{reads:?}");
        let others = of(&reports[0], "others");
        assert_eq!((others.matched, &*others.outside), (false, &["principal"][..]));
        let prod = of(&reports[0], "prod");
        assert_eq!((prod.matched, prod.distance(), prod.conditions[0].is), (false, 1, Truth::False));
    }

    #[test]
    fn what_keeps_a_permit_from_matching_is_said() {
        let reports = report(&call(&["s3:GetObject"], &["arn:aws:s3:::other/prod"]));
        assert_eq!(reports[0].reason, Reason::Forbidden);
        assert_eq!(reports[0].policies[0].id, "prod");
        let reads = of(&reports[0], "reads");
        assert_eq!((reads.matched, reads.distance()), (false, 1));
        assert!(reads.conditions[1].is_in_the_way() && !reads.conditions[0].is_in_the_way(), "{reads:?}");
        assert_eq!(of(&reports[0], "others").outside, ["principal", "resource"]);
        let reports = report(&call(&["ec2:RunInstances"], &["*"]));
        let types = of(&reports[0], "types");
        assert!(types.matched && of(&reports[0], "reads").outside.contains(&"action"));
        let values: Vec<_> = types.conditions.iter().flat_map(|it| it.values.values()).collect();
        assert!(values.iter().any(|value| value.contains("t3.micro")), "{types:?}");
    }

    #[test]
    fn what_is_not_known_is_called_so() {
        let reports = report(&partly("s3:GetObject", &["arn:aws:s3:::data/a"], "arn:aws:s3:::data/*"));
        let unknown = reports.iter().find(|it| it.resource.ends_with('*')).unwrap();
        assert_eq!((unknown.reason, unknown.incomplete), (Reason::Forbidden, true));
        let prod = of(unknown, "prod");
        assert_eq!((prod.matched, prod.conditions[0].is), (true, Truth::Unknown));
        assert_eq!(prod.conditions[0].values["resource.arn"], "(not known)");
    }
}
