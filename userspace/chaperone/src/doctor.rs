//! `chaperone doctor`: what the daemon needs, in words, with a remedy for each thing that is missing.

mod agent;
mod host;
mod runtimes;

use std::{io::Write, path::Path, process::ExitCode, sync::Arc};

use chaperone_authority::{CertificateAuthority, Trust};
use chaperone_capture::{Capture, CaptureConfig, LsmHooks, cgroup_root, pinned_but_off};
use chaperone_console::{ControlRequest, ControlResponse};
use serde::Serialize;

use crate::{
    commands::{ask_at, other_answer},
    config::{Config, Lsm, Paths},
    enrolment::{NETWORK_ADMIN, Report, UNDECIDED, UNMATCHED, UNSUPPORTED},
    in_force,
    output::{clean, json_line},
    sandbox, warehouse,
};

pub use self::{
    agent::{Asked, run as agent},
    runtimes::run as runtimes,
};

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    /// Nothing that must be so isn't, but it may not be what is wanted.
    warning: bool,
    found: String,
}

/// Looks at everything; exit code 1 if anything is wrong.
pub fn run(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = vec![
        finding("root", sandbox::require_root().map(|()| "yes".to_owned())),
        finding("kernel types (BTF)", {
            let there = Path::new("/sys/kernel/btf/vmlinux").exists();
            there
                .then(|| "/sys/kernel/btf/vmlinux".to_owned())
                .ok_or("/sys/kernel/btf/vmlinux is missing: use a kernel with CONFIG_DEBUG_INFO_BTF (Debian's have it)")
        }),
        finding("cgroup v2", cgroup_root().map(|root| root.display().to_string())),
        host::clock(),
        host::entropy(),
    ];
    let config = Config::read(path);
    findings.push(finding("configuration", config.as_ref().map(|_| path.display().to_string())));
    // What doesn't need the configuration is looked at all the same, where it was last.
    let paths = match &config {
        Ok(config) => config.paths.clone(),
        Err(_) => in_force::kept(path).map(|(kept, _)| kept.paths).unwrap_or_default(),
    };
    if let Ok(config) = &config {
        findings.push(finding(
            "policies",
            config
                .policy
                .read()
                .map(|version| format!("{} policies, {} warnings", version.len(), version.warnings.len())),
        ));
    }
    let authority = CertificateAuthority::open(&paths.ca()).and_then(|authority| match &config {
        Ok(config) => authority.check(&config.domains()).map(|()| authority),
        Err(_) => Ok(authority),
    });
    findings.push(finding("CA", authority.as_ref().map(|authority| authority.path().display().to_string())));
    if let Ok(authority) = &authority {
        findings.push(finding("trust stores", trusted(path, authority)));
    }
    if let Ok(config) = &config {
        enrolment(config, &mut findings);
    }
    host::beside_the_hooks(&paths.bpffs, &mut findings);
    kernel_hooks(&paths.bpffs, config.as_ref().is_ok_and(|config| config.capture.lsm == Lsm::Optional), &mut findings);
    findings.push(finding("daemon", daemon(&paths)));
    if let Ok(config) = &config
        && let Some(found) = warehouse::summary(config).transpose()
    {
        findings.push(finding("ClickHouse", found));
    }
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        if json {
            json_line(&mut out, finding)?;
        } else {
            let mark = match finding {
                Finding { ok: false, .. } => "FAIL",
                Finding { warning: true, .. } => "warn",
                Finding { .. } => "ok  ",
            };
            writeln!(out, "{mark}  {:<20} {}", finding.check, lines(&finding.found))?;
        }
    }
    Ok(if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A parser's picture of the place has several, which stay below one another.
fn lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join(&format!("\n{:27}", ""))
}

/// Rules that name nothing.
fn enrolment(config: &Config, findings: &mut Vec<Finding>) {
    let (agents, root) = match (config.agents(), cgroup_root()) {
        (Ok(agents), Ok(root)) => (agents, root),
        (Err(error), _) => return findings.push(finding("enrolment", Err::<String, _>(error))),
        // Said already.
        (_, Err(_)) => return,
    };
    let report = Report::of(config, &agents, &root);
    let before = findings.len();
    findings.extend(report.unmatched().map(|rule| {
        let found = format!("{}: agent `{}`, {}: {UNMATCHED}", rule.place, rule.agent, rule.rule);
        Finding { check: "enrolment", ok: true, warning: true, found }
    }));
    findings.extend(report.undecided().iter().map(|cgroup| {
        let found = format!("{cgroup}: {UNDECIDED}");
        Finding { check: "containers", ok: true, warning: true, found }
    }));
    findings.extend(report.unsupported().iter().map(|container| {
        let found = format!("{}: agent `{}`, {}: {UNSUPPORTED}", container.cgroup, container.agent, container.runtime);
        finding("containers", Err::<String, _>(found))
    }));
    findings.extend(report.network_admins().iter().map(|container| {
        let (cgroup, agent, pid) = (&container.cgroup, &container.agent, container.pid);
        finding("containers", Err::<String, _>(format!("{cgroup}: agent `{agent}`, process {pid}: {NETWORK_ADMIN}")))
    }));
    if findings.len() == before {
        findings.push(finding("enrolment", Ok::<_, String>("every rule matches a cgroup".to_owned())));
    }
}

/// What the hooks of the LSM need besides.
const LSM: &str = " with CONFIG_BPF_LSM, booted with `bpf` in its `lsm=` list";

/// What the daemon tries at its start, tried with hooks of the doctor's own beside the daemon's, which know of no agent and
/// end with this process.
fn kernel_hooks(bpffs: &Path, optional: bool, findings: &mut Vec<Finding>) {
    let wanted = CaptureConfig {
        bpffs: bpffs.to_owned(),
        cgroup_root: None,
        lsm: LsmHooks::WhereAvailable,
        mask: Arc::default(),
    };
    let capture = match Capture::attach_for_now(&wanted) {
        Ok(capture) => capture,
        Err(error) => return findings.push(finding("kernel hooks", Err::<String, _>(error))),
    };
    for (hook, reason) in capture.missing_hooks() {
        let (lsm, what) = match *hook {
            "device" => ("", "have TUN devices, whose packets are no socket's"),
            "socket_create" => (LSM, "have packet and vsock sockets"),
            _ => (LSM, "use connections that are handed to them"),
        };
        let text = format!("{hook}: {reason}: needs Linux 6.1{lsm}; without, agents can {what}");
        findings.push(finding("later hook", if optional { Ok(format!("none (optional): {text}")) } else { Err(text) }));
    }
    match capture.self_test() {
        Err(error) => {
            findings.push(finding("kernel hooks", Err::<String, _>(format!("{:#}", anyhow::Error::from(error)))));
        }
        Ok(checks) => findings.extend(checks.into_iter().map(|check| {
            let found = check.result.map(|()| check.what.to_owned());
            finding("kernel hooks", found.map_err(|found| format!("not so: {}: {found}", check.what)))
        })),
    }
    if let Err(error) = capture.detach() {
        findings.push(finding("kernel hooks", Err::<String, _>(error)));
    }
}

fn finding<E: std::fmt::Display>(check: &'static str, result: Result<String, E>) -> Finding {
    match result {
        Ok(found) => Finding { check, ok: true, warning: false, found },
        Err(error) => Finding { check, ok: false, warning: false, found: error.to_string() },
    }
}

fn trusted(config: &Path, authority: &CertificateAuthority) -> Result<String, String> {
    let trust =
        Trust::of_host().and_then(|trust| trust.with_containers_by(config)).map_err(|error| error.to_string())?;
    let report = trust.status(authority.path()).map_err(|error| error.to_string())?;
    let missing: Vec<String> =
        report.stores.iter().filter(|store| !store.trusted).map(|store| store.path.display().to_string()).collect();
    if missing.is_empty() {
        Ok(format!("{} know the CA", report.stores.len()))
    } else {
        Err(format!("{} don't know the CA: run `chaperone trust install`", missing.join(", ")))
    }
}

fn daemon(paths: &Paths) -> Result<String, String> {
    let status = match ask_at(&paths.control, &ControlRequest::Status) {
        Ok(ControlResponse::Status(status)) => status,
        Ok(_) => return Err(other_answer().to_string()),
        Err(error) => return Err(format!("{error}{}", without_daemon(&paths.bpffs))),
    };
    if let Some(trouble) = status["hooks"]["trouble"].as_str() {
        return Err(format!("its kernel hooks: {trouble}"));
    }
    match status["journal"]["trouble"].as_str() {
        Some(trouble) => Err(format!("it refuses calls, because it can't record them: {trouble}")),
        None => Ok(format!("version {}, {} requests", status["version"].as_str().unwrap_or("?"), status["requests"])),
    }
}

/// What that means for agents.
fn without_daemon(bpffs: &Path) -> String {
    match pinned_but_off(bpffs) {
        Ok(None) => format!("; no hooks are pinned in {}: agents are free, and unseen", bpffs.display()),
        Ok(Some(off)) if off.is_empty() => "; the hooks are on: agents are refused until it runs".to_owned(),
        Ok(Some(off)) => format!(
            "; not in force, though there is {}: {}: agents are free there, and unseen; start the daemon",
            bpffs.display(),
            off.join(", ")
        ),
        Err(error) => format!("; whether the hooks are on can't be told: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_the_place_keeps_its_lines() {
        assert_eq!(lines("a\n  | x\u{1b}[2J\n"), format!("a\n{:27}  | x\\u{{1b}}[2J", ""));
    }
}
