//! HTTP as agents and AWS speak it: what has one reading goes on, everything else is refused.

pub(crate) mod early;
pub(crate) mod frames;
pub mod heads;
pub(crate) mod interims;
pub(crate) mod keep_alive;
pub(crate) mod second;
pub mod strict;
pub(crate) mod through;
pub(crate) mod violation;
