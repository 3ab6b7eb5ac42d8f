//! One receiver's messages on disk: those that wait, and those that were given up.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use chaperone_model::{ApprovalId, SessionId};
use serde::{Deserialize, Serialize};

use super::{Message, at, durable};

/// The most messages that wait.
const MOST_WAITING: usize = 2_000;
/// The most that were given up and are kept.
const MOST_DEAD: usize = 1_000;

/// What a message is called, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// Its id, which all attempts share.
    pub id: String,
    /// What it tells: one of [`KINDS`](super::KINDS).
    pub kind: String,
    /// The question.
    pub approval: ApprovalId,
    /// The session whose call it is.
    pub session: SessionId,
    /// When it came up, in milliseconds.
    pub at: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, in milliseconds.
    pub next: u64,
    /// Whether it was given up.
    pub dead: bool,
    /// What the receiver answered last, or why it didn't.
    pub last: String,
}

/// The messages' headings; their bodies lie on disk until they are sent.
#[derive(Debug)]
pub(super) struct Outbox {
    folder: PathBuf,
    all: BTreeMap<String, Heading>,
    pub(super) most_waiting: usize,
}

impl Outbox {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(at(folder))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                // Half-written.
                let _ = fs::remove_file(&path);
                continue;
            }
            let text = fs::read(&path).map_err(at(&path))?;
            let message: Message = serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))?;
            // Whoever starts the daemon anew has perhaps mended what was wrong.
            all.insert(message.heading.id.clone(), Heading { next: 0, ..message.heading });
        }
        Ok(Self { folder: folder.to_owned(), all, most_waiting: MOST_WAITING })
    }

    /// Keeps a new message; `false` if there is no room among those that wait, and it is given up at once.
    pub(super) fn put(&mut self, message: &Message) -> io::Result<bool> {
        if self.all.contains_key(&message.heading.id) {
            return Ok(true);
        }
        let has_room = self.waiting().count() < self.most_waiting;
        let mut message = message.clone();
        if !has_room {
            message.heading.dead = true;
            message.heading.last = format!("{} messages wait already", self.most_waiting);
        }
        self.write(message)?;
        self.bury_no_more_than();
        Ok(has_room)
    }

    /// The message that is due next, and when.
    pub(super) fn next(&self) -> Option<&Heading> {
        self.waiting().min_by_key(|heading| (heading.next, heading.at))
    }

    pub(super) fn read(&self, id: &str) -> io::Result<Message> {
        let path = self.file(id);
        let text = fs::read(&path).map_err(at(&path))?;
        serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))
    }

    /// Where a message stands now.
    pub(super) fn write(&mut self, message: Message) -> io::Result<()> {
        durable(&self.file(&message.heading.id), &serde_json::to_vec(&message)?)?;
        self.all.insert(message.heading.id.clone(), message.heading);
        self.bury_no_more_than();
        Ok(())
    }

    /// It is delivered.
    pub(super) fn remove(&mut self, id: &str) -> io::Result<()> {
        let path = self.file(id);
        fs::remove_file(&path).map_err(at(&path))?;
        self.all.remove(id);
        Ok(())
    }

    /// Those given up wait again: that one, or all.
    pub(super) fn revive(&mut self, id: &str, now: u64) -> io::Result<usize> {
        let wanted = |heading: &&Heading| heading.dead && (id == "all" || heading.id == id);
        let ids: Vec<String> = self.all.values().filter(wanted).map(|heading| heading.id.clone()).collect();
        let room = self.most_waiting.saturating_sub(self.waiting().count());
        for id in ids.iter().take(room) {
            let mut message = self.read(id)?;
            (message.heading.dead, message.heading.attempts, message.heading.next) = (false, 0, now);
            self.write(message)?;
        }
        Ok(ids.len().min(room))
    }

    pub(super) fn headings(&self) -> Vec<Heading> {
        self.all.values().cloned().collect()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        let waiting = self.waiting().count();
        (waiting, self.all.len() - waiting)
    }

    fn waiting(&self) -> impl Iterator<Item = &Heading> {
        self.all.values().filter(|heading| !heading.dead)
    }

    fn bury_no_more_than(&mut self) {
        let (_, dead) = self.counts();
        for _ in MOST_DEAD..dead {
            let oldest = self.all.values().filter(|heading| heading.dead).min_by_key(|heading| heading.at);
            let Some(id) = oldest.map(|heading| heading.id.clone()) else { return };
            // What can't be removed is there again after the next start.
            let _ = self.remove(&id);
        }
    }

    /// Ids are ours: letters, digits and `_`.
    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}
