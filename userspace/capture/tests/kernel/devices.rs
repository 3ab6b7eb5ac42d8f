//! Row "gVisor, Kata, VM, slirp/pasta": packets that are no socket's.

use std::{
    fs::{File, OpenOptions},
    os::fd::AsRawFd as _,
    path::Path,
};

use chaperone_capture::Counter;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use crate::lab::{Lab, agent, outcome};

/// A name of a test's own for `/dev/net/tun`.
const TUN: &str = "another-name";

fn tun(folder: &Path) {
    mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    mknod(&folder.join(TUN), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(10, 200)).unwrap();
}

#[test]
fn a_tun_device_is_refused_in_an_enrolled_cgroup_but_in_a_network_of_its_own() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let folder = tempfile::tempdir().unwrap();
    tun(folder.path());
    // Found from any root.
    let inside = File::open(folder.path()).unwrap();
    let path = format!("/proc/self/fd/{}/{TUN}", inside.as_raw_fd());
    let open = || outcome(OpenOptions::new().read(true).write(true).open(&path));
    let read = || outcome(File::open(&path));
    let with = |flags| {
        // To the mount namespace's own root: who has another one can't have a user namespace (unshare(2)).
        setns(File::open("/proc/self/ns/mnt").unwrap(), CloneFlags::CLONE_NEWNS).unwrap();
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
