//! The real AWS: connections to it, and the authority that calls are made by.

pub(crate) mod clock;
pub(crate) mod clusters;
pub(crate) mod credential_broker;
pub(crate) mod http_proxy;
pub(crate) mod pool;
pub(crate) mod race;
pub(crate) mod role_text;
