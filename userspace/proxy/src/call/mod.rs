//! One request and its answer.

pub(crate) mod checking;
pub(crate) mod exchange;
pub(crate) mod outcome;
pub(crate) mod redact;
pub(crate) mod refusal;
pub(crate) mod refusing;
pub(crate) mod work;
