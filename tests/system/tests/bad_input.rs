//! What is wrong is said: file, line, remedy, exit code 2, and nothing is left half set up.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{fs, process::Command};

use chaperone_system_tests::{Lab, both};

const BIN: &str = "CHAPERONE_BIN";

fn chaperone() -> String {
    std::env::var(BIN).expect("run these tests by `cargo xtask test`")
}

struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    /// A configuration that is right but for what is added to it.
    fn new(extra: &str, policy: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
        let dir = folder.path().display();
        fs::create_dir(folder.path().join("policies")).unwrap();
        fs::write(folder.path().join("policies/p.cedar"), policy).unwrap();
        let name = folder.path().file_name().unwrap().display();
        fs::write(
            folder.path().join("config.toml"),
            format!(
                "[[agents]]\nname = \"coder\"\ncgroups = [\"/{name}/agents/*\"]\n[paths]\nstate = \"{dir}/state\"\n\
                 control = \"{dir}/control.sock\"\nbpffs = \"/sys/fs/bpf/{name}\"\n[policy]\npath = \"{dir}/policies\"\n{extra}"
            ),
        )
        .unwrap();
        Self { folder }
    }

    /// Starts the daemon, which must not come up: gives what it said.
    fn refused(&self, wrapper: &[&str]) -> String {
        let config = self.folder.path().join("config.toml");
        let mut words: Vec<String> = wrapper.iter().map(|&word| word.to_owned()).collect();
        words.extend([chaperone(), "daemon".into(), "--config".into(), config.display().to_string()]);
        let output = Command::new("timeout").args(["20"]).args(&words).output().unwrap();
        let said = both(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!self.folder.path().join("control.sock").exists(), "no control socket is left");
        let name = self.folder.path().file_name().unwrap();
        let cgroups = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = cgroups.lines().find(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap();
        assert!(!std::path::Path::new(root).join(name).exists(), "no cgroup is left");
        let pins = fs::read_dir(std::path::Path::new("/sys/fs/bpf").join(name)).map_or(0, Iterator::count);
        assert_eq!(pins, 0, "no hooks are left");
        said
    }
}

const ASKS: &str = "@approvers(\"sre\")\nforbid (principal, action, resource) unless { context.approved };\n";
/// An approvers' API whose certificate isn't there.
const API: &str = "[approvals.groups]\nsre = [\"alice\"]\n[approvals.api]\nlisten = \"127.0.0.1:1\"\n\
    certificate = \"/nonexistent/crt\"\nkey = \"/nonexistent/key\"\nurl = \"https://a.example\"\n\
    [approvals.api.sign_in]\nname = \"corp\"\nissuer = \"https://login.example.com\"\nclient_id = \"x\"\n";

const GOOD: &str = "permit (principal, action, resource);\n";

#[test]
fn configuration_and_policy_errors_have_a_place() {
    for (extra, policy, place, word) in [
        ("[journal]\ndirr = \"/x\"\n", GOOD, "config.toml:11", "dirr"),
        ("[journal]\nsegment_bytes = \"big\"\n", GOOD, "config.toml:11", "u64"),
        ("", "permit (principal, action);\n", "p.cedar:1", "resource"),
        ("", "\npermit (principal, action == Action::\"s3:GetObjekt\", resource);\n", "p.cedar:2", "s3:GetObjekt"),
        ("[upstream]\nca_file = \"/nonexistent/ca.pem\"\n", GOOD, "/nonexistent/ca.pem", "CA"),
        ("[[agents]]\nname = \"b\"\nunits = [\"*.service\"]\n", GOOD, "config.toml:12", "daemon itself"),
        ("[[agents]]\nname = \"b\"\ncgroups = [\"/init.scope\"]\n", GOOD, "config.toml:12", "PID 1"),
        ("[[agents]]\nname = \"b\"\ncgroups = [\"/*\"]\n", GOOD, "config.toml:12", "whole host"),
        (
            "[[agents]]\nname = \"b\"\nunits = [\"b.slice/b.service\"]\n\n[[agents]]\nname = \"c\"\nslices = [\"b.slice\"]\n",
            GOOD,
            "config.toml:16",
            "overlaps",
        ),
        ("[journal]\ndir = \"/proc/nonexistent\"\n", GOOD, "/proc/nonexistent", "journal"),
        ("", ASKS, "config.toml", "asks the approvers `sre`, and no such group is in [approvals.groups]"),
        ("", "@aprovers(\"sre\")\npermit (principal, action, resource);\n", "p.cedar:1", "aprovers"),
        ("[approvals.groups]\nsre = []\n", ASKS, "config.toml:10", "nobody is in it"),
        ("[approvals.groups]\nsre = [\"group:corp:ops\"]\n", ASKS, "config.toml:10", "no provider of that name"),
        (API, ASKS, "config.toml:14", "/nonexistent/crt"),
        (
            "[[approvals.webhooks]]\nname = \"a\"\nurl = \"https://a.example/\"\nsecret_file = \"/nonexistent/secret\"\n",
            GOOD,
            "config.toml:10",
            "/nonexistent/secret",
        ),
        (
            "[[approvals.webhooks]]\nname = \"a\"\nurl = \"http://a.example/\"\nsecret_file = \"/s\"\n",
            GOOD,
            "config.toml:10",
            "must be https",
        ),
        (
            "[approvals.slack]\nteam = \"T1\"\nchannel = \"C1\"\ntoken_file = \"/nonexistent/bot\"\n\
             app_token_file = \"/nonexistent/app\"\npeople = { U1 = \"alice\" }\n",
            GOOD,
            "config.toml:10",
            "/nonexistent/bot",
        ),
    ] {
        let said = Host::new(extra, policy).refused(&[]);
        assert!(said.contains(place) && said.contains(word), "{extra}{policy}: {said}");
    }
}

/// A user who can't be looked up now may be there, and an agent: the rules besides hold from the first start on.
#[test]
fn a_user_whom_nobody_knows_frees_no_other_agents() {
    let host = Host::new("[[agents]]\nname = \"b\"\nusers = [\"nobody-at-all\"]\n", GOOD);
    let config = host.folder.path().join("config.toml");
    let run = |command: &str| {
        let said =
            Command::new("timeout").args(["20", &chaperone(), command, "--config"]).arg(&config).output().unwrap();
        (said.status.code(), both(&said))
    };
    let (code, said) = run("daemon");
    assert!(code == Some(2) && said.contains("config.toml:12") && said.contains("no user"), "{said}");
    let pins = std::path::Path::new("/sys/fs/bpf").join(host.folder.path().file_name().unwrap());
    assert!(pins.join("link_connect4").exists(), "{said}");
    let (code, said) = run("disable");
    assert!(code == Some(0) && !pins.exists(), "{said}");
    let root = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = root.lines().find(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap().to_owned();
    let made = std::path::Path::new(&root).join(host.folder.path().file_name().unwrap());
    fs::remove_dir(made.join("agents")).unwrap();
    fs::remove_dir(made).unwrap();
}

/// What the daemon is in, only the daemon can know.
#[test]
fn rules_that_would_enrol_the_daemon_are_refused() {
    let folder = format!("chaperone-test-own-{}", std::process::id());
    let host = Host::new(&format!("[[agents]]\nname = \"b\"\ncgroups = [\"/{folder}/*\"]\n"), GOOD);
    let move_in = format!(
        "root=$(awk '$0 ~ / - cgroup2 / {{print $5}}' /proc/self/mountinfo | tail -1); mkdir -p $root/{folder}/below; \
         echo 0 > $root/{folder}/below/cgroup.procs; \"$@\"; code=$?; echo 0 > $root/cgroup.procs; \
         rmdir $root/{folder}/below $root/{folder}; exit $code"
    );
    let said = host.refused(&["sh", "-c", &move_in, "sh"]);
    assert!(said.contains("config.toml:12") && said.contains(&format!("runs in /{folder}/below")), "{said}");
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    let host = Host::new("", GOOD);
    let open = Command::new("chmod").args(["-R", "a+rX"]).arg(host.folder.path()).status().unwrap();
    assert!(open.success());
    let said = host.refused(&["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    assert!(said.contains("root"), "{said}");
}

#[test]
fn without_cgroup_v2_it_says_so() {
    let host = Host::new("", GOOD);
    let hide = "for m in $(awk '{print $5}' /proc/self/mountinfo); do mount --make-private $m 2>/dev/null; done; for m in $(awk '$0 ~ / - cgroup2 / {print $5}' /proc/self/mountinfo); do umount -l $m; done; exec \"$@\"";
    let said = host.refused(&["unshare", "-m", "--propagation", "unchanged", "sh", "-c", hide, "sh"]);
    assert!(said.contains("cgroup"), "{said}");
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let lab = Lab::start(&["--aws", "moto"]);
    let output = lab.operator("chaperone daemon");
    assert_eq!(output.status.code(), Some(2), "{}", both(&output));
    assert!(both(&output).contains("another daemon") || both(&output).contains("in use"), "{}", both(&output));
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws s3 ls");
}

#[test]
fn commands_say_what_is_wrong_with_their_arguments() {
    let lab = Lab::start(&["--aws", "moto"]);
    for (command, word) in [
        ("chaperone show 12", "UUID"),
        ("chaperone calls --since yesterday", "RFC 3339"),
        ("chaperone calls --warehouse", "warehouse"),
        ("chaperone run --agent nobody -- true", "nobody"),
        ("chaperone verify --key /etc/hostname", "Ed25519"),
        ("chaperone calls --config /nonexistent.toml", "/nonexistent.toml"),
    ] {
        let output = lab.operator(command);
        assert!(!output.status.success(), "{command}");
        assert!(both(&output).to_lowercase().contains(&word.to_lowercase()), "{command}: {}", both(&output));
    }
}
