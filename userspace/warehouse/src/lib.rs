//! The warehouse: ClickHouse as the fleet's store. Its schema and migrations, the shipper that follows the journal
//! into it, and the questions that people ask of it.
//!
//! It never touches a call: it reads files that are written already, on a runtime of its own. When ClickHouse is away
//! nothing is lost and nobody waits; the shipper goes on where it stopped, and every record arrives exactly once.

#![forbid(unsafe_code)]

#[cfg(test)]
mod analyst_tests;
mod batch;
mod cluster;
mod config;
mod error;
#[cfg(test)]
mod failover_tests;
mod kept;
mod migrations;
mod notable;
mod progress;
mod queries;
mod query;
mod questions;
#[cfg(test)]
mod relay_tests;
mod retention;
pub mod roles;
#[cfg(test)]
mod roles_tests;
mod rows;
mod schema;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod server_tests;
mod shipper;
mod steps;
mod store;
mod transport;
#[cfg(test)]
mod transport_tests;
mod warehouse;

pub use config::{TableSettings, WarehouseConfig};
pub use error::WarehouseError;
pub use progress::shipped;
pub use queries::{ChainBreak, WarehouseBody};
pub use retention::TableState;
pub use shipper::{Shipper, ShipperOptions, ShipperStatus};
pub use warehouse::Warehouse;
