//! The names of the actions that requests to a Kubernetes API are decided as (`endpoint/kubernetes.rs`).

use chaperone_model::AccessLevel;

/// What the service is called in calls and policies.
pub(crate) const KUBERNETES: &str = "k8s";

/// All actions, with their levels.
pub(crate) const ACTIONS: [(&str, AccessLevel); 13] = {
    use AccessLevel::{List, PermissionsManagement, Read, Write};
    [
        // Into a pod, or past the API server to what it reaches: `exec`, `attach`, `portforward`, `proxy`.
        ("k8s:connect", Write),
        ("k8s:create", Write),
        // A service account's token, which acts as that account.
        ("k8s:createToken", PermissionsManagement),
        ("k8s:delete", Write),
        ("k8s:deletecollection", Write),
        ("k8s:get", Read),
        // A change of who may do what.
        ("k8s:grant", PermissionsManagement),
        ("k8s:impersonate", PermissionsManagement),
        ("k8s:list", List),
        ("k8s:patch", Write),
        // Whatever answers with a secret's data; changing one does, too.
        ("k8s:readSecret", PermissionsManagement),
        ("k8s:update", Write),
        ("k8s:watch", Read),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_listed_in_order() {
        assert!(ACTIONS.windows(2).all(|two| two[0].0 < two[1].0));
    }
}
