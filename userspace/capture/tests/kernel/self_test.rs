//! The daemon's own proof that the hooks work.

use std::{
    fs,
    time::{Duration, Instant},
};

use chaperone_capture::{Capture, cgroup_id, cgroup_root};
use socket2::{Domain, Socket, Type};

use crate::lab::Lab;

fn failed(capture: &Capture) -> Vec<String> {
    let checks = capture.self_test().unwrap();
    assert!(checks.len() >= 5, "{checks:?}");
    checks.into_iter().filter_map(|check| check.result.err().map(|found| format!("{}: {found}", check.what))).collect()
}

#[test]
fn the_self_test_passes_and_leaves_nothing() {
    let lab = Lab::new();
    let (mut capture, listeners, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    assert!(failed(&capture).is_empty(), "{:?}", failed(&capture));
    // Its own probe is no agent's command.
    assert_eq!(commands.read().unwrap(), []);
    assert_eq!(capture.enrolled().unwrap(), [cgroup_id(&agents).unwrap()]);
    let left = fs::read_dir(cgroup_root().unwrap()).unwrap().flatten().filter(|entry| {
        entry.file_name().to_string_lossy().starts_with(&format!("chaperone-self-test-{}-", std::process::id()))
    });
    // At most the other test's.
    assert!(left.count() <= 1);
    // The daemon's own listeners are still those that the hooks point at.
    let redirected =
        crate::lab::agent(&agents, || crate::lab::outcome(std::net::TcpStream::connect("203.0.113.7:443")));
    crate::lab::accept(&listeners.v4);
    assert_eq!(redirected.said(), "ok");
}

/// Detached behind the daemon's back, each in its turn.
#[test]
fn a_hook_that_is_not_in_force_is_named() {
    let lab = Lab::new();
    let capture = Capture::attach(&lab.config).unwrap();
    assert!(failed(&capture).is_empty());
    // What the self-test asks of `sock_create`; newer kernels don't have it.
    let asks = Socket::new(Domain::IPV4, Type::DGRAM, Some(libc::IPPROTO_UDPLITE.into())).is_ok();
    let mut before = 0;
    for (hook, what) in [
        ("egress", "what leaves past the redirection"),
        ("sendmsg4", "UDP to port 443"),
        ("sock_create", "another transport"),
        ("connect4", "connection is redirected"),
    ] {
        // Without its pin it stays, for as long as this process has it.
        fs::remove_file(lab.config.bpffs.join(format!("link_{hook}"))).unwrap();
        let trouble = capture.trouble().unwrap();
        let pin_is_missed = trouble.starts_with("no longer pinned") && trouble.contains(hook);
        // Those before are worse.
        assert_eq!((pin_is_missed, trouble.contains(hook)), (before == 0, before == 0), "{trouble}");
        capture.detach_hook(hook).unwrap();
        let trouble = capture.trouble().unwrap();
        assert!(trouble.starts_with("not in force") && trouble.contains(hook), "{trouble}");
        let deadline = Instant::now() + Duration::from_mins(2);
        let failed = loop {
            let failed = failed(&capture);
            if failed.first().is_some_and(|first| first.contains("not in force") && first.contains(hook)) {
                break failed;
            }
            assert!(Instant::now() < deadline, "{hook}: {failed:?}");
        };
        if hook == "sock_create" && !asks {
            continue;
        }
        assert!(failed.len() > before && failed.iter().any(|failed| failed.contains(what)), "{hook}: {failed:?}");
        before = failed.len();
    }
}

#[test]
fn hooks_for_now_end_with_their_process_and_are_pinned_nowhere() {
    let lab = Lab::new();
    let capture = Capture::attach_for_now(&lab.config).unwrap();
    assert!(failed(&capture).is_empty());
    assert!(!lab.config.bpffs.exists());
    assert_eq!(capture.trouble(), None);
    capture.detach().unwrap();
}
