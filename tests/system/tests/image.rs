//! The image's publication: what it asks of AWS, asked of moto, by an agent.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{fs, path::Path};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, text};

const BLOCK: usize = 512 * 1024;

fn script() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::canonicalize(root.join("ami/publish.py")).unwrap().display().to_string()
}

#[test]
fn a_snapshot_has_the_images_blocks_and_the_ami_asks_for_imdsv2() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let image = lab.dir.join("disk.raw");
    // Two blocks that say something, the last one not whole, and one between them that is empty.
    let mut disk = vec![0; 2 * BLOCK + 7];
    disk[3] = 1;
    disk[2 * BLOCK + 1] = 2;
    fs::write(&image, disk).unwrap();
    let (script, path) = (script(), image.display());
    let said = lab.agent_ok(&format!(
        "python3 {script} --image {path} --architecture x86_64 --region eu-west-1 --name tried --yes"
    ));
    assert!(said.trim().starts_with("ami-"), "{said}");
    let described = lab.agent_ok("aws ec2 describe-images --region eu-west-1 --owners self");
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    let one = &described["Images"][0];
    assert_eq!((text(one, "ImageId"), text(one, "Name")), (said.trim(), "tried"), "{described}");
    let snapshot = lab.agent_ok("aws ec2 describe-snapshots --region eu-west-1 --owner-ids self --query 'Snapshots[0].SnapshotId' --output text");
    let blocks = lab.agent_ok(&format!(
        "aws ebs list-snapshot-blocks --region eu-west-1 --snapshot-id {} --query 'Blocks[].BlockIndex' --output text",
        snapshot.trim()
    ));
    let mut blocks: Vec<_> = blocks.split_whitespace().collect();
    blocks.sort_unstable();
    assert_eq!(blocks, ["0", "2"]);
    let calls = lab.calls();
    let registered = calls.iter().find(|call| text(call, "operation") == "RegisterImage").unwrap();
    let asked = lab.operator_ok(&format!("chaperone show {} --body request", text(registered, "id")));
    for word in ["ImdsSupport=v2.0", "BootMode=uefi", "Architecture=x86_64", "EnaSupport=true"] {
        assert!(asked.contains(word), "{word}: {asked}");
    }
}

#[test]
fn without_yes_it_only_tells() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    fs::write(&image, [0; 512]).unwrap();
    let ask = |image: &Path| {
        let mut command = std::process::Command::new("/usr/bin/python3");
        command.arg(script()).arg("--image").arg(image).args(["--architecture", "arm64", "--region", "eu-west-1"]);
        command.output().unwrap()
    };
    let output = ask(&image);
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    for word in [
        "Nothing was done",
        "coldsnap --region eu-west-1",
        "import-snapshot",
        "--imds-support v2.0",
        "--architecture arm64",
        "--boot-mode uefi",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let output = ask(&folder.path().join("none.raw"));
    assert!(output.status.code() == Some(2) && both(&output).contains("cargo xtask image"), "{}", both(&output));
}
