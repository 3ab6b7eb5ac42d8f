//! Resources: the ARNs that a call touches, from its parameters.
//!
//! What the input says is named exactly, in one spelling however it was said. What it leaves open is not left out but
//! noted as unknown, by the ARN's pattern: a call is never complete by saying nothing.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{
    actions::Requirements,
    catalog::{Candidate, Operation},
    decode::value::MAX_STRING,
    decode_error::DecodeError,
};

mod bedrock;
mod by_hand;
mod dynamodb;
mod ids;
mod mentions;
pub(crate) mod names;
mod references;
mod roles;
mod s3;
mod template;

pub(crate) use by_hand::{api_gateway, run_instances};
pub(crate) use dynamodb::{part_iql, transaction};
pub(crate) use mentions::mentions;
pub(crate) use references::References;
pub(crate) use roles::passed as roles;
pub(crate) use s3::s3;

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
    match candidate.service.name {
        "dynamodb" => {
            dynamodb::tables(needs, members, place)?;
            if needs.names_resources() {
                return template::fill_what_is_left(needs, candidate, members, place);
            }
        }
        "sqs" => by_hand::sqs(needs, members, path, place)?,
        "ec2" if matches!(candidate.operation.name, "CreateTags" | "DeleteTags") => {
            by_hand::tagged(needs, members, place)?;
        }
        "events" if by_hand::rule(needs, candidate.operation, members, place)? => return Ok(()),
        "bedrock-runtime" if members.contains_key("modelId") => {
            return bedrock::model(needs, candidate.operation, members, place);
        }
        _ => return template::fill(needs, candidate, members, place),
    }
    // Nothing was named by hand: then the templates say what it could be.
    if needs.names_resources() { Ok(()) } else { template::fill(needs, candidate, members, place) }
}

/// Whether resources are named by lists or maps in the input, which may have been cut.
pub(crate) fn come_from_lists(operation: &Operation, service: &str, members: &Map<String, Value>) -> bool {
    let listed = |name: &str| matches!(members.get(name), Some(Value::Array(_) | Value::Object(_)));
    let in_template = |template: &&str| {
        let variables = template.split(['{']).skip(1).filter_map(|rest| rest.split('}').next());
        variables
            .filter_map(|v| v.strip_prefix(['=', '~']))
            .flat_map(|v| v.split('|'))
            .any(|v| listed(v.split('.').next().unwrap_or(v)))
    };
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

/// The texts that a member holds: one, or a list of them.
pub(crate) fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
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
