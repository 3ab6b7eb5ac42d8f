//! Who sessions' agents are: tokens that come by files or are registered, for as long as they last.
//!
//! A session is identified once. Later tokens of the same subject prolong that; another subject's is refused and recorded,
//! since what was done before was done by somebody else: it takes a session of its own. When the token has ended, and no
//! fresh one has come, new calls of the session are refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use chaperone_model::{Identity, Session};
use chaperone_oidc::{FileError, Issuer, Stamp, TokenFile, Verified, Verifier};
use chaperone_policy::Principal;
use parking_lot::Mutex as SyncMutex;
use tokio::sync::{Mutex, oneshot};

/// For one look at a token file.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the configuration says of an agent's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Where its token lies.
    pub token_file: Option<PathBuf>,
    /// Whether it may do nothing without one.
    pub required: bool,
    /// Users that are the agent, who must not own the file.
    pub users: BTreeSet<u32>,
}

/// What the configuration says of identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Whose tokens are believed.
    pub issuers: Vec<Issuer>,
    /// Who may own token files, besides root.
    pub token_owners: BTreeSet<u32>,
    /// Who may register sessions, besides root.
    pub registrars: BTreeSet<u32>,
    /// Users of this host by the sponsors' names in tokens, where they differ.
    pub people: BTreeMap<String, String>,
    /// By the agents' names; those that aren't there have none, and need none.
    pub agents: BTreeMap<String, AgentIdentity>,
}

#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) settings: IdentitySettings,
    pub(crate) verifier: Arc<Verifier>,
}

/// What a token file said last.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    stamp: Option<Stamp>,
    path: Option<PathBuf>,
    verified: Option<Result<Verified, String>>,
    /// A look at it that hasn't ended: whoever comes next waits for that one.
    look: Option<Look>,
}

/// A look at a token file, by a thread of its own: the file may lie on a file system that never answers, and then that
/// thread is all that hangs. There is one for each agent at most.
#[derive(Debug)]
struct Look {
    at: PathBuf,
    owners: BTreeSet<u32>,
    answer: oneshot::Receiver<Result<Option<TokenFile>, FileError>>,
}

impl Look {
    fn begin(at: PathBuf, owners: BTreeSet<u32>, last: Option<Stamp>) -> Result<Self, String> {
        let (tell, answer) = oneshot::channel();
        let (path, by) = (at.clone(), owners.clone());
        let read = move || {
            // Nobody may be there any more to be told.
            let _ = tell.send(chaperone_oidc::read(&path, &by, last));
        };
        std::thread::Builder::new()
            .name("token-file".into())
            .spawn(read)
            .map_err(|error| format!("starting a thread to read {}: {error}", at.display()))?;
        Ok(Self { at, owners, answer })
    }
}

/// Tokens' verification as it is configured, and what token files say.
#[derive(Debug)]
pub struct Identities {
    pub(crate) current: ArcSwap<Current>,
    pub(crate) files: SyncMutex<BTreeMap<String, Arc<Mutex<Seen>>>>,
}

impl Identities {
    /// By these settings, or what is wrong with them.
    pub fn new(settings: IdentitySettings) -> Result<Self, String> {
        let verifier = Arc::new(Verifier::new(settings.issuers.clone())?);
        Ok(Self { current: ArcSwap::from_pointee(Current { settings, verifier }), files: SyncMutex::default() })
    }

    /// Makes ready for other settings: what comes of it puts them in force. Issuers' keys are kept where nothing changed.
    pub(crate) fn prepare(&self, settings: IdentitySettings) -> Result<Current, String> {
        let current = self.current.load();
        let verifier = if current.settings.issuers == settings.issuers {
            current.verifier.clone()
        } else {
            Arc::new(Verifier::new(settings.issuers.clone())?)
        };
        Ok(Current { settings, verifier })
    }

    pub(crate) fn requires(&self, agent: &str) -> bool {
        self.current.load().settings.agents.get(agent).is_some_and(|it| it.required)
    }

    /// The person whom the agent works for, as a user of this host, who approvers are.
    pub(crate) fn sponsor(&self, state: &IdentityState) -> Option<String> {
        let sponsor = state.identity()?.sponsor.as_ref()?;
        Some(self.current.load().settings.people.get(sponsor).unwrap_or(sponsor).clone())
    }

    /// The user of this host who has that name in tokens.
    pub fn user(&self, name: &str) -> Option<String> {
        self.current.load().settings.people.get(name).cloned()
    }

    /// Whether this user may register sessions that are all theirs.
    pub fn is_registrar(&self, uid: u32) -> bool {
        self.current.load().settings.registrars.contains(&uid)
    }

    /// Whether tokens of this issuer are believed as they were when this identity was.
    pub(crate) fn still_believes(&self, before: &[Issuer], identity: &Identity) -> bool {
        let of = |all: &[Issuer]| all.iter().find(|it| it.name == identity.provider).cloned();
        of(&self.current.load().settings.issuers) == of(before)
    }

    /// What the agent's token file says now, if it has one.
    pub(crate) async fn of_file(&self, agent: &str) -> Option<Result<Verified, String>> {
        let current = self.current.load_full();
        let about = current.settings.agents.get(agent)?;
        let path = about.token_file.clone()?;
        let owners: BTreeSet<u32> = current.settings.token_owners.difference(&about.users).copied().collect();
        let seen = self.files.lock().entry(agent.to_owned()).or_default().clone();
        let mut seen = seen.lock().await;
        if seen.path.as_ref() != Some(&path) {
            *seen = Seen { path: Some(path.clone()), ..Seen::default() };
        }
        // One that began under other settings says nothing of these.
        seen.look.take_if(|look| look.at != path || look.owners != owners);
        if seen.look.is_none() {
            // What failed is tried again: the provider may be there now.
            let last = seen.stamp.filter(|_| matches!(seen.verified, Some(Ok(_))));
            seen.look = match Look::begin(path.clone(), owners, last) {
                Ok(look) => Some(look),
                Err(why) => return Some(Err(why)),
            };
        }
        // It stays in its place while it is waited for: who waits may be gone before it ends.
        let answer = &mut seen.look.as_mut()?.answer;
        let read = tokio::time::timeout(PATIENCE, answer).await;
        if read.is_ok() {
            seen.look = None;
        }
        let verified = match read {
            Ok(Ok(Ok(None))) => return seen.verified.clone(),
            Ok(Ok(Ok(Some(file)))) => {
                seen.stamp = Some(file.stamp);
                current.verifier.verify(&file.token, agent).await.map_err(|error| error.to_string())
            }
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err("BUG: reading a token file panicked".to_owned()),
            Err(_) => {
                let why = format!("it can't be read within {} seconds: is its file system there?", PATIENCE.as_secs());
                Err(FileError { path, why }.to_string())
            }
        };
        let verified = verified.map_err(|why| format!("{why} (token_file of the agent `{agent}`)"));
        seen.verified = Some(verified.clone());
        Some(verified)
    }
}

/// Who a session's agent is now, as calls find it.
#[derive(Debug)]
pub struct IdentityState {
    /// The agent, as the policies see it.
    pub principal: Principal,
    /// By which token.
    pub(crate) verified: Option<Verified>,
    /// Its issuer isn't believed any more.
    pub(crate) revoked: bool,
    /// What was wrong with the last token that came.
    pub(crate) trouble: Option<String>,
}

impl IdentityState {
    /// An agent without an identity.
    pub(crate) fn unidentified(principal: Principal) -> Self {
        Self { principal, verified: None, revoked: false, trouble: None }
    }

    /// Who it is.
    pub fn identity(&self) -> Option<&Identity> {
        self.verified.as_ref().map(|it| &it.identity)
    }

    /// Whether the agent may do anything as what it is, or why not.
    pub(crate) fn check(&self, required: bool) -> Result<(), String> {
        let more = self.trouble.as_ref().map(|why| format!(". The last token was refused: {why}")).unwrap_or_default();
        match &self.verified {
            Some(verified) if verified.is_over() => Err(format!(
                "this session's identity `{}` ended with its token: bring a fresh token of the same subject, or begin another \
                 session{more}",
                verified.identity.subject
            )),
            Some(verified) if self.revoked => Err(format!(
                "this session's identity `{}` is of an issuer that the configuration has no more, or has changed: bring a \
                 fresh token{more}",
                verified.identity.subject
            )),
            None if required => Err(format!(
                "this agent needs an identity, and no token has come for this session: set `token_file`, or run `chaperone \
                 register`{more}"
            )),
            _ => Ok(()),
        }
    }
}

/// The session as it is told in `status`: with its identity.
pub fn described(session: &Session, standing: &IdentityState) -> serde_json::Value {
    let mut about = serde_json::to_value(session).unwrap_or_default();
    if let Some(members) = about.as_object_mut() {
        members.insert("identity".into(), serde_json::to_value(standing.identity()).unwrap_or_default());
        members.insert("identity_trouble".into(), standing.trouble.clone().into());
    }
    about
}
