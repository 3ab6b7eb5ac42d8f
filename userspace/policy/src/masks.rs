//! Policies with `@mask("…")`: they say what is masked in the answer of a call that others permit, and never permit
//! anything themselves.
//!
//!   @mask("sensitive") permit (principal in Group::"interns", action, resource);
//!   @mask("Items[].Token, github, jwt") permit (principal, action == Action::"s3:GetObject", resource);
//!   @mask("none") permit (principal == Agent::"deployer", action in Action::"ssm:*", resource);
//!
//! A mask holds where its policy could match: for any part of a call, and where something isn't known of it, or its
//! evaluation fails. `@mask("none")`, which lifts what is masked by default, must match every part for certain.

use std::{collections::BTreeSet, sync::Arc};

use cedar_policy::{Effect, Policy};
use chaperone_model::Call;

use crate::{
    decide::{Engine, Principal},
    facts::CallFacts,
    load::PolicyVersion,
};

/// Masks of one policy are no more than this many.
const MAX_TARGETS: usize = 64;

/// What is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaskTarget {
    /// What the credential detectors find.
    Credentials,
    /// What this detector finds; `custom:NAME` is one of the configuration's own.
    Detector(String),
    /// A member by its path.
    Path(String),
    /// All that AWS's models mark as sensitive.
    Sensitive,
}

/// The masks of a call's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// What is masked by default isn't.
    pub lifted: bool,
    /// The policies that matched, each with what it masks.
    pub policies: Vec<(String, Arc<Vec<MaskTarget>>)>,
}

impl Masks {
    /// Whether no policy has said anything.
    pub fn is_default(&self) -> bool {
        !self.lifted && self.policies.is_empty()
    }
}

/// What an annotation's text says: `None` for `none`.
pub fn parse(text: &str) -> Result<Option<Vec<MaskTarget>>, String> {
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    if names == ["none"] {
        return Ok(None);
    }
    if names.len() > MAX_TARGETS {
        return Err(format!("more than {MAX_TARGETS} masks"));
    }
    let one = |name: &&str| match *name {
        "" => Err("a mask without a name".to_owned()),
        "none" => Err("`none` stands by itself".to_owned()),
        "sensitive" => Ok(MaskTarget::Sensitive),
        "credentials" => Ok(MaskTarget::Credentials),
        name if name.starts_with("custom:") => Ok(MaskTarget::Detector(name.to_owned())),
        name if chaperone_masking::DETECTORS.iter().any(|it| it.name == name) => {
            Ok(MaskTarget::Detector(name.to_owned()))
        }
        path => {
            let mut builder = chaperone_masking::SelectorBuilder::default();
            let text = chaperone_masking::Kind::Text;
            builder.path(path, "", text, false).map_err(|error| error.to_string())?;
            Ok(MaskTarget::Path(path.to_owned()))
        }
    };
    names.iter().map(one).collect::<Result<Vec<_>, _>>().map(Some)
}

/// A mask as Cedar evaluates it. As a `forbid`, since those hold where something isn't known or fails.
pub(crate) fn as_forbid(policy: &Policy) -> Result<Policy, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    json["effect"] = "forbid".into();
    Policy::from_json(Some(policy.id().clone()), json).map_err(|error| error.to_string())
}

/// What is wrong with the effect of a policy with `@mask`.
pub(crate) fn check(policy: &Policy) -> Result<(), String> {
    if policy.effect() == Effect::Permit { Ok(()) } else { Err("it is a `forbid`".to_owned()) }
}

impl Engine {
    /// What the policies mask in the answer of a permitted call.
    pub fn masks(&self, principal: &Principal, call: &Call, facts: CallFacts<'_>) -> Masks {
        let version = self.version();
        let mut matched: BTreeSet<String> = BTreeSet::new();
        if let Some(masks) = &version.masks {
            self.for_each_need(masks, principal, call, facts, false, &mut |_, _, slice, ruled| match ruled {
                Ok(_) => {}
                // Of one that fails none is known not to hold.
                Err((chaperone_model::Reason::PolicyError, ..)) => {
                    matched.extend(slice.policies.policies().map(|policy| policy.id().to_string()));
                }
                Err((_, ids, _)) => matched.extend(ids),
            });
        }
        let lifted = version.lifts.as_ref().is_some_and(|lifts| {
            let (mut any, mut all) = (false, true);
            self.for_each_need(lifts, principal, call, facts, false, &mut |_, _, _, ruled| {
                any = true;
                all &= ruled.is_ok();
            });
            any && all
        });
        let targets = |id: &String| version.mask_targets.get(id).cloned();
        let policies = matched.into_iter().filter_map(|id| Some((id.clone(), targets(&id)?))).collect();
        Masks { lifted, policies }
    }
}

impl PolicyVersion {
    /// Whether some policy masks anything, or lifts what is masked by default.
    pub fn has_masks(&self) -> bool {
        self.masks.is_some() || self.lifts.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_annotation_says() {
        assert_eq!(parse("none"), Ok(None));
        let all = parse("sensitive, github ,Items[].Secret,custom:own, credentials").unwrap().unwrap();
        let expected = [
            MaskTarget::Sensitive,
            MaskTarget::Detector("github".into()),
            MaskTarget::Path("Items[].Secret".into()),
            MaskTarget::Detector("custom:own".into()),
            MaskTarget::Credentials,
        ];
        assert_eq!(all, expected);
        for bad in ["", "a,,b", "none, a", "a[", "a..b", "[x]", &"a,".repeat(100)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
