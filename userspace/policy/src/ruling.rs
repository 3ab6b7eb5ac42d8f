//! What the policies say of a call, with all that follows from it.

use std::{collections::BTreeMap, sync::Arc};

use chaperone_model::{Decision, Reason, Verdict};

/// What Cedar says: those that permit it, or why not, and which say so.
pub(crate) type Decided = Result<Vec<String>, (Reason, Vec<String>)>;

/// The policies' answer for a call.
#[derive(Debug)]
pub enum Ruling {
    /// It may go on.
    Permit(Permit),
    /// It may not.
    Deny(Denial),
    /// It may if a person says so: nothing forbids it but policies with `@approvers`.
    Ask(Question),
}

/// That a call may go on. Only this crate makes one, so whoever holds one has asked the policies.
///
/// ```compile_fail,E0624
/// let permit = chaperone_policy::Permit::new(chaperone_policy::Obligations::default(), String::new());
/// ```
#[derive(Debug)]
pub struct Permit {
    obligations: Obligations,
    policy_version: String,
    approved: String,
}

impl Permit {
    pub(crate) const fn new(obligations: Obligations, policy_version: String) -> Self {
        Self { obligations, policy_version, approved: String::new() }
    }

    /// With who approved it, for the record.
    #[must_use]
    pub fn approved(self, by: String) -> Self {
        Self { approved: by, ..self }
    }

    /// What comes with the permission.
    pub const fn obligations(&self) -> &Obligations {
        &self.obligations
    }

    /// For the record.
    pub fn decision(&self) -> Decision {
        Decision {
            verdict: Verdict::Allow,
            reason: Reason::Permitted,
            policies: ids(&self.obligations.policies),
            policy_version: self.policy_version.clone(),
            message: self.approved.clone(),
        }
    }
}

/// The policies that permitted a call, whose annotations bind those who carry it out.
#[derive(Clone, Debug, Default)]
pub struct Obligations {
    /// In the order of their ids, each once.
    pub policies: Vec<Determining>,
}

impl Obligations {
    /// The values of an annotation, such as `mask`, with the policies that carry it.
    pub fn annotated<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Determining, &'a str)> {
        self.policies.iter().filter_map(move |policy| Some((policy, policy.annotations.get(name)?.as_str())))
    }
}

/// A policy that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Determining {
    /// Its `@id` or, without one, `FILE#N`.
    pub id: String,
    /// Its annotations, by name.
    pub annotations: Arc<BTreeMap<String, String>>,
}

/// That a call may not go on.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Why the first of `refused` was.
    pub reason: Reason,
    /// The needs of the call that were refused, all of them. Empty only for a call that names no action or resource.
    pub refused: Vec<Refused>,
    /// The policies that decided.
    pub policies: Vec<Determining>,
    /// The SHA-256 of the policy set, in hexadecimal.
    pub policy_version: String,
    /// One sentence for people, in IAM's words.
    pub message: String,
}

impl Denial {
    /// For the record.
    pub fn decision(&self) -> Decision {
        Decision {
            verdict: Verdict::Deny,
            reason: self.reason,
            policies: ids(&self.policies),
            policy_version: self.policy_version.clone(),
            message: self.message.clone(),
        }
    }
}

/// That a call waits for a person.
#[derive(Clone, Debug)]
pub struct Question {
    /// The policies that ask, each with who may answer: the text of its `@approvers`.
    pub approvers: Vec<(Determining, String)>,
    /// What needs approval.
    pub refused: Vec<Refused>,
    /// As a denial, for those who can't wait.
    pub denial: Denial,
}

/// A need of a call that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The action.
    pub action: String,
    /// The resource's ARN, or the pattern of those that aren't known.
    pub resource: String,
    /// Why.
    pub reason: Reason,
    /// The policies that said so; empty where none permits it.
    pub policies: Vec<String>,
    /// What wasn't known, where that is why: had the call been complete, it might have been permitted.
    pub incomplete: Option<String>,
    /// What wasn't known may have been known when the call came, and isn't in the record: parameters that were cut,
    /// attributes of the context. Of use to those who decide recorded calls.
    pub unrecorded: bool,
}

impl Ruling {
    /// For the record: what is to be asked counts as forbidden until somebody has answered.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Permit(permit) => permit.decision(),
            Self::Deny(denial) => denial.decision(),
            Self::Ask(question) => question.denial.decision(),
        }
    }
}

fn ids(policies: &[Determining]) -> Vec<String> {
    policies.iter().map(|policy| policy.id.clone()).collect()
}
