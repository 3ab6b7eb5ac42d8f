//! From claims to who an agent is.

use std::collections::BTreeMap;

use chaperone_model::Identity;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::{Issuer, TokenError};

/// The longest value of a claim that is kept.
const MAX_TEXT: usize = 512;
/// The most groups of a token.
const MAX_GROUPS: usize = 256;

/// A token's claims.
pub type Claims = Map<String, Value>;

/// A claim, by its name or, if that begins with `/`, by its path (RFC 6901).
pub(crate) fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    let Some(path) = path.strip_prefix('/') else { return claims.get(path) };
    let mut steps = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&steps.next()?)?;
    steps.try_fold(first, |at, step| match at {
        Value::Object(members) => members.get(&step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

fn wrong(claim: &str, why: impl Into<String>) -> TokenError {
    TokenError::Claim { claim: claim.to_owned(), why: why.into() }
}

/// A text that can be recorded, compared and shown.
fn text(path: &str, value: Option<&Value>) -> Result<String, TokenError> {
    let text = match value {
        None => return Err(wrong(path, "is missing, and the configuration needs it (identity.issuers)")),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(is)) => is.to_string(),
        Some(_) => return Err(wrong(path, "is not a text")),
    };
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err(wrong(path, format!("has {} bytes: 1 to {MAX_TEXT} are taken", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong(path, "holds control characters"));
    }
    Ok(text)
}

/// Holds required claims against the token.
pub(crate) fn check_required(issuer: &Issuer, claims: &Claims) -> Result<(), TokenError> {
    for (path, pattern) in &issuer.require {
        let found = text(path, find(claims, path))?;
        if !matches(pattern, &found) {
            return Err(wrong(path, format!("is `{found}`, and the configuration requires `{pattern}`")));
        }
    }
    Ok(())
}

/// Whether `text` is as the pattern says, in which `*` stands for any characters. In linear space and without recursion.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let Some((middle, last)) = rest.rsplit_once('*') else { return left.ends_with(rest) };
    for part in middle.split('*') {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

/// Who it is.
pub(crate) fn identity(
    issuer: &Issuer,
    claims: &Claims,
    token_id: String,
    expires: OffsetDateTime,
) -> Result<Identity, TokenError> {
    let one = |path: &str| text(path, find(claims, path));
    let display_name =
        issuer.display_name.as_deref().and_then(|path| find(claims, path).map(|it| text(path, Some(it))));
    Ok(Identity {
        provider: issuer.name.clone(),
        issuer: issuer.issuer.clone(),
        subject: one(&issuer.subject)?,
        groups: issuer.groups.as_deref().map(|path| groups(issuer, claims, path)).transpose()?.unwrap_or_default(),
        sponsor: issuer.sponsor.as_deref().map(one).transpose()?,
        display_name: display_name.transpose()?,
        token_id,
        claims: issuer
            .claims
            .iter()
            .map(|(name, path)| Ok((name.clone(), one(path)?)))
            .collect::<Result<BTreeMap<_, _>, TokenError>>()?,
        expires,
    })
}

/// The groups that are claimed there, with the issuer's prefix.
pub(crate) fn groups(issuer: &Issuer, claims: &Claims, path: &str) -> Result<Vec<String>, TokenError> {
    let prefix = issuer.prefix();
    let named = |value: &Value| match value {
        Value::String(_) => text(path, Some(value)).map(|group| format!("{prefix}{group}")),
        _ => Err(wrong(path, "holds something that is not a text")),
    };
    let mut groups = match find(claims, path) {
        None => return Err(wrong(path, "is missing, and the configuration needs it for groups (identity.issuers)")),
        Some(one @ Value::String(_)) => vec![named(one)?],
        Some(Value::Array(many)) if many.len() <= MAX_GROUPS => many.iter().map(named).collect::<Result<_, _>>()?,
        Some(Value::Array(many)) => {
            return Err(wrong(path, format!("has {} groups: at most {MAX_GROUPS} are taken", many.len())));
        }
        Some(_) => return Err(wrong(path, "is neither a text nor a list of texts")),
    };
    groups.sort();
    groups.dedup();
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_found_by_name_or_path() {
        let Value::Object(claims) = serde_json::json!({
            "https://a/b": "name", "kubernetes.io": {"pod": {"name": "p"}, "a/b": ["x", "y"], "": 1}, "": 2
        }) else {
            panic!()
        };
        for (path, found) in [
            ("https://a/b", Some("name")),
            ("/kubernetes.io/pod/name", Some("p")),
            ("/kubernetes.io/a~1b/1", Some("y")),
            ("/kubernetes.io/a~1b/2", None),
            ("/kubernetes.io/a~1b/-1", None),
            ("kubernetes.io/pod", None),
            ("/kubernetes.io/pod/name/x", None),
        ] {
            assert_eq!(find(&claims, path).and_then(Value::as_str), found, "{path}");
        }
    }

    #[test]
    fn patterns_name_whole_values() {
        for (pattern, text, is) in [
            ("octo", "octo", true),
            ("octo", "octo2", false),
            ("repo:octo/*", "repo:octo/x:ref", true),
            ("repo:octo/*", "repo:octo2/x", false),
            ("*:main", "a:main", true),
            ("*:main", "a:main2", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }
}
