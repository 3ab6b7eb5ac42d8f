//! Whose a process is: rules put in force when a cgroup appears, shown, and complained of.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{fs, path::PathBuf};

use chaperone_system_tests::{Lab, text};

/// Cgroups that a test makes outside of its lab's: they go when it ends.
struct Cgroups(Vec<PathBuf>);

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().rfind(|line| line.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap().into()
}

#[test]
fn a_unit_that_appears_is_an_agent_and_agents_are_shown_with_their_rules() {
    let id = std::process::id();
    let (root, slice) = (cgroup_root(), format!("chaperone-test{id}.slice"));
    let run = root.join(format!("chaperone.run/ci-{id}"));
    let parent = root.join("chaperone.slice");
    let cgroups = Cgroups(vec![parent.clone(), parent.join(&slice), root.join("chaperone.run"), run]);
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let config = folder.path().join("agents.toml");
    fs::write(
        &config,
        format!(
            "[[agents]]\nname = \"coder\"\ncgroups = [\"${{CGROUP}}/agents/*\"]\n\
             [[agents]]\nname = \"ci-{id}\"\nunits = [\"chaperone.slice/ci-{id}-*.service\"]\nrun = true\n\
             [[agents]]\nname = \"idle\"\nslices = [\"nothing{id}.slice\"]\n"
        ),
    )
    .unwrap();
    let policy = format!("@id(\"ci\") permit (principal == Agent::\"ci-{id}\", action, resource);\n");
    let lab = Lab::start_with(&["--aws", "moto", "--config", config.to_str().unwrap()], &policy);

    // As systemd would: the cgroup is made, and the process is put there at once.
    let unit = cgroups.0[1].join(format!("ci-{id}-1.service"));
    let path = format!("/chaperone.slice/{slice}/ci-{id}-1.service");
    let call = "AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity";
    lab.operator_ok(&format!(
        "mkdir -p {0} && sh -c 'echo 0 > {0}/cgroup.procs; {call}' && chaperone run --agent ci-{id} -- sh -c '{call}'",
        unit.display()
    ));
    let calls = lab.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls.iter().all(|call| text(call, "agent") == format!("ci-{id}")), "{calls:?}");
    let sessions = lab.list("sessions");
    assert!(sessions.iter().any(|session| text(session, "cgroup") == path), "{sessions:?}");

    let rules = lab.list("agents");
    let of = |rule: &str| rules.iter().find(|it| text(it, "rule").starts_with(rule)).unwrap();
    let units = of("units");
    assert_eq!((&units["cgroups"][0], &units["enrolled"][0]), (&path.clone().into(), &path.into()), "{rules:?}");
    assert_eq!(units["unmatched"], false);
    assert_eq!(of("run")["unmatched"], false);
    assert!(of("cgroups")["enrolled"][0].as_str().unwrap().ends_with("/agents"), "{rules:?}");
    assert_eq!((&of("slices")["unmatched"], &of("slices")["enrolled"]), (&true.into(), &serde_json::json!([])));
    let said = "this rule matches no cgroup now";
    let place = text(of("slices"), "place");
    let configured = fs::read_to_string(lab.dir.join("config.toml")).unwrap();
    let line: usize = place.rsplit(':').next().unwrap().parse().unwrap();
    assert!(configured.lines().nth(line - 1).unwrap().contains("slices"), "{place}: {configured}");
    assert!(lab.log().contains(said) && lab.log().contains(place), "{}", lab.log());
    let doctor = lab.operator_ok("chaperone doctor");
    assert!(doctor.lines().any(|line| line.starts_with("warn") && line.contains(place)), "{doctor}");
    let table = lab.operator_ok("chaperone agents");
    assert!(table.contains("matches nothing"), "{table}");
    fs::remove_dir(unit).unwrap();
}
