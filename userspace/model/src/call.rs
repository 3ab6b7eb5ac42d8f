//! What a request asks AWS for, decoded.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// AWS's wire protocols, by botocore's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `ec2`: form-encoded requests, XML answers without a `Result` wrapper.
    Ec2,
    /// Not an AWS service: a name the configuration lists under `inspect`.
    Http,
    /// `json`: `X-Amz-Target` and JSON 1.0 or 1.1.
    Json,
    /// `query`: form-encoded requests, XML answers.
    Query,
    /// `rest-json`.
    RestJson,
    /// `rest-xml`.
    RestXml,
    /// `smithy-rpc-v2-cbor`.
    RpcV2Cbor,
}

/// IAM's access levels, as the service authorization reference lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AccessLevel {
    /// Lists what is there.
    List,
    /// Reads content.
    Read,
    /// Tags and untags.
    Tagging,
    /// Creates, changes or deletes.
    Write,
    /// Changes who may do what.
    #[serde(rename = "PermissionsManagement")]
    PermissionsManagement,
}

impl AccessLevel {
    /// Cedar's name of the action group.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "List",
            Self::Read => "Read",
            Self::Tagging => "Tagging",
            Self::Write => "Write",
            Self::PermissionsManagement => "PermissionsManagement",
        }
    }
}

/// One IAM action that a call needs, such as `s3:GetObject`, with its access level.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Action {
    /// `prefix:Name`.
    pub name: Cow<'static, str>,
    /// Its access level. An action that the IAM data don't know counts as `Write`.
    pub level: AccessLevel,
}

/// How the request's payload is bound to its signature: the value of `x-amz-content-sha256` or what stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// The SHA-256 of the body, sent in the header `x-amz-content-sha256`.
    DeclaredHash,
    /// The SHA-256 of the body, in the canonical request alone: it must be read before it can be signed.
    ImpliedHash,
    /// `UNSIGNED-PAYLOAD`.
    Unsigned,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`: aws-chunked with an unsigned checksum trailer.
    StreamingUnsignedTrailer,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`: every chunk is signed.
    StreamingSigned,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`: every chunk and the trailer are signed.
    StreamingSignedTrailer,
    /// `STREAMING-AWS4-HMAC-SHA256-EVENTS`: an event stream, every message of which is signed.
    EventStream,
    /// An operation that carries no signature at all.
    None,
}

/// Resources of an action that the request names in a way that can't be resolved here, or doesn't name at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnknownResources {
    /// The action, by its place in [`Call::actions`]; `None`: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<u16>,
    /// What each of them looks like: an ARN in which `*` stands for any run of characters, such as
    /// `arn:aws:ec2:eu-west-1:123456789012:instance/*`; `*` where not even that is known.
    pub pattern: Cow<'static, str>,
    /// Why they aren't known, for people: `selected by Filters`, `a wildcard in the request`.
    pub why: Cow<'static, str>,
    /// What fits is only another name of something that `resources` names already, such as the alias of a key: a `forbid`
    /// that could match it holds, and a `permit` needn't be for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alias: bool,
}

/// What the input of a call names, wherever it stands, whether or not it is a resource of the call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    /// Every ARN, in order, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arns: Vec<String>,
    /// Every account of twelve digits, in ARNs, host names of registries, or by itself; in order, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
}

impl References {
    /// Whether nothing is named.
    pub const fn is_empty(&self) -> bool {
        self.arns.is_empty() && self.accounts.is_empty()
    }
}

/// The member of [`Call::parameters`] that says that something was left out of them.
pub const TRUNCATED: &str = "$truncated";
/// Beside [`TRUNCATED`]: no element was left out. Long texts alone were cut, and end in [`CUT`].
pub const ONLY_TEXTS: &str = "$only_texts";
/// What stands at the end of a text that was cut.
pub const CUT: &str = "…[cut]";

/// What was found in the whole of an input of which `parameters` keep a part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LookedUp {
    /// The paths that were looked for, such as `Item.classified`.
    pub paths: Arc<BTreeSet<String>>,
    /// All values of those that there are.
    pub values: BTreeMap<String, Vec<String>>,
}

/// One request, decoded. Everything in it is derived from bytes that the agent sent and from the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Partition, such as `aws` or `aws-cn`; `http` for inspected names that aren't AWS's.
    pub partition: Cow<'static, str>,
    /// Region from the host's name (or the service's default); `None` for global services without one.
    pub region: Option<Cow<'static, str>>,
    /// The account whose credentials will sign, when known.
    pub account: Option<Cow<'static, str>>,
    /// botocore's service name, such as `s3`; for inspected names, the host.
    pub service: Cow<'static, str>,
    /// The name that the service signs by.
    pub signing_name: Cow<'static, str>,
    /// Operation, such as `GetObject`; for inspected names, the method.
    pub operation: Cow<'static, str>,
    /// All `service:Operation` that the request could be, when more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// The wire protocol, which also tells how an error must look.
    pub protocol: Protocol,
    /// The IAM actions that the call needs: every one must be permitted. Never empty.
    pub actions: Vec<Action>,
    /// The ARNs (or `*`) that it touches: every one must be permitted. Never empty.
    pub resources: Vec<String>,
    /// Which action is needed on which resource, by their places in `actions` and `resources`, when it is not every
    /// action on every resource: a copy reads one object and writes another. Empty: every action on every resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<(u16, u16)>,
    /// What the call may touch besides `resources`. Empty: `resources` are all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<UnknownResources>,
    /// Parts of the request that nothing here understands, by their place: `body.InstanceId.x`, `query.frobnicate`.
    /// Members that are newer than the catalog are among them. Bounded in number and length; the last says `…` where more
    /// were left out. While it isn't empty, a `forbid` that reads parameters, or goes by a resource, holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// The ARNs and accounts that the input names anywhere, in whatever member.
    #[serde(default, skip_serializing_if = "References::is_empty")]
    pub references: References,
    /// The operation's input as far as it was decoded, bounded; binary values are left out.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub parameters: serde_json::Value,
    /// Where elements were left out of `parameters`: what policies look for, found in all of the input. Not recorded.
    #[serde(skip)]
    pub looked_up: Option<LookedUp>,
    /// How the payload is signed.
    pub payload: Payload,
}

impl Call {
    /// The highest access level among the call's actions.
    pub fn level(&self) -> AccessLevel {
        self.actions.iter().map(|action| action.level).max().unwrap_or(AccessLevel::Write)
    }

    /// What must be permitted, every one: an action on a resource.
    pub fn needs(&self) -> impl Iterator<Item = (&Action, &str)> {
        let listed = self.pairs.iter().filter_map(|&(action, resource)| {
            Some((self.actions.get(usize::from(action))?, self.resources.get(usize::from(resource))?.as_str()))
        });
        let all = self.actions.iter().flat_map(|action| self.resources.iter().map(move |r| (action, r.as_str())));
        listed.chain(all.filter(|_| self.pairs.is_empty()))
    }

    /// Resources that aren't known, each with an action that is needed on them. What names no action that there is gives
    /// nothing, so that whoever counts sees it.
    pub fn unknown_resources(&self) -> impl Iterator<Item = (&Action, &UnknownResources)> {
        self.unknown.iter().flat_map(|unknown| {
            let of = match unknown.action {
                Some(place) => self.actions.get(usize::from(place)..=usize::from(place)).unwrap_or_default(),
                None => &self.actions,
            };
            of.iter().map(move |action| (action, unknown))
        })
    }

    /// Whether the input may name more ARNs and accounts than `references` has.
    pub fn is_input_incomplete(&self) -> bool {
        !self.unread.is_empty() || (self.has_dropped() && self.looked_up.is_none())
    }

    /// Whether elements were left out of `parameters`.
    pub fn has_dropped(&self) -> bool {
        self.parameters.get(TRUNCATED).is_some() && self.parameters.get(ONLY_TEXTS).is_none()
    }

    /// Whether texts in `parameters` were cut.
    pub fn has_cut_texts(&self) -> bool {
        self.parameters.get(TRUNCATED).is_some()
    }

    /// Whether the call can change something: anything above `Read`.
    pub fn is_mutating(&self) -> bool {
        self.level() > AccessLevel::Read
    }
}
