//! Budgets: the lock, the clock and the file around what `policy` counts.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use chaperone_journal::{Journal, Position, Reader};
use chaperone_model::{Call, CallId, Event, OutcomeStatus, Reason, SessionId};
use chaperone_policy::budgets::{Budget, Budgets, Kept, Over, Used, Who, bytes_out};
use parking_lot::Mutex;

use crate::approvals::{durable, millis, now};

/// Why budgets can't be counted.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// What was counted can't be read or written down.
    #[error("{doing} what is used of budgets, {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record can't be read.
    #[error("counting what is used of budgets from the journal: {0}")]
    Journal(#[from] chaperone_journal::JournalError),
}

/// All budgets of this host.
#[derive(Debug)]
pub struct BudgetDesk {
    state: Mutex<Budgets<Position>>,
    path: PathBuf,
    journal: Journal,
    keeping: Mutex<()>,
}

impl BudgetDesk {
    /// With what an earlier daemon counted, and what the record says happened since. Reads `dir`, the journal's folder.
    pub fn open(path: &Path, rules: Vec<Budget>, journal: Journal, dir: &Path) -> Result<Arc<Self>, BudgetError> {
        let failed = |source| BudgetError::File { doing: "reading", path: path.to_owned(), source };
        let kept: Option<Kept<Position>> = match fs::read(path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| failed(io::Error::other(error)))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        // Without budgets nothing is counted, and what was isn't kept for others that may come.
        let kept = kept.filter(|_| !rules.is_empty());
        let known = kept.is_some();
        let mut state = Budgets::restore(rules, kept, *journal.subscribe().borrow());
        if known {
            let mut reader = match Reader::resume(dir, *state.recorded()) {
                // Retired meanwhile, with all that was counted there.
                Err(chaperone_journal::JournalError::Gone { .. }) => Reader::open(dir)?,
                reader => reader?,
            };
            while let Some(record) = reader.next_record()? {
                let event = record.event().map_err(|fault| failed(io::Error::other(fault)))?;
                match event {
                    Some(Event::CallIntent(intent)) => state.replay_intent(millis(intent.at), &intent),
                    Some(Event::CallOutcome(outcome)) => state.replay_outcome(millis(outcome.at), &outcome),
                    _ => {}
                }
            }
            state.replayed();
        }
        let desk = Self { state: Mutex::new(state), path: path.to_owned(), journal, keeping: Mutex::default() };
        desk.keep()?;
        Ok(Arc::new(desk))
    }

    /// Puts other budgets in force.
    pub fn replace(&self, rules: Vec<Budget>) {
        self.state.lock().replace(rules);
    }

    /// What is used of each.
    pub fn used(&self) -> Vec<Used> {
        self.state.lock().used(now())
    }

    /// Writes down what has changed. It blocks.
    pub fn keep(&self) -> Result<(), BudgetError> {
        let _alone = self.keeping.lock();
        if self.state.lock().is_empty() {
            return match fs::remove_file(&self.path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(BudgetError::File { doing: "removing", path: self.path.clone(), source })
                }
                _ => Ok(()),
            };
        }
        let kept = {
            let mut state = self.state.lock();
            // With the lock held: what is counted later is recorded behind this place.
            let committed = *self.journal.subscribe().borrow();
            state.keep(committed)
        };
        let Some(kept) = kept else { return Ok(()) };
        let written = serde_json::to_vec(&kept).map_err(io::Error::other);
        written.and_then(|bytes| durable(&self.path, &bytes)).map_err(|source| {
            self.state.lock().not_kept(kept);
            BudgetError::File { doing: "keeping", path: self.path.clone(), source }
        })
    }

    /// Counts a call, which is not made if the budgets that it is over say so.
    pub(crate) fn charge(self: &Arc<Self>, who: Who<'_>, id: CallId, call: &Call) -> Tally {
        let mut state = self.state.lock();
        if state.is_empty() {
            return Tally::default();
        }
        let actions: Vec<_> = call.actions.iter().map(|action| &*action.name).collect();
        let (counted, over) = state.charge(now(), who, id, &actions, &call.resources);
        drop(state);
        let names = over.iter().map(|one| one.budget.name.clone()).collect();
        Tally { desk: counted.then(|| (self.clone(), id)), over, names }
    }

    /// Counts a refused call.
    pub(crate) fn denied(&self, who: Who<'_>, id: CallId, actions: &[String], reason: Reason) {
        let mut state = self.state.lock();
        if !state.is_empty() {
            let actions: Vec<_> = actions.iter().map(String::as_str).collect();
            state.denied(now(), who, id, &actions, reason);
        }
    }

    /// Counts what a call has sent.
    pub(crate) fn sent(&self, who: Who<'_>, id: CallId, outcome: OutcomeStatus, bytes: Option<u64>) {
        let Some(bytes) = bytes_out(outcome, bytes) else { return };
        let mut state = self.state.lock();
        if !state.is_empty() {
            state.sent(now(), who, id, bytes);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().is_empty()
    }

    pub(crate) fn end_session(&self, session: SessionId) {
        self.state.lock().end_session(session);
    }
}

/// What a call was counted for. It is given back unless the call comes on record.
#[derive(Default)]
pub(crate) struct Tally {
    desk: Option<(Arc<BudgetDesk>, CallId)>,
    over: Vec<Over>,
    names: Vec<String>,
}

impl Tally {
    /// The names of the budgets that the call is over, for policies.
    pub(crate) fn over(&self) -> &[String] {
        &self.names
    }

    /// The budgets that the call is over.
    pub(crate) fn budgets(&self) -> &[Over] {
        &self.over
    }

    /// Whether anything is counted at all: then the record must be on disk first.
    pub(crate) const fn counts(&self) -> bool {
        self.desk.is_some()
    }

    /// That the call is permitted goes into the record now.
    pub(crate) fn recording(&self) {
        if let Some((desk, call)) = &self.desk {
            desk.state.lock().recording(*call);
        }
    }

    /// It is there.
    pub(crate) fn commit(mut self) {
        if let Some((desk, call)) = self.desk.take() {
            desk.state.lock().commit(call);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some((desk, call)) = &self.desk {
            desk.state.lock().release(*call);
        }
    }
}
