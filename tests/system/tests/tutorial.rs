//! The tutorial's commands, run as they are written.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::fs;

use chaperone_system_tests::{Lab, both, text};

const TUTORIAL: &str = include_str!("../../../docs/tutorial.md");
const DEFAULT_POLICY: &str = include_str!("../../../userspace/policy/src/default.cedar");

/// What is to be in a shell, with the heading that it is below.
fn blocks() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for section in TUTORIAL.split("\n## ").skip(1) {
        let heading = section.lines().next().unwrap();
        for block in section.split("```sh\n").skip(1) {
            found.push((heading, block.split("```").next().unwrap().to_owned()));
        }
    }
    found
}

#[test]
fn the_tutorials_commands_do_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tutorial.toml");
    // What `setup` has written by then: the packages' own check runs that. Policies are where the package has them.
    let agent = "[[agents]]\nname = \"coder\"\ncgroups = [\"${CGROUP}/agents/*\"]\nrun = true\n";
    fs::write(&config, agent).unwrap();
    let lab = Lab::start_with(&["--aws", "moto", "--config", config.to_str().unwrap()], DEFAULT_POLICY);
    lab.operator_ok("mkdir -p /etc/chaperone && ln -sfn \"$CHAPERONE_LAB/policies\" /etc/chaperone/policies");
    let mut last = String::new();
    let mut run = Vec::new();
    for (heading, block) in blocks() {
        if heading == "Install" {
            assert!(block.contains("chaperone setup --agent coder"), "{block}");
            continue;
        }
        let output = lab.operator(&format!("set -e\n{}", block.replace("CALL", &last)));
        let said = both(&output);
        assert!(output.status.success(), "{heading}: {block}\n{said}\n{}", lab.log());
        let calls = lab.calls();
        text(calls.last().unwrap(), "id").clone_into(&mut last);
        run.push((heading, said));
    }
    let said = |heading: &str| -> String {
        run.iter().filter(|(it, _)| *it == heading).map(|(_, said)| said.as_str()).collect()
    };
    assert!(said("A first call").contains("Buckets"), "{run:#?}");
    assert!(said("See it").contains("s3:ListAllMyBuckets"), "{run:#?}");
    let refused = said("A call that is refused");
    assert!(
        refused.contains("AccessDenied") && refused.contains("CreateQueue") && refused.contains("refused"),
        "{refused}"
    );
    assert!(said("Permit it").contains("QueueUrl"), "{run:#?}");
    assert!(said("Stop the agent").contains("stopped"), "{run:#?}");
    assert!(!said("Prove the record").is_empty(), "{run:#?}");
}
