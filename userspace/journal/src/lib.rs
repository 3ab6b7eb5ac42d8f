//! The journal: the durable, chained record of every call on disk, its writing, reading and verifying.
//!
//! It never talks to the network and never decides anything. It fails closed: what can't be recorded is answered with
//! an error, upon which the caller refuses the call; a record that was acknowledged is on disk, and one that was
//! changed afterwards is found by [`verify()`].

#![forbid(unsafe_code)]

mod body;
mod body_reader;
mod changes;
mod codec;
mod config;
mod disk;
#[cfg(test)]
mod documentation;
mod error;
#[cfg(test)]
mod faults;
mod fit;
mod framing;
mod header;
mod item;
mod journal;
mod key;
mod kind;
mod open_work;
mod queue;
mod reader;
mod record;
mod recover;
mod retention;
mod rows;
#[cfg(test)]
mod samples;
mod scan;
mod share;
mod staged;
mod verify;
mod writer;

pub use body::BodyRecorder;
pub use body_reader::{BodyReader, FramedBodyReader};
pub use changes::Changes;
pub use config::{Durability, JournalConfig};
pub use error::JournalError;
pub use header::SegmentHeader;
pub use journal::{Journal, JournalState};
pub use key::{Checkpoint, PublicKey};
pub use kind::Kind;
pub use reader::{Reader, Record};
pub use record::{ChainHash, Fault, Position, RecordHead, Seq, Wrong};
pub use recover::{Recovered, TornTail};
pub use retention::{Retention, Retirement};
pub use rows::{CallRow, CommandRow, ConnectionRow, SessionRow};
pub use scan::{CallFilter, Calls, Commands, Connections, Exchange, sessions};
pub use verify::{Verification, VerifyOptions, verify};
