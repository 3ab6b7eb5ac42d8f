//! What the tests said, as rows of ways around the capture by kernels.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, bail};

/// The tests' modules, in the table's order, and the ways around that they stand for.
const ROWS: [(&str, &str); 17] = [
    ("tcp", "TCP to :443, :80, :8443 and metadata addresses, by IPv4, IPv6, v4-mapped, Fast Open, MPTCP, `io_uring`"),
    ("udp", "UDP/443 (QUIC), connected or not"),
    ("sockets", "raw sockets, SCTP, DCCP; sockets that change hands"),
    ("lsm", "packet, XDP, vsock and SMC sockets; connections that change hands (with `bpf` among the LSMs)"),
    ("devices", "gVisor, Kata, VM, slirp/pasta: packets that are no socket's"),
    ("guard", "connections from before the enrolment; the guard behind all rows"),
    ("bound_users", "leaving the cgroup (`systemd-run`, cron, `at`, an engine's socket)"),
    ("namespaces", "a container's own network namespace"),
    ("origins", "`getpeername`, source ports that are used again, short-lived cgroups"),
    ("daemon", "dialling the daemon; the daemon stopped, killed or crashed"),
    ("fd_store", "the daemon replaced, while the service manager keeps its listeners"),
    ("lifecycle", "the daemon killed, replaced, taken off, seen from outside"),
    ("full", "a map is full"),
    ("cgroups", "whose word counts"),
    ("rules", "cgroups that appear, enrolled by their path"),
    ("commands", "what agents execute"),
    ("self_test", "the self-test"),
];
/// Around the table in the documentation.
const MARKS: [&str; 2] = ["<!-- by `cargo xtask vm-test --docs`, not by hand -->\n", "<!-- the end of that -->\n"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Failed,
    NotRun,
    Passed,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "FAILED",
            Self::NotRun => "not run",
            Self::Passed => "passed",
        }
    }
}

/// What was seen on one kernel.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its version.
    pub kernel: String,
    outcomes: BTreeMap<String, Outcome>,
    /// The last line: how many there were.
    result: String,
}

impl Run {
    /// Reads what a test binary of Rust's says. A test's own output may stand between its name and its outcome.
    pub fn of(kernel: &str, said: &str) -> Self {
        let mut outcomes = BTreeMap::new();
        let mut running = None;
        let mut result = String::new();
        for line in said.lines() {
            let mut end = line;
            if let Some((name, rest)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
                running = Some(name.to_owned());
                end = rest;
            } else if line.starts_with("test result:") {
                line.clone_into(&mut result);
                running = None;
            }
            let outcome = match end {
                "ok" => Outcome::Passed,
                "FAILED" => Outcome::Failed,
                ignored if ignored.starts_with("ignored") => Outcome::NotRun,
                _ => continue,
            };
            if let Some(name) = running.take() {
                outcomes.insert(name, outcome);
            }
        }
        // One that ended the whole binary.
        if let Some(name) = running {
            outcomes.insert(name, Outcome::Failed);
        }
        Self { kernel: version(kernel), outcomes, result }
    }

    /// Of a log, in which the kernel's version comes first.
    pub fn of_log(said: &str) -> Option<Self> {
        let said = said.replace('\r', "");
        let kernel = said.lines().find_map(|line| line.strip_prefix("KERNEL "))?;
        Some(Self::of(kernel.trim(), &said))
    }

    /// Of the table in the documentation, a run of each column: what it has no row for any more is left out.
    pub fn of_table(text: &str) -> Vec<Self> {
        let cells =
            |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let table =
            text.split_once(MARKS[0]).and_then(|(_, rest)| rest.split_once(MARKS[1])).map_or("", |(table, _)| table);
        let (mut runs, mut module): (Vec<Self>, _) = (Vec::new(), None);
        for line in table.lines().filter(|line| line.starts_with("| ")) {
            // A row's title has bars of its own only around it.
            let title = line.strip_prefix("| **").and_then(|rest| rest.split_once("** |")).map(|(title, _)| title);
            if let Some(title) = title {
                module = ROWS.iter().find(|(_, of)| *of == title).map(|(module, _)| *module);
                continue;
            }
            let cells = cells(line);
            if runs.is_empty() {
                let run =
                    |kernel: &String| Self { kernel: kernel.clone(), outcomes: BTreeMap::new(), result: String::new() };
                runs.extend(cells[1..].iter().map(run));
                continue;
            }
            let Some(module) = module else { continue };
            for (run, cell) in runs.iter_mut().zip(&cells[1..]) {
                let outcomes = [Outcome::Failed, Outcome::NotRun, Outcome::Passed];
                let outcome = outcomes.into_iter().find(|outcome| outcome.as_str() == cell);
                let test = format!("{module}::{}", cells[0].replace(' ', "_"));
                run.outcomes.extend(outcome.map(|outcome| (test, outcome)));
            }
        }
        runs
    }

    /// Tests that there aren't any more.
    pub fn forget_all_but(&mut self, runs: &[Self]) {
        self.outcomes.retain(|test, _| runs.iter().any(|run| run.outcomes.contains_key(test)));
    }

    /// What runs are ordered by: this architecture's before another's, older before newer.
    pub fn order(&self) -> (bool, Vec<u64>) {
        let (version, arch) = self.kernel.split_once(' ').unwrap_or((&self.kernel, ""));
        (!arch.is_empty(), super::kernels::numbers(version))
    }

    pub fn has_ended(&self) -> bool {
        !self.result.is_empty()
    }

    pub fn passed(&self) -> bool {
        self.result.starts_with("test result: ok")
    }

    fn outcome(&self, test: &str) -> Outcome {
        self.outcomes.get(test).copied().unwrap_or(Outcome::NotRun)
    }

    /// In words: what failed, and the sum.
    pub fn told(&self) -> String {
        let mut told = String::new();
        for (name, outcome) in &self.outcomes {
            if *outcome == Outcome::Failed {
                let _ = writeln!(told, "{}: {name} FAILED", self.kernel);
            }
        }
        let _ = writeln!(told, "{}: {}", self.kernel, self.result);
        told
    }
}

/// `6.1.0-56-cloud-amd64 #1 SMP Debian 6.1.192-2` and `6.18.44-fc` by their numbers: Debian has those of its own releases in
/// the second place.
fn version(name: &str) -> String {
    let arch = if name.contains("-arm64 ") { " aarch64" } else { "" };
    let name = name.split_once(" Debian ").map_or(name, |(_, debians)| debians);
    let version = name.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or(name);
    format!("{version}{arch}")
}

/// Rows of tests, columns of kernels.
pub struct Table<'a> {
    runs: &'a [Run],
    /// By their places in `ROWS`.
    tests: Vec<(usize, String)>,
}

impl<'a> Table<'a> {
    /// An error if a module of tests has no row.
    pub fn of(runs: &'a [Run]) -> Result<Self> {
        let mut tests = Vec::new();
        for name in runs.iter().flat_map(|run| run.outcomes.keys()) {
            let Some((module, _)) = name.split_once("::") else {
                if name.contains("cost") {
                    continue;
                }
                bail!("the test {name} is in no module that stands for a row of the table");
            };
            let row = ROWS.iter().position(|(of, _)| *of == module);
            let row =
                row.with_context(|| format!("the tests `{module}::` have no row in the table: xtask/src/vm/table.rs"))?;
            if !name.contains("cost") {
                tests.push((row, name.clone()));
            }
        }
        tests.sort_unstable();
        tests.dedup();
        Ok(Self { runs, tests })
    }

    pub fn json(&self) -> Result<String> {
        let mut lines = String::new();
        for (row, test) in &self.tests {
            let on: BTreeMap<_, _> =
                self.runs.iter().map(|run| (run.kernel.as_str(), run.outcome(test).as_str())).collect();
            let line = serde_json::json!({ "row": ROWS[*row].1, "test": test, "kernels": on });
            writeln!(lines, "{}", serde_json::to_string(&line)?)?;
        }
        Ok(lines)
    }

    pub fn markdown(&self) -> String {
        let kernels: Vec<_> = self.runs.iter().map(|run| run.kernel.as_str()).collect();
        let mut text = format!("| ways around, and what must be so | {} |\n", kernels.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(kernels.len()));
        let mut last = None;
        for (row, test) in &self.tests {
            if last.replace(row) != Some(row) {
                let _ = writeln!(text, "| **{}** |{}", ROWS[*row].1, " |".repeat(kernels.len()));
            }
            let name = test.split_once("::").map_or(test.as_str(), |(_, name)| name).replace('_', " ");
            let outcomes: Vec<_> = self.runs.iter().map(|run| run.outcome(test).as_str()).collect();
            let _ = writeln!(text, "| {name} | {} |", outcomes.join(" | "));
        }
        text
    }

    /// In the place of the last one.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let [begin, end] = MARKS;
        let between = |text: &str| {
            let (before, rest) = text.split_once(begin)?;
            let (_, after) = rest.split_once(end)?;
            Some(format!("{before}{begin}\n{}\n{end}{after}", self.markdown()))
        };
        let text = between(&text).with_context(|| format!("{} has not the marks around the table", path.display()))?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "running 4 tests
test tcp::ipv6_is_redirected ... ok
test commands::noisy ... a program's own words
ok
test lsm::packet ... ignored, needs the BPF LSM
test full::maps ... FAILED

test result: FAILED. 2 passed; 1 failed
";

    #[test]
    fn every_test_has_a_row_and_every_kernel_its_outcome() {
        let runs = [
            Run::of("6.1.0-56-cloud-amd64 #1 SMP Debian 6.1.192-2 (2026-10-01)", SAID),
            Run::of("7.2.12", "test tcp::ipv6_is_redirected ... ok\n"),
        ];
        let foreign = Run::of("6.12.107+deb13-cloud-arm64 #1 SMP Debian 6.12.107-1 (2026-10-01)", SAID);
        assert_eq!(foreign.kernel, "6.12.107 aarch64");
        assert!(runs[1].order() < foreign.order());
        let table = Table::of(&runs).unwrap().markdown();
        assert!(
            table.starts_with("| ways around, and what must be so | 6.1.192 | 7.2.12 |\n|---|---|---|\n"),
            "{table}"
        );
        for line in [
            "| ipv6 is redirected | passed | passed |",
            "| noisy | passed | not run |",
            "| packet | not run | not run |",
            "| maps | FAILED | not run |",
        ] {
            assert!(table.lines().any(|there| there == line), "{line}: {table}");
        }
        // What is written is read again.
        let [begin, end] = MARKS;
        let read = Run::of_table(&format!("text\n{begin}\n{table}\n{end}more"));
        assert_eq!(Table::of(&read).unwrap().markdown(), table);
        assert!(!runs[0].passed() && runs[0].has_ended() && !runs[1].has_ended());
        assert!(Table::of(&[Run::of("6.1", "test nowhere::x ... ok")]).is_err());
    }

    #[test]
    fn a_test_that_ends_the_binary_has_failed() {
        let run = Run::of("6.1", "test tcp::a ... ok\ntest tcp::b ... thread panicked");
        assert_eq!(run.outcomes["tcp::b"], Outcome::Failed);
    }
}
