//! Resources: the ARNs that a call touches, from its parameters.

use std::borrow::Cow;

use chaperone_model::AccessLevel;
use http::HeaderMap;
use serde_json::{Map, Value};

use crate::{
    actions::Requirements,
    catalog::Operation,
    decode::{Candidate, DecodeError, header, value::MAX_STRING},
    host::{HostKind, HostMatch, S3At},
};

/// Where a call goes: what ARNs begin with.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub partition: &'static str,
    pub region: Option<Cow<'static, str>>,
    pub account: Option<&'a str>,
}

impl Place<'_> {
    /// An ARN of a service here. An account that isn't known is `*`.
    pub fn arn(&self, service: &str, tail: &str) -> String {
        self.arn_of(service, "", tail)
    }

    /// The same, with what stands before the name.
    pub fn arn_of(&self, service: &str, kind: &str, name: &str) -> String {
        let region = self.region.as_deref().unwrap_or_default();
        let account = self.account.unwrap_or("*");
        ["arn:", self.partition, ":", service, ":", region, ":", account, ":", kind, name].concat()
    }
}

/// By the catalog's templates and ARN members; by hand for a few.
pub(crate) fn from_catalog(
    needs: &mut Requirements,
    candidate: &Candidate,
    members: &Map<String, Value>,
    path: &str,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    let Candidate { service, operation, .. } = candidate;
    match service.name {
        "dynamodb" => return dynamodb(needs, members, place),
        "sqs" => return sqs(needs, members, path, place),
        _ => {}
    }
    for template in &operation.templates {
        fill(needs, template, service.name, members, place)?;
    }
    // ARNs of the operation's own service, or of whatever a member called plainly `resourceArn` holds.
    for name in &operation.arn_members {
        for text in texts(members.get(*name)) {
            let own = operation.actions.iter().any(|action| {
                let prefix = action.0.split(':').next().unwrap_or_default();
                text.split(':').nth(2) == Some(prefix)
            });
            let plain = name.eq_ignore_ascii_case("resourcearn")
                || name.eq_ignore_ascii_case("arn")
                || name.eq_ignore_ascii_case("resourcearnlist")
                || name.eq_ignore_ascii_case("rolearn");
            if text.starts_with("arn:") && (own || plain) {
                needs.resource(checked(text)?)?;
            }
        }
    }
    Ok(())
}

/// Whether resources are named by lists or maps in the input, which may have been cut.
pub(crate) fn come_from_lists(operation: &Operation, service: &str, members: &Map<String, Value>) -> bool {
    let listed = |name: &str| matches!(members.get(name), Some(Value::Array(_) | Value::Object(_)));
    let in_template =
        |template: &&str| template.split("{=").skip(1).filter_map(|rest| rest.split('}').next()).any(listed);
    match service {
        "dynamodb" => ["RequestItems", "TransactItems", "Statements", "TransactStatements"].into_iter().any(listed),
        "s3" => operation.name == "DeleteObjects",
        _ => {
            operation.passes_role != 0
                || operation.templates.iter().any(in_template)
                || operation.arn_members.iter().any(|name| listed(name))
        }
    }
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match value {
        Some(Value::String(text)) => (Some(text.as_str()), None),
        Some(Value::Array(all)) => (None, Some(all.iter().filter_map(Value::as_str))),
        _ => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten())
}

fn checked(text: &str) -> Result<String, DecodeError> {
    if text.len() >= MAX_STRING { Err(DecodeError::TooLarge("resource's name")) } else { Ok(text.to_owned()) }
}

/// Fills `arn:{P}:service:{R}:{A}:kind/{=Member}`; for a member with several values, once for each.
fn fill(
    needs: &mut Requirements,
    template: &str,
    service: &str,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    let mut filled = vec![String::with_capacity(template.len() + 32)];
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((variable, tail)) = after.split_once('}') else { break };
        rest = tail;
        for text in &mut filled {
            text.push_str(before);
        }
        let fixed = match variable {
            "P" => Some(place.partition),
            "R" => Some(place.region.as_deref().unwrap_or_default()),
            "A" => Some(place.account.unwrap_or("*")),
            _ => None,
        };
        if let Some(fixed) = fixed {
            for text in &mut filled {
                text.push_str(fixed);
            }
            continue;
        }
        let values: Vec<&str> = texts(members.get(variable.trim_start_matches('='))).collect();
        let mut next = Vec::new();
        for value in values {
            if value.len() >= MAX_STRING {
                return Err(DecodeError::TooLarge("resource's name"));
            }
            if value.starts_with("arn:") {
                // An ARN in the place of a name: as it is. (Lambda, KMS, Secrets Manager, DynamoDB, …)
                needs.resource(value.to_owned())?;
                continue;
            }
            if let Some(arn) = alias(service, value, place) {
                needs.resource(arn)?;
                continue;
            }
            for text in &filled {
                if next.len() >= crate::actions::MAX_RESOURCES {
                    return Err(DecodeError::TooLarge("list of resources"));
                }
                next.push(format!("{text}{value}"));
            }
        }
        if next.is_empty() {
            return Ok(());
        }
        filled = next;
    }
    for mut text in filled {
        text.push_str(rest);
        needs.resource(text)?;
    }
    Ok(())
}

/// Names that stand for something else than the template thinks.
fn alias(service: &str, value: &str, place: &Place<'_>) -> Option<String> {
    match service {
        "kms" if value.starts_with("alias/") => Some(place.arn("kms", value)),
        // `123456789012:function:name`, `name:qualifier`
        "lambda" => {
            let (before, name) = value.split_once(":function:").or_else(|| value.split_once("function:"))?;
            let account = if before.is_empty() { place.account.unwrap_or("*") } else { before };
            let region = place.region.as_deref().unwrap_or_default();
            Some(format!("arn:{}:lambda:{region}:{account}:function:{name}", place.partition))
        }
        _ => None,
    }
}

fn dynamodb(needs: &mut Requirements, members: &Map<String, Value>, place: &Place<'_>) -> Result<(), DecodeError> {
    let table =
        |needs: &mut Requirements, name: &str, index: Option<&str>| needs.resource(table_arn(name, index, place)?);
    let index = members.get("IndexName").and_then(Value::as_str);
    for name in ["TableName", "SourceTableName", "TargetTableName", "GlobalTableName"] {
        if let Some(name) = members.get(name).and_then(Value::as_str) {
            table(needs, name, index.filter(|_| members.contains_key("TableName")))?;
        }
    }
    for (name, value) in members {
        if name.ends_with("Arn")
            && let Some(arn) = value.as_str().filter(|text| text.starts_with("arn:"))
            && arn.split(':').nth(2) == Some("dynamodb")
        {
            needs.resource(checked(arn)?)?;
        }
    }
    if let Some(Value::Object(items)) = members.get("RequestItems") {
        for name in items.keys() {
            table(needs, name, None)?;
        }
    }
    for item in members.get("TransactItems").and_then(Value::as_array).into_iter().flatten() {
        for part in item.as_object().into_iter().flat_map(Map::values) {
            if let Some(name) = part.get("TableName").and_then(Value::as_str) {
                needs.resource(table_arn(name, None, place)?)?;
            }
        }
    }
    Ok(())
}

fn table_arn(name: &str, index: Option<&str>, place: &Place<'_>) -> Result<String, DecodeError> {
    if name.len() >= MAX_STRING {
        return Err(DecodeError::TooLarge("resource's name"));
    }
    let mut arn = if name.starts_with("arn:") { name.to_owned() } else { place.arn_of("dynamodb", "table/", name) };
    if let Some(index) = index {
        arn.push_str("/index/");
        arn.push_str(index);
    }
    Ok(arn)
}

/// A transaction is checked item by item, each by what it does to which table. False: an item doesn't say it, so that
/// all of a transaction's actions are needed on everything.
pub(crate) fn transaction(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<bool, DecodeError> {
    let mut items = Vec::new();
    for item in members.get("TransactItems").and_then(Value::as_array).into_iter().flatten() {
        let parts = item.as_object().map(Map::iter).into_iter().flatten();
        let before = items.len();
        items.extend(parts.map(|(kind, part)| (kind.as_str(), part.get("TableName").and_then(Value::as_str))));
        if items.len() == before {
            return Ok(false);
        }
    }
    let mut asks = Vec::with_capacity(items.len());
    for (kind, table) in items {
        let (action, level) = match kind {
            "ConditionCheck" => ("dynamodb:ConditionCheckItem", AccessLevel::Read),
            "Delete" => ("dynamodb:DeleteItem", AccessLevel::Write),
            "Put" => ("dynamodb:PutItem", AccessLevel::Write),
            "Update" => ("dynamodb:UpdateItem", AccessLevel::Write),
            _ => return Ok(false),
        };
        let Some(table) = table.filter(|name| !name.is_empty()) else { return Ok(false) };
        asks.push((action, level, table_arn(table, None, place)?));
    }
    let any = !asks.is_empty();
    for (action, level, table) in asks {
        needs.action(action, level);
        needs.resource(table)?;
        needs.close();
    }
    Ok(any)
}

/// PartiQL is checked statement by statement, each by its first word and its table.
pub(crate) fn part_iql(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    const UNCLEAR: DecodeError = DecodeError::Body("a PartiQL statement whose table can't be told");
    let statements = members.get("Statements").or_else(|| members.get("TransactStatements"));
    let statements = statements.and_then(Value::as_array).into_iter().flatten();
    let mut all = statements.map(|s| s.get("Statement")).chain(members.get("Statement").map(Some)).peekable();
    if all.peek().is_none() {
        return Err(UNCLEAR);
    }
    for statement in all {
        let statement = statement.and_then(Value::as_str).ok_or(UNCLEAR)?;
        let (word, name, index) = part_iql_statement(statement).ok_or(UNCLEAR)?;
        let (action, level) = match word.as_str() {
            "SELECT" => ("dynamodb:PartiQLSelect", AccessLevel::Read),
            "INSERT" => ("dynamodb:PartiQLInsert", AccessLevel::Write),
            "UPDATE" => ("dynamodb:PartiQLUpdate", AccessLevel::Write),
            "DELETE" => ("dynamodb:PartiQLDelete", AccessLevel::Write),
            _ => return Err(UNCLEAR),
        };
        needs.action(action, level);
        needs.resource(table_arn(&name, index.as_deref(), place)?)?;
        needs.close();
    }
    Ok(())
}

/// A statement's first word, table and index. In a transaction a condition can stand for a statement:
/// `EXISTS(SELECT …)`, <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-functions.exists.html>.
fn part_iql_statement(statement: &str) -> Option<(String, String, Option<String>)> {
    let mut statement = statement.trim();
    if statement.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("EXISTS")) {
        statement = statement[6..].trim_start().strip_prefix('(')?.strip_suffix(')')?.trim();
        statement.get(..6).filter(|word| word.eq_ignore_ascii_case("SELECT"))?;
    }
    let word: String = statement.chars().take_while(char::is_ascii_alphabetic).collect();
    let (table, index) = part_iql_table(statement)?;
    Some((word.to_ascii_uppercase(), table, index))
}

/// What launching touches: besides what is named, new instances, their volumes and interfaces. What isn't named is the
/// launch template's or the account's default, and could be any.
pub(crate) fn run_instances(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    let region = place.region.as_deref().unwrap_or_default();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let ours = |kind: &str, id: &str| place.arn("ec2", &format!("{kind}/{id}"));
    // Images and snapshots have no account in their ARNs.
    let image = text(members.get("ImageId")).unwrap_or_else(|| "*".into());
    needs.resource(checked(&format!("arn:{}:ec2:{region}::image/{image}", place.partition))?)?;
    let interfaces = members.get("NetworkInterfaces").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut subnets: Vec<String> = text(members.get("SubnetId")).into_iter().collect();
    let mut groups: Vec<String> = texts(members.get("SecurityGroupIds")).map(str::to_owned).collect();
    let mut joined = Vec::new();
    for interface in interfaces {
        subnets.extend(text(interface.get("SubnetId")));
        groups.extend(texts(interface.get("Groups")).map(str::to_owned));
        joined.extend(text(interface.get("NetworkInterfaceId")));
    }
    for (kind, ids) in [("subnet", subnets), ("security-group", groups), ("network-interface", joined)] {
        if ids.is_empty() {
            needs.resource(ours(kind, "*"))?;
        }
        for id in ids {
            needs.resource(checked(&ours(kind, &id))?)?;
        }
    }
    for kind in ["instance", "volume"] {
        needs.resource(ours(kind, "*"))?;
    }
    if let Some(name) = text(members.get("KeyName")) {
        needs.resource(checked(&ours("key-pair", &name))?)?;
    }
    if let Some(template) = members.get("LaunchTemplate") {
        let id = text(template.get("LaunchTemplateId")).unwrap_or_else(|| "*".into());
        needs.resource(checked(&ours("launch-template", &id))?)?;
    }
    if let Some(group) = members.get("Placement").and_then(|placement| text(placement.get("GroupName"))) {
        needs.resource(checked(&ours("placement-group", &group))?)?;
    }
    for mapping in members.get("BlockDeviceMappings").and_then(Value::as_array).into_iter().flatten() {
        if let Some(snapshot) = mapping.get("Ebs").and_then(|ebs| text(ebs.get("SnapshotId"))) {
            needs.resource(checked(&format!("arn:{}:ec2:{region}::snapshot/{snapshot}", place.partition))?)?;
        }
    }
    Ok(())
}

/// The table after FROM, INTO or UPDATE: `table`, `"table"` or `"table"."index"`.
fn part_iql_table(statement: &str) -> Option<(String, Option<String>)> {
    let mut words = statement.split_ascii_whitespace();
    let first = words.next()?.to_ascii_uppercase();
    let rest = match first.as_str() {
        "UPDATE" => statement.trim_start().get(6..)?,
        "SELECT" | "DELETE" | "INSERT" => {
            let keyword = if first == "INSERT" { "INTO" } else { "FROM" };
            let upper = statement.to_ascii_uppercase();
            let mut at = None;
            for (i, _) in upper.match_indices(keyword) {
                let bounded = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
                if bounded(upper[..i].chars().next_back()) && bounded(upper[i + 4..].chars().next()) {
                    // Twice is a nested query or text in quotes: not ours to parse.
                    if at.replace(i + 4).is_some() {
                        return None;
                    }
                }
            }
            statement.get(at?..)?
        }
        _ => return None,
    };
    let rest = rest.trim_start();
    let name = |text: &str| -> Option<(String, usize)> {
        if let Some(quoted) = text.strip_prefix('"') {
            let end = quoted.find('"')?;
            return Some((quoted[..end].to_owned(), end + 2));
        }
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
        (end > 0).then(|| (text[..end].to_owned(), end))
    };
    let (table, end) = name(rest)?;
    let index = match rest[end..].strip_prefix('.') {
        Some(after) => Some(name(after)?.0),
        None => None,
    };
    Some((table, index))
}

fn sqs(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    path: &str,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    // By the query protocol, the queue is in the path too, and there it is the one that counts.
    if let Some((account, name)) = path.trim_matches('/').split_once('/') {
        let region = place.region.as_deref().unwrap_or_default();
        needs.resource(checked(&format!("arn:{}:sqs:{region}:{account}:{name}", place.partition))?)?;
    }
    for name in ["SourceArn", "DestinationArn"] {
        if let Some(arn) = members.get(name).and_then(Value::as_str) {
            needs.resource(checked(arn)?)?;
        }
    }
    let (account, name) = match (members.get("QueueUrl").and_then(Value::as_str), members.get("QueueName")) {
        (Some(url), _) => {
            // https://sqs.REGION.amazonaws.com/ACCOUNT/NAME
            let mut parts = url.rsplit('/');
            let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if name.is_empty() || account.is_empty() {
                return Err(DecodeError::Body("without a queue that can be told"));
            }
            (Some(account).filter(|a| a.bytes().all(|b| b.is_ascii_digit())), name)
        }
        (None, Some(Value::String(name))) => {
            (members.get("QueueOwnerAWSAccountId").and_then(Value::as_str), name.as_str())
        }
        _ => return Ok(()),
    };
    let region = place.region.as_deref().unwrap_or_default();
    let account = account.or(place.account).unwrap_or("*");
    needs.resource(checked(&format!("arn:{}:sqs:{region}:{account}:{name}", place.partition))?)
}

/// API Gateway's permissions are on the paths of its API.
pub(crate) fn api_gateway(operation: &Operation, members: &Map<String, Value>, place: &Place<'_>) -> String {
    let mut path = String::new();
    for segment in operation.uri.split('/').filter(|segment| !segment.is_empty()) {
        path.push('/');
        match segment.strip_prefix('{').and_then(|label| label.strip_suffix('}')) {
            Some(label) => {
                // Labels go by their names on the wire, such as `restapi_id` for `restApiId`.
                let plain: String =
                    label.trim_end_matches('+').chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase();
                let value = members
                    .iter()
                    .find(|(name, _)| name.to_ascii_lowercase() == plain)
                    .and_then(|(_, value)| value.as_str());
                path.push_str(value.unwrap_or("*"));
            }
            None => path.push_str(segment),
        }
    }
    let region = place.region.as_deref().unwrap_or_default();
    format!("arn:{}:apigateway:{region}::{path}", place.partition)
}

/// Roles anywhere in the input of a call that passes them on: by ARN wherever it stands, by name where the member's
/// name says that it is one (ECS, Glue, CodeBuild, EMR and others take either).
pub(crate) fn roles(name: &str, value: &Value, place: &Place<'_>, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let mut parts = text.split(':');
            let is_role = parts.next() == Some("arn")
                && parts.nth(1) == Some("iam")
                && parts.nth(2).is_some_and(|tail| tail.starts_with("role/") || tail.starts_with("instance-profile/"));
            let account = place.account.unwrap_or("*");
            let role = if is_role {
                text.clone()
            } else if text.is_empty() || text.contains(':') {
                return;
            } else if is_profile(name) {
                format!("arn:{}:iam::{account}:instance-profile/{text}", place.partition)
            } else if is_role_name(name) {
                format!("arn:{}:iam::{account}:role/{text}", place.partition)
            } else {
                return;
            };
            if !found.contains(&role) {
                found.push(role);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| roles(name, value, place, found)),
        Value::Object(all) => {
            for (inner, value) in all {
                // `IamInstanceProfile: {Name: …}`
                roles(if inner == "Name" && is_profile(name) { name } else { inner }, value, place, found);
            }
        }
        _ => {}
    }
}

fn is_profile(member: &str) -> bool {
    let member = member.to_ascii_lowercase();
    member.ends_with("instanceprofile") || member.ends_with("instanceprofilename")
}

fn is_role_name(member: &str) -> bool {
    let member = member.to_ascii_lowercase();
    ["role", "rolearn", "rolename", "iamrole", "iamroles"].iter().any(|ending| member.ends_with(ending))
}

/// S3's buckets, objects and access points.
pub(crate) fn s3(
    needs: &mut Requirements,
    operation: &str,
    members: &Map<String, Value>,
    headers: &HeaderMap,
    host: &HostMatch,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    if matches!(operation, "ListBuckets" | "ListDirectoryBuckets") {
        return Ok(());
    }
    let Some(bucket) = members.get("Bucket").and_then(Value::as_str) else { return Ok(()) };
    if bucket.is_empty() {
        return Err(DecodeError::Path("an empty bucket name"));
    }
    let base = bucket_arn(bucket, &host.kind, place);
    let object = |key: &str| -> Result<String, DecodeError> {
        if key.len() >= MAX_STRING {
            return Err(DecodeError::TooLarge("object's key"));
        }
        let is_access_point = base.splitn(6, ':').nth(5).is_some_and(|tail| tail.starts_with("accesspoint/"));
        Ok(if is_access_point { format!("{base}/object/{key}") } else { format!("{base}/{key}") })
    };
    match members.get("Key") {
        Some(Value::String(key)) => needs.resource(object(key)?)?,
        _ if operation == "DeleteObjects" => {
            let keys = members.get("Delete").and_then(|delete| delete.get("Objects")).and_then(Value::as_array);
            let mut any = false;
            let mut versions = Vec::new();
            for entry in keys.into_iter().flatten() {
                let key = entry.get("Key").and_then(Value::as_str).ok_or(DecodeError::Body("a key that is missing"))?;
                any = true;
                if entry.get("VersionId").and_then(Value::as_str).is_some_and(|id| !id.is_empty()) {
                    versions.push(object(key)?);
                } else {
                    needs.resource(object(key)?)?;
                }
            }
            if !versions.is_empty() {
                let others = needs.open_actions();
                let objects = needs.has_resources();
                if objects {
                    needs.close();
                    for action in others {
                        needs.action(action.name, action.level);
                    }
                }
                needs.replace_action("s3:DeleteObject", "s3:DeleteObjectVersion", AccessLevel::Write);
                for version in versions {
                    needs.resource(version)?;
                }
            }
            if !any {
                return Err(DecodeError::Body("without keys to delete"));
            }
        }
        _ => needs.resource(base.clone())?,
    }
    if matches!(operation, "CopyObject" | "UploadPartCopy") {
        let source = header(headers, "x-amz-copy-source").unwrap_or_default();
        needs.close();
        let action = if source.contains("versionId=") { "s3:GetObjectVersion" } else { "s3:GetObject" };
        needs.action(action, AccessLevel::Read);
        let source = source.split('?').next().unwrap_or_default();
        let source = percent_encoding::percent_decode_str(source)
            .decode_utf8()
            .map_err(|_| DecodeError::Path("a copy source that is not UTF-8"))?;
        let source = source.strip_prefix('/').unwrap_or(&source);
        if source.starts_with("arn:") {
            needs.resource(checked(source)?)?;
        } else {
            let (bucket, key) = source
                .split_once('/')
                .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
                .ok_or(DecodeError::Path("a copy source that is not BUCKET/KEY"))?;
            needs.resource(checked(&format!("arn:{}:s3:::{bucket}/{key}", place.partition))?)?;
        }
    }
    Ok(())
}

fn bucket_arn(bucket: &str, kind: &HostKind, place: &Place<'_>) -> String {
    let region = place.region.as_deref().unwrap_or_default();
    let partition = place.partition;
    match kind {
        HostKind::S3Bucket { at: S3At::AccessPoint, .. } => {
            let (name, account) = bucket.rsplit_once('-').unwrap_or((bucket, "*"));
            format!("arn:{partition}:s3:{region}:{account}:accesspoint/{name}")
        }
        HostKind::S3Bucket { at: S3At::ObjectLambda, .. } => {
            let (name, account) = bucket.rsplit_once('-').unwrap_or((bucket, "*"));
            format!("arn:{partition}:s3-object-lambda:{region}:{account}:accesspoint/{name}")
        }
        // An access point of a directory bucket.
        HostKind::S3ExpressControl | HostKind::S3Bucket { at: S3At::Express, .. } if bucket.ends_with("--xa-s3") => {
            place.arn("s3express", &format!("accesspoint/{bucket}"))
        }
        HostKind::S3ExpressControl | HostKind::S3Bucket { at: S3At::Express, .. } => {
            place.arn("s3express", &format!("bucket/{bucket}"))
        }
        HostKind::S3Bucket { at: S3At::MultiRegion, .. } => {
            format!("arn:{partition}:s3::{}:accesspoint/{bucket}", place.account.unwrap_or("*"))
        }
        HostKind::S3Bucket { at: S3At::Outposts, .. } => {
            let (access_point, outpost) = bucket.split_once('.').unwrap_or((bucket, "*"));
            let (name, account) = access_point.rsplit_once('-').unwrap_or((access_point, "*"));
            format!("arn:{partition}:s3-outposts:{region}:{account}:outpost/{outpost}/accesspoint/{name}")
        }
        _ if bucket.starts_with("arn:") => bucket.to_owned(),
        _ => format!("arn:{partition}:s3:::{bucket}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_partiql_statements() {
        let table = |text: &str| part_iql_table(text).map(|(t, i)| format!("{t}/{}", i.unwrap_or_default()));
        assert_eq!(table("SELECT * FROM Music WHERE a='b'").as_deref(), Some("Music/"));
        assert_eq!(table("select a from \"Music\".\"idx\"").as_deref(), Some("Music/idx"));
        assert_eq!(table("  UPDATE \"My-Table\" SET a=1").as_deref(), Some("My-Table/"));
        assert_eq!(table("INSERT INTO t VALUE {'a':1}").as_deref(), Some("t/"));
        assert_eq!(table("DELETE FROM t WHERE x = ' FROM other '"), None);
        let statement = |text: &str| part_iql_statement(text).map(|(word, t, _)| format!("{word} {t}"));
        assert_eq!(statement("EXISTS(SELECT * FROM \"t\" WHERE a = 1)").as_deref(), Some("SELECT t"));
        assert_eq!(statement("exists ( select * from t )").as_deref(), Some("SELECT t"));
        assert_eq!(statement("EXISTS(DELETE FROM t)"), None);
        assert_eq!(statement("EXISTS(SELECT * FROM t) FROM u)"), None);
        assert_eq!(table("ſELECT * FROM t"), None);
    }
}
