//! Superset's dashboards, imported into a real Superset over a filled ClickHouse, and looked at with a real browser.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{DASHBOARDS, superset};
use crate::{clients, place, setup, warehouse};

const REQUIREMENTS: &str = "superset-requirements.txt";

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the browser saw of a dashboard.
#[derive(Debug, Deserialize)]
struct Seen {
    slug: String,
    took_ms: u64,
    charts: usize,
    empty: usize,
    failed: Vec<String>,
}

struct Trial {
    folder: PathBuf,
    venv: PathBuf,
}

/// Takes a picture of each dashboard into `pictures`, over the ClickHouse at `filled`, or one of its own with a month of
/// calls; with `serve` leaves Superset there until it is interrupted.
pub fn run(pictures: &Path, filled: Option<&str>, serve: bool) -> Result<()> {
    let ready = setup::lab()?;
    let target = place::target()?;
    let trial = Trial { folder: target.join("superset"), venv: target.join("superset/venv") };
    fs::create_dir_all(&trial.folder).with_context(|| format!("making {}", trial.folder.display()))?;
    setup::python(&trial.venv, REQUIREMENTS, "Superset, 830 MB")?;
    let browser = clients::superset()?;
    let data = tempfile::tempdir().context("making a folder for ClickHouse")?;
    let (address, _clickhouse) = if let Some(address) = filled {
        (address.to_owned(), None)
    } else {
        let (address, running) = clickhouse(&ready.venv, data.path())?;
        eprintln!("superset: a month of 50 agents, into ClickHouse at {address}");
        fill(&ready.bin, data.path(), &address)?;
        (address, Some(running))
    };
    eprintln!("superset: importing the dashboards");
    trial.make(data.path(), &address)?;
    let port = free_port()?;
    let server =
        trial.superset(data.path(), &["run", "-h", "127.0.0.1", "-p", &port.to_string(), "--with-threads"]).spawn();
    let mut server = Running(server.context("starting Superset")?);
    let origin = format!("http://127.0.0.1:{port}");
    fs::create_dir_all(pictures).with_context(|| format!("making {}", pictures.display()))?;
    let all = look(&browser, &origin, pictures)?;
    trial.shrink(pictures)?;
    for seen in &all {
        println!("{:<26} {:>2} charts in {:>5} ms, {} of them empty", seen.slug, seen.charts, seen.took_ms, seen.empty);
    }
    for (dashboard, seen) in DASHBOARDS.iter().zip(&all) {
        ensure!(seen.failed.is_empty(), "{}: {}", seen.slug, seen.failed.join("; "));
        ensure!(seen.charts == dashboard.panels.len(), "{} has {} charts", seen.slug, seen.charts);
        ensure!(seen.empty == 0, "{}: {} charts have nothing, of a month of calls", seen.slug, seen.empty);
    }
    ensure!(all.len() == DASHBOARDS.len(), "only {} dashboards were looked at", all.len());
    if serve {
        println!("{origin}/dashboard/list/ (admin, password admin), until this is interrupted");
        server.0.wait().context("waiting for Superset's end")?;
    }
    Ok(())
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

fn clickhouse(venv: &Path, data: &Path) -> Result<(String, Running)> {
    let (http, tcp) = (free_port()?, free_port()?);
    let mut child = Command::new(venv.join("bin/python"))
        .arg(place::root().join("xtask/python/clickhouse_server.py"))
        .arg("--dir")
        .arg(data.join("clickhouse"))
        .args(["--http-port", &http.to_string(), "--tcp-port", &tcp.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting ClickHouse")?;
    let said = child.stdout.take().context("BUG: its output is a pipe")?;
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line).context("listening to ClickHouse")?;
    ensure!(line.starts_with("ready"), "ClickHouse didn't start: {line}");
    Ok((format!("127.0.0.1:{http}"), running))
}

fn fill(bin: &Path, data: &Path, address: &str) -> Result<()> {
    let config = data.join("config.toml");
    let text =
        format!("[[agents]]\nname = \"any\"\ncgroups = [\"/agents/*\"]\n[warehouse]\nurl = \"http://{address}\"\n");
    fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
    setup::run(Command::new(bin.join("chaperone")).arg("--config").arg(&config).args(["warehouse", "migrate"]))?;
    let program = std::env::current_exe().context("finding this program")?;
    setup::run(Command::new(program).args(warehouse::Options::month(address, "chaperone")))
}

fn look(browser: &Path, origin: &str, pictures: &Path) -> Result<Vec<Seen>> {
    let slugs = DASHBOARDS.iter().map(|dashboard| format!("chaperone-{}", dashboard.file));
    let output = Command::new("node")
        .arg(browser.join("shots.mjs"))
        .arg(origin)
        .arg(pictures)
        .args(slugs)
        .stderr(Stdio::inherit())
        .output()
        .context("starting the browser")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the browser ended with {}: {said}", output.status);
    let seen =
        |line: &str| serde_json::from_str(line).with_context(|| format!("reading what the browser says: {line}"));
    said.lines().map(seen).collect()
}

impl Trial {
    /// Superset's program, with a configuration and a database of this trial's own.
    fn superset(&self, data: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.venv.join("bin/superset"));
        command
            .args(arguments)
            .env("FLASK_APP", "superset")
            .env("SUPERSET_CONFIG_PATH", data.join("superset_config.py"));
        command.env_remove("PYTHONPATH").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn make(&self, data: &Path, address: &str) -> Result<()> {
        let config = format!(
            "SECRET_KEY = 'a key of this trial alone'\nSQLALCHEMY_DATABASE_URI = 'sqlite:///{}'\n\
             FEATURE_FLAGS = {{'ENABLE_TEMPLATE_PROCESSING': True}}\nTALISMAN_ENABLED = False\nWTF_CSRF_ENABLED = False\n",
            data.join("superset.db").display()
        );
        fs::write(data.join("superset_config.py"), config).context("writing Superset's configuration")?;
        let archive = data.join("chaperone.zip");
        self.pack(data, address, &archive)?;
        let archive = archive.to_str().context("the temporary folder's path isn't UTF-8")?;
        let admin =
            "fab create-admin --username admin --firstname A --lastname A --email a@example.com --password admin";
        let admin: Vec<_> = admin.split(' ').collect();
        for arguments in
            [&["db", "upgrade"][..], &admin, &["init"], &["import-dashboards", "-p", archive, "-u", "admin"]]
        {
            let output = self.superset(data, arguments).stderr(Stdio::piped()).output().context("starting Superset")?;
            let said = String::from_utf8_lossy(&output.stderr);
            let end = said.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
            ensure!(output.status.success(), "superset {}: {}: {}", arguments[0], output.status, &said[end..]);
        }
        Ok(())
    }

    /// The import as one file, with this ClickHouse's address.
    fn pack(&self, data: &Path, address: &str, archive: &Path) -> Result<()> {
        let folder = data.join("chaperone");
        let uri = format!("clickhousedb://default@{address}/chaperone");
        for (path, value) in superset::files() {
            let place = folder.join(path);
            let above = place.parent().context("BUG: a file has no folder")?;
            fs::create_dir_all(above).with_context(|| format!("making {}", above.display()))?;
            let text = value.to_string().replace(superset::URI, &uri);
            fs::write(&place, text).with_context(|| format!("writing {}", place.display()))?;
        }
        setup::run(Command::new(self.venv.join("bin/python")).args(["-m", "zipfile", "-c"]).arg(archive).arg(&folder))
    }

    /// Pictures of the docs have few colours, and needn't be large.
    fn shrink(&self, pictures: &Path) -> Result<()> {
        const SHRINK: &str = "import pathlib, sys\nfrom PIL import Image\n\
            for path in pathlib.Path(sys.argv[1]).glob('*.png'):\n    \
            Image.open(path).convert('RGB').quantize(128).save(path, optimize=True)";
        setup::run(Command::new(self.venv.join("bin/python")).args(["-c", SHRINK]).arg(pictures))
    }
}
