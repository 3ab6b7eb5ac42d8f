//! IAM actions: what a call needs to be permitted, where it is more than `prefix:Operation`.

use std::borrow::Cow;

use chaperone_model::{AccessLevel, Action, UnknownResources};
use http::HeaderMap;
use serde_json::{Map, Value};

use crate::{
    catalog::Candidate,
    decode_error::DecodeError,
    head::header,
    host::{HostKind, HostMatch},
    resources::{self, Place},
    route::Query,
};

/// More resources than this in one call are refused.
pub(crate) const MAX_RESOURCES: usize = 1000;

/// Other names and mentions that are kept one by one.
const MAX_MENTIONS: usize = 200;

/// All actions that S3 Express has in IAM; a test holds it against the catalog.
pub(crate) const EXPRESS: [&str; 28] = [
    "CreateAccessPoint",
    "CreateBucket",
    "CreateSession",
    "DeleteAccessPoint",
    "DeleteAccessPointPolicy",
    "DeleteAccessPointScope",
    "DeleteBucket",
    "DeleteBucketPolicy",
    "GetAccessPoint",
    "GetAccessPointPolicy",
    "GetAccessPointScope",
    "GetBucketPolicy",
    "GetEncryptionConfiguration",
    "GetInventoryConfiguration",
    "GetLifecycleConfiguration",
    "GetMetricsConfiguration",
    "ListAccessPointsForDirectoryBuckets",
    "ListAllMyDirectoryBuckets",
    "ListTagsForResource",
    "PutAccessPointPolicy",
    "PutAccessPointScope",
    "PutBucketPolicy",
    "PutEncryptionConfiguration",
    "PutInventoryConfiguration",
    "PutLifecycleConfiguration",
    "PutMetricsConfiguration",
    "TagResource",
    "UntagResource",
];

/// The actions and resources of all candidates together, in groups: every action of a group on every resource of it.
#[derive(Default)]
pub(crate) struct Requirements {
    actions: Vec<Action>,
    resources: Vec<String>,
    pairs: Vec<(u16, u16)>,
    groups: usize,
    group: (Vec<u16>, Vec<u16>),
    /// Of the group that is open: patterns, why, and whether they are other names of what is named.
    open_unknown: Vec<(String, Cow<'static, str>, bool)>,
    unknown: Vec<UnknownResources>,
    references: resources::References,
    /// What is named now is only mentioned.
    is_mention: bool,
}

/// All that a call needs.
pub(crate) struct Needed {
    pub actions: Vec<Action>,
    pub resources: Vec<String>,
    pub pairs: Vec<(u16, u16)>,
    pub unknown: Vec<UnknownResources>,
    pub references: chaperone_model::References,
    /// `references` are all.
    pub has_all_references: bool,
}

impl Requirements {
    pub fn action(&mut self, name: impl Into<Cow<'static, str>>, level: AccessLevel) {
        let name = name.into();
        let place = self.actions.iter().position(|action| action.name == name).unwrap_or_else(|| {
            self.actions.push(Action { name, level });
            self.actions.len() - 1
        });
        add(&mut self.group.0, place);
    }

    /// A resource that the request names. What is no plain name could be read as another by its service, as a pattern or
    /// without the blanks around it: then what it names isn't known. S3's keys alone are taken byte for byte.
    pub fn resource(&mut self, arn: String) -> Result<(), DecodeError> {
        match resources::names::ambiguous(&arn) {
            Some(pattern) => self.unknown(pattern, Cow::Borrowed("a wildcard or blanks in a name"), false),
            None => self.made_resource(arn),
        }
    }

    /// What is named meanwhile has no permission of its own in IAM, and counts for policies that forbid alone.
    pub fn only_mentioned<T>(&mut self, name: impl FnOnce(&mut Self) -> T) -> T {
        self.is_mention = true;
        let result = name(self);
        self.is_mention = false;
        result
    }

    /// A resource that isn't there yet, whose ARN may say `*` for what AWS will assign; or one that is known otherwise.
    pub fn made_resource(&mut self, arn: String) -> Result<(), DecodeError> {
        if self.is_mention {
            return self.unknown(arn, Cow::Borrowed("the request mentions it"), true);
        }
        // Whose credentials will sign isn't known: then it is of any account, for a policy that forbids one.
        if arn.split(':').nth(4) == Some("*") {
            self.unknown(arn.clone(), Cow::Borrowed("the account isn't known"), true)?;
        }
        let place = match self.resources.iter().position(|resource| *resource == arn) {
            Some(place) => place,
            None if self.resources.len() >= MAX_RESOURCES => return Err(DecodeError::TooLarge("list of resources")),
            None => {
                self.resources.push(arn);
                self.resources.len() - 1
            }
        };
        add(&mut self.group.1, place);
        Ok(())
    }

    /// Resources that the request doesn't say, of which an ARN with `*` tells what they look like. `alias`: it is only
    /// another name of something that is named.
    pub fn unknown(&mut self, pattern: String, why: Cow<'static, str>, alias: bool) -> Result<(), DecodeError> {
        let alias = alias || self.is_mention;
        // Of long lists that are only mentioned no more is kept: then they could be of anything.
        let (pattern, why) = if self.is_mention && self.open_unknown.len() >= MAX_MENTIONS {
            ("*".to_owned(), Cow::Borrowed("the request mentions more than is looked at"))
        } else {
            (pattern, why)
        };
        let same = |(other, _, other_alias): &(String, Cow<'_, str>, bool)| *other == pattern && *other_alias == alias;
        if !self.open_unknown.iter().any(same) {
            if self.open_unknown.len() + self.unknown.len() >= MAX_RESOURCES {
                return Err(DecodeError::TooLarge("list of resources"));
            }
            self.open_unknown.push((pattern, why, alias));
        }
        Ok(())
    }

    /// Whether the group that is open names resources, or knows what they look like.
    pub fn names_resources(&self) -> bool {
        self.has_resources() || self.open_unknown.iter().any(|(_, _, alias)| !alias)
    }

    /// Whether the group that is open names anything that fits a pattern, or knows that there could be.
    pub fn names_like(&self, pattern: &str) -> bool {
        let mut named = self.group.1.iter().map(|place| self.resources[usize::from(*place)].as_str());
        let mut unknown = self.open_unknown.iter().map(|(one, _, _)| one.as_str());
        named.any(|one| resources::names::fits(one, pattern)) || unknown.any(|one| resources::names::fits(one, pattern))
    }

    /// Whether the group that is open has exactly this resource.
    pub fn names(&self, arn: &str) -> bool {
        self.group.1.iter().any(|place| self.resources[usize::from(*place)] == arn)
    }

    /// Replaces an action of the group that is open.
    pub fn replace_action(&mut self, name: &str, by: &'static str, level: AccessLevel) {
        let old = self.actions.iter().position(|action| action.name == name);
        self.group.0.retain(|place| Some(usize::from(*place)) != old);
        self.action(by, level);
    }

    /// Whether the group that is open has resources yet.
    pub fn has_resources(&self) -> bool {
        !self.group.1.is_empty()
    }

    /// The actions of the group that is open.
    pub fn open_actions(&self) -> Vec<Action> {
        self.group.0.iter().map(|place| self.actions[usize::from(*place)].clone()).collect()
    }

    /// Ends a group. Actions without a resource are on `*`.
    pub fn close(&mut self) {
        let (actions, mut resources) = std::mem::take(&mut self.group);
        let unknown = std::mem::take(&mut self.open_unknown);
        if actions.is_empty() {
            return;
        }
        for (pattern, why, alias) in unknown {
            for action in &actions {
                let one = UnknownResources {
                    action: Some(*action),
                    pattern: Cow::Owned(pattern.clone()),
                    why: why.clone(),
                    alias,
                };
                if !self.unknown.contains(&one) {
                    self.unknown.push(one);
                }
            }
        }
        if resources.is_empty() {
            let place = self.resources.iter().position(|resource| resource == "*").unwrap_or_else(|| {
                self.resources.push("*".to_owned());
                self.resources.len() - 1
            });
            add(&mut resources, place);
        }
        self.groups += 1;
        for action in actions {
            self.pairs.extend(resources.iter().map(|resource| (action, *resource)));
        }
    }

    /// Adds what one candidate needs.
    #[allow(clippy::too_many_arguments)] // one step of decoding, with all that it looks at
    pub fn add(
        &mut self,
        candidate: &Candidate,
        members: &Map<String, Value>,
        headers: &HeaderMap,
        query: &Query<'_>,
        path: &str,
        host: &HostMatch,
        place: &Place<'_>,
        dropped: bool,
    ) -> Result<(), DecodeError> {
        let Candidate { service, operation, .. } = candidate;
        for (name, value) in members {
            self.references.collect(name, value);
        }
        match (service.name, operation.name) {
            ("s3", name) => {
                let first = self.actions.len();
                s3(self, name, headers, query);
                let is_version = query.get("versionId").is_some_and(|id| !id.is_empty());
                if !is_version || !versioned(self, name) {
                    self.usual_actions(candidate);
                }
                if host.kind == HostKind::S3ExpressControl {
                    for action in &mut self.actions[first..] {
                        // What directory buckets lack S3 refuses there; it is still what it says.
                        if let Some(name) = action.name.strip_prefix("s3:")
                            && EXPRESS.contains(&name)
                        {
                            action.name = format!("s3express:{name}").into();
                        }
                    }
                }
                if name == "CreateBucket"
                    && members.get("CreateBucketConfiguration").is_some_and(|c| c.get("Tags").is_some())
                {
                    self.action("s3:TagResource", AccessLevel::Tagging);
                }
                resources::s3(self, name, members, headers, host, place)?;
            }
            ("apigateway" | "apigatewayv2", _) => {
                let level = match operation.method {
                    "GET" => AccessLevel::Read,
                    _ => AccessLevel::Write,
                };
                self.action(format!("apigateway:{}", operation.method), level);
                // The API's own resource policy can come with these. (In an import, as an extension in the document.)
                let with_policy = match operation.name {
                    "CreateRestApi" => members.contains_key("policy"),
                    "ImportRestApi" | "PutRestApi" => true,
                    "UpdateRestApi" => {
                        let patches = members.get("patchOperations").and_then(Value::as_array).into_iter().flatten();
                        let mut paths =
                            patches.map(|patch| patch.get("path").and_then(Value::as_str).unwrap_or("/policy"));
                        dropped || paths.any(|path| path.starts_with("/policy"))
                    }
                    _ => false,
                };
                if with_policy {
                    self.action("apigateway:UpdateRestApiPolicy", AccessLevel::PermissionsManagement);
                }
                let by_verb = resources::api_gateway(operation, members, place);
                // IAM has HTTP and WebSocket APIs without the version that is in the request's path.
                if let Some((before, path)) = by_verb.split_once("::/v2/") {
                    let iam = [before, "::/", path].concat();
                    self.unknown(iam, Cow::Borrowed("the path as IAM has it"), true)?;
                }
                // Domain names are the same in any case.
                if by_verb.contains("/domainnames/") && by_verb.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    let lower = by_verb.to_ascii_lowercase().replace("./", "/");
                    self.unknown(lower, Cow::Borrowed("the domain name in lower case"), true)?;
                }
                if by_verb.contains('*') {
                    self.unknown(by_verb, Cow::Borrowed("a label that can't be part of a path"), false)?;
                } else {
                    self.resource(by_verb)?;
                }
            }
            ("dynamodb", "TransactWriteItems") => {
                if !resources::transaction(self, members, place)? {
                    self.usual_actions(candidate);
                }
            }
            ("dynamodb", "ExecuteStatement" | "BatchExecuteStatement" | "ExecuteTransaction") => {
                resources::part_iql(self, members, place)?;
            }
            ("ec2", "RunInstances") => {
                self.usual_actions(candidate);
                resources::run_instances(self, members, place)?;
            }
            _ => {
                self.usual_actions(candidate);
                resources::from_catalog(self, candidate, members, path, place)?;
            }
        }
        self.only_mentioned(|needs| resources::mentions(needs, service.name, members, place))?;
        self.tagging(candidate, members, place)?;
        if service.name == "ssm" && operation.name.starts_with("GetParameter") {
            let named = ["Name", "Names", "Path"].into_iter().flat_map(|name| resources::texts(members.get(name)));
            let secrets = resources::names::secrets_by_parameter(named, place);
            if !secrets.is_empty() {
                self.close();
                self.action("secretsmanager:GetSecretValue", AccessLevel::Read);
            }
            for secret in secrets {
                resources::names::arn(self, &secret)?;
            }
        }
        if service.name == "lambda" && matches!(operation.name, "CreateFunction" | "UpdateFunctionConfiguration") {
            // Whose code comes along: <https://docs.aws.amazon.com/lambda/latest/dg/permissions-layer-cross-account.html>
            let layers = members.get("Layers").and_then(Value::as_array);
            self.close();
            for layer in layers.into_iter().flatten().filter_map(Value::as_str) {
                self.action("lambda:GetLayerVersion", AccessLevel::Read);
                resources::names::arn(self, layer)?;
            }
        }
        if operation.passes_role != 0 {
            let mut roles = Vec::new();
            for (name, value) in members {
                resources::roles(name, value, place, &mut roles);
            }
            if !roles.is_empty() {
                self.close();
                self.action("iam:PassRole", AccessLevel::Write);
                for role in roles {
                    // By its name alone a role may be below a path.
                    if let Some((before, name)) = role.split_once(":role/").filter(|(_, name)| !name.contains('/')) {
                        let elsewhere = format!("{before}:role/*/{name}");
                        self.unknown(elsewhere, Cow::Borrowed("the same name below a path"), true)?;
                    }
                    resources::names::arn(self, &role)?;
                }
            }
        }
        self.close();
        // Resources are named by a list that isn't whole: one of those left out could be the forbidden one.
        if dropped && resources::come_from_lists(operation, service.name, members) {
            return Err(DecodeError::TooLarge("list of resources"));
        }
        Ok(())
    }

    /// What tags on creation need besides, on what is tagged.
    fn tagging(
        &mut self,
        candidate: &Candidate,
        members: &Map<String, Value>,
        place: &Place<'_>,
    ) -> Result<(), DecodeError> {
        let Candidate { service, operation, .. } = candidate;
        if operation.tagging.is_empty() {
            return Ok(());
        }
        let some = |value: &Value| match value {
            Value::Array(all) => !all.is_empty(),
            Value::Object(all) => !all.is_empty(),
            _ => false,
        };
        if service.name == "ec2" {
            let specified = members.iter().filter(|(name, _)| name.starts_with("TagSpecification"));
            let kinds: Vec<_> = specified
                .flat_map(|(_, value)| value.as_array().into_iter().flatten())
                .map(|one| one.get("ResourceType").and_then(Value::as_str).unwrap_or("*"))
                .collect();
            if !kinds.is_empty() {
                self.close();
                self.action("ec2:CreateTags", AccessLevel::Tagging);
                for kind in kinds {
                    let made = place.arn("ec2", &format!("{kind}/*"));
                    if kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
                        self.made_resource(made)?;
                    } else {
                        self.unknown(place.arn("ec2", "*"), Cow::Borrowed("no type of what is tagged"), false)?;
                    }
                }
            }
        } else if ["Tags", "tags", "TagList", "TagSet", "tagSet", "TagsList"]
            .iter()
            .any(|name| members.get(*name).is_some_and(some))
        {
            for action in &operation.tagging {
                self.action(*action, AccessLevel::Tagging);
            }
        }
        Ok(())
    }

    fn usual_actions(&mut self, candidate: &Candidate) {
        for action in &candidate.operation.actions {
            self.action(action.0, action.level());
        }
    }

    /// What there is; actions and resources are never empty.
    pub fn finish(mut self) -> Needed {
        self.close();
        self.pairs.sort_unstable();
        self.pairs.dedup();
        if self.groups == 1 || self.pairs.len() == self.actions.len() * self.resources.len() {
            self.pairs.clear();
        }
        let (references, has_all_references) = self.references.finish();
        let Self { actions, resources, pairs, unknown, .. } = self;
        Needed { actions, resources, pairs, unknown, references, has_all_references }
    }
}

fn add(places: &mut Vec<u16>, place: usize) {
    // Resources are bounded, and actions are those of the few candidates.
    let place = u16::try_from(place).expect("BUG: 65,536 actions or resources in one call");
    if !places.contains(&place) {
        places.push(place);
    }
}

/// What S3 checks beside the operation's own action, by what the request carries.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>
fn s3(needs: &mut Requirements, operation: &str, headers: &HeaderMap, query: &Query<'_>) {
    let has = |name: &str| headers.contains_key(name);
    let grants = has("x-amz-acl") || headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-"));
    match operation {
        "CopyObject" | "CreateMultipartUpload" | "PutObject" => {
            if grants {
                needs.action("s3:PutObjectAcl", AccessLevel::PermissionsManagement);
            }
            if has("x-amz-tagging") {
                needs.action("s3:PutObjectTagging", AccessLevel::Tagging);
            }
            if has("x-amz-object-lock-mode") || has("x-amz-object-lock-retain-until-date") {
                needs.action("s3:PutObjectRetention", AccessLevel::Write);
            }
            if has("x-amz-object-lock-legal-hold") {
                needs.action("s3:PutObjectLegalHold", AccessLevel::Write);
            }
        }
        "CreateBucket" => {
            if grants {
                needs.action("s3:PutBucketAcl", AccessLevel::PermissionsManagement);
            }
            if has("x-amz-bucket-object-lock-enabled") {
                needs.action("s3:PutBucketObjectLockConfiguration", AccessLevel::Write);
                needs.action("s3:PutBucketVersioning", AccessLevel::Write);
            }
            if has("x-amz-object-ownership") {
                needs.action("s3:PutBucketOwnershipControls", AccessLevel::Write);
            }
        }
        _ => {}
    }
    if header(headers, "x-amz-bypass-governance-retention").is_some_and(|v| v.eq_ignore_ascii_case("true"))
        || query.get("x-amz-bypass-governance-retention").is_some()
    {
        needs.action("s3:BypassGovernanceRetention", AccessLevel::PermissionsManagement);
    }
}

/// The action on a version of an object, which stands in the place of the one on the object. False: there is none.
fn versioned(needs: &mut Requirements, operation: &str) -> bool {
    let (action, level) = match operation {
        "DeleteObject" => ("s3:DeleteObjectVersion", AccessLevel::Write),
        "DeleteObjectTagging" => ("s3:DeleteObjectVersionTagging", AccessLevel::Tagging),
        "GetObject" | "HeadObject" => ("s3:GetObjectVersion", AccessLevel::Read),
        "GetObjectAcl" => ("s3:GetObjectVersionAcl", AccessLevel::Read),
        "GetObjectAttributes" => ("s3:GetObjectVersionAttributes", AccessLevel::Read),
        "GetObjectTagging" => ("s3:GetObjectVersionTagging", AccessLevel::Read),
        "PutObjectAcl" => ("s3:PutObjectVersionAcl", AccessLevel::PermissionsManagement),
        "PutObjectTagging" => ("s3:PutObjectVersionTagging", AccessLevel::Tagging),
        _ => return false,
    };
    needs.action(action, level);
    true
}
