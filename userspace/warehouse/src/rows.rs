//! The rows of the tables, as in `migrations`.

mod bodies;
mod calls;
mod commands;
mod connections;
mod record;
mod sessions;

use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

pub(crate) use self::{
    bodies::{BodyChunksRow, BodyPartsRow, body_rows},
    calls::{CallsRow, DecisionsRow},
    commands::{CommandEndsRow, CommandStartsRow, CommandsLostRow},
    connections::{ConnectionClosesRow, ConnectionOpensRow},
    record::{CheckpointsRow, LedgerRow, ShippedRow},
    sessions::{SessionEndsRow, SessionIdentitiesRow, SessionStartsRow},
};
use crate::WarehouseError;

/// What every row begins with: whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) tenant: String,
    pub(crate) node: String,
    pub(crate) journal: Uuid,
}

fn micros(since_1970: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(since_1970) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A unit variant's name, as it stands in JSON.
pub(crate) fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("BUG: not the name of a variant: {other:?}"),
    }
}

/// The variant with this name.
pub(crate) fn parse<T: DeserializeOwned>(table: &'static str, name: &str) -> Result<T, WarehouseError> {
    serde_json::from_value(name.into()).map_err(|error| WarehouseError::Row { table, why: error.to_string() })
}
