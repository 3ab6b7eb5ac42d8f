//! A connection whose requests are looked into.

use std::{net::SocketAddr, sync::Arc};

use chaperone_capture::ALTERNATE_HTTPS;
use chaperone_identity::Resolved;
use chaperone_journal::JournalError;
use chaperone_model::{ConnectionId, ProcessFacts, Reason};
use http::{header::HOST, request::Parts};

use crate::{
    call::error::{Kind, Refusal},
    connection::{hello::host_name, quota::Quota},
    data_plane::{DataPlane, SessionContext},
    http::heads::Heads,
};

/// A connection that is opened, and what all of its requests have in common.
pub(crate) struct HttpConnection {
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) session: Arc<Resolved<SessionContext>>,
    pub(crate) id: ConnectionId,
    pub(crate) process: Arc<ProcessFacts>,
    /// The name that the TLS handshake was for. Plain HTTP has none but each request's own.
    pub(crate) name: Option<Arc<str>>,
    /// Where AWS is: the agent's original address, port 443 or the other one that the agent dialled.
    pub(crate) upstream: SocketAddr,
    /// The agent speaks HTTP without TLS. So is spoken to applications; what is AWS's API is never sent in the clear.
    pub(crate) plain: bool,
    /// What it uses of what agents have in common.
    pub(crate) share: Arc<Quota>,
    /// Told by the framing check of a head that was refused.
    pub(crate) heads: Arc<Heads>,
    /// Why nothing of this connection may go on: its beginning could not be recorded.
    pub(crate) unrecorded: Option<JournalError>,
}

impl HttpConnection {
    /// The one host that the request is for: the handshake's name, the Host field and `:authority` must agree.
    pub(crate) fn host_of(&self, parts: &Parts) -> Result<String, Refusal> {
        let bad = |why: &str| Refusal::denied(Kind::BadRequest, Reason::Undecodable, why);
        let mut fields = parts.headers.get_all(HOST).iter();
        let field = fields.next().map(|field| field.as_bytes().to_vec());
        if fields.next().is_some() {
            return Err(bad("the request has two Host fields"));
        }
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec());
        let name = |bytes: &[u8]| -> Option<String> {
            let dialled = (self.upstream.port() == ALTERNATE_HTTPS).then_some(b":8443".as_slice());
            let mut ports = [b":443".as_slice(), b":80"].into_iter().chain(dialled);
            let text = ports.find_map(|port| bytes.strip_suffix(port)).unwrap_or(bytes);
            host_name(text)
        };
        let host = match (&authority, &field) {
            (Some(one), Some(other)) if name(one) != name(other) => {
                return Err(Refusal::denied(
                    Kind::Misdirected,
                    Reason::Undecodable,
                    "the request's :authority and Host field disagree",
                ));
            }
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => return Err(bad("the request has no host")),
        };
        let host = name(host).ok_or_else(|| bad("the request's Host is not a plain DNS name"))?;
        if self.name.as_deref().is_some_and(|name| name != host) {
            let named = self.name.as_deref().unwrap_or_default();
            let why = format!("the connection was opened for `{named}` and the request is for `{host}`");
            return Err(Refusal::denied(Kind::Misdirected, Reason::Undecodable, why));
        }
        Ok(host)
    }

    /// A host as AWS is told it: with the port where that isn't HTTPS's own.
    pub(crate) fn authority_of(&self, host: &str) -> String {
        match self.upstream.port() {
            443 => host.to_owned(),
            port => format!("{host}:{port}"),
        }
    }
}
