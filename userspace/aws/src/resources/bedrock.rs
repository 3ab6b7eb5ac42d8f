//! Bedrock's models: one member names a foundation model, an inference profile, a custom, imported or provisioned model,
//! a prompt or an endpoint, by its id, its name or its ARN.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html>

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    Place, checked,
    names::{self, ambiguous},
};
use crate::{actions::Requirements, catalog::Operation, decode_error::DecodeError};

/// What AWS puts before a foundation model's id in the ids of its own inference profiles.
/// <https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html>
const GEOGRAPHIES: [&str; 10] = ["apac", "au", "ca", "eu", "global", "jp", "me", "sa", "us", "us-gov"];

/// The model that is called, and the foundation models behind it, for policies that forbid those.
pub(super) fn model(
    needs: &mut Requirements,
    operation: &Operation,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    if operation.name == "StartAsyncInvoke" {
        needs.made_resource(place.arn("bedrock", "async-invoke/*"))?;
    }
    let guardrail = members.get("guardrailIdentifier");
    let guardrail = guardrail.or_else(|| members.get("guardrailConfig")?.get("guardrailIdentifier"));
    if let Some(guardrail) = guardrail.and_then(Value::as_str) {
        needs.only_mentioned(|needs| {
            if guardrail.starts_with("arn:") {
                names::arn(needs, &checked(guardrail)?)
            } else {
                needs.resource(checked(&place.arn_of("bedrock", "guardrail/", guardrail))?)
            }
        })?;
    }
    let model = members.get("modelId").and_then(Value::as_str).unwrap_or_default();
    checked(model)?;
    // By way of a profile a model may be called in any region.
    let behind = |needs: &mut Requirements, model: &str| {
        let any = format!("arn:{}:bedrock:*::foundation-model/{model}", place.partition);
        needs.unknown(any, Cow::Borrowed("a model behind it"), true)
    };
    if model.starts_with("arn:") {
        names::arn(needs, model)?;
        let name = model.splitn(6, ':').nth(5).unwrap_or_default();
        return match name.split_once('/') {
            Some(("inference-profile", id)) => behind(needs, of_profile(id).unwrap_or("*")),
            Some(("foundation-model", _)) => Ok(()),
            _ => behind(needs, "*"),
        };
    }
    let region = place.region.as_deref().unwrap_or_default();
    let foundation = |id: &str| format!("arn:{}:bedrock:{region}::foundation-model/{id}", place.partition);
    let profile = |id: &str| place.arn_of("bedrock", "inference-profile/", id);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_".contains(&byte);
    if model.is_empty() || ambiguous(model).is_some() || !model.bytes().all(is_plain) {
        let any = format!("arn:{}:bedrock:*:*:*", place.partition);
        return needs.unknown(any, Cow::Borrowed("no id of a model"), false);
    }
    if let Some(of) = of_profile(model) {
        needs.resource(profile(model))?;
        return behind(needs, of);
    }
    match model.matches('.').count() {
        // A provisioned model by its name, where ARNs have its id; or by that.
        0 => {
            needs.unknown(
                place.arn("bedrock", "provisioned-model/*"),
                Cow::Borrowed("a name that AWS resolves"),
                false,
            )?;
            behind(needs, "*")
        }
        1 => needs.resource(foundation(model)),
        // A version with a point in it, or a geography that isn't known yet.
        _ => {
            for arn in [foundation(model), profile(model)] {
                needs.unknown(arn, Cow::Borrowed("a foundation model or an inference profile"), false)?;
            }
            behind(needs, model.split_once('.').map_or(model, |(_, of)| of))
        }
    }
}

/// The foundation model of an inference profile that AWS defines: `eu.anthropic.claude-…`.
fn of_profile(id: &str) -> Option<&str> {
    let (geography, model) = id.split_once('.')?;
    (GEOGRAPHIES.contains(&geography) && model.contains('.')).then_some(model)
}
