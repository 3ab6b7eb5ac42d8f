//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf, sync::Arc};

use chaperone_model::CallId;

use crate::record::{Seq, Wrong};

/// Why the journal did not do what it was asked. Clones are cheap: one failed commit answers many calls.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// Too much is on its way to disk already.
    #[error("the journal's queue is full ({queued} bytes): the disk is slower than what is recorded")]
    Busy {
        /// Bytes in the queue.
        queued: usize,
    },
    /// The journal was closed.
    #[error("the journal is closed: the daemon is stopping")]
    Closed,
    /// A setting makes no sense.
    #[error("the journal's setting `{setting}` is wrong: {why}")]
    Config {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The record is not what was written. Nothing was changed.
    #[error(
        "the journal is damaged: {0}; keep the folder for examination (`chaperone verify`), and start with an empty one"
    )]
    Damaged(Box<Wrong>),
    /// A body that was recorded in a way that this version doesn't know.
    #[error("the body was recorded with codec {codec}, which this version doesn't know: read it with a later one")]
    Codec {
        /// Its number.
        codec: u8,
    },
    /// An event could not be written as JSON.
    #[error("BUG: an event can't be written as JSON: {0}")]
    Encode(String),
    /// No room on disk.
    #[error("the journal's disk is full ({dir}): free some space, or add some; recording goes on by itself then")]
    Full {
        /// The journal's folder.
        dir: Arc<PathBuf>,
    },
    /// The operating system refused.
    #[error("could not {doing} `{path}`: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: Arc<PathBuf>,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The signing key or the public key beside it can't be used.
    #[error("the journal's key `{path}` can't be used: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another daemon writes this journal.
    #[error(
        "the journal `{dir}` is in use by another daemon (its lock is held): stop that one, or configure another folder"
    )]
    Locked {
        /// The journal's folder.
        dir: PathBuf,
    },
    /// A folder without a journal.
    #[error("`{dir}` holds no journal (no `journal.id`): is the path right, and has the daemon run?")]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A segment that only a later version can read.
    #[error(
        "the journal's segment `{}` was written by Chaperone {written_by} and needs {needs}, which this version ({}) doesn't \
         know: run that version or a later one; or keep the folder as it is, and give this version another one (`dir` under \
         `[journal]`)",
        file.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The segment's file.
        file: PathBuf,
        /// The version that wrote it.
        written_by: String,
        /// What a reader must know.
        needs: String,
    },
    /// An outcome or a body of a call whose intent is not recorded, or that is over.
    #[error("the call {call} is not open in the journal")]
    NotOpen {
        /// The call.
        call: CallId,
    },
    /// Little room is left on disk, and whoever asks took more of it than others.
    #[error(
        "little room is left on the journal's disk ({dir}), and it is kept for agents that recorded less lately than this \
         one: free some space, or add some"
    )]
    Share {
        /// The journal's folder.
        dir: Arc<PathBuf>,
    },
    /// The disk did not answer in time.
    #[error("the journal's disk did not answer within {seconds} s: look for a hanging device or a full queue")]
    Stalled {
        /// How long was waited.
        seconds: u64,
    },
    /// A position that is not in the journal (any more).
    #[error("the record {seq} is not in the journal: it was retired, or the journal is another one")]
    Gone {
        /// The record.
        seq: Seq,
    },
    /// An event that doesn't fit.
    #[error("an event of {bytes} bytes is more than the journal's {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl JournalError {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: Arc::new(path.into()), source: Arc::new(source.into()) }
    }

    /// Whether the same may work later, with nothing changed but the disk: what the agent's SDK may try again.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::Closed
                | Self::Full { .. }
                | Self::Io { .. }
                | Self::Share { .. }
                | Self::Stalled { .. }
        )
    }
}

/// For errors of `nix` and `std` alike.
pub(crate) trait Context<T> {
    fn context(self, doing: &'static str, path: &std::path::Path) -> Result<T, JournalError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, doing: &'static str, path: &std::path::Path) -> Result<T, JournalError> {
        self.map_err(|error| JournalError::io(doing, path, error))
    }
}
