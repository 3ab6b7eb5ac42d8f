//! Deciding a call.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use cedar_policy::{
    AuthorizationError, Authorizer, Context, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy,
    PolicySet, Request, RestrictedExpression,
};
use chaperone_model::{Action, Call, Decision, Reason, Session, Verdict};
use serde_json::Value;

use crate::{
    load::PolicyVersion,
    slice::{Reads, Slice, cut},
};

/// Decides calls by the policy version in force.
pub struct Engine {
    version: ArcSwap<PolicyVersion>,
    authorizer: Authorizer,
    types: Types,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.version.load().fmt(f)
    }
}

/// The agent as Cedar sees it; made once for a session.
#[derive(Clone, Debug)]
pub struct Principal {
    key: Arc<str>,
    name: String,
    uid: EntityUid,
    groups: Vec<EntityUid>,
    entity: Entity,
}

/// What the policies may look at besides the call itself.
#[derive(Clone, Copy, Debug)]
pub struct CallFacts<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Host the request is for.
    pub host: &'a str,
    /// Path, without the query.
    pub path: &'a str,
    /// The session's id.
    pub session: &'a str,
    /// The connecting process's executable.
    pub exe: &'a str,
}

/// Entity types, parsed once: Cedar's own parser costs microseconds.
struct Types {
    action: EntityTypeName,
    agent: EntityTypeName,
    group: EntityTypeName,
    parameters: EntityTypeName,
    resource: EntityTypeName,
}

impl Types {
    fn new() -> Self {
        let name = |text: &str| text.parse().expect("BUG: a constant type name parses");
        Self {
            action: name("Action"),
            agent: name("Agent"),
            group: name("Group"),
            parameters: name("Parameters"),
            resource: name("Resource"),
        }
    }
}

impl Engine {
    /// An engine with this version in force.
    pub fn new(version: PolicyVersion) -> Self {
        Self { version: ArcSwap::from_pointee(version), authorizer: Authorizer::new(), types: Types::new() }
    }

    /// Puts another version in force, for every call decided from now on.
    pub fn replace(&self, version: PolicyVersion) {
        self.version.store(Arc::new(version));
    }

    /// The version in force.
    pub fn version(&self) -> Arc<PolicyVersion> {
        self.version.load_full()
    }

    /// A session's agent.
    pub fn principal(&self, session: &Session) -> Principal {
        let uid = uid(&self.types.agent, &session.agent);
        let groups: Vec<EntityUid> = session.groups.iter().map(|group| self::uid(&self.types.group, group)).collect();
        let attributes = [("name".to_owned(), RestrictedExpression::new_string(session.agent.clone()))];
        let entity = Entity::new(uid.clone(), attributes.into(), groups.iter().cloned().collect())
            .expect("BUG: a string attribute evaluates");
        // Names can't hold a NUL, so that the key is unique.
        let key = std::iter::once(&session.agent).chain(&session.groups).cloned().collect::<Vec<_>>().join("\0").into();
        Principal { key, name: session.agent.clone(), uid, groups, entity }
    }

    /// Decides a call: every action on every resource must be permitted, and the first that isn't tells why not.
    pub fn decide(&self, principal: &Principal, call: &Call, facts: CallFacts<'_>) -> Decision {
        let version = self.version.load();
        let mut permitted_by: Vec<String> = Vec::new();
        let mut decided = 0;
        for (action, resource) in call.needs() {
            decided += 1;
            let slice = self.slice(&version, principal, action);
            match self.one(&slice, principal, action, resource, call, facts) {
                Ok(policies) => {
                    for policy in policies {
                        if !permitted_by.contains(&policy) {
                            permitted_by.push(policy);
                        }
                    }
                }
                Err((reason, policies)) => {
                    let message = refusal(principal, action, resource, reason, &policies);
                    let policy_version = version.digest.clone();
                    return Decision { verdict: Verdict::Deny, reason, policies, policy_version, message };
                }
            }
        }
        // A call without actions or resources, or with needs that name none, is a bug elsewhere, and must not pass for
        // permitted here.
        if decided == 0 || decided < call.pairs.len() {
            return Decision::refused(Reason::NotPermitted, "BUG: the call names no action or no resource");
        }
        permitted_by.sort();
        Decision {
            verdict: Verdict::Allow,
            reason: Reason::Permitted,
            policies: permitted_by,
            policy_version: version.digest.clone(),
            message: String::new(),
        }
    }

    fn slice(&self, version: &PolicyVersion, principal: &Principal, action: &Action) -> Arc<Slice> {
        if let Some(slice) = version.slices.read().of(&principal.key, &action.name) {
            return slice;
        }
        let own = uid(&self.types.action, &action.name);
        let prefix = action.name.split_once(':').map_or("", |(prefix, _)| prefix);
        let groups =
            vec![uid(&self.types.action, action.level.as_str()), uid(&self.types.action, &format!("{prefix}:*"))];
        let policies: Vec<_> =
            cut(&version.policies, &principal.uid, &principal.groups, &own, &groups).cloned().collect();
        let slice = Arc::new(Self::prepare(policies, principal, own, groups));
        version.slices.write().keep(principal.key.clone(), &action.name, slice.clone());
        slice
    }

    fn prepare(policies: Vec<Policy>, principal: &Principal, action: EntityUid, groups: Vec<EntityUid>) -> Slice {
        // `Parameters` is an entity, which a policy could name without the context.
        let names_parameters = policies.iter().any(|policy| policy.to_string().contains("Parameters::"));
        let reads = if names_parameters { Reads::everything() } else { Reads::of(&policies) };
        let entity = Entity::new_no_attrs(action.clone(), groups.into_iter().collect());
        Slice {
            policies: PolicySet::from_policies(policies).expect("BUG: a subset of a policy set is one"),
            action,
            entities: Entities::from_entities([principal.entity.clone(), entity], None)
                .expect("BUG: an agent and an action are not in each other"),
            reads,
        }
    }

    fn one(
        &self,
        slice: &Slice,
        principal: &Principal,
        action: &Action,
        resource: &str,
        call: &Call,
        facts: CallFacts<'_>,
    ) -> Result<Vec<String>, (Reason, Vec<String>)> {
        if slice.policies.is_empty() {
            return Err((Reason::NotPermitted, Vec::new()));
        }
        let (request, entities) = self.request(slice, principal, action, resource, call, facts).map_err(|error| {
            tracing::error!(%error, "a call could not be put to the policies");
            (Reason::PolicyError, Vec::new())
        })?;
        let response = self.authorizer.is_authorized(&request, &slice.policies, &entities);
        let reasons = || -> Vec<String> {
            let mut ids: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
            ids.sort();
            ids
        };
        // Cedar leaves a policy out whose evaluation fails. For a permit that is safe, for a forbid it isn't.
        let failed: Vec<String> = response
            .diagnostics()
            .errors()
            .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id())
            .filter(|id| slice.policies.policy(id).is_none_or(|policy| policy.effect() == Effect::Forbid))
            .map(ToString::to_string)
            .collect();
        if !failed.is_empty() {
            return Err((Reason::PolicyError, failed));
        }
        match response.decision() {
            cedar_policy::Decision::Allow => Ok(reasons()),
            cedar_policy::Decision::Deny => {
                let reasons = reasons();
                let reason = if reasons.is_empty() { Reason::NotPermitted } else { Reason::Forbidden };
                Err((reason, reasons))
            }
        }
    }

    fn request(
        &self,
        slice: &Slice,
        principal: &Principal,
        action: &Action,
        resource: &str,
        call: &Call,
        facts: CallFacts<'_>,
    ) -> Result<(Request, Entities), Box<dyn std::error::Error>> {
        let resource_uid = uid(&self.types.resource, resource);
        let parameters = uid(&self.types.parameters, "");
        let mut entities = Vec::new();
        if let Some(entity) = self.resource(&resource_uid, resource, &slice.reads)? {
            entities.push(entity);
        }
        if slice.reads.context("parameters") {
            let tags = flatten(&call.parameters)
                .into_iter()
                .map(|(path, values)| {
                    let values = values.into_iter().map(RestrictedExpression::new_string);
                    (path, RestrictedExpression::new_set(values))
                })
                .collect::<Vec<_>>();
            entities.push(Entity::new_with_tags(parameters.clone(), [], [], tags)?);
        }
        let context = [
            ("service", &*call.service),
            ("operation", &*call.operation),
            ("level", action.level.as_str()),
            ("partition", &*call.partition),
            ("region", call.region.as_deref().unwrap_or("global")),
            ("account", call.account.as_deref().unwrap_or_default()),
            ("method", facts.method),
            ("host", facts.host),
            ("path", facts.path),
            ("session", facts.session),
            ("exe", facts.exe),
        ];
        let parameters = slice.reads.context("parameters").then(|| RestrictedExpression::new_entity_uid(parameters));
        let context = Context::from_pairs(
            context
                .into_iter()
                .filter(|(name, _)| slice.reads.context(name))
                .map(|(name, value)| (name.to_owned(), RestrictedExpression::new_string(value.to_owned())))
                .chain(parameters.map(|parameters| ("parameters".to_owned(), parameters))),
        )?;
        let request = Request::new(principal.uid.clone(), slice.action.clone(), resource_uid, context, None)?;
        let known = slice.entities.clone();
        let entities = if entities.is_empty() { known } else { known.add_entities(entities, None)? };
        Ok((request, entities))
    }

    /// The resource as far as the policies look at it: nothing, if they go by its name alone.
    fn resource(
        &self,
        own: &EntityUid,
        arn: &str,
        reads: &Reads,
    ) -> Result<Option<Entity>, Box<dyn std::error::Error>> {
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (_, partition, service, region, account, name) = (next(), next(), next(), next(), next(), next());
        // An S3 object is in its bucket: `resource in Resource::"arn:aws:s3:::bucket"`.
        let parents: HashSet<EntityUid> = match (service, name.split_once('/')) {
            ("s3", Some((bucket, _))) if reads.hierarchy() => {
                [uid(&self.types.resource, &arn[..arn.len() - name.len() + bucket.len()])].into()
            }
            _ => HashSet::new(),
        };
        let attributes: HashMap<String, RestrictedExpression> = [
            ("arn", arn),
            ("partition", partition),
            ("service", service),
            ("region", region),
            ("account", account),
            ("name", name),
        ]
        .into_iter()
        .filter(|(attribute, _)| reads.resource(attribute))
        .map(|(attribute, value)| (attribute.to_owned(), RestrictedExpression::new_string(value.to_owned())))
        .collect();
        if parents.is_empty() && attributes.is_empty() {
            return Ok(None);
        }
        Ok(Some(Entity::new(own.clone(), attributes, parents)?))
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// IAM's own wording, so that people and SDKs know it, and the policy that said so.
fn refusal(principal: &Principal, action: &Action, resource: &str, reason: Reason, policies: &[String]) -> String {
    let because = match reason {
        Reason::Forbidden => format!("with an explicit deny in the Chaperone policy {}", policies.join(", ")),
        Reason::PolicyError => format!("because evaluating the Chaperone policy {} failed", policies.join(", ")),
        _ => "because no Chaperone policy allows it".to_owned(),
    };
    format!("Agent: {} is not authorized to perform: {} on resource: {resource} {because}", principal.name, action.name)
}

/// A document's scalars by their path: `{"Tags": [{"Key": "a"}]}` gives `Tags.Key` → `{"a"}`.
fn flatten(document: &Value) -> BTreeMap<String, Vec<String>> {
    fn walk(value: &Value, path: &mut String, into: &mut BTreeMap<String, Vec<String>>) {
        match value {
            Value::Null => {}
            Value::Bool(it) => into.entry(path.clone()).or_default().push(it.to_string()),
            Value::Number(it) => into.entry(path.clone()).or_default().push(it.to_string()),
            Value::String(it) => into.entry(path.clone()).or_default().push(it.clone()),
            Value::Array(items) => items.iter().for_each(|item| walk(item, path, into)),
            Value::Object(members) => {
                for (name, member) in members {
                    let length = path.len();
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(name);
                    walk(member, path, into);
                    path.truncate(length);
                }
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(document, &mut String::new(), &mut into);
    into
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use chaperone_model::{AccessLevel, CgroupId, Payload, Protocol, SessionId};
    use proptest::prelude::*;

    use super::*;
    use crate::load::{ActionCatalog, PolicyError};

    struct Few;

    impl ActionCatalog for Few {
        fn level(&self, action: &str) -> Option<AccessLevel> {
            self.actions().into_iter().find(|(name, _)| name == action).map(|(_, level)| level)
        }
        fn has_prefix(&self, prefix: &str) -> bool {
            ["s3", "iam", "ec2"].contains(&prefix)
        }
        fn actions(&self) -> Vec<(String, AccessLevel)> {
            [
                ("s3:GetObject", AccessLevel::Read),
                ("s3:DeleteObject", AccessLevel::Write),
                ("iam:PassRole", AccessLevel::Write),
                ("ec2:RunInstances", AccessLevel::Write),
            ]
            .map(|(name, level)| (name.to_owned(), level))
            .into()
        }
    }

    fn version(text: &str) -> Result<PolicyVersion, PolicyError> {
        PolicyVersion::parse(&[(PathBuf::from("test.cedar"), text.to_owned())], &Few)
    }

    fn call(actions: &[&str], resources: &[&str]) -> Call {
        let action = |name: &&str| Action { name: (*name).to_owned().into(), level: Few.level(name).unwrap() };
        Call {
            partition: "aws".into(),
            region: Some("eu-west-1".into()),
            account: None,
            service: "s3".into(),
            signing_name: "s3".into(),
            operation: "Any".into(),
            candidates: vec![],
            protocol: Protocol::RestXml,
            actions: actions.iter().map(action).collect(),
            resources: resources.iter().map(|&arn| arn.to_owned()).collect(),
            pairs: vec![],
            unknown: vec![],
            unread: vec![],
            parameters: serde_json::json!({"InstanceType": "t3.micro", "Tags": [{"Key": "a"}, {"Key": "b"}]}),
            payload: Payload::None,
        }
    }

    fn session(groups: &[&str]) -> Session {
        Session {
            id: SessionId::new(),
            agent: "coder".into(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            cgroup: CgroupId(1),
            cgroup_path: "/agents/coder".into(),
            container: None,
            started: time::OffsetDateTime::UNIX_EPOCH,
        }
    }

    const FACTS: CallFacts<'_> = CallFacts { method: "GET", host: "h", path: "/", session: "s", exe: "/bin/aws" };
    const OBJECT: &str = "arn:aws:s3:::data/a/b";

    fn decide(text: &str, call: &Call) -> Decision {
        let engine = Engine::new(version(text).unwrap());
        engine.decide(&engine.principal(&session(&["developers"])), call, FACTS)
    }

    #[test]
    fn nothing_permitted_means_denied() {
        let decision =
            decide("permit (principal in Group::\"others\", action, resource);", &call(&["s3:GetObject"], &[OBJECT]));
        assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::NotPermitted));
        assert!(decision.message.contains("Agent: coder is not authorized to perform: s3:GetObject on resource: arn"));
    }

    #[test]
    fn forbid_wins_and_is_named() {
        let text = r#"
            @id("all") permit (principal, action, resource);
            @id("prod") forbid (principal, action in Action::"Write", resource in Resource::"arn:aws:s3:::data");"#;
        assert!(decide(text, &call(&["s3:GetObject"], &[OBJECT])).is_allowed());
        let decision = decide(text, &call(&["s3:DeleteObject"], &[OBJECT]));
        assert_eq!(decision.policies, ["prod"]);
        assert_eq!(decision.reason, Reason::Forbidden);
    }

    #[test]
    fn every_action_and_every_resource_must_be_permitted() {
        let text =
            "permit (principal, action == Action::\"s3:GetObject\", resource == Resource::\"arn:aws:s3:::data/a/b\");";
        assert!(decide(text, &call(&["s3:GetObject"], &[OBJECT])).is_allowed());
        assert!(!decide(text, &call(&["s3:GetObject", "s3:DeleteObject"], &[OBJECT])).is_allowed());
        assert!(!decide(text, &call(&["s3:GetObject"], &[OBJECT, "*"])).is_allowed());
        assert!(!decide(text, &call(&[], &[OBJECT])).is_allowed());
        // A copy reads one object and writes another; needs that name nothing are not permission.
        let both = [OBJECT, "arn:aws:s3:::data/other"];
        let text = r#"permit (principal, action == Action::"s3:GetObject", resource == Resource::"arn:aws:s3:::data/a/b");
            permit (principal, action == Action::"s3:DeleteObject", resource == Resource::"arn:aws:s3:::data/other");"#;
        let mut copy = call(&["s3:GetObject", "s3:DeleteObject"], &both);
        assert!(!decide(text, &copy).is_allowed());
        copy.pairs = vec![(0, 0), (1, 1)];
        assert!(decide(text, &copy).is_allowed());
        copy.pairs = vec![(0, 0), (1, 7)];
        assert!(!decide(text, &copy).is_allowed());
    }

    #[test]
    fn a_forbid_that_fails_denies() {
        let text = r#"
            permit (principal, action, resource);
            @id("broken") forbid (principal, action, resource)
            when { 9223372036854775807 + (if context.method == "GET" then 1 else 0) > 0 };"#;
        let decision = decide(text, &call(&["s3:GetObject"], &[OBJECT]));
        assert_eq!((decision.reason, decision.policies), (Reason::PolicyError, vec!["broken".to_owned()]));
    }

    #[test]
    fn parameters_are_tags_by_path() {
        let when = |condition: &str| {
            let text = format!("permit (principal, action, resource) when {{ {condition} }};");
            decide(&text, &call(&["ec2:RunInstances"], &["*"])).is_allowed()
        };
        assert!(when(
            r#"context.parameters.hasTag("InstanceType") && context.parameters.getTag("InstanceType").contains("t3.micro")"#
        ));
        assert!(when(
            r#"context.parameters.hasTag("Tags.Key") && context.parameters.getTag("Tags.Key").containsAll(["a", "b"])"#
        ));
        assert!(!when(r#"context.parameters.hasTag("ImageId")"#));
        assert!(when(r#"context.region == "eu-west-1""#));
    }

    #[test]
    fn the_default_policy_holds() {
        struct All;
        impl ActionCatalog for All {
            fn level(&self, action: &str) -> Option<AccessLevel> {
                Some(if action == "iam:CreateUser" { AccessLevel::Write } else { AccessLevel::Read })
            }
            fn has_prefix(&self, _: &str) -> bool {
                true
            }
            fn actions(&self) -> Vec<(String, AccessLevel)> {
                vec![]
            }
        }
        let files = [(PathBuf::from("default.cedar"), crate::DEFAULT_POLICY.to_owned())];
        let engine = Engine::new(PolicyVersion::parse(&files, &All).unwrap());
        let principal = engine.principal(&session(&[]));
        let mut secret = call(&["s3:GetObject"], &["*"]);
        assert!(engine.decide(&principal, &secret, FACTS).is_allowed());
        secret.actions = vec![Action { name: "secretsmanager:GetSecretValue".into(), level: AccessLevel::Read }];
        assert_eq!(engine.decide(&principal, &secret, FACTS).policies, ["default-no-secrets"]);
        secret.actions = vec![Action { name: "iam:CreateUser".into(), level: AccessLevel::Write }];
        assert_eq!(engine.decide(&principal, &secret, FACTS).policies, ["default-no-iam-changes"]);
        secret.actions = vec![Action { name: "iam:ListUsers".into(), level: AccessLevel::List }];
        assert!(engine.decide(&principal, &secret, FACTS).is_allowed());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let problems = |text: &str| match version(text) {
            Err(PolicyError::Invalid(problems)) => problems,
            other => panic!("{other:?}"),
        };
        let unknown = problems(
            "permit (principal, action, resource);\nforbid (principal, action == Action::\"s3:GetObjekt\", resource);",
        );
        assert_eq!((unknown[0].line, unknown[0].column), (2, 30));
        assert!(unknown[0].message.contains("s3:GetObjekt"));
        let syntax = problems("permit (principal, action, resource);\n\npermit (principal action, resource);");
        assert_eq!(syntax[0].line, 3);
        let attribute = problems("permit (principal, action, resource)\nwhen { context.regoin == \"x\" };");
        assert_eq!(attribute[0].line, 2, "{attribute:?}");
        let level = problems("forbid (principal, action in Action::\"Reed\", resource);");
        assert!(level[0].message.contains("Reed"));
        let twice = problems(
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
        );
        assert_eq!(twice[0].line, 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// The slice's decision and reasons equal the whole set's.
        #[test]
        fn a_slice_decides_as_the_whole_set(choices in prop::collection::vec((0..6usize, 0..6usize, 0..3usize, 0..10usize, any::<bool>()), 1..40),
                                            action in 0..4usize, group in 0..2usize) {
            let principals = ["principal", "principal == Agent::\"coder\"", "principal == Agent::\"other\"",
                "principal in Group::\"developers\"", "principal in Group::\"others\"", "principal is Agent in Group::\"developers\""];
            let actions = ["action", "action == Action::\"s3:GetObject\"", "action in Action::\"s3:*\"",
                "action in [Action::\"Write\", Action::\"iam:PassRole\"]", "action in Action::\"Read\"", "action == Action::\"ec2:RunInstances\""];
            let resources = ["resource", "resource == Resource::\"*\"", "resource in Resource::\"arn:aws:s3:::data\""];
            let conditions = ["", "when { context.level == \"Read\" }", "unless { context has exe && context.exe like \"/usr/*\" }",
                "when { resource.name like \"data/*\" }", "when { resource in Resource::\"arn:aws:s3:::data\" }",
                "unless { principal.name == \"coder\" }", "when { context[\"region\"] == \"eu-west-1\" }", "when { resource has arn && resource.account == \"\" }",
                "when { context.parameters.hasTag(\"Key\") }", "when { [context].contains(context) && {a: context}.a.level == \"Read\" }"];
            let text: String = choices.iter().map(|(p, a, r, c, permit)| {
                format!("{} ({}, {}, {}) {};\n", if *permit { "permit" } else { "forbid" }, principals[*p], actions[*a], resources[*r], conditions[*c])
            }).collect();
            let engine = Engine::new(version(&text).unwrap());
            let principal = engine.principal(&session(&[["developers", "others"][group]]));
            let action = call(&[["s3:GetObject", "s3:DeleteObject", "iam:PassRole", "ec2:RunInstances"][action]], &[OBJECT]);
            let sliced = engine.slice(&engine.version(), &principal, &action.actions[0]);
            let whole = Slice {
                policies: PolicySet::from_policies(engine.version().policies.iter().cloned()).unwrap(),
                action: sliced.action.clone(),
                entities: sliced.entities.clone(),
                reads: Reads::everything(),
            };
            let decided = |slice| engine.one(slice, &principal, &action.actions[0], OBJECT, &action, FACTS);
            prop_assert_eq!(decided(&sliced), decided(&whole));
        }
    }
}
