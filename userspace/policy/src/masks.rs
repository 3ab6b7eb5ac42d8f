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

use chaperone_model::Call;

use crate::{
    decide::{Engine, Principal},
    facts::CallFacts,
    load::PolicyVersion,
    mask_target::MaskTarget,
};

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
