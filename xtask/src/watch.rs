//! Test programs, run so that no test can hang: each has a time, and one that passes it is named and ended, with all that
//! it started.
//!
//! libtest says nothing of how long a test may take. What it prints as it goes is enough: with one thread, a test's name
//! when it begins; with more, its name when it has run for a minute. cargo-nextest would do the same with a process for
//! each test, in which every test of `chaperone-aws` would unpack the catalog again, and takes six minutes to build.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{place, setup};

/// For one test.
const BOUND: Duration = Duration::from_mins(2);
/// After so long libtest, with more than one thread, says that a test still runs.
const TOLD_AFTER: Duration = Duration::from_mins(1);
/// From a program's start to its first test, and from its last to its end.
const SILENCE: Duration = Duration::from_mins(2);
/// Tests that take longer than [`BOUND`] when all is well, with their times.
const LONG: [(&str, Duration); 2] = [
    // Clients that wait for people as long as those take.
    ("people_take_minutes", Duration::from_mins(25)),
    // Keycloak's JVM takes a minute and a half to begin where two processors do something else, too.
    ("agents_and_people_are_who_keycloak_says", Duration::from_mins(8)),
];
/// Programs whose tests wait for one another, and are therefore run one by one: the time that a test waits for its turn
/// isn't its own.
const SERIAL: [&str; 2] = ["kernel", "engines"];

/// A program with tests in it.
struct Program {
    name: String,
    package: PathBuf,
    path: PathBuf,
}

/// Builds and runs the tests that these arguments of `cargo test` choose, `threads` at once; those of the documentation
/// too, if `doc`.
pub fn test(
    arguments: &[&str],
    environment: &[(&str, PathBuf)],
    threads: usize,
    only: Option<&str>,
    doc: bool,
) -> Result<()> {
    let mut failed = Vec::new();
    for program in programs(arguments)? {
        let threads = if SERIAL.contains(&program.name.as_str()) { 1 } else { threads };
        let mut command = Command::new(&program.path);
        command.current_dir(&program.package).env("CARGO_MANIFEST_DIR", &program.package);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.arg(format!("--test-threads={threads}")).args(only);
        println!("\n{} ({})", program.name, program.package.display());
        if let Err(error) = watch(command, threads) {
            println!("{}: {error:#}", program.name);
            failed.push(program.name);
        }
    }
    if doc {
        let mut command = place::cargo();
        command.args(["test", "--doc"]).args(arguments).arg("--").args(only);
        println!("\ndocumentation");
        if let Err(error) = setup::run(&mut command) {
            println!("documentation: {error:#}");
            failed.push("documentation".to_owned());
        }
    }
    ensure!(failed.is_empty(), "these test programs failed: {}", failed.join(", "));
    Ok(())
}

fn programs(arguments: &[&str]) -> Result<Vec<Program>> {
    let mut command = place::cargo();
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(arguments);
    let output = command.stderr(Stdio::inherit()).output().context("starting `cargo test --no-run`")?;
    ensure!(output.status.success(), "the tests could not be built: what cargo said is above");
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("reading what cargo built")?;
        let (Some(path), Some(manifest)) = (message["executable"].as_str(), message["manifest_path"].as_str()) else {
            continue;
        };
        if message["profile"]["test"] != true {
            continue;
        }
        let name = message["target"]["name"].as_str().unwrap_or("?").to_owned();
        let package = PathBuf::from(manifest).parent().map(PathBuf::from).unwrap_or_default();
        programs.push(Program { name, package, path: path.into() });
    }
    Ok(programs)
}

/// Runs one program to its end, or to the end of a test's time.
fn watch(mut command: Command, threads: usize) -> Result<()> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting it")?;
    let mut output = child.stdout.take().context("BUG: its output is a pipe")?;
    let (send, said) = channel();
    // It ends with the pipe, which something that a test left may keep open: nobody waits for it.
    std::thread::spawn(move || pass_on(&mut output, &send));
    let mut progress = Progress::new(threads, Instant::now());
    loop {
        match said.recv_timeout(Duration::from_millis(200)) {
            Ok(text) => progress.read(&text, Instant::now()),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if let Some(status) = child.try_wait().context("waiting for it")? {
            // What it said last may still be on its way.
            while let Ok(text) = said.recv_timeout(Duration::from_secs(1)) {
                progress.read(&text, Instant::now());
            }
            ensure!(status.success(), "it ended with {status}; what it said is above");
            return Ok(());
        }
        if let Some(overdue) = progress.overdue(Instant::now()) {
            end(&mut child);
            bail!("{overdue}: ended, with everything that it started");
        }
    }
}

fn pass_on(output: &mut impl std::io::Read, to: &Sender<String>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&buffer[..length]).and_then(|()| out.flush());
        if to.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
            return;
        }
    }
}

/// What is known of the tests that run, by what libtest prints.
struct Progress {
    threads: usize,
    /// A line's beginning.
    begun: String,
    /// When each of those that run must be over.
    due: BTreeMap<String, Instant>,
    over: BTreeSet<String>,
    /// When something must have been said.
    silent_until: Instant,
}

impl Progress {
    fn new(threads: usize, now: Instant) -> Self {
        Self { threads, begun: String::new(), due: BTreeMap::new(), over: BTreeSet::new(), silent_until: now + SILENCE }
    }

    fn read(&mut self, text: &str, now: Instant) {
        self.begun.push_str(text);
        let mut whole = self.begun.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
        self.begun = whole.pop_if(|last| !last.ends_with('\n')).unwrap_or_default();
        for line in &whole {
            self.line(line.trim_end(), now);
        }
        // With one thread the name stands there first.
        if self.threads == 1
            && let Some(name) = self.begun.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... "))
        {
            let name = name.to_owned();
            let bound = bound(&name);
            self.due.entry(name).or_insert(now + bound);
        }
    }

    fn line(&mut self, line: &str, now: Instant) {
        let Some(rest) = line.strip_prefix("test ") else { return };
        if let Some((name, _)) = rest.split_once(" has been running for over") {
            let due = now + bound(name).saturating_sub(TOLD_AFTER);
            if !self.over.contains(name) {
                self.due.entry(name.to_owned()).or_insert(due);
            }
        } else if let Some((name, _)) = rest.split_once(" ... ") {
            self.due.remove(name);
            self.over.insert(name.to_owned());
        } else {
            return;
        }
        self.silent_until = now + SILENCE;
    }

    /// Which test has passed its time.
    fn overdue(&self, now: Instant) -> Option<String> {
        if let Some((name, _)) = self.due.iter().find(|(_, due)| now >= **due) {
            return Some(format!("the test `{name}` took longer than its {} s", bound(name).as_secs()));
        }
        // A test that runs is known within a minute.
        (self.due.is_empty() && now >= self.silent_until)
            .then(|| format!("nothing was said for {} s, and no test runs", SILENCE.as_secs()))
    }
}

fn bound(name: &str) -> Duration {
    LONG.iter().find(|(long, _)| *long == name).map_or(BOUND, |(_, bound)| *bound)
}

/// Ends a program and all that it started, deepest first known: what isn't its child any more keeps its process group.
fn end(child: &mut Child) {
    let Ok(top) = i32::try_from(child.id()) else { return };
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut doomed = vec![top];
    let mut at = 0;
    while let Some(parent) = doomed.get(at).copied() {
        doomed.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    for pid in doomed {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_ends_is_not_waited_for_by_its_output() {
        let began = Instant::now();
        // What it leaves has its output open, as a killed doctor's probe once had.
        watch(shell("sleep 20 & echo 'test a ... ok'"), 2).unwrap();
        assert!(began.elapsed() < Duration::from_secs(15));
        assert!(watch(shell("exit 3"), 2).unwrap_err().to_string().contains("exit status: 3"));
    }

    #[test]
    fn a_test_that_passes_its_time_is_named() {
        let now = Instant::now();
        let mut many = Progress::new(2, now);
        many.read("running 3 tests\ntest a ... ok\ntest b has been run", now);
        many.read("ning for over 60 seconds\n", now);
        assert_eq!(many.overdue(now + Duration::from_secs(59)), None);
        assert!(many.overdue(now + Duration::from_secs(61)).unwrap().contains("`b`"));
        many.read("test b ... ok\ntest result: ok. 3 passed\n", now);
        assert_eq!(many.overdue(now + Duration::from_secs(100)), None);
        assert!(many.overdue(now + Duration::from_secs(121)).unwrap().contains("no test runs"));

        let mut one = Progress::new(1, now);
        one.read("test a::b ... ", now);
        assert_eq!(one.overdue(now + Duration::from_secs(119)), None);
        assert!(one.overdue(now + Duration::from_secs(121)).unwrap().contains("`a::b`"));
        one.read("ok\n", now);
        assert_eq!(one.overdue(now + Duration::from_secs(119)), None);
    }

    #[test]
    fn what_a_program_started_ends_with_it() {
        let mut child = shell("sleep 1000 & echo it; wait").stdout(Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        let mut output = child.stdout.take().unwrap();
        let mut first = [0; 3];
        output.read_exact(&mut first).unwrap();
        end(&mut child);
        // The pipe's end comes when nobody is left who has it.
        output.read_to_end(&mut said).unwrap();
        assert_eq!((&first[..], said.len()), (&b"it\n"[..], 0));
    }
}
