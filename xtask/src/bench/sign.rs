//! Requests signed as an SDK would, by the session's placeholder (Signature Version 4), so that plain load generators
//! can send them: a signature holds for 15 minutes. The arithmetic is openssl's; a handful of calls per run.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

pub(super) const REGION: &str = "eu-west-1";
/// Bytes in a chunk that is signed by itself; SDKs have from 64 KiB to 1 MiB.
const CHUNK: usize = 256 << 10;
/// SHA-256 of nothing, in hexadecimal.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What the metadata service gives; the names are its own.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

/// A request's method, host, path and fields.
#[derive(Clone)]
pub(super) struct Signed {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
    /// What the first chunk is signed with.
    seed: Seed,
}

#[derive(Clone)]
struct Seed {
    key: String,
    date: String,
    scope: String,
    signature: String,
}

/// What a request carries.
#[derive(Clone, Copy)]
pub(super) enum Body {
    Empty,
    Unsigned,
    /// So many bytes, in chunks that are signed one by one.
    Chunks(u64),
}

/// Signs a request to S3 without a query.
pub(super) fn sign(
    credentials: &Credentials,
    method: &'static str,
    host: &str,
    path: &'static str,
    body: Body,
) -> Result<Signed> {
    let date = Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]).output().context("starting date")?.stdout;
    let date = String::from_utf8(date).context("reading the date")?.trim().to_owned();
    let day = date.get(..8).context("the date is too short")?;
    let (payload, length) = match body {
        Body::Empty => (EMPTY, None),
        Body::Unsigned => ("UNSIGNED-PAYLOAD", None),
        Body::Chunks(bytes) => ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", Some(bytes.to_string())),
    };
    let token = &credentials.token;
    let (name, line) = match &length {
        Some(length) => ("x-amz-decoded-content-length;", format!("x-amz-decoded-content-length:{length}\n")),
        None => ("", String::new()),
    };
    let names = format!("host;x-amz-content-sha256;x-amz-date;{name}x-amz-security-token");
    let canonical = format!(
        "{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{date}\n{line}\
         x-amz-security-token:{token}\n\n{names}\n{payload}"
    );
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", openssl(&["-r"], &canonical)?);
    let mut key: String =
        format!("AWS4{}", credentials.secret_access_key).bytes().map(|byte| format!("{byte:02x}")).collect();
    for part in [day, REGION, "s3", "aws4_request"] {
        key = hmac(&key, part)?;
    }
    let signature = hmac(&key, &to_sign)?;
    let id = &credentials.access_key_id;
    let mut fields = vec![
        (
            "Authorization",
            format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"),
        ),
        ("X-Amz-Content-Sha256", payload.to_owned()),
        ("X-Amz-Date", date.clone()),
        ("X-Amz-Security-Token", token.clone()),
        // The fields that botocore sends besides, so that heads have their usual size.
        ("User-Agent", "Boto3/1.40.0 md/Botocore#1.40.0 ua/2.1 os/linux#6.1 md/arch#x86_64 lang/python#3.11".into()),
        ("amz-sdk-invocation-id", "0b6f6c1e-6c0f-4c2f-8f55-7f4b5d7e2a10".into()),
        ("amz-sdk-request", "attempt=1".into()),
        ("Accept-Encoding", "identity".into()),
    ];
    if let Some(length) = length {
        fields.extend([("X-Amz-Decoded-Content-Length", length), ("Content-Encoding", "aws-chunked".to_owned())]);
    }
    Ok(Signed { method, path, fields, seed: Seed { key, date, scope, signature } })
}

/// Writes `bytes` zeroes in signed chunks, the zeroes themselves as holes in the file; gives the file's size.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>
pub(super) fn write_chunks(signed: &Signed, bytes: u64, path: &Path) -> Result<u64> {
    let Seed { key, date, scope, signature } = &signed.seed;
    let zeroes = openssl(&["-r"], &"\0".repeat(CHUNK))?;
    let mut previous = signature.clone();
    let mut sign = |hash: &str| -> Result<String> {
        let to_sign = format!("AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{previous}\n{EMPTY}\n{hash}");
        previous = hmac(key, &to_sign)?;
        Ok(previous.clone())
    };
    ensure!(bytes.is_multiple_of(CHUNK as u64), "BUG: {bytes} bytes are no whole chunks");
    let mut file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    for _ in 0..bytes / CHUNK as u64 {
        write!(file, "{CHUNK:x};chunk-signature={}\r\n", sign(&zeroes)?)?;
        file.seek(SeekFrom::Current(i64::try_from(CHUNK)?))?;
        write!(file, "\r\n")?;
    }
    write!(file, "0;chunk-signature={}\r\n\r\n", sign(EMPTY)?)?;
    Ok(file.stream_position()?)
}

fn hmac(key: &str, data: &str) -> Result<String> {
    openssl(&["-r", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}")], data)
}

/// `openssl dgst -sha256` of `data`, in hexadecimal.
fn openssl(arguments: &[&str], data: &str) -> Result<String> {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting openssl")?;
    let mut input = child.stdin.take().context("BUG: openssl has no input")?;
    input.write_all(data.as_bytes()).context("writing to openssl")?;
    drop(input);
    let output = child.wait_with_output().context("waiting for openssl")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digest = text.split(' ').next().unwrap_or_default();
    ensure!(output.status.success() && digest.len() == 64, "openssl dgst answered {text:?}");
    Ok(digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_the_one_of_rfc_4231() {
        let digest = hmac(&"0b".repeat(20), "Hi There").unwrap();
        assert_eq!(digest, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        assert_eq!(openssl(&["-r"], "").unwrap(), EMPTY);
    }
}
