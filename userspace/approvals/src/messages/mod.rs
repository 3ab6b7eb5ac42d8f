//! Messages about questions, to whoever is to be told: kept on disk until they are delivered or given up.
//!
//! What is to be told is what the questions' states are, held against what was told: so nothing is lost if the daemon dies
//! in between. A message may come twice, under the same id. Each receiver has a lane of its own, so that one that hangs
//! delays no other.

mod lane;
mod outbox;
pub mod signature;
mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use chaperone_model::ApprovalId;
use chaperone_policy::approvals::{Asking, State};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use self::{lane::Lane, outbox::Outbox};
pub use self::{
    lane::{Failure, LaneStatus, Receiver},
    outbox::Heading,
    webhook::Webhook,
};
use crate::{Backend, Question};

/// What is told.
pub const KINDS: [&str; 7] = ["asked", "approved", "denied", "expired", "superseded", "used", "withdrawn"];

/// What was told of each question.
const TOLD: &str = "told.json";

/// What time it is, in milliseconds since 1970.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// What it is called, and where it stands.
    #[serde(flatten)]
    pub heading: Heading,
    /// What it says: JSON.
    pub body: String,
}

/// All messages to all receivers.
pub struct Messages {
    folder: PathBuf,
    backend: Arc<dyn Backend>,
    lanes: Vec<Arc<Lane>>,
    now: Clock,
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Messages {
    /// With those that an earlier daemon left in that folder.
    pub fn open(folder: &Path, receivers: Vec<Box<dyn Receiver>>, backend: Arc<dyn Backend>) -> io::Result<Arc<Self>> {
        Self::open_at(folder, receivers, backend, Arc::new(|| millis(time::OffsetDateTime::now_utc())))
    }

    fn open_at(
        folder: &Path,
        receivers: Vec<Box<dyn Receiver>>,
        backend: Arc<dyn Backend>,
        now: Clock,
    ) -> io::Result<Arc<Self>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
        let lane = |receiver: Box<dyn Receiver>| {
            let outbox = Outbox::open(&folder.join(receiver.name()))?;
            Ok(Arc::new(Lane::new(receiver, outbox, backend.clone(), now.clone())))
        };
        let lanes = receivers.into_iter().map(lane).collect::<io::Result<_>>()?;
        Ok(Arc::new(Self { folder: folder.to_owned(), backend, lanes, now }))
    }

    /// Tells and delivers until it is dropped. Without receivers there is nothing to do.
    pub async fn run(self: Arc<Self>) {
        if self.lanes.is_empty() {
            return;
        }
        let mut lanes: JoinSet<()> = self.lanes.iter().map(|lane| lane.clone().run()).collect();
        let mut changes = self.backend.changes();
        let tell = async {
            let mut told = self.read_told();
            loop {
                changes.mark_unchanged();
                told = self.tell(told).await;
                if changes.changed().await.is_err() {
                    // The desk outlives whoever waits at it, but for the daemon's end.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = tell => {}
            Some(ended) = lanes.join_next() => tracing::error!(?ended, "BUG: a lane of approvals' messages ended"),
        }
    }

    /// How the receivers are.
    pub fn status(&self) -> Vec<LaneStatus> {
        self.lanes.iter().map(|lane| lane.status()).collect()
    }

    /// Messages that wait, and those that were given up, by receiver.
    pub fn list(&self) -> Vec<(String, Heading)> {
        let of = |lane: &Arc<Lane>| {
            let name = lane.receiver().name().to_owned();
            lane.headings().into_iter().map(move |heading| (name.clone(), heading)).collect::<Vec<_>>()
        };
        self.lanes.iter().flat_map(of).collect()
    }

    /// Sends what was given up once more: that message, or all if `id` is `all`. Gives how many that were.
    pub fn resend(&self, id: &str) -> io::Result<usize> {
        self.lanes.iter().map(|lane| lane.resend(id)).sum()
    }

    fn read_told(&self) -> Option<BTreeMap<ApprovalId, BTreeSet<String>>> {
        // What can't be read is as if nobody had been told: then it is told what is open.
        serde_json::from_slice(&fs::read(self.folder.join(TOLD)).ok()?).ok()
    }

    async fn tell(
        self: &Arc<Self>,
        told: Option<BTreeMap<ApprovalId, BTreeSet<String>>>,
    ) -> Option<BTreeMap<ApprovalId, BTreeSet<String>>> {
        let all = self.backend.questions();
        let is_first = told.is_none();
        let mut told = told.unwrap_or_default();
        let before = told.clone();
        told.retain(|id, _| all.iter().any(|asking| asking.id == *id));
        let mut messages = Vec::new();
        for asking in &all {
            let known = told.entry(asking.id).or_default();
            let news: Vec<_> = kinds(asking).into_iter().filter(|kind| known.insert((*kind).to_owned())).collect();
            // Whoever configures a receiver isn't told of the past.
            if is_first && !asking.state.is_open() {
                continue;
            }
            messages.extend(news.into_iter().map(|kind| message(kind, asking, &all, (self.now)())));
        }
        if told == before && !is_first {
            return Some(told);
        }
        let (own, path) = (self.clone(), self.folder.join(TOLD));
        let written = tokio::task::spawn_blocking(move || {
            for message in &messages {
                own.lanes.iter().try_for_each(|lane| lane.put(message))?;
            }
            durable(&path, &serde_json::to_vec(&told)?)?;
            io::Result::Ok(told)
        });
        match written.await.expect("BUG: writing messages panicked") {
            Ok(told) => Some(told),
            Err(error) => {
                tracing::error!(%error, "messages about questions can't be kept: they are tried again with the next change");
                (!is_first).then_some(before)
            }
        }
    }
}

/// What there is to tell of a question.
fn kinds(asking: &Asking) -> Vec<&'static str> {
    match &asking.state {
        State::Pending => vec!["asked"],
        State::Approved => vec!["asked", "approved"],
        State::Used { .. } => vec!["asked", "approved", "used"],
        ended => vec!["asked", ended.as_str()],
    }
}

fn message(kind: &str, asking: &Asking, all: &[Asking], now: u64) -> Message {
    let said = crate::types::at(now).format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let question = Question::of(asking, all);
    let body = serde_json::json!({ "type": format!("approval.{kind}"), "timestamp": said, "data": question });
    let heading = Heading {
        // The same each time that it is made: so it is written once.
        id: format!("msg_{}_{kind}", uuid(asking.id)),
        kind: kind.to_owned(),
        approval: asking.id,
        session: asking.asked.session,
        at: now,
        attempts: 0,
        next: now,
        dead: false,
        last: String::new(),
    };
    Message { heading, body: body.to_string() }
}

fn uuid(id: ApprovalId) -> String {
    id.to_string().replace('-', "")
}

pub(crate) fn millis(at: time::OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// Written whole, and on disk, before it has its name.
pub(crate) fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let new = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(at(&new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(&new))?;
    fs::rename(&new, path).map_err(at(path))?;
    fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}

#[cfg(test)]
mod tests;
