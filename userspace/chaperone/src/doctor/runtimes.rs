//! What an agent's programs bring along for TLS, each tried by a handshake with AWS's name, which goes through the
//! daemon's listener: run as the agent, in its cgroup. It believes nothing but what the programs print, and bounds that.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Read as _,
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};

use crate::output::json_line;

/// AWS's name that is asked; without a signature it answers everybody, and Chaperone refuses and records it.
pub const HOST: &str = "sts.us-east-1.amazonaws.com";
/// For one program.
const PATIENCE: Duration = Duration::from_mins(1);
/// Of what it prints.
const MOST: u64 = 64 << 10;
/// Programs of one kind.
const PROGRAMS: usize = 16;

const PYTHON: &str = include_str!("runtimes/python.py");
const NODE: &str = include_str!("runtimes/node.js");
const JAVA: &str = include_str!("runtimes/Probe.java");

/// Whether a call would verify.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The certificate that Chaperone showed was taken.
    Verified,
    /// It wasn't.
    Untrusted,
    /// It didn't come to that.
    Failed,
    /// This can't be told of it.
    NotTried,
}

/// What was found of one runtime.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Tried {
    /// Such as `python3 boto3`.
    pub runtime: String,
    /// The program.
    pub program: PathBuf,
    pub state: State,
    /// What it said.
    pub found: String,
}

/// Tries all that there are, and prints a JSON line each: the agent's side of `doctor --agent`.
pub fn run() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut tell = |tried: Vec<Tried>| -> anyhow::Result<()> {
        for each in tried {
            json_line(&mut out, &each)?;
        }
        Ok(())
    };
    tell(vec![go()])?;
    for program in programs("curl", &[]) {
        tell(vec![curl(&program)])?;
    }
    for program in programs("git", &[]) {
        tell(vec![git(&program)])?;
    }
    for program in programs("python3", &[".local/share/pipx/venvs/*/bin", ".local/share/uv/tools/*/bin", ".venv/bin"]) {
        tell(lines(&program, "python3", Command::new(&program).args(["-c", PYTHON, HOST])))?;
    }
    for program in programs("node", &[".nvm/versions/node/*/bin", ".volta/bin"]) {
        tell(lines(&program, "node", Command::new(&program).args(["-e", NODE, HOST])))?;
    }
    for program in programs("java", &["/usr/lib/jvm/*/bin", ".sdkman/candidates/java/*/bin"]) {
        tell(java(&program))?;
    }
    for program in programs("aws", &["/usr/local/bin"]) {
        tell(vec![aws(&program)])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every program of that name on the path and in those folders, each once; relative ones are the user's.
fn programs(name: &str, folders: &[&str]) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("HOME").map_or_else(|| "/nonexistent".into(), PathBuf::from);
    let mut places: Vec<PathBuf> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    places.extend(folders.iter().flat_map(|folder| folders_like(&home.join(folder))));
    let mut seen = BTreeSet::new();
    let there = places.into_iter().map(|folder| folder.join(name)).filter(|program| {
        // A virtual environment's python is a link to another one, and reads other libraries.
        let is_venv = program.parent().and_then(Path::parent).is_some_and(|folder| folder.join("pyvenv.cfg").exists());
        let whose = if is_venv { Some(program.clone()) } else { fs::canonicalize(program).ok() };
        program.is_file() && whose.is_some_and(|whose| seen.insert(whose))
    });
    there.take(PROGRAMS).collect()
}

/// One `*` stands for a folder's name.
fn folders_like(pattern: &Path) -> Vec<PathBuf> {
    let text = pattern.to_string_lossy().into_owned();
    let Some((before, after)) = text.split_once("/*/") else { return vec![pattern.to_owned()] };
    let Ok(entries) = fs::read_dir(before) else { return Vec::new() };
    let mut found: Vec<_> = entries.flatten().take(PROGRAMS * 4).map(|entry| entry.path().join(after)).collect();
    found.sort();
    found
}

fn tried(runtime: &str, program: &Path, state: State, found: &str) -> Tried {
    let found: String = found.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    Tried { runtime: runtime.to_owned(), program: program.to_owned(), state, found }
}

/// What a script printed: `STATE NAME DETAIL`.
fn lines(program: &Path, runtime: &str, command: &mut Command) -> Vec<Tried> {
    let said = match said(command) {
        Ok((_, said)) => said,
        Err(error) => return vec![tried(runtime, program, State::Failed, &format!("{error:#}"))],
    };
    let found: Vec<_> = said
        .lines()
        .filter_map(|line| {
            let (state, rest) = line.split_once(' ')?;
            let (name, detail) = rest.split_once(' ').unwrap_or((rest, ""));
            let state = match state {
                "verified" => State::Verified,
                "untrusted" => State::Untrusted,
                "failed" => State::Failed,
                _ => return None,
            };
            Some(tried(&format!("{runtime} {name}"), program, state, detail))
        })
        .collect();
    if found.is_empty() { vec![tried(runtime, program, State::Failed, &said)] } else { found }
}

fn curl(program: &Path) -> Tried {
    let mut command = Command::new(program);
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "30",
        "--output",
        "/dev/null",
        &format!("https://{HOST}/"),
    ]);
    match said(&mut command) {
        Ok((Some(0), _)) => tried("curl", program, State::Verified, ""),
        // Peer's certificate not taken; the bundle can't be read.
        Ok((Some(60 | 77), said)) => tried("curl", program, State::Untrusted, &said),
        Ok((_, said)) => tried("curl", program, State::Failed, &said),
        Err(error) => tried("curl", program, State::Failed, &format!("{error:#}")),
    }
}

fn git(program: &Path) -> Tried {
    let mut command = Command::new(program);
    command.args(["ls-remote", &format!("https://{HOST}/doctor.git")]).env("GIT_TERMINAL_PROMPT", "0");
    match said(command.env("GIT_ASKPASS", "true").env("LC_ALL", "C")) {
        Ok((_, said)) => {
            let text = said.to_lowercase();
            let answered =
                ["returned error", "not found", "authentication failed", "could not read username", "not valid"];
            let state = if text.contains("certificate") || text.contains("cafile") {
                State::Untrusted
            } else if answered.iter().any(|word| text.contains(word)) {
                State::Verified
            } else {
                State::Failed
            };
            tried("git", program, state, if state == State::Verified { "" } else { &said })
        }
        Err(error) => tried("git", program, State::Failed, &format!("{error:#}")),
    }
}

/// Versions 1 and 2: a bundle of its own, but for the variables that it reads.
fn aws(program: &Path) -> Tried {
    let mut version = Command::new(program);
    let version = said(version.arg("--version")).map(|(_, said)| said).unwrap_or_default();
    let runtime = version.split(' ').next().filter(|name| name.starts_with("aws-cli/")).unwrap_or("aws").to_owned();
    let mut command = Command::new(program);
    command.args(["sts", "get-caller-identity", "--no-sign-request", "--region", "us-east-1", "--no-cli-pager"]);
    if runtime.starts_with("aws-cli/1.") {
        command = Command::new(program);
        command.args(["sts", "get-caller-identity", "--no-sign-request", "--region", "us-east-1"]);
    }
    command.args(["--endpoint-url", &format!("https://{HOST}"), "--cli-connect-timeout", "20"]);
    match said(command.env("AWS_MAX_ATTEMPTS", "1")) {
        Ok((_, said)) if said.contains("An error occurred (") || said.contains("\"Arn\"") => {
            tried(&runtime, program, State::Verified, "")
        }
        Ok((_, said)) if said.contains("SSL validation failed") || said.contains("CERTIFICATE_VERIFY_FAILED") => {
            tried(&runtime, program, State::Untrusted, &said)
        }
        Ok((_, said)) => tried(&runtime, program, State::Failed, &said),
        Err(error) => tried(&runtime, program, State::Failed, &format!("{error:#}")),
    }
}

/// From source, which takes a JDK; a JRE alone can't be told.
fn java(program: &Path) -> Vec<Tried> {
    match said(Command::new(program).arg("--list-modules")) {
        Ok((Some(0), modules)) if modules.contains("jdk.compiler") => {}
        _ => {
            let why = "no compiler, or older than Java 11: ask `keytool -list -cacerts -alias chaperone`";
            return vec![tried("java", program, State::NotTried, why)];
        }
    }
    let folder = env::temp_dir().join(format!("chaperone-doctor-{}", std::process::id()));
    let source = folder.join("Probe.java");
    // A folder that is there already is somebody else's.
    let written = fs::create_dir(&folder).and_then(|()| fs::write(&source, JAVA));
    let found = match written.with_context(|| format!("writing {}", source.display())) {
        Ok(()) => lines(program, "java", Command::new(program).arg(&source).arg(HOST)),
        Err(error) => vec![tried("java", program, State::Failed, &format!("{error:#}"))],
    };
    let _ = fs::remove_dir_all(&folder);
    found
}

/// Go's programs have no runtime to ask: a handshake by the files that crypto/x509 reads on Linux.
fn go() -> Tried {
    const FILES: [&str; 6] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/tls/cacert.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let files: Vec<PathBuf> =
        named("SSL_CERT_FILE").map_or_else(|| FILES.map(PathBuf::from).to_vec(), |file| vec![file.into()]);
    let folders: Vec<PathBuf> = named("SSL_CERT_DIR")
        .map_or_else(|| FOLDERS.map(PathBuf::from).to_vec(), |folders| env::split_paths(&folders).collect());
    let Some(bundle) = files.iter().find(|file| file.is_file()) else {
        return tried("go", Path::new("crypto/x509"), State::Untrusted, "none of the files that it reads is there");
    };
    let mut roots = RootCertStore::empty();
    let inside =
        folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten().map(|entry| entry.path());
    for file in std::iter::once(bundle.clone()).chain(inside.take(2000)) {
        if let Ok(certificates) = CertificateDer::pem_file_iter(&file) {
            roots.add_parsable_certificates(certificates.take(2000).flatten());
        }
    }
    match handshake(roots) {
        Ok(()) => tried("go", bundle, State::Verified, ""),
        Err(error) => {
            let text = format!("{error:#}");
            let state = if text.contains("invalid peer certificate") { State::Untrusted } else { State::Failed };
            tried("go", bundle, state, &text)
        }
    }
}

fn handshake(roots: RootCertStore) -> anyhow::Result<()> {
    let address = (HOST, 443).to_socket_addrs().with_context(|| format!("resolving {HOST}"))?.next();
    let address = address.with_context(|| format!("{HOST} has no address"))?;
    let mut socket =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connecting to {address}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS's versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut session = ClientConnection::new(Arc::new(config), ServerName::try_from(HOST)?)?;
    while session.is_handshaking() {
        session.complete_io(&mut socket).with_context(|| format!("the handshake with {HOST}"))?;
    }
    session.send_close_notify();
    let _ = session.complete_io(&mut socket);
    Ok(())
}

fn said(command: &mut Command) -> anyhow::Result<(Option<i32>, String)> {
    said_in(command, PATIENCE, MOST)
}

/// How a program ended, and what it said on both its outputs. One that takes too long is ended with all that it started.
pub fn said_in(command: &mut Command, patience: Duration, most: u64) -> anyhow::Result<(Option<i32>, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let (mut reader, writer) = std::io::pipe().context("making a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    // Its ends of the pipe, which `command` would keep open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).context("BUG: an id of a process")?);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = reader.by_ref().take(most).read_to_end(&mut text);
        // Who says more isn't held up.
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        let _ = tell.send(read.map(|_| text));
    });
    let (tell_end, told_end) = mpsc::channel();
    thread::spawn(move || {
        // It stays to be waited for, so that its group is nobody else's.
        let _ = waitid(Id::Pid(group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let _ = tell_end.send(());
    });
    let end = Instant::now() + patience;
    let read = told.recv_timeout(patience);
    // It has nothing to say any more, and ends by itself.
    let _ = told_end.recv_timeout(end.saturating_duration_since(Instant::now()));
    // Also what it left behind.
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    let text = read.ok().with_context(|| format!("{name} took longer than {} s", patience.as_secs()))?;
    let text = text.with_context(|| format!("reading what {name} said"))?;
    Ok((status.code(), String::from_utf8_lossy(&text).into_owned()))
}

/// What the agent's side printed, as far as it is what it should be.
pub fn read(said: &str) -> anyhow::Result<Vec<Tried>> {
    let lines = said.lines().filter(|line| !line.trim().is_empty());
    let all: Vec<Tried> = lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("the agent's side said `{line}`")))
        .collect::<anyhow::Result<_>>()?;
    ensure!(!all.is_empty(), "the agent's side said nothing: can its user run this program?");
    Ok(all)
}

/// For people: flushed as each comes.
pub fn write(out: &mut impl std::io::Write, tried: &Tried) -> std::io::Result<()> {
    let mark = match tried.state {
        State::Verified => "ok  ",
        State::Untrusted | State::Failed => "FAIL",
        State::NotTried => "warn",
    };
    let what = match tried.state {
        State::Verified => "a call would verify",
        State::Untrusted => "doesn't trust Chaperone's CA:",
        State::Failed => "can't be told:",
        State::NotTried => "not tried:",
    };
    let clean = crate::output::clean;
    let program = tried.program.display().to_string();
    writeln!(out, "{mark}  {:<20} {} {what} {}", clean(&tried.runtime), clean(&program), clean(&tried.found))?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn what_scripts_print_is_read_and_nothing_else() {
        let found = lines(
            Path::new("/p"),
            "x",
            &mut shell("echo noise; echo verified a; echo untrusted b no way; echo failed c"),
        );
        let states: Vec<_> =
            found.iter().map(|each| (each.runtime.as_str(), each.state, each.found.as_str())).collect();
        let wanted = [("x a", State::Verified, ""), ("x b", State::Untrusted, "no way"), ("x c", State::Failed, "")];
        assert_eq!(states, wanted);
        let found = lines(Path::new("/p"), "x", &mut shell("echo Segmentation fault >&2; exit 3"));
        assert_eq!((found[0].state, found[0].found.as_str()), (State::Failed, "Segmentation fault"));
    }

    #[test]
    fn what_a_program_says_is_bounded() {
        let (code, text) = said(&mut shell("head -c 1000000 /dev/zero; exit 7")).unwrap();
        assert_eq!((code, text.len() as u64), (Some(7), MOST));
        assert!(said(&mut Command::new("/nonexistent")).is_err());
    }

    #[test]
    fn the_agents_side_is_not_believed_more_than_it_says() {
        let line = serde_json::to_string(&tried("git", Path::new("/usr/bin/git"), State::Verified, "")).unwrap();
        assert_eq!(read(&line).unwrap().len(), 1);
        assert!(read("").unwrap_err().to_string().contains("nothing"));
        assert!(read("{}").is_err() && read(&format!("{line}\nhello")).is_err());
    }

    #[test]
    fn a_pattern_names_folders() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            fs::create_dir_all(folder.path().join(name).join("bin")).unwrap();
        }
        let found = folders_like(&folder.path().join("*/bin"));
        assert_eq!(found, [folder.path().join("a/bin"), folder.path().join("b/bin")]);
        assert_eq!(folders_like(Path::new("/no/star")), [PathBuf::from("/no/star")]);
    }
}
