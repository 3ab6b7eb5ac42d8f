//! What the kernel hooks cost: `connect(2)` and `execve(2)` without hooks, with them, and of agents. Measured by the
//! kernel tests' own measurements, in release.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::place;

/// One figure: the median of the rounds' medians.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Cost {
    what: String,
    /// `no hooks`, `not enrolled`, `enrolled`.
    how: String,
    us: f64,
}

/// Measures. Half a minute, and a build before the first time.
pub(super) fn measure() -> Result<Vec<Cost>> {
    let tests = tests()?;
    eprintln!("bench: what the hooks cost");
    let output = Command::new(&tests)
        .args(["--ignored", "--nocapture", "--test-threads=1", "cost"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", tests.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "measuring the hooks failed:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    let costs = read(&said);
    ensure!(!costs.is_empty(), "BUG: the measurements told no figure:\n{said}");
    Ok(costs)
}

/// Prints them, an operation a line.
pub(super) fn print(costs: &[Cost]) {
    let mut whats: Vec<&str> = costs.iter().map(|cost| cost.what.as_str()).collect();
    whats.dedup();
    println!("\n{:<64} {:>12} {:>12} {:>12}", "hooks, µs", "no hooks", "not enrolled", "enrolled");
    for what in whats {
        let figure = |how: &str| {
            let found = costs.iter().find(|cost| cost.what == what && cost.how == how);
            found.map_or_else(String::new, |cost| format!("{:.1}", cost.us))
        };
        println!("{what:<64} {:>12} {:>12} {:>12}", figure("no hooks"), figure("not enrolled"), figure("enrolled"));
    }
}

/// Of lines like `cost: connect(2), accepted: no hooks: 27600 ns`, which are told once a round.
fn read(said: &str) -> Vec<Cost> {
    let mut figures: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for line in said.lines() {
        // A test's name may be before it.
        let Some((_, line)) = line.split_once("cost: ") else { continue };
        let Some((rest, ns)) = line.strip_suffix(" ns").and_then(|line| line.rsplit_once(": ")) else { continue };
        let (Some((what, how)), Ok(ns)) = (rest.rsplit_once(": "), ns.parse::<f64>()) else { continue };
        figures.entry((what, how)).or_default().push(ns);
    }
    let costs = figures.into_iter().map(|((what, how), mut ns)| {
        ns.sort_by(f64::total_cmp);
        Cost { what: what.to_owned(), how: how.to_owned(), us: ns[ns.len() / 2] / 1000.0 }
    });
    costs.collect()
}

/// The kernel tests' binary.
fn tests() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--release", "-p", "chaperone-capture", "--test", "kernel", "--no-run"]);
    cargo.arg("--message-format=json").current_dir(place::root()).stderr(Stdio::inherit());
    let output = cargo.output().context("building the measurements")?;
    ensure!(output.status.success(), "the measurements don't build");
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = text.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.context("cargo didn't say where the measurements are")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_the_rounds_are_read() {
        let said = "running 2 tests\ntest x ... cost: connect(2), accepted: no hooks: 3000 ns\n\
                    cost: connect(2), accepted: no hooks: 1000 ns\ncost: connect(2), accepted: no hooks: 2500 ns\n\
                    cost: in the hook connect4: enrolled: 1600 ns\ncost: nothing\n";
        let costs = read(said);
        assert_eq!(costs.len(), 2);
        assert_eq!((costs[0].what.as_str(), costs[0].how.as_str()), ("connect(2), accepted", "no hooks"));
        assert!((costs[0].us - 2.5).abs() < 1e-9 && (costs[1].us - 1.6).abs() < 1e-9);
    }
}
