//! `cargo xtask fuzz`: the readers of what agents send, against libFuzzer, seeded with requests that botocore built.

use std::{
    collections::BTreeMap,
    fs,
    io::BufRead as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use serde::Deserialize;

use crate::place;

const CARGO_FUZZ: &str = "0.13.2";
/// More than any reader may need: the largest input is 1 MiB, and what is kept of it is bounded.
const MAX_MEMORY_MIB: u32 = 1024;
const MAX_INPUT: usize = 1 << 20;
/// Real engines' state of containers.
const STATES: [&str; 4] =
    ["containerd-1.7.24-meta.db", "podman-4.3.1-bolt_state.db", "podman-4.3.1-containers.json", "podman-5.4.2-db.sql"];

/// Arguments of `cargo xtask fuzz`.
#[derive(Args, Debug)]
pub struct Options {
    /// Only these targets; all of `fuzz/fuzz_targets`, if none is named.
    targets: Vec<String>,
    /// How long each runs, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

/// Runs the targets one after the other on one core, until one finds something. Needs rustup's nightly toolchain.
pub fn run(options: &Options) -> Result<()> {
    let root = place::root();
    let target = place::target()?.join("fuzz");
    let tool = install(&target)?;
    seeds(&root)?;
    let mut targets: Vec<String> = fs::read_dir(root.join("fuzz/fuzz_targets"))
        .context("listing fuzz/fuzz_targets")?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| options.targets.is_empty() || options.targets.contains(name))
        .collect();
    targets.sort_unstable();
    if targets.is_empty() || options.targets.iter().any(|name| !targets.contains(name)) {
        bail!("no such target: see fuzz/fuzz_targets");
    }
    for name in targets {
        println!("== {name}: {} s ==", options.seconds);
        let status = Command::new(&tool)
            .args(["fuzz", "run", &name, "--target-dir"])
            .arg(&target)
            .arg("--")
            .args([format!("-max_total_time={}", options.seconds), format!("-rss_limit_mb={MAX_MEMORY_MIB}")])
            .args([format!("-max_len={MAX_INPUT}"), "-timeout=10".into(), "-print_final_stats=1".into()])
            .current_dir(root.join("fuzz"))
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .status()
            .with_context(|| format!("starting {}", tool.display()))?;
        if !status.success() {
            bail!(
                "`{name}` found something: fuzz/artifacts/{name} has the input, and the output above how to run it again"
            );
        }
    }
    Ok(())
}

/// cargo-fuzz, in the target folder.
fn install(target: &Path) -> Result<PathBuf> {
    let tool = target.join("bin/cargo-fuzz");
    if !tool.exists() {
        println!("fuzz: installing cargo-fuzz {CARGO_FUZZ} into {}", target.display());
        let status = place::cargo()
            .args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--root"])
            .arg(target)
            .status()
            .context("starting `cargo install cargo-fuzz`")?;
        if !status.success() {
            bail!("`cargo install cargo-fuzz` ended with {status}");
        }
    }
    Ok(tool)
}

/// A request of `wire.ndjson.zst`.
#[derive(Deserialize)]
struct Wire {
    s: String,
    o: String,
    m: String,
    u: String,
    h: Vec<(String, String)>,
    b: String,
}

/// An answer of `answers.ndjson.zst`, made from a model.
#[derive(Deserialize)]
struct Answer {
    service: String,
    operation: String,
    format: String,
    body: String,
}

/// Every twentieth answer, as the target of maskers reads it: its format, where it is cut, and the body.
fn answers(root: &Path, all: &mut BTreeMap<(&str, String), Vec<u8>>) -> Result<()> {
    let file = root.join("userspace/aws/tests/data/answers.ndjson.zst");
    let answers = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let answers = zstd::decode_all(&answers[..]).with_context(|| format!("expanding {}", file.display()))?;
    for line in answers.lines().step_by(20) {
        let line = line.context("reading an answer")?;
        let one: Answer = serde_json::from_str(&line).with_context(|| format!("reading {}", file.display()))?;
        let format = match one.format.as_str() {
            "cbor" => 0,
            "events" => 1,
            "json" => 2,
            "xml" => 5,
            _ => 4,
        };
        let body = BASE64_STANDARD.decode(&one.body).context("a body's base64")?;
        let seed = [&[format, 17], &body[..]].concat();
        all.insert(("masking", format!("{}-{}", one.service, one.operation)), seed);
    }
    Ok(())
}

/// Cuts the requests that botocore built into what each target reads.
fn seeds(root: &Path) -> Result<()> {
    let file = root.join("userspace/aws/tests/data/wire.ndjson.zst");
    let wire = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let wire = zstd::decode_all(&wire[..]).with_context(|| format!("expanding {}", file.display()))?;
    let mut all: BTreeMap<(&str, String), Vec<u8>> = BTreeMap::new();
    for (at, line) in wire.lines().enumerate() {
        let line = line.context("reading a request")?;
        let Ok(one) = serde_json::from_str::<Wire>(&line) else { continue };
        let name = format!("{}-{}-{at}", one.s, one.o);
        let body = BASE64_STANDARD.decode(&one.b).context("a body's base64")?;
        let Some((host, path)) =
            one.u.split_once("//").map(|(_, rest)| rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
        else {
            continue;
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut request = format!("{} {slash}{path} HTTP/1.1\r\nHost: {host}\r\n", one.m);
        let mut kinds = String::new();
        for (name, value) in one.h.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            request.extend([name, ": ", value, "\r\n"]);
            if ["content-type", "content-encoding", "smithy-protocol"].contains(&name.to_ascii_lowercase().as_str()) {
                kinds.push_str(value);
            }
        }
        request.push_str("\r\n");
        let request = [request.as_bytes(), &body].concat();
        all.insert(("host", name.clone()), host.as_bytes().to_vec());
        all.insert(("http_framing", name.clone()), request.clone());
        all.insert(("request", name.clone()), request);
        let reader = match kinds.as_str() {
            kinds if kinds.contains("aws-chunked") => "aws_chunked",
            kinds if kinds.contains("cbor") => "cbor",
            kinds if kinds.contains("json") => "json",
            kinds if kinds.contains("form-urlencoded") => "form",
            _ if body.starts_with(b"<") => "xml",
            _ => continue,
        };
        all.insert((reader, name), body);
    }
    let handshake = b"GET /prod HTTP/1.1\r\nHost: a.execute-api.eu-west-1.amazonaws.com\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    all.insert(("websocket", "handshake".into()), handshake.to_vec());
    // RFC 6455, 5.7: a masked `Hello`; and a ping, a message in two pieces, a close.
    let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let others = b"\x89\x80\0\0\0\0\x02\x81\0\0\0\0a\x80\x81\0\0\0\0b\x88\x80\0\0\0\0";
    all.insert(("websocket", "frames".into()), [&hello[..], others].concat());
    // The headers of a signed message, and no payload.
    let signed = b"\x05:date\x08\0\0\x01\x97\x2b\xc2\x6c\0\x10:chunk-signature\x06\0\x20";
    all.insert(("event_stream", "empty".into()), [&signed[..], &[0; 32]].concat());
    for name in STATES {
        let file = root.join("userspace/identity/testdata").join(name);
        let state = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        all.insert(("container_state", name.to_owned()), state);
    }
    answers(root, &mut all)?;
    for ((target, name), bytes) in all {
        let folder = root.join("fuzz/corpus").join(target);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let file = folder.join(name);
        fs::write(&file, bytes).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}
