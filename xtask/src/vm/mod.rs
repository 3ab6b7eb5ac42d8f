//! `cargo xtask vm-test`: the kernel tests on this machine's kernel and on others, Debian's, each in a virtual machine
//! without acceleration; and the table of what was seen where.

mod aarch64;
mod kernels;
mod machine;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

pub use self::kernels::programs;
use self::table::{Run, Table};
use crate::{place, setup};

#[derive(Args, Debug)]
pub struct Options {
    /// Debian's kernel of this series, `newest`, or `host`, this machine's; may be given many times.
    #[arg(long = "kernel", value_name = "SERIES", default_values = [HOST, "6.1", "6.12", "6.18", "newest"])]
    kernels: Vec<String>,
    /// Look for newer kernels of the series, rather than take those that are there.
    #[arg(long)]
    update: bool,
    /// Seconds that a machine may take.
    #[arg(long, default_value_t = 3600)]
    timeout: u32,
    /// How many machines run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Of what a test does a thousand times, how often it is done in a machine: they are slow.
    #[arg(long, default_value_t = 200)]
    count: u32,
    /// Run nothing: make the table of what was said the last time, on each kernel that is in target/vm.
    #[arg(long, conflicts_with_all = ["arguments", "update"])]
    seen: bool,
    /// Print the table as JSON Lines.
    #[arg(long)]
    json: bool,
    /// Print the table as Markdown.
    #[arg(long)]
    markdown: bool,
    /// Write the table into docs/kernels.md.
    #[arg(long, conflicts_with = "arguments")]
    docs: bool,
    /// With `--docs`: keep the columns of series that weren't run.
    #[arg(long, requires = "docs")]
    keep: bool,
    /// The kernels of another architecture, alone; and the daemon, which is built for it and asked a few things.
    #[arg(long, value_enum, conflicts_with_all = ["kernels", "seen"])]
    arch: Option<Arch>,
    /// Arguments of the tests' binary, such as a part of a test's name.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Another architecture than this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// Of AWS's Graviton.
    Aarch64,
}

impl Options {
    /// As CI runs them: the oldest and the newest kernel.
    pub fn oldest_and_newest(filter: Option<&str>) -> Self {
        Self {
            kernels: vec!["6.1".to_owned(), kernels::NEWEST.to_owned()],
            update: false,
            timeout: 1800,
            jobs: 2,
            count: 50,
            seen: false,
            json: false,
            markdown: false,
            docs: false,
            keep: false,
            arch: None,
            arguments: filter.map(str::to_owned).into_iter().collect(),
        }
    }

    fn hardware(&self) -> &'static machine::Hardware {
        match self.arch {
            None => &machine::X86_64,
            Some(Arch::Aarch64) => &machine::AARCH64,
        }
    }
}

/// This machine's kernel, among the others.
const HOST: &str = "host";
/// What the tests said on a kernel is kept in a file with this at the end of its name.
const LOG: &str = ".tests.log";

/// Runs them all; an error if a test fails on any.
pub fn run(options: &Options) -> Result<()> {
    let folder = place::target()?.join("vm");
    if options.seen {
        return tell(seen(&folder)?, &[], options);
    }
    setup::vm()?;
    if options.arch == Some(Arch::Aarch64) {
        return tell(vec![aarch64::run(&folder.join("aarch64"), options)?], &[], options);
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let series: Vec<_> = options.kernels.iter().filter(|series| *series != HOST).cloned().collect();
    let kernels = kernels::fetch(&folder, "amd64", &series, options.update)?;
    let tests = tests(&mut place::cargo(), &[])?;
    let initramfs = machine::base(&folder, &tests)?;

    let mut runs = Vec::new();
    if series.len() < options.kernels.len() {
        runs.push(on_host(&folder, &tests, options)?);
    }
    let waiting = Mutex::new(kernels.into_iter().rev().collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(kernel) = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop() else { break };
                    let run = machine::run(&folder, &kernel, &initramfs, options);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((kernel.series, run));
                }
            });
        }
    });
    let mut broken = Vec::new();
    for (series, run) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        match run {
            Ok(run) => runs.push(run),
            Err(error) => broken.push(format!("{series}: {error:#}")),
        }
    }
    tell(runs, &broken, options)
}

/// What the last runs said that came to their end.
fn seen(folder: &Path) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(LOG) {
            let said = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            runs.extend(Run::of_log(&String::from_utf8_lossy(&said)).filter(Run::has_ended));
        }
    }
    Ok(runs)
}

fn tell(mut runs: Vec<Run>, broken: &[String], options: &Options) -> Result<()> {
    runs.sort_by_key(Run::order);
    for run in &runs {
        print!("{}", run.told());
    }
    let table = Table::of(&runs)?;
    if options.json {
        print!("{}", table.json()?);
    }
    if options.markdown {
        print!("{}", table.markdown());
    }
    if options.docs && broken.is_empty() {
        let docs = place::root().join("docs/kernels.md");
        if options.keep {
            let text = fs::read_to_string(&docs).with_context(|| format!("reading {}", docs.display()))?;
            let mut all = Run::of_table(&text);
            for before in &mut all {
                before.forget_all_but(&runs);
            }
            let series = |run: &Run| {
                let (foreign, numbers) = run.order();
                (foreign, numbers.into_iter().take(2).collect::<Vec<_>>())
            };
            all.retain(|before| runs.iter().all(|run| series(run) != series(before)));
            all.extend(runs.iter().cloned());
            all.sort_by_key(Run::order);
            Table::of(&all)?.write(&docs)?;
        } else {
            table.write(&docs)?;
        }
    }
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    let failed: Vec<_> = runs.iter().filter(|run| !run.passed()).map(|run| run.kernel.as_str()).collect();
    ensure!(failed.is_empty(), "the kernel tests failed on {}", failed.join(", "));
    Ok(())
}

/// The kernel tests' binary.
fn tests(cargo: &mut Command, target: &[&str]) -> Result<PathBuf> {
    cargo.args(["test", "--locked", "-p", "chaperone-capture", "--test", "kernel", "--no-run"]).args(target);
    cargo.arg("--message-format=json");
    let output = cargo.stderr(Stdio::inherit()).output().context("building the tests")?;
    ensure!(output.status.success(), "the kernel tests don't build");
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = text.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.context("cargo didn't say where the tests are")
}

/// On the kernel that runs; the tests of the LSM's hooks too, if it has them.
fn on_host(folder: &Path, tests: &Path, options: &Options) -> Result<Run> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's version")?;
    let lsm =
        fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|list| list.split(',').any(|name| name == "bpf"));
    let mut command = Command::new(tests);
    command.args(&options.arguments).args(["--test-threads=1", "--skip", "cost"]);
    if lsm {
        command.arg("--include-ignored");
    }
    let output = command.current_dir("/").stderr(Stdio::null()).output().context("running the tests")?;
    let said = format!("KERNEL {kernel}{}", String::from_utf8_lossy(&output.stdout));
    let log = folder.join(format!("{HOST}{LOG}"));
    fs::write(&log, &said).with_context(|| format!("writing {}", log.display()))?;
    let run = Run::of_log(&said).filter(Run::has_ended);
    run.with_context(|| {
        format!("the tests didn't come to an end on this machine: {}; see {}", output.status, log.display())
    })
}

/// The mirror of Debian's that the machine has, for all its releases.
pub(crate) fn mirror() -> Result<String> {
    mirrors().map(|(main, _)| main)
}

pub(crate) use kernels::mirrors;

/// What a program prints; an error if it fails.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {name}"))?;
    ensure!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first file below `folder` whose name is wanted.
pub(crate) fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let found = if is_folder {
            find(&entry.path(), wanted)
        } else {
            wanted(&entry.file_name().to_string_lossy()).then(|| entry.path())
        };
        if found.is_some() {
            return found;
        }
    }
    None
}
