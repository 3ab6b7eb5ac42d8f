//! What an annotation `@unmask_into("…")` says: into which members of which later calls a value may go that the policy's
//! mask has kept from the agent.
//!
//!   @mask("SecretString")
//!   @unmask_into("rds:CreateDBInstance.MasterUserPassword, rds:ModifyDBInstance.MasterUserPassword")
//!   permit (principal, action == Action::"secretsmanager:GetSecretValue", resource);
//!
//! It permits nothing: the later call is decided by itself. And unlike a mask it holds only where its policy matches every
//! part of the call for certain.

use std::fmt;

use cedar_policy::Policy;

use crate::{
    action_catalog::{ActionCatalog, NoSuchMember},
    suggest::nearest,
};

/// One policy names no more places than this.
const MAX_TARGETS: usize = 64;
/// The longest path.
const MAX_PATH: usize = 512;

/// A member of a call's input, as an annotation names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmaskTarget {
    /// The IAM action.
    pub action: String,
    /// The member, by the models' names: `Environment.Name`, with `[]` behind a list's.
    pub path: String,
    /// The operations whose input has such a member, as `(service, operation)` by botocore's names.
    pub operations: Vec<(String, String)>,
}

impl fmt::Display for UnmaskTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.action, self.path)
    }
}

impl UnmaskTarget {
    /// What an annotation's text says of one member; or what is wrong with it.
    pub fn read(name: &str, catalog: &dyn ActionCatalog) -> Result<Self, String> {
        one(name, catalog)
    }
}

/// What an annotation's text says.
pub(crate) fn parse(text: &str, catalog: &dyn ActionCatalog) -> Result<Vec<UnmaskTarget>, String> {
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    if names.len() > MAX_TARGETS {
        return Err(format!("more than {MAX_TARGETS} members"));
    }
    names.into_iter().map(|name| one(name, catalog)).collect()
}

fn one(name: &str, catalog: &dyn ActionCatalog) -> Result<UnmaskTarget, String> {
    let (action, path) = name
        .split_once('.')
        .filter(|(action, path)| action.contains(':') && !path.is_empty() && path.len() <= MAX_PATH)
        .ok_or_else(|| format!("`{name}` is no action with a member behind it"))?;
    if action.contains('*') || path.contains('*') {
        return Err(format!("`{name}` has a `*`: name one member of one action; a list's elements are `[]`"));
    }
    let operations = catalog.text_member(action, path).map_err(|why| match why {
        NoSuchMember::Action => {
            let known = catalog.actions();
            let meant = catalog.meant(action);
            let meant =
                meant.or_else(|| nearest(action, known.iter().map(|(name, _)| name.as_str())).map(str::to_owned));
            match meant {
                Some(meant) => format!("no action {action}; did you mean {meant}?"),
                None => format!("no action {action}"),
            }
        }
        NoSuchMember::Unknown { segment, known } => {
            let meant = nearest(&segment, known.iter().map(String::as_str));
            let hint = match meant {
                Some(meant) => format!("; did you mean `{meant}`?"),
                None if known.is_empty() => String::new(),
                None => format!("; there are {}", known.iter().take(12).cloned().collect::<Vec<_>>().join(", ")),
            };
            format!("{action} has no member `{segment}` in `{path}`{hint}")
        }
        NoSuchMember::Unfit(why) => format!("`{path}` of {action} {why}"),
    })?;
    Ok(UnmaskTarget { action: action.to_owned(), path: path.to_owned(), operations })
}

/// What is wrong with a policy that has the annotation.
pub(crate) fn check(policy: &Policy, catalog: &dyn ActionCatalog) -> Result<(), String> {
    let Some(text) = policy.annotation("unmask_into") else { return Ok(()) };
    match policy.annotation("mask") {
        None => Err("it has no `@mask`, so that it would permit the call itself".to_owned()),
        Some(mask) if mask.trim() == "none" => Err("`@mask(\"none\")` masks nothing that could go back".to_owned()),
        Some(_) => parse(text, catalog).map(|_| ()),
    }
}

/// A member that AWS hardly gives back to whoever asks: those of other names a policy's author should look at twice.
pub(crate) fn is_write_only(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    ["password", "secret", "token", "privatekey", "credential", "passphrase", "authcode", "apikey"]
        .iter()
        .any(|part| last.contains(part))
}
