//! `cargo xtask fidelity`: moto's own tests, directly and through Chaperone, with the same outcome.
//!
//! The tests are those of moto's source distribution. They speak to the lab's AWS by its names, over TLS, with the lab's
//! key or with the placeholder that an agent gets, and know nothing of either. What ends differently is run once more, so
//! that a test which doesn't always end the same is no difference; what is meant to be is in `xtask/fidelity.toml`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{Refusal, place, setup};

/// As the lab's moto is.
const MOTO: &str = "moto==5.2.5";

/// Options of `cargo xtask fidelity`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only tests whose file has this in its name, such as `test_s3/`; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Only one in so many files, for a quick look.
    #[arg(long, default_value_t = 1)]
    sample: usize,
    /// Say what was found as JSON.
    #[arg(long)]
    json: bool,
}

/// How a test ended, as `fidelity.py` writes it.
#[derive(Clone, Debug, Deserialize)]
struct Ended {
    test: String,
    #[serde(rename = "ended")]
    how: String,
    why: String,
}

/// A difference that is meant to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    test: String,
    why: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    accepted: Vec<Accepted>,
}

/// A test that ended in two ways.
#[derive(Debug, Serialize)]
struct Difference {
    test: String,
    directly: String,
    through: String,
    /// What it said there.
    said: String,
    /// Why that is meant to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Found {
    /// How many tests ran, how many of them passed directly, and how many ended the same.
    tests: usize,
    passed_directly: usize,
    same: usize,
    /// Those that ended the same when they were run once more.
    unsteady: Vec<String>,
    differences: Vec<Difference>,
    /// Accepted, and the same.
    outdated: Vec<String>,
}

type Outcomes = BTreeMap<String, Ended>;

/// Runs them all.
pub fn run(options: &Options) -> Result<()> {
    let ready = setup::lab()?;
    let folder = place::target()?.join("lab/fidelity");
    let (tests, site) = (sources(&folder, &ready.venv)?, site(&folder, &ready.venv)?);
    let files = files(&tests, options)?;
    let list = fs::read_to_string(place::root().join("xtask/fidelity.toml")).context("reading fidelity.toml")?;
    let list: List = toml::from_str(&list).context("reading fidelity.toml")?;
    eprintln!("fidelity: {} files of moto's tests, directly and through Chaperone", files.len());
    let mut worlds =
        [World::start(&folder, "direct", &site, &ready.venv)?, World::start(&folder, "through", &site, &ready.venv)?];
    let mut outcomes: [Outcomes; 2] = Default::default();
    for (number, file) in files.iter().enumerate() {
        for (world, outcomes) in worlds.iter_mut().zip(&mut outcomes) {
            outcomes.extend(world.run(&tests, std::slice::from_ref(file))?);
        }
        let of_file = |outcomes: &Outcomes| outcomes.keys().filter(|name| name.starts_with(file.as_str())).count();
        eprintln!("fidelity: {}/{} {file}: {} tests", number + 1, files.len(), of_file(&outcomes[0]));
    }
    let mut found = Found::default();
    let differing = |outcomes: &[Outcomes; 2]| -> Vec<String> {
        let names = outcomes[0].keys().chain(outcomes[1].keys().filter(|name| !outcomes[0].contains_key(*name)));
        let ended = |side: usize, name: &str| outcomes[side].get(name).map(|it| it.how.clone());
        names.filter(|name| ended(0, name) != ended(1, name)).cloned().collect()
    };
    for name in differing(&outcomes) {
        // By itself, and without what the tests before it left.
        for (world, outcomes) in worlds.iter_mut().zip(&mut outcomes) {
            outcomes.extend(world.run(&tests, std::slice::from_ref(&name))?);
        }
        let ended = |side: usize| outcomes[side].get(&name).map_or_else(|| "not run".to_owned(), |it| it.how.clone());
        if ended(0) == ended(1) {
            found.unsteady.push(name);
            continue;
        }
        let said = outcomes.iter().filter_map(|it| it.get(&name)).map(|it| it.why.clone()).find(|why| !why.is_empty());
        let accepted = list.accepted.iter().find(|accepted| name.starts_with(&accepted.test));
        found.differences.push(Difference {
            directly: ended(0),
            through: ended(1),
            said: said.unwrap_or_default(),
            accepted: accepted.map(|accepted| accepted.why.clone()),
            test: name,
        });
    }
    let [direct, through] = &outcomes;
    found.tests = direct.len();
    found.passed_directly = direct.values().filter(|it| it.how == "passed").count();
    found.same = direct.iter().filter(|(name, it)| through.get(*name).is_some_and(|other| other.how == it.how)).count();
    let differs = |accepted: &&Accepted| found.differences.iter().any(|it| it.test.starts_with(&accepted.test));
    let ran = |accepted: &&Accepted| direct.keys().any(|name| name.starts_with(&accepted.test));
    found.outdated = list.accepted.iter().filter(ran).filter(|it| !differs(it)).map(|it| it.test.clone()).collect();
    drop(worlds);
    tell(&found, options.json)?;
    let new = found.differences.iter().filter(|it| it.accepted.is_none()).count();
    ensure!(new == 0, "{new} tests end differently through Chaperone, and xtask/fidelity.toml doesn't have them");
    ensure!(
        found.outdated.is_empty(),
        "xtask/fidelity.toml has tests that end the same: {}",
        found.outdated.join(", ")
    );
    Ok(())
}

fn tell(found: &Found, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(found).context("BUG: what was found")?);
        return Ok(());
    }
    for Difference { test, directly, through, said, accepted } in &found.differences {
        println!("{test}: {directly} directly, {through} through Chaperone");
        println!("    {}", accepted.as_deref().unwrap_or(said));
    }
    println!(
        "{} tests, {} passed directly, {} ended the same; {} differ, of which {} are accepted; {} don't always end the same",
        found.tests,
        found.passed_directly,
        found.same,
        found.differences.len(),
        found.differences.iter().filter(|it| it.accepted.is_some()).count(),
        found.unsteady.len(),
    );
    Ok(())
}

/// moto's tests, from its source distribution.
fn sources(folder: &Path, venv: &Path) -> Result<PathBuf> {
    let unpacked = folder.join(MOTO.replace("==", "-"));
    if !unpacked.join("tests").exists() {
        eprintln!("set-up: moto's own tests, 9 MB");
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        setup::run(
            Command::new(venv.join("bin/python"))
                .args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"])
                .args(["--no-binary", "moto", MOTO, "--dest"])
                .arg(folder),
        )?;
        let archive = folder.join(format!("{}.tar.gz", MOTO.replace("==", "-")));
        setup::run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder))?;
        // The installed one is what is tested by.
        fs::remove_dir_all(unpacked.join("moto")).context("removing moto's own copy of itself")?;
    }
    Ok(unpacked)
}

/// pytest and what it needs, in a folder beside the lab's environment.
fn site(folder: &Path, venv: &Path) -> Result<PathBuf> {
    let (site, requirements) = (folder.join("site"), place::root().join("xtask/python/fidelity-requirements.txt"));
    let wanted = fs::read(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let mark = site.join("requirements.txt");
    if fs::read(&mark).is_ok_and(|there| there == wanted) {
        return Ok(site);
    }
    let _ = fs::remove_dir_all(&site);
    setup::run(
        Command::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-input",
                "--disable-pip-version-check",
                "--no-deps",
                "--target",
            ])
            .arg(&site)
            .arg("-r")
            .arg(&requirements),
    )?;
    fs::write(&mark, wanted).with_context(|| format!("writing {}", mark.display()))?;
    Ok(site)
}

/// The files of tests that are wanted, in order.
fn files(tests: &Path, options: &Options) -> Result<Vec<String>> {
    let (mut folders, mut files) = (vec![tests.join("tests")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.starts_with("test_") && Path::new(&name).extension().is_some_and(|it| it == "py") {
                let relative = path.strip_prefix(tests).unwrap_or(&path);
                files.push(relative.display().to_string());
            }
        }
    }
    files.sort();
    files.retain(|file| options.only.is_empty() || options.only.iter().any(|wanted| file.contains(wanted.as_str())));
    let files: Vec<_> = files.into_iter().step_by(options.sample.max(1)).collect();
    if files.is_empty() {
        return Err(Refusal(format!("no file of moto's tests has {} in its name", options.only.join(" or "))).into());
    }
    Ok(files)
}

/// A lab, with Chaperone or without.
struct World {
    dir: PathBuf,
    site: PathBuf,
    python: PathBuf,
    runs: usize,
    _folder: tempfile::TempDir,
}

impl World {
    fn start(folder: &Path, name: &str, site: &Path, venv: &Path) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("chaperone-fidelity-").tempdir().context("making a folder")?;
        let dir = temporary.path().join(name);
        let policy = folder.join("permit-all.cedar");
        fs::write(&policy, "@id(\"all\") permit (principal, action, resource);\n").context("writing the policy")?;
        let mut command = xtask()?;
        command.args(["lab", "--keep"]).arg(&dir).args(["--aws", "moto"]);
        if name == "direct" {
            command.arg("--direct");
        } else {
            command.arg("--policy").arg(&policy);
        }
        setup::run(command.args(["--", "true"]).stdin(Stdio::null()))?;
        let (site, python) = (site.to_owned(), venv.join("bin/python"));
        Ok(Self { dir, site, python, runs: 0, _folder: temporary })
    }

    /// Runs these tests as an agent.
    fn run(&mut self, tests: &Path, wanted: &[String]) -> Result<Outcomes> {
        self.runs += 1;
        let out = self.dir.join(format!("home/fidelity-{}.jsonl", self.runs));
        fs::write(&out, "").with_context(|| format!("making {}", out.display()))?;
        let quoted: Vec<String> = wanted.iter().map(|name| format!("'{name}'")).collect();
        let script = format!(
            "cd '{}' && PYTHONPATH='{}' PYTHONDONTWRITEBYTECODE=1 timeout 1200 '{}' '{}' '{}' {}",
            tests.display(),
            self.site.display(),
            self.python.display(),
            place::root().join("xtask/python/fidelity.py").display(),
            out.display(),
            quoted.join(" ")
        );
        let mut command = xtask()?;
        command.args(["lab", "agent"]).arg(&self.dir).args(["--", "sh", "-c", &script]);
        let output = command.stdin(Stdio::null()).output().context("running tests in the lab")?;
        let said = || [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        ensure!(output.status.success(), "{}: {}: {}", wanted.join(" "), output.status, said());
        let text = fs::read_to_string(&out).with_context(|| format!("reading {}", out.display()))?;
        let lines = text.lines().map(|line| serde_json::from_str::<Ended>(line).context("BUG: fidelity.py's line"));
        lines.map(|ended| ended.map(|ended| (ended.test.clone(), ended))).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Ok(mut command) = xtask() {
            let _ = command.args(["lab", "down"]).arg(&self.dir).stdin(Stdio::null()).status();
        }
    }
}

fn xtask() -> Result<Command> {
    std::env::current_exe().map(Command::new).context("finding this program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_difference_has_its_reason() {
        let list: List = toml::from_str(include_str!("../fidelity.toml")).unwrap();
        for Accepted { test, why } in &list.accepted {
            assert!(test.starts_with("tests/test_") && why.len() > 20, "{test}: {why}");
        }
    }
}
