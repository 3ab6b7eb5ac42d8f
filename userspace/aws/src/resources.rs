//! Resources: the ARNs that a call touches, from its parameters.

use chaperone_model::AccessLevel;
use http::HeaderMap;
use serde_json::{Map, Value};

use crate::{
    actions::Needs,
    catalog::Operation,
    decode::{Candidate, DecodeError, header, value::MAX_STRING},
    host::{HostKind, HostMatch, S3At},
};

/// Where a call goes: what ARNs begin with.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub partition: &'static str,
    pub region: Option<String>,
    pub account: Option<&'a str>,
}

impl Place<'_> {
    /// An ARN of a service here. An account that isn't known is `*`.
    pub fn arn(&self, service: &str, tail: &str) -> String {
        let region = self.region.as_deref().unwrap_or_default();
        format!("arn:{}:{service}:{region}:{}:{tail}", self.partition, self.account.unwrap_or("*"))
    }
}

/// By the catalog's templates and ARN members; by hand for a few.
pub(crate) fn usual(
    needs: &mut Needs,
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
    needs: &mut Needs,
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

fn dynamodb(needs: &mut Needs, members: &Map<String, Value>, place: &Place<'_>) -> Result<(), DecodeError> {
    let table = |needs: &mut Needs, name: &str, index: Option<&str>| {
        let name = checked(name)?;
        let mut arn = if name.starts_with("arn:") { name } else { place.arn("dynamodb", &format!("table/{name}")) };
        if let Some(index) = index {
            arn.push_str("/index/");
            arn.push_str(index);
        }
        needs.resource(arn)
    };
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
                table(needs, name, None)?;
            }
        }
    }
    let statements = members.get("Statements").or_else(|| members.get("TransactStatements"));
    let statements = statements.and_then(Value::as_array).into_iter().flatten();
    let all = statements.filter_map(|s| s.get("Statement")).chain(members.get("Statement"));
    for statement in all.filter_map(Value::as_str) {
        match part_iql_table(statement) {
            Some((name, index)) => table(needs, &name, index.as_deref())?,
            None => return Err(DecodeError::Body("a PartiQL statement whose table can't be told")),
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

fn sqs(needs: &mut Needs, members: &Map<String, Value>, path: &str, place: &Place<'_>) -> Result<(), DecodeError> {
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

/// Role ARNs anywhere in the input.
pub(crate) fn roles(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let mut parts = text.split(':');
            let is_role = parts.next() == Some("arn")
                && parts.nth(1) == Some("iam")
                && parts.nth(2).is_some_and(|tail| tail.starts_with("role/") || tail.starts_with("instance-profile/"));
            if is_role && !found.contains(text) {
                found.push(text.clone());
            }
        }
        Value::Array(all) => all.iter().for_each(|value| roles(value, found)),
        Value::Object(all) => all.values().for_each(|value| roles(value, found)),
        _ => {}
    }
}

/// S3's buckets, objects and access points.
pub(crate) fn s3(
    needs: &mut Needs,
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
            for entry in keys.into_iter().flatten() {
                let key = entry.get("Key").and_then(Value::as_str).ok_or(DecodeError::Body("a key that is missing"))?;
                needs.resource(object(key)?)?;
                any = true;
                if entry.get("VersionId").is_some() {
                    needs.action("s3:DeleteObjectVersion", AccessLevel::Write);
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
        assert_eq!(table("EXISTS(SELECT * FROM t)"), None);
        assert_eq!(table("ſELECT * FROM t"), None);
    }
}
