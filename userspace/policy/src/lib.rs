//! Cedar policies: reading and checking them, and deciding calls by the slice of them that can apply.
//!
//! It never does I/O on the call path and knows nothing of HTTP. It fails closed: what no policy permits is denied, a
//! `forbid` whose evaluation fails denies, and a policy set that doesn't validate is never put in force.

#![forbid(unsafe_code)]

pub mod approvals;
pub mod budgets;
mod decide;
mod egress;
mod incomplete;
mod load;
mod masks;
mod pattern;
mod ruling;
mod slice;

pub use decide::{Approval, CallFacts, Engine, Principal};
pub use egress::{Egress, EgressKind};
pub use load::{ActionCatalog, PolicyError, PolicyProblem, PolicyVersion, schema_text};
pub use masks::{MaskTarget, Masks};
pub use ruling::{Denial, Determining, Obligations, Permit, Question, Refused, Ruling};

/// The shipped default policy.
pub const DEFAULT_POLICY: &str = include_str!("default.cedar");
