//! The digests of executed files, read in threads that nobody waits for.
//!
//! An agent chooses the files: leased ones, huge ones, ones on a disk that hangs. So each agent's cgroup has a budget of
//! bytes, what waits is bounded, a thread that is stuck is replaced, and whoever wants a digest waits [`PATIENCE`] at most.
//! A command whose file couldn't be read so has no digest; the next execution of the same file may.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::Read as _,
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::{
    executable::Executable,
    sys::{self, FileIdentity},
};

/// How long a command's record waits for the digest of its file, from when the command was heard of.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Larger files have no digest.
const MAX_BYTES: u64 = 256 << 20;
/// How many digests are remembered.
const MAX_KNOWN: usize = 4096;
/// How many bytes an enrolled cgroup's commands can have read at once, and how many more each second. Each counts for some
/// bytes, however small it is.
const BUDGET: u64 = 512 << 20;
const BUDGET_A_SECOND: u64 = 16 << 20;
const LEAST: u64 = 64 << 10;
/// How many budgets are remembered; those that are whole again are forgotten first.
const MAX_BUDGETS: usize = 4096;
/// How many files may wait to be read.
const MAX_WAITING: usize = 256;
/// How many are read at a time.
const READERS: usize = 2;
/// For how long one is read.
const MAX_READING: Duration = Duration::from_secs(10);
/// A thread that reads one for longer doesn't come back from the kernel, and another has its place.
const STUCK: Duration = Duration::from_secs(20);
/// How many threads may be stuck; past it no more are started until one comes back.
const MAX_STUCK: usize = 8;

/// The SHA-256 of the file that a command executed. It may be on its way.
#[derive(Clone, Debug)]
pub struct ExecutableDigest {
    state: Option<watch::Receiver<State>>,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Is([u8; 32]),
    /// It couldn't be read this time.
    Later,
    /// It is not read: too large, or not on a local filesystem.
    Never,
    Reading,
}

impl ExecutableDigest {
    /// That of a file that can't be read.
    pub fn none() -> Self {
        Self { state: None, until: Instant::now() }
    }

    /// The digest, if it is known now.
    pub fn now(&self) -> Option<[u8; 32]> {
        match *self.state.as_ref()?.borrow() {
            State::Is(digest) => Some(digest),
            State::Later | State::Never | State::Reading => None,
        }
    }

    /// Waits for it, until [`PATIENCE`] is over that began when the command was heard of.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time.
    pub async fn wait(&mut self) -> Option<[u8; 32]> {
        let known = self.state.as_mut()?.wait_for(|state| *state != State::Reading);
        // If it is too late, or its thread panicked: what there is now.
        let _ = tokio::time::timeout_at(self.until.into(), known).await;
        self.now()
    }
}

/// The same reading of the same file.
impl PartialEq for ExecutableDigest {
    fn eq(&self, other: &Self) -> bool {
        match (&self.state, &other.state) {
            (Some(one), Some(another)) => one.same_channel(another),
            (one, another) => one.is_none() && another.is_none(),
        }
    }
}

impl Eq for ExecutableDigest {}

/// The digests that are known, and those on their way.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    known: HashMap<FileIdentity, watch::Receiver<State>>,
    budgets: Budgets,
    readers: Arc<Readers>,
    refused: Refused,
}

impl Digests {
    /// That of the file which a process of this enrolled cgroup executes. Waits for nothing.
    pub(crate) fn of(&mut self, executable: Executable, enrolled: u64) -> ExecutableDigest {
        let (now, identity) = (Instant::now(), executable.identity);
        let digest = |state| ExecutableDigest { state: Some(state), until: now + PATIENCE };
        if let Some(known) = self.known.get(&identity)
            && *known.borrow() != State::Later
            // Nor did its thread panic.
            && (*known.borrow() != State::Reading || known.has_changed().is_ok())
        {
            return digest(known.clone());
        }
        let (tell, state) = watch::channel(State::Reading);
        if identity.bytes > MAX_BYTES {
            tell.send_replace(State::Never);
        } else {
            let mounts = executable.mounts();
            let job = Job { executable, mounts, tell };
            if !self.budgets.spend(enrolled, identity.bytes.max(LEAST), now) || !Readers::read(&self.readers, job) {
                self.refused.one_more(now);
                return ExecutableDigest::none();
            }
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(identity, state.clone());
        digest(state)
    }
}

impl Drop for Digests {
    fn drop(&mut self) {
        self.readers.queue.lock().closed = true;
        self.readers.more.notify_all();
    }
}

/// What each enrolled cgroup may have read, in bytes.
#[derive(Debug, Default)]
struct Budgets(HashMap<u64, (u64, Instant)>);

impl Budgets {
    fn spend(&mut self, enrolled: u64, bytes: u64, now: Instant) -> bool {
        let left = |(left, since): (u64, Instant)| {
            let more =
                now.saturating_duration_since(since).as_millis().saturating_mul(u128::from(BUDGET_A_SECOND)) / 1000;
            left.saturating_add(u64::try_from(more).unwrap_or(u64::MAX)).min(BUDGET)
        };
        if self.0.len() >= MAX_BUDGETS && !self.0.contains_key(&enrolled) {
            self.0.retain(|_, budget| left(*budget) < BUDGET);
            if self.0.len() >= MAX_BUDGETS {
                return false;
            }
        }
        let budget = self.0.entry(enrolled).or_insert((BUDGET, now));
        let Some(rest) = left(*budget).checked_sub(bytes) else { return false };
        *budget = (rest, now);
        true
    }
}

/// Told in the log, once a minute at most.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    told: Option<Instant>,
}

impl Refused {
    fn one_more(&mut self, now: Instant) {
        self.count += 1;
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= Duration::from_mins(1)) {
            tracing::warn!(
                count = self.count,
                "commands are recorded without the digest of their file: agents execute more new files than are read"
            );
            (self.count, self.told) = (0, Some(now));
        }
    }
}

/// A file to read.
#[derive(Debug)]
struct Job {
    executable: Executable,
    mounts: Option<File>,
    tell: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct Readers {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// The threads that take what waits, by number, and since when each is reading.
    threads: HashMap<u64, Option<Instant>>,
    /// The next one's number.
    next: u64,
    stuck: usize,
    closed: bool,
}

impl Readers {
    /// Whether there is room for it.
    fn read(this: &Arc<Self>, job: Job) -> bool {
        let mut queue = this.queue.lock();
        let now = Instant::now();
        let is_stuck =
            |since: &Option<Instant>| since.is_some_and(|since| now.saturating_duration_since(since) > STUCK);
        let before = queue.threads.len();
        queue.threads.retain(|_, since| !is_stuck(since));
        queue.stuck += before - queue.threads.len();
        while queue.threads.len() < READERS && queue.stuck < MAX_STUCK {
            if queue.stuck > 0 {
                tracing::warn!(stuck = queue.stuck, "threads that read executed files don't come back from the kernel");
            }
            let (own, number) = (this.clone(), queue.next);
            let started = std::thread::Builder::new().name("digests".to_owned()).spawn(move || own.run(number));
            if let Err(error) = started {
                tracing::warn!(%error, "no thread to read executed files in");
                break;
            }
            queue.next += 1;
            queue.threads.insert(number, None);
        }
        if queue.threads.is_empty() || queue.waiting.len() >= MAX_WAITING {
            return false;
        }
        queue.waiting.push_back(job);
        drop(queue);
        this.more.notify_one();
        true
    }

    /// A thread, until somebody else has its place, or nobody wants digests any more.
    fn run(&self, number: u64) {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return;
            }
            let Some(since) = queue.threads.get_mut(&number) else {
                queue.stuck -= 1;
                return;
            };
            *since = None;
            let Some(job) = queue.waiting.pop_front() else {
                self.more.wait(&mut queue);
                continue;
            };
            queue.threads.insert(number, Some(Instant::now()));
            drop(queue);
            job.tell.send_replace(read(&job.executable, job.mounts));
            queue = self.queue.lock();
        }
    }
}

fn read(executable: &Executable, mounts: Option<File>) -> State {
    if !executable.is_local(mounts) {
        return State::Never;
    }
    let (began, Some(file)) = (Instant::now(), executable.open()) else { return State::Later };
    let mut file = file.take(MAX_BYTES + 1);
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => context.update(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return State::Later,
        }
        if began.elapsed() > MAX_READING {
            return State::Later;
        }
    }
    // Written meanwhile, it is another file's.
    let is_same = sys::file_identity(file.get_ref().as_fd()).is_ok_and(|now| now == executable.identity);
    if file.limit() == 0 || !is_same {
        return State::Later;
    }
    context.finish().as_ref().try_into().map_or(State::Later, State::Is)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use chaperone_ebpf_abi::CommandStart;

    use super::*;

    fn executable(path: &Path) -> Executable {
        let file = File::open(path).unwrap();
        let identity = sys::file_identity(file.as_fd()).unwrap();
        // SAFETY: all zeroes is a valid value of integers.
        let mut start: CommandStart = unsafe { std::mem::zeroed() };
        (start.inode, start.device) = (identity.inode, identity.kernel_device());
        Executable::named(path.to_str().unwrap(), &start).unwrap()
    }

    fn wait(digest: &mut ExecutableDigest) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        // A slow machine is no failure.
        digest.until += Duration::from_mins(1);
        let digest = runtime.block_on(digest.wait());
        digest.map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_is_read_once_until_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let mut digests = Digests::default();
        let mut first = digests.of(executable(&path), 1);
        let mut second = digests.of(executable(&path), 2);
        assert_eq!(first, second);
        assert_eq!([wait(&mut first), wait(&mut second)], [Some(ABC.to_owned()), Some(ABC.to_owned())]);
        fs::write(&path, "abcd").unwrap();
        let mut third = digests.of(executable(&path), 1);
        assert_ne!(third, first);
        assert!(wait(&mut third).is_some_and(|digest| digest != ABC));
    }

    #[test]
    fn what_changed_before_it_was_read_has_no_digest_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let before = executable(&path);
        fs::write(&path, "another").unwrap();
        let mut digests = Digests::default();
        let identity = before.identity;
        assert_eq!(wait(&mut digests.of(before, 1)), None);
        assert_eq!(*digests.known[&identity].borrow(), State::Later);
    }

    #[test]
    fn a_cgroup_that_executes_more_than_its_budget_has_no_digests_and_others_do() {
        let folder = tempfile::tempdir().unwrap();
        let large = |name: &str| {
            let path = folder.path().join(name);
            File::create(&path).unwrap().set_len(200 << 20).unwrap();
            executable(&path)
        };
        let mut digests = Digests::default();
        for name in ["1", "2"] {
            assert!(digests.of(large(name), 1).state.is_some(), "{name}");
        }
        assert_eq!(digests.of(large("3"), 1), ExecutableDigest::none());
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        assert_eq!(wait(&mut digests.of(executable(&path), 2)).as_deref(), Some(ABC));
    }

    #[test]
    fn a_budget_grows_with_time_and_no_further_than_whole() {
        let (mut budgets, began) = (Budgets::default(), Instant::now());
        assert!(budgets.spend(1, BUDGET, began));
        assert!(!budgets.spend(1, LEAST, began));
        let second = began + Duration::from_secs(1);
        assert!(!budgets.spend(1, BUDGET_A_SECOND + 1, second));
        assert!(budgets.spend(1, BUDGET_A_SECOND, second));
        let day = began + Duration::from_hours(24);
        assert!(!budgets.spend(1, BUDGET + 1, day));
        assert!(budgets.spend(1, BUDGET, day));
        // Those that are whole are forgotten for others; while none is, others have none.
        let crowd = u64::try_from(MAX_BUDGETS).unwrap();
        for cgroup in 2..=crowd {
            assert!(budgets.spend(cgroup, LEAST, day));
        }
        assert!(!budgets.spend(crowd + 1, LEAST, day));
        assert!(budgets.spend(crowd + 1, LEAST, day + Duration::from_hours(1)));
        assert_eq!(budgets.0.len(), 1);
    }

    #[test]
    fn a_thread_that_does_not_come_back_is_replaced_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let readers = Arc::new(Readers::default());
        let long_ago = Instant::now().checked_sub(STUCK * 2).unwrap();
        let read = || {
            let (tell, state) = watch::channel(State::Reading);
            let room = Readers::read(&readers, Job { executable: executable(&path), mounts: None, tell });
            room.then(|| ExecutableDigest { state: Some(state), until: Instant::now() })
        };
        // As if threads with these numbers had been stuck for long.
        for number in 1000..1000 + MAX_STUCK as u64 - 1 {
            readers.queue.lock().threads.insert(number, Some(long_ago));
        }
        assert_eq!(wait(&mut read().unwrap()).as_deref(), Some(ABC));
        assert_eq!(readers.queue.lock().stuck, MAX_STUCK - 1);
        // One more, and no other is started; those that are there go on.
        readers.queue.lock().threads.insert(2000, Some(long_ago));
        assert_eq!(wait(&mut read().unwrap()).as_deref(), Some(ABC));
        let mut queue = readers.queue.lock();
        assert_eq!((queue.stuck, queue.threads.len()), (MAX_STUCK, READERS));
        queue.threads.values_mut().for_each(|since| *since = Some(long_ago));
        drop(queue);
        assert!(read().is_none());
    }
}
