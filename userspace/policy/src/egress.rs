//! Deciding what is passed on: connections that aren't AWS's, of which a name, an address and a port is all that is known.
//!
//! Such connections went on before there were policies for them, and still do where no policy is about them: what nothing
//! permits is refused only in a set with a `permit` that names one of these actions. A `forbid` that matches holds in any
//! case. (`connect:` would say it better, and is Amazon Connect's.)

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    str::FromStr as _,
};

use cedar_policy::{Context, Entities, Entity, EntityUid, Request, RestrictedExpression};
use chaperone_model::{AccessLevel, Action, Decision, Reason, Verdict};
use time::OffsetDateTime;

use crate::{
    decide::{Engine, Principal, refusal, uid},
    facts::CallFacts,
    ruling::Refused,
    slice::Slice,
};

/// What a connection that is to be passed on begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressKind {
    /// A request in the clear.
    Http,
    /// A TLS handshake with AWS IoT, by which a device shows a certificate of its own and speaks MQTT. Nothing of it can be
    /// read, and it is no call by the agent's role: it is refused unless a policy permits it.
    Mqtt,
    /// Anything else, which a proxy was asked for.
    Tcp,
    /// A TLS handshake.
    Tls,
}

impl EgressKind {
    /// By the name of the action.
    pub fn of_action(name: &str) -> Option<Self> {
        [Self::Http, Self::Mqtt, Self::Tcp, Self::Tls].into_iter().find(|kind| kind.action() == name)
    }

    /// The action's name.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Http => "egress:HTTP",
            Self::Mqtt => "egress:MQTT",
            Self::Tcp => "egress:TCP",
            Self::Tls => "egress:TLS",
        }
    }
}

/// A connection that is to be passed on.
#[derive(Clone, Copy, Debug)]
pub struct Egress<'a> {
    /// What it begins with.
    pub kind: EgressKind,
    /// The name that it is for, in lower case; `None` where it has none.
    pub host: Option<&'a str>,
    /// Where it goes.
    pub address: SocketAddr,
    /// The session's id.
    pub session: &'a str,
    /// The connecting process's executable.
    pub exe: &'a str,
    /// Its arguments.
    pub argv: &'a [String],
    /// When it is asked for.
    pub at: OffsetDateTime,
    /// When the session began.
    pub session_started: OffsetDateTime,
}

impl Engine {
    /// Whether a connection may be passed on. Nobody is asked for approval: a connection can't wait for people.
    pub fn egress(&self, principal: &Principal, connection: &Egress<'_>) -> Decision {
        let version = self.version();
        let name = connection.kind.action();
        // These actions are of no level: what is in a connection isn't known.
        let slice = self.slice(version, principal, &Action { name: name.into(), level: AccessLevel::Write });
        let address = connection.address.ip().to_canonical().to_string();
        let resource = connection.host.unwrap_or(&address);
        let decided = if slice.policies.is_empty() {
            Err((Reason::NotPermitted, Vec::new()))
        } else {
            self.ask(&slice, principal, connection, resource, &address)
        };
        let (reason, policies) = match decided {
            Ok(policies) => (Reason::Permitted, policies),
            Err((Reason::NotPermitted, policies)) if !self.egress_is_listed && connection.kind != EgressKind::Mqtt => {
                (Reason::Permitted, policies)
            }
            Err(refused) => refused,
        };
        let is_permitted = reason == Reason::Permitted;
        let message = if is_permitted {
            String::new()
        } else {
            let (action, resource) = (name.to_owned(), resource.to_owned());
            refusal(
                principal,
                &[Refused {
                    action,
                    resource,
                    reason,
                    policies: policies.clone(),
                    incomplete: None,
                    unrecorded: false,
                }],
            )
        };
        Decision {
            verdict: if is_permitted { Verdict::Allow } else { Verdict::Deny },
            reason,
            policies,
            policy_version: version.digest.clone(),
            message,
        }
    }

    fn ask(
        &self,
        slice: &Slice,
        principal: &Principal,
        connection: &Egress<'_>,
        resource: &str,
        address: &str,
    ) -> Result<Vec<String>, (Reason, Vec<String>)> {
        let (request, entities) =
            self.egress_request(slice, principal, connection, resource, address).map_err(|error| {
                tracing::error!(%error, "a connection could not be put to the policies");
                (Reason::PolicyError, Vec::new())
            })?;
        self.cedar(&slice.policies, &request, &entities)
    }

    /// The connection as Cedar sees it.
    pub(crate) fn egress_request(
        &self,
        slice: &Slice,
        principal: &Principal,
        connection: &Egress<'_>,
        resource: &str,
        address: &str,
    ) -> Result<(Request, Entities), Box<dyn std::error::Error>> {
        let resource_uid = uid(self.resource_type(), resource);
        let parameters = uid(self.parameters_type(), "");
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let texts = [
            ("service", ""),
            ("operation", connection.kind.action().split_once(':').map_or("", |(_, name)| name)),
            ("level", ""),
            ("partition", ""),
            ("region", "global"),
            ("account", ""),
            ("method", ""),
            ("host", connection.host.unwrap_or_default()),
            ("path", ""),
            ("session", connection.session),
            ("exe", connection.exe),
        ];
        let sets = ["arns", "accounts", "over_budget"].map(|name| (name, RestrictedExpression::new_set([])));
        let others = [
            ("approved", RestrictedExpression::new_bool(false)),
            ("parameters", RestrictedExpression::new_entity_uid(parameters.clone())),
            ("address", RestrictedExpression::from_str(&format!("ip(\"{address}\")"))?),
            ("port", RestrictedExpression::new_long(connection.address.port().into())),
        ];
        let facts = CallFacts {
            argv: connection.argv,
            at: Some(connection.at),
            session_started: Some(connection.session_started),
            // It may be any, and for whoever bounds it, it is too much.
            body_bytes: Some(u64::MAX),
            ..CallFacts::default()
        };
        let made = facts.made(&self.version().time_zone, |name| slice.reads.context(name));
        let made = made.into_iter().map(|(name, fact)| (name, fact.cedar()));
        let texts = texts.map(|(name, value)| (name, text(value)));
        let pairs = texts.into_iter().chain(sets).chain(others).chain(made);
        let read = pairs.filter(|(name, _)| slice.reads.context(name));
        let context = Context::from_pairs(read.map(|(name, value)| (name.to_owned(), value)))?;
        // `resource in Resource::"github.com"`: a name is in each domain above it.
        let domains =
            connection.host.into_iter().flat_map(|host| host.match_indices('.').map(|(at, _)| &host[at + 1..]));
        let parents: HashSet<EntityUid> = if slice.reads.hierarchy() {
            domains.map(|domain| uid(self.resource_type(), domain)).collect()
        } else {
            HashSet::new()
        };
        let attributes = [
            ("arn", resource),
            ("partition", ""),
            ("service", ""),
            ("region", ""),
            ("account", ""),
            ("name", resource),
        ];
        let attributes: HashMap<_, _> =
            attributes.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
        let entities =
            [Entity::new(resource_uid.clone(), attributes, parents)?, Entity::new_with_tags(parameters, [], [], [])?];
        let entities = slice.entities.clone().add_entities(entities, None)?;
        Ok((Request::new(principal.uid().clone(), slice.action.clone(), resource_uid, context, None)?, entities))
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
