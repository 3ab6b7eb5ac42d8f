//! Whatever becomes of the daemon, nothing of an agent's gets out past the redirection: seen by a packet capture on the
//! other side of the lab's only way out.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use chaperone_system_tests::{Lab, PERMIT_ALL, Supervisor, both, script, text, until};
use serde_json::Value;

/// What the agent tries in each round, and what it is told of each while the daemon serves or is away.
const SERVED: &str = "ok ok ok EPERM ok ok ok EPERM";
const REFUSED: &str = "EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM";
/// What the capture sees of a round when nothing holds it back.
const WHOLE_ROUND: [&str; 8] =
    ["tcp4/443", "tcp4/80", "tcp4/8443", "tcp6/443", "tcp6/80", "tcp6/8443", "udp4/443", "udp6/443"];

/// A lab with a way out, what is captured there, and an agent that dials on and on.
struct Outside {
    lab: Lab,
    packets: PathBuf,
    rounds: PathBuf,
    running: [Child; 2],
}

impl Outside {
    /// Not so fast that the journal is all that the machine does.
    fn start() -> Self {
        Self::start_at(0.005)
    }

    fn start_at(pause: f32) -> Self {
        let lab = Lab::start_with(&["--aws", "both"], PERMIT_ALL);
        let packets = lab.dir.join("packets");
        let mut capture =
            lab.spawn_operator(&format!("exec python3 {} {}", script("outside.py").display(), packets.display()));
        let mut said = String::new();
        BufReader::new(capture.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "ready");
        let rounds = lab.dir.join("rounds");
        let dialling =
            lab.spawn_agent(&format!("exec python3 {} {} {pause}", script("dial_on.py").display(), rounds.display()));
        Self { lab, packets, rounds, running: [capture, dialling] }
    }

    /// Waits for twenty whole rounds of the agent's from now on; what it was told in them.
    fn rounds(&self) -> Vec<String> {
        let read = || fs::read_to_string(&self.rounds).unwrap_or_default();
        let before = read().lines().count();
        let mut lines = Vec::new();
        until("twenty rounds of the agent's", || {
            let text = read();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            // The first one may have begun before.
            lines = whole.lines().skip(before + 1).map(str::to_owned).collect();
            lines.len() >= 20
        });
        lines
    }

    /// They were all told this.
    fn all_are_told(&self, wanted: &str) {
        let rounds = self.rounds();
        assert!(rounds.iter().all(|round| round == wanted), "{rounds:?}\n{}", self.lab.log());
    }

    fn captured(&self) -> String {
        fs::read_to_string(&self.packets).unwrap()
    }

    fn nothing_got_out(&self) {
        assert_eq!(self.captured(), "");
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn kill(pid: u32, signal: &str) {
    let done = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(done.success());
}

/// With all its threads: until then it has its sockets.
fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.contains(") Z ") && fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1
}

/// A cgroup with a limit on memory, of whichever hierarchy has the controller here.
struct Starved {
    folder: PathBuf,
    limit: &'static str,
    kills: &'static str,
}

impl Starved {
    fn make() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of = |wanted: &dyn Fn(&str, &str) -> bool| {
            mounts.lines().find_map(|line| {
                let (place, kind) = line.split_once(" - ")?;
                let folder = place.split(' ').nth(4)?;
                wanted(kind, folder).then(|| PathBuf::from(folder))
            })
        };
        let name = format!("chaperone-starved-{}", std::process::id());
        let has = |folder: &str| {
            fs::read_to_string(Path::new(folder).join("cgroup.controllers")).is_ok_and(|list| list.contains("memory"))
        };
        if let Some(root) = of(&|kind, folder| kind.starts_with("cgroup2 ") && has(folder)) {
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
            let folder = root.join(name);
            fs::create_dir(&folder).unwrap();
            return Self { folder, limit: "memory.max", kills: "memory.events" };
        }
        let is_v1 = |kind: &str| kind.starts_with("cgroup ") && kind.split([' ', ',']).any(|word| word == "memory");
        let root = of(&|kind, _| is_v1(kind)).expect("no cgroup hierarchy has the memory controller");
        let folder = root.join(name);
        fs::create_dir(&folder).unwrap();
        Self { folder, limit: "memory.limit_in_bytes", kills: "memory.oom_control" }
    }

    /// Moves a process in, which has no room for another page then.
    fn take(&self, pid: u32) {
        fs::write(self.folder.join(self.limit), "65536").unwrap();
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.kills)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        line.parse().unwrap()
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

#[test]
fn killed_crashed_or_starved_the_daemon_lets_nothing_out() {
    let outside = Outside::start();
    outside.all_are_told(SERVED);
    for signal in ["KILL", "ABRT"] {
        let pid = outside.lab.daemon();
        kill(pid, signal);
        until("the daemon's end", || has_ended(pid));
        outside.all_are_told(REFUSED);
        outside.nothing_got_out();
        outside.lab.restart();
        outside.all_are_told(SERVED);
    }
    let starved = Starved::make();
    let pid = outside.lab.daemon();
    starved.take(pid);
    // It needs memory for what the agent asks of it.
    until("the daemon's end for want of memory", || has_ended(pid));
    assert_eq!(starved.kills(), 1);
    outside.all_are_told(REFUSED);
    outside.nothing_got_out();
    outside.lab.restart();
    outside.all_are_told(SERVED);
    outside.nothing_got_out();
}

#[test]
fn replaced_by_the_next_the_daemon_finishes_what_is_under_way_and_lets_nothing_out() {
    let outside = Outside::start();
    let lab = &outside.lab;
    let aws = "export AWS_DEFAULT_REGION=eu-west-1 AWS_MAX_ATTEMPTS=1; cd $HOME;";
    lab.agent_ok(&format!(
        "{aws} aws s3 mb s3://slow && head -c 50000000 /dev/urandom > large && aws s3 cp large s3://slow/large"
    ));
    // A call that goes on while the one daemon is replaced by the next: its reader stops in the middle until it is told.
    let slow = format!("{aws} exec python3 {} slow large", script("read_slowly.py").display());
    let mut reading = lab.spawn_agent(&slow);
    until("the middle of the call", || fs::exists(lab.dir.join("home/root/begun")).unwrap());
    let first = lab.daemon();
    kill(first, "TERM");
    // No new connections, and nothing gets out instead.
    until("the end of new connections", || outside.rounds().iter().all(|round| round == REFUSED));
    assert!(!has_ended(first), "{}", lab.log());
    lab.operator_ok("touch $CHAPERONE_LAB/home/root/go-on");
    let status = reading.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(reading.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert!(status.success(), "{said}{}", lab.log());
    assert_eq!(said.trim(), "50000000 bytes, the same");
    until("the first one's end", || has_ended(first));
    outside.nothing_got_out();
    lab.restart();
    assert_ne!(lab.daemon(), first);
    outside.all_are_told(SERVED);
    outside.nothing_got_out();
    let calls = lab.calls();
    assert!(calls.iter().all(|call| call["status"].as_u64() == Some(200)), "{calls:?}");
}

#[test]
fn only_what_takes_the_hooks_off_lets_agents_out_and_that_is_recorded() {
    let outside = Outside::start();
    let lab = &outside.lab;
    outside.all_are_told(SERVED);
    // Not while a daemon runs.
    let refused = lab.operator("chaperone disable");
    assert!(!refused.status.success(), "{}", both(&refused));
    outside.all_are_told(SERVED);
    let pid = lab.daemon();
    kill(pid, "TERM");
    until("the daemon's end", || has_ended(pid));
    outside.all_are_told(REFUSED);
    let events = || -> Value {
        let verified: Value = serde_json::from_str(&lab.operator_ok("chaperone verify --json")).unwrap();
        assert_eq!(verified["clean"], true, "{verified}");
        verified["events"].clone()
    };
    let before = events().as_u64();
    outside.nothing_got_out();
    lab.operator_ok("chaperone disable");
    until("packets", || {
        let captured = outside.captured();
        let seen: BTreeSet<&str> = captured.lines().collect();
        WHOLE_ROUND.iter().all(|wanted| seen.contains(wanted))
    });
    assert_eq!(events().as_u64(), before.map(|events| events + 1));
    // The next daemon puts them on again.
    lab.restart();
    outside.all_are_told(SERVED);
    let then = outside.captured();
    outside.all_are_told(SERVED);
    assert_eq!(outside.captured(), then);
    assert_eq!(text(&lab.list("agents")[0], "agent"), "coder");
}

/// What the service manager does at `systemctl restart`, under load: nobody is refused, and nothing is lost.
#[test]
fn replaced_while_its_listeners_are_kept_the_daemon_refuses_nobody() {
    // So that what waits has room in the listeners' queues: 4,096 each.
    let outside = Outside::start_at(0.05);
    let lab = &outside.lab;
    let mut supervisor = Supervisor::take_over(lab);
    outside.all_are_told(SERVED);
    let aws = "export AWS_DEFAULT_REGION=eu-west-1 AWS_MAX_ATTEMPTS=1; cd $HOME;";
    lab.agent_ok(&format!(
        "{aws} aws s3 mb s3://slow && head -c 50000000 /dev/urandom > large && aws s3 cp large s3://slow/large"
    ));
    let told = lab.dir.join("told");
    let told_so_far = || fs::read_to_string(&told).unwrap_or_default();
    let calls = format!("{aws} exec python3 {} {}", script("call_on.py").display(), told.display());
    let mut calling = lab.spawn_agent(&calls);
    let slow = format!("{aws} exec python3 {} slow large", script("read_slowly.py").display());
    let mut reading = lab.spawn_agent(&slow);
    until("the middle of the call", || fs::exists(lab.dir.join("home/root/begun")).unwrap());
    until("some calls", || told_so_far().lines().count() >= 10);
    for round in 0..3 {
        let before = lab.daemon();
        assert_eq!(supervisor.ask("kept"), kept_at_home(lab));
        assert_eq!(supervisor.ask("term"), "ending");
        // In the first round it has a call to finish, and nobody is refused while it does.
        if round == 0 {
            until("the end of accepting", || lab.log().contains("stopping: no new connections"));
            outside.all_are_told(SERVED);
            assert!(!has_ended(before), "{}", lab.log());
            lab.operator_ok("touch $CHAPERONE_LAB/home/root/go-on");
        }
        assert_eq!(supervisor.ask("ended"), "ended");
        // Nor while there is none.
        outside.all_are_told(SERVED);
        assert!(supervisor.ask("start").starts_with("ready"), "{}", lab.log());
        assert_ne!(lab.daemon(), before);
        outside.all_are_told(SERVED);
        let count = told_so_far().lines().count();
        until("more calls", || told_so_far().lines().count() >= count + 3);
    }
    let status = reading.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(reading.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert!(status.success(), "{said}{}", lab.log());
    assert_eq!(said.trim(), "50000000 bytes, the same");
    lab.operator_ok("touch $CHAPERONE_LAB/home/root/enough");
    assert!(calling.wait().unwrap().success());
    outside.nothing_got_out();
    let told = told_so_far();
    assert!(told.lines().all(|line| line == "ok"), "{told}");
    // Each was recorded, and no more than once.
    let calls = lab.calls();
    assert!(calls.iter().all(|call| call["status"].as_u64() == Some(200)), "{calls:?}");
    let listed = calls.iter().filter(|call| text(call, "operation") == "ListBuckets").count();
    assert_eq!(listed, told.lines().count());
    let verified: Value = serde_json::from_str(&lab.operator_ok("chaperone verify --json")).unwrap();
    assert_eq!(verified["clean"], true, "{verified}");
}

/// What is kept of a daemon without containers: two sockets by the name of its network namespace.
fn kept_at_home(lab: &Lab) -> String {
    let name = lab.operator_ok(
        "python3 -c 'import socket, struct; \
         print(struct.unpack(\"Q\", socket.socket().getsockopt(socket.SOL_SOCKET, 71, 8))[0])'",
    );
    format!("netns-{0} netns-{0}", name.trim())
}

#[test]
fn killed_while_its_listeners_are_kept_the_daemon_lets_agents_wait_for_the_next_or_refuses_them() {
    // So that what waits has room in the listeners' queues: 4,096 each.
    let outside = Outside::start_at(0.05);
    let lab = &outside.lab;
    let mut supervisor = Supervisor::take_over(lab);
    // They connect while there is no daemon.
    let wait = |name: &str| {
        let connected = lab.dir.join("home/root").join(name);
        let command = format!("cd $HOME; exec python3 {} {name}", script("wait_for_answer.py").display());
        let waiting = lab.spawn_agent(&command);
        until("a connection that waits", || fs::exists(&connected).unwrap());
        waiting
    };
    let said = |waiting: Child| {
        let output = waiting.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let kill = |supervisor: &mut Supervisor| {
        assert_eq!(supervisor.ask("kill"), "ending");
        assert_eq!(supervisor.ask("ended"), "ended");
        outside.all_are_told(SERVED);
    };
    kill(&mut supervisor);
    let waiting = wait("first");
    assert!(supervisor.ask("start").starts_with("ready"), "{}", lab.log());
    assert_eq!(said(waiting), "HTTP/1.1 200 OK");
    let metadata = lab.list("connections").into_iter().filter(|it| text(it, "kind") == "metadata").collect::<Vec<_>>();
    assert_eq!(metadata.len(), 1, "{metadata:?}");
    assert_eq!(text(&metadata[0], "destination"), "169.254.169.254:80");
    outside.all_are_told(SERVED);

    // The next one can't start: nobody waits for it, and nothing is kept.
    kill(&mut supervisor);
    let waiting = wait("second");
    let config = lab.dir.join("config.toml");
    let right = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("nonsense = 1\n{right}")).unwrap();
    assert_eq!(supervisor.ask("start"), "failed");
    assert_eq!(said(waiting), "ECONNRESET");
    assert_eq!(supervisor.ask("kept"), "");
    outside.all_are_told(REFUSED);
    fs::write(&config, right).unwrap();
    assert!(supervisor.ask("start").starts_with("ready"), "{}", lab.log());
    outside.all_are_told(SERVED);

    // `systemctl stop`: nothing is kept beyond it.
    assert_eq!(supervisor.ask("term"), "ending");
    assert_eq!(supervisor.ask("ended"), "ended");
    let waiting = wait("third");
    assert_eq!(supervisor.ask("discard"), "discarded");
    assert_eq!(said(waiting), "ECONNRESET");
    outside.all_are_told(REFUSED);
    outside.nothing_got_out();
    assert!(supervisor.ask("start").starts_with("ready"), "{}", lab.log());
    outside.all_are_told(SERVED);
    outside.nothing_got_out();
}

/// A boot takes the hooks off, too. Here nothing of an agent's runs while they are: the service's unit sees to that
/// (`cargo xtask vm-systemd`).
#[test]
fn after_a_boot_a_daemon_that_cant_start_refuses_the_agents_that_were_in_force() {
    let lab = Lab::start(&["--aws", "moto"]);
    let dial =
        "python3 -c 'import socket; socket.create_connection((\"127.77.0.1\", 443)).close(); print(\"through\")'";
    let config = lab.dir.join("config.toml");
    let right = fs::read_to_string(&config).unwrap();
    let place = right.lines().find_map(|line| line.strip_prefix("bpffs = ")).unwrap().trim_matches('"').to_owned();
    let stop = || {
        let pid = lab.daemon();
        kill(pid, "TERM");
        until("the daemon's end", || has_ended(pid));
    };
    let ca = right.lines().find(|line| line.starts_with("ca_file = ")).unwrap();
    let journal = right.lines().find(|line| line.starts_with("dir = ")).unwrap();
    let state = right.lines().find(|line| line.starts_with("state = ")).unwrap();
    let wrong = [
        // Another folder of its own, and a mistake besides.
        (format!("nonsense = 1\n{}", right.replace(state, "state = \"/nonexistent\"")), "nonsense"),
        (format!("{right}\n[[agents]]\nname = \"b\"\nusers = [\"nobody-at-all\"]\n"), "no user `nobody-at-all`"),
        (format!("nonsense = 1\n{right}"), "nonsense"),
        (format!("[[agents]\n{right}"), "config.toml:1"),
        (right.replace(ca, "ca_file = \"/nonexistent/ca.pem\""), "/nonexistent/ca.pem"),
        (right.replace(journal, "dir = \"/proc/nonexistent\""), "/proc/nonexistent"),
    ];
    for (text, word) in wrong {
        stop();
        lab.operator_ok(&format!("rm -r {place}"));
        // So it is without what was in force.
        assert_eq!(lab.agent_ok(dial).trim(), "through");
        fs::write(&config, text).unwrap();
        let failed = lab.operator("chaperone daemon");
        assert_eq!(failed.status.code(), Some(2), "{}", both(&failed));
        assert!(both(&failed).contains(word) && both(&failed).contains("in-force.json"), "{}", both(&failed));
        let refused = lab.agent(dial);
        assert!(!refused.status.success() && both(&refused).contains("PermissionError"), "{}", both(&refused));
        fs::write(&config, &right).unwrap();
        lab.restart();
        assert_eq!(lab.agent_ok(dial).trim(), "through");
        lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws s3 ls");
    }
    // A second one by hand leaves the first one's agents alone.
    fs::write(&config, format!("nonsense = 1\n{right}")).unwrap();
    assert_eq!(lab.operator("chaperone daemon").status.code(), Some(2));
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws s3 ls");
    // What was taken off on purpose stays off.
    fs::write(&config, &right).unwrap();
    stop();
    lab.operator_ok("chaperone disable");
    fs::write(&config, format!("nonsense = 1\n{right}")).unwrap();
    let failed = lab.operator("chaperone daemon");
    assert!(failed.status.code() == Some(2) && both(&failed).contains("no agent can be refused"), "{}", both(&failed));
    assert_eq!(lab.agent_ok(dial).trim(), "through");
    fs::write(&config, &right).unwrap();
    lab.restart();
}

/// A boot again; what is kept isn't what this version would have written.
#[test]
fn what_was_in_force_holds_as_far_as_it_can_be_read() {
    let lab = Lab::start(&["--aws", "moto"]);
    let dial = "python3 -c 'import socket; socket.create_connection((\"127.77.0.1\", 443)).close()'";
    let config = lab.dir.join("config.toml");
    let right = fs::read_to_string(&config).unwrap();
    let place = pins(&right);
    let (kept, former) = (lab.dir.join("state/in-force.json"), lab.dir.join("state/in-force.toml"));
    let refused = |lab: &Lab| {
        let refused = lab.agent(dial);
        assert!(!refused.status.success() && both(&refused).contains("PermissionError"), "{}", both(&refused));
    };
    let mut later: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
    later["version"] = 7.into();
    later["users"] = serde_json::json!(["coder"]);
    later["paths"]["later"] = true.into();
    // As versions before kept it, with a user who is gone since.
    let before = format!("{right}\n[[agents]]\nname = \"b\"\nusers = [\"nobody-at-all\"]\n");
    for (place_kept, text) in [(&kept, later.to_string()), (&former, before)] {
        stop(&lab);
        lab.operator_ok(&format!("rm -r {place}"));
        fs::remove_file(&kept).unwrap();
        fs::write(place_kept, text).unwrap();
        fs::write(&config, format!("nonsense = 1\n{right}")).unwrap();
        let failed = lab.operator("chaperone daemon");
        assert!(both(&failed).contains(&place_kept.display().to_string()), "{}", both(&failed));
        refused(&lab);
        fs::write(&config, &right).unwrap();
        lab.restart();
        lab.agent_ok(dial);
        assert!(kept.exists() && !former.exists());
    }
}

fn pins(config: &str) -> String {
    config.lines().find_map(|line| line.strip_prefix("bpffs = ")).unwrap().trim_matches('"').to_owned()
}

fn stop(lab: &Lab) {
    let pid = lab.daemon();
    kill(pid, "TERM");
    until("the daemon's end", || has_ended(pid));
}

/// Who needs no agents doesn't mind that a user is gone; the daemon does, and says so.
#[test]
fn a_user_who_is_gone_keeps_nobody_from_looking() {
    let lab = Lab::start(&["--aws", "moto"]);
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws s3 ls");
    let config = lab.dir.join("config.toml");
    let right = fs::read_to_string(&config).unwrap();
    let gone = "users = [\"nobody-at-all\"]";
    let bound = right.replace("[capture]\n", &format!("[capture]\n{gone}\n"));
    assert_ne!(bound, right);
    fs::write(&config, format!("{bound}\n[[agents]]\nname = \"b\"\n{gone}\n")).unwrap();
    for command in ["calls", "connections", "sessions", "commands", "status", "verify"] {
        lab.operator_ok(&format!("chaperone {command}"));
    }
    assert_eq!(lab.calls().len(), 1);
    stop(&lab);
    lab.operator_ok("chaperone disable");
    fs::write(&config, right).unwrap();
    lab.restart();
}

#[test]
fn hooks_whose_pins_are_gone_stay_in_force_and_that_is_told() {
    let outside = Outside::start();
    let lab = &outside.lab;
    outside.all_are_told(SERVED);
    let place = pins(&fs::read_to_string(lab.dir.join("config.toml")).unwrap());
    lab.operator_ok(&format!("rm {place}/link_connect4 {place}/link_egress"));
    outside.all_are_told(SERVED);
    outside.nothing_got_out();
    until("the log", || lab.log().contains("no longer pinned"));
    let status = lab.operator("chaperone status");
    assert!(!status.status.success() && both(&status).contains("no longer pinned"), "{}", both(&status));
    let doctor = lab.operator("chaperone doctor --json");
    let line = |check: &str| -> Value {
        let said = String::from_utf8_lossy(&doctor.stdout);
        let mut findings = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        findings.find(|finding| finding["check"] == check).unwrap()
    };
    assert!(line("daemon")["ok"] == false && text(&line("daemon"), "found").contains("connect4"), "{}", both(&doctor));
    // The next one pins them.
    stop(lab);
    lab.restart();
    lab.operator_ok("chaperone status");
    outside.all_are_told(SERVED);
}

/// Another folder for the hooks: the old ones aren't left behind, with nobody listening for them.
#[test]
fn hooks_are_moved_and_taken_off_wherever_they_are() {
    let lab = Lab::start(&["--aws", "moto"]);
    let dial = "python3 -c 'import socket; socket.create_connection((\"127.77.0.1\", 443)).close()'";
    let config = lab.dir.join("config.toml");
    let right = fs::read_to_string(&config).unwrap();
    let place = pins(&right);
    let moved = right.replace(&place, &format!("{place}-moved"));
    stop(&lab);
    fs::write(&config, &moved).unwrap();
    lab.restart();
    lab.agent_ok(dial);
    assert!(lab.log().contains("`paths.bpffs` changed"), "{}", lab.log());
    // Those of a daemon that is gone are named, with the remedy.
    stop(&lab);
    fs::write(&config, &right).unwrap();
    lab.operator_ok(
        "cp $CHAPERONE_LAB/state/in-force.json $CHAPERONE_LAB/saved; rm $CHAPERONE_LAB/state/in-force.json",
    );
    lab.restart();
    let doctor = lab.operator("chaperone doctor");
    assert!(both(&doctor).contains(&format!("rm -r {place}-moved")) && !doctor.status.success(), "{}", both(&doctor));
    stop(&lab);
    let disabled = lab.operator("chaperone disable");
    assert!(
        both(&disabled).contains(&format!("rm -r {place}-moved")) && !disabled.status.success(),
        "{}",
        both(&disabled)
    );
    lab.operator_ok(&format!("rm -r {place}-moved"));
    lab.agent_ok(dial);
    lab.restart();
}

#[test]
fn hooks_are_taken_off_though_the_configuration_is_wrong_and_unrecorded_only_if_that_is_said() {
    let lab = Lab::start(&["--aws", "moto"]);
    let dial = "python3 -c 'import socket; socket.create_connection((\"127.77.0.1\", 443)).close()'";
    let config = lab.dir.join("config.toml");
    let right = fs::read_to_string(&config).unwrap();
    let events = || -> Value {
        let command = format!("chaperone verify --json --dir {}/journal", lab.dir.display());
        serde_json::from_str::<Value>(&lab.operator_ok(&command)).unwrap()["events"].clone()
    };
    stop(&lab);
    let before = events().as_u64().unwrap();
    fs::write(&config, format!("nonsense = 1\n{right}")).unwrap();
    let disabled = lab.operator("chaperone disable");
    assert!(disabled.status.success() && both(&disabled).contains("in-force.json"), "{}", both(&disabled));
    lab.agent_ok(dial);
    assert_eq!(events().as_u64(), Some(before + 1));

    fs::write(&config, &right).unwrap();
    lab.restart();
    stop(&lab);
    let journal = right.lines().find(|line| line.starts_with("dir = ")).unwrap();
    fs::write(&config, right.replace(journal, "dir = \"/proc/nonexistent\"")).unwrap();
    let kept = lab.operator("chaperone disable");
    assert!(!kept.status.success() && both(&kept).contains("disable --unrecorded"), "{}", both(&kept));
    assert!(!lab.agent(dial).status.success());
    let disabled = lab.operator_ok("chaperone disable --unrecorded 2>&1");
    assert!(disabled.contains("the journal doesn't have it"), "{disabled}");
    lab.agent_ok(dial);
    fs::write(&config, right).unwrap();
    lab.restart();
}

/// A doctor that is killed, whenever that is, leaves no hook; a cgroup that it leaves is removed by the next one.
#[test]
fn a_killed_doctor_leaves_no_hooks() {
    let lab = Lab::start(&["--aws", "moto"]);
    let place = pins(&fs::read_to_string(lab.dir.join("config.toml")).unwrap());
    let root = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = root.lines().rfind(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap().to_owned();
    let said = lab.operator_ok(&format!(
        "doctors=$(dirname {place})/chaperone-doctor-; tests={root}/chaperone-self-test-; sh -c 'exit 0' & gone=$!; wait; \
         mkdir $doctors$gone $tests$gone-0 $tests$$-0; chaperone doctor > /dev/null; \
         for left in $doctors$gone $tests$gone-0 $tests$$-0; do test -e $left && echo $left; done; rmdir $tests$$-0; \
         killed=; for i in 1 2 3 4 5 6 7 8; do chaperone doctor > /dev/null & killed=\"$killed $!\"; sleep 0.$i; kill -9 $!; \
         wait; done; ls -d $(dirname {place})/chaperone-*; \
         left() {{ for pid in $killed; do test ! -e $tests$pid-0 || return 0; done; return 1; }}; \
         for i in 1 2 3 4 5; do chaperone doctor > /dev/null; left || break; done; if left; then echo left; fi"
    ));
    let lines: Vec<_> = said.lines().collect();
    // The living process's alone.
    assert!(lines.len() == 2 && lines[0].contains("chaperone-self-test-"), "{said}");
    assert_eq!(lines[1], place, "{said}");
}
