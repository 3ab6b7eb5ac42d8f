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
use chaperone_identity::Resolved;
use chaperone_model::{Event, Identity, OutcomeStatus, Reason, Session, SessionIdentified, SessionIdentityRefused};
use chaperone_oidc::{Issuer, Stamp, Verified, Verifier};
use chaperone_policy::Principal;
use parking_lot::Mutex as SyncMutex;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::{
    call::error::{Kind, Refusal},
    data_plane::{DataPlane, SessionContext},
};

/// Between two looks at token files.
const LOOK: Duration = Duration::from_secs(1);
/// For a session's identity at its beginning: then it is as if there were none, until one comes.
const PATIENCE: Duration = Duration::from_secs(12);

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
    /// Users of this host by the sponsors' names in tokens, where they differ.
    pub people: BTreeMap<String, String>,
    /// By the agents' names; those that aren't there have none, and need none.
    pub agents: BTreeMap<String, AgentIdentity>,
}

#[derive(Debug)]
struct Current {
    settings: IdentitySettings,
    verifier: Arc<Verifier>,
}

/// What a token file said last.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    path: Option<PathBuf>,
    verified: Option<Result<Verified, String>>,
}

/// Tokens' verification as it is configured, and what token files say.
#[derive(Debug)]
pub struct Identities {
    current: ArcSwap<Current>,
    files: SyncMutex<BTreeMap<String, Arc<Mutex<Seen>>>>,
}

impl Identities {
    /// By these settings, or what is wrong with them.
    pub fn new(settings: IdentitySettings) -> Result<Self, String> {
        let verifier = Arc::new(Verifier::new(settings.issuers.clone())?);
        Ok(Self { current: ArcSwap::from_pointee(Current { settings, verifier }), files: SyncMutex::default() })
    }

    /// Makes ready for other settings: what comes of it puts them in force. Issuers' keys are kept where nothing changed.
    fn prepare(&self, settings: IdentitySettings) -> Result<Current, String> {
        let current = self.current.load();
        let verifier = if current.settings.issuers == settings.issuers {
            current.verifier.clone()
        } else {
            Arc::new(Verifier::new(settings.issuers.clone())?)
        };
        Ok(Current { settings, verifier })
    }

    fn requires(&self, agent: &str) -> bool {
        self.current.load().settings.agents.get(agent).is_some_and(|it| it.required)
    }

    /// The person whom the agent works for, as a user of this host, who approvers are.
    pub(crate) fn sponsor(&self, state: &IdentityState) -> Option<String> {
        let sponsor = state.identity()?.sponsor.as_ref()?;
        Some(self.current.load().settings.people.get(sponsor).unwrap_or(sponsor).clone())
    }

    /// Whether tokens of this issuer are believed as they were when this identity was.
    fn still_believes(&self, before: &[Issuer], identity: &Identity) -> bool {
        let of = |all: &[Issuer]| all.iter().find(|it| it.name == identity.provider).cloned();
        of(&self.current.load().settings.issuers) == of(before)
    }

    /// What the agent's token file says now, if it has one.
    async fn of_file(&self, agent: &str) -> Option<Result<Verified, String>> {
        let current = self.current.load_full();
        let about = current.settings.agents.get(agent)?;
        let path = about.token_file.clone()?;
        let seen = self.files.lock().entry(agent.to_owned()).or_default().clone();
        let mut seen = seen.lock().await;
        if seen.path.as_ref() != Some(&path) {
            *seen = Seen { path: Some(path.clone()), ..Seen::default() };
        }
        // What failed is tried again: the provider may be there now.
        let last = seen.stamp.filter(|_| matches!(seen.verified, Some(Ok(_))));
        let owners = current.settings.token_owners.difference(&about.users).copied().collect();
        let read = tokio::task::spawn_blocking(move || chaperone_oidc::read(&path, &owners, last)).await;
        let verified = match read {
            Ok(Ok(None)) => return seen.verified.clone(),
            Ok(Ok(Some(file))) => {
                seen.stamp = Some(file.stamp);
                current.verifier.verify(&file.token, agent).await.map_err(|error| error.to_string())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(format!("BUG: reading a token file panicked: {error}")),
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
    verified: Option<Verified>,
    /// Its issuer isn't believed any more.
    revoked: bool,
    /// What was wrong with the last token that came.
    trouble: Option<String>,
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
    fn check(&self, required: bool) -> Result<(), String> {
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

impl DataPlane {
    /// Who the session's agent is for a call now; a refusal, if it may make none.
    pub(crate) fn standing(&self, session: &Resolved<SessionContext>) -> Result<Arc<IdentityState>, Refusal> {
        let standing = session.own.standing.load_full();
        match standing.check(self.identities.requires(&session.session.agent)) {
            Ok(()) => Ok(standing),
            Err(message) => Err(Refusal {
                kind: Kind::AccessDenied,
                reason: Reason::NoIdentity,
                message,
                outcome: OutcomeStatus::Denied,
            }),
        }
    }

    /// Puts other settings in force, for sessions that are open, too. On an error nothing changes.
    pub fn replace_identities(&self, settings: IdentitySettings) -> Result<(), String> {
        let next = self.identities.prepare(settings)?;
        let before = self.identities.current.swap(Arc::new(next));
        if before.settings.issuers != self.identities.current.load().settings.issuers {
            // They are held against the new issuers.
            self.identities.files.lock().clear();
        }
        for open in self.sessions.open() {
            let standing = open.own.standing.load_full();
            let Some(verified) = &standing.verified else { continue };
            if !self.identities.still_believes(&before.settings.issuers, &verified.identity) {
                tracing::warn!(session = %open.session.id, provider = verified.identity.provider, "an identity is believed no more");
                open.own.standing.store(Arc::new(IdentityState {
                    principal: standing.principal.clone(),
                    verified: standing.verified.clone(),
                    revoked: true,
                    trouble: None,
                }));
            }
        }
        Ok(())
    }

    /// Finds out who the agent of a session that begins is.
    pub(crate) async fn identify(&self, session: &Resolved<SessionContext>) {
        let agent = &session.session.agent;
        let found = tokio::time::timeout(PATIENCE, self.identities.of_file(agent)).await;
        let found = found.unwrap_or_else(|_| Some(Err("the token wasn't verified in time: it is tried again".into())));
        if let Some(found) = found {
            self.take(session, found).await;
        }
    }

    /// Looks at token files, until told to stop: they are renewed in place.
    pub async fn watch_tokens(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = tick.tick() => {}
            }
            let agents: Vec<_> = self.identities.current.load().settings.agents.keys().cloned().collect();
            for agent in agents {
                let open = self.sessions.open();
                let open: Vec<_> = open.into_iter().filter(|it| it.session.agent == agent).collect();
                if open.is_empty() {
                    continue;
                }
                // A file or a provider that hangs is another agent's no trouble for long.
                let found = tokio::time::timeout(PATIENCE, self.identities.of_file(&agent)).await;
                let Ok(Some(found)) = found else { continue };
                for session in open {
                    // One that isn't recorded yet is identified when it is.
                    if session.own.recorded.get().is_some() {
                        self.take(&session, found.clone()).await;
                    }
                }
            }
        }
    }

    /// Holds a token against the issuers, for a session. The token isn't kept.
    pub async fn register(&self, session: &Resolved<SessionContext>, token: &str) -> Result<Identity, String> {
        let verifier = self.identities.current.load().verifier.clone();
        let verified = verifier.verify(token, &session.session.agent).await.map_err(|error| error.to_string())?;
        let identity = verified.identity.clone();
        self.apply(session, verified, "register").await?;
        Ok(identity)
    }

    /// What a token file says goes to a session, or what is wrong with it. Each trouble is recorded once.
    async fn take(&self, session: &Resolved<SessionContext>, found: Result<Verified, String>) {
        let applied = match found {
            Ok(verified) => self.apply(session, verified, "token-file").await,
            Err(why) => Err(why),
        };
        let standing = session.own.standing.load_full();
        let trouble = applied.err();
        if standing.trouble == trouble {
            return;
        }
        if let Some(why) = &trouble {
            tracing::warn!(session = %session.session.id, agent = session.session.agent, why, "a token was refused");
            let event = Event::SessionIdentityRefused(SessionIdentityRefused {
                id: session.session.id,
                at: OffsetDateTime::now_utc(),
                by: "token-file".into(),
                why: why.clone(),
            });
            if let Err(error) = self.journal.append(&event, false).await {
                tracing::error!(%error, "it could not be recorded that a token was refused");
            }
        }
        let _alone = session.own.identifying.lock().await;
        let standing = session.own.standing.load_full();
        session.own.standing.store(Arc::new(IdentityState {
            principal: standing.principal.clone(),
            verified: standing.verified.clone(),
            revoked: standing.revoked,
            trouble,
        }));
    }

    /// Makes a session's agent who the token says that it is, once that is on disk.
    async fn apply(&self, session: &Resolved<SessionContext>, verified: Verified, by: &str) -> Result<(), String> {
        let _alone = session.own.identifying.lock().await;
        let standing = session.own.standing.load_full();
        if let Some(before) = &standing.verified {
            if !before.identity.is_of_same_subject(&verified.identity) {
                return Err(format!(
                    "the token is of `{}` at {}, and this session is `{}`'s at {}: a session keeps its identity, so begin \
                     another one for it",
                    verified.identity.subject,
                    verified.identity.issuer,
                    before.identity.subject,
                    before.identity.issuer
                ));
            }
            // The same token, or one that is over sooner, such as an older one that was put back.
            if !standing.revoked && verified.identity.expires <= before.identity.expires {
                let same = verified.identity == before.identity || before.is_over();
                return if same || !verified.is_over() { Ok(()) } else { Err("the token has ended".into()) };
            }
        }
        if verified.is_over() {
            return Err("the token has ended: bring a fresh one".into());
        }
        let event = Event::SessionIdentified(Box::new(SessionIdentified {
            id: session.session.id,
            at: OffsetDateTime::now_utc(),
            by: by.to_owned(),
            identity: verified.identity.clone(),
        }));
        self.journal
            .append(&event, true)
            .await
            .map_err(|error| format!("this can't be recorded, so it isn't done: {error}"))?;
        tracing::info!(
            session = %session.session.id,
            agent = session.session.agent,
            subject = verified.identity.subject,
            provider = verified.identity.provider,
            expires = %verified.identity.expires,
            "a session's agent is identified"
        );
        let generation = self.generation();
        let lent = generation.lending.to_identified(&session.session, Some(&verified.identity));
        let principal = generation.engine.identified(&session.session, Some(&verified.identity));
        session.own.standing.store(Arc::new(IdentityState {
            principal,
            verified: Some(verified),
            revoked: false,
            trouble: None,
        }));
        session.own.lent.store(lent);
        Ok(())
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
