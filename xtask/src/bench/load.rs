//! One sample: load through one proxy, and what the proxy spent on it.

#![allow(clippy::cast_precision_loss)] // counts and microseconds, far below 2^52

use std::{
    fmt::{self, Write as _},
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Case, CaseName, Effort, Proxy,
    sign::Signed,
    world::{HOST, World},
};

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

/// What one go gave. CPU and memory are the proxy's alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Requests, or new connections, a second.
    pub(super) rps: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    /// A request's or a new connection's.
    pub(super) cpu_us: Option<f64>,
    /// A gibibyte's.
    pub(super) cpu_s: Option<f64>,
    pub(super) mib_per_s: Option<f64>,
    pub(super) rss_mib: Option<f64>,
    pub(super) rss_peak_mib: Option<f64>,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (value, unit) in [
            (self.rps, "/s"),
            (self.p50_us, "µs p50"),
            (self.p99_us, "µs p99"),
            (self.cpu_us, "µs CPU"),
            (self.mib_per_s, "MiB/s"),
        ] {
            if let Some(value) = value {
                write!(f, " {value:8.0} {unit}")?;
            }
        }
        if let Some(value) = self.cpu_s {
            write!(f, " {value:6.2} CPU-s/GiB")?;
        }
        if let Some(value) = self.rss_peak_mib {
            write!(f, " {value:5.0} MiB")?;
        }
        Ok(())
    }
}

/// Warms up, then measures.
pub(super) fn measure(world: &World, proxy: Proxy, case: Case, effort: Effort, perf: Option<&Path>) -> Result<Sample> {
    let cgroup = world.cgroup(proxy);
    let close = case.name == CaseName::Handshake;
    match case.name {
        CaseName::Small | CaseName::Handshake => {
            wrk(world, proxy, case.connections, close, effort.warm_up).map(|_| ())?;
        }
        CaseName::Down | CaseName::Up | CaseName::Chunked => curl(world, proxy, case.name, true).map(|_| ())?,
    }
    let is_ours = proxy == Proxy::Chaperone;
    let profiler = match (perf, cgroup) {
        (Some(dir), Some(cgroup)) if is_ours => Some(profile(dir, case, &cgroup.processes()?)?),
        _ => None,
    };
    let recorded = if is_ours { world.records()? } else { 0 };
    cgroup.map(super::world::Cgroup::forget_peak).transpose()?;
    let before = cgroup.map(super::world::Cgroup::cpu_us).transpose()?;
    let mut sample = Sample::default();
    let (requests, least_records) = if case.is_large() {
        let seconds = curl(world, proxy, case.name, false)?;
        sample.mib_per_s = Some(world.large_bytes as f64 / MIB / seconds);
        (1, world.large_bytes >> 16)
    } else {
        let load = wrk(world, proxy, case.connections, close, effort.seconds)?;
        sample.rps = Some(load.requests as f64 / load.seconds);
        sample.p50_us = Some(load.p50_us);
        sample.p99_us = Some(load.p99_us);
        // Intent, body, outcome; wrk doesn't count what it breaks off.
        (load.requests, load.requests * 3)
    };
    if is_ours {
        // Its intent is on disk when it is answered, and so is everything before: that is a part of the cost.
        curl_small_put(world)?;
    }
    if let (Some(cgroup), Some(before)) = (cgroup, before) {
        let spent = (cgroup.cpu_us()? - before) as f64;
        if case.is_large() {
            sample.cpu_s = Some(spent / 1e6 / (world.large_bytes as f64 / GIB));
        } else {
            sample.cpu_us = Some(spent / requests as f64);
        }
        let (now, peak) = cgroup.resident()?;
        sample.rss_mib = Some(now as f64 / MIB);
        sample.rss_peak_mib = Some(peak as f64 / MIB);
    }
    if let Some(mut profiler) = profiler {
        kill(Pid::from_raw(i32::try_from(profiler.id())?), Signal::SIGINT).context("stopping perf")?;
        profiler.wait().context("waiting for perf")?;
    }
    if is_ours {
        let recorded = world.records()? - recorded;
        ensure!(recorded >= least_records, "{requests} calls left {recorded} records, not {least_records}");
        world.forget_journal()?;
    }
    Ok(sample)
}

struct Load {
    requests: u64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
}

/// `done` is called by wrk at the end.
const REPORT: &str = r#"done = function(summary, latency)
  local e = summary.errors
  print(string.format("BENCH %d %d %d %d %d", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// `GetObject` of 1 KiB, as fast as it goes.
fn wrk(world: &World, proxy: Proxy, connections: u32, close: bool, seconds: u32) -> Result<Load> {
    let request = world.signed(proxy, "GET", "/small")?;
    let mut script = format!("wrk.headers[\"Host\"] = {HOST:?}\n");
    for (name, value) in &request.fields {
        writeln!(script, "wrk.headers[{name:?}] = {value:?}")?;
    }
    if close {
        script.push_str("wrk.headers[\"Connection\"] = \"close\"\n");
    }
    script.push_str(REPORT);
    let path = world.dir.join("load.lua");
    fs::write(&path, script).context("writing wrk's script")?;
    let mut command = world.client(proxy, "wrk");
    command
        .args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "--timeout", "10s", "-s"])
        .arg(&path)
        .arg(World::url(proxy, "/small"));
    let said = output(&mut command).with_context(|| world.tail("daemon.log"))?;
    let line = said.lines().find_map(|line| line.strip_prefix("BENCH "));
    let numbers: Vec<u64> = line.unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect();
    let [requests, micros, p50, p99, errors] = numbers[..] else { bail!("wrk answered {said}") };
    // A server that closes may be seen as a read error by the one request that wrk had begun.
    ensure!(errors * 1000 <= requests && requests > 0, "{errors} of {requests} requests through {proxy} failed");
    Ok(Load { requests, seconds: micros as f64 / 1e6, p50_us: p50 as f64, p99_us: p99 as f64 })
}

/// One large object; how many seconds it took.
fn curl(world: &World, proxy: Proxy, case: CaseName, warm_up: bool) -> Result<f64> {
    let object = if warm_up { "/warm" } else { "/large" };
    let bytes = if warm_up { 64 << 20 } else { world.large_bytes };
    let (request, body, bytes) = match case {
        CaseName::Up => (world.signed(proxy, "PUT", "/up")?, Some(world.dir.join("www").join(&object[1..])), bytes),
        CaseName::Chunked => {
            let (request, body, size) = world.chunked(proxy, bytes)?;
            (request, Some(body), size)
        }
        _ => (world.signed(proxy, "GET", object)?, None, bytes),
    };
    let mut command = curl_command(world, proxy, &request);
    let counted = if let Some(body) = body {
        command.arg("-T").arg(body);
        "%{size_upload}"
    } else {
        "%{size_download}"
    };
    let said = output(command.args(["-o", "/dev/null", "-w", &format!("{counted} %{{time_total}}")]))
        .with_context(|| world.tail("daemon.log"))?;
    let (size, seconds) = said.trim().split_once(' ').context("reading curl's answer")?;
    ensure!(size == bytes.to_string(), "{size} bytes of {bytes} went through {proxy}");
    seconds.parse().context("reading curl's time")
}

fn curl_small_put(world: &World) -> Result<()> {
    let request = world.signed(Proxy::Chaperone, "PUT", "/up")?;
    output(curl_command(world, Proxy::Chaperone, &request).arg("-T").arg(world.dir.join("www/small"))).map(|_| ())
}

fn curl_command(world: &World, proxy: Proxy, request: &Signed) -> Command {
    let mut command = world.client(proxy, "curl");
    command.args(["-sSf", "--http1.1", "-m", "120", "-X", request.method, "-H", "Expect:", "--cacert"]);
    command.arg(world.ca(proxy)).args(["-H", &format!("Host: {HOST}")]);
    for (name, value) in &request.fields {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    command.arg(World::url(proxy, request.path));
    command
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::piped()).output().context("starting the load")?;
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "the load ended with {}: {said}{wrong}", output.status);
    Ok(said.into_owned())
}

fn profile(dir: &Path, case: Case, processes: &[u32]) -> Result<Child> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
    let file = dir.join(format!("{}.perf", case.to_string().replace(' ', "-")));
    Command::new("perf")
        .args(["record", "-q", "-F", "1999", "--call-graph", "dwarf,16384", "-p", &processes.join(","), "-o"])
        .arg(file)
        .stdout(Stdio::null())
        .spawn()
        .context("starting perf (Debian: linux-perf)")
}
