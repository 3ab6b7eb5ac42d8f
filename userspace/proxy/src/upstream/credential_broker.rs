//! Whose authority an agent's calls are made by, and how far it reaches.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::SystemTime,
};

use chaperone_aws::{CredentialSource, Role, Sts};
use chaperone_model::{Call, Identity, Session};
use parking_lot::Mutex;

use super::role_text::{self, Place};

/// What the configuration says of some agents' authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// By their names.
    pub agents: Vec<String>,
    /// By their groups.
    pub groups: Vec<String>,
    /// The role that is assumed for them; the daemon's own credentials, if `None`. In its texts `{agent}` and `{session}`
    /// stand for what they are called, and `{subject}`, `{sponsor}` and `{claim.NAME}` for who they are (`role_text`).
    pub role: Option<Role>,
    /// The regions that they may call; all, if empty.
    pub regions: Vec<String>,
    /// The accounts that they may call and name; all, if empty.
    pub accounts: Vec<String>,
}

impl Rule {
    fn is_for(&self, session: &Session) -> bool {
        self.agents.contains(&session.agent) || self.groups.iter().any(|group| session.groups.contains(group))
    }
}

/// All rules, and the credentials that are in use by them.
pub struct CredentialBroker {
    rules: Vec<Rule>,
    own: CredentialSource,
    sts: Option<Sts>,
    sources: Arc<Mutex<HashMap<Role, Weak<CredentialSource>>>>,
}

impl std::fmt::Debug for CredentialBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialBroker").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// What one session is lent.
pub struct SigningIdentity {
    by: Arc<CredentialBroker>,
    /// What signs.
    pub credentials: Arc<CredentialSource>,
    regions: Vec<String>,
    accounts: Vec<String>,
}

impl std::fmt::Debug for SigningIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningIdentity").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl CredentialBroker {
    /// The first rule that is for an agent holds. `sts` is needed where a rule has a role.
    ///
    /// # Panics
    /// If a rule has a role and there is no `sts`: the daemon's own credentials are no stand-in for it.
    pub fn new(rules: Vec<Rule>, own: CredentialSource, sts: Option<Sts>) -> Arc<Self> {
        assert!(sts.is_some() || rules.iter().all(|rule| rule.role.is_none()), "BUG: a rule has a role, and no STS");
        Arc::new(Self { rules, own, sts, sources: Arc::default() })
    }

    /// The same with other rules. Credentials that are still asked for in the same words are kept.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_rules(&self, rules: Vec<Rule>) -> Arc<Self> {
        let mut new = Self::new(rules, self.own.clone(), self.sts.clone());
        Arc::get_mut(&mut new).expect("BUG: it is new").sources = self.sources.clone();
        new
    }

    /// The daemon's own credentials.
    pub fn own(&self) -> &CredentialSource {
        &self.own
    }

    /// When the credentials end that are in use, by their roles' ARNs: the earliest of each. The daemon's own are `own`.
    pub fn expiries(&self) -> BTreeMap<String, SystemTime> {
        let sources: Vec<_> = self.sources.lock().values().filter_map(Weak::upgrade).collect();
        let mut all = BTreeMap::new();
        for source in sources.iter().map(Arc::as_ref).chain([&self.own]) {
            let Some(expiry) = source.expiry() else { continue };
            let earliest = all.entry(source.role().unwrap_or("own").to_owned()).or_insert(expiry);
            *earliest = expiry.min(*earliest);
        }
        all
    }

    /// What a session without an identity is lent.
    pub fn to(self: &Arc<Self>, session: &Session) -> Arc<SigningIdentity> {
        self.to_identified(session, None)
    }

    /// What a session is lent, with its identity if it has one.
    pub fn to_identified(self: &Arc<Self>, session: &Session, identity: Option<&Identity>) -> Arc<SigningIdentity> {
        let rule = self.rules.iter().find(|rule| rule.is_for(session));
        let role = rule.and_then(|rule| rule.role.as_ref());
        let credentials = match (role, &self.sts) {
            (Some(role), Some(sts)) => self.assumed(named(role, session, identity), sts),
            _ => Arc::new(self.own.clone()),
        };
        let (regions, accounts) = rule.map(|it| (it.regions.clone(), it.accounts.clone())).unwrap_or_default();
        Arc::new(SigningIdentity { by: self.clone(), credentials, regions, accounts })
    }

    /// Sessions that ask for the same in the same words share it. It goes with the last of them.
    fn assumed(&self, role: Role, sts: &Sts) -> Arc<CredentialSource> {
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(&role).and_then(Weak::upgrade) {
            return source;
        }
        sources.retain(|_, source| source.strong_count() > 0);
        let source = Arc::new(CredentialSource::of_role(role.clone(), sts.clone(), self.own.clone()));
        sources.insert(role, Arc::downgrade(&source));
        source
    }
}

impl SigningIdentity {
    /// Whether these rules are the ones that it was lent by.
    pub fn is_by(&self, lending: &Arc<CredentialBroker>) -> bool {
        Arc::ptr_eq(&self.by, lending)
    }

    /// Why a call is out of reach, if it is. What is of no region, or of no region that is known, is in none of those
    /// allowed. A resource without an account in its name, such as a bucket, counts as of the account that signs.
    pub fn out_of_reach(&self, call: &Call) -> Option<String> {
        if !self.regions.is_empty() {
            let region = call.region.as_deref().unwrap_or("no region");
            if !self.regions.iter().any(|allowed| allowed == region) {
                return Some(format!("it is for {region}, which is not among the regions that this agent may call"));
            }
        }
        if !self.accounts.is_empty() {
            let of_arn =
                |arn: &str| arn.starts_with("arn:").then(|| arn.split(':').nth(4).map(str::to_owned)).flatten();
            let is_account = |text: &String| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
            let patterns = call.unknown.iter().filter(|unknown| !unknown.alias).map(|unknown| &*unknown.pattern);
            let resources = call.resources.iter().map(String::as_str).chain(patterns);
            let named = resources.filter_map(of_arn).filter(is_account);
            let named = named.chain(call.references.accounts.iter().cloned());
            let signing = call.account.as_deref().map(str::to_owned);
            let other = named.chain(signing).find(|account| !self.accounts.contains(account));
            if let Some(other) = other {
                return Some(format!("it is for account {other}, which is not among those that this agent may call"));
            }
            // What wasn't read could name any other.
            if call.is_input_incomplete() {
                let what = match &call.unread[..] {
                    [] => "its parameters are more than is read".to_owned(),
                    unread => format!("{} was not understood", unread.join(", ")),
                };
                return Some(format!(
                    "{what}, so that it can't be told whether it is for the accounts that this agent may call"
                ));
            }
        }
        None
    }
}

/// The role as it is asked for on behalf of this session.
fn named(role: &Role, session: &Session, identity: Option<&Identity>) -> Role {
    let filled = |text: &String, place| role_text::fill(text, session, identity, place);
    Role {
        session_name: filled(&role.session_name, Place::Name),
        source_identity: role.source_identity.as_ref().map(|text| filled(text, Place::Name)),
        tags: role.tags.iter().map(|(name, value)| (name.clone(), filled(value, Place::Tag))).collect(),
        ..role.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
    use chaperone_model::{Action, CgroupId, Payload, Protocol, SessionId};

    use super::*;

    fn session(agent: &str, groups: &[&str]) -> Session {
        Session {
            id: SessionId::new(),
            agent: agent.into(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            cgroup: CgroupId(1),
            cgroup_path: "/a".into(),
            container: None,
            parent: None,
            started: time::OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn role(session_name: &str) -> Role {
        Role {
            arn: "arn:aws:iam::210987654321:role/agents".into(),
            session_name: session_name.into(),
            source_identity: Some("{agent}".into()),
            external_id: None,
            tags: vec![("session".into(), "{session}".into())],
            policy: None,
            policy_arns: Vec::new(),
            duration_seconds: None,
        }
    }

    fn lending(rules: Vec<Rule>) -> Arc<CredentialBroker> {
        let own = SharedCredentialsProvider::new(Credentials::new("AKIAOWN", "secret", None, None, "test"));
        let sts = Sts {
            region: "eu-west-1".into(),
            http: chaperone_aws::https_client(None).unwrap(),
            endpoint: Some("https://127.0.0.1:9/".into()),
        };
        CredentialBroker::new(rules, CredentialSource::new(own, Some("123456789012")), Some(sts))
    }

    fn call(region: Option<&'static str>, account: &'static str, resource: &str) -> Call {
        Call {
            partition: Cow::Borrowed("aws"),
            region: region.map(Cow::Borrowed),
            account: Some(Cow::Borrowed(account)),
            service: Cow::Borrowed("s3"),
            signing_name: Cow::Borrowed("s3"),
            operation: Cow::Borrowed("GetObject"),
            candidates: Vec::new(),
            protocol: Protocol::RestXml,
            actions: vec![Action { name: Cow::Borrowed("s3:GetObject"), level: chaperone_model::AccessLevel::Read }],
            resources: vec![resource.to_owned()],
            pairs: Vec::new(),
            unknown: Vec::new(),
            unread: Vec::new(),
            references: chaperone_model::References::default(),
            parameters: serde_json::Value::Null,
            looked_up: None,
            payload: Payload::Unsigned,
        }
    }

    #[test]
    fn the_first_rule_for_an_agent_or_its_group_holds() {
        let rule = |agents: &[&str], groups: &[&str], name: &str| Rule {
            agents: agents.iter().map(|&it| it.to_owned()).collect(),
            groups: groups.iter().map(|&it| it.to_owned()).collect(),
            role: Some(role(name)),
            ..Rule::default()
        };
        let lending = lending(vec![rule(&["coder"], &[], "one"), rule(&[], &["developers"], "two")]);
        let account = |session: &Session| lending.to(session).credentials.account().unwrap().to_string();
        assert_eq!(account(&session("coder", &["developers"])), "210987654321");
        assert_eq!(account(&session("other", &["developers"])), "210987654321");
        assert_eq!(account(&session("other", &[])), "123456789012", "the daemon's own");
        let one = lending.to(&session("coder", &[]));
        assert!(one.is_by(&lending) && !one.is_by(&lending.with_rules(Vec::new())));
    }

    #[test]
    fn what_is_asked_for_in_the_same_words_is_asked_for_once() {
        let shared = role("{agent}");
        let rule = Rule { agents: vec!["coder".into(), "other".into()], role: Some(shared), ..Rule::default() };
        let (one, two) = (session("coder", &[]), session("coder", &[]));
        let tagged = lending(vec![rule.clone()]);
        assert!(!Arc::ptr_eq(&tagged.to(&one).credentials, &tagged.to(&two).credentials), "their tags differ");
        let mut plain = rule;
        plain.role.as_mut().unwrap().tags.clear();
        let plain = lending(vec![plain]);
        let kept = plain.to(&one);
        assert!(Arc::ptr_eq(&kept.credentials, &plain.to(&two).credentials));
        assert!(!Arc::ptr_eq(&kept.credentials, &plain.to(&session("other", &[])).credentials));
        let after = plain.with_rules(plain.rules.clone());
        assert!(Arc::ptr_eq(&kept.credentials, &after.to(&two).credentials), "a reload doesn't ask again");
        let filled = named(&role("{agent}@{session}"), &one, None);
        assert_eq!(filled.session_name, format!("coder@{}", one.id));
        assert_eq!((filled.source_identity.as_deref(), &filled.tags[0].1), (Some("coder"), &one.id.to_string()));
    }

    #[test]
    fn regions_and_accounts_bound_what_is_called() {
        let rule = Rule {
            agents: vec!["coder".into()],
            regions: vec!["eu-west-1".into()],
            accounts: vec!["123456789012".into()],
            ..Rule::default()
        };
        let lent = lending(vec![rule]).to(&session("coder", &[]));
        let reached = |region, account, resource: &str| lent.out_of_reach(&call(region, account, resource)).is_none();
        let here = Some("eu-west-1");
        assert!(reached(here, "123456789012", "arn:aws:s3:::bucket/key"));
        assert!(reached(here, "123456789012", "*"));
        assert!(reached(here, "123456789012", "arn:aws:sqs:eu-west-1:123456789012:queue"));
        assert!(!reached(Some("eu-west-2"), "123456789012", "*"));
        assert!(!reached(None, "123456789012", "*"), "of no region is in none of them");
        assert!(!reached(here, "210987654321", "*"), "a chained role in another account");
        assert!(!reached(here, "123456789012", "arn:aws:iam::210987654321:role/other"));
        // Accounts that stand elsewhere than in a resource's name, and input that may hold one.
        let mut registry = call(here, "123456789012", "*");
        registry.references.accounts = vec!["210987654321".into()];
        assert!(lent.out_of_reach(&registry).is_some());
        let mut newer = call(here, "123456789012", "*");
        newer.unread = vec!["body.registryIdOfTomorrow".into()];
        assert!(lent.out_of_reach(&newer).is_some_and(|why| why.contains("registryIdOfTomorrow")));
        let all = lending(Vec::new()).to(&session("coder", &[]));
        assert!(all.out_of_reach(&call(None, "210987654321", "*")).is_none());
    }
}
