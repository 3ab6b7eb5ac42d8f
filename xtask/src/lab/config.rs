//! The daemon's configuration in a lab.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::folder::Lab;
use crate::Refusal;

/// The policy that Chaperone ships.
pub const DEFAULT_POLICY: &str = include_str!("../../../userspace/policy/src/default.cedar");

/// The lab's own configuration with another laid over it.
pub fn toml(lab: &Lab, over: Option<&Path>) -> Result<String> {
    let dir = lab.dir.display();
    let (id, cgroup) = (&lab.id, lab.cgroup_name());
    let mut text = format!(
        r#"
[[agents]]
name = "coder"
groups = ["developers"]
cgroups = ["{cgroup}/agents/*"]

[paths]
state = "{dir}/state"
control = "{dir}/control.sock"
approvals = "{dir}/approvals.sock"
registrations = "{dir}/register.sock"
bpffs = "/sys/fs/bpf/chaperone-lab-{id}"

# Labs run where kernels don't take them, too.
[capture]
lsm = "optional"

[journal]
dir = "{dir}/journal"
segment_bytes = 67108864
durability = "group"

[policy]
path = "{dir}/policies"

[upstream]
ca_file = "{dir}/ca.crt"

[aws]
region = "eu-west-1"
account = "123456789012"
role = "coder"

[metrics]
listen = "127.0.0.1:9464"
"#
    );
    if lab.warehouse {
        text.push_str("\n[warehouse]\nurl = \"http://127.0.0.1:8123\"\ndatabase = \"chaperone\"\nuser = \"default\"\n");
    }
    let mut config: Table = text.parse().context("BUG: the lab's own configuration")?;
    if let Some(path) = over {
        let text = fs::read_to_string(path)
            .map_err(|error| Refusal(format!("--config: reading {}: {error}", path.display())))?
            .replace("${LAB}", &dir.to_string())
            .replace("${CGROUP}", &cgroup);
        let over: Table = text.parse().map_err(|error| Refusal(format!("--config: {}: {error}", path.display())))?;
        merge(&mut config, over);
    }
    toml::to_string_pretty(&config).context("BUG: writing the lab's configuration")
}

fn merge(below: &mut Table, over: Table) {
    for (key, value) in over {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(over)) => merge(below, over),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Copies a policy file, or every policy of a folder.
pub fn copy_policies(from: &Path, to: &Path) -> Result<()> {
    let copy = |file: &Path| -> Result<()> {
        let name = file.file_name().context("a policy without a name")?;
        fs::copy(file, to.join(name))
            .map(drop)
            .map_err(|error| Refusal(format!("--policy: reading {}: {error}", file.display())).into())
    };
    if !from.is_dir() {
        return copy(from);
    }
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            copy(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_merged_and_the_rest_is_replaced() {
        let mut below: Table = "a = 1\n[t]\nb = 1\nc = [1, 2]\n".parse().unwrap();
        merge(&mut below, "[t]\nc = [3]\nd = 4\n".parse().unwrap());
        let expected: Table = "a = 1\n[t]\nb = 1\nc = [3]\nd = 4\n".parse().unwrap();
        assert_eq!(below, expected);
    }
}
