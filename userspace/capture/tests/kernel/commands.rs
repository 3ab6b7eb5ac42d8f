//! What agents execute is told, whole and once, and connections name it.

use std::{
    collections::HashMap,
    fs,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aya::maps::{HashMap as HashMapOf, Map, MapData};
use chaperone_capture::{Capture, CommandEvent, Commands, Counter, StartedCommand, cgroup_id};
use chaperone_model::{CommandExit, CommandId};

use crate::{
    duration,
    lab::{Lab, accept, agent, count, outcome},
    median, tell_cost, tell_hooks,
};

/// A command in that cgroup.
fn spawn(cgroup: &Path, program: &str, arguments: &[&str]) -> Running {
    let procs = cgroup.join("cgroup.procs");
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/usr").stdin(Stdio::null());
    // SAFETY: one write to a file; the test's other threads hold no lock that this takes.
    unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
    Running(command.spawn().unwrap())
}

/// Ended when it is dropped.
struct Running(Child);

impl Running {
    fn wait(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads until `enough`; fails the test if nothing comes for long.
fn read_until(commands: &mut Commands, enough: impl Fn(&[CommandEvent]) -> bool) -> Vec<CommandEvent> {
    // A virtual machine without acceleration is slow.
    let mut last = Instant::now();
    let mut events = Vec::new();
    loop {
        let read = commands.read().unwrap();
        if !read.is_empty() {
            last = Instant::now();
        }
        events.extend(read);
        if enough(&events) {
            return events;
        }
        assert!(last.elapsed() < Duration::from_mins(2), "{events:#?}");
        commands.wait(Duration::from_millis(100)).unwrap();
    }
}

fn ends(events: &[CommandEvent]) -> HashMap<CommandId, CommandExit> {
    let end =
        |event: &CommandEvent| if let CommandEvent::Ended { id, exit, .. } = event { Some((*id, *exit)) } else { None };
    events.iter().filter_map(end).collect()
}

fn starts(events: &[CommandEvent]) -> Vec<&StartedCommand> {
    events
        .iter()
        .filter_map(|event| if let CommandEvent::Started(started) = event { Some(started.as_ref()) } else { None })
        .collect()
}

/// How many beginnings and ends passed the hooks by, at most.
fn missed(events: &[CommandEvent]) -> usize {
    let counts = events.iter().map(|event| if let CommandEvent::Missed(count) = event { *count } else { 0 });
    usize::try_from(counts.sum::<u64>()).unwrap()
}

fn lost(events: &[CommandEvent]) -> u64 {
    events.iter().map(|event| if let CommandEvent::Lost(count) = event { *count } else { 0 }).sum()
}

fn digest(started: &StartedCommand) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let digest = runtime.block_on(started.exe_sha256.clone().wait());
    digest.map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Of coreutils' `sha256sum`.
fn sha256sum(path: &str) -> String {
    let out = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(out.stdout).unwrap()[..64].to_owned()
}

#[test]
fn commands_are_told_from_beginning_to_end() {
    let lab = Lab::new();
    let (mut capture, _listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    assert!(capture.take_commands().is_none());
    let mut shell = spawn(&agents, "/bin/bash", &["-c", "/bin/sleep 0.2; /bin/cat --token hunter2 /; exit 3"]);
    let events = read_until(&mut commands, |events| ends(events).len() == 3);
    assert_eq!(shell.wait(), Some(3));
    let [bash, sleep, cat] = starts(&events)[..] else { panic!("{events:#?}") };
    assert_eq!((bash.pid, bash.parent_pid, bash.uid), (shell.0.id(), std::process::id(), 0));
    assert_eq!(bash.cgroup, cgroup_id(&agents).unwrap());
    assert_eq!(bash.exe, fs::canonicalize("/bin/bash").unwrap().to_string_lossy());
    assert_eq!(bash.directory, "/usr");
    assert_eq!(bash.argv[..2], ["/bin/bash", "-c"]);
    assert!(!bash.argv_cut && !bash.found);
    assert_eq!(bash.parent, None);
    // A second ago at most: the machine is not that slow.
    assert!(bash.at.elapsed().unwrap() < Duration::from_mins(2));
    for (child, arguments) in [(sleep, &["/bin/sleep", "0.2"][..]), (cat, &["/bin/cat", "--token", "<masked>", "/"])] {
        assert_eq!((child.parent, child.parent_pid), (Some(bash.id), bash.pid));
        assert_eq!(child.argv, arguments);
    }
    // Bash waited for it, so it was there to be looked at.
    assert_eq!(digest(sleep), Some(sha256sum("/bin/sleep")));
    let ends = ends(&events);
    assert_eq!(ends[&bash.id], CommandExit::Code(3));
    assert_eq!(ends[&sleep.id], CommandExit::Code(0));
    assert_eq!(ends[&cat.id], CommandExit::Code(1));
    // Identifiers sort by time.
    assert!(bash.id < sleep.id && sleep.id < cat.id);
    assert_eq!(capture.commands_running().unwrap(), 0);
}

#[test]
fn a_process_that_executes_twice_ends_one_command_and_begins_another() {
    let lab = Lab::new();
    let (mut capture, _listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let shell = spawn(&agents, "/bin/sh", &["-c", "exec /bin/sleep 1000"]);
    let events = read_until(&mut commands, |events| starts(events).len() == 2);
    let [sh, sleep] = starts(&events)[..] else { panic!("{events:#?}") };
    assert_eq!((sh.pid, sleep.pid, sleep.parent), (shell.0.id(), shell.0.id(), Some(sh.id)));
    assert_eq!(ends(&events), HashMap::from([(sh.id, CommandExit::Replaced)]));
    drop(shell);
    let events = read_until(&mut commands, |events| !events.is_empty());
    assert_eq!(ends(&events), HashMap::from([(sleep.id, CommandExit::Signal(9))]));
}

#[test]
fn a_connection_names_the_command_that_made_it() {
    let lab = Lab::new();
    let (mut capture, listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    // In the process itself, then in one that it forked and that executed nothing.
    let mut shell = spawn(
        &agents,
        "/bin/bash",
        &["-c", "exec 3<>/dev/tcp/203.0.113.7/443; (exec 4<>/dev/tcp/203.0.113.8/443); read"],
    );
    let streams = [accept(&listeners.v4), accept(&listeners.v4)];
    let origins = streams.each_ref().map(|stream| capture.origins().of(stream).unwrap());
    shell.wait();
    let events = read_until(&mut commands, |events| ends(events).len() == 1);
    let [bash] = starts(&events)[..] else { panic!("{events:#?}") };
    assert_eq!(origins[0].process.pid, bash.pid);
    assert_ne!(origins[1].process.pid, bash.pid);
    for origin in origins {
        assert_eq!(origin.process.command, Some(bash.id));
    }
}

#[test]
fn a_process_from_before_is_found_when_it_connects() {
    let lab = Lab::new();
    let (mut capture, listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let agent = agent(&agents, || {
        let first = outcome(std::net::TcpStream::connect("203.0.113.7:443"));
        let second = outcome(std::net::TcpStream::connect("203.0.113.7:443"));
        format!("{first} {second}")
    });
    let streams = [accept(&listeners.v4), accept(&listeners.v4)];
    let origins = streams.each_ref().map(|stream| capture.origins().of(stream).unwrap());
    let events = read_until(&mut commands, |events| !events.is_empty());
    let [found] = starts(&events)[..] else { panic!("{events:#?}") };
    assert!(found.found);
    assert_eq!((found.pid, found.parent), (agent.pid(), None));
    assert_eq!(found.exe, std::env::current_exe().unwrap().to_string_lossy());
    assert_eq!(found.argv, std::env::args().collect::<Vec<_>>());
    assert!(origins.iter().all(|origin| origin.process.command == Some(found.id)));
    let id = found.id;
    assert_eq!(agent.said(), "ok ok");
    let events = read_until(&mut commands, |events| !events.is_empty());
    assert_eq!(ends(&events), HashMap::from([(id, CommandExit::Code(0))]));
}

#[test]
fn a_process_ends_with_its_last_thread() {
    let lab = Lab::new();
    let (mut capture, _listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let agent = agent(&agents, || {
        // Its command is found, for it makes a socket.
        drop(std::net::UdpSocket::bind("127.0.0.1:0"));
        std::thread::spawn(|| ()).join().unwrap();
        let error = Command::new("/bin/sh").args(["-c", "exit 5"]).exec();
        error.to_string()
    });
    assert_eq!(agent.said(), "");
    let events = read_until(&mut commands, |events| ends(events).len() == 2);
    let [found, sh] = starts(&events)[..] else { panic!("{events:#?}") };
    let wanted = [(found.id, CommandExit::Replaced), (sh.id, CommandExit::Code(5))];
    assert_eq!(ends(&events), HashMap::from(wanted));
}

#[test]
fn nothing_is_told_of_others() {
    let lab = Lab::new();
    let (mut capture, _listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let others = lab.cgroup("others");
    spawn(&others, "/bin/true", &[]).wait();
    // An agent's that leaves is no agent's any more, for what it executes then.
    let leave = format!("echo 0 > {}/cgroup.procs; exec /bin/true", others.display());
    spawn(&agents, "/bin/sh", &["-c", &leave]).wait();
    spawn(&agents, "/bin/false", &[]).wait();
    let events = read_until(&mut commands, |events| ends(events).values().any(|exit| *exit == CommandExit::Code(1)));
    let names: Vec<_> = starts(&events).iter().map(|start| start.argv[0].clone()).collect();
    assert_eq!(names, ["/bin/sh", "/bin/false"]);
    assert_eq!(capture.commands_running().unwrap(), 0);
}

#[test]
fn long_arguments_are_cut_and_that_is_told() {
    let lab = Lab::new();
    let (mut capture, _listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let long = "x".repeat(100_000);
    spawn(&agents, "/bin/true", &["first", &long, "last"]).wait();
    spawn(&agents, "/bin/true", &["y"; 100]).wait();
    spawn(&agents, "/bin/true", &["z".repeat(1000).as_str(); 2]).wait();
    let events = read_until(&mut commands, |events| ends(events).len() == 3);
    let [long, many, more] = starts(&events)[..] else { panic!("{events:#?}") };
    assert!(long.argv_cut && many.argv_cut && !more.argv_cut);
    assert_eq!(long.argv[..2], ["/bin/true", "first"]);
    assert_eq!(long.argv.iter().map(|argument| argument.len() + 1).sum::<usize>(), 4097);
    assert_eq!(many.argv.len(), 64);
    assert_eq!(more.argv.len(), 3);
}

/// fcntl(2), "Leases": whoever opens the file waits for its holder, for 45 s.
#[test]
fn a_file_that_an_agent_holds_a_lease_on_is_not_waited_for() {
    /// include/uapi/asm-generic/fcntl.h.
    const F_SETSIG: i32 = 10;
    let lab = Lab::new();
    let (mut capture, _listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leased");
    fs::copy("/bin/true", &path).unwrap();
    spawn(&agents, path.to_str().unwrap(), &[]).wait();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // SAFETY: numbers alone; a broken lease is told by a signal that nobody waits for and that is ignored.
    let leased = unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
    };
    assert_eq!(leased, 0, "{}", std::io::Error::last_os_error());
    let events = read_until(&mut commands, |events| ends(events).len() == 1);
    assert_eq!(digest(starts(&events)[0]), None);
    // Unlike one that nobody holds.
    drop(file);
    spawn(&agents, path.to_str().unwrap(), &[]).wait();
    let events = read_until(&mut commands, |events| ends(events).len() == 1);
    assert_eq!(digest(starts(&events)[0]), Some(sha256sum(path.to_str().unwrap())));
}

#[test]
fn what_is_executed_while_there_is_no_daemon_is_told_to_the_next() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let sleep = spawn(&agents, "/bin/sleep", &["1000"]);
    drop((capture, listeners));
    spawn(&agents, "/bin/true", &[]).wait();
    // One in the place of the other, and nothing twice.
    let capture = Capture::attach(&lab.config).unwrap();
    drop(capture);
    let mut capture = Capture::attach(&lab.config).unwrap();
    let mut commands = capture.take_commands().unwrap();
    spawn(&agents, "/bin/false", &[]).wait();
    drop(sleep);
    let events = read_until(&mut commands, |events| ends(events).len() == 3);
    let names: Vec<_> = starts(&events).iter().map(|start| start.argv[0].clone()).collect();
    assert_eq!(names, ["/bin/sleep", "/bin/true", "/bin/false"]);
    assert_eq!(ends(&events)[&starts(&events)[0].id], CommandExit::Signal(9));
    assert_eq!(events.len(), 6, "{events:#?}");
}

#[test]
fn what_there_is_no_room_for_is_counted_and_told_once() {
    let lab = Lab::new();
    let sizes = [("COMMAND_EVENTS", 4096)];
    let mut capture = Capture::attach_with(&lab.config, &sizes).unwrap();
    let agents = lab.cgroup("agents");
    capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
    for _ in 0..20 {
        spawn(&agents, "/bin/true", &[]).wait();
    }
    let mut commands = capture.take_commands().unwrap();
    let events = read_until(&mut commands, |events| lost(events) > 0);
    let told = events.iter().filter(|event| !matches!(event, CommandEvent::Lost(_))).count();
    assert_eq!(u64::try_from(told).unwrap() + lost(&events), 40);
    assert_eq!(capture.counters().get(Counter::CommandLost).unwrap(), lost(&events));
    assert_eq!(lost(&commands.read().unwrap()), 0);
    // Recorded, it isn't told to the next daemon; else it is.
    drop((commands, capture));
    let mut capture = Capture::attach_with(&lab.config, &sizes).unwrap();
    assert_eq!(lost(&capture.take_commands().unwrap().read().unwrap()), lost(&events));
    capture.commands_lost_recorded(lost(&events)).unwrap();
    drop(capture);
    let mut capture = Capture::attach_with(&lab.config, &sizes).unwrap();
    assert_eq!(lost(&capture.take_commands().unwrap().read().unwrap()), 0);
}

/// Nobody reads, and one agent executes more than there is room for.
#[test]
fn one_agents_commands_leave_room_for_anothers() {
    let lab = Lab::new();
    let mut capture = Capture::attach_with(&lab.config, &[("COMMAND_EVENTS", 2 << 20)]).unwrap();
    let [agents, others] = ["agents", "others"].map(|name| lab.cgroup(name));
    for cgroup in [&agents, &others] {
        capture.enroll(cgroup_id(cgroup).unwrap()).unwrap();
    }
    let flood = "long=$(printf %04000d 0); i=0; while [ $i -lt 600 ]; do /bin/true $long; i=$((i+1)); done";
    spawn(&agents, "/bin/sh", &["-c", flood]).wait();
    spawn(&others, "/bin/true", &["mine"]).wait();
    let mut commands = capture.take_commands().unwrap();
    let named = |events: &[CommandEvent], name: &str| {
        starts(events).iter().any(|start| start.argv.last().is_some_and(|last| last == name))
    };
    let events = read_until(&mut commands, |events| named(events, "mine"));
    assert!(starts(&events).len() > 100, "{}", starts(&events).len());
    // What was read is room again.
    spawn(&agents, "/bin/true", &["again"]).wait();
    let rest = read_until(&mut commands, |events| named(events, "again"));
    assert!(lost(&events) + lost(&rest) > 400, "{} lost", lost(&events) + lost(&rest));
}

/// As if the hooks had missed its end: they forget, and are reminded.
#[test]
fn a_command_whose_end_was_missed_is_seen_to_be_gone() {
    let lab = Lab::new();
    let (mut capture, listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let remembered = || {
        let pinned = MapData::from_pin(lab.config.bpffs.join("map_COMMANDS")).unwrap();
        HashMapOf::<_, u32, [u8; 32]>::try_from(Map::HashMap(pinned)).unwrap()
    };
    let mut sleep = spawn(&agents, "/bin/sleep", &["1000"]);
    let events = read_until(&mut commands, |events| starts(events).len() == 1);
    let id = starts(&events)[0].id;
    let entry = remembered().get(&sleep.0.id(), 0).unwrap();
    assert_eq!(capture.commands_gone().unwrap(), []);
    sleep.0.kill().unwrap();
    sleep.wait();
    let events = read_until(&mut commands, |events| ends(events).len() == 1);
    assert_eq!(ends(&events), HashMap::from([(id, CommandExit::Signal(9))]));
    assert_eq!(capture.commands_gone().unwrap(), []);

    remembered().insert(sleep.0.id(), entry, 0).unwrap();
    // One whose id another process has by now, and one that was part of it.
    let (other, child) = (spawn(&agents, "/bin/sleep", &["1000"]), std::process::id());
    read_until(&mut commands, |events| starts(events).len() == 1);
    let others = remembered().get(&other.0.id(), 0).unwrap();
    let mut reused = entry;
    // The time of its id, a minute before: earlier than the process that has its place.
    let made = u64::from_be_bytes([0, 0, entry[0], entry[1], entry[2], entry[3], entry[4], entry[5]]) - 60_000;
    reused[..6].copy_from_slice(&made.to_be_bytes()[2..]);
    reused[24..28].copy_from_slice(&other.0.id().to_ne_bytes());
    remembered().insert(other.0.id(), reused, 0).unwrap();
    remembered().insert(child, entry, 0).unwrap();
    let events = capture.commands_gone().unwrap();
    let reused = CommandId::from_bytes(reused[..16].try_into().unwrap());
    assert_eq!(ends(&events), HashMap::from([(id, CommandExit::Gone), (reused, CommandExit::Gone)]));
    assert_eq!(capture.commands_gone().unwrap(), []);
    assert_eq!(capture.commands_running().unwrap(), 1);

    // What was missed while there was no daemon is seen by the next.
    remembered().insert(sleep.0.id(), entry, 0).unwrap();
    remembered().insert(other.0.id(), others, 0).unwrap();
    drop((commands, capture, listeners));
    let capture = Capture::attach(&lab.config).unwrap();
    assert_eq!(ends(&capture.commands_gone().unwrap()), HashMap::from([(id, CommandExit::Gone)]));
    remembered().remove(&child).unwrap();
    assert_eq!(capture.commands_running().unwrap(), 1);
}

#[test]
fn a_thousand_processes_leave_nothing_and_each_is_told_or_counted() {
    let lab = Lab::new();
    let (mut capture, _listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let count = count(1_000);
    let script =
        format!("i=0; while [ $i -lt {count} ]; do /bin/true $i & i=$((i+1)); [ $((i%50)) = 0 ] && wait; done; wait");
    let mut shell = spawn(&agents, "/bin/sh", &["-c", &script]);
    let events = read_until(&mut commands, |events| ends(events).len() + missed(events) > count);
    shell.wait();
    let mut numbers: Vec<u32> =
        starts(&events).iter().filter_map(|start| start.argv.get(1).and_then(|number| number.parse().ok())).collect();
    numbers.sort_unstable();
    assert_eq!(lost(&events), 0);
    // Kernels that take the processor from a tracepoint's program (from 7.0 on) count what passes it by meanwhile: on a
    // machine without acceleration some do.
    let missed = missed(&events);
    assert!(numbers.len() + missed >= count, "{numbers:?}, {missed} missed");
    assert!(capture.commands_running().unwrap() <= missed);
    if missed == 0 {
        assert_eq!(numbers, (0..u32::try_from(count).unwrap()).collect::<Vec<_>>());
    }
}

/// Not a check but a measurement: `cargo test --release -p chaperone-capture -- --ignored --nocapture cost`.
#[test]
#[ignore = "a measurement"]
fn cost_of_being_told() {
    const COMMANDS: usize = 1_000;
    let executions = || {
        median(COMMANDS, || {
            let began = Instant::now();
            Command::new("/bin/true").status().unwrap();
            began.elapsed()
        })
    };
    let lab = Lab::new();
    let agents = lab.cgroup("a/b/agents");
    for _ in 0..3 {
        let measure =
            |how| tell_cost("/bin/true, from fork to wait", how, duration(&agent(&agents, executions).said()));
        measure("no hooks");
        let mut capture = Capture::attach(&lab.config).unwrap();
        measure("not enrolled");
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
        measure("enrolled");
        drop(stats);
        tell_hooks(&["command_began", "command_forked", "command_ended"]);
        let mut commands = capture.take_commands().unwrap();
        let began = Instant::now();
        let events = read_until(&mut commands, |events| ends(events).len() == COMMANDS);
        println!("read: {} events in {:?}", events.len(), began.elapsed());
        capture.detach().unwrap();
    }
}
