//! `cargo xtask bench`: what a call costs through Chaperone, beside nginx and mitmproxy, before one and the same upstream.
//!
//! Every call through Chaperone in here is a whole one: captured by the hooks, its signature checked, decoded, decided,
//! signed again and recorded with both bodies. The two others pass bytes. All four proxies (`direct` is none) run side
//! by side and are measured in turns, so that what else the machine does falls on all of them alike.

mod floods;
mod hooks;
mod load;
mod report;
mod sign;
mod sink;
mod world;

use std::fmt;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::{load::measure, report::Report, world::World};
use crate::{place, setup};

/// What is measured and how.
#[derive(Debug, Args)]
pub struct Options {
    /// Print one JSON object instead of the tables.
    #[arg(long)]
    json: bool,
    /// One short round, for a first look: under 90 seconds.
    #[arg(long)]
    quick: bool,
    /// Only what the kernel hooks cost.
    #[arg(long, conflicts_with_all = ["quick", "only", "cases", "perf"])]
    hooks: bool,
    /// Only the stages of a call that have no system calls: decoding, checking and signing.
    #[arg(long, conflicts_with_all = ["quick", "only", "cases", "perf", "hooks", "json"])]
    stages: bool,
    /// Only what one agent's floods cost another, with the lab's build and real clients. Some three minutes.
    #[arg(long, conflicts_with_all = ["quick", "only", "cases", "perf", "hooks", "stages"])]
    floods: bool,
    /// How many rounds; the medians are shown.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Only these proxies.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PROXY,…")]
    only: Vec<Proxy>,
    /// Only these cases.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CASE,…")]
    cases: Vec<CaseName>,
    /// The cargo profile that Chaperone is built with.
    #[arg(long, default_value = "release", value_name = "NAME")]
    profile: String,
    /// Run everything at real-time priority: on a machine that has other work to do, which then waits.
    #[arg(long)]
    realtime: bool,
    /// Record where the daemon spends its time, for `perf report -i DIR/CASE.perf` (Debian's linux-perf).
    #[arg(long, value_name = "DIR")]
    perf: Option<std::path::PathBuf>,
}

/// What stands between the load and the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Proxy {
    /// Nothing.
    Direct,
    /// nginx, which decrypts, encrypts again and verifies the upstream.
    Nginx,
    /// mitmproxy, which does the same.
    Mitmproxy,
    /// This.
    Chaperone,
}

impl Proxy {
    const ALL: [Self; 4] = [Self::Direct, Self::Nginx, Self::Mitmproxy, Self::Chaperone];
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Mitmproxy => "mitmproxy",
            Self::Chaperone => "chaperone",
        })
    }
}

/// What is asked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum CaseName {
    /// `GetObject` of 1 KiB, connections kept.
    Small,
    /// The same, with a new TLS connection each time.
    Handshake,
    /// `GetObject` of a large object.
    Down,
    /// `PutObject` of a large object.
    Up,
    /// The same, in chunks that are signed one by one: checked, and signed again.
    Chunked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Case {
    name: CaseName,
    connections: u32,
}

impl Case {
    const ALL: [Self; 6] = [
        Self { name: CaseName::Small, connections: 1 },
        Self { name: CaseName::Small, connections: 32 },
        Self { name: CaseName::Handshake, connections: 8 },
        Self { name: CaseName::Down, connections: 1 },
        Self { name: CaseName::Up, connections: 1 },
        Self { name: CaseName::Chunked, connections: 1 },
    ];

    const fn is_large(self) -> bool {
        matches!(self.name, CaseName::Down | CaseName::Up | CaseName::Chunked)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.name {
            CaseName::Small => "small",
            CaseName::Handshake => "handshake",
            CaseName::Down => "down",
            CaseName::Up => "up",
            CaseName::Chunked => "chunked",
        };
        f.pad(&format!("{name} {}", self.connections))
    }
}

/// How long and how much.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: u32,
    /// Seconds of load per sample.
    seconds: u32,
    warm_up: u32,
    /// Size of the large objects. The figures are given for 1 GiB, whatever it is.
    large_bytes: u64,
}

impl Effort {
    fn of(options: &Options) -> Self {
        if options.quick {
            Self { rounds: options.rounds.unwrap_or(1), seconds: 2, warm_up: 1, large_bytes: 256 << 20 }
        } else {
            Self { rounds: options.rounds.unwrap_or(3), seconds: 4, warm_up: 1, large_bytes: 1 << 30 }
        }
    }
}

/// What one core takes for each.
fn stages() -> Result<()> {
    for (of, example) in [("aws", "decoding"), ("aws", "rechunking"), ("masking", "speed")] {
        println!("== {example} ==");
        let of = format!("chaperone-{of}");
        let arguments = ["run", "--quiet", "--locked", "--release", "-p", &of, "--example", example];
        setup::run(place::cargo().args(arguments))?;
    }
    Ok(())
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    if options.stages {
        return stages();
    }
    if options.floods {
        return floods::run(options.json);
    }
    if options.hooks {
        return Report::default().with_hooks(hooks::measure()?).print(options.json);
    }
    let effort = Effort::of(options);
    ensure!(effort.rounds > 0, "--rounds 0 measures nothing");
    let chosen = |proxy: &Proxy| options.only.is_empty() || options.only.contains(proxy);
    let proxies: Vec<Proxy> = Proxy::ALL.into_iter().filter(chosen).collect();
    let chosen = |case: &Case| options.cases.is_empty() || options.cases.contains(&case.name);
    let cases: Vec<Case> = Case::ALL.into_iter().filter(chosen).collect();
    let daemon = proxies.contains(&Proxy::Chaperone).then(|| world::build(&options.profile)).transpose()?;
    let world = World::start(daemon.unwrap_or_default(), &proxies, effort.large_bytes, options.realtime)?;
    let mut report = Report::default();
    for round in 0..effort.rounds {
        for case in &cases {
            // Who goes first changes, so that nobody always inherits the same neighbour's caches.
            for turn in 0..proxies.len() {
                let proxy = proxies[(turn + round as usize) % proxies.len()];
                if case.is_large() && proxy == Proxy::Mitmproxy && round > 0 {
                    continue; // a minute of it would tell no more than one go
                }
                let sample = measure(&world, proxy, *case, effort, options.perf.as_deref())?;
                eprintln!("bench: round {} of {}, {case:<12} {proxy:<10} {sample}", round + 1, effort.rounds);
                report.add(proxy, *case, sample);
            }
        }
    }
    world.finish()?;
    if options.only.is_empty() && options.cases.is_empty() {
        report = report.with_hooks(hooks::measure()?);
    }
    report.print(options.json)
}
