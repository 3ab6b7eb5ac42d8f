//! The policies of a set whose scope can match a principal and an action.
//!
//! Cedar evaluates every policy of a set. Most name an action or a group in their scope that a given call hasn't got,
//! so the set is cut down once for each (principal, action) and the cut is kept.

use std::{collections::HashMap, sync::Arc};

use cedar_policy::{ActionConstraint, Entity, EntityUid, Policy, PolicySet, PrincipalConstraint};

/// Slices kept for a policy version; past this the cache starts over.
const MAX_SLICES: usize = 8192;

/// Slices by principal, then by action.
#[derive(Default)]
pub(crate) struct Slices {
    by_principal: HashMap<Arc<str>, HashMap<String, Arc<Slice>>>,
    count: usize,
}

impl Slices {
    pub(crate) fn of(&self, principal: &str, action: &str) -> Option<Arc<Slice>> {
        self.by_principal.get(principal)?.get(action).cloned()
    }

    pub(crate) fn keep(&mut self, principal: Arc<str>, action: &str, slice: Arc<Slice>) {
        if self.count >= MAX_SLICES {
            self.by_principal.clear();
            self.count = 0;
        }
        self.by_principal.entry(principal).or_default().insert(action.to_owned(), slice);
        self.count += 1;
    }
}

/// What is needed to decide an action of a principal.
pub(crate) struct Slice {
    pub(crate) policies: PolicySet,
    pub(crate) action: Entity,
    /// Whether a policy looks at the call's parameters, which are costly to hand over.
    pub(crate) wants_parameters: bool,
}

/// The policies that can match `principal` (in `groups`) doing `action` (in `action_groups`).
pub(crate) fn cut<'a>(
    policies: &'a [Policy],
    principal: &EntityUid,
    groups: &[EntityUid],
    action: &EntityUid,
    action_groups: &[EntityUid],
) -> impl Iterator<Item = &'a Policy> {
    let is_in = |entity: &EntityUid, own: &EntityUid, parents: &[EntityUid]| entity == own || parents.contains(entity);
    policies.iter().filter(move |policy| {
        let principal_fits = match policy.principal_constraint() {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => uid == *principal,
            PrincipalConstraint::In(uid) => is_in(&uid, principal, groups),
            PrincipalConstraint::Is(kind) => kind == *principal.type_name(),
            PrincipalConstraint::IsIn(kind, uid) => kind == *principal.type_name() && is_in(&uid, principal, groups),
        };
        principal_fits
            && match policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(uid) => uid == *action,
                ActionConstraint::In(uids) => uids.iter().any(|uid| is_in(uid, action, action_groups)),
            }
    })
}
