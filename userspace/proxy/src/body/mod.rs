//! Bodies, in both directions, while they stream.

pub(crate) mod answer;
pub(crate) mod chunked;
pub(crate) mod cluster;
pub(crate) mod digests;
pub mod error;
pub(crate) mod inflate;
pub(crate) mod masked;
pub(crate) mod presigned;
pub(crate) mod request;
pub(crate) mod secrets;
pub(crate) mod spool;
pub(crate) mod stall;
pub(crate) mod stored;
pub mod transform;
pub(crate) mod unmasked;
pub(crate) mod vended;
