//! What the hooks do on a real kernel. Needs root and eBPF, and fails without.

#![allow(clippy::unwrap_used)] // a test's steps either work or fail it; clippy knows only functions marked #[test]

mod bound_users;
mod cgroups;
mod commands;
mod daemon;
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

/// Not a check but a measurement: `cargo test --release -p chaperone-capture -- --ignored --nocapture cost`. The times
/// in the hooks are the kernel's own (`BPF_ENABLE_STATS`), which cost some 30 ns a run themselves.
#[test]
#[ignore = "a measurement"]
fn cost_of_the_hooks() {
    // Fewer than a backlog: beyond it SYNs are lost, and the next ones come after a second.
    const CONNECTS: usize = 4_000;
    let connects = || {
        let to = SockAddr::from("127.77.0.1:443".parse::<SocketAddr>().unwrap());
        let mut times: Vec<_> = (0..CONNECTS)
            .map(|_| {
                let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
                let began = Instant::now();
                let _ = socket.connect(&to);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        format!("connect(2) median {} ns", times[times.len() / 2].as_nanos())
    };
    let lab = Lab::new();
    let agents = lab.cgroup("a/b/agents");
    for _ in 0..3 {
        println!("not attached, refused by the peer: {}", agent(&agents, connects).said());
        let capture = Capture::attach(&lab.config).unwrap();
        println!("attached, not enrolled, refused by the peer: {}", agent(&agents, connects).said());
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        println!("enrolled, refused for want of a listener: {}", agent(&agents, connects).said());
        capture.detach().unwrap();

        let https = TcpListener::bind("127.77.0.1:443").unwrap();
        nix::sys::socket::listen(&https, nix::sys::socket::Backlog::new(4096).unwrap()).unwrap();
        let direct = agent(&agents, connects);
        (0..CONNECTS).for_each(|_| drop(accept(&https)));
        println!("not attached, accepted: {}", direct.said());
        let (capture, listeners, _) = lab.start();
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        let redirected = agent(&agents, connects);
        (0..CONNECTS).for_each(|_| drop(accept(&listeners.v4)));
        println!("redirected, accepted: {}", redirected.said());

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
        println!("origin of an accepted connection, with the process's facts: median {:?}", lookups[CONNECTS / 2]);
        for program in aya::programs::loaded_programs().flatten() {
            if let (Some(name @ ("connect4" | "egress" | "handshake" | "sock_create")), runs @ 1..) =
                (program.name_as_str(), program.run_count())
            {
                let each = program.run_time().as_nanos() / u128::from(runs);
                println!("in the hook {name}: mean {each} ns, {runs} runs");
            }
        }
        capture.detach().unwrap();
    }
}
