//! `cargo xtask test`: everything that must hold, in one command; CI runs nothing else.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::{alerts, bpf, clients, place, setup, vm, watch};

/// Arguments of `cargo xtask test`.
#[derive(Args, Debug)]
pub struct Options {
    /// Only these parts; all, if none is named.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// For the unit and system tests: only those with this in their name.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Whole-system tests of those clients too that take minutes and some hundred megabytes to install.
    #[arg(long)]
    all_clients: bool,
    /// Of the clients that take long to install, these alone: for the tests that `--filter` names, and need no other.
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "all_clients")]
    clients: Vec<String>,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting.
    Fmt,
    /// Lints, of every target.
    Clippy,
    /// Documentation without warnings.
    Doc,
    /// Licences, bans and sources of dependencies.
    Deny,
    /// Unit and crate tests, those with eBPF and ClickHouse among them.
    Unit,
    /// The committed eBPF object is what its sources make.
    Bpf,
    /// Unmodified clients against the whole system, in labs.
    System,
    /// The kernel tests on the oldest and the newest kernel, in virtual machines.
    Vm,
    /// Alert rules and metrics, by Prometheus' own program; only when named.
    Alerts,
}

const ALL: [Part; 8] = [Part::Fmt, Part::Clippy, Part::Doc, Part::Deny, Part::Unit, Part::Bpf, Part::System, Part::Vm];
/// What the parts took, by name, in seconds.
const TIMES: &str = "xtask-test-times.json";
const CARGO_DENY: &str = "0.20.2";

impl Part {
    /// About how long it takes on two cores, in minutes: from nothing, and when most is built.
    const fn minutes(self) -> (u64, u64) {
        match self {
            Self::Fmt => (0, 0),
            Self::Clippy | Self::Alerts => (6, 1),
            Self::Doc => (3, 1),
            Self::Deny => (4, 0),
            Self::Unit => (12, 5),
            Self::Bpf => (2, 1),
            Self::System => (14, 12),
            Self::Vm => (6, 4),
        }
    }
}

/// Says what is to come: what each part took when it last passed here, or else about what it takes anywhere.
fn announce(parts: &[Part], target: &Path) {
    let last: BTreeMap<String, u64> =
        fs::read(target.join(TIMES)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let built = target.join("debug/deps").exists();
    let mut sum = 0;
    let times: Vec<_> = parts
        .iter()
        .map(|part| {
            let (nothing, most) = part.minutes();
            let seconds = last.get(&name(*part)).copied().unwrap_or(60 * if built { most } else { nothing });
            sum += seconds;
            format!("{} {}", name(*part), spoken(seconds))
        })
        .collect();
    println!("this will take about {} on two cores ({})", spoken(sum), times.join(", "));
}

/// Keeps what the parts took for the next time.
fn keep_times(outcomes: &[(Part, bool, Duration)], target: &Path) {
    let file = target.join(TIMES);
    let mut times: BTreeMap<String, u64> =
        fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    times.extend(outcomes.iter().filter(|(_, passed, _)| *passed).map(|(part, _, took)| (name(*part), took.as_secs())));
    // Without them the next run says what is usual.
    let _ = serde_json::to_vec(&times).map(|text| fs::write(file, text));
}

fn spoken(seconds: u64) -> String {
    if seconds < 90 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}

/// Runs the parts, all of them even if one fails, and says which did.
pub fn run(options: &Options) -> Result<()> {
    let mut parts: Vec<_> =
        ALL.into_iter().filter(|part| options.only.is_empty() || options.only.contains(part)).collect();
    parts.extend(options.only.contains(&Part::Alerts).then_some(Part::Alerts));
    let mut ready = None;
    let target = place::target()?;
    place::room(&target, if target.join("debug/deps").exists() { 2 } else { 12 }, "building all tests")?;
    place::room(&std::env::temp_dir(), 3, "the labs of the tests")?;
    let whole = Instant::now();
    if options.filter.is_none() {
        announce(&parts, &target);
    }
    if [Part::Unit, Part::System, Part::Alerts].iter().any(|part| parts.contains(part)) {
        println!("== set-up ==");
        ready = Some(setup::lab()?);
    }
    let set_up = whole.elapsed();
    let mut outcomes = Vec::new();
    for part in parts {
        println!("\n== {} ==", name(part));
        let began = Instant::now();
        let outcome = run_part(part, options, ready.as_ref());
        if let Err(error) = &outcome {
            println!("{}: {error:#}", name(part));
        }
        outcomes.push((part, outcome.is_ok(), began.elapsed()));
    }
    if options.filter.is_none() {
        keep_times(&outcomes, &target);
    }
    println!("\n== summary ==");
    println!("{:<8} {:<7} {:>5} s", "set-up", "passed", set_up.as_secs());
    for (part, passed, took) in &outcomes {
        println!("{:<8} {:<7} {:>5} s", name(*part), if *passed { "passed" } else { "FAILED" }, took.as_secs());
    }
    println!("{:<8} {:<7} {:>5} s", "all", "", whole.elapsed().as_secs());
    if outcomes.iter().any(|(_, passed, _)| !passed) {
        bail!("not everything passed: what each part said is above");
    }
    Ok(())
}

fn run_part(part: Part, options: &Options, ready: Option<&setup::Ready>) -> Result<()> {
    let root = place::root();
    match part {
        Part::Fmt => setup::run(place::cargo().args(["fmt", "--all", "--check"])),
        Part::Clippy => setup::run(place::cargo().args([
            "clippy",
            "--quiet",
            "--locked",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ])),
        Part::Doc => setup::run(
            place::cargo()
                .args(["doc", "--quiet", "--locked", "--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
        .and_then(|()| crate::docs::run()),
        Part::Deny => deny(&place::target()?),
        Part::Unit => {
            let ready = ready.context("BUG: unit tests without set-up")?;
            let environment = [("CHAPERONE_TEST_PYTHON", ready.venv.join("bin/python"))];
            let threads = std::thread::available_parallelism().map_or(2, usize::from);
            watch::test(&["--locked", "--workspace"], &environment, threads, options.filter.as_deref(), true)
        }
        Part::Alerts => alerts::run(&kept_program(&place::target()?)?),
        Part::Bpf => bpf::build(&root, true),
        Part::Vm => vm::run(&vm::Options::oldest_and_newest(options.filter.as_deref())),
        Part::System => {
            let ready = ready.context("BUG: system tests without set-up")?;
            let heavy =
                if options.all_clients { clients::HEAVY.map(str::to_owned).to_vec() } else { options.clients.clone() };
            let features = if heavy.is_empty() { "whole-system" } else { "whole-system,all-clients" };
            let environment = [
                ("CHAPERONE_BIN", ready.bin.join("chaperone")),
                ("CHAPERONE_CLIENTS", clients::install(&heavy)?),
                ("CHAPERONE_TEST_PYTHON", ready.venv.join("bin/python")),
                ("CHAPERONE_XTASK", kept_program(&place::target()?)?),
            ];
            let arguments = ["--locked", "-p", "chaperone-system-tests", "--features", features, "--tests"];
            watch::test(&arguments, &environment, 2, options.filter.as_deref(), false)
        }
    }
}

/// A copy of this program, for the labs: what cargo builds for the tests may replace the file that this one was started
/// from, and `current_exe` then names a file that isn't there.
fn kept_program(target: &Path) -> Result<PathBuf> {
    let folder = target.join("xtask-kept");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (new, kept) = (folder.join(format!("xtask.{}", std::process::id())), folder.join("xtask"));
    fs::copy("/proc/self/exe", &new).with_context(|| format!("copying this program to {}", new.display()))?;
    fs::rename(&new, &kept).with_context(|| format!("naming {}", kept.display()))?;
    Ok(kept)
}

/// Advisories are left to where the network is: their database is fetched by git.
fn deny(target: &Path) -> Result<()> {
    let tools = target.join("tools");
    let program = tools.join("bin/cargo-deny");
    let fits = Command::new(&program)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(CARGO_DENY));
    if !fits {
        println!("installing cargo-deny {CARGO_DENY} into {}: some minutes, once", tools.display());
        setup::run(
            place::cargo()
                .current_dir("/")
                .args(["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY, "--root"])
                .arg(&tools)
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
                .env("CARGO_TARGET_DIR", tools.join("build")),
        )?;
        fs::remove_dir_all(tools.join("build")).context("removing what cargo-deny was built from")?;
    }
    setup::run(
        Command::new(program).current_dir(place::root()).args(["--locked", "check", "bans", "licenses", "sources"]),
    )
}

fn name(part: Part) -> String {
    part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
