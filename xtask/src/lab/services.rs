//! What runs in a lab besides commands: the fakes, ClickHouse, the daemon.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Aws, enter::SYSTEM_PATH, folder::Lab, tail};
use crate::place;

/// How long a service may take to start; they take a second or two.
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts everything that the lab has, and returns when all of it answers. Runs inside of the lab's namespaces.
pub fn start(lab: &Lab) -> Result<()> {
    fakes(lab)?;
    if lab.warehouse {
        clickhouse(lab)?;
    }
    let environment = if lab.direct {
        trust_fakes(lab)?
    } else {
        chaperone(lab, &["trust", "install"])?;
        let text = chaperone(lab, &["trust", "env"])?;
        let environment = text.lines().filter_map(|line| line.split_once('='));
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        daemon(lab)?;
        environment
    };
    let text = serde_json::to_string_pretty(&environment).context("BUG: the agents' environment")?;
    super::folder::write(&lab.dir.join("environment.json"), &text, 0o644)
}

/// A service with no more of an environment than it needs.
fn service(lab: &Lab, program: &Path, log: &str) -> Result<Command> {
    let mut command = Command::new(program);
    let log = lab.dir.join(log);
    let log =
        File::options().create(true).append(true).open(&log).with_context(|| format!("opening {}", log.display()))?;
    command.env_clear().env("PATH", SYSTEM_PATH).env("HOME", "/root").env("LANG", "C.UTF-8");
    command.current_dir("/").stdin(Stdio::null()).stderr(log);
    Ok(command)
}

fn fakes(lab: &Lab) -> Result<()> {
    let mut command = service(lab, &lab.bin.join("chaperone-fakes"), "fakes.log")?;
    let aws = match lab.aws {
        Aws::Both => "both",
        Aws::Moto => "moto",
        Aws::None => "none",
        Aws::S3 => "s3",
    };
    command.arg("--dir").arg(&lab.dir).args(["--aws", aws]).arg("--key").arg(lab.key());
    command.arg("--moto-server").arg(lab.venv.join("bin/moto_server"));
    let child = command.stdout(Stdio::piped()).spawn().context("starting the fakes")?;
    wait_for("ready", child.stdout, "the fakes", &lab.dir.join("fakes.log"))
}

fn clickhouse(lab: &Lab) -> Result<()> {
    let script = place::root().join("xtask/python/clickhouse_server.py");
    let python = lab.venv.join("bin/python");
    let data = lab.dir.join("clickhouse");
    let mut command = service(lab, &python, "clickhouse.log")?;
    command.arg(&script).arg("--dir").arg(&data);
    let child = command.stdout(Stdio::piped()).spawn().context("starting ClickHouse")?;
    let pid = child.id();
    wait_for("ready", child.stdout, "ClickHouse", &lab.dir.join("clickhouse.log"))?;
    // `start` starts it again, after somebody has killed it to see what happens.
    let start = format!("'{}' '{}' --dir '{}'", python.display(), script.display(), data.display());
    let about = serde_json::json!({
        "url": "http://127.0.0.1:8123", "user": "default", "database": "chaperone", "pid": pid, "start": start,
    });
    super::folder::write(&lab.dir.join("clickhouse.json"), &about.to_string(), 0o644)
}

/// Without Chaperone agents trust the fakes themselves, by the same variables.
fn trust_fakes(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let anchor = "/usr/local/share/ca-certificates/chaperone-lab.crt";
    fs::copy(lab.dir.join("ca.crt"), anchor).context("putting the fakes' CA into the lab's trust store")?;
    let output = Command::new("update-ca-certificates")
        .stdin(Stdio::null())
        .output()
        .context("starting update-ca-certificates")?;
    ensure!(output.status.success(), "update-ca-certificates: {}", String::from_utf8_lossy(&output.stderr));
    let key = fs::read_to_string(lab.key()).context("reading the lab's key")?;
    let (id, secret) = key.trim().split_once('\n').context("BUG: the lab's key has not two lines")?;
    Ok([
        ("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt"),
        ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
        ("NODE_EXTRA_CA_CERTS", anchor),
        ("AWS_ACCESS_KEY_ID", id),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into())
}

/// Runs a command of the daemon's program.
fn chaperone(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(lab.bin.join("chaperone"));
    command.args(arguments).arg("--config").arg(lab.dir.join("config.toml"));
    command.env_clear().env("PATH", SYSTEM_PATH).env("HOME", "/root").env("LANG", "C.UTF-8").stdin(Stdio::null());
    let output = command.output().context("starting chaperone")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`chaperone {}` ended with {}: {said}", arguments.join(" "), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts the daemon in its cgroup and returns when it says that it is ready. Runs inside of the lab's namespaces.
pub fn daemon(lab: &Lab) -> Result<()> {
    let socket = lab.dir.join("notify.sock");
    let _ = fs::remove_file(&socket);
    let notified = UnixDatagram::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?;
    notified.set_read_timeout(Some(PATIENCE)).context("setting a time limit")?;
    let log = lab.dir.join("daemon.log");
    let own = fs::read_to_string("/proc/self/cgroup").context("reading the own cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    let root = lab.cgroup.parent().context("BUG: the lab's cgroup has no parent")?;
    // A child begins in its parent's cgroup, and the daemon exempts the one that it begins in.
    fs::write(lab.cgroup.join("daemon/cgroup.procs"), "0").context("moving into the daemon's cgroup")?;
    let spawned = service(lab, &lab.bin.join("chaperone"), "daemon.log").and_then(|mut command| {
        let out = File::options().append(true).open(&log).with_context(|| format!("opening {}", log.display()))?;
        command
            .arg("daemon")
            .arg("--config")
            .arg(lab.dir.join("config.toml"))
            .env("AWS_SHARED_CREDENTIALS_FILE", lab.dir.join("secrets/credentials"))
            .env("NOTIFY_SOCKET", &socket)
            .env("STATE_DIRECTORY", lab.dir.join("state"))
            .stdout(out);
        command.spawn().context("starting the daemon")
    });
    fs::write(root.join(own).join("cgroup.procs"), "0").context("leaving the daemon's cgroup")?;
    let mut child = spawned?;
    let pid = child.id();
    fs::write(lab.dir.join("daemon.pid"), pid.to_string()).context("writing daemon.pid")?;
    // Its end wakes the wait too; and it is reaped whenever it ends.
    let ended = UnixDatagram::unbound().context("making a socket")?;
    let to = socket.clone();
    std::thread::spawn(move || {
        let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let _ = ended.send_to(format!("ENDED={pid} {how}").as_bytes(), to);
    });
    let mut buffer = [0; 4096];
    loop {
        let length = notified
            .recv(&mut buffer)
            .with_context(|| format!("waiting for the daemon; its log ends with:\n{}", tail(&log)))?;
        for line in String::from_utf8_lossy(&buffer[..length]).lines() {
            if line == "READY=1" {
                return Ok(());
            }
            // The one before may end when this one is already waited for.
            if let Some((of, how)) = line.strip_prefix("ENDED=").and_then(|ended| ended.split_once(' '))
                && of == pid.to_string()
            {
                bail!("the daemon ended ({how}); its log ends with:\n{}", tail(&log));
            }
        }
    }
}

/// Waits for a line that begins so.
fn wait_for(word: &str, out: Option<ChildStdout>, name: &str, log: &Path) -> Result<()> {
    let out = out.with_context(|| format!("BUG: {name} has no stdout"))?;
    let mut lines = BufReader::new(out).lines();
    loop {
        match lines.next() {
            Some(Ok(line)) if line.starts_with(word) => break,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => bail!("{name} did not start; the log ends with:\n{}", tail(log)),
        }
    }
    // Reads on, so that it never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    Ok(())
}
