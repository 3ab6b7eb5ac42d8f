//! The chart's script, tried on a made-up node.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use crate::place;

/// Stands for chroot(1): writes down what is asked of the node, and fails what `fails` names.
const CHROOT: &str = r#"#!/bin/sh
node=$1; shift 4
echo "$*" >> "$node/asked"
! grep -qxF -- "$*" "$node/fails" 2> /dev/null
"#;

struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for path in ["node/run/systemd/system", "node/usr/bin", "node/sys/kernel/btf", "wanted/policies", "bin"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let node = Self { folder };
        for (path, text) in [
            ("node/sys/kernel/btf/vmlinux", ""),
            ("payload/usr/bin/chaperone", "program"),
            ("payload/usr/libexec/chaperone-oci-runtime", "runtime"),
            ("payload/usr/lib/systemd/system/chaperone.service", "unit"),
            ("payload/etc/chaperone/policies/default.cedar", "default"),
            ("wanted/config.toml", "first"),
            ("bin/chroot", CHROOT),
        ] {
            node.file(path, text);
        }
        fs::set_permissions(node.folder.path().join("bin/chroot"), fs::Permissions::from_mode(0o755)).unwrap();
        node
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join(path)).unwrap_or_default()
    }

    /// Runs the script, and gives what was asked of the node.
    fn install(&self) -> (Output, Vec<String>) {
        let _ = fs::remove_file(self.folder.path().join("node/asked"));
        let at = |name: &str| self.folder.path().join(name);
        let output = Command::new("sh")
            .arg(place::root().join("deploy/helm/chaperone/files/install.sh"))
            .args([at("payload"), at("wanted"), at("node")])
            .env("PATH", format!("{}:/usr/bin:/bin", at("bin").display()))
            .output()
            .unwrap();
        (output, self.text("node/asked").lines().map(str::to_owned).collect())
    }
}

fn has(asked: &[String], line: &str) -> bool {
    asked.iter().any(|it| it == line)
}

#[test]
fn a_node_gets_the_program_once_and_what_changes_later() {
    let node = Node::new();
    let (output, asked) = node.install();
    assert!(output.status.success(), "{output:?}");
    let program = node.folder.path().join("node/usr/bin/chaperone");
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(node.text("node/etc/systemd/system/chaperone.service"), "unit");
    assert_eq!(node.text("node/etc/chaperone/config.toml"), "first");
    assert_eq!(node.text("node/etc/chaperone/policies/default.cedar"), "default");
    assert!(has(&asked, "chaperone trust install") && has(&asked, "systemctl restart chaperone"), "{asked:?}");
    // The same again.
    let (output, asked) = node.install();
    assert!(output.status.success() && has(&asked, "systemctl start chaperone"), "{output:?} {asked:?}");
    assert!(!has(&asked, "systemctl restart chaperone"), "{asked:?}");
    // Another policy takes the place of all, and of the default one.
    node.file("wanted/policies/own.cedar", "own");
    let (_, asked) = node.install();
    assert!(has(&asked, "systemctl restart chaperone"), "{asked:?}");
    assert_eq!(
        (node.text("node/etc/chaperone/policies/own.cedar").as_str(), Path::new(&program).exists()),
        ("own", true)
    );
    assert!(!node.folder.path().join("node/etc/chaperone/policies/default.cedar").exists());
}

#[test]
fn what_cant_be_used_leaves_the_node_as_it_was() {
    let node = Node::new();
    assert!(node.install().0.status.success());
    for (wrong, said) in [
        ("chaperone --config /run/chaperone-next/config.toml config check", "configuration can't be used"),
        (
            "chaperone --config /run/chaperone-next/config.toml policy check /run/chaperone-next/policies",
            "policies can't be used",
        ),
    ] {
        node.file("wanted/config.toml", "second");
        node.file("node/fails", wrong);
        let (output, asked) = node.install();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(said), "{told}");
        assert!(!asked.iter().any(|line| line.starts_with("systemctl")), "{asked:?}");
        assert_eq!(node.text("node/etc/chaperone/config.toml"), "first");
    }
    // Nodes that it isn't for.
    fs::remove_file(node.folder.path().join("node/sys/kernel/btf/vmlinux")).unwrap();
    let (output, asked) = node.install();
    assert!(!output.status.success() && asked.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("BTF"), "{output:?}");
}
