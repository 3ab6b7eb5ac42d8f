//! `[[roles]]`: whose authority agents' calls are made by, and how far it reaches.

use std::collections::BTreeMap;

use chaperone_aws::Role;
use chaperone_proxy::Rule;
use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// One of `[[roles]]`. The first that is for an agent holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSection {
    /// The agents that it is for.
    #[serde(default)]
    pub agents: Vec<String>,
    /// The groups that it is for.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The role; without one the daemon's own credentials sign.
    pub arn: Option<String>,
    /// What `CloudTrail` shows behind the role's name.
    #[serde(default = "default_name")]
    pub session_name: String,
    /// `SourceIdentity`; needs `sts:SetSourceIdentity` in the role's trust policy.
    pub source_identity: Option<String>,
    /// What the role's trust policy asks for.
    pub external_id: Option<String>,
    /// Session tags; need `sts:TagSession` in the role's trust policy.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// A session policy, as JSON.
    pub policy: Option<String>,
    /// Managed policies as session policies.
    #[serde(default)]
    pub policy_arns: Vec<String>,
    /// How long credentials last, in seconds.
    pub duration: Option<i32>,
    /// The regions that may be called; all, if empty.
    #[serde(default)]
    pub regions: Vec<String>,
    /// The accounts that may be called and named; all, if empty.
    #[serde(default)]
    pub accounts: Vec<String>,
}
}

fn default_name() -> String {
    "{agent}".into()
}

impl RoleSection {
    pub(crate) fn rule(&self) -> Rule {
        let role = self.arn.as_ref().map(|arn| Role {
            arn: arn.clone(),
            session_name: self.session_name.clone(),
            source_identity: self.source_identity.clone(),
            external_id: self.external_id.clone(),
            tags: self.tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            policy: self.policy.clone(),
            policy_arns: self.policy_arns.clone(),
            duration_seconds: self.duration,
        });
        Rule {
            agents: self.agents.clone(),
            groups: self.groups.clone(),
            role,
            regions: self.regions.clone(),
            accounts: self.accounts.clone(),
        }
    }

    /// What STS would refuse, at each call and hours later.
    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
    pub(crate) fn check(&self, agents: &[&str], groups: &[&str]) -> Result<(), String> {
        if self.agents.is_empty() && self.groups.is_empty() {
            return Err("it is for nobody: name `agents` or `groups`".into());
        }
        if let Some(name) = self.agents.iter().find(|name| !agents.contains(&name.as_str())) {
            return Err(format!("there is no agent `{name}` in [[agents]]"));
        }
        if let Some(name) = self.groups.iter().find(|name| !groups.contains(&name.as_str())) {
            return Err(format!("no agent of [[agents]] is in the group `{name}`"));
        }
        let account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        if let Some(bad) = self.accounts.iter().find(|it| !account(it)) {
            return Err(format!("accounts: \"{bad}\": an account id has 12 digits"));
        }
        let region = |text: &str| {
            text.contains('-') && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if let Some(bad) = self.regions.iter().find(|it| !region(it)) {
            return Err(format!("regions: \"{bad}\" is no region, such as \"eu-west-1\""));
        }
        let Some(arn) = &self.arn else {
            let more = self.source_identity.is_some()
                || self.external_id.is_some()
                || !self.tags.is_empty()
                || self.policy.is_some()
                || !self.policy_arns.is_empty()
                || self.duration.is_some();
            return if more { Err("what is asked for with a role needs its `arn`".into()) } else { Ok(()) };
        };
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        match parts[..] {
            ["arn", partition, "iam", "", id, role]
                if partition.starts_with("aws") && account(id) && role.starts_with("role/") => {}
            _ => return Err(format!("arn = \"{arn}\": not a role's, such as arn:aws:iam::123456789012:role/agents")),
        }
        // The longest that they can become, and the shortest. What tokens say is made to fit when it is filled in.
        let fits = |text: &str, name: &str| {
            let filled =
                of_tokens(text).replace("{agent}", name).replace("{session}", "01890a5d-ac96-774b-bcce-b302099a8057");
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
            (2..=64).contains(&filled.len()) && filled.bytes().all(allowed)
        };
        for (key, text) in
            [("session_name", Some(&self.session_name)), ("source_identity", self.source_identity.as_ref())]
        {
            if let Some(text) = text
                && let Some(name) = agents.iter().find(|name| !fits(text, name))
            {
                return Err(format!(
                    "{key} = \"{text}\" for the agent `{name}`: STS takes 2 to 64 letters, digits and _+=,.@-"
                ));
            }
        }
        if self.tags.len() > 50
            || self.tags.iter().any(|(key, value)| key.is_empty() || key.len() > 128 || value.len() > 256)
        {
            return Err("tags: at most 50, names of 1 to 128 characters, values of at most 256".into());
        }
        if let Some(policy) = &self.policy {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(policy)
                .map_err(|error| format!("policy: not a JSON object: {error}"))?;
        }
        if self.duration.is_some_and(|seconds| !(900..=43_200).contains(&seconds)) {
            return Err("duration: 900 to 43200 seconds".into());
        }
        Ok(())
    }
}

/// The text with something that fits in the place of what tokens say: `{subject}`, `{sponsor}`, `{claim.NAME}`.
fn of_tokens(text: &str) -> String {
    let mut filled = text.replace("{subject}", "xx").replace("{sponsor}", "xx");
    while let Some(at) = filled.find("{claim.") {
        match filled[at..].find('}') {
            Some(end) if end > "{claim.".len() => filled.replace_range(at..=at + end, "xx"),
            _ => break,
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tokens_say_may_be_part_of_names() {
        let arn = "agents = [\"coder\"]\narn = \"arn:aws:iam::123456789012:role/agents\"\n";
        let names = "session_name = \"{subject}\"\nsource_identity = \"{sponsor}\"\n[tags]\nteam = \"{claim.team}\"";
        assert_eq!(checked(&format!("{arn}{names}")), Ok(()));
        for wrong in ["{subjct}", "{claim.}", "{claim.team", "{Subject}"] {
            let error = checked(&format!("{arn}session_name = \"{wrong}\"")).unwrap_err();
            assert!(error.contains("session_name"), "{wrong}: {error}");
        }
    }

    fn checked(text: &str) -> Result<(), String> {
        let section: RoleSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.check(&["coder", "c"], &["developers"])
    }

    #[test]
    fn what_sts_would_refuse_is_found_at_the_start() {
        let arn = "arn = \"arn:aws:iam::123456789012:role/team/agents\"\n";
        let good = "groups = [\"developers\"]\nsession_name = \"{agent}-agent\"\n";
        assert_eq!(checked(&format!("{good}{arn}")), Ok(()));
        assert_eq!(checked("agents = [\"coder\"]\nregions = [\"eu-west-1\"]\naccounts = [\"123456789012\"]"), Ok(()));
        for (text, word) in [
            (arn.to_owned(), "nobody"),
            (format!("{arn}agents = [\"other\"]"), "no agent `other`"),
            (format!("{arn}groups = [\"others\"]"), "in the group `others`"),
            (format!("{good}arn = \"arn:aws:iam::1:role/x\""), "not a role's"),
            (format!("{good}arn = \"arn:aws:iam::123456789012:user/x\""), "not a role's"),
            (format!("{arn}groups = [\"developers\"]"), "for the agent `c`"),
            (format!("{good}{arn}source_identity = \"{{session}}{{session}}\""), "source_identity"),
            (format!("{good}{arn}source_identity = \"a b\""), "source_identity"),
            (format!("{good}{arn}duration = 60"), "900 to 43200"),
            (format!("{good}{arn}policy = \"[]\""), "JSON object"),
            (format!("{good}{arn}regions = [\"Ireland\"]"), "no region"),
            (format!("{good}{arn}accounts = [\"12\"]"), "12 digits"),
            (format!("{good}{arn}[tags]\n\"\" = \"x\""), "tags"),
            (format!("{good}external_id = \"x\""), "needs its `arn`"),
            (format!("{good}rol = \"x\""), "unknown field"),
        ] {
            let error = checked(&text).expect_err(&text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
