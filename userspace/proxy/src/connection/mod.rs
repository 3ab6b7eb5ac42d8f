//! An agent's connection: whose it is, what name it is for, and whether it is opened or passed on.

pub(crate) mod accept;
pub(crate) mod container_lookup;
pub mod hello;
pub(crate) mod http_connection;
pub(crate) mod memory;
pub(crate) mod quota;
pub(crate) mod reach;
pub(crate) mod subtree;
pub(crate) mod tunnel;
