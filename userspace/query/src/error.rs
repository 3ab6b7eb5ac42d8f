//! Why a record can't be asked.

use chaperone_journal::JournalError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The journal couldn't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store couldn't be asked.
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
    /// ClickHouse doesn't keep it.
    #[error("ClickHouse has bodies without the framing of aws-chunked: the journal of the call's host has it")]
    NoFraming,
    /// Something that this record doesn't have.
    #[error(
        "only ClickHouse can answer `{0}`, which knows all hosts and their past: configure [warehouse], or ask what the \
         journal has (`chaperone ask --list`)"
    )]
    NotHere(&'static str),
}
