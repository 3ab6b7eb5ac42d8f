//! What can go wrong with the warehouse, and what to do about it.

use std::{io, path::PathBuf, time::Duration};

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
    /// A server lacks records that were confirmed to us.
    #[error(
        "ClickHouse at {url} has records up to {found} of the journal {journal}, though all up to {confirmed} were \
         confirmed: this replica is behind, which passes, or the one that had them is lost. If it is, remove `{file}`: \
         what the journal still has is shipped from {found} on"
    )]
    Behind {
        /// Where.
        url: String,
        /// The journal.
        journal: Uuid,
        /// The last record there.
        found: Seq,
        /// The last one that was confirmed.
        confirmed: Seq,
        /// Where that is kept.
        file: PathBuf,
    },
    /// ClickHouse refused or could not be reached.
    #[error("ClickHouse at {url}: could not {doing}: {source}{}", remedy(source))]
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
    #[error("warehouse, `{setting}`: {why}")]
    Config {
        /// Its name, below `warehouse`.
        setting: String,
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
    /// Another server, which doesn't share its tables with the one that records went to.
    #[error(
        "ClickHouse at {url} isn't the store that records were shipped to: its tables are others. All addresses must be \
         of one server, or of one set of replicas. Take this one out of warehouse.urls; or, if the other store is gone \
         for good, remove `{file}`: what the journal still has is then shipped to the one that is met first"
    )]
    ForeignStore {
        /// Where.
        url: String,
        /// Where the store that records went to is noted.
        file: PathBuf,
    },
    /// Something in the database has a name of ours and isn't ours.
    #[error(
        "the database `{database}` has a `{table}` that isn't Chaperone's: {why}. Nothing was changed: name another \
         database (warehouse.database), or rename what is there"
    )]
    ForeignTable {
        /// The database.
        database: String,
        /// The table or view.
        table: String,
        /// How that can be told.
        why: String,
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
    /// The server is too old.
    #[error("ClickHouse at {url} is version {found}; the oldest that can be used is {}.{}: upgrade it", .oldest.0, .oldest.1)]
    OldServer {
        /// Where.
        url: String,
        /// Its version.
        found: String,
        /// The oldest that can be used: major and minor number.
        oldest: (u32, u32),
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
    /// A server that takes connections and doesn't answer.
    #[error("ClickHouse at {url}: could not {doing}: no answer within {} s", .limit.as_secs_f32())]
    Silent {
        /// What was being done.
        doing: String,
        /// Where.
        url: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// BUG: a background task ended by itself.
    #[error("BUG: the shipper's reading task ended by itself: {0}")]
    Task(String),
}

impl WarehouseError {
    /// The setting that is wrong, such as `tables.calls.ttl_days`, if one is.
    pub fn setting(&self) -> Option<&str> {
        match self {
            Self::Config { setting, .. } => Some(setting),
            _ => None,
        }
    }
}

/// What to do about what ClickHouse said, where its code tells.
fn remedy(error: &clickhouse::error::Error) -> &'static str {
    match code(error) {
        Some(164 | 242) => "; it is read-only: rows are taken by another address, or once it no longer is",
        Some(478) => "; `SELECT policy_name FROM system.storage_policies` names those that the server has",
        Some(497) => {
            "; the user lacks this right: have somebody who may make tables run `chaperone warehouse migrate` once, and \
             grant the daemon's user what docs/warehouse-roles.md says"
        }
        Some(516) => "; check warehouse.user and warehouse.password_file",
        _ => "",
    }
}

/// The number of ClickHouse's exception.
pub(crate) fn code(error: &clickhouse::error::Error) -> Option<u32> {
    let text = error.to_string();
    let (_, rest) = text.split_once("Code: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clickhouse_says_is_followed_by_what_to_do() {
        let of = |text: &str| {
            let source = clickhouse::error::Error::BadResponse(text.into());
            WarehouseError::ClickHouse { doing: "insert".into(), url: "http://x".into(), source }.to_string()
        };
        assert!(of("Code: 497. DB::Exception: u: Not enough privileges.").contains("warehouse migrate"));
        assert!(of("Code: 164. DB::Exception: read only").contains("read-only"));
        assert!(of("Code: 516. DB::Exception: u: Authentication failed").contains("password_file"));
        assert!(of("Code: 4970. DB::Exception").ends_with("DB::Exception"));
        assert!(of("gone").ends_with("gone"));
    }
}
