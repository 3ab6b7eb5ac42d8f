//! What a call names of other services, in whatever member: a rule's targets, a queue that gets a topic's messages, the
//! key that a volume is encrypted with, the bucket that logs go to. IAM asks for no permission on these by this call; they
//! count for policies that forbid.

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
    let mut found = Found { service, place, region: None, arns: Vec::new() };
    found.object(members, true);
    let is_long = found.arns.len() > MAX_EACH;
    for arn in found.arns {
        if is_long {
            let end = arn.rfind(['/', ':']).map_or(0, |at| at + 1);
            needs.made_resource([&arn[..end], "*"].concat())?;
        } else if !needs.names(&arn) {
            names::arn(needs, &checked(&arn)?)?;
        }
    }
    Ok(())
}

struct Found<'a> {
    service: &'a str,
    place: &'a Place<'a>,
    /// The region that a structure names beside what it holds.
    region: Option<&'a str>,
    arns: Vec<String>,
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
        } else if DOCUMENTS.contains(&name) {
            for piece in text.split('"').filter(|piece| piece.starts_with("arn:")) {
                self.add(piece.to_owned());
            }
        } else if let Some(object) = text.strip_prefix("s3://") {
            self.add(["arn:", self.place.partition, ":s3:::", object].concat());
        } else if let Some((account, rest)) = text.split_once(".dkr.ecr.") {
            self.image(account, rest);
        } else if self.service != "kms" && is_key(name) {
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
        let is_id =
            text.starts_with("mrk-") || text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4;
        if is_id {
            self.add(self.place.arn_of("kms", "key/", text));
        } else if text.starts_with("alias/") {
            self.add(self.place.arn("kms", text));
        }
    }

    /// An image of a container: `REGION.amazonaws.com/REPOSITORY:TAG`, behind its account.
    fn image(&mut self, account: &str, rest: &str) {
        let account = account.trim_start_matches("https://");
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
        if arn.splitn(6, ':').nth(5).is_some_and(|name| !name.is_empty()) && !self.arns.contains(&arn) {
            self.arns.push(arn);
        }
    }
}

/// `i-0123abcd`: EC2's ids have eight or seventeen digits.
fn ec2_kind(text: &str) -> Option<&'static str> {
    let (_, number) = text.rsplit_once('-').filter(|(prefix, _)| prefix.len() <= 10)?;
    (number.len() <= 17).then(|| ids::kind(text)).flatten().filter(|_| !text.starts_with("ecs:"))
}

fn is_bucket(name: &str) -> bool {
    const NAMES: [&str; 7] =
        ["bucket", "bucketname", "s3bucket", "s3bucketname", "targetbucket", "userbucket", "outputs3bucketname"];
    name.len() <= 18 && NAMES.iter().any(|one| name.eq_ignore_ascii_case(one))
}

fn is_object(name: &str) -> bool {
    ["key", "s3key", "objectkey", "s3objectkey"].iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// `KmsKeyId`, `KMSMasterKeyId`, `SSEKMSKeyId`, `kmsKey`, …
fn is_key(name: &str) -> bool {
    let holds = |word: &[u8]| name.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    holds(b"kms") && holds(b"key")
}
