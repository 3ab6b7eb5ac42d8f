//! How far shipping is: in ClickHouse, which is the truth, and in two small files beside the journal.
//!
//! `shipper.plan` says which records the batch under way holds. It is written before the first of its rows is sent, so
//! that a shipper that starts again sends the same batch under the same token, and ClickHouse takes it once.
//! `shipper.position` repeats what ClickHouse confirmed: for who decides which segments may go.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use chaperone_journal::{Position, Seq};
use clickhouse::Row;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    Warehouse, WarehouseError,
    rows::{ShippedRow, Source},
};

const PLAN: &str = "shipper.plan";
const POSITION: &str = "shipper.position";

/// The batch that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) from: Seq,
    pub(crate) to: Seq,
}

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    /// Everything up to here is in ClickHouse.
    pub(crate) shipped: Position,
    /// The journal is needed from here on.
    pub(crate) floor: Position,
}

/// What is kept of what arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    #[serde(flatten)]
    pub(crate) confirmed: Confirmed,
    /// Which store it is that has it, as `Warehouse::store` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
}

/// From where on the journal in `dir` must be kept, because it is not shipped or a call there is still open; for
/// `Journal::retain`. `None` if nothing was ever shipped.
pub fn shipped(dir: &Path) -> Result<Option<Position>, WarehouseError> {
    Ok(read_position(dir)?.map(|noted| noted.confirmed.floor))
}

/// Where what arrived is noted.
pub(crate) fn position_file(dir: &Path) -> PathBuf {
    dir.join(POSITION)
}

pub(crate) fn read_position(dir: &Path) -> Result<Option<Noted>, WarehouseError> {
    read(&dir.join(POSITION))
}

pub(crate) fn read_plan(dir: &Path) -> Result<Option<Plan>, WarehouseError> {
    read(&dir.join(PLAN))
}

pub(crate) fn write_plan(dir: &Path, plan: Plan) -> Result<(), WarehouseError> {
    write(&dir.join(PLAN), &plan)
}

pub(crate) fn write_position(dir: &Path, noted: &Noted) -> Result<(), WarehouseError> {
    write(&dir.join(POSITION), noted)
}

#[derive(Row, Deserialize)]
struct Positions {
    position: String,
    floor: String,
}

impl Warehouse {
    /// How far the journal was shipped; the beginning if it is not known there.
    pub(crate) async fn confirmed(&self, journal: Uuid) -> Result<Confirmed, WarehouseError> {
        let query = "SELECT ?fields FROM shipped WHERE tenant = ? AND journal = ? ORDER BY seq DESC LIMIT 1";
        let query = self.client().query(query).bind(&self.config().tenant).bind(journal.to_string());
        let row = query.fetch_optional::<Positions>();
        match self.quickly("ask how far the journal was shipped", row).await? {
            None => Ok(Confirmed::default()),
            Some(row) => Ok(Confirmed { shipped: parse(&row.position)?, floor: parse(&row.floor)? }),
        }
    }
}

/// The row that confirms a batch.
pub(crate) fn shipped_row(source: &Source, confirmed: Confirmed) -> ShippedRow {
    let json = |position: &Position| serde_json::to_string(position).expect("BUG: a position is plain JSON");
    ShippedRow {
        tenant: source.tenant.clone(),
        node: source.node.clone(),
        journal: source.journal,
        seq: confirmed.shipped.seq.0,
        position: json(&confirmed.shipped),
        floor: json(&confirmed.floor),
    }
}

fn parse(json: &str) -> Result<Position, WarehouseError> {
    serde_json::from_str(json)
        .map_err(|error| WarehouseError::Row { table: "shipped", why: format!("not a position: {error}") })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, WarehouseError> {
    match fs::read(path) {
        // A file that makes no sense is one that isn't there: ClickHouse knows.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WarehouseError::File { doing: "read", path: path.to_owned(), source }),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), WarehouseError> {
    let new = PathBuf::from(format!("{}.part", path.display()));
    let bytes = serde_json::to_vec(value).expect("BUG: a plan or a position is plain JSON");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&new, path)
    });
    written.map_err(|source| WarehouseError::File { doing: "write", path: path.to_owned(), source })
}
