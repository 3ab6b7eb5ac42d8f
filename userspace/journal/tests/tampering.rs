//! What a crash tears is cut, and what somebody changes is found.

#![allow(clippy::unwrap_used)] // a test

#[path = "../src/samples.rs"]
#[allow(dead_code, unreachable_pub)]
mod samples;

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use chaperone_journal::{Journal, JournalConfig, JournalError, Kind, Reader, Record, VerifyOptions, verify};
use chaperone_model::{CallId, Direction, SessionId};
use proptest::prelude::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn config(dir: &Path) -> JournalConfig {
    JournalConfig { segment_bytes: 64 << 10, ..JournalConfig::new(dir) }
}

/// Writes `calls` calls with bodies; leaves the journal closed.
fn write(dir: &Path, calls: usize) {
    runtime().block_on(async {
        let (journal, _) = Journal::open(config(dir)).unwrap();
        let session = samples::session();
        journal.append(&samples::session_started(&session), false).await.unwrap();
        for n in 0..calls {
            one_call(&journal, session.id, n).await;
        }
        journal.close().await.unwrap();
    });
}

async fn one_call(journal: &Journal, session: SessionId, n: usize) {
    let call = CallId::new();
    journal.append(&samples::intent(call, session), true).await.unwrap();
    let mut request = journal.body(call, Direction::Request);
    request.push(Bytes::from(vec![1; 100 + n])).unwrap();
    let mut response = journal.body(call, Direction::Response);
    response.push(Bytes::from(vec![2; 5000])).unwrap();
    response.push(Bytes::from(vec![3; 50])).unwrap();
    let (request, response) = (Some(request.finish()), Some(response.finish()));
    journal.append(&samples::outcome(call, session, request, response), true).await.unwrap();
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    files.sort();
    files
}

fn records(dir: &Path) -> Vec<Record> {
    let mut reader = Reader::open(dir).unwrap();
    std::iter::from_fn(|| reader.next_record().unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn flip(path: &Path, at: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

#[test]
fn every_byte_of_a_small_journal_matters() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1);
    let records = records(dir.path());
    let end = records.last().unwrap().position().offset;
    let path = &segment_files(dir.path())[0];
    assert!(verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().is_clean());
    // All of the records, and some of the zeros behind them.
    for at in (0..end + 300).chain([60_000]) {
        let bit = u8::try_from(at % 8).unwrap();
        flip(path, at, bit);
        let wrong = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().wrong;
        let wrong = wrong.unwrap_or_else(|| panic!("bit {bit} of byte {at} was not found"));
        let hit = records.iter().find(|record| (record.offset..record.position().offset).contains(&at));
        if let Some(hit) = hit {
            assert_eq!((wrong.offset, wrong.seq), (hit.offset, hit.head.seq), "byte {at}: {wrong}");
        }
        flip(path, at, bit);
    }
    assert!(verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().is_clean());
}

/// Segments are made before they are needed: the one behind the last record holds nothing but zeros.
#[test]
fn a_flipped_bit_in_the_segment_that_is_not_begun_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 60);
    let last = records(dir.path()).last().unwrap().segment;
    let path = dir.path().join(format!("{:012}.segment", last + 1));
    if !path.exists() {
        fs::write(&path, vec![0; 65_536]).unwrap();
    }
    for at in [0, 1, 7, 8, 63, 119, 120, 4_096, 65_535] {
        flip(&path, at, 0);
        let wrong = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().wrong.unwrap();
        assert_eq!(wrong.file, path, "byte {at}: {wrong}");
        flip(&path, at, 0);
    }
    assert!(verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().is_clean());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_in_any_segment_is_named(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        static MADE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
        let original = MADE.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), 60);
            dir
        });
        let dir = tempfile::tempdir().unwrap();
        copy(original.path(), dir.path());
        let files = segment_files(dir.path());
        prop_assert!(files.len() > 4);
        let total: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        let mut at = place.index(usize::try_from(total).unwrap()) as u64;
        let file = files
            .iter()
            .find(|file| {
                let length = fs::metadata(file).unwrap().len();
                let here = at < length;
                at -= if here { 0 } else { length };
                here
            })
            .unwrap();
        flip(file, at, bit);
        let wrong = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().wrong;
        prop_assert!(wrong.is_some(), "bit {} of byte {} of {}", bit, at, file.display());
        prop_assert_eq!(&wrong.unwrap().file, file);
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_journal_goes_on() {
    let made = tempfile::tempdir().unwrap();
    write(made.path(), 1);
    let before = records(made.path());
    // A crash within the last commit: everything after its beginning may be there or not.
    let (checkpoint, last) = (before.last().unwrap(), &before[before.len() - 2]);
    assert_eq!((checkpoint.head.kind, last.head.kind), (Kind::Checkpoint, Kind::Event));
    let end = checkpoint.position().offset;
    for cut in (checkpoint.offset + 1..end).step_by(7).chain([end - 1, last.offset + 1, last.offset + 130]) {
        let dir = tempfile::tempdir().unwrap();
        copy(made.path(), dir.path());
        let path = segment_files(dir.path())[0].clone();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; usize::try_from(end - cut).unwrap()], cut).unwrap();

        let intact = before.iter().filter(|record| record.position().offset <= cut).count();
        let (journal, recovered) = Journal::open(config(dir.path())).unwrap();
        let torn = recovered.torn.unwrap_or_else(|| panic!("cut at {cut}"));
        let kept = &before[intact];
        assert_eq!(torn.offset, kept.offset);
        assert_eq!(fs::metadata(dir.path().join(&torn.kept_in)).unwrap().len(), torn.bytes);
        runtime().block_on(async {
            one_call(&journal, SessionId::new(), 1).await;
            journal.close().await.unwrap();
        });
        drop(journal);
        let verification = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap();
        assert!(verification.is_clean(), "cut at {cut}: {:?}", verification.wrong);
        let after = records(dir.path());
        for (old, new) in before[..intact].iter().zip(&after) {
            assert_eq!(old.hash, new.hash);
        }
        assert!(after.iter().any(|record| record.head.kind == Kind::Recovery));
    }
}

#[test]
fn damage_before_the_last_commit_is_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 3);
    let records = records(dir.path());
    let path = &segment_files(dir.path())[0];
    let damaged = &records[records.len() / 2];
    flip(path, damaged.offset + 130, 3);
    let bytes = fs::read(path).unwrap();
    let error = Journal::open(config(dir.path())).err().unwrap();
    let JournalError::Damaged(wrong) = &error else { panic!("{error}") };
    assert_eq!(wrong.seq, damaged.head.seq);
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn a_record_in_a_body_does_not_pass_for_one_of_the_journal() {
    // An agent that knows the format sends whole records of a journal of its own, with every flag set.
    let (own, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(own.path(), 20);
    let forged = fs::read(&segment_files(own.path())[0]).unwrap();
    runtime().block_on(async {
        let (journal, _) = Journal::open(JournalConfig { segment_bytes: 1 << 20, ..config(dir.path()) }).unwrap();
        let call = CallId::new();
        journal.append(&samples::intent(call, SessionId::new()), true).await.unwrap();
        let mut body = journal.body(call, Direction::Request);
        body.push(Bytes::from(forged)).unwrap();
        drop(body);
        journal.close().await.unwrap();
    });
    let frame = records(dir.path()).into_iter().find(|record| record.head.kind == Kind::RequestBody).unwrap();
    let path = &segment_files(dir.path())[0];
    // The crash tore the frame's head off.
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 4], frame.offset).unwrap();
    let end = frame.position().offset;
    file.write_all_at(&vec![0; usize::try_from((1 << 20) - end).unwrap()], end).unwrap();
    drop(file);
    let (_, recovered) = Journal::open(JournalConfig { segment_bytes: 1 << 20, ..config(dir.path()) }).unwrap();
    assert_eq!(recovered.torn.unwrap().offset, frame.offset);
}

/// Something done to a journal's segments.
type Change = fn(&[PathBuf]);

#[test]
fn removed_moved_and_foreign_segments_are_found() {
    let made = tempfile::tempdir().unwrap();
    write(made.path(), 60);
    let count = segment_files(made.path()).len();
    assert!(count > 4);
    let changes: [(&str, Change); 4] = [
        ("first removed", |files| fs::remove_file(&files[0]).unwrap()),
        ("middle removed", |files| fs::remove_file(&files[2]).unwrap()),
        ("two exchanged", |files| {
            let other = files[1].with_extension("x");
            fs::rename(&files[1], &other).unwrap();
            fs::rename(&files[2], &files[1]).unwrap();
            fs::rename(&other, &files[2]).unwrap();
        }),
        ("seal cut off", |files| {
            let file = OpenOptions::new().write(true).open(&files[1]).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length - 400).unwrap();
        }),
    ];
    for (name, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        copy(made.path(), dir.path());
        change(&segment_files(dir.path()));
        let verification = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap();
        assert!(verification.wrong.is_some(), "{name}");
    }
}

#[test]
fn a_witness_and_a_pinned_key_tell_what_the_journal_alone_cannot() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(dir.path(), 2);
    write(other.path(), 1);
    let last = records(dir.path()).last().unwrap().position();
    let options = VerifyOptions { witness: Some((last.seq, last.hash)), ..VerifyOptions::default() };
    assert!(verify(dir.path(), &options, |_, _| {}).unwrap().is_clean());

    let key = chaperone_journal::PublicKey::of_journal(other.path()).unwrap();
    let pinned = VerifyOptions { key: Some(key), ..VerifyOptions::default() };
    assert!(!verify(dir.path(), &pinned, |_, _| {}).unwrap().is_clean());

    // The last checkpoint disappears without a trace in the journal.
    let path = &segment_files(dir.path())[0];
    let cut = records(dir.path())[records(dir.path()).len() - 1].offset;
    let length = fs::metadata(path).unwrap().len();
    OpenOptions::new().write(true).open(path).unwrap().set_len(cut).unwrap();
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
    assert!(verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().is_clean());
    assert!(!verify(dir.path(), &options, |_, _| {}).unwrap().is_clean());
}

#[test]
fn retired_segments_are_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 60);
    let count = segment_files(dir.path()).len();
    runtime().block_on(async {
        let (journal, _) = Journal::open(config(dir.path())).unwrap();
        let shipped = *journal.subscribe().borrow();
        let retention = chaperone_journal::Retention { max_bytes: Some(200 << 10), max_age: None };
        let retirement = journal.retain(retention, shipped).await.unwrap().unwrap();
        assert!(retirement.through >= 1);
        assert!(journal.retain(retention, shipped).await.unwrap().is_none());
        one_call(&journal, SessionId::new(), 0).await;
        journal.close().await.unwrap();
    });
    assert!(segment_files(dir.path()).len() < count);
    let verification = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap();
    assert!(verification.is_clean(), "{:?}", verification.wrong);
    assert!(verification.first.0 > 1);
    // Removing one more is not covered by the record.
    fs::remove_file(&segment_files(dir.path())[0]).unwrap();
    assert!(!verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap().is_clean());
}
