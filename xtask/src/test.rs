//! `cargo xtask test`: everything that must hold, in one command; CI runs nothing else.

use std::{path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::{bpf, clients, place, setup, vm};

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
}

const ALL: [Part; 8] = [Part::Fmt, Part::Clippy, Part::Doc, Part::Deny, Part::Unit, Part::Bpf, Part::System, Part::Vm];
const CARGO_DENY: &str = "0.20.2";

/// Runs the parts, all of them even if one fails, and says which did.
pub fn run(options: &Options) -> Result<()> {
    let parts: Vec<_> = ALL.into_iter().filter(|part| options.only.is_empty() || options.only.contains(part)).collect();
    let mut ready = None;
    let target = place::target()?;
    place::room(&target, if target.join("debug/deps").exists() { 2 } else { 12 }, "building all tests")?;
    place::room(&std::env::temp_dir(), 3, "the labs of the tests")?;
    if parts.contains(&Part::Unit) || parts.contains(&Part::System) {
        println!("== set-up ==");
        ready = Some(setup::lab()?);
    }
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
    println!("\n== summary ==");
    for (part, passed, took) in &outcomes {
        println!("{:<8} {:<7} {:>5} s", name(*part), if *passed { "passed" } else { "FAILED" }, took.as_secs());
    }
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
        ),
        Part::Deny => deny(&place::target()?),
        Part::Unit => {
            let ready = ready.context("BUG: unit tests without set-up")?;
            let mut command = place::cargo();
            command.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
            command.env("CHAPERONE_TEST_PYTHON", ready.venv.join("bin/python"));
            setup::run(command.args(["--"]).args(&options.filter))
        }
        Part::Bpf => bpf::build(&root, true),
        Part::Vm => vm::run(&vm::Options::oldest_and_newest(options.filter.as_deref())),
        Part::System => {
            let ready = ready.context("BUG: system tests without set-up")?;
            let mut command = place::cargo();
            let features = if options.all_clients { "whole-system,all-clients" } else { "whole-system" };
            command.args(["test", "--locked", "-p", "chaperone-system-tests", "--features", features]);
            command.env("CHAPERONE_CLIENTS", clients::install(options.all_clients)?);
            command.args(["--tests", "--no-fail-fast"]);
            command.env("CHAPERONE_XTASK", std::env::current_exe().context("finding this program")?);
            command.env("CHAPERONE_BIN", ready.bin.join("chaperone"));
            command.env("CHAPERONE_TEST_PYTHON", ready.venv.join("bin/python"));
            setup::run(command.args(["--", "--test-threads=2"]).args(&options.filter))
        }
    }
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
        std::fs::remove_dir_all(tools.join("build")).context("removing what cargo-deny was built from")?;
    }
    setup::run(
        Command::new(program).current_dir(place::root()).args(["--locked", "check", "bans", "licenses", "sources"]),
    )
}

fn name(part: Part) -> String {
    part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
