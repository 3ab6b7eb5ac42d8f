//! The names of the actions that connections are decided as (`egress.rs`).

use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy};

/// What the actions' names begin with.
pub(crate) const PREFIX: &str = "egress";
/// And what follows the colon.
pub(crate) const KINDS: [&str; 4] = ["HTTP", MQTT, "TCP", "TLS"];
/// That one goes to AWS, and is refused where nothing permits it: to permit it says nothing of others.
const MQTT: &str = "MQTT";

/// Whether a `permit` names one of these actions, so that the policies list what may be passed on.
pub(crate) fn is_listed(policies: &[Policy]) -> bool {
    let names = |uid: &EntityUid| {
        uid.id().unescaped().split_once(':').is_some_and(|(prefix, kind)| prefix == PREFIX && kind != MQTT)
    };
    policies.iter().filter(|policy| policy.effect() == Effect::Permit).any(|policy| match policy.action_constraint() {
        ActionConstraint::Any => false,
        ActionConstraint::Eq(uid) => names(&uid),
        ActionConstraint::In(uids) => uids.iter().any(names),
    })
}
