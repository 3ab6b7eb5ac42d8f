//! Which cgroups are enrolled, and which are not.

use std::{fs, net::TcpListener};

use chaperone_capture::{CaptureError, cgroup_id, cgroup_path};

use crate::{
    dial,
    lab::{Lab, accept, agent},
};

#[test]
fn the_nearest_word_counts() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let https = TcpListener::bind("127.77.0.1:443").unwrap();
    let exempt = lab.cgroup("agents/daemon");
    let inner = lab.cgroup("agents/daemon/agent");
    let deep = lab.cgroup(&format!("agents/deep{}", "/x".repeat(40)));
    capture.exempt(cgroup_id(&exempt).unwrap()).unwrap();
    capture.enroll(cgroup_id(&inner).unwrap()).unwrap();
    assert_eq!(capture.enrolled().unwrap().len(), 2);

    let daemon = agent(&exempt, || dial("127.77.0.1:443"));
    accept(&https);
    assert_eq!(daemon.said(), "127.77.0.1:443");
    for (cgroup, by) in [(&inner, &inner), (&deep, &agents)] {
        let redirected = agent(cgroup, || dial("127.77.0.1:443"));
        let origin = capture.origins().of(accept(&listeners.v4)).unwrap();
        assert_eq!(origin.cgroup, cgroup_id(cgroup).unwrap());
        assert_eq!(origin.enrolled, cgroup_id(by).unwrap());
        redirected.said();
    }
    // Where the hooks don't look, nothing can be enrolled.
    let error = capture.enroll(cgroup_id(&deep).unwrap()).unwrap_err().to_string();
    assert!(error.contains("levels deep"), "{error}");
}

#[test]
fn cgroups_have_paths() {
    let lab = Lab::new();
    let root = chaperone_capture::cgroup_root().unwrap();
    let cgroup = lab.cgroup("agents/coder");
    let id = cgroup_id(&cgroup).unwrap();
    let path = cgroup_path(&root, id).unwrap();
    assert_eq!(path, format!("/{}", cgroup.strip_prefix(&root).unwrap().display()));
    assert_eq!(cgroup_path(&root, cgroup_id(&root).unwrap()).unwrap(), "/");
    fs::remove_dir(&cgroup).unwrap();
    assert!(matches!(cgroup_path(&root, id), Err(CaptureError::CgroupGone { .. })));
}
