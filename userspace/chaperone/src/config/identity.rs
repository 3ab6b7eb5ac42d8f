//! `[identity]`: whose tokens say who agents are.

use std::collections::{BTreeMap, BTreeSet};

use chaperone_identity::{Agent, IdentityNeed};
use chaperone_oidc::Issuer;
use chaperone_proxy::{AgentIdentity, IdentitySettings};
use serde::{Deserialize, Serialize};

use super::capture::user_id;

chaperone_model::documented! {
/// Whose tokens say who agents are.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySection {
    /// Users besides root, by name or number, who may own token files and what they lie in. None of them may be an agent.
    pub token_owners: Vec<String>,
    /// Users besides root, by name or number, who may run `chaperone register`, for sessions all of whose processes are theirs.
    pub registrars: Vec<String>,
    /// Users of this host by the names that tokens have for them: a sponsor who is also an approver.
    pub people: BTreeMap<String, String>,
    /// The providers, each in an `[[identity.issuers]]` of its own (docs/identities.md).
    pub issuers: Vec<Issuer>,
}
}

impl IdentitySection {
    /// What TOML's types can't say.
    pub(crate) fn check(&self, agents: &[Agent]) -> Result<(), (&'static str, String)> {
        let (mut names, mut urls) = (BTreeSet::new(), BTreeSet::new());
        for issuer in &self.issuers {
            let wrong = |why: String| ("identity.issuers", format!("[[identity.issuers]]: `{}`: {why}", issuer.name));
            issuer.check().map_err(wrong)?;
            if !names.insert(&issuer.name) || !urls.insert(&issuer.issuer) {
                return Err(wrong("its name or its issuer is there twice: put both into one".into()));
            }
            if let Some(name) = issuer.agents.iter().find(|name| !agents.iter().any(|agent| agent.name == **name)) {
                return Err(wrong(format!("agents: there is no agent `{name}` in [[agents]]")));
            }
        }
        for agent in agents {
            let wrong = |key, why: &str| Err((key, format!("agent `{}`: {why}", agent.name)));
            if agent.token_file.as_ref().is_some_and(|path| !path.is_absolute()) {
                return wrong("token_file", "token_file: give an absolute path");
            }
            let trusted = |it: &Issuer| it.agents.is_empty() || it.agents.contains(&agent.name);
            let needs = agent.token_file.is_some() || agent.identity == IdentityNeed::Required;
            if needs && !self.issuers.iter().any(trusted) {
                return wrong(
                    "agents",
                    "it has a token_file, or needs an identity, and no [[identity.issuers]] is for it",
                );
            }
        }
        Ok(())
    }

    /// As the data path takes it. That there is no such user is an error.
    pub(crate) fn settings(&self, agents: &[Agent]) -> Result<IdentitySettings, String> {
        let ids = |users: &[String], key: &str| {
            let id = |user: &String| user_id(user).map_err(|why| format!("{key}: {why}"));
            users.iter().map(id).collect::<Result<BTreeSet<_>, _>>()
        };
        let token_owners = ids(&self.token_owners, "identity.token_owners")?;
        let registrars = ids(&self.registrars, "identity.registrars")?;
        let of = |agent: &Agent| {
            let about = AgentIdentity {
                token_file: agent.token_file.clone(),
                required: agent.identity == IdentityNeed::Required,
                users: ids(&agent.users, "agents.users")?,
            };
            Ok::<_, String>((agent.name.clone(), about))
        };
        Ok(IdentitySettings {
            issuers: self.issuers.clone(),
            token_owners,
            registrars,
            people: self.people.clone(),
            agents: agents.iter().map(of).collect::<Result<_, _>>()?,
        })
    }
}
