//! The writer's thread: encodes what is queued into aligned memory, writes it, waits for the disk, answers.
//!
//! A commit is what one `fdatasync` makes durable, and all of it stays in memory until then: a commit that fails is
//! written again, the same bytes to the same place, until it works. Records that only have to survive the daemon are
//! written at once, and synced some milliseconds later together. The block at the journal's end is rewritten as it fills: its old bytes are a prefix of its
//! new ones, so a torn rewrite harms earlier records only on a device that garbles sectors it was given unchanged
//! (the assumption of PostgreSQL's log too).

use std::{
    collections::VecDeque,
    fs::File,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    JournalError,
    disk::{self, AlignedBuffer, BLOCK, Disk},
    error::Context as _,
    header::SegmentHeader,
    item::{Item, Level, Waiter, now_us},
    key::Identity,
    kind::Kind,
    open_work::OpenWork,
    queue::{BATCH, Shared},
    record::{ChainHash, FLAG_COMMIT, FLAG_SEAL, MAX_PAYLOAD, Position, RecordHead, Salt, Seq},
};

/// The writer's memory, and so the most that one commit, and a crash in it, is about.
pub(crate) const BUFFER: usize = 2 << 20;
/// Kept free in every segment for the checkpoint that ends it.
pub(crate) const SEAL_ROOM: u64 = 1024;
/// How often a disk that failed or is full is tried again when nobody asks.
const RETRY: Duration = Duration::from_secs(1);
/// How often the room on disk is asked for, while something is written.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often at most, when somebody does.
const RETRY_ASKED: Duration = Duration::from_millis(50);

/// The segment that is written.
pub(crate) struct Current {
    pub(crate) index: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// The byte after the last record.
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Its last checkpoint is encoded: the next record goes to the next segment.
    pub(crate) sealed: bool,
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) identity: Identity,
    pub(crate) salt: Salt,
    pub(crate) current: Current,
    /// The size of the next segment, once it is preallocated.
    pub(crate) next: Option<u64>,
    /// The last try to preallocate failed.
    pub(crate) cramped: bool,
    /// The file from `base` on, up to `current.offset`.
    pub(crate) buffer: AlignedBuffer,
    pub(crate) base: u64,
    /// How many of the buffer's bytes the operating system has.
    pub(crate) written: usize,
    /// Since when the buffer has bytes that are not durable.
    pub(crate) dirty_since: Option<Instant>,
    /// The last write or sync failed.
    pub(crate) has_failed: bool,
    pub(crate) seq: Seq,
    pub(crate) hash: ChainHash,
    pub(crate) open: OpenWork,
    /// The number of the last staged record that is encoded.
    pub(crate) staged: u64,
    /// Records since the last checkpoint.
    pub(crate) unsigned: u64,
    pub(crate) signed_at: Instant,
    /// When the room on disk was last asked for.
    pub(crate) looked_at: Instant,
    pub(crate) acknowledge: Vec<(Waiter, Seq)>,
    /// Who waits for what was taken from the queue and is not encoded yet.
    pub(crate) behind: Vec<Waiter>,
}

impl Writer {
    /// Works until the journal is closed and everything is written, or can't be.
    pub(crate) fn run(mut self) -> Result<(), JournalError> {
        let mut tried = Instant::now();
        loop {
            let (items, closing) = self.wait(tried);
            let result = self.store(items).and_then(|()| self.sign_if_due());
            tried = Instant::now();
            if let Err(error) = &result {
                self.fail(error);
            }
            let rest = {
                let mut queue = self.shared.queue.lock();
                queue.nudged = false;
                queue.items.len()
            };
            if closing && (rest == 0 || result.is_err()) {
                break;
            }
        }
        let end = self.checkpoint_now();
        if let Err(error) = &end {
            self.fail(error);
            tracing::error!(%error, "the journal could not be closed in order: the next start will do it");
        }
        let mut queue = self.shared.queue.lock();
        queue.fail_waiters(&JournalError::Closed);
        if end.is_ok() && !queue.items.is_empty() {
            return Err(queue.trouble.clone().unwrap_or(JournalError::Closed));
        }
        end
    }

    /// Sleeps until there is something to do; tells what, and whether the journal is closing.
    fn wait(&mut self, tried: Instant) -> (VecDeque<Item>, bool) {
        let config = &self.shared.config;
        let mut queue = self.shared.queue.lock();
        loop {
            let now = Instant::now();
            let well = queue.trouble.is_none();
            let retry_at =
                (!well || self.next.is_none()).then(|| tried + if queue.nudged { RETRY_ASKED } else { RETRY });
            let write_at = queue
                .since
                .filter(|_| well)
                .map(|since| if queue.is_awaited() || queue.bytes >= BATCH { now } else { since + config.linger() });
            let asked_at = (well && queue.is_awaited()).then_some(now);
            let sign_at = (well && self.unsigned > 0).then(|| self.signed_at + config.checkpoint_interval);
            let sync_at = self.dirty_since.filter(|_| well).map(|since| since + config.linger());
            let wake_at = [retry_at, write_at, asked_at, sync_at, sign_at].into_iter().flatten().min();
            if queue.closing || wake_at.is_some_and(|at| at <= now) {
                let closing = queue.closing;
                let items = queue.take(BUFFER - BLOCK);
                self.behind.extend(queue.take_behind());
                return (items, closing);
            }
            match wake_at {
                Some(at) => {
                    self.shared.work.wait_until(&mut queue, at);
                }
                None => self.shared.work.wait(&mut queue),
            }
        }
    }

    fn sign_if_due(&mut self) -> Result<(), JournalError> {
        if self.unsigned > 0 && self.signed_at.elapsed() >= self.shared.config.checkpoint_interval {
            self.checkpoint_now()?;
        }
        Ok(())
    }

    /// Refuses what comes, then answers who waits: in this order, so that nobody who got an error sees all well.
    fn fail(&mut self, error: &JournalError) {
        let mut queue = self.shared.queue.lock();
        if queue.trouble.is_none() {
            tracing::error!(%error, "the journal can't be written: calls are refused until it can");
        }
        queue.trouble = Some(error.clone());
        queue.fail_waiters(error);
        let acknowledge = self.acknowledge.drain(..).map(|(waiter, _)| waiter);
        for waiter in acknowledge.chain(self.behind.drain(..)) {
            waiter.answer(Err(error.clone()));
        }
    }

    /// Writes `items`; what could not be encoded goes back to the queue's front, for `fail` to answer.
    pub(crate) fn store(&mut self, mut items: VecDeque<Item>) -> Result<(), JournalError> {
        let result = self.store_all(&mut items);
        if !items.is_empty() {
            self.shared.queue.lock().put_back(items);
        }
        self.report();
        result
    }

    fn store_all(&mut self, items: &mut VecDeque<Item>) -> Result<(), JournalError> {
        // A commit that failed is finished before anything is added to it.
        if self.has_failed {
            self.flush()?;
        }
        while let Some(item) = items.front() {
            self.make_room(item.record_len())?;
            if let Some(item) = items.pop_front() {
                self.encode(item, 0);
            }
            if self.unsigned >= self.shared.config.checkpoint_records {
                self.checkpoint()?;
            }
        }
        self.acknowledge.extend(self.behind.drain(..).map(|waiter| (waiter, self.seq)));
        self.write()?;
        let linger = self.shared.config.linger();
        if !self.acknowledge.is_empty() || self.dirty_since.is_some_and(|since| since.elapsed() >= linger) {
            self.flush()?;
        }
        if self.next.is_none() {
            self.allocate_next();
        }
        Ok(())
    }

    /// Makes the buffer and the segment ready for a record of `len` bytes, going on to the next segment if needed.
    fn make_room(&mut self, len: usize) -> Result<(), JournalError> {
        let fits = |current: &Current| current.offset + len as u64 + SEAL_ROOM <= current.size;
        if self.current.sealed || !fits(&self.current) {
            self.flush()?;
            if !self.current.sealed {
                self.ensure_next()?;
                self.seal()?;
            }
            self.advance()?;
        }
        if self.buffer.room() < len + 2 * BLOCK {
            self.flush()?;
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), JournalError> {
        let checkpoint = self.identity.checkpoint(self.seq, self.hash, now_us());
        let item = Item::json(Kind::Checkpoint, [0; 16], &checkpoint)?;
        self.encode(item, FLAG_SEAL);
        self.current.sealed = true;
        self.signed();
        self.flush()
    }

    /// Goes on in the next segment; the current one is sealed and durable.
    fn advance(&mut self) -> Result<(), JournalError> {
        self.ensure_next()?;
        let index = self.current.index + 1;
        let path = disk::segment_path(&self.shared.config.dir, index);
        let (file, _) = disk::open_segment(&path, self.shared.config.direct_io)?;
        let size = file.metadata().context("look at", &path)?.len();
        // The room after the last record is given back. Zeros there are as good, so a failure is not one.
        if let Err(error) = self.current.file.set_len(self.current.offset) {
            tracing::warn!(%error, path = %self.current.path.display(), "could not give a segment's unused room back");
        }
        self.current = Current { index, path, file, offset: 0, size, sealed: false };
        self.next = None;
        self.buffer.clear();
        self.base = 0;
        self.written = 0;
        self.begin_segment()?;
        self.allocate_next();
        Ok(())
    }

    /// Encodes a new segment's header and what is open.
    pub(crate) fn begin_segment(&mut self) -> Result<(), JournalError> {
        let most = usize::try_from(self.current.size / 8).unwrap_or(usize::MAX);
        let parts = self.open.carries().into_iter().map(|carry| Item::json(Kind::Carry, [0; 16], &carry));
        let carries = parts.collect::<Result<Vec<_>, _>>()?;
        let is_carried = carries.iter().map(Item::record_len).sum::<usize>() <= most
            && carries.iter().all(|carry| carry.payload.len() <= MAX_PAYLOAD);
        let header = SegmentHeader::new(
            self.identity.journal,
            self.current.index,
            self.hash,
            self.identity.public.id(),
            is_carried.then(|| u32::try_from(carries.len()).unwrap_or(u32::MAX)),
        );
        self.encode(Item::json(Kind::Header, [0; 16], &header)?, 0);
        for carry in carries.into_iter().take(if is_carried { usize::MAX } else { 0 }) {
            if self.buffer.room() < carry.record_len() + BLOCK {
                self.flush()?;
            }
            self.encode(carry, 0);
        }
        Ok(())
    }

    fn ensure_next(&mut self) -> Result<(), JournalError> {
        if self.next.is_none() {
            let config = &self.shared.config;
            let index = self.current.index + 1;
            disk::create_segment(self.disk.as_mut(), &config.dir, index, config.segment_bytes)?;
            self.next = Some(config.segment_bytes);
        }
        Ok(())
    }

    /// Preallocates the next segment if the disk has room; if not, what is left of this one is used up first.
    pub(crate) fn allocate_next(&mut self) {
        if let Err(error) = self.ensure_next() {
            if !std::mem::replace(&mut self.cramped, true) {
                tracing::warn!(%error, "the journal's next segment can't be preallocated: this one is used up first");
            }
        } else {
            self.cramped = false;
        }
    }

    /// Appends a record to the buffer, which has room.
    fn encode(&mut self, item: Item, flags: u8) {
        self.seq.0 += 1;
        let head = RecordHead {
            kind: item.kind,
            flags: flags | item.flags | if self.dirty_since.is_some() { 0 } else { FLAG_COMMIT },
            seq: self.seq,
            time_us: item.time_us,
            id: item.id,
            body_offset: item.body_offset,
            payload_len: u32::try_from(item.payload.len()).expect("BUG: a payload is at most 512 KiB"),
            digest: item.digest,
            previous: self.hash,
        };
        let len = item.record_len();
        self.hash = head.write(self.salt, &item.payload, self.buffer.extend(len));
        self.current.offset += len as u64;
        self.dirty_since.get_or_insert_with(Instant::now);
        if item.kind != Kind::Checkpoint {
            self.unsigned += 1;
        }
        if item.kind.is_body() {
            self.open.body(&head);
        }
        if item.staged > 0 {
            self.staged = item.staged;
        }
        if let Some(mark) = item.mark {
            self.open.mark(mark);
        }
        if let Some(waiter) = item.waiter {
            self.acknowledge.push((waiter, self.seq));
        }
    }

    /// Encodes a checkpoint over everything so far.
    fn checkpoint(&mut self) -> Result<(), JournalError> {
        if self.current.sealed {
            return Ok(()); // sealing signed it
        }
        let checkpoint = self.identity.checkpoint(self.seq, self.hash, now_us());
        let item = Item::json(Kind::Checkpoint, [0; 16], &checkpoint)?;
        let len = item.record_len();
        if self.current.offset + len as u64 + SEAL_ROOM <= self.current.size {
            if self.buffer.room() < len + BLOCK {
                self.flush()?;
            }
            self.encode(item, 0);
            self.signed();
        } // else the segment's own last checkpoint comes next anyway
        Ok(())
    }

    fn signed(&mut self) {
        self.unsigned = 0;
        self.signed_at = Instant::now();
    }

    /// Signs what is not signed yet, durably.
    pub(crate) fn checkpoint_now(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        if self.unsigned > 0 {
            self.checkpoint()?;
            // Where no room was left for it, the segment's last one will cover it.
            self.signed();
        }
        self.flush()?;
        self.report();
        Ok(())
    }

    /// Gives what is encoded to the operating system, and answers who waited for no more than that.
    fn write(&mut self) -> Result<(), JournalError> {
        if self.written == self.buffer.len() {
            return Ok(());
        }
        let start = self.written / BLOCK * BLOCK;
        let current = &self.current;
        let result = self.disk.write(&current.file, self.buffer.blocks(start), self.base + start as u64);
        self.has_failed = result.is_err();
        result.context("write", &current.path)?;
        self.written = self.buffer.len();
        self.shared.written.store(self.staged, Ordering::Release);
        for (waiter, seq) in self.acknowledge.extract_if(.., |(waiter, _)| waiter.level == Level::Written) {
            waiter.answer(Ok(seq));
        }
        Ok(())
    }

    /// Makes everything encoded durable and answers who waited for it.
    pub(crate) fn flush(&mut self) -> Result<(), JournalError> {
        if self.dirty_since.is_none() {
            self.acknowledge();
            return Ok(());
        }
        self.write()?;
        let began = Instant::now();
        let synced = self.disk.sync(&self.current.file);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.shared.sync_micros.fetch_add(micros, Ordering::Relaxed);
        if let Err(error) = synced {
            // The kernel may have dropped what it could not sync: all of the commit is written again.
            self.written = 0;
            self.has_failed = true;
            return Err(JournalError::io("sync", &self.current.path, error));
        }
        self.base += self.buffer.keep_begun_block() as u64;
        self.written = self.buffer.len();
        self.dirty_since = None;
        self.has_failed = false;
        self.shared.committed.send_replace(self.position());
        self.acknowledge();
        Ok(())
    }

    fn acknowledge(&mut self) {
        for (waiter, seq) in self.acknowledge.drain(..) {
            waiter.answer(Ok(seq));
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position { segment: self.current.index, offset: self.current.offset, seq: self.seq, hash: self.hash }
    }

    /// Tells the queue how much room the disk has for more segments.
    pub(crate) fn look_at_disk(&mut self) {
        self.looked_at = Instant::now();
        let config = &self.shared.config;
        // Without an answer, what is preallocated is all that is known of.
        let (free, whole) = nix::sys::statvfs::statvfs(&config.dir).map_or((0, 0), |disk| {
            let size = disk.fragment_size();
            (disk.blocks_available() * size, disk.blocks() * size)
        });
        let mut queue = self.shared.queue.lock();
        queue.free = free / config.segment_bytes * config.segment_bytes;
        queue.kept = config.kept_bytes.min(whole / 8);
    }

    /// Tells the queue how much room there is and, when nothing is left undone, that all is well.
    fn report(&mut self) {
        if self.looked_at.elapsed() >= LOOK_EVERY {
            self.look_at_disk();
        }
        let floor = self.shared.config.floor_bytes() + SEAL_ROOM;
        let here = if self.current.sealed { 0 } else { self.current.size - self.current.offset };
        // What crosses into the next segment leaves some room behind, and carries over what is open.
        let carried = 2048 + self.open.len() as u64 * 300;
        let next = self.next.map_or(0, |size| size.saturating_sub(carried + SEAL_ROOM));
        let mut queue = self.shared.queue.lock();
        queue.room = (here + next).saturating_sub(floor);
        queue.cramped = self.next.is_none() && self.cramped;
        if !self.has_failed && queue.trouble.is_some() {
            tracing::info!("the journal can be written again");
            queue.trouble = None;
        }
        queue.wake_sleepers();
    }
}
