//! How sessions get their identity, and lose it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chaperone_identity::Resolved;
use chaperone_model::{Event, Identity, OutcomeStatus, Reason, SessionIdentified, SessionIdentityRefused};
use chaperone_oidc::Verified;
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use crate::{
    call::error::{Kind, Refusal},
    data_plane::{DataPlane, SessionContext},
    identities::{IdentitySettings, IdentityState},
};

/// Between two looks at token files.
const LOOK: Duration = Duration::from_secs(1);
/// For a session's identity at its beginning: then it is as if there were none, until one comes.
const PATIENCE: Duration = Duration::from_secs(12);

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
        // One look at a time for each agent: a file or a provider that hangs is no other agent's trouble.
        let mut looks: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = tick.tick() => {}
            }
            looks.retain(|_, look| !look.is_finished());
            let current = self.identities.current.load();
            let agents = current.settings.agents.iter().filter(|(_, about)| about.token_file.is_some());
            for (agent, _) in agents {
                if !looks.contains_key(agent) {
                    let look = self.clone().look(agent.clone());
                    looks.insert(agent.clone(), tokio::spawn(look));
                }
            }
        }
        looks.into_values().for_each(|look| look.abort());
    }

    /// Looks at an agent's token file, if the agent has a session.
    async fn look(self: Arc<Self>, agent: String) {
        let open: Vec<_> = self.sessions.open().into_iter().filter(|it| it.session.agent == agent).collect();
        if open.is_empty() {
            return;
        }
        let Some(found) = self.identities.of_file(&agent).await else { return };
        for session in open {
            // One that isn't recorded yet is identified when it is.
            if session.own.recorded.get().is_some() {
                self.take(&session, found.clone()).await;
            }
        }
    }

    /// Holds a token against the issuers, for a session. The token isn't kept. If it is of a person's login, that person is
    /// the sponsor, unless a claim says who that is.
    pub async fn register(
        &self,
        session: &Resolved<SessionContext>,
        token: &str,
        login: bool,
    ) -> Result<Identity, String> {
        let verifier = self.identities.current.load().verifier.clone();
        let mut verified = verifier.verify(token, &session.session.agent).await.map_err(|error| error.to_string())?;
        if login {
            let person = verified.identity.subject.clone();
            verified.identity.sponsor.get_or_insert(person);
        }
        let identity = verified.identity.clone();
        self.apply(session, verified, if login { "login" } else { "register" }).await?;
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
            // The same token, or an older one that was put back. After the end of what there was, whichever lasts will do.
            let ended = before.is_over() && !verified.is_over();
            if !standing.revoked && !ended && !verified.supersedes(before) {
                return Ok(());
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
