//! What the policies need to be told of IAM's actions, which others know.

use chaperone_model::AccessLevel;

/// What the policy room must know of IAM's actions.
pub trait ActionCatalog {
    /// The access level of `prefix:Name`; `None` if there is no such action.
    fn level(&self, action: &str) -> Option<AccessLevel>;
    /// Whether there is a service with this IAM prefix.
    fn has_prefix(&self, prefix: &str) -> bool;
    /// All actions, in order.
    fn actions(&self) -> Vec<(String, AccessLevel)>;
    /// The action that is meant by a name that isn't one, where that is known for certain: an operation's.
    fn meant(&self, _name: &str) -> Option<String> {
        None
    }

    /// The operations that need an action, and whose input has a text of this path in the request's body, as `(service,
    /// operation)`.
    fn text_member(&self, _action: &str, _path: &str) -> Result<Vec<(String, String)>, NoSuchMember> {
        Err(NoSuchMember::Action)
    }
}

/// Why a value can't go into a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSuchMember {
    /// There is no such action.
    Action,
    /// The action's input has no such member; these are beside it.
    Unknown {
        /// The part of the path that nothing has.
        segment: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It is there, and isn't a text in the body of a request.
    Unfit(String),
}
