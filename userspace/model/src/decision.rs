//! What the policies said of a call.

use serde::{Deserialize, Serialize};

/// May the call go on?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is forwarded.
    Allow,
    /// It is answered with the protocol's own AccessDenied.
    Deny,
}

/// Why a call was denied, or that it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It can't be told which operation this is.
    Undecodable,
    /// A `forbid` policy matched.
    Forbidden,
    /// It is signed by somebody else's key, or carries somebody else's token.
    ForeignAuthority,
    /// The placeholder's signature does not fit the request.
    InvalidSignature,
    /// The request has a shape that the daemon can't sign again.
    NotSupported,
    /// No `permit` policy matched.
    NotPermitted,
    /// The region or account is not among those that the agent may call.
    OutOfReach,
    /// A `permit` policy matched and no `forbid`.
    Permitted,
    /// Evaluation failed for at least one policy, and then nothing is permitted.
    PolicyError,
    /// The agent or the session has used up a budget.
    OverBudget,
    /// A person must say yes first, and hasn't yet.
    Waiting,
    /// An operator has stopped the agent or the session.
    Stopped,
    /// One that a later version of Chaperone knows.
    #[serde(other)]
    Unknown,
}

/// The policies' answer for one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// May it go on?
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The policies that decided, by `@id` or, without one, `FILE#N`; empty when none matched.
    pub policies: Vec<String>,
    /// The SHA-256 of the policy set that decided, in hexadecimal.
    pub policy_version: String,
    /// One sentence for people; shown to the agent in its AccessDenied error.
    pub message: String,
}

impl Decision {
    /// A refusal that no policy was asked for.
    pub fn refused(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Deny,
            reason,
            policies: Vec::new(),
            policy_version: String::new(),
            message: message.into(),
        }
    }

    /// Whether the call may go on.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}
