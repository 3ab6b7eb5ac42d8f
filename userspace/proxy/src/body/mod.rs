//! Bodies, in both directions, while they stream.

pub(crate) mod chunked;
pub(crate) mod presigned;
pub(crate) mod spool;
pub(crate) mod streams;
pub(crate) mod vended;
