//! A client of the metadata address that needs no SDK: IMDSv2, bounded in time and bytes.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// Of the instance metadata service, over IPv4.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(chaperone_capture::METADATA_V4[0]), 80);
/// For a connection, and for each step on it.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the whole of an answer: EC2's user data has 16 KiB at most, and as base64 a third more.
const MOST: u64 = 64 << 10;

/// A token to ask with: IMDSv2.
pub fn token() -> anyhow::Result<String> {
    let what = "PUT /latest/api/token";
    let token = ask(what, "X-aws-ec2-metadata-token-ttl-seconds: 60")?
        .with_context(|| format!("asking {ADDRESS} for `{what}`: there is no such thing: is this IMDSv2?"))?;
    String::from_utf8(token).ok().filter(|token| is_word(token)).context("the metadata address's token is no word")
}

/// What is at a path; nothing if there is no such thing.
pub fn get(path: &str, token: &str) -> anyhow::Result<Option<Vec<u8>>> {
    ask(&format!("GET {path}"), &format!("X-aws-ec2-metadata-token: {token}"))
}

/// One word at a path.
pub fn word(path: &str, token: &str) -> anyhow::Result<String> {
    let said = get(path, token)?.with_context(|| format!("{ADDRESS} has nothing at {path}"))?;
    let said = String::from_utf8(said).ok().filter(|said| is_word(said));
    said.with_context(|| format!("{ADDRESS} has at {path} more than one word"))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn ask(what: &str, field: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let asking = || format!("asking {ADDRESS} for `{what}`");
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&ADDRESS, PATIENCE).with_context(asking)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let host = ADDRESS.ip();
    write!(stream, "{what} HTTP/1.0\r\nHost: {host}\r\n{field}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .with_context(asking)?;
    let mut answer = Vec::new();
    let mut block = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("{}: no whole answer in {} s", asking(), PATIENCE.as_secs());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut block).with_context(asking)? {
            0 => break,
            count => answer.extend_from_slice(&block[..count]),
        }
        if answer.len() as u64 > MOST {
            bail!("{}: an answer of more than {} KiB", asking(), MOST >> 10);
        }
    }
    body(&answer).with_context(asking)
}

/// Of an answer: nothing if it says 404.
fn body(answer: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("an answer without an end of its head")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => {}
        Some("404") => return Ok(None),
        _ => bail!("it said `{status}`"),
    }
    let body = &answer[end + 4..];
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        // Asked in HTTP/1.0, a server has no business with this.
        if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("it answered in pieces (`{line}`)");
        }
        if name.eq_ignore_ascii_case("content-length") && value.parse() != Ok(body.len()) {
            bail!("it said that {value} bytes come, and {} came", body.len());
        }
    }
    Ok(Some(body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_an_error() {
        let body = |text: &str| body(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(body("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab"), Ok(Some(b"ab".to_vec())));
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nab"), Ok(Some(b"ab".to_vec())));
        assert_eq!(body("HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nab"), Ok(None));
        for (wrong, why) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "3 bytes"),
            ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nab", "x bytes"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "pieces"),
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", "401"),
            ("HTTP/1.1 200 OK\r\n", "end of its head"),
            ("", "end of its head"),
        ] {
            let error = body(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong:?}: {error}");
        }
    }
}
