//! What is wrong with a message of HTTP.

/// Something that two parties could read in two ways.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub &'static str);
