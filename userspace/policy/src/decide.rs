//! Deciding a call.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    sync::{Arc, OnceLock},
};

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy,
    PolicySet, Request, RestrictedExpression,
};
use chaperone_model::{Action, CUT, Call, Decision, Identity, Reason, Session, UnknownResources};
use serde_json::Value;

use crate::{
    egress_actions,
    facts::CallFacts,
    incomplete::{ResourcePattern, Unknown},
    inputs::{Fact, Inputs},
    load::PolicyVersion,
    ruling::{Decided, Denial, Determining, Obligations, Permit, Question, Refused, Ruling},
    slice::{Part, Reads, Slice, cut},
};

/// Decides calls by the policy version in force.
pub struct Engine {
    pub(crate) version: PolicyVersion,
    authorizer: Authorizer,
    types: Types,
    /// Whether the policies list what may be passed on.
    pub(crate) egress_is_listed: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.version.fmt(f)
    }
}

/// The agent as Cedar sees it; made once for a session.
#[derive(Clone, Debug)]
pub struct Principal {
    key: Arc<str>,
    name: String,
    pub(crate) uid: EntityUid,
    pub(crate) groups: Vec<EntityUid>,
    entity: Entity,
}

impl Principal {
    pub(crate) const fn uid(&self) -> &EntityUid {
        &self.uid
    }
}

/// Whether a person has approved a call that the policies wanted one to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Nobody was asked.
    None,
    /// Everyone who had to has approved exactly this call.
    Given,
}

/// A resource that an action is needed on, and what of the need isn't known.
pub(crate) struct Need<'a> {
    pub(crate) resource: &'a str,
    /// `resource` is a pattern, and why.
    pub(crate) unknown_resource: Option<(&'a ResourcePattern, &'a str)>,
    /// It is another name of a resource that is decided besides: only a `forbid` counts.
    pub(crate) alias: bool,
}

impl Need<'_> {
    /// What isn't known, and what can be done about it, for people.
    fn unknown(&self, call: &Call, facts: &CallFacts<'_>, slice: &Slice) -> String {
        match self.unknown_resource {
            Some((_, why)) if !why.is_empty() => format!(
                "which of the resources `{}` it touches ({why}). Name each by its full ARN or id, or have a policy permit \
                 all of them",
                self.resource
            ),
            _ if !call.unread.is_empty() => format!(
                "{} was not understood. Leave it out, or update Chaperone's catalog if the client is newer",
                call.unread.join(", ")
            ),
            _ if call.has_cut_texts() => {
                "its parameters are more than is read. Split the call into smaller ones".to_owned()
            }
            _ => {
                let read = facts.unknown().filter(|name| slice.reads.context(name));
                read.map(|name| format!("context.{name}")).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// What a set of policies says of one need: those that permit it, or why not, which say so, and whether only because
/// something isn't known.
pub(crate) type Ruled = Result<Vec<String>, (Reason, Vec<String>, bool)>;

/// What a container's label begins with among the principal's tags.
const LABEL: &str = "label:";

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
        let egress_is_listed = egress_actions::is_listed(&version.policies);
        Self { version, authorizer: Authorizer::new(), types: Types::new(), egress_is_listed }
    }

    /// The version in force.
    pub fn version(&self) -> &PolicyVersion {
        &self.version
    }

    pub(crate) const fn resource_type(&self) -> &EntityTypeName {
        &self.types.resource
    }

    pub(crate) const fn parameters_type(&self) -> &EntityTypeName {
        &self.types.parameters
    }

    /// The paths of parameters that policies look for, for [`chaperone_model::LookedUp`].
    pub fn parameter_paths(&self) -> Arc<BTreeSet<String>> {
        self.version.parameter_paths.clone()
    }

    /// A session's agent, without an identity.
    pub fn principal(&self, session: &Session) -> Principal {
        self.identified(session, None)
    }

    /// A session's agent with its identity, if it has one.
    pub fn identified(&self, session: &Session, identity: Option<&Identity>) -> Principal {
        let uid = uid(&self.types.agent, &session.agent);
        let groups: Vec<EntityUid> = session
            .groups
            .iter()
            .chain(identity.into_iter().flat_map(|identity| &identity.groups))
            .map(|group| self::uid(&self.types.group, group))
            .collect();
        let text = |of: fn(&Identity) -> Option<&String>| identity.and_then(of).cloned().unwrap_or_default();
        let texts = [
            ("name", session.agent.clone()),
            ("issuer", text(|it| Some(&it.issuer))),
            ("subject", text(|it| Some(&it.subject))),
            ("sponsor", text(|it| it.sponsor.as_ref())),
            ("displayName", text(|it| it.display_name.as_ref())),
            ("image", session.container.as_ref().map(|it| it.image.clone()).unwrap_or_default()),
            ("parent", session.parent.map(|it| it.to_string()).unwrap_or_default()),
        ];
        let labels = session.container.iter().flat_map(|it| &it.labels);
        let labels = labels.map(|(name, value)| (format!("{LABEL}{name}"), value.clone()));
        // A claim can't stand for a label, nor a label for a claim.
        let claims: BTreeMap<String, String> = identity
            .iter()
            .flat_map(|it| it.claims.clone())
            .filter(|(name, _)| !name.starts_with(LABEL))
            .chain(labels)
            .collect();
        // Each part with its length, and each list with its own, so that no two agents have one key whatever a label says.
        let lists: [Vec<&str>; 4] = [
            texts.iter().map(|(_, text)| text.as_str()).collect(),
            session.groups.iter().map(String::as_str).collect(),
            identity.into_iter().flat_map(|it| &it.groups).map(String::as_str).collect(),
            claims.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect(),
        ];
        let mut key = String::from(if identity.is_some() { "identified" } else { "" });
        for list in &lists {
            let _ = write!(key, "[{}]", list.len());
            for part in list {
                let _ = write!(key, "{}:{part}", part.len());
            }
        }
        let key = key.into();
        let attributes: HashMap<String, RestrictedExpression> = texts
            .map(|(name, text)| (name.to_owned(), RestrictedExpression::new_string(text)))
            .into_iter()
            .chain([("identified".to_owned(), RestrictedExpression::new_bool(identity.is_some()))])
            .collect();
        let tags = claims.into_iter().map(|(name, value)| (name, RestrictedExpression::new_string(value)));
        let entity = Entity::new_with_tags(uid.clone(), attributes, groups.iter().cloned(), tags)
            .expect("BUG: texts and a truth value evaluate");
        Principal { key, name: session.agent.clone(), uid, groups, entity }
    }

    /// Decides a call, as [`rule`](Self::rule) does, for those who don't ask people.
    pub fn decide(&self, principal: &Principal, call: &Call, facts: CallFacts<'_>) -> Decision {
        self.rule(principal, call, facts, Approval::None).decision()
    }

    /// Decides a call: every action on every resource must be permitted, on those that aren't known as well, and all of
    /// them are looked at.
    pub fn rule(&self, principal: &Principal, call: &Call, facts: CallFacts<'_>, approval: Approval) -> Ruling {
        let version = &self.version;
        let approved = approval == Approval::Given;
        let asked = self.all(version, principal, call, facts, approved);
        let mut denial = match asked {
            Ok(permitted) => return Ruling::Permit(Permit::new(permitted, version.digest.clone())),
            Err(denial) => denial,
        };
        let approvers: Vec<_> =
            denial.policies.iter().filter_map(|policy| Some((policy.clone(), approvers(policy)?))).collect();
        // A person can allow what is forbidden by policies that say who may, and by nothing else; and nobody can approve
        // what it isn't known to be.
        let can_be_asked = !approved
            && !denial.refused.is_empty()
            && denial.refused.iter().all(|one| one.reason == Reason::Forbidden && one.incomplete.is_none())
            && approvers.len() == denial.policies.len()
            && self.all(version, principal, call, facts, true).is_ok();
        if !can_be_asked {
            return Ruling::Deny(denial);
        }
        let who: Vec<&str> = approvers.iter().map(|(_, who)| who.as_str()).collect();
        denial.message = format!("{}; it needs the approval of {}", denial.message, who.join(" and of "));
        Ruling::Ask(Question { approvers, refused: denial.refused.clone(), denial })
    }

    /// Every need of the call.
    fn all(
        &self,
        version: &PolicyVersion,
        principal: &Principal,
        call: &Call,
        facts: CallFacts<'_>,
        approved: bool,
    ) -> Result<Obligations, Denial> {
        let mut permitted_by: BTreeSet<String> = BTreeSet::new();
        let mut refused: Vec<Refused> = Vec::new();
        let mut decided = 0;
        let mut judge = |action: &Action, need: &Need<'_>| {
            let slice = self.slice(version, principal, action);
            match self.one(&slice, principal, action, need, call, facts, approved) {
                Ok(policies) => permitted_by.extend(policies),
                Err((Reason::NotPermitted, ..)) if need.alias => {}
                Err((reason, policies, incomplete)) => refused.push(Refused {
                    action: action.name.clone().into_owned(),
                    resource: need.resource.to_owned(),
                    reason,
                    policies,
                    incomplete: incomplete.then(|| need.unknown(call, &facts, &slice)),
                    unrecorded: incomplete
                        && (call.has_cut_texts() || facts.unknown().any(|name| slice.reads.context(name))),
                }),
            }
        };
        for (action, resource) in call.needs() {
            decided += 1;
            // Nothing is named, but something is known to be touched: that is decided below.
            let stands_for = |(of, unknown): (&Action, &UnknownResources)| of.name == action.name && !unknown.alias;
            if resource == "*" && call.unknown_resources().any(stands_for) {
                continue;
            }
            judge(action, &Need { resource, unknown_resource: None, alias: false });
        }
        for (action, unknown) in call.unknown_resources() {
            let pattern = ResourcePattern::parse(&unknown.pattern);
            let unknown_resource = Some((&pattern, &*unknown.why));
            judge(action, &Need { resource: &unknown.pattern, unknown_resource, alias: unknown.alias });
        }
        // A part of the request that wasn't understood may name any other resource.
        if !call.unread.is_empty() {
            let pattern = ResourcePattern::parse("*");
            for action in &call.actions {
                let unknown_resource = Some((&pattern, ""));
                judge(action, &Need { resource: "*", unknown_resource, alias: false });
            }
        }
        let policies = |ids: &mut dyn Iterator<Item = &String>| -> Vec<Determining> {
            ids.map(|id| Determining { id: id.clone(), annotations: version.annotations(id) }).collect()
        };
        // A call without actions or resources, or with needs that name none, is a bug elsewhere, and must not pass for
        // permitted here.
        let of_nothing =
            |unknown: &UnknownResources| unknown.action.is_some_and(|place| usize::from(place) >= call.actions.len());
        if decided == 0 || decided < call.pairs.len() || call.unknown.iter().any(of_nothing) {
            return Err(Denial {
                reason: Reason::NotPermitted,
                refused: Vec::new(),
                policies: Vec::new(),
                policy_version: version.digest.clone(),
                message: "BUG: the call names no action or no resource".into(),
            });
        }
        if refused.is_empty() {
            return Ok(Obligations { policies: policies(&mut permitted_by.iter()) });
        }
        // What would be forbidden if all were known comes first: that tells the most.
        refused.sort_by_key(|one| {
            (one.incomplete.is_some(), one.reason != Reason::PolicyError, one.reason != Reason::Forbidden)
        });
        let by: BTreeSet<&String> = refused.iter().flat_map(|one| &one.policies).collect();
        let by = policies(&mut by.into_iter());
        Err(Denial {
            reason: refused[0].reason,
            policies: by,
            policy_version: version.digest.clone(),
            message: refusal(principal, &refused),
            refused,
        })
    }

    /// Puts each need of a call to a set of policies, those included of which not all is known.
    pub(crate) fn for_each_need(
        &self,
        version: &PolicyVersion,
        principal: &Principal,
        call: &Call,
        facts: CallFacts<'_>,
        approved: bool,
        see: &mut dyn FnMut(&Action, &Need<'_>, &Slice, Ruled),
    ) {
        let mut judge = |action: &Action, need: &Need<'_>| {
            let slice = self.slice(version, principal, action);
            see(action, need, &slice, self.one(&slice, principal, action, need, call, facts, approved));
        };
        for (action, resource) in call.needs() {
            judge(action, &Need { resource, unknown_resource: None, alias: false });
        }
        for (action, unknown) in call.unknown_resources() {
            let pattern = ResourcePattern::parse(&unknown.pattern);
            let unknown_resource = Some((&pattern, &*unknown.why));
            judge(action, &Need { resource: &unknown.pattern, unknown_resource, alias: unknown.alias });
        }
        if !call.unread.is_empty() {
            let pattern = ResourcePattern::parse("*");
            for action in &call.actions {
                judge(action, &Need { resource: "*", unknown_resource: Some((&pattern, "")), alias: false });
            }
        }
    }

    pub(crate) fn slice(&self, version: &PolicyVersion, principal: &Principal, action: &Action) -> Arc<Slice> {
        if let Some(slice) = version.slices.read().of(&principal.key, &action.name) {
            return slice;
        }
        let own = uid(&self.types.action, &action.name);
        let prefix = action.name.split_once(':').map_or("", |(prefix, _)| prefix);
        let mut groups = vec![uid(&self.types.action, &format!("{prefix}:*"))];
        if prefix != egress_actions::PREFIX {
            groups.push(uid(&self.types.action, action.level.as_str()));
        }
        let policies: Vec<_> =
            cut(&version.policies, &principal.uid, &principal.groups, &own, &groups).cloned().collect();
        let slice = Arc::new(Self::prepare(version, policies, principal, own, groups));
        version.slices.write().keep(principal.key.clone(), &action.name, slice.clone());
        slice
    }

    fn prepare(
        version: &PolicyVersion,
        policies: Vec<Policy>,
        principal: &Principal,
        action: EntityUid,
        groups: Vec<EntityUid>,
    ) -> Slice {
        // `Parameters` is an entity, which a policy could name without the context.
        let names_parameters = policies.iter().any(|policy| policy.to_string().contains("Parameters::"));
        let reads = if names_parameters { Reads::everything() } else { Reads::of(&policies) };
        let entity = Entity::new_no_attrs(action.clone(), groups.into_iter().collect());
        let parts = if names_parameters {
            vec![Part::of(&version.decisions, policies.clone(), Reads::everything())]
        } else {
            // What looks at the resource or the parameters hardly ever sees the same ones again; the rest does.
            let (often, seldom) = policies.iter().cloned().partition(|policy| Reads::of([policy]).is_of_the_agent());
            let part = |policies: Vec<Policy>| Part::of(&version.decisions, policies.clone(), Reads::of(&policies));
            [often, seldom].into_iter().filter(|policies: &Vec<_>| !policies.is_empty()).map(part).collect()
        };
        Slice {
            parts,
            decisions: version.decisions.clone(),
            json: OnceLock::new(),
            policies: PolicySet::from_policies(policies).expect("BUG: a subset of a policy set is one"),
            action,
            entities: Entities::from_entities([principal.entity.clone(), entity], None)
                .expect("BUG: an agent and an action are not in each other"),
            reads,
        }
    }

    /// One action on one resource, or on all that fit a pattern. An error says whether it is one only because something
    /// isn't known.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)] // one step of deciding, with all that it looks at
    fn one(
        &self,
        slice: &Slice,
        principal: &Principal,
        action: &Action,
        need: &Need<'_>,
        call: &Call,
        facts: CallFacts<'_>,
        approved: bool,
    ) -> Result<Vec<String>, (Reason, Vec<String>, bool)> {
        if slice.policies.is_empty() {
            return Err((Reason::NotPermitted, Vec::new(), false));
        }
        let ask = |policies: &PolicySet, reads: &Reads, inputs: &Inputs| {
            let (request, entities) = self.request(slice, reads, principal, inputs)?;
            Ok(self.cedar(policies, &request, &entities))
        };
        let told = |asked: Result<Decided, Box<dyn std::error::Error>>| {
            asked.unwrap_or_else(|error| {
                tracing::error!(%error, "a call could not be put to the policies");
                Err((Reason::PolicyError, Vec::new()))
            })
        };
        let unknown = unknown(slice, need, call, &facts);
        if unknown.is_nothing() {
            let decided = slice.parts.iter().map(|part| {
                let resource = if part.reads.any_resource() { need.resource } else { "" };
                let inputs = self.inputs(&part.reads, action, resource, call, facts, approved);
                told(slice.decisions.of(part.id, inputs, |inputs| ask(&part.policies, &part.reads, inputs)))
            });
            return together(decided).map_err(|(reason, policies)| (reason, policies, false));
        }
        let (policies, rewritten) = slice.with_unknown(&unknown).map_err(|error| {
            tracing::error!(%error, "BUG: a policy could not be rewritten for a call that is not known whole");
            (Reason::PolicyError, Vec::new(), true)
        })?;
        let inputs = self.inputs(&slice.reads, action, need.resource, call, facts, approved);
        told(ask(&policies, &slice.reads, &inputs)).map_err(|(reason, by)| {
            // A permit that was rewritten might have permitted it; a forbid that wasn't holds in any case.
            let certain =
                if by.is_empty() { rewritten.is_empty() } else { by.iter().any(|id| !rewritten.contains(id)) };
            (reason, by, !certain)
        })
    }

    pub(crate) fn cedar(&self, policies: &PolicySet, request: &Request, entities: &Entities) -> Decided {
        let response = self.authorizer.is_authorized(request, policies, entities);
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
            .filter(|id| policies.policy(id).is_none_or(|policy| policy.effect() == Effect::Forbid))
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

    /// What of a call is looked at.
    pub(crate) fn inputs(
        &self,
        reads: &Reads,
        action: &Action,
        resource: &str,
        call: &Call,
        facts: CallFacts<'_>,
        approved: bool,
    ) -> Inputs {
        let reads = |name: &str| reads.context(name);
        let parameters = reads("parameters").then(|| {
            let mut all = flatten(&call.parameters);
            all.extend(call.looked_up.iter().flat_map(|it| it.values.clone()));
            all
        });
        let texts = [
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
        let texts = texts.into_iter().filter(|(name, _)| reads(name));
        let (arns, accounts) = (&call.references.arns[..], &call.references.accounts[..]);
        let sets = [("arns", arns), ("accounts", accounts), ("over_budget", facts.over_budget)];
        let sets = sets.into_iter().filter(|(name, _)| reads(name));
        let context = texts
            .map(|(name, text)| (name, Fact::Text(text.to_owned())))
            .chain(sets.map(|(name, all)| (name, Fact::Set(all.to_vec()))))
            .chain(facts.made(&self.version.time_zone, reads))
            .chain(reads("approved").then_some(("approved", Fact::Truth(approved))))
            .collect();
        Inputs { resource: resource.to_owned(), context, parameters }
    }

    /// What Cedar is asked, made of nothing but this.
    pub(crate) fn request(
        &self,
        slice: &Slice,
        reads: &Reads,
        principal: &Principal,
        inputs: &Inputs,
    ) -> Result<(Request, Entities), Box<dyn std::error::Error>> {
        let resource = uid(&self.types.resource, &inputs.resource);
        let mut entities = Vec::new();
        if let Some(entity) = self.resource(&resource, &inputs.resource, reads)? {
            entities.push(entity);
        }
        let mut context: Vec<_> =
            inputs.context.iter().map(|(name, fact)| ((*name).to_owned(), fact.cedar())).collect();
        if let Some(parameters) = &inputs.parameters {
            let own = uid(&self.types.parameters, "");
            let tags = parameters.iter().map(|(path, values)| {
                let values = values.iter().cloned().map(RestrictedExpression::new_string);
                (path.clone(), RestrictedExpression::new_set(values))
            });
            entities.push(Entity::new_with_tags(own.clone(), [], [], tags)?);
            context.push(("parameters".to_owned(), RestrictedExpression::new_entity_uid(own)));
        }
        let context = Context::from_pairs(context)?;
        let request = Request::new(principal.uid.clone(), slice.action.clone(), resource, context, None)?;
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

pub(crate) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// What a set of policies says, by what its parts say: as Cedar would of all of them.
fn together(parts: impl Iterator<Item = Decided>) -> Decided {
    let (mut permitted, mut refused) = (Vec::new(), HashMap::<Reason, Vec<String>>::new());
    for part in parts {
        match part {
            Ok(by) => permitted.extend(by),
            Err((reason, by)) => refused.entry(reason).or_default().extend(by),
        }
    }
    // A forbid that can't be evaluated comes before one that holds, and either before a permit.
    for reason in [Reason::PolicyError, Reason::Forbidden] {
        if let Some(mut by) = refused.remove(&reason) {
            by.sort();
            return Err((reason, by));
        }
    }
    if permitted.is_empty() {
        return Err((Reason::NotPermitted, Vec::new()));
    }
    permitted.sort();
    Ok(permitted)
}

/// What a slice looks at and isn't known of a need.
pub(crate) fn unknown<'a>(slice: &Slice, need: &Need<'a>, call: &Call, facts: &CallFacts<'a>) -> Unknown<'a> {
    Unknown {
        resource: need.unknown_resource.map(|(pattern, _)| pattern),
        parameters: !knows_parameters(call, &slice.reads),
        references: call.is_input_incomplete(),
        context: facts.unknown().filter(|name| slice.reads.context(name)).collect(),
    }
}

/// Whether what policies look for in the parameters is all there.
fn knows_parameters(call: &Call, reads: &Reads) -> bool {
    if !call.unread.is_empty() {
        return false;
    }
    if !call.has_cut_texts() {
        return true;
    }
    let Some(paths) = reads.parameters() else { return false };
    let is_looked_up = |path: &String| call.looked_up.as_ref().is_some_and(|it| it.paths.contains(path));
    if call.has_dropped() {
        return paths.iter().all(is_looked_up);
    }
    let kept = flatten(&call.parameters);
    let is_whole = |path| kept.get(path).is_none_or(|all| !all.iter().any(|value| value.ends_with(CUT)));
    paths.iter().all(|path| is_looked_up(path) || is_whole(path))
}

/// Who may approve what a policy forbids.
fn approvers(policy: &Determining) -> Option<String> {
    policy.annotations.get("approvers").cloned()
}

/// IAM's own wording, so that people and SDKs know it, and the policy that said so.
pub(crate) fn refusal(principal: &Principal, refused: &[Refused]) -> String {
    let Refused { action, resource, reason, policies, incomplete, .. } = &refused[0];
    let policies = policies.join(", ");
    let because = match (reason, incomplete) {
        (Reason::Forbidden, None) => format!("with an explicit deny in the Chaperone policy {policies}"),
        (Reason::Forbidden, Some(what)) => format!(
            "with an explicit deny in the Chaperone policy {policies}, which could apply to what is not known of the \
             call: {what}"
        ),
        (Reason::PolicyError, _) => format!("because evaluating the Chaperone policy {policies} failed"),
        (_, None) => "because no Chaperone policy allows it".to_owned(),
        (_, Some(what)) => {
            format!("because no Chaperone policy allows it whatever is not known of the call: {what}")
        }
    };
    let more = match refused.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    format!("Agent: {} is not authorized to perform: {action} on resource: {resource} {because}{more}", principal.name)
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
#[path = "decide_tests.rs"]
pub(crate) mod tests;
