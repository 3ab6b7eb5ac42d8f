//! Journals of other versions: the next one's, after which this one goes on, and the last one's.

#![allow(clippy::unwrap_used)] // a test

#[allow(unreachable_pub)]
mod next;
#[path = "../src/samples.rs"]
#[allow(dead_code, unreachable_pub)]
mod samples;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use bytes::Bytes;
use chaperone_journal::{
    CallFilter, Calls, Exchange, Journal, JournalConfig, JournalError, Kind, Reader, Record, Verification,
    VerifyOptions, verify,
};
use chaperone_model::{CallId, Direction, RecordedEvent, SessionId};
use next::{Segment, sha256, write_next_version};
use serde_json::json;

fn config(dir: &Path) -> JournalConfig {
    JournalConfig { segment_bytes: 256 << 10, ..JournalConfig::new(dir) }
}

async fn one_call(dir: &Path, session: SessionId) -> CallId {
    let (journal, _) = Journal::open(config(dir)).unwrap();
    let call = CallId::new();
    journal.append(&samples::intent(call, session), true).await.unwrap();
    let mut request = journal.body(call, Direction::Request);
    request.push(Bytes::from_static(b"asked")).unwrap();
    let outcome = samples::outcome(call, session, Some(request.finish()), None);
    journal.append(&outcome, true).await.unwrap();
    journal.close().await.unwrap();
    call
}

fn verified(dir: &Path) -> Verification {
    verify(dir, &VerifyOptions::default(), |_, _| {}).unwrap()
}

fn records(dir: &Path) -> Vec<Record> {
    let mut reader = Reader::open(dir).unwrap();
    std::iter::from_fn(|| reader.next_record().unwrap()).collect()
}

#[tokio::test]
async fn a_journal_of_the_next_version_is_verified_read_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionId::new();
    let first = one_call(dir.path(), session).await;
    let last = write_next_version(dir.path(), [0; 16]);

    // The call whose end isn't understood never began: that is wrong in any version.
    assert!(verified(dir.path()).wrong.unwrap().to_string().contains("which is not open"));

    let dir = tempfile::tempdir().unwrap();
    let first_too = one_call(dir.path(), session).await;
    assert_ne!(first, first_too);
    let open = CallId::new();
    let mut segment = Segment::begin(dir.path(), &json!({ "format": 1, "minor": 78, "written_by": "9.9.8" }));
    let mut intent = serde_json::to_value(samples::intent(open, session)).unwrap();
    intent["decision"]["verdict"] = json!("held");
    segment.event(*open.as_bytes(), &intent);
    // Of a body in a codec of the next version, the chain covers what is recorded.
    segment.record(4, 0x20, *open.as_bytes(), 0, sha256(b"sealed"), b"sealed");
    segment.end();
    let last_too = write_next_version(dir.path(), *open.as_bytes());
    assert!(last_too > last);

    let before = verified(dir.path());
    assert!(before.is_clean(), "{before:?}");
    assert_eq!(
        (before.unknown_events, before.unknown_records, before.unknown_flags, before.encoded_bodies),
        (3, 1, 2, 1)
    );
    assert_eq!((before.open_calls, before.signed.0 + 1), (0, last_too));

    // A start goes on behind it, and has nothing to close.
    let (journal, recovered) = Journal::open(config(dir.path())).unwrap();
    assert!(recovered.interrupted.is_empty() && recovered.torn.is_none(), "{recovered:?}");
    journal.close().await.unwrap();
    drop(journal);
    let second = one_call(dir.path(), session).await;
    let after = verified(dir.path());
    assert!(after.is_clean(), "{after:?}");
    assert_eq!((after.unknown_events, after.calls), (3, 3));

    // What it doesn't know is as it was, and lists show what it knows.
    let all = records(dir.path());
    let held = all.iter().find(|record| record.head.id == [7; 16]).unwrap();
    assert_eq!(held.recorded_event().unwrap(), Some(RecordedEvent::Unknown("call-held".into())));
    let binary = all.iter().find(|record| record.head.kind == Kind::Unknown(200)).unwrap();
    assert_eq!((&binary.payload[..], binary.head.flags, binary.head.body_offset), (&b"\xff\0binary"[..], 0x84, 5));
    let mut calls = Calls::scan(dir.path(), CallFilter::default()).unwrap();
    let listed: Vec<_> = std::iter::from_fn(|| calls.next_row().unwrap()).map(|row| row.id).collect();
    assert_eq!(listed, [first_too, second]);

    // Reading on from the middle of its segment knows whose it is.
    let mut resumed = Reader::resume(dir.path(), held.position()).unwrap();
    assert_eq!(resumed.next_record().unwrap().unwrap().event().unwrap().unwrap().name(), "daemon-stopped");
    assert!(matches!(resumed.next_record().unwrap().unwrap().event(), Ok(None)));
}

#[tokio::test]
async fn a_call_that_the_next_version_left_open_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionId::new();
    one_call(dir.path(), session).await;
    let open = CallId::new();
    let mut segment = Segment::begin(dir.path(), &json!({ "minor": 77 }));
    let mut intent = serde_json::to_value(samples::intent(open, session)).unwrap();
    intent["decision"]["verdict"] = json!("held");
    segment.event(*open.as_bytes(), &intent);
    segment.end();
    let (journal, recovered) = Journal::open(config(dir.path())).unwrap();
    assert_eq!(recovered.interrupted, [open]);
    journal.close().await.unwrap();
    assert!(verified(dir.path()).is_clean());
}

#[tokio::test]
async fn what_must_be_understood_and_is_not_is_refused_by_every_reader() {
    for (members, needs) in [
        (json!({ "requires": ["sealed-heads"], "written_by": "9.9.9" }), "the feature `sealed-heads`"),
        (json!({ "requires": ["a", "b"], "written_by": "9.9.9" }), "the feature `a` and the feature `b`"),
        (json!({ "format": 2, "written_by": "9.9.9" }), "format 2"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let call = one_call(dir.path(), SessionId::new()).await;
        let mut segment = Segment::begin(dir.path(), &members);
        segment.event([7; 16], &json!({ "event": "call-held" }));
        segment.end();
        let last = fs::read(dir.path().join("000000000002.segment")).unwrap();
        let refused = |error: JournalError| {
            let text = error.to_string();
            assert!(matches!(error, JournalError::Newer { .. }), "{text}");
            for said in [needs, "Chaperone 9.9.9", "000000000002.segment", "run that version", "[journal]"] {
                assert!(text.contains(said), "{said}: {text}");
            }
        };
        refused(Journal::open(config(dir.path())).map(drop).unwrap_err());
        refused(verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap_err());
        let mut reader = Reader::open(dir.path()).unwrap();
        refused(std::iter::from_fn(|| reader.next_record().transpose()).find_map(Result::err).unwrap());
        let mut calls = Calls::scan(dir.path(), CallFilter::default()).unwrap();
        assert_eq!(calls.next_row().unwrap().unwrap().id, call);
        refused(calls.next_row().unwrap_err());
        assert_eq!(fs::read(dir.path().join("000000000002.segment")).unwrap(), last, "nothing was changed");
    }
}

/// The folder was written by the last version whose headers had no format, with `segment_bytes` of 64 KiB.
#[tokio::test]
async fn a_journal_of_the_version_before_is_read_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/before_formats");
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = dir.path().join(path.file_name().unwrap());
        fs::copy(&path, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let before = verified(dir.path());
    assert!(before.is_clean(), "{before:?}");
    assert_eq!((before.segments, before.calls, before.open_calls), (2, 21, 1));
    let (journal, recovered) = Journal::open(JournalConfig { segment_bytes: 64 << 10, ..config(dir.path()) }).unwrap();
    assert_eq!((recovered.interrupted.len(), recovered.sessions.len(), recovered.is_new), (1, 1, false));
    let interrupted = recovered.interrupted[0];
    journal.close().await.unwrap();
    drop(journal);
    one_call(dir.path(), recovered.sessions[0].id).await;
    let after = verified(dir.path());
    assert!(after.is_clean(), "{after:?}");
    assert_eq!((after.calls, after.unknown_events, after.unknown_flags), (22, 0, 0));
    let mut body = Exchange::find(dir.path(), interrupted).unwrap().unwrap().body(Direction::Request).unwrap();
    assert_eq!(body.next_part().unwrap().unwrap(), Bytes::from(vec![20; 5000]));
}
