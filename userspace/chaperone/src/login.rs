//! `chaperone run --login`: a person logs in, and is the sponsor of the session until its command ends.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use chaperone_capture::cgroup_root;
use chaperone_console::{ControlRequest, Token};
use chaperone_oidc::{Issuer, LoggedIn, Login};
use clap::{Args, ValueEnum};
use time::OffsetDateTime;
use tokio::runtime::Runtime;

use crate::{
    config::{Config, ConfigError},
    output::clean,
    sandbox,
};

/// Between two looks at the clock, and at whether there is another daemon: its calls are unidentified until it is told.
const NAP: Duration = Duration::from_millis(200);
/// Between two renewals, at least.
const RENEW_PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts at what may go better later.
const RETRY: Duration = Duration::from_secs(5);

/// How a person logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// In a browser on this host, which comes back to a loopback address.
    Browser,
    /// By a code that is entered in a browser anywhere.
    Device,
}

/// Whether and where.
#[derive(Args, Debug)]
pub struct Options {
    /// Log in at a provider first: who does is the session's sponsor. By a code that is entered anywhere, or in a browser on
    /// this host.
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "device")]
    login: Option<How>,
    /// At which of identity.issuers, if several have a `client_id`.
    #[arg(long, value_name = "NAME", requires = "login")]
    issuer: Option<String>,
}

/// A person who has logged in.
pub struct Person {
    runtime: Runtime,
    login: Login,
    who: LoggedIn,
}

/// A person whom the daemon knows as a session's sponsor.
pub struct Sponsor {
    person: Person,
    session: Handover,
}

/// Which session is told who it is.
struct Handover {
    control: PathBuf,
    cgroup: String,
    id: u64,
}

impl Options {
    /// Has a person log in, if that is asked for. What to do is told on standard error.
    pub fn begin(&self, config: &Config, agent: &str) -> anyhow::Result<Option<Person>> {
        let Some(how) = self.login else { return Ok(None) };
        let issuer = self.issuer(&config.identity.issuers, agent)?;
        let name = issuer.name.clone();
        let login = Login::new(issuer).map_err(ConfigError)?;
        // From here on there are tokens in this process.
        sandbox::keep_untraceable()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let who = runtime.block_on(async {
            match how {
                How::Browser => {
                    let begun = login.browser().await?;
                    eprintln!(
                        "chaperone: to log in at {name}, open this in a browser on this host:\n  {}",
                        begun.url()
                    );
                    begun.finish().await
                }
                How::Device => {
                    let begun = login.device().await?;
                    let minutes = begun.lasts().as_secs().div_ceil(60);
                    eprintln!(
                        "chaperone: to log in at {name}, open {} and enter the code {} (within {minutes} min)",
                        clean(begun.url()),
                        clean(&begun.code())
                    );
                    begun.finish().await
                }
            }
        });
        let who = who.with_context(|| format!("logging in at {name}"))?;
        let until = who.verified.identity.expires;
        eprintln!("chaperone: {} is logged in at {name}", clean(&who.verified.identity.subject));
        if !who.is_renewable() {
            eprintln!(
                "chaperone: the provider gives nothing to renew that with: calls are refused from {until} on (`offline_access` \
                 in the issuer's `scopes` may help)"
            );
        }
        Ok(Some(Person { runtime, login, who }))
    }

    fn issuer(&self, issuers: &[Issuer], agent: &str) -> anyhow::Result<Issuer> {
        let fits = |it: &&Issuer| it.agents.is_empty() || it.agents.iter().any(|name| name == agent);
        let able: Vec<&Issuer> = issuers.iter().filter(|it| it.client_id.is_some()).filter(fits).collect();
        let named = |name: &String| able.iter().find(|it| it.name == *name).copied();
        let names = || able.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        match (&self.issuer, &able[..]) {
            (_, []) => bail!(ConfigError(format!(
                "--login: none of identity.issuers has a `client_id` and is for the agent `{agent}` (docs/identities.md)"
            ))),
            (Some(name), _) => Ok(named(name)
                .ok_or_else(|| ConfigError(format!("--issuer {name}: one may log in at {} alone", names())))?
                .clone()),
            (None, [one]) => Ok((*one).clone()),
            (None, _) => bail!(ConfigError(format!("--login: say where by --issuer: {}", names()))),
        }
    }
}

impl Person {
    /// Tells the daemon whose session that is.
    pub fn introduce(self, control: &Path, cgroup: &Path) -> anyhow::Result<Sponsor> {
        let root = cgroup_root().context("finding where cgroup v2 is mounted")?;
        let about = fs::metadata(cgroup).with_context(|| format!("looking at the cgroup {}", cgroup.display()))?;
        let path = cgroup.strip_prefix(&root).with_context(|| format!("{} is no cgroup", cgroup.display()))?;
        let session = Handover { control: control.to_owned(), cgroup: format!("/{}", path.display()), id: about.ino() };
        self.runtime.block_on(session.hand_over(&self.who)).context("telling the daemon who has logged in")?;
        Ok(Sponsor { person: self, session })
    }
}

impl Sponsor {
    /// Renews what was given, and tells a daemon that was started anew, in a thread, for as long as this process lives.
    pub fn stay(self) -> anyhow::Result<()> {
        let Self { person: Person { runtime, login, who }, session } = self;
        let renew = move || runtime.block_on(keep_fresh(&login, who, &session));
        std::thread::Builder::new().name("login".into()).spawn(renew).context("starting a thread for the login")?;
        Ok(())
    }
}

impl Handover {
    /// The daemon that listens now, as far as its socket tells: the next one makes another.
    fn daemon(&self) -> Option<(u64, i64, i64)> {
        let socket = fs::metadata(&self.control).ok()?;
        Some((socket.ino(), socket.ctime(), socket.ctime_nsec()))
    }

    /// Hands the login over until the daemon takes it or it is over. Gives which daemon that was.
    async fn insist(&self, who: &LoggedIn) -> Option<(u64, i64, i64)> {
        let mut told = false;
        loop {
            // Looked at before: if it is another one afterwards, that one is told, too.
            let daemon = self.daemon();
            let Err(error) = self.hand_over(who).await else { return daemon };
            if !std::mem::replace(&mut told, true) {
                eprintln!("\rchaperone: the daemon doesn't take the login, which is tried again: {error}\r");
            }
            if who.verified.is_over() {
                return daemon;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn hand_over(&self, who: &LoggedIn) -> Result<(), chaperone_console::ClientError> {
        let token = Token(who.id_token.clone());
        let request =
            ControlRequest::Register { cgroup: self.cgroup.clone(), id: self.id, pid: None, token, login: true };
        chaperone_console::request(&self.control, &request).await.map(drop)
    }
}

/// Gets a fresh token before each one ends, until the provider gives none any more, and hands what there is to each daemon
/// that comes: sessions begin anew with it. Troubles alone are told: the terminal is the command's.
async fn keep_fresh(login: &Login, mut who: LoggedIn, session: &Handover) {
    let mut daemon = session.daemon();
    let mut renewable = who.is_renewable();
    let mut told = false;
    let mut due = renewal(&who);
    while !who.verified.is_over() || renewable {
        tokio::time::sleep(NAP).await;
        let now = session.daemon();
        if now.is_some() && now != daemon {
            daemon = session.insist(&who).await;
        }
        let ends = who.verified.identity.expires;
        // By the wall clock, by which tokens end.
        if !renewable || OffsetDateTime::now_utc() < due {
            continue;
        }
        match login.renew(&who).await {
            Ok(fresh) => {
                who = fresh;
                renewable = who.is_renewable();
                told = false;
                due = renewal(&who);
                daemon = session.insist(&who).await;
            }
            Err(error) if error.is_passing() => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!("\rchaperone: the login can't be renewed, which is tried again until {ends}: {error}\r");
                }
                due = OffsetDateTime::now_utc() + RETRY;
            }
            Err(error) => {
                eprintln!("\rchaperone: the login is over: {error}. Calls are refused from {ends} on\r");
                renewable = false;
            }
        }
    }
}

/// When a token is renewed: when two thirds of its time are over. One that ends at once isn't asked for without a pause.
fn renewal(who: &LoggedIn) -> OffsetDateTime {
    let verified = &who.verified;
    (verified.identity.expires - verified.left() / 3).max(OffsetDateTime::now_utc() + RENEW_PAUSE)
}
