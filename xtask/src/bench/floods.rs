//! What one agent's flood costs another: its calls' latency while the daemon has nothing else to do, and while a session
//! floods it, in a lab with real clients.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{place, setup};

/// The floods that `flood.py` can do.
const KINDS: [&str; 5] = ["attributes", "bodies", "heads", "refusals", "connections"];
/// … and what it does that is none: a process for each processor that computes for 4 ms, sleeps for half of one, and never
/// speaks to the daemon. Linux lets whoever has just begun go on to the end of its slice, some milliseconds, however nice it
/// is (EEVDF's `RUN_TO_PARITY`); so that is what any neighbour's work costs, a flood's client's too.
const BUSY: &str = "busy";
/// A thousand calls with large bodies that wait for a person, by `many_questions.py`: they aren't a flood, and cost others
/// hardly anything.
const QUESTIONS: &str = "questions";
const POLICY: &str = r#"@id("all") permit (principal, action, resource);
@id("ask") @approvers("sre") forbid (principal, action == Action::"s3:PutObject", resource) unless { context.approved };
"#;
const CONFIG: &str = r#"[approvals]
hold = 600
open = 1000
open_per_session = 1000
[approvals.groups]
sre = ["root"]
"#;
/// The victim's calls in a second, and for how many.
const RATE: u32 = 100;
const SECONDS: u32 = 10;
/// How often as long the slowest hundredth of the victim's calls may take.
const MOST_P99: f64 = 3.0;
/// … or as what they take beside processes that only keep the processors busy, as floods' clients do, too.
const MOST_P99_BUSY: f64 = 1.5;
/// … beside calls that wait.
const MOST_P99_WAITING: f64 = 1.1;
/// The most that the daemon may ever hold, in MiB.
const MOST_MIB: f64 = 256.0;

/// What `steady.py` says.
#[derive(Debug, Deserialize, Serialize)]
struct Latency {
    calls: u64,
    failed: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// One flood.
#[derive(Debug, Serialize)]
struct Flood {
    kind: &'static str,
    idle: Latency,
    flooded: Latency,
    /// The most that the daemon has held up to then, in MiB.
    peak_mib: f64,
    /// What the journal has gained during the flood: records, and bodies in MiB.
    records: u64,
    bodies_mib: f64,
}

impl Flood {
    fn is_met(&self, busy: &Latency) -> bool {
        let is_quick =
            self.ratio() <= self.most() || self.kind != QUESTIONS && self.flooded.p99_us <= busy.p99_us * MOST_P99_BUSY;
        self.flooded.failed == 0 && is_quick && self.peak_mib < MOST_MIB
    }

    fn most(&self) -> f64 {
        if self.kind == QUESTIONS { MOST_P99_WAITING } else { MOST_P99 }
    }

    fn ratio(&self) -> f64 {
        self.flooded.p99_us / self.idle.p99_us
    }
}

/// Measures and prints. Some three minutes.
pub(super) fn run(json: bool) -> Result<()> {
    let ready = setup::lab()?;
    let lab = FloodLab::start()?;
    drop(ready);
    let mut floods = Vec::new();
    for kind in [BUSY].into_iter().chain(KINDS) {
        eprintln!("bench: flood {kind}");
        floods.push(lab.flood(kind)?);
    }
    eprintln!("bench: a thousand questions");
    floods.push(lab.questions()?);
    if json {
        println!("{}", serde_json::to_string(&floods).context("BUG: figures can be written")?);
    } else {
        print(&floods);
    }
    Ok(())
}

fn print(floods: &[Flood]) {
    println!(
        "{:<12} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>8} {:>10}",
        "flood",
        "calls",
        "failed",
        "p50 µs",
        "p99 µs",
        "idle p50",
        "idle p99",
        "× p99",
        "peak MiB",
        "records",
        "bodies MiB"
    );
    for flood in floods {
        let Flood { kind, idle, flooded, peak_mib, records, bodies_mib } = flood;
        println!(
            "{kind:<12} {:>6} {:>6} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>7.2} {peak_mib:>9.1} {records:>8} {bodies_mib:>10.1}",
            flooded.calls,
            flooded.failed,
            flooded.p50_us,
            flooded.p99_us,
            idle.p50_us,
            idle.p99_us,
            flood.ratio(),
        );
    }
    println!();
    let Some((busy, floods)) = floods.split_first() else { return };
    for flood in floods {
        let word = if flood.is_met(&busy.flooded) { "met   " } else { "MISSED" };
        let or = match flood.kind {
            QUESTIONS => String::new(),
            _ => format!(" or {MOST_P99_BUSY} × beside busy processors"),
        };
        println!(
            "{word} {}: none fails, p99 at most {} × idle{or} ({:.2} × and {:.2} ×), the daemon below {MOST_MIB} MiB",
            flood.kind,
            flood.most(),
            flood.ratio(),
            flood.flooded.p99_us / busy.flooded.p99_us,
        );
    }
}

struct FloodLab {
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

impl FloodLab {
    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("chaperone-floods-").tempdir().context("making a folder")?;
        let (dir, policy, config) =
            (folder.path().join("lab"), folder.path().join("floods.cedar"), folder.path().join("floods.toml"));
        fs::write(&policy, POLICY).context("writing the policy")?;
        fs::write(&config, CONFIG).context("writing the configuration")?;
        let mut command = xtask()?;
        command.args(["lab", "--keep"]).arg(&dir).args(["--aws", "s3", "--policy"]).arg(&policy);
        command.arg("--config").arg(&config);
        setup::run(command.args(["--", "true"]).stdin(Stdio::null()))?;
        let lab = Self { dir, _folder: folder };
        lab.agent("AWS_DEFAULT_REGION=eu-west-1 aws s3 mb s3://load")?;
        Ok(lab)
    }

    fn questions(&self) -> Result<Flood> {
        let script = format!("exec nice -n 19 python3 '{}' 1000", script("many_questions.py").display());
        let mut asking = self.command("agent", &script)?;
        self.beside(QUESTIONS, asking.stdin(Stdio::piped()).stdout(Stdio::piped()), "asked\n")
    }

    fn flood(&self, kind: &'static str) -> Result<Flood> {
        // Its client is nice, so that the victim's has a processor: what they share is the daemon.
        let script = format!("exec nice -n 19 python3 '{}' {kind} {}", script("flood.py").display(), SECONDS + 4);
        self.beside(kind, self.command("agent", &script)?.stdout(Stdio::piped()), "ready\n")
    }

    /// What a victim's calls take, before and while that goes on.
    fn beside(&self, kind: &'static str, flood: &mut Command, ready: &str) -> Result<Flood> {
        let idle = self.latency()?;
        let (records, bodies) = self.journal()?;
        let mut flooding = flood.spawn().context("starting a flood")?;
        let begun = begins(&mut flooding, kind, ready);
        let flooded = begun.and_then(|()| self.latency());
        drop(flooding.stdin.take());
        let over = flooding.wait().context("waiting for the flood's end")?;
        let flooded = flooded?;
        ensure!(over.success(), "flood {kind}: {over}");
        let (records_after, bodies_after) = self.journal()?;
        Ok(Flood {
            kind,
            idle,
            flooded,
            peak_mib: self.peak()?,
            records: records_after - records,
            bodies_mib: bodies_after - bodies,
        })
    }

    fn latency(&self) -> Result<Latency> {
        let said = self.agent(&format!("python3 '{}' {RATE} {SECONDS}", script("steady.py").display()))?;
        serde_json::from_str(&said).with_context(|| format!("reading what steady.py says: {said}"))
    }

    /// The most that the daemon has held, in MiB.
    fn peak(&self) -> Result<f64> {
        let pid = fs::read_to_string(self.dir.join("daemon.pid")).context("reading the daemon's pid")?;
        let path = format!("/proc/{}/status", pid.trim());
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let kib: f64 = peak.with_context(|| format!("{path} has no VmHWM"))?.trim().parse().context("reading VmHWM")?;
        Ok(kib / 1024.0)
    }

    /// The journal's records, and the bodies in it in MiB.
    fn journal(&self) -> Result<(u64, f64)> {
        let said = self.operator("chaperone verify --json")?;
        let verified: serde_json::Value = serde_json::from_str(&said).context("reading what `verify` says")?;
        let figures = verified["records"].as_u64().zip(verified["body_bytes"].as_f64());
        let (records, bytes) = figures.with_context(|| format!("`verify` tells no figures: {said}"))?;
        Ok((records, bytes / f64::from(1 << 20)))
    }

    fn agent(&self, script: &str) -> Result<String> {
        output(&mut self.command("agent", script)?)
    }

    fn operator(&self, script: &str) -> Result<String> {
        output(&mut self.command("exec", script)?)
    }

    fn command(&self, how: &str, script: &str) -> Result<Command> {
        let mut command = xtask()?;
        command.args(["lab", how]).arg(&self.dir).args(["--", "sh", "-c", script]).stdin(Stdio::null());
        Ok(command)
    }
}

impl Drop for FloodLab {
    fn drop(&mut self) {
        if let Ok(mut command) = xtask() {
            let _ = command.args(["lab", "down"]).arg(&self.dir).stdin(Stdio::null()).status();
        }
    }
}

fn begins(flooding: &mut Child, kind: &str, ready: &str) -> Result<()> {
    let mut said = String::new();
    let stdout = flooding.stdout.take().context("BUG: its output is a pipe")?;
    BufReader::new(stdout).read_line(&mut said).context("listening to the flood")?;
    ensure!(said == ready, "flood {kind} didn't begin: {said}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("running in the lab")?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {said} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

fn script(name: &str) -> PathBuf {
    place::root().join("tests/system/scripts").join(name)
}

fn xtask() -> Result<Command> {
    std::env::current_exe().map(Command::new).context("finding this program")
}
