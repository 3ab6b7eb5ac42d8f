//! The journal as the rest of the daemon sees it.

use std::{
    collections::VecDeque,
    fs::File,
    future::poll_fn,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use chaperone_model::{CallId, Direction, Event};
use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::{
    BodyRecorder, Durability, JournalConfig, JournalError,
    disk::{self, AlignedBuffer, BLOCK, Disk, Lock, OsDisk},
    error::Context as _,
    item::{Answer, Item, Level, Waiter},
    key::{Identity, PublicKey},
    kind::Kind,
    queue::{Class, Shared},
    record::{Position, Salt},
    recover::{Recovered, beginning, find_end},
    staged::{self, Staged},
    writer::{BUFFER, Current, Writer},
};

/// The journal of one host. Clones are handles to the same one; when the last goes, everything queued is written.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    id: Uuid,
    public: PublicKey,
    direct_io: bool,
    done: Mutex<Option<oneshot::Receiver<Result<(), JournalError>>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("id", &self.0.id).field("dir", &self.0.shared.dir).finish_non_exhaustive()
    }
}

/// How the journal is.
#[derive(Clone, Debug, Serialize)]
pub struct JournalState {
    /// Its id.
    pub journal: Uuid,
    /// Why nothing can be recorded now, or `None`: then calls can go.
    pub trouble: Option<String>,
    /// The last durable record.
    pub committed: Position,
    /// Bytes on their way to disk.
    pub queued_bytes: usize,
    /// Bytes of room in preallocated segments.
    pub room_bytes: u64,
    /// Bytes free on the filesystem beyond that.
    pub disk_free_bytes: u64,
    /// Bytes that the segments take.
    pub used_bytes: u64,
    /// How many segments there are.
    pub segments: u64,
    /// How often the disk was told to make records durable since the start …
    pub syncs: u64,
    /// … and how long that took in all, in microseconds.
    pub sync_micros: u64,
    /// Whether writing goes past the page cache.
    pub direct_io: bool,
}

impl Journal {
    /// Opens or makes the journal: takes its lock, cuts a torn end, closes what was open, and starts the writer.
    /// Reads at most a few segments, so it takes well under a second; blocks meanwhile.
    pub fn open(config: JournalConfig) -> Result<(Self, Recovered), JournalError> {
        Self::open_on(config, Box::new(OsDisk))
    }

    pub(crate) fn open_on(config: JournalConfig, disk: Box<dyn Disk>) -> Result<(Self, Recovered), JournalError> {
        let config = config.checked()?;
        disk::make_dir(&config.dir)?;
        let lock = Lock::take(&config.dir)?;
        let identity = Identity::load_or_create(&config.dir)?;
        let (id, public) = (identity.journal, identity.public);
        let (mut writer, mut recovered) = prepare(config, disk, identity)?;
        let shared = Arc::clone(&writer.shared);
        close_open_work(&mut writer, &mut recovered)?;
        shared.set_open(
            writer.open.calls.iter().map(|(id, call)| (*id, call.session)),
            writer.open.sessions.values().map(|session| (session.id, session.agent.clone())),
        );
        writer.look_at_disk();
        match Staged::open(&shared.config.dir, id, staged::capacity(shared.config.segment_bytes)) {
            Ok(staged) => shared.stage_in(staged),
            // Nothing is less safe without: what would be staged waits for the writer, and is slower.
            Err(error) => tracing::warn!(%error, "records can't be staged: each call waits for the disk"),
        }

        let (send, done) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let result = writer.run();
                drop(lock);
                drop(send.send(result));
            })
            .context("start the journal's thread for", &shared.config.dir)?;
        let inner = Inner {
            shared,
            id,
            public,
            direct_io: recovered.direct_io,
            done: Mutex::new(Some(done)),
            thread: Mutex::new(Some(thread)),
        };
        Ok((Self(Arc::new(inner)), recovered))
    }

    /// Whether a call's intent has to be on disk before the call goes on: the `wait` of [`Self::append`].
    pub fn must_wait(&self, is_mutating: bool) -> bool {
        match self.0.shared.config.durability {
            Durability::Group => is_mutating,
            Durability::Relaxed => false,
            Durability::Strict => true,
        }
    }

    /// Records an event. With `wait`, returns when it is on disk, and so survives the machine. Without, a call's
    /// intent still waits until the operating system has it, so that it survives the daemon (nothing leaves for AWS
    /// unrecorded, whatever kills us); other events are queued and get to disk within milliseconds.
    ///
    /// After an error the event is not acknowledged, and may be recorded nevertheless (a disk that came back). So an
    /// intent that failed still gets an outcome; that answers [`JournalError::NotOpen`] if the intent never was.
    pub async fn append(&self, event: &Event, wait: bool) -> Result<(), JournalError> {
        let shared = &self.0.shared;
        let mut item = Item::event(event, shared.config.max_event())?;
        if !is_end(event) {
            let ticket = Ticket::new(shared);
            poll_fn(|cx| shared.poll_room(ticket.number, Class::Begins, cx)).await?;
        }
        let answer = match event {
            _ if wait => {
                let (waiter, answer) = Waiter::new(Level::Durable);
                item.waiter = Some(waiter);
                shared.admit(item)?;
                Some(answer)
            }
            // The connection too: an intent that survives must find the one that it names.
            Event::CallIntent(_) | Event::ConnectionOpened(_) => shared.admit_staged(item)?,
            _ => return shared.admit(item),
        };
        match answer {
            Some(answer) => answered(shared, answer).await,
            None => Ok(()),
        }
    }

    /// Queues an event without waiting for anything: for `Drop` and other places that can't wait.
    pub fn append_now(&self, event: &Event) -> Result<(), JournalError> {
        let shared = &self.0.shared;
        shared.admit(Item::event(event, shared.config.max_event())?)
    }

    /// Waits until all that was appended before is on disk, where other processes read it. Bodies too, as far as their
    /// recorders have handed them over.
    pub async fn catch_up(&self) -> Result<(), JournalError> {
        let shared = &self.0.shared;
        answered(shared, shared.catch_up()?).await
    }

    /// A recorder for one body of a call whose intent was appended.
    pub fn body(&self, call: CallId, direction: Direction) -> BodyRecorder {
        BodyRecorder::new(Arc::clone(&self.0.shared), call, direction)
    }

    /// The last durable record, as it changes. Readers in this process read the files up to there.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.0.shared.committed.subscribe()
    }

    /// The journal's folder.
    pub fn dir(&self) -> &Path {
        &self.0.shared.config.dir
    }

    /// The journal's id.
    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// The key that its checkpoints are verified with.
    pub fn public_key(&self) -> PublicKey {
        self.0.public
    }

    /// Why nothing new can be recorded now, if so.
    pub fn trouble(&self) -> Option<JournalError> {
        self.0.shared.trouble()
    }

    /// How the journal is.
    pub fn state(&self) -> Result<JournalState, JournalError> {
        let shared = &self.0.shared;
        let dir = &shared.config.dir;
        let filesystem = nix::sys::statvfs::statvfs(dir).context("look at the filesystem of", dir)?;
        let segments = disk::segments(dir)?;
        let mut used = 0;
        for index in &segments {
            let path = disk::segment_path(dir, *index);
            // A segment may be retired meanwhile.
            used += std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        }
        let (queued_bytes, room_bytes) = {
            let queue = shared.queue.lock();
            (queue.bytes, queue.room)
        };
        Ok(JournalState {
            journal: self.0.id,
            trouble: self.trouble().map(|error| error.to_string()),
            committed: *shared.committed.borrow(),
            queued_bytes,
            room_bytes,
            disk_free_bytes: filesystem.blocks_available() * filesystem.fragment_size(),
            used_bytes: used,
            segments: segments.len() as u64,
            syncs: shared.syncs.load(Ordering::Relaxed),
            sync_micros: shared.sync_micros.load(Ordering::Relaxed),
            direct_io: self.0.direct_io,
        })
    }

    /// Writes what is queued, signs a last checkpoint and gives the lock back. Later appends answer `Closed`.
    pub async fn close(&self) -> Result<(), JournalError> {
        self.0.shared.close();
        let done = self.0.done.lock().take();
        match done {
            Some(done) => done.await.unwrap_or(Err(JournalError::Closed)),
            None => Ok(()),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.lock().take() {
            drop(thread.join()); // it reported what went wrong, if anything did
        }
    }
}

/// What the writer answers, if it does so in time.
async fn answered(shared: &Shared, answer: Answer) -> Result<(), JournalError> {
    match tokio::time::timeout(shared.config.commit_timeout, answer).await {
        Ok(Ok(result)) => result.map(drop),
        Ok(Err(_)) => Err(JournalError::Closed),
        Err(_) => Err(JournalError::Stalled { seconds: shared.config.commit_timeout.as_secs() }),
    }
}

/// A number in the queue's list of sleepers, given back when the sleeper goes away.
struct Ticket<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Ticket<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, number: shared.ticket() }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.shared.forget(self.number);
    }
}

const fn is_end(event: &Event) -> bool {
    matches!(event, Event::CallOutcome(_) | Event::ConnectionClosed(_) | Event::SessionEnded(_))
}

/// The writer, at the journal's end.
fn prepare(
    config: JournalConfig,
    mut disk: Box<dyn Disk>,
    identity: Identity,
) -> Result<(Writer, Recovered), JournalError> {
    let end = find_end(&config.dir, identity.journal)?;
    let is_new = end.is_none();
    let position = end.as_ref().map_or_else(beginning, |end| end.position);
    let path = disk::segment_path(&config.dir, position.segment);
    if is_new {
        // What is there from an earlier try holds nothing; its size may be another.
        disk::create_segment(disk.as_mut(), &config.dir, position.segment, config.segment_bytes)?;
    }
    let (file, direct_io) = disk::open_segment(&path, config.direct_io)?;
    if config.direct_io && !direct_io {
        tracing::info!(dir = %config.dir.display(), "the filesystem refuses O_DIRECT: the journal is written through the page cache");
    }
    let size = file.metadata().context("look at", &path)?.len();
    let base = position.offset / BLOCK as u64 * BLOCK as u64;
    let mut buffer = AlignedBuffer::new(BUFFER);
    let begun = usize::try_from(position.offset - base).expect("BUG: a begun block is less than a block");
    let reader = File::open(&path).context("open", &path)?;
    reader.read_exact_at(buffer.extend(begun), base).context("read", &path)?;
    let next = std::fs::metadata(disk::segment_path(&config.dir, position.segment + 1)).map(|metadata| metadata.len());

    let (sealed, open, torn) = end.map_or_else(Default::default, |end| (end.sealed, end.open, end.torn));
    let recovered = Recovered {
        journal: identity.journal,
        is_new,
        torn,
        staged: 0,
        interrupted: open.calls.keys().copied().collect(),
        closed_connections: open.connections.len(),
        sessions: open.sessions.values().cloned().collect(),
        direct_io,
    };
    let writer = Writer {
        shared: Arc::new(Shared::new(config, position)),
        disk,
        salt: Salt::of(identity.journal),
        identity,
        current: Current { index: position.segment, path, file, offset: position.offset, size, sealed },
        next: next.ok().filter(|size| *size >= 64 << 10),
        cramped: false,
        buffer,
        base,
        written: begun,
        dirty_since: None,
        has_failed: false,
        seq: position.seq,
        hash: position.hash,
        open,
        staged: 0,
        unsigned: u64::from(!sealed),
        signed_at: Instant::now(),
        looked_at: Instant::now(),
        acknowledge: Vec::new(),
        behind: Vec::new(),
    };
    Ok((writer, recovered))
}

/// Records the torn end and closes what was open, before anything new is taken.
fn close_open_work(writer: &mut Writer, recovered: &mut Recovered) -> Result<(), JournalError> {
    let max = writer.shared.config.max_event();
    let mut items = VecDeque::new();
    if let Some(torn) = &recovered.torn {
        items.push_back(Item::json(Kind::Recovery, [0; 16], torn)?);
    }
    if writer.current.offset == 0 {
        writer.begin_segment()?;
    }
    let staged = staged::recover(&writer.shared.config.dir, recovered.journal)?;
    recovered.staged = staged.len();
    items.extend(staged);
    writer.allocate_next();
    writer.store(items)?;
    recovered.interrupted = writer.open.calls.keys().copied().collect();
    recovered.interrupted.sort_unstable();
    recovered.closed_connections = writer.open.connections.len();
    let mut items = VecDeque::new();
    for event in writer.open.closing_events(OffsetDateTime::now_utc()) {
        items.push_back(Item::event(&event, max)?);
    }
    writer.store(items)?;
    writer.flush()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use chaperone_model::SessionId;

    use super::*;
    use crate::{Reader, Record, samples};

    pub(crate) fn small(dir: &Path) -> JournalConfig {
        JournalConfig { segment_bytes: 1 << 20, ..JournalConfig::new(dir) }
    }

    fn read_all(dir: &Path) -> Vec<Record> {
        let mut reader = Reader::open(dir).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).collect()
    }

    fn events(records: &[Record]) -> Vec<Event> {
        records.iter().filter_map(|record| record.event().unwrap()).collect()
    }

    #[tokio::test]
    async fn what_is_appended_is_read_back_with_its_bodies() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, recovered) = Journal::open(small(dir.path())).unwrap();
        assert!(recovered.is_new);
        let (call, session) = (CallId::new(), SessionId::new());
        let intent = samples::intent(call, session);
        journal.append(&intent, true).await.unwrap();
        let mut recorder = journal.body(call, Direction::Request);
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        for part in sent.chunks(100_000) {
            poll_fn(|cx| recorder.poll_ready(cx)).await.unwrap();
            recorder.push(Bytes::copy_from_slice(part)).unwrap();
        }
        recorder.push(Bytes::from_static(b"end")).unwrap();
        let digest = recorder.finish();
        assert_eq!(digest.bytes, 300_003);
        let empty = journal.body(call, Direction::Response).finish();
        assert_eq!(empty.bytes, 0);
        let outcome = samples::outcome(call, session, Some(digest), Some(empty));
        journal.append(&outcome, true).await.unwrap();
        journal.close().await.unwrap();
        assert!(matches!(journal.append_now(&outcome), Err(JournalError::Closed)));

        let records = read_all(dir.path());
        assert_eq!(events(&records), [intent, outcome]);
        let body: Vec<u8> =
            records.iter().filter(|r| r.head.kind == Kind::RequestBody).flat_map(|r| r.payload.to_vec()).collect();
        assert_eq!(body, [sent.as_slice(), b"end"].concat());
        assert!(!records.iter().any(|record| record.head.kind == Kind::ResponseBody));
        assert_eq!(records.last().unwrap().head.kind, Kind::Checkpoint);
        assert!(records.iter().enumerate().all(|(n, record)| record.head.seq.0 == n as u64 + 1));
    }

    /// Of a body that isn't kept whole there are its beginning and the digest of all of it.
    #[tokio::test]
    async fn a_body_that_is_cut_has_its_whole_digest_and_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(small(dir.path())).unwrap();
        let session = SessionId::new();
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let whole = crate::record::sha256(&sent);
        for step in [1000, 5000, 100_000] {
            let call = CallId::new();
            journal.append(&samples::intent(call, session), true).await.unwrap();
            let mut recorder = journal.body(call, Direction::Request).keep(4096);
            for part in sent.chunks(step) {
                recorder.push(Bytes::copy_from_slice(part)).unwrap();
            }
            let digest = recorder.finish();
            assert_eq!((digest.bytes, digest.sha256, digest.kept), (300_000, whole, Some(4096)));
            let short = journal.body(call, Direction::Response).keep(4096).finish();
            assert_eq!((short.bytes, short.kept), (0, None));
            journal.append(&samples::outcome(call, session, Some(digest), Some(short)), true).await.unwrap();
        }
        journal.close().await.unwrap();
        let recorded: usize = read_all(dir.path())
            .iter()
            .filter(|record| record.head.kind == Kind::RequestBody)
            .map(|record| record.payload.len())
            .sum();
        assert_eq!(recorded, 3 * 4096);
        let verified = crate::verify(dir.path(), &crate::VerifyOptions::default(), |_, _| {}).unwrap();
        assert!(verified.is_clean(), "{verified:?}");
    }

    #[tokio::test]
    async fn it_goes_on_after_a_restart_and_over_many_segments() {
        let dir = tempfile::tempdir().unwrap();
        let session = SessionId::new();
        let mut wanted = Vec::new();
        for _ in 0..4 {
            let config = JournalConfig { segment_bytes: 64 << 10, ..JournalConfig::new(dir.path()) };
            let (journal, recovered) = Journal::open(config).unwrap();
            assert!(recovered.torn.is_none() && recovered.interrupted.is_empty(), "{recovered:?}");
            for n in 0..100 {
                let call = CallId::new();
                for event in [samples::intent(call, session), samples::outcome(call, session, None, None)] {
                    journal.append(&event, n % 10 == 0).await.unwrap();
                    wanted.push(event);
                }
            }
            journal.close().await.unwrap();
        }
        let records = read_all(dir.path());
        assert_eq!(events(&records), wanted);
        assert!(records.last().unwrap().segment > 5);
    }

    #[tokio::test]
    async fn what_was_open_is_closed_as_interrupted_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let session = samples::session();
        let call = CallId::new();
        let (journal, _) = Journal::open(small(dir.path())).unwrap();
        journal.append(&samples::session_started(&session), false).await.unwrap();
        journal.append(&samples::intent(call, session.id), true).await.unwrap();
        let mut recorder = journal.body(call, Direction::Request);
        recorder.push(Bytes::from(vec![1; 5000])).unwrap();
        let digest = recorder.finish();
        journal.close().await.unwrap();
        drop(journal);

        let (journal, recovered) = Journal::open(small(dir.path())).unwrap();
        assert_eq!((recovered.interrupted, recovered.sessions), (vec![call], vec![session]));
        assert!(matches!(
            journal.body(call, Direction::Request).push(Bytes::from(vec![0; 5000])),
            Err(JournalError::NotOpen { .. })
        ));
        journal.close().await.unwrap();
        let events = events(&read_all(dir.path()));
        let Some(Event::CallOutcome(outcome)) = events.last() else { panic!("{events:?}") };
        assert_eq!(outcome.outcome, chaperone_model::OutcomeStatus::Interrupted);
        assert_eq!((outcome.request, outcome.response), (Some(digest), None));
    }

    #[tokio::test]
    async fn many_waiting_calls_share_commits() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(JournalConfig::new(dir.path())).unwrap();
        let mut commits = journal.subscribe();
        let session = SessionId::new();
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let call = CallId::new();
                        journal.append(&samples::intent(call, session), true).await.unwrap();
                        journal.append(&samples::outcome(call, session, None, None), false).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        journal.close().await.unwrap();
        assert!(commits.has_changed().is_ok());
        let position = *commits.borrow_and_update();
        let records = read_all(dir.path());
        assert_eq!(records.last().unwrap().position(), position);
        assert_eq!(events(&records).len(), 64 * 20 * 2);
        let commits = records.iter().filter(|record| record.head.flags & crate::record::FLAG_COMMIT != 0).count();
        assert!(commits < 64 * 20, "{commits} commits for {} waiting appends", 64 * 20);
    }

    #[tokio::test]
    async fn who_catches_up_finds_everything_in_the_segments() {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { durability: Durability::Relaxed, ..small(dir.path()) };
        let (journal, _) = Journal::open(config).unwrap();
        journal.catch_up().await.unwrap(); // with nothing to wait for
        let session = SessionId::new();
        let mut wanted = Vec::new();
        for count in [1, 2, 300] {
            for _ in 0..count {
                let call = CallId::new();
                let events = [samples::intent(call, session), samples::outcome(call, session, None, None)];
                for event in &events {
                    journal.append(event, false).await.unwrap();
                }
                wanted.extend(events);
            }
            journal.catch_up().await.unwrap();
            assert_eq!(events(&read_all(dir.path())), wanted);
        }
        journal.close().await.unwrap();
        assert!(matches!(journal.catch_up().await, Err(JournalError::Closed)));
    }

    #[tokio::test]
    async fn a_second_writer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(small(dir.path())).unwrap();
        let error = Journal::open(small(dir.path())).err().unwrap();
        assert!(matches!(error, JournalError::Locked { .. }), "{error}");
        drop(journal);
        Journal::open(small(dir.path())).unwrap();
    }

    #[tokio::test]
    async fn a_quiet_journal_gets_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { checkpoint_interval: Duration::from_millis(20), ..small(dir.path()) };
        let (journal, _) = Journal::open(config).unwrap();
        let mut commits = journal.subscribe();
        journal.append(&samples::intent(CallId::new(), SessionId::new()), false).await.unwrap();
        loop {
            commits.changed().await.unwrap();
            let mut reader = Reader::open(dir.path()).unwrap();
            reader.set_limit(commits.borrow().seq);
            let kinds: Vec<_> = std::iter::from_fn(|| reader.next_record().unwrap()).map(|r| r.head.kind).collect();
            if kinds.ends_with(&[Kind::Event, Kind::Checkpoint]) {
                break;
            }
        }
    }
}
