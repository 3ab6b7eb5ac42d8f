//! A lab's folder and cgroups, and how all of it goes away again.

use std::{
    fs,
    io::{Read as _, Seek as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::{Aws, Options, config};
use crate::{Refusal, setup::Ready};

/// What `lab.json` says of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lab {
    /// Its name among labs.
    pub id: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Its cgroup, in the file system.
    pub cgroup: PathBuf,
    /// Whether it goes on after its first command.
    pub kept: bool,
    /// What plays AWS.
    pub aws: Aws,
    /// Whether it is without Chaperone.
    pub direct: bool,
    /// Whether there is a ClickHouse.
    pub warehouse: bool,
    /// The user of its agents.
    pub user: String,
    /// Where the programs are.
    pub bin: PathBuf,
    /// The Python environment.
    pub venv: PathBuf,
}

impl Lab {
    /// Makes folder, cgroups, keys and configuration.
    pub fn create(options: &Options, ready: Ready) -> Result<Self> {
        let id = random()?[..8].to_owned();
        let dir = match &options.keep {
            Some(dir) => std::path::absolute(dir).context("finding the lab's folder")?,
            None => std::env::temp_dir().join(format!("chaperone-lab-{id}")),
        };
        if dir.exists() && fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!(Refusal(format!(
                "{} is not empty; `cargo xtask lab down {}` ends a lab that is in there",
                dir.display(),
                dir.display()
            )));
        }
        // Unix sockets' names have 107 bytes.
        ensure!(dir.as_os_str().len() < 80, "{} is too long a path for a lab's sockets", dir.display());
        let cgroup = cgroup_root()?.join(format!("chaperone-lab-{id}"));
        let lab = Self {
            id,
            dir,
            cgroup,
            kept: options.keep.is_some(),
            aws: options.aws,
            direct: options.direct,
            warehouse: options.warehouse,
            user: options.user.clone(),
            bin: ready.bin,
            venv: ready.venv,
        };
        // Before anything is made: what is wrong with the files is told first.
        let config = config::toml(&lab, options.config.as_deref())?;
        let made = lab.make(options, &config);
        if made.is_err() {
            let _ = lab.down(false);
        }
        made.map(|()| lab)
    }

    fn make(&self, options: &Options, config: &str) -> Result<()> {
        for folder in ["", "home", "policies", "state"] {
            let folder = self.dir.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        }
        for from in &options.files {
            let name = from.file_name().context("BUG: a file without a name")?;
            fs::copy(from, self.dir.join(name)).with_context(|| format!("copying {} into the lab", from.display()))?;
        }
        let text = serde_json::to_string_pretty(self).context("BUG: lab.json")?;
        write(&self.dir.join("lab.json"), &text, 0o644)?;
        let secrets = self.dir.join("secrets");
        fs::DirBuilder::new().mode(0o700).create(&secrets).context("making the folder of secrets")?;
        let id = format!("AKIA{}", &random()?.to_uppercase()[..16]);
        let secret = format!("{}{}", random()?, &random()?[..8]);
        write(&self.key(), &format!("{id}\n{secret}\n"), 0o600)?;
        let credentials = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        write(&secrets.join("credentials"), &credentials, 0o600)?;
        write(&self.dir.join("config.toml"), config, 0o644)?;
        let policies = self.dir.join("policies");
        match &options.policy {
            None => write(&policies.join("default.cedar"), config::DEFAULT_POLICY, 0o644)?,
            Some(path) => config::copy_policies(path, &policies)?,
        }
        for cgroup in ["", "agents", "daemon", "operator", "services"] {
            let cgroup = self.cgroup.join(cgroup);
            fs::create_dir(&cgroup).with_context(|| format!("making the cgroup {}", cgroup.display()))?;
        }
        Ok(())
    }

    /// The lab in a folder.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("lab.json");
        let text = fs::read_to_string(&path)
            .map_err(|error| Refusal(format!("no lab is in {}: reading {}: {error}", dir.display(), path.display())))?;
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// The one real key: id and secret, in two lines.
    pub fn key(&self) -> PathBuf {
        self.dir.join("secrets/key")
    }

    /// The lab's cgroup as the kernel names it.
    pub fn cgroup_name(&self) -> String {
        format!("/chaperone-lab-{}", self.id)
    }

    /// A new cgroup for an agent. This process's number makes its name unique.
    pub fn agent_cgroup(&self, name: &str) -> Result<PathBuf> {
        let cgroup = self.cgroup.join("agents").join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&cgroup).with_context(|| format!("making the cgroup {}", cgroup.display()))?;
        Ok(cgroup)
    }

    /// The home of a user's agents: empty at first, and theirs.
    pub fn home(&self, user: &str) -> Result<PathBuf> {
        let home = self.dir.join("home").join(user);
        if !home.exists() {
            let user =
                nix::unistd::User::from_name(user)?.ok_or_else(|| Refusal(format!("there is no user `{user}`")))?;
            fs::DirBuilder::new().mode(0o700).create(&home).with_context(|| format!("making {}", home.display()))?;
            nix::unistd::chown(&home, Some(user.uid), Some(user.gid)).context("giving the agent its home")?;
        }
        Ok(home)
    }

    /// Ends every process of the lab, and takes away its cgroups and its folder. Its namespaces go with the processes,
    /// and with those the mounts and the pins: the BPF file system is the lab's own.
    pub fn down(&self, keep_files: bool) -> Result<()> {
        if self.cgroup.exists() {
            end_processes(&self.cgroup)?;
            remove_cgroups(&self.cgroup)?;
        }
        if !keep_files && self.dir.exists() {
            fs::remove_dir_all(&self.dir).with_context(|| format!("removing {}", self.dir.display()))?;
        }
        Ok(())
    }
}

/// Where cgroup v2 is mounted; on hybrid hosts that is not /sys/fs/cgroup.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let fields: Vec<_> = before.split(' ').collect();
            (after.starts_with("cgroup2 ") && fields.get(3) == Some(&"/")).then(|| PathBuf::from(fields[4]))
        })
        .next_back()
        .ok_or_else(|| {
            Refusal("cgroup v2 is not mounted: `mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`".into()).into()
        })
}

/// Writes a file with these permissions from the beginning.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

/// 32 random hexadecimal digits.
fn random() -> Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("reading randomness")?;
    let other = fs::read_to_string("/proc/sys/kernel/random/uuid").context("reading randomness")?;
    // Of a version 4 UUID some bits are fixed: the first 16 digits of two have enough that aren't.
    let digits = |text: &str| text.chars().filter(char::is_ascii_hexdigit).collect::<String>();
    Ok(format!("{}{}", &digits(&uuid)[16..], &digits(&other)[16..]))
}

fn end_processes(cgroup: &Path) -> Result<()> {
    let mut events = fs::File::open(cgroup.join("cgroup.events")).context("watching the lab's cgroup")?;
    loop {
        // Since Linux 5.14; before, one by one until none is left.
        if fs::write(cgroup.join("cgroup.kill"), "1").is_err() {
            kill_each(cgroup)?;
        }
        let mut text = String::new();
        events.rewind().and_then(|()| events.read_to_string(&mut text)).context("reading the lab's cgroup")?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::from(1000_u16)).context("waiting for the lab's processes to end")?;
    }
}

fn kill_each(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup).with_context(|| format!("listing {}", cgroup.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            kill_each(&path)?;
        }
    }
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(())
}

fn remove_cgroups(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup).with_context(|| format!("listing {}", cgroup.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            remove_cgroups(&path)?;
        }
    }
    fs::remove_dir(cgroup).with_context(|| format!("removing the cgroup {}", cgroup.display()))
}
