//! `[approvals]`: who approves calls, and how long they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chaperone_approvals::{ApiSection, SlackSection, WebhookSection};
use chaperone_policy::{PolicyVersion, approvals::Terms};
use chaperone_proxy::ApprovalSettings;
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError};

chaperone_model::documented! {
/// Who approves calls, and how long they have.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalsSection {
    /// Seconds that a call is held before its client is told to try again.
    pub hold: u64,
    /// Seconds between two `100 Continue` to a client that waits, which start its read timeout anew. Go's clients before 1.23
    /// bear no more than five of them in one answer.
    pub interim: u64,
    /// Minutes after which a question that nobody answered is over, and an approval that wasn't used.
    pub expires: u64,
    /// Minutes that a question waits for its call, when the client is gone.
    pub returns: u64,
    /// Questions that may be open at once.
    pub open: usize,
    /// Of one session.
    pub open_per_session: usize,
    /// Bodies up to this many bytes are held in memory with their call. Larger ones come again with the retry.
    pub body_bytes: usize,
    /// Approvers by group: users of this host, by name or as `uid:1001`; people whom a provider vouches for, as
    /// `PROVIDER:SUBJECT`; and all in a group of a provider's, as `group:PROVIDER:GROUP`.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Users of this host by what providers call them (`PROVIDER:SUBJECT`), so that one person is one approver everywhere.
    pub people: BTreeMap<String, String>,
    /// Where approvers answer over HTTPS, if they do: the section `[approvals.api]`.
    pub api: Option<ApiSection>,
    /// Whom to tell what becomes of questions, each in an `[[approvals.webhooks]]` of its own.
    pub webhooks: Vec<WebhookSection>,
    /// Where approvers are asked in Slack, if they are: the section `[approvals.slack]`.
    pub slack: Option<SlackSection>,
}
}

impl Default for ApprovalsSection {
    fn default() -> Self {
        let ApprovalSettings { hold, interim, terms, body_bytes, groups, people, .. } = ApprovalSettings::default();
        Self {
            hold: hold.as_secs(),
            interim: interim.as_secs(),
            expires: terms.expires / 60_000,
            returns: terms.returns / 60_000,
            open: terms.open,
            open_per_session: terms.open_per_session,
            body_bytes,
            groups,
            people,
            api: None,
            webhooks: Vec::new(),
            slack: None,
        }
    }
}

impl ApprovalsSection {
    /// As the data path takes it.
    pub fn settings(&self) -> ApprovalSettings {
        ApprovalSettings {
            hold: Duration::from_secs(self.hold),
            interim: Duration::from_secs(self.interim),
            terms: Terms {
                expires: self.expires.saturating_mul(60_000),
                returns: self.returns.saturating_mul(60_000),
                open: self.open,
                open_per_session: self.open_per_session,
            },
            body_bytes: self.body_bytes,
            groups: self.groups.clone(),
            people: self.people.clone(),
            uids: self.uids(),
        }
    }

    /// The numbers of the host's users who are named here, by each of their names: to be looked up now, and not while
    /// somebody waits for a call. Who isn't known yet is known by the one name.
    fn uids(&self) -> BTreeMap<String, u32> {
        let slack = self.slack.iter().flat_map(|slack| slack.people.values());
        let mut all = BTreeMap::new();
        for name in self.groups.values().flatten().chain(self.people.values()).chain(slack) {
            let user = match name.split_once(':') {
                None => User::from_name(name),
                Some(("uid", number)) => number.parse().map_or(Ok(None), |uid| User::from_uid(Uid::from_raw(uid))),
                Some(_) => continue,
            };
            if let Ok(Some(user)) = user {
                let uid = user.uid.as_raw();
                all.extend([(user.name, uid), (format!("uid:{uid}"), uid)]);
            }
        }
        all
    }

    /// What TOML's types can't say.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let bound = |key, value: u64, least, most: u64| {
            let ok = (least..=most).contains(&value);
            ok.then_some(()).ok_or_else(|| (key, format!("approvals.{key} = {value}: from {least} to {most}")))
        };
        bound("hold", self.hold, 1, 600)?;
        bound("interim", self.interim, 1, 600)?;
        bound("expires", self.expires, 1, 7 * 24 * 60)?;
        bound("returns", self.returns, 1, 7 * 24 * 60)?;
        bound("open", self.open as u64, 1, 100_000)?;
        bound("open_per_session", self.open_per_session as u64, 1, self.open as u64)?;
        bound("body_bytes", self.body_bytes as u64, 0, 64 << 20)?;
        for (group, members) in &self.groups {
            let wrong = |why: String| Err(("approvals.groups", format!("approvals.groups.{group}: {why}")));
            if members.is_empty() {
                return wrong("nobody is in it, so that nobody could approve".into());
            }
            for member in members {
                if let Err(why) = self.known(member) {
                    return wrong(format!("\"{member}\": {why}"));
                }
            }
        }
        for name in self.people.keys() {
            self.known(name).map_err(|why| ("approvals.people", format!("approvals.people.\"{name}\": {why}")))?;
            if !name.contains(':') {
                let why = format!("approvals.people.\"{name}\": say who that is to which provider: `PROVIDER:SUBJECT`");
                return Err(("approvals.people", why));
            }
        }
        if let Some(api) = &self.api {
            api.check().map_err(|why| ("approvals.api", format!("approvals.api.{why}")))?;
        }
        let mut names = BTreeSet::new();
        for webhook in &self.webhooks {
            let wrong =
                |why: String| ("approvals.webhooks", format!("[[approvals.webhooks]]: `{}`: {why}", webhook.name));
            webhook.check().map_err(wrong)?;
            if !names.insert(&webhook.name) {
                return Err(wrong("there are two of this name".into()));
            }
            if webhook.name == "slack" {
                return Err(wrong("that is what Slack is called in records: give it another name".into()));
            }
        }
        if let Some(slack) = &self.slack {
            let wrong = |why: String| ("approvals.slack", format!("approvals.slack.{why}"));
            slack.check().map_err(wrong)?;
            if slack.signing_secret_file.is_some() && self.api.is_none() {
                return Err(wrong("signing_secret_file: Slack can call nothing without [approvals.api]".into()));
            }
            for (user, name) in &slack.people {
                self.known(name).map_err(|why| wrong(format!("people.{user} = \"{name}\": {why}")))?;
            }
        }
        Ok(())
    }

    /// Whether anything that is configured can vouch for such a member.
    fn known(&self, member: &str) -> Result<(), String> {
        let sign_in = self.api.as_ref().and_then(|api| api.sign_in.as_ref());
        let issuers = self.api.iter().flat_map(|api| &api.issuers);
        let mut providers: Vec<(&str, bool)> = issuers.map(|it| (it.name.as_str(), it.groups.is_some())).collect();
        providers.extend(sign_in.map(|it| (it.name.as_str(), it.groups.is_some())));
        let named = |name: &str| {
            let all: Vec<_> = providers.iter().filter(|(own, _)| *own == name).collect();
            if all.is_empty() {
                let why = "no approver can come from there: there is no provider of that name in [approvals.api]";
                return Err(why.to_owned());
            }
            Ok(all.iter().any(|(_, groups)| *groups))
        };
        match member.split_once(':') {
            None if member.is_empty() || member.contains(char::is_whitespace) => Err("that is no user's name".into()),
            None => Ok(()),
            Some(("uid", id)) => id.parse::<u32>().map(|_| ()).map_err(|_| "`uid:` and a number".into()),
            Some(("group", of)) => match of.split_once(':') {
                Some((provider, group)) if !group.is_empty() => {
                    let tells = named(provider)?.then_some(());
                    tells.ok_or_else(|| {
                        format!("the provider `{provider}` tells no groups: set its `groups` to the claim")
                    })
                }
                _ => Err("say `group:PROVIDER:GROUP`".into()),
            },
            Some((_, "")) => Err("say `PROVIDER:SUBJECT`".into()),
            Some((provider, _)) => named(provider).map(|_| ()),
        }
    }
}

/// Policies that ask must ask groups that there are.
pub fn check_groups(policies: &PolicyVersion, config: &Config) -> Result<(), ConfigError> {
    let known: BTreeSet<&str> = config.approvals.groups.keys().map(String::as_str).collect();
    for (policy, group) in policies.approver_groups() {
        if !known.contains(group.as_str()) {
            let all = if known.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are {}", known.iter().copied().collect::<Vec<_>>().join(", "))
            };
            return Err(ConfigError(format!(
                "policy `{policy}` asks the approvers `{group}`, and no such group is in [approvals.groups] of {}: {all}. \
                 Nobody could approve what it forbids; add the group, with the users who are in it",
                config.path().display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        toml::from_str::<ApprovalsSection>(text).unwrap().check().map_err(|(_, why)| why)
    }

    const API: &str = "[api]\nlisten = \"127.0.0.1:8443\"\nurl = \"https://a.example\"\ninsecure_loopback = true\n\
                       [api.sign_in]\nname = \"corp\"\nissuer = \"https://login.example.com\"\nclient_id = \"chaperone\"\n";

    #[test]
    fn groups_that_nobody_can_be_in_are_refused() {
        for good in ["\"alice\"", "\"uid:1001\"", "\"corp:00u1\"", "\"group:corp:ops\""] {
            let text = format!("[groups]\nsre = [{good}]\n{API}groups = \"groups\"\n");
            assert_eq!(check(&text), Ok(()), "{good}");
        }
        for (member, api, why) in [
            ("corp:00u1", "", "no provider of that name"),
            ("group:corp:ops", "", "no provider of that name"),
            ("group:corp:ops", API, "tells no groups"),
            ("group:crop:ops", API, "no provider of that name"),
            ("group:corp", API, "group:PROVIDER:GROUP"),
            ("group:corp:", API, "group:PROVIDER:GROUP"),
            ("corp:", API, "PROVIDER:SUBJECT"),
            ("uid:alice", API, "a number"),
            ("", API, "no user's name"),
            ("alice bob", API, "no user's name"),
        ] {
            let error = check(&format!("[groups]\nsre = [\"{member}\"]\n{api}")).expect_err(member);
            assert!(error.contains(why) && error.contains("groups.sre"), "{member}: {error}");
        }
        assert!(check("[people]\n\"corp:1\" = \"alice\"\n").unwrap_err().contains("no provider"));
        assert!(check("[people]\nalice = \"bob\"\n").unwrap_err().contains("PROVIDER:SUBJECT"));
    }

    #[test]
    fn two_webhooks_have_two_names() {
        let one = "[[webhooks]]\nname = \"a\"\nurl = \"https://a.example/\"\nsecret_file = \"/s\"\n";
        assert_eq!(check(one), Ok(()));
        assert!(check(&format!("{one}{one}")).unwrap_err().contains("two of this name"));
    }
}
