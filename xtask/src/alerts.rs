//! `cargo xtask test --only alerts`: the alert rules, each of which fires and clears, and the daemon's metrics, by
//! Prometheus' own program. Not among what is run by itself: it fetches Debian's package and builds the daemon.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{place, setup};

/// Where a lab's daemon tells its metrics.
const METRICS: &str = "curl -sS http://127.0.0.1:9464/metrics";

/// Checks all of it.
pub fn run(lab: &Path) -> Result<()> {
    let promtool = promtool(&place::target()?)?;
    let rules = place::root().join("dashboards/prometheus");
    setup::run(Command::new(&promtool).current_dir(&rules).args(["check", "rules", "rules.yml"]))?;
    setup::run(Command::new(&promtool).current_dir(&rules).args(["test", "rules", "rules.test.yml"]))?;

    let script = format!("AWS_DEFAULT_REGION=eu-west-1 aws s3 ls && {METRICS}");
    let output = Command::new(lab).args(["lab", "--aws", "moto", "--warehouse", "--", "sh", "-c", &script]).output()?;
    ensure!(output.status.success(), "the lab failed: {}", String::from_utf8_lossy(&output.stderr));
    let metrics = in_prometheus_format(&String::from_utf8_lossy(&output.stdout));
    for name in ["chaperone_build_info", "chaperone_warehouse_batches_total"] {
        ensure!(metrics.contains(name), "the daemon told no {name}: {metrics}");
    }
    let mut check = Command::new(&promtool).args(["check", "metrics"]).stdin(Stdio::piped()).spawn()?;
    check.stdin.take().context("BUG: no pipe to promtool")?.write_all(metrics.as_bytes())?;
    ensure!(check.wait()?.success(), "promtool finds fault with the daemon's metrics, as above");
    println!("{} metrics, no fault found", metrics.lines().filter(|line| line.starts_with("# TYPE ")).count());
    Ok(())
}

/// OpenMetrics names a counter without its suffix in the lines that describe it; `promtool` reads the older format, which
/// has it there, too. Whatever else the lab prints is left out.
fn in_prometheus_format(text: &str) -> String {
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let described = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(&name) => {
                format!("# {what} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    let lines = text.lines().filter(|line| line.starts_with("chaperone_") || line.starts_with("# "));
    lines.filter(|line| *line != "# EOF").map(described).collect()
}

/// Debian's `promtool`: the machine's, or one that is unpacked below `target` and not installed, which would start a server.
fn promtool(target: &Path) -> Result<PathBuf> {
    if Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Ok("promtool".into());
    }
    let folder = target.join("tools/prometheus");
    let program = folder.join("usr/bin/promtool");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    setup::run(Command::new("apt-get").current_dir(&folder).args(["-q", "download", "prometheus"]))?;
    let package = fs::read_dir(&folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let Some(package) = package else {
        bail!("apt-get left no package in {}: install Debian's prometheus", folder.display())
    };
    setup::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&folder))?;
    fs::remove_file(&package).with_context(|| format!("removing {}", package.display()))?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_their_whole_name() {
        let text = "a-bucket\n# HELP chaperone_requests How many.\n# TYPE chaperone_requests counter\n\
                    chaperone_requests_total 1\n# HELP chaperone_sessions Open.\n# TYPE chaperone_sessions gauge\n\
                    chaperone_sessions 2\n# EOF\n";
        assert_eq!(
            in_prometheus_format(text),
            "# HELP chaperone_requests_total How many.\n# TYPE chaperone_requests_total counter\n\
             chaperone_requests_total 1\n# HELP chaperone_sessions Open.\n# TYPE chaperone_sessions gauge\n\
             chaperone_sessions 2\n"
        );
    }
}
