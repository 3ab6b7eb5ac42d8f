//! Row "gVisor, Kata, VM, slirp/pasta": packets that are no socket's.

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

use chaperone_capture::Counter;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use crate::lab::{Lab, agent, outcome};

/// A name of a test's own for `/dev/net/tun`.
fn tun(folder: &Path) -> std::path::PathBuf {
    mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let path = folder.join("another-name");
    mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(10, 200)).unwrap();
    path
}

#[test]
fn a_tun_device_is_refused_in_an_enrolled_cgroup_but_in_a_network_of_its_own() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let folder = tempfile::tempdir().unwrap();
    let path = tun(folder.path());
    let open = || outcome(OpenOptions::new().read(true).write(true).open(&path));
    let read = || outcome(File::open(&path));
    let with = |flags| {
        unshare(flags).unwrap();
        open()
    };
    // A kernel without the driver says so.
    let allowed = |said: String| assert!(["ok", "ENODEV", "ENXIO"].contains(&said.as_str()), "{said}");

    assert_eq!(agent(&agents, || format!("{} {}", open(), read())).said(), "EPERM EPERM");
    // A network that root has made, such as a container engine's, has ways out.
    assert_eq!(agent(&agents, || with(CloneFlags::CLONE_NEWNET)).said(), "EPERM");
    // A user namespace alone is still in the host's.
    assert_eq!(agent(&agents, || with(CloneFlags::CLONE_NEWUSER)).said(), "EPERM");
    assert_eq!(capture.counters().get(Counter::SocketKind).unwrap(), 4);

    // As podman has pasta or slirp4netns do for a user's own containers.
    allowed(agent(&agents, || with(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)).said());
    allowed(agent(&lab.cgroup("elsewhere"), open).said());
    // Its node can be made, and others are opened.
    let made = || {
        let node = folder.path().join("made");
        let made = mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(10, 200));
        format!("{} {}", outcome(made.map_err(Into::into)), outcome(File::open("/dev/null")))
    };
    assert_eq!(agent(&agents, made).said(), "ok ok");
    assert_eq!(capture.counters().get(Counter::SocketKind).unwrap(), 4);
}
