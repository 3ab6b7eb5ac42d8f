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
    unmask::UnmaskTarget,
};

/// The masks of a call's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// What is masked by default isn't.
    pub lifted: bool,
    /// The policies that matched, each with what it masks.
    pub policies: Vec<(String, Arc<Vec<MaskTarget>>)>,
    /// Those of them that say where what is masked may go, each with that.
    pub unmask: Vec<Unmask>,
}

/// A policy that matches a call for certain, and into which members of later calls it lets what is masked go.
pub type Unmask = (String, Arc<Vec<UnmaskTarget>>);

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
        let unmask = version.unmasks.as_ref().map(|unmasks| self.unmask(unmasks, principal, call, facts));
        Masks { lifted, policies, unmask: unmask.unwrap_or_default() }
    }

    /// Those of these policies that permit every need of the call.
    fn unmask(&self, unmasks: &PolicyVersion, principal: &Principal, call: &Call, facts: CallFacts<'_>) -> Vec<Unmask> {
        let mut all: Option<BTreeSet<String>> = None;
        self.for_each_need(unmasks, principal, call, facts, false, &mut |_, need, _, ruled| {
            // Another name of what is decided by its own.
            if need.alias {
                return;
            }
            let ids: BTreeSet<String> = ruled.unwrap_or_default().into_iter().collect();
            all = Some(match all.take() {
                Some(before) => before.intersection(&ids).cloned().collect(),
                None => ids,
            });
        });
        let targets = |id: String| Some((id.clone(), self.version().unmask_targets.get(&id)?.clone()));
        all.unwrap_or_default().into_iter().filter_map(targets).collect()
    }
}

impl PolicyVersion {
    /// Whether some policy masks anything, or lifts what is masked by default.
    pub fn has_masks(&self) -> bool {
        self.masks.is_some() || self.lifts.is_some()
    }

    /// Whether some policy lets masked values go back to AWS.
    pub fn has_unmasks(&self) -> bool {
        self.unmasks.is_some()
    }

    /// Where a policy of this version lets masked values go.
    pub fn unmask_targets(&self, id: &str) -> &[UnmaskTarget] {
        self.unmask_targets.get(id).map_or(&[], |targets| targets.as_slice())
    }
}
