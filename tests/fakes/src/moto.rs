//! moto, in a process of its own on loopback.

use std::{net::SocketAddr, path::Path, process::Stdio};

use anyhow::{Context as _, bail};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};

const ADDRESS: &str = "127.0.0.1:4566";

/// Starts `moto_server` and returns when it listens. It ends with this process.
pub async fn start(program: &Path, log: &Path) -> anyhow::Result<SocketAddr> {
    let (host, port) = ADDRESS.split_once(':').context("BUG: moto's address has no port")?;
    let mut child = Command::new(program)
        .args(["-H", host, "-p", port])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("LANG", "C.UTF-8")
        .env("PYTHONUNBUFFERED", "1")
        .env("AWS_ACCESS_KEY_ID", "moto")
        .env("AWS_SECRET_ACCESS_KEY", "moto")
        .env("MOTO_ACCOUNT_ID", "123456789012")
        .env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let stderr = child.stderr.take().context("BUG: moto has no stderr")?;
    let mut lines = BufReader::new(stderr).lines();
    let mut file = File::create(log).await.with_context(|| format!("writing {}", log.display()))?;
    loop {
        let Some(line) = lines.next_line().await.context("reading what moto says")? else {
            bail!("moto_server ended before it listened; see {}", log.display());
        };
        file.write_all(format!("{line}\n").as_bytes()).await.context("writing moto's log")?;
        if line.contains("Running on") {
            break;
        }
    }
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let _ = file.write_all(format!("{line}\n").as_bytes()).await;
        }
        tracing::error!("moto ended: {:?}", child.wait().await);
    });
    ADDRESS.parse().context("BUG: moto's address")
}
