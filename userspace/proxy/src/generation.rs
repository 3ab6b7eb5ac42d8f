//! What a reload puts in force, as one: policies, roles and settings.
//!
//! A call has the generation that was in force when its head had been read, until its outcome. So a reload in the middle of it
//! never has one decided by the new policies and signed by the old role.

use std::sync::Arc;

use arc_swap::ArcSwap;
use chaperone_policy::{Engine, PolicyVersion};
use parking_lot::Mutex;

use crate::{
    masking::MaskingSettings,
    upstream::credential_broker::{CredentialBroker, Rule},
};

/// Settings that a reload may change.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Names, lower case, that are opened like AWS's; `*.example.com` stands for everything below.
    pub inspect: Vec<String>,
    /// The region that the metadata services tell.
    pub region: String,
    /// The role name that the metadata services tell.
    pub role: String,
    /// How answers are masked.
    pub masking: Arc<MaskingSettings>,
}

/// What is in force at a time. Nothing in it changes.
#[derive(Debug)]
pub struct Generation {
    /// From 1, one more with each reload.
    pub number: u64,
    /// The policies.
    pub engine: Engine,
    /// Where the real credentials come from, and whose they are.
    pub lending: Arc<CredentialBroker>,
    /// What else a reload may change.
    pub settings: Settings,
}

impl Generation {
    /// The first one.
    pub fn first(policies: PolicyVersion, lending: Arc<CredentialBroker>, settings: Settings) -> Self {
        Self { number: 1, engine: Engine::new(policies), lending, settings }
    }

    /// The one that comes after it. Credentials that both lend are asked for once.
    fn next(&self, policies: PolicyVersion, rules: Vec<Rule>, settings: Settings) -> Self {
        let lending = self.lending.with_rules(rules);
        Self { number: self.number + 1, engine: Engine::new(policies), lending, settings }
    }

    /// Whether the configuration wants this name opened.
    pub fn is_inspected(&self, name: &str) -> bool {
        self.settings.inspect.iter().any(|wanted| match wanted.strip_prefix("*.") {
            Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => name == wanted,
        })
    }

    /// Where calls go whose host names no region.
    pub(crate) fn default_region(&self) -> &str {
        if self.settings.region.is_empty() { "us-east-1" } else { &self.settings.region }
    }
}

/// The generation in force, which a reload replaces.
#[derive(Debug)]
pub(crate) struct Generations {
    current: ArcSwap<Generation>,
    /// Held by a reload, so that two make two generations.
    replacing: Mutex<()>,
}

impl Generations {
    pub(crate) fn new(first: Generation) -> Self {
        Self { current: ArcSwap::from_pointee(first), replacing: Mutex::new(()) }
    }

    /// The one in force, for as long as it is wanted.
    pub(crate) fn pin(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Puts another in force, for whoever pins one from now on.
    pub(crate) fn replace(&self, policies: PolicyVersion, rules: Vec<Rule>, settings: Settings) {
        let _alone = self.replacing.lock();
        let next = self.current.load().next(policies, rules, settings);
        self.current.store(Arc::new(next));
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
    use chaperone_aws::CredentialSource;
    use chaperone_model::AccessLevel;
    use chaperone_policy::ActionCatalog;

    use super::*;

    struct All;

    impl ActionCatalog for All {
        fn level(&self, _: &str) -> Option<AccessLevel> {
            Some(AccessLevel::Read)
        }

        fn has_prefix(&self, _: &str) -> bool {
            true
        }

        fn actions(&self) -> Vec<(String, AccessLevel)> {
            Vec::new()
        }
    }

    fn policies(name: &str) -> PolicyVersion {
        let text = format!("@id(\"{name}\") permit (principal, action, resource);");
        PolicyVersion::parse(&[("test.cedar".into(), text)], &All).unwrap()
    }

    fn settings(region: &str) -> Settings {
        Settings {
            inspect: vec![format!("*.{region}.example.com")],
            region: region.to_owned(),
            role: String::new(),
            ..Settings::default()
        }
    }

    fn generations() -> Generations {
        let own = SharedCredentialsProvider::new(Credentials::new("AKIAOWN", "secret", None, None, "test"));
        let lending = CredentialBroker::new(Vec::new(), CredentialSource::new(own, Some("123456789012")), None);
        Generations::new(Generation::first(policies("0"), lending, settings("r0")))
    }

    #[test]
    fn what_is_pinned_stays_and_the_next_one_is_all_new() {
        let generations = generations();
        let pinned = generations.pin();
        let (version, lending) = (pinned.engine.version().digest.clone(), pinned.lending.clone());
        generations.replace(policies("1"), Vec::new(), settings("r1"));
        assert_eq!((pinned.number, &pinned.engine.version().digest, pinned.default_region()), (1, &version, "r0"));
        assert!(Arc::ptr_eq(&pinned.lending, &lending) && pinned.is_inspected("a.r0.example.com"));
        let next = generations.pin();
        assert_eq!((next.number, next.default_region()), (2, "r1"));
        assert!(next.engine.version().digest != version && !Arc::ptr_eq(&next.lending, &lending));
        assert!(next.is_inspected("a.r1.example.com") && !next.is_inspected("a.r0.example.com"));
    }

    /// Whoever pins while reloads go on gets policies and settings of the same one.
    #[test]
    fn no_two_generations_are_mixed_under_reloads() {
        let generations = &generations();
        let of: Vec<_> = (0..20).map(|n| (policies(&n.to_string()).digest, format!("r{n}"))).collect();
        std::thread::scope(|scope| {
            for half in [1..10, 10..20] {
                scope.spawn(move || {
                    for n in half {
                        generations.replace(policies(&n.to_string()), Vec::new(), settings(&format!("r{n}")));
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    while generations.pin().number < 20 {
                        let pinned = generations.pin();
                        let pair = (pinned.engine.version().digest.clone(), pinned.default_region().to_owned());
                        assert!(of.contains(&pair), "{pair:?}");
                    }
                });
            }
        });
        assert_eq!(generations.pin().number, 20);
    }
}
