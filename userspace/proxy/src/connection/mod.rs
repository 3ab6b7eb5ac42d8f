//! An agent's connection: whose it is, what name it is for, and whether it is opened or passed on.

pub(crate) mod accept;
mod accepted;
pub(crate) mod container_lookup;
pub(crate) mod fair;
pub mod hello;
pub(crate) mod http_connection;
mod inspected;
pub(crate) mod memory;
mod metadata;
mod passed;
mod plain;
mod prefixed;
pub(crate) mod presented;
mod proxied;
pub(crate) mod quota;
pub(crate) mod reach;
pub(crate) mod subtree;
mod tls;
pub(crate) mod tunnel;
