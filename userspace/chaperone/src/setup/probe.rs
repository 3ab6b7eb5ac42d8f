//! What `setup` starts as an agent: a client of the metadata address that knows nothing of Chaperone.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

const METADATA: &str = "169.254.169.254:80";
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers of the metadata address are lines.
const MOST: u64 = 16 << 10;

/// Prints the role that the metadata address has for this process, as AWS's SDKs ask for it.
pub fn run() -> anyhow::Result<ExitCode> {
    let token = ask("PUT /latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60")?;
    let roles = ask("GET /latest/meta-data/iam/security-credentials/", &format!("X-aws-ec2-metadata-token: {token}"))?;
    println!("{roles}");
    Ok(ExitCode::SUCCESS)
}

fn ask(what: &str, field: &str) -> anyhow::Result<String> {
    let asking = || format!("asking {METADATA} for `{what}`");
    let address: SocketAddr = METADATA.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(asking)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{what} HTTP/1.1\r\nHost: 169.254.169.254\r\n{field}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .with_context(asking)?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer).with_context(asking)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(asking)?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{}: {}", asking(), head.lines().next().unwrap_or_default());
    }
    ensure!(body.bytes().all(|byte| byte.is_ascii_graphic()), "{}: an answer that isn't one word", asking());
    Ok(body.to_owned())
}
