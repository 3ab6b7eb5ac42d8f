//! Token files: who may have put them there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
};

use chaperone_oidc::read;

const TRUSTED: u32 = 4711;
const AGENT: u32 = 4712;

fn owners() -> BTreeSet<u32> {
    [nix::unistd::getuid().as_raw(), TRUSTED].into()
}

fn said(path: &Path) -> String {
    read(path, &owners(), None).expect_err(&path.display().to_string()).to_string()
}

#[test]
fn a_token_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "one").unwrap();
    let first = read(&path, &owners(), None).unwrap().unwrap();
    assert_eq!(first.token, "one");
    assert!(read(&path, &owners(), Some(first.stamp)).unwrap().is_none());
    fs::write(folder.path().join("next"), "two").unwrap();
    fs::rename(folder.path().join("next"), &path).unwrap();
    assert_eq!(read(&path, &owners(), Some(first.stamp)).unwrap().unwrap().token, "two");
    assert!(!format!("{first:?}").contains("one"), "the token isn't shown");
}

/// Kubernetes renames `..data`, a link to the folder with the token in it.
#[test]
fn a_projected_token_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (data, token) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir(at(data)).unwrap();
        fs::write(at(data).join("token"), token).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/token", at("token")).unwrap();
    let first = read(&at("token"), &owners(), None).unwrap().unwrap();
    assert_eq!(first.token, "one");
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    assert_eq!(read(&at("token"), &owners(), Some(first.stamp)).unwrap().unwrap().token, "two");
}

#[test]
fn what_is_no_token_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(said(Path::new("token")).contains("absolute"));
    assert!(said(&at("none")).contains("ENOENT"));
    assert!(said(folder.path()).contains("not a file"));
    symlink("loop", at("loop")).unwrap();
    assert!(said(&at("loop")).contains("links"));
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(said(&at("fifo")).contains("not a file"), "and nobody waits for a writer");
    fs::write(at("big"), "x".repeat(1 << 20)).unwrap();
    assert!(said(&at("big")).contains("more than 16384 bytes"));
    fs::write(at("open"), "x").unwrap();
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(said(&at("open")).contains("chmod go-w"));
    fs::create_dir(at("shared")).unwrap();
    fs::write(at("shared/token"), "x").unwrap();
    fs::set_permissions(at("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(said(&at("shared/token")).contains("put another file there"));
    fs::set_permissions(at("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(read(&at("shared/token"), &owners(), None).is_ok(), "a sticky folder keeps what others own");
}

/// Needs root, to give files to others.
#[test]
fn what_an_agent_owns_is_refused_wherever_on_the_way_it_is() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("not root: nothing can be given to another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("agents")).unwrap();
    for name in ["token", "agents/token", "good"] {
        fs::write(at(name), "x").unwrap();
    }
    symlink("good", at("link")).unwrap();
    chown(at("token"), Some(AGENT), None).unwrap();
    chown(at("agents"), Some(AGENT), None).unwrap();
    std::os::unix::fs::lchown(at("link"), Some(AGENT), None).unwrap();
    // Another way in, through a link of root's.
    symlink("agents/token", at("way")).unwrap();
    for name in ["token", "agents/token", "link", "way"] {
        let error = said(&at(name));
        assert!(error.contains("belongs to uid 4712") && error.contains("identity.token_owners"), "{name}: {error}");
    }
    chown(at("good"), Some(TRUSTED), None).unwrap();
    assert!(read(&at("good"), &owners(), None).is_ok());
    assert!(read(&at("good"), &BTreeSet::new(), None).is_err());
}
