//! Roles and instance profiles that a call passes on.

use serde_json::Value;

use super::{Place, names::is_arn_in_disguise};

/// Roles anywhere in the input of a call that passes them on: by ARN wherever it stands, by name where the member's
/// name says that it is one (ECS, Glue, CodeBuild, EMR and others take either).
pub(crate) fn passed(name: &str, value: &Value, place: &Place<'_>, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let mut parts = text.split(':');
            let is_role = parts.next() == Some("arn")
                && parts.nth(1) == Some("iam")
                && parts.nth(2).is_some_and(|tail| tail.starts_with("role/") || tail.starts_with("instance-profile/"));
            let account = place.account.unwrap_or("*");
            let role = if is_role {
                text.clone()
            } else if is_arn_in_disguise(text) && (is_role_name(name) || is_profile(name) || text.contains(":role/"))
                || is_role_name(name) && !text.starts_with("arn:") && (text.contains(':') || text.starts_with("role/"))
                || is_profile(name)
                    && !text.starts_with("arn:")
                    && (text.contains(':') || text.starts_with("instance-profile/"))
            {
                // Whatever the service makes of it: a pattern, as `Requirements::resource` takes it.
                let kind = if is_profile(name) { "instance-profile" } else { "role" };
                format!("arn:{}:iam::*:{kind}/?", place.partition)
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
        Value::Array(all) => all.iter().for_each(|value| passed(name, value, place, found)),
        Value::Object(all) => {
            for (inner, value) in all {
                // `IamInstanceProfile: {Name: …}`
                passed(if inner == "Name" && is_profile(name) { name } else { inner }, value, place, found);
            }
        }
        _ => {}
    }
}

fn is_profile(member: &str) -> bool {
    ends_with(member, "instanceprofile") || ends_with(member, "instanceprofilename")
}

fn is_role_name(member: &str) -> bool {
    const ENDINGS: [&str; 8] =
        ["roleoverride", "role", "rolearn", "rolearns", "rolename", "rolenames", "iamrole", "iamroles"];
    ENDINGS.iter().any(|ending| ends_with(member, ending))
}

/// In any case.
fn ends_with(text: &str, ending: &str) -> bool {
    let at = text.len().checked_sub(ending.len());
    at.is_some_and(|at| text.as_bytes()[at..].eq_ignore_ascii_case(ending.as_bytes()))
}
