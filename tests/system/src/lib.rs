//! What the whole-system tests share: a lab of their own, kept for the length of a test.
//!
//! The tests are run by `cargo xtask test`, which builds and installs what they need and says where it is. Without that
//! they fail.

#![forbid(unsafe_code)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    ops::Not as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A lab that goes on running until it is dropped.
pub struct Lab {
    /// Its folder: `$CHAPERONE_LAB`.
    pub dir: PathBuf,
    xtask: PathBuf,
    _folder: tempfile::TempDir,
}

/// The xtask binary, which `cargo xtask test` tells.
pub fn xtask() -> PathBuf {
    std::env::var_os("CHAPERONE_XTASK").map(PathBuf::from).expect("run these tests by `cargo xtask test`")
}

/// Lets everything pass, so that a test is about something else.
pub const PERMIT_ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";

impl Lab {
    /// Starts a lab with these arguments of `cargo xtask lab`.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, "")
    }

    /// As [`start`](Self::start), with a policy in the place of the default one.
    pub fn start_with(arguments: &[&str], policy: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().expect("a folder");
        Self::start_in(folder, arguments, policy, &[])
    }

    /// As [`start_with`](Self::start_with), in this folder, the command prefixed by `wrapper`.
    pub fn start_in(folder: tempfile::TempDir, arguments: &[&str], policy: &str, wrapper: &[&str]) -> Self {
        let dir = folder.path().join("lab");
        let xtask = xtask();
        let mut words: Vec<String> = wrapper.iter().map(|&word| word.to_owned()).collect();
        words.extend([xtask.display().to_string(), "lab".into(), "--keep".into(), dir.display().to_string()]);
        if !policy.is_empty() {
            let file = folder.path().join("test.cedar");
            fs::write(&file, policy).expect("writing the policy");
            words.extend(["--policy".into(), file.display().to_string()]);
        }
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words.extend(["--".into(), "true".into()]);
        let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().expect("starting the lab");
        assert!(output.status.success(), "the lab did not start: {}", both(&output));
        Self { dir, xtask, _folder: folder }
    }

    /// Runs a shell script as an agent.
    pub fn agent(&self, script: &str) -> Output {
        self.run("agent", script)
    }

    /// Runs a shell script as the operator: root, not enrolled.
    pub fn operator(&self, script: &str) -> Output {
        self.run("exec", script)
    }

    /// Starts a shell script as an agent, without waiting for it.
    pub fn spawn_agent(&self, script: &str) -> Child {
        self.command("agent", script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starting an agent")
    }

    /// As [`spawn_agent`](Self::spawn_agent), in a cgroup whose name begins with this.
    pub fn spawn_agent_named(&self, name: &str, script: &str) -> Child {
        let mut command = Command::new(&self.xtask);
        command.args(["lab", "agent"]).arg(&self.dir).args(["--name", name, "--", "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("starting an agent")
    }

    /// As [`spawn_agent`](Self::spawn_agent), to be written to.
    pub fn spawn_agent_with_input(&self, script: &str) -> Child {
        self.command("agent", script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starting an agent")
    }

    /// Starts a shell script as the operator, without waiting for it. What it reads ends when the child is dropped.
    pub fn spawn_operator(&self, script: &str) -> Child {
        let mut command = self.command("exec", script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starting a command")
    }

    fn run(&self, how: &str, script: &str) -> Output {
        self.command(how, script).output().expect("running in the lab")
    }

    fn command(&self, how: &str, script: &str) -> Command {
        let mut command = Command::new(&self.xtask);
        command.args(["lab", how]).arg(&self.dir).args(["--", "sh", "-c", script]).stdin(Stdio::null());
        command
    }

    /// As an agent, and it must succeed: gives what it printed.
    pub fn agent_ok(&self, script: &str) -> String {
        let output = self.agent(script);
        assert!(output.status.success(), "{script}: {}\n{}", both(&output), self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// As the operator, and it must succeed: gives what it printed.
    pub fn operator_ok(&self, script: &str) -> String {
        let output = self.operator(script);
        assert!(output.status.success(), "{script}: {}\n{}", both(&output), self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a `chaperone … --json` command lists.
    pub fn list(&self, command: &str) -> Vec<Value> {
        let text = self.operator_ok(&format!("chaperone {command} --json"));
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// All calls in the journal, once each of them has its outcome: a client is told before the disk is.
    pub fn calls(&self) -> Vec<Value> {
        self.calls_like("")
    }

    /// As [`calls`](Self::calls), those that this filter wants.
    pub fn calls_like(&self, filter: &str) -> Vec<Value> {
        let mut calls = Vec::new();
        until("every call's outcome", || {
            calls = self.list(&format!("calls {filter}"));
            calls.iter().all(|call| !call["outcome"].is_null())
        });
        calls
    }

    /// The connections, once there are so many and all of them are closed.
    pub fn connections(&self, count: usize) -> Vec<Value> {
        let mut connections = Vec::new();
        until("the connections' ends", || {
            connections = self.list("connections");
            connections.len() >= count && connections.iter().all(|it| !it["closed"].is_null())
        });
        connections
    }

    /// What the fakes were sent.
    pub fn upstream(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join("upstream.jsonl")).unwrap_or_default();
        // A line that is being written isn't there yet.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// Starts the daemon again, after it was stopped or killed.
    pub fn restart(&self) {
        let output = Command::new(&self.xtask).args(["lab", "restart"]).arg(&self.dir).output().expect("a restart");
        assert!(output.status.success(), "the daemon did not start again: {}", both(&output));
    }

    /// The daemon's process id.
    pub fn daemon(&self) -> u32 {
        let text = fs::read_to_string(self.dir.join("daemon.pid")).expect("daemon.pid");
        text.trim().parse().expect("a process id")
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }

    /// Writes a file into the lab's folder, readable by agents; gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, text).expect("writing a file");
        path.display().to_string()
    }
}

/// One session that calls AWS whenever it is told to, and says how that went.
pub struct Caller {
    place: tempfile::TempDir,
    child: Child,
}

impl Caller {
    /// As an agent whose cgroup's name begins with this.
    pub fn start(lab: &Lab, agent: &str) -> Self {
        let (place, script) = Self::script();
        Self { place, child: lab.spawn_agent_named(agent, &script) }
    }

    /// As the operator runs it: `command` with the script after it, in quotes. What that says is the child's output.
    pub fn start_by(lab: &Lab, command: &str) -> (Self, ChildStdout) {
        let (place, script) = Self::script();
        let mut child = lab.spawn_operator(&format!("exec {command} sh -c '{script}' 2>&1"));
        let said = child.stdout.take().expect("its output");
        (Self { place, child }, said)
    }

    fn script() -> (tempfile::TempDir, String) {
        let place = tempfile::Builder::new().prefix("chaperone-test-").tempdir().expect("a folder");
        let at = place.path().display();
        let script = format!(
            "export AWS_DEFAULT_REGION=eu-west-1; cd {at}; while [ ! -e end ]; do if [ -e call ]; then rm call; \
             aws s3api list-buckets > said.new 2>&1; echo \"exit: $?\" >> said.new; mv said.new said; fi; sleep 0.1; done"
        );
        (place, script)
    }

    /// Its folder.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Lists buckets; what that said, and how it ended.
    pub fn call(&self) -> String {
        let said = self.place().join("said");
        let _ = fs::remove_file(&said);
        fs::write(self.place().join("call"), "").expect("telling it to call");
        until("an answer", || said.exists());
        fs::read_to_string(said).expect("its answer")
    }

    /// Calls until this is said.
    pub fn until_said(&self, wanted: &str) -> String {
        let mut last = String::new();
        let began = Instant::now();
        while !last.contains(wanted) {
            assert!(began.elapsed() < Duration::from_secs(90), "`{wanted}` is not said in 90 seconds, but: {last}");
            last = self.call();
        }
        last
    }

    /// Ends it.
    pub fn end(mut self) {
        fs::write(self.place().join("end"), "").expect("telling it to end");
        let ended = self.child.wait().expect("its end");
        assert!(ended.success(), "{ended}");
    }
}

/// The daemon's service manager in a lab, which keeps its descriptors as systemd does: `scripts/supervisor.py`.
pub struct Supervisor {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Ends the lab's daemon and starts another.
    pub fn take_over(lab: &Lab) -> Self {
        let first = lab.daemon();
        lab.operator_ok(&format!("kill {first}"));
        until("the first daemon's end", || {
            fs::read_to_string(format!("/proc/{first}/stat")).is_ok_and(|stat| !stat.contains(") Z ")).not()
        });
        let command =
            format!("CHAPERONE_PROGRAM=$(command -v chaperone) exec python3 {}", script("supervisor.py").display());
        let mut child = lab.spawn_operator(&command);
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let mut supervisor = Self { child, said };
        let answer = supervisor.ask("start");
        assert!(answer.starts_with("ready"), "{answer}: {}", lab.log());
        supervisor
    }

    /// Says a word to it; gives what it answers.
    pub fn ask(&mut self, word: &str) -> String {
        writeln!(self.child.stdin.as_mut().expect("its input"), "{word}").expect("talking to the supervisor");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("listening to the supervisor");
        line.trim_end().to_owned()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Whatever a test did, what is recorded of it can be verified.
        let pid = fs::read_to_string(self.dir.join("daemon.pid")).unwrap_or_default();
        let running = !pid.is_empty() && Path::new("/proc").join(pid.trim()).exists();
        let verified = (running && !std::thread::panicking()).then(|| self.operator("chaperone verify"));
        let done = Command::new(&self.xtask).args(["lab", "down"]).arg(&self.dir).output();
        if std::thread::panicking() {
            return;
        }
        if let Some(output) = verified {
            assert!(output.status.success(), "the journal can't be verified: {}", both(&output));
        }
        let output = done.expect("taking the lab down");
        assert!(output.status.success(), "the lab did not go down: {}", both(&output));
    }
}

/// Waits until `done` holds; what it waits for is work that goes on, and the bound is for a hang.
pub fn until(what: &str, done: impl FnMut() -> bool) {
    until_within(Duration::from_secs(90), what, done);
}

/// The same, for what takes longer.
pub fn until_within(within: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < within, "{what} did not happen in {within:?}");
        std::thread::yield_now();
    }
}

/// What a command printed on both of its outputs.
pub fn both(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}: {} {}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A script that belongs to the tests.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// A client that belongs to the tests.
pub fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// The folder of a client that `cargo xtask test` has installed.
pub fn installed(name: &str) -> PathBuf {
    let all = std::env::var_os("CHAPERONE_CLIENTS").expect("run these tests by `cargo xtask test`");
    Path::new(&all).join(name)
}

/// The tests' own Python, with what its scripts need.
pub fn python() -> String {
    std::env::var("CHAPERONE_TEST_PYTHON").expect("run these tests by `cargo xtask test`")
}

/// A file with a secret, which root alone can read.
pub fn secret_file(folder: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    fs::write(&path, text).expect("writing a secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("protecting a secret");
    path.display().to_string()
}

/// A text member of a JSON value.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
