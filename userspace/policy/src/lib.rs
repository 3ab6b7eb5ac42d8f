//! Cedar policies: reading and checking them, and deciding calls by the slice of them that can apply.
//!
//! It never does I/O on the call path and knows nothing of HTTP. It fails closed: what no policy permits is denied, a
//! `forbid` whose evaluation fails denies, and a policy set that doesn't validate is never put in force.

#![forbid(unsafe_code)]

mod action_catalog;
mod annotations;
pub mod approvals;
pub mod budgets;
mod decide;
mod egress;
mod egress_actions;
mod facts;
mod incomplete;
mod inputs;
mod load;
mod mask_target;
mod masks;
mod pattern;
mod places;
mod problem;
mod ruling;
mod slice;
mod suggest;
mod unmask;
mod why;

pub use action_catalog::{ActionCatalog, NoSuchMember};
pub use decide::{Approval, Engine, Principal};
pub use egress::{Egress, EgressKind};
pub use facts::{CallFacts, body_bytes, is_retry};
pub use jiff::tz::TimeZone;
pub use load::{PolicyVersion, known_level, schema_text, suggest_action};
pub use mask_target::{MaskTarget, parse as parse_mask};
pub use masks::{Masks, Unmask};
pub use problem::{PolicyError, PolicyProblem};
pub use ruling::{Denial, Determining, Obligations, Permit, Question, Refused, Ruling};
pub use suggest::nearest;
pub use unmask::UnmaskTarget;
pub use why::{ConditionReport, NeedReport, PolicyReport, Truth};

/// The names of all time zones.
pub fn time_zones() -> impl Iterator<Item = String> {
    jiff::tz::db().available().map(|name| name.to_string())
}

/// The shipped default policy.
pub const DEFAULT_POLICY: &str = include_str!("default.cedar");
