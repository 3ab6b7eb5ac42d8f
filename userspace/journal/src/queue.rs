//! The queue between calls and the writer's thread: what is admitted, who waits, and whether the disk is well.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use chaperone_model::{CallId, SessionId};
use foldhash::HashMap;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::{
    JournalConfig, JournalError,
    item::{Answer, Item, Level, Waiter},
    open_work::Mark,
    record::Position,
    share::Shares,
    staged::Staged,
};

/// How urgently a record must be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A frame of a body: refused when the disk is full or the call isn't open.
    Body,
    /// Something begins: refused when the disk is full or ill.
    Begins,
    /// Something that began is over: taken as long as memory allows, written when the disk can.
    Ends,
}

impl Class {
    fn of(item: &Item) -> Self {
        match &item.mark {
            _ if item.kind.is_of_body() => Self::Body,
            Some(Mark::CallClosed(_) | Mark::ConnectionClosed(_) | Mark::SessionClosed(_)) => Self::Ends,
            _ => Self::Begins,
        }
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) items: VecDeque<Item>,
    /// Sum of the items' lengths on disk.
    pub(crate) bytes: usize,
    /// Items somebody waits for.
    pub(crate) waiting: usize,
    /// Who waits until all that was in the queue is on disk, and how many of those items are still there.
    behind: Vec<(Waiter, usize)>,
    /// When the first item came.
    pub(crate) since: Option<Instant>,
    /// Room in preallocated segments, as of the last commit, items in the queue not subtracted.
    pub(crate) room: u64,
    /// There is no next segment because the disk has no room for one: what is left of this one is all there is.
    pub(crate) cramped: bool,
    /// Why the writer can't write; cleared by the write that works again.
    pub(crate) trouble: Option<JournalError>,
    /// Somebody was refused because of `trouble` or for want of room: the writer may try again at once.
    pub(crate) nudged: bool,
    pub(crate) closing: bool,
    /// Calls that have an intent here or on disk, and no outcome.
    open: HashMap<CallId, SessionId>,
    /// What each session recorded lately.
    shares: Shares,
    /// Room on disk for more segments, and how much of all is kept for those who recorded little, as of the last look.
    pub(crate) free: u64,
    pub(crate) kept: u64,
    sleepers: HashMap<u64, Waker>,
    /// Where records go that need not wait for the writer.
    staged: Option<Staged>,
}

/// What the journal's handles and the writer share.
pub(crate) struct Shared {
    pub(crate) config: JournalConfig,
    pub(crate) dir: Arc<PathBuf>,
    pub(crate) queue: Mutex<Queue>,
    /// The writer sleeps here.
    pub(crate) work: Condvar,
    pub(crate) committed: watch::Sender<Position>,
    /// The number of the last staged record that the segments have too.
    pub(crate) written: AtomicU64,
    /// How often the disk was told to make things durable, and how long that took in all, in microseconds.
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_micros: AtomicU64,
    tickets: AtomicU64,
}

/// The writer is woken at once for this much, even if nobody waits.
pub(crate) const BATCH: usize = 512 << 10;

impl Shared {
    pub(crate) fn new(config: JournalConfig, position: Position) -> Self {
        Self {
            dir: Arc::new(config.dir.clone()),
            config,
            queue: Mutex::default(),
            work: Condvar::new(),
            committed: watch::Sender::new(position),
            written: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_micros: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
        }
    }

    /// A number to sleep under.
    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a record at the queue's end, or says why it can't be taken. What is taken is written in this order.
    pub(crate) fn admit(&self, item: Item) -> Result<(), JournalError> {
        self.admit_item(item, false).map(drop)
    }

    /// The same for what must survive the daemon before anything follows from it. When there was no room to stage an
    /// intent, whoever appends it waits for the writer.
    pub(crate) fn admit_staged(&self, item: Item) -> Result<Option<Answer>, JournalError> {
        self.admit_item(item, true)
    }

    fn admit_item(&self, mut item: Item, stage: bool) -> Result<Option<Answer>, JournalError> {
        let class = Class::of(&item);
        let len = item.record_len();
        let mut queue = self.queue.lock();
        if queue.closing {
            return Err(JournalError::Closed);
        }
        self.check_state(&mut queue, class, len)?;
        let whose = match class {
            Class::Body => queue.open.get(&CallId::from_bytes(item.id)).copied(),
            Class::Begins | Class::Ends => item.session,
        };
        let now = Instant::now();
        if let Some(session) = whose
            && class != Class::Ends
            && !matches!(item.mark, Some(Mark::SessionOpened(_)))
            && !queue.shares.may(session, (queue.room + queue.free).saturating_sub(queue.bytes as u64), queue.kept, now)
        {
            // The writer may look again at once: perhaps there is room by now.
            queue.nudged = true;
            self.work.notify_one();
            return Err(JournalError::Share { dir: Arc::clone(&self.dir) });
        }
        // Memory: whoever can wait has waited below the plain limit; the rest stops at a multiple of it.
        let most = self.config.queue_bytes.saturating_mul(if class == Class::Ends { 4 } else { 2 });
        if queue.bytes.saturating_add(len) > most {
            return Err(JournalError::Busy { queued: queue.bytes });
        }
        match &item.mark {
            Some(Mark::CallOpened(call, session)) => {
                queue.open.insert(*call, *session);
            }
            Some(Mark::SessionOpened(session)) => queue.shares.begin(session.id, &session.agent),
            Some(Mark::SessionClosed(session)) => queue.shares.end(*session),
            Some(Mark::CallClosed(call)) if queue.open.remove(call).is_none() => {
                return Err(JournalError::NotOpen { call: *call });
            }
            None if class == Class::Body => {
                let call = CallId::from_bytes(item.id);
                if !queue.open.contains_key(&call) {
                    return Err(JournalError::NotOpen { call });
                }
            }
            _ => {}
        }
        if let Some(session) = whose {
            queue.shares.add(session, len, now);
        }
        let mut answer = None;
        if stage {
            let (written, segment) = (self.written.load(Ordering::Acquire), self.committed.borrow().segment);
            match queue.staged.as_mut().and_then(|staged| staged.stage(&item, written, segment)) {
                Some(number) => item.staged = number,
                None if matches!(item.mark, Some(Mark::CallOpened(..))) => {
                    let (waiter, receiver) = Waiter::new(Level::Written);
                    item.waiter = Some(waiter);
                    answer = Some(receiver);
                }
                None => {}
            }
        }
        let was_below = queue.bytes < BATCH;
        let was_empty = queue.items.is_empty();
        let waits = item.waiter.is_some();
        queue.bytes += len;
        queue.waiting += usize::from(waits);
        queue.since.get_or_insert_with(Instant::now);
        queue.items.push_back(item);
        if waits || was_empty || (was_below && queue.bytes >= BATCH) {
            self.work.notify_one();
        }
        Ok(answer)
    }

    fn check_state(&self, queue: &mut Queue, class: Class, len: usize) -> Result<(), JournalError> {
        if class == Class::Ends {
            return Ok(());
        }
        let refused = if let Some(trouble) = &queue.trouble {
            Some(trouble.clone())
        } else if queue.cramped && queue.exceeds_room(len, &self.config) {
            Some(JournalError::Full { dir: Arc::clone(&self.dir) })
        } else {
            None
        };
        match refused {
            None => Ok(()),
            Some(error) => {
                queue.nudged = true;
                self.work.notify_one();
                Err(error)
            }
        }
    }

    /// Ready when the queue is below its limit; what is admitted in the same poll may pass it by one record.
    pub(crate) fn poll_room(&self, ticket: u64, class: Class, cx: &mut Context<'_>) -> Poll<Result<(), JournalError>> {
        let mut queue = self.queue.lock();
        if queue.closing {
            return Poll::Ready(Err(JournalError::Closed));
        }
        if let Err(error) = self.check_state(&mut queue, class, 0) {
            return Poll::Ready(Err(error));
        }
        // With small segments (in tests) the writer may have to make the next ones first.
        if queue.bytes < self.config.queue_bytes && !queue.exceeds_room(0, &self.config) {
            queue.sleepers.remove(&ticket);
            return Poll::Ready(Ok(()));
        }
        queue.sleepers.insert(ticket, cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closing = true;
        queue.wake_sleepers();
        self.work.notify_one();
    }

    /// Why nothing that begins would be taken now.
    pub(crate) fn trouble(&self) -> Option<JournalError> {
        let mut queue = self.queue.lock();
        if queue.closing {
            return Some(JournalError::Closed);
        }
        self.check_state(&mut queue, Class::Begins, 0).err()
    }

    /// Gets its answer when all that was admitted before is on disk.
    pub(crate) fn catch_up(&self) -> Result<Answer, JournalError> {
        let mut queue = self.queue.lock();
        match &queue.trouble {
            Some(trouble) => return Err(trouble.clone()),
            None if queue.closing => return Err(JournalError::Closed),
            None => {}
        }
        let (waiter, answer) = Waiter::new(Level::Durable);
        let ahead = queue.items.len();
        queue.behind.push((waiter, ahead));
        self.work.notify_one();
        Ok(answer)
    }

    /// Gives a ticket back.
    pub(crate) fn forget(&self, ticket: u64) {
        self.queue.lock().sleepers.remove(&ticket);
    }

    /// From now on, records can be staged.
    pub(crate) fn stage_in(&self, staged: Staged) {
        self.queue.lock().staged = Some(staged);
    }

    /// What is open after a start; known before anybody appends.
    pub(crate) fn set_open(
        &self,
        calls: impl Iterator<Item = (CallId, SessionId)>,
        sessions: impl Iterator<Item = (SessionId, String)>,
    ) {
        let mut queue = self.queue.lock();
        queue.open.extend(calls);
        for (session, agent) in sessions {
            queue.shares.begin(session, &agent);
        }
    }
}

impl Queue {
    fn exceeds_room(&self, len: usize, config: &JournalConfig) -> bool {
        (self.bytes + len) as u64 + config.reserve_bytes > self.room
    }

    /// Somebody waits for what is in the queue.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting > 0 || !self.behind.is_empty()
    }

    /// Who waits for no more than what was taken.
    pub(crate) fn take_behind(&mut self) -> impl Iterator<Item = Waiter> {
        self.behind.extract_if(.., |(_, ahead)| *ahead == 0).map(|(waiter, _)| waiter)
    }

    /// Takes items from the front: as many as fit into `most` bytes, at least one.
    pub(crate) fn take(&mut self, most: usize) -> VecDeque<Item> {
        let mut taken = VecDeque::new();
        let mut bytes = 0;
        while let Some(item) = self.items.front() {
            let len = item.record_len();
            if !taken.is_empty() && bytes + len > most {
                break;
            }
            bytes += len;
            self.waiting -= usize::from(item.waiter.is_some());
            taken.extend(self.items.pop_front());
        }
        for (_, ahead) in &mut self.behind {
            *ahead = ahead.saturating_sub(taken.len());
        }
        self.bytes -= bytes;
        self.since = (!self.items.is_empty()).then(Instant::now);
        taken
    }

    /// Puts items that could not be written back to the front.
    pub(crate) fn put_back(&mut self, items: VecDeque<Item>) {
        for item in items.into_iter().rev() {
            self.bytes += item.record_len();
            self.waiting += usize::from(item.waiter.is_some());
            self.items.push_front(item);
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// Answers everybody who waits with `error`; their records stay.
    pub(crate) fn fail_waiters(&mut self, error: &JournalError) {
        let behind = self.behind.drain(..).map(|(waiter, _)| waiter);
        for waiter in self.items.iter_mut().filter_map(|item| item.waiter.take()).chain(behind) {
            waiter.answer(Err(error.clone()));
        }
        self.waiting = 0;
        self.wake_sleepers();
    }

    pub(crate) fn wake_sleepers(&mut self) {
        for (_, waker) in self.sleepers.drain() {
            waker.wake();
        }
    }
}
