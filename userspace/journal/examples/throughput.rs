//! How fast bodies get to disk, and for how much CPU.
//!
//!     cargo run --release -p chaperone-journal --example throughput -- [DIR] [MIB]
//!
//! Writes MIB (1024) mebibytes of body frames of 16 to 64 KiB, with and without O_DIRECT, alternating, twice. Then calls
//! without bodies, one at a time and 32 at a time, waiting for the operating system or for the disk.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // a measurement

#[path = "../src/samples.rs"]
#[allow(dead_code, unreachable_pub)]
mod samples;

use std::{future::poll_fn, path::Path, time::Instant};

use bytes::Bytes;
use chaperone_journal::{Journal, JournalConfig};
use chaperone_model::{CallId, Direction, SessionId};

fn cpu_seconds() -> f64 {
    use nix::sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    };
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

fn measure(dir: &Path, mib: usize, direct_io: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let frames: Vec<Bytes> = (1..=4).map(|n: u8| Bytes::from(vec![n; usize::from(n) * (16 << 10)])).collect();
    runtime.block_on(async {
        let (journal, recovered) = Journal::open(JournalConfig { direct_io, ..JournalConfig::new(dir) }).unwrap();
        let (call, session) = (CallId::new(), SessionId::new());
        journal.append(&samples::intent(call, session), true).await.unwrap();
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let mut body = journal.body(call, Direction::Request);
        let mut sent = 0;
        for frame in frames.iter().cycle() {
            poll_fn(|cx| body.poll_ready(cx)).await.unwrap();
            body.push(frame.clone()).unwrap();
            sent += frame.len();
            if sent >= mib << 20 {
                break;
            }
        }
        let digest = body.finish();
        journal.append(&samples::outcome(call, session, Some(digest), None), true).await.unwrap();
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!(
            "{:9} {mib} MiB: {elapsed:.2} s, {:.0} MiB/s, {cpu:.2} CPU-s (of it SHA-256 {:.2})",
            if recovered.direct_io { "O_DIRECT" } else { "buffered" },
            mib as f64 / elapsed,
            sha256_seconds(&frames, mib),
        );
        journal.close().await.unwrap();
    });
}

fn measure_calls(dir: &Path, at_a_time: usize, wait: bool) {
    const CALLS: usize = 20_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (journal, _) = Journal::open(JournalConfig::new(dir)).unwrap();
        let session = SessionId::new();
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..at_a_time {
            let journal = journal.clone();
            tasks.spawn(async move {
                let mut waits = Vec::new();
                for _ in 0..CALLS / at_a_time {
                    let call = CallId::new();
                    let began = Instant::now();
                    journal.append(&samples::intent(call, session), wait).await.unwrap();
                    waits.push(began.elapsed());
                    journal.append_now(&samples::outcome(call, session, None, None)).unwrap();
                }
                waits
            });
        }
        let mut waits = tasks.join_all().await.concat();
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        waits.sort_unstable();
        println!(
            "{at_a_time:2} at a time, waiting for {}: {:.0} calls/s, intent p50 {:?} p99 {:?}, {:.1} CPU-us a call",
            if wait { "the disk" } else { "the system" },
            CALLS as f64 / elapsed,
            waits[waits.len() / 2],
            waits[waits.len() * 99 / 100],
            cpu * 1e6 / CALLS as f64,
        );
        journal.close().await.unwrap();
    });
}

fn sha256_seconds(frames: &[Bytes], mib: usize) -> f64 {
    let cpu = cpu_seconds();
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut done = 0;
    for frame in frames.iter().cycle().take_while(|frame| {
        done += frame.len();
        done <= mib << 20
    }) {
        hash.update(frame);
    }
    let _digest = hash.finish();
    cpu_seconds() - cpu
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let mib = arguments.next().map_or(1024, |mib| mib.parse().unwrap());
    for direct_io in [true, false, true, false] {
        let dir = tempfile::tempdir_in(&parent).unwrap();
        measure(dir.path(), mib, direct_io);
    }
    for (at_a_time, wait) in [(1, false), (1, true), (32, false), (32, true)] {
        let dir = tempfile::tempdir_in(&parent).unwrap();
        measure_calls(dir.path(), at_a_time, wait);
    }
}
