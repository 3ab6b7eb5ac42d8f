//! CBOR, for the services that speak Smithy's RPC v2.

use ciborium::Value;

use super::{AnswerError, CredentialRewriter, Part, Parts};

const UNREADABLE: AnswerError = AnswerError::Unreadable("CBOR");
/// Deeper than any answer, and little of the stack.
const MAX_DEPTH: usize = 64;

pub(super) fn rewrite(body: &[u8], issuer: &CredentialRewriter<'_>) -> Result<Vec<u8>, AnswerError> {
    let mut rest = body;
    let mut value: Value =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH).map_err(|_| UNREADABLE)?;
    if !rest.is_empty() {
        return Err(UNREADABLE);
    }
    walk(&mut value, issuer)?;
    let mut out = Vec::with_capacity(body.len() + 256);
    ciborium::into_writer(&value, &mut out).map_err(|_| UNREADABLE)?;
    Ok(out)
}

fn walk(value: &mut Value, issuer: &CredentialRewriter<'_>) -> Result<(), AnswerError> {
    match value {
        Value::Array(elements) => elements.iter_mut().try_for_each(|element| walk(element, issuer)),
        Value::Tag(_, inner) => walk(inner, issuer),
        Value::Map(members) => {
            let mut parts = Parts::default();
            for (name, value) in members.iter() {
                let Some(part) = name.as_text().and_then(Part::of) else { continue };
                match value {
                    Value::Text(text) if !parts.text(part, text) => return Err(AnswerError::Partial),
                    Value::Text(_) | Value::Null => {}
                    Value::Tag(1, time) if part == Part::Expiration => {
                        let seconds = time.as_float().or_else(|| {
                            // Whole seconds: far from what a double can't hold.
                            i32::try_from(time.as_integer()?).ok().map(f64::from)
                        });
                        parts.expires(seconds.unwrap_or_default());
                    }
                    _ if part == Part::Expiration => {}
                    _ => return Err(AnswerError::Partial),
                }
            }
            if let Some(real) = parts.real()? {
                let given = issuer.give(real, None);
                for (name, value) in members.iter_mut() {
                    if let Some(text) = name.as_text().and_then(Part::of).and_then(|part| given.part(part)) {
                        *value = Value::Text(text.to_owned());
                    }
                }
            }
            members.iter_mut().try_for_each(|(_, value)| walk(value, issuer))
        }
        _ => Ok(()),
    }
}
