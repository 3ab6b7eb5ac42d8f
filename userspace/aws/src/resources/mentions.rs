//! What a call names of other services, in whatever member: a rule's targets, a queue that gets a topic's messages, the
//! key that a volume is encrypted with, the bucket that logs go to. IAM asks for no permission on these by this call; they
//! count for policies that forbid.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Place, checked, ids, names};
use crate::{actions::Requirements, decode_error::DecodeError};

/// Of more than this a call isn't told one by one, but by what they have in common.
const MAX_EACH: usize = 64;

/// Members that hold the customer's own data, in which an ARN is a text like any other.
const DATA: [&str; 22] = [
    "AttributeUpdates",
    "AttributesToGet",
    "Detail",
    "Expected",
    "ExpressionAttributeValues",
    "Item",
    "Key",
    "KeyConditions",
    "Keys",
    "Message",
    "MessageAttributes",
    "MessageBody",
    "Parameters",
    "QueryFilter",
    "Records",
    "RequestItems",
    "ScanFilter",
    "Statements",
    "TransactItems",
    "Value",
    "logEvents",
    "value",
];

/// Members whose text is a document that says where things go.
const DOCUMENTS: [&str; 2] = ["AttributeValue", "RedrivePolicy"];

/// Finds what the input mentions.
pub(crate) fn mentions(
    needs: &mut Requirements,
    service: &str,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    let mut found = Found { service, place, region: None, arns: Arns::default() };
    found.object(members, true);
    match found.arns {
        Arns::Each(all) => {
            for arn in all {
                if !needs.names(&arn) {
                    names::arn(needs, &checked(&arn)?)?;
                }
            }
        }
        Arns::Like(all) => {
            for pattern in all {
                needs.made_resource(pattern)?;
            }
        }
        Arns::Any => needs.made_resource("*".to_owned())?,
    }
    Ok(())
}

/// What was found so far. Each step takes as long as [`MAX_EACH`] allows, however many there are.
enum Arns {
    Each(Vec<String>),
    /// Too many to be told one by one: by what they begin with.
    Like(BTreeSet<String>),
    /// Too many of those as well.
    Any,
}

impl Default for Arns {
    fn default() -> Self {
        Self::Each(Vec::new())
    }
}

impl Arns {
    fn add(&mut self, arn: String) {
        match self {
            Self::Each(all) if all.contains(&arn) => {}
            Self::Each(all) if all.len() < MAX_EACH => all.push(arn),
            Self::Each(all) => {
                let patterns: BTreeSet<String> = all.iter().map(|arn| like(arn)).collect();
                *self = Self::Like(patterns);
                self.add(arn);
            }
            Self::Like(all) => {
                all.insert(like(&arn));
                if all.len() > MAX_EACH {
                    *self = Self::Any;
                }
            }
            Self::Any => {}
        }
    }
}

/// All that begins as this one.
fn like(arn: &str) -> String {
    let end = arn.rfind(['/', ':']).map_or(0, |at| at + 1);
    [&arn[..end], "*"].concat()
}

struct Found<'a> {
    service: &'a str,
    place: &'a Place<'a>,
    /// The region that a structure names beside what it holds.
    region: Option<&'a str>,
    arns: Arns,
}

impl<'a> Found<'a> {
    fn object(&mut self, members: &'a Map<String, Value>, is_top: bool) {
        let outer = self.region;
        let named = members.iter().filter(|(name, _)| name.ends_with("egion")).find_map(|(_, value)| value.as_str());
        self.region = named.filter(|region| names::is_region(region)).or(outer);
        for (name, value) in members {
            // Parameters of documents that Systems Manager runs are what they are run on.
            if DATA.contains(&name.as_str()) && !(self.service == "ssm" && name == "Parameters") {
                continue;
            }
            if is_bucket(name) && !(is_top && self.service.starts_with("s3")) {
                self.bucket(value, members);
            }
            self.value(name, value);
        }
        self.region = outer;
    }

    fn value(&mut self, name: &str, value: &'a Value) {
        match value {
            Value::String(text) => self.text(name, text),
            Value::Array(all) => all.iter().for_each(|value| self.value(name, value)),
            Value::Object(members) => self.object(members, false),
            _ => {}
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        if text.starts_with("arn:") {
            self.add(text.to_owned());
            // API Gateway's integrations: `…:lambda:path/2015-03-31/functions/ARN/invocations`.
            if let Some((_, inner)) = text.split_once("/functions/arn:") {
                let inner = inner.strip_suffix("/invocations").unwrap_or(inner);
                self.add(["arn:", inner].concat());
            }
        } else if name == "AttributeValue" && may_be_key(text) {
            self.key(text);
        } else if DOCUMENTS.contains(&name) || name == "definition" && self.service == "stepfunctions" {
            for piece in text.split('"').filter(|piece| piece.starts_with("arn:")) {
                self.add(piece.to_owned());
            }
        } else if let Some(object) = text.strip_prefix("s3://") {
            self.add(["arn:", self.place.partition, ":s3:::", object].concat());
        } else if let Some((account, rest)) = registry(text) {
            self.image(account, rest);
        } else if may_be_key(text) && self.service != "kms" && is_key(name) {
            self.key(text);
        } else if let Some(kind) = ec2_kind(text) {
            let own = matches!(kind, "image/" | "snapshot/");
            let account = if own { "" } else { self.place.account.unwrap_or("*") };
            for region in [self.place.region.as_deref(), self.region].into_iter().flatten() {
                self.add(["arn:", self.place.partition, ":ec2:", region, ":", account, ":", kind, text].concat());
            }
        }
    }

    /// A key by its id or alias; its ARN is found anyhow.
    fn key(&mut self, text: &str) {
        let kind = if text.starts_with("alias/") { "" } else { "key/" };
        self.add(self.place.arn_of("kms", kind, text));
    }

    /// An image of a container, by what stands behind its registry's account.
    fn image(&mut self, account: &str, rest: &str) {
        let (Some((region, _)), Some((_, name))) = (rest.split_once('.'), rest.split_once('/')) else { return };
        let name = name.split(['@', ':']).next().unwrap_or(name);
        if names::is_account(account) {
            let partition = self.place.partition;
            self.add(["arn:", partition, ":ecr:", region, ":", account, ":repository/", name].concat());
        }
    }

    /// A bucket, and the object in it that stands beside, or any.
    fn bucket(&mut self, value: &Value, beside: &Map<String, Value>) {
        let Some(name) = value.as_str().filter(|name| !name.is_empty() && !name.contains([':', '/'])) else { return };
        let bucket = ["arn:", self.place.partition, ":s3:::", name].concat();
        let key = beside.iter().find(|(name, _)| is_object(name)).and_then(|(_, key)| key.as_str());
        self.add([&bucket, "/", key.unwrap_or("*")].concat());
        self.add(bucket);
    }

    fn add(&mut self, arn: String) {
        // What is no ARN names nothing.
        if arn.splitn(6, ':').nth(5).is_some_and(|name| !name.is_empty()) {
            self.arns.add(arn);
        }
    }
}

/// The account and the rest of `ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG`.
fn registry(text: &str) -> Option<(&str, &str)> {
    let host = text.strip_prefix("https://").unwrap_or(text);
    let (account, rest) = host.split_at_checked(12)?;
    Some((account, rest.strip_prefix(".dkr.ecr.")?))
}

/// Whether a text has the form of a key's id or alias.
fn may_be_key(text: &str) -> bool {
    let is_uuid = || text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4;
    text.starts_with("alias/") || text.starts_with("mrk-") || is_uuid()
}

/// `i-0123abcd`: EC2's ids have eight or seventeen digits.
fn ec2_kind(text: &str) -> Option<&'static str> {
    let (_, number) = text.rsplit_once('-').filter(|(prefix, _)| prefix.len() <= 10)?;
    (number.len() <= 17).then(|| ids::kind(text)).flatten().filter(|_| !text.starts_with("ecs:"))
}

/// `Bucket`, `S3BucketName`, `OutputBucketName`, …
fn is_bucket(name: &str) -> bool {
    ends_with(name, "bucket") || ends_with(name, "bucketname")
}

fn is_object(name: &str) -> bool {
    ["key", "s3key", "objectkey", "s3objectkey"].iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// `KeyId`, `KmsKeyArn`, `KMSMasterKeyId`, `SSEKMSKeyId`, `kmsKey`, …
fn is_key(name: &str) -> bool {
    let holds = |word: &[u8]| name.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    ends_with(name, "keyid") || holds(b"kms") && holds(b"key")
}

/// In any case.
fn ends_with(text: &str, ending: &str) -> bool {
    let at = text.len().checked_sub(ending.len());
    at.is_some_and(|at| text.as_bytes()[at..].eq_ignore_ascii_case(ending.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_there_are_they_are_told_in_a_bounded_way() {
        let mut arns = Arns::default();
        let queue = |number: usize| format!("arn:aws:sqs:eu-west-1:123456789012:q{number}");
        (0..MAX_EACH).chain(0..MAX_EACH).for_each(|number| arns.add(queue(number)));
        assert!(matches!(&arns, Arns::Each(all) if all.len() == MAX_EACH));
        (0..10_000).for_each(|number| arns.add(queue(number)));
        assert!(matches!(&arns, Arns::Like(all) if all.iter().eq(["arn:aws:sqs:eu-west-1:123456789012:*"])));
        (0..10_000).for_each(|number| arns.add(format!("arn:aws:s3:::b{number}/key")));
        assert!(matches!(&arns, Arns::Any));
    }
}
