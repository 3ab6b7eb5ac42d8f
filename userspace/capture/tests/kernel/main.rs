//! What the hooks do on a real kernel. Needs root and eBPF, and fails without.

#![allow(clippy::unwrap_used)] // a test's steps either work or fail it; clippy knows only functions marked #[test]

mod bound_users;
mod cgroups;
mod commands;
mod daemon;
mod devices;
mod fd_store;
mod full;
mod guard;
mod lab;
mod lsm;
mod namespaces;
mod origins;
mod rules;
mod self_test;
mod sockets;
mod tcp;
mod udp;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use chaperone_capture::{Capture, cgroup_id};
use lab::{Lab, accept, agent, outcome, socket};
use socket2::{SockAddr, Socket};

/// Connects, and says what `getpeername` shows or why not.
fn dial(to: &str) -> String {
    match TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_mins(1)) {
        Ok(stream) => stream.peer_addr().unwrap().to_string(),
        Err(error) => outcome::<()>(Err(error)),
    }
}

/// A median that was measured, as `cargo xtask bench` reads it.
fn tell_cost(what: &str, how: &str, median: Duration) {
    println!("cost: {what}: {how}: {} ns", median.as_nanos());
}

/// What an agent said, in nanoseconds.
fn duration(said: &str) -> Duration {
    Duration::from_nanos(said.parse().unwrap())
}

/// The median of so many times, in nanoseconds.
fn median(count: usize, one: impl FnMut() -> Duration) -> String {
    let mut times: Vec<_> = std::iter::repeat_with(one).take(count).collect();
    times.sort_unstable();
    times[count / 2].as_nanos().to_string()
}

/// Not a check but a measurement: `cargo test --release -p chaperone-capture -- --ignored --nocapture cost`. The times
/// in the hooks are the kernel's own (`BPF_ENABLE_STATS`), which cost some 30 ns a run themselves.
#[test]
#[ignore = "a measurement"]
fn cost_of_the_hooks() {
    // Fewer than a backlog: beyond it SYNs are lost, and the next ones come after a second.
    const CONNECTS: usize = 4_000;
    const REFUSED: &str = "connect(2), refused by the peer";
    const ACCEPTED: &str = "connect(2), accepted";
    let connects = || {
        let to = SockAddr::from("127.77.0.1:443".parse::<SocketAddr>().unwrap());
        median(CONNECTS, || {
            let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
            let began = Instant::now();
            let _ = socket.connect(&to);
            began.elapsed()
        })
    };
    let lab = Lab::new();
    let agents = lab.cgroup("a/b/agents");
    for _ in 0..3 {
        let measure = |what, how| tell_cost(what, how, duration(&agent(&agents, connects).said()));
        measure(REFUSED, "no hooks");
        let capture = Capture::attach(&lab.config).unwrap();
        measure(REFUSED, "not enrolled");
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        measure("connect(2), refused by the hooks", "enrolled");
        capture.detach().unwrap();

        let https = TcpListener::bind("127.77.0.1:443").unwrap();
        nix::sys::socket::listen(&https, nix::sys::socket::Backlog::new(4096).unwrap()).unwrap();
        let accepted = |listener: &TcpListener, how| {
            let agent = agent(&agents, connects);
            (0..CONNECTS).for_each(|_| drop(accept(listener)));
            tell_cost(ACCEPTED, how, duration(&agent.said()));
        };
        accepted(&https, "no hooks");
        let (capture, listeners, _) = lab.start();
        accepted(&https, "not enrolled");
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        accepted(&listeners.v4, "enrolled");

        let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
        let redirected = agent(&agents, connects);
        let mut lookups = Vec::with_capacity(CONNECTS);
        for _ in 0..CONNECTS {
            let stream = accept(&listeners.v4);
            let began = Instant::now();
            capture.origins().of(&stream).unwrap();
            lookups.push(began.elapsed());
        }
        redirected.said();
        drop(stats);
        lookups.sort_unstable();
        tell_cost("the origin of an accepted connection, with the process's facts", "enrolled", lookups[CONNECTS / 2]);
        tell_hooks(&["connect4", "egress", "handshake", "sock_create"]);
        capture.detach().unwrap();
    }
}

/// How long these hooks took on average, since the kernel began to count.
fn tell_hooks(names: &[&str]) {
    for program in aya::programs::loaded_programs().flatten() {
        if let (Some(name), runs @ 1..) = (program.name_as_str(), program.run_count())
            && names.contains(&name)
        {
            let each = program.run_time() / u32::try_from(runs).unwrap();
            tell_cost(&format!("in the hook {name}"), "enrolled", each);
        }
    }
}
