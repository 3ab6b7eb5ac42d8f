//! JSON: Cognito, IAM Identity Center, and STS when it is asked for it.

use serde_json::Value;

use super::{AnswerError, CredentialRewriter, Part, Parts};

pub(super) fn rewrite(body: &[u8], issuer: &CredentialRewriter<'_>) -> Result<Vec<u8>, AnswerError> {
    // serde_json goes 128 deep and keeps the last of members with one name.
    let mut value: Value = serde_json::from_slice(body).map_err(|_| AnswerError::Unreadable("JSON"))?;
    let arn = arn(&value).map(str::to_owned);
    walk(&mut value, issuer, arn.as_deref())?;
    serde_json::to_vec(&value).map_err(|_| AnswerError::Unreadable("JSON"))
}

fn walk(value: &mut Value, issuer: &CredentialRewriter<'_>, arn: Option<&str>) -> Result<(), AnswerError> {
    match value {
        Value::Array(elements) => elements.iter_mut().try_for_each(|element| walk(element, issuer, arn)),
        Value::Object(members) => {
            let mut parts = Parts::default();
            for (name, value) in members.iter() {
                let Some(part) = Part::of(name) else { continue };
                match value {
                    Value::String(text) if !parts.text(part, text) => return Err(AnswerError::Partial),
                    Value::String(_) | Value::Null => {}
                    Value::Number(number) if part == Part::Expiration => {
                        parts.expires(number.as_f64().unwrap_or_default());
                    }
                    _ if part == Part::Expiration => {}
                    _ => return Err(AnswerError::Partial),
                }
            }
            if let Some(real) = parts.real()? {
                let given = issuer.give(real, arn);
                for (name, value) in members.iter_mut() {
                    if let Some(text) = Part::of(name).and_then(|part| given.part(part)) {
                        *value = Value::String(text.to_owned());
                    }
                }
            }
            members.values_mut().try_for_each(|value| walk(value, issuer, arn))
        }
        _ => Ok(()),
    }
}

/// The first `Arn` in it.
fn arn(value: &Value) -> Option<&str> {
    match value {
        Value::Array(elements) => elements.iter().find_map(arn),
        Value::Object(members) => {
            let here =
                members.iter().find(|(name, _)| name.eq_ignore_ascii_case("arn")).and_then(|(_, it)| it.as_str());
            here.or_else(|| members.values().find_map(arn))
        }
        _ => None,
    }
}
