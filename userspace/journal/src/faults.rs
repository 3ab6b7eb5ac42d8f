//! Tests with a disk that fails when told to.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use chaperone_model::{CallId, Direction, SessionId};

use crate::{
    Journal, JournalConfig, JournalError, VerifyOptions,
    disk::{Disk, OsDisk},
    samples, verify,
};

/// Switches shared with the test.
#[derive(Clone, Default)]
struct Faulty {
    write: Arc<AtomicBool>,
    sync: Arc<AtomicBool>,
    allocate: Arc<AtomicBool>,
    /// Writes that fail get this many bytes to the disk first.
    torn: Arc<AtomicU64>,
}

impl Disk for Faulty {
    fn write(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.write.load(Ordering::SeqCst) {
            let n = usize::try_from(self.torn.load(Ordering::SeqCst)).unwrap().min(bytes.len());
            file.write_all_at(&bytes[..n], offset)?;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        OsDisk.write(file, bytes, offset)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        if self.sync.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        OsDisk.sync(file)
    }

    fn allocate(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        if self.allocate.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        OsDisk.allocate(file, bytes)
    }
}

fn config(dir: &Path) -> JournalConfig {
    // Torn writes of any length need the page cache.
    JournalConfig { segment_bytes: 128 << 10, direct_io: false, ..JournalConfig::new(dir) }
}

/// Waits for the writer to have noticed: each refused append asks it to try again.
async fn until_taken(journal: &Journal, session: SessionId) -> CallId {
    loop {
        let call = CallId::new();
        match journal.append(&samples::intent(call, session), true).await {
            Ok(()) => return call,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_are_refused_while_writes_fail_and_go_on_afterwards() {
    for failing_sync in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Faulty::default();
        let (journal, _) = Journal::open_on(config(dir.path()), Box::new(disk.clone())).unwrap();
        let session = SessionId::new();
        let begun = CallId::new();
        journal.append(&samples::intent(begun, session), true).await.unwrap();

        let switch = if failing_sync { &disk.sync } else { &disk.write };
        disk.torn.store(700, Ordering::SeqCst);
        switch.store(true, Ordering::SeqCst);
        let refused = CallId::new();
        let error = journal.append(&samples::intent(refused, session), true).await.unwrap_err();
        assert!(matches!(error, JournalError::Io { .. }), "{error}");
        assert!(journal.trouble().is_some());
        assert!(journal.catch_up().await.is_err());
        // Nothing new, no bodies; but what ends is kept for later.
        let error = journal.append(&samples::intent(CallId::new(), session), false).await.unwrap_err();
        assert!(matches!(error, JournalError::Io { .. }), "{error}");
        assert!(journal.body(begun, Direction::Request).push(Bytes::from(vec![0; 9000])).is_err());
        journal.append_now(&samples::outcome(begun, session, None, None)).unwrap();
        journal.append_now(&samples::outcome(refused, session, None, None)).unwrap();

        switch.store(false, Ordering::SeqCst);
        let last = until_taken(&journal, session).await;
        journal.append_now(&samples::outcome(last, session, None, None)).unwrap();
        assert!(journal.trouble().is_none());
        journal.close().await.unwrap();
        let verification = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap();
        assert!(verification.is_clean(), "{verification:?}");
        assert_eq!(verification.open_calls, 0);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_begins_keeps_what_ends_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let (journal, _) = Journal::open_on(config(dir.path()), Box::new(disk.clone())).unwrap();
    let session = SessionId::new();
    disk.allocate.store(true, Ordering::SeqCst);
    let mut open = Vec::new();
    let mut acknowledged = 0;
    let error = loop {
        let call = CallId::new();
        match journal.append(&samples::intent(call, session), true).await {
            Ok(()) => {
                acknowledged += 1;
                open.push(call);
                if open.len() == 20 {
                    let done = open.remove(0);
                    journal.append_now(&samples::outcome(done, session, None, None)).unwrap();
                }
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(acknowledged > 20);
    // The reserve is for these, and they are durable.
    for call in open {
        journal.append(&samples::outcome(call, session, None, None), true).await.unwrap();
    }
    disk.allocate.store(false, Ordering::SeqCst);
    let call = until_taken(&journal, session).await;
    journal.append(&samples::outcome(call, session, None, None), true).await.unwrap();
    journal.close().await.unwrap();
    let verification = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap();
    assert!(verification.is_clean() && verification.open_calls == 0, "{verification:?}");
    assert!(verification.calls > acknowledged);
}

#[tokio::test]
async fn closing_with_a_dead_disk_says_so_and_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let (journal, _) = Journal::open_on(config(dir.path()), Box::new(disk.clone())).unwrap();
    disk.write.store(true, Ordering::SeqCst);
    journal.append(&samples::session_started(&samples::session()), false).await.unwrap();
    let error = journal.close().await.unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
}

#[tokio::test]
async fn bodies_wait_for_a_slow_disk_in_bounded_memory() {
    /// Writes only when the test lets it.
    struct Gate(std::sync::mpsc::Receiver<()>);
    impl Disk for Gate {
        fn write(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            let _opened_or_gone = self.0.recv();
            OsDisk.write(file, bytes, offset)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (open_gate, gate) = std::sync::mpsc::channel();
    for _ in 0..2 {
        open_gate.send(()).unwrap(); // the header and the intent
    }
    let config = JournalConfig { queue_bytes: 1 << 20, segment_bytes: 64 << 20, ..JournalConfig::new(dir.path()) };
    let (journal, _) = Journal::open_on(config, Box::new(Gate(gate))).unwrap();
    let (call, session) = (CallId::new(), SessionId::new());
    journal.append(&samples::intent(call, session), true).await.unwrap();
    let mut body = journal.body(call, Direction::Response);
    let frame = Bytes::from(vec![7; 64 << 10]);
    let mut taken = 0;
    // What the writer takes at once, and the queue; then no more.
    loop {
        let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(body.poll_ready(cx))).await;
        match ready {
            std::task::Poll::Ready(ready) => ready.unwrap(),
            std::task::Poll::Pending => break,
        }
        body.push(frame.clone()).unwrap();
        taken += frame.len();
        assert!(taken < 16 << 20, "nothing holds the body back");
    }
    drop(open_gate);
    std::future::poll_fn(|cx| body.poll_ready(cx)).await.unwrap();
    let digest = body.finish();
    assert_eq!(digest.bytes, taken as u64);
    journal.append(&samples::outcome(call, session, None, Some(digest)), true).await.unwrap();
    journal.close().await.unwrap();
    assert!(verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().is_clean());
}
