//! `chaperone provision`: an instance of the image is set up by its user data, at every boot. What can't be used changes
//! nothing but that agents are refused everything.

mod user_data;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use chaperone_authority::{CertificateAuthority, Trust};
use clap::Args;

use self::user_data::UserData;
use crate::{
    config::{Config, ConfigError, DEFAULT_PATH},
    metadata,
    output::clean_lines,
    sandbox,
};

/// What `provision` is told.
#[derive(Args, Debug)]
pub struct Provision {
    /// Take the user data from this file instead of the metadata address.
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// Only check that file: needs no instance and no privileges.
    #[arg(long, requires = "user_data")]
    check: bool,
}

/// Where an instance has what is put in force.
struct Place {
    config: &'static str,
    policies: &'static str,
    keys: &'static str,
    lingering: &'static str,
}

const PLACE: Place = Place {
    config: DEFAULT_PATH,
    policies: "/etc/chaperone/policies",
    keys: "/etc/ssh/authorized_keys/admin",
    lingering: "/var/lib/systemd/linger",
};
/// What is in force instead of policies while the user data can't be used.
const REFUSING: &str = "\
// This instance's user data can't be used: `systemctl status chaperone-provision` says why.
@id(\"user-data\") forbid (principal, action, resource);
";
/// How long the metadata address may take to be there: the network comes up at the same time.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(500);

/// Fetches the user data, checks it, puts it in force. Exit code 2: it can't be used, and agents are refused.
pub fn run(what: &Provision) -> anyhow::Result<ExitCode> {
    if what.check {
        let path = what.user_data.as_deref().context("BUG: clap asks for --user-data")?;
        let data = UserData::parse(&read(path)?)?;
        println!("{}: {} agents, {} policy files", path.display(), data.config.agents.len(), data.policies.len());
        return Ok(ExitCode::SUCCESS);
    }
    sandbox::require_root()?;
    let fetched = match &what.user_data {
        Some(path) => Some(read(path)?),
        None => fetch()?,
    };
    let Some(bytes) = fetched.filter(|bytes| !bytes.iter().all(u8::is_ascii_whitespace)) else {
        println!("this instance has no user data: what was in force stays, which at first refuses agents everything");
        return Ok(ExitCode::SUCCESS);
    };
    let before = fs::read_to_string(PLACE.config).with_context(|| format!("reading {}", PLACE.config))?;
    let done = UserData::parse(&bytes).map_err(anyhow::Error::from).and_then(|data| apply(&data));
    let Err(error) = done else {
        println!("the user data is in force");
        return Ok(ExitCode::SUCCESS);
    };
    eprintln!("chaperone: {}", clean_lines(&format!("{error:#}")));
    refuse(&before).context("refusing agents everything")?;
    eprintln!("chaperone: the user data can't be used, so agents are refused everything; mend it, then reboot");
    Ok(ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 }))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let wrong = |error| ConfigError(format!("reading the user data {}: {error}", path.display()));
    Ok(fs::read(path).map_err(wrong)?)
}

/// The user data, if there is any, and the key of who looks after the instance.
fn fetch() -> anyhow::Result<Option<Vec<u8>>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!(
                    "the metadata address hasn't answered in {} s: what was in force stays; is it switched on, with IMDSv2?",
                    PATIENCE.as_secs()
                )));
            }
            // The network comes up at the same time, which says nothing to wait for.
            Err(_) => thread::park_timeout(PAUSE),
        }
    }
}

fn ask() -> anyhow::Result<Option<Vec<u8>>> {
    let token = metadata::token()?;
    let key = metadata::get("/latest/meta-data/public-keys/0/openssh-key", &token)?;
    let data = metadata::get("/latest/user-data", &token)?;
    if let Some(key) = key
        && Path::new("/etc/ssh").is_dir()
    {
        replace(Path::new(PLACE.keys), &key, 0o644)?;
    }
    Ok(data)
}

fn apply(data: &UserData) -> anyhow::Result<()> {
    data.users.iter().try_for_each(|user| make_user(user))?;
    // Rules by users whom there isn't are the daemon's to refuse, which would leave agents with what is in force now.
    let agents = data.config.agents()?;
    data.config.bound_users()?;
    data.config.cgroup_rules(&agents)?;
    data.config.warehouse()?;
    let text = data.config.text();
    let same = fs::read_to_string(PLACE.config).is_ok_and(|there| there == text)
        && policies_of(Path::new(PLACE.policies)).is_ok_and(|there| there == data.policies);
    trust(&data.config)?;
    if !same {
        replace(Path::new(PLACE.config), text.as_bytes(), 0o640)?;
        put_policies(Path::new(PLACE.policies), &data.policies)?;
        restart()?;
    }
    // What runs for a user from boot on, runs once it is captured.
    let users = data.config.agents.iter().flat_map(|agent| &agent.users).filter(|user| user.parse::<u32>().is_err());
    users.into_iter().try_for_each(|user| replace(&Path::new(PLACE.lingering).join(user), b"", 0o644))
}

/// Enrolment as it was, and nothing permitted.
fn refuse(before: &str) -> anyhow::Result<()> {
    let policies = BTreeMap::from([("refused.cedar".to_owned(), REFUSING.to_owned())]);
    put_policies(Path::new(PLACE.policies), &policies)?;
    replace(Path::new(PLACE.config), before.as_bytes(), 0o640)?;
    restart()
}

fn make_user(user: &str) -> anyhow::Result<()> {
    match nix::unistd::User::from_name(user).with_context(|| format!("looking up the user `{user}`"))? {
        Some(there) if there.uid.as_raw() >= 1000 => return Ok(()),
        Some(_) => {
            let why = "is a user of the system's, and can't be an agent";
            return Err(ConfigError(format!("user data: image.users: `{user}` {why}")).into());
        }
        None => {}
    }
    let mut command = Command::new("useradd");
    done(command.args(["--create-home", "--shell", "/bin/bash", "--key", "UID_MIN=2000", user]))
}

/// The CA vouches for what the configuration inspects, and the host's stores know it.
fn trust(config: &Config) -> anyhow::Result<()> {
    let mut authority = CertificateAuthority::open_or_create(&config.ca(), &config.domains())?;
    if authority.check(&config.domains()).is_err() {
        authority = CertificateAuthority::create(&config.ca(), &config.domains())?;
    }
    let trust = Trust::of_host()?.with_containers_by(Path::new(PLACE.config))?;
    let complete = |report: chaperone_authority::TrustReport| report.is_complete();
    if !trust.status(authority.path()).is_ok_and(complete) {
        ensure!(
            complete(trust.install(authority.path())?),
            "not every store trusts the CA: see `chaperone trust status`"
        );
    }
    Ok(())
}

fn restart() -> anyhow::Result<()> {
    done(Command::new("systemctl").args(["restart", "chaperone"])).context("`journalctl -u chaperone` says why")
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        bail!("{name} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The policy files of a folder, and whatever else is in it.
fn policies_of(folder: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let entries = fs::read_dir(folder)?;
    entries
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?))
        })
        .collect()
}

/// In the place of whatever is there, in one step.
fn put_policies(folder: &Path, policies: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let new = folder.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("removing {}", new.display()))?;
    }
    fs::DirBuilder::new().mode(0o755).create(&new).with_context(|| format!("making {}", new.display()))?;
    for (name, text) in policies {
        replace(&new.join(name), text.as_bytes(), 0o644)?;
    }
    let flags =
        if folder.exists() { nix::fcntl::RenameFlags::RENAME_EXCHANGE } else { nix::fcntl::RenameFlags::empty() };
    nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &new, nix::fcntl::AT_FDCWD, folder, flags)
        .with_context(|| format!("putting {} in place", folder.display()))?;
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("removing {}", new.display()))?;
    }
    Ok(())
}

/// A file with that text, on the disk, in one step; nothing if it has it already.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let folder = path.parent().context("BUG: a path without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use chaperone_policy::PolicyVersion;

    use super::*;
    use crate::daemon::KnownActions;

    #[test]
    fn policies_are_exchanged_whole() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("policies");
        let of = |name: &str, text: &str| BTreeMap::from([(name.to_owned(), text.to_owned())]);
        put_policies(&place, &of("a.cedar", "// a")).unwrap();
        put_policies(&place, &of("b.cedar", "// b")).unwrap();
        assert_eq!(policies_of(&place).unwrap(), of("b.cedar", "// b"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_refuses_is_a_policy() {
        PolicyVersion::parse(&[("refused.cedar".into(), REFUSING.to_owned())], &KnownActions).unwrap();
    }
}
