//! What can go wrong with the warehouse, and what to do about it.

use std::{io, path::PathBuf};

use chaperone_journal::{JournalError, Seq};
use uuid::Uuid;

/// Why the warehouse did not do what it was asked. No call ever waits for it.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// The warehouse knows records that the journal doesn't have.
    #[error(
        "ClickHouse has records up to {shipped} of the journal {journal}, which itself ends at {ours}: \
         records were taken from its end, or an old copy of it was put back"
    )]
    Ahead {
        /// The journal.
        journal: Uuid,
        /// The last record in the warehouse.
        shipped: Seq,
        /// The last record in the journal.
        ours: Seq,
    },
    /// ClickHouse refused or could not be reached.
    #[error("ClickHouse at {url}: could not {doing}: {source}")]
    ClickHouse {
        /// What was being done.
        doing: String,
        /// Where; without credentials.
        url: String,
        /// What it said.
        #[source]
        source: clickhouse::error::Error,
    },
    /// A setting makes no sense.
    #[error("the warehouse's setting `{setting}` is wrong: {why}")]
    Config {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file could not be read or written.
    #[error("could not {doing} `{path}`: {source}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The schema was made by a newer version of this program.
    #[error(
        "the database `{database}` is at schema version {found}, this program knows {known}: use the newer program"
    )]
    NewerSchema {
        /// The database.
        database: String,
        /// Its version.
        found: u32,
        /// The newest this program has.
        known: u32,
    },
    /// A row of the warehouse can't be understood.
    #[error("a row of `{table}` can't be understood: {why}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A question was not told all that it has to be.
    #[error("the question `{question}` has to be told `{lacks}`: give {lacks}=…")]
    Unasked {
        /// The question.
        question: &'static str,
        /// What it lacks.
        lacks: &'static str,
    },
    /// BUG: a background task ended by itself.
    #[error("BUG: the shipper's reading task ended by itself: {0}")]
    Task(String),
}
