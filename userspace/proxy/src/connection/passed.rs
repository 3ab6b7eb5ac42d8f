//! Connections that are passed on byte for byte: not AWS.
//!
//! Where to, the host's resolver says by the name that the agent told. What it doesn't know, or has elsewhere, may be a name
//! of the agent's own network (its /etc/hosts, its container engine's DNS): such a name, and no name at all, is met where
//! the agent dialled, after it has been seen that AWS isn't there (`presented.rs`). There the name is the agent's claim
//! alone, and so the policies must permit the address without it, too.

use std::{net::SocketAddr, sync::Arc};

use chaperone_model::{ConnectionKind, Decision};
use chaperone_policy::{Egress, EgressKind, Principal};
use tokio::net::TcpStream;

use crate::connection::{
    accepted::{Accepted, Opening},
    hello::{self, ACCESS_DENIED, MISSING_EXTENSION},
    prefixed::Prefixed,
    presented::Greetings,
    reach::is_public,
    tunnel::{self, TunnelError, Way, is_link_local},
};

/// Why a connection isn't passed on.
enum Refused {
    /// AWS is there.
    Aws(String),
    /// The policies said so.
    Denied(Box<Decision>),
    /// It can't be reached, which the agent sees as it would by itself: its connection ends.
    Unreached(String),
}

impl From<TunnelError> for Refused {
    fn from(error: TunnelError) -> Self {
        Self::Unreached(error.to_string())
    }
}

/// Where a connection can go.
struct Places {
    /// The agent's own choice, which nothing else vouches for.
    dialled: Option<SocketAddr>,
    /// What the host's resolver has for the name.
    resolved: Vec<SocketAddr>,
}

impl Accepted {
    /// Passes a connection on; `name`: the one that it is for.
    pub(super) async fn pass_on(
        self: Arc<Self>,
        name: Option<&str>,
        kind: EgressKind,
        mut stream: Prefixed,
    ) -> Result<(u64, u64), String> {
        if let Some(stop) = self.shared.stops.of(&self.session.session) {
            let why = format!("{} is stopped", stop.of);
            self.open(Opening::refused(name, why.clone())).await?;
            return Err(why);
        }
        let (mut upstream, decision) = match Box::pin(self.reach_out(name, kind, &stream.stream)).await {
            Ok(reached) => reached,
            Err(refused) => {
                let (why, decision, is_told) = match refused {
                    Refused::Aws(why) => (why, None, true),
                    Refused::Denied(decision) => (decision.message.clone(), Some(*decision), true),
                    Refused::Unreached(why) => (why, None, false),
                };
                let decided = decision.as_ref().map(|it| it.verdict);
                self.open(Opening { decision, ..Opening::refused(name, why.clone()) }).await?;
                match kind {
                    EgressKind::Tls if is_told => {
                        let alert = if name.is_none() && decided.is_none() { MISSING_EXTENSION } else { ACCESS_DENIED };
                        hello::alert(&mut stream, alert).await;
                    }
                    EgressKind::Http if is_told => hello::take_leave(&mut stream, &refusal(&why)).await,
                    _ => {}
                }
                return Err(why);
            }
        };
        self.shared.metrics.passed.inc();
        let kind = ConnectionKind::Passed;
        let upstream_address = upstream.peer_addr().ok();
        let opening = Opening { name, upstream: upstream_address, kind, error: None, decision: Some(decision) };
        self.open(opening).await?;
        let copied = tokio::select! {
            // A tunnel has no end of its own to wait for.
            () = self.shared.stop.cancelled() => return Err("the daemon stopped".to_owned()),
            copied = tunnel::copy(&mut stream, &mut upstream) => copied,
        };
        copied.map_err(|error| error.to_string())
    }

    async fn reach_out(
        &self,
        name: Option<&str>,
        kind: EgressKind,
        agent: &TcpStream,
    ) -> Result<(TcpStream, Decision), Refused> {
        let way = if self.at_home { Way::home() } else { Way::of(agent)? };
        let address_text = self.destination.ip().to_string();
        let told = name.unwrap_or(&address_text);
        // Nothing is asked of the host's resolver, either, for who could not have sent anything there.
        way.leads_to(told, self.destination).await?;
        let places = self.places(name).await?;
        let (mut permitted, mut decision, mut refused) = (Vec::new(), None, None);
        let principal = self.principal();
        if let Some(dialled) = places.dialled {
            match self.dialled_decision(&principal, name, kind, dialled) {
                decided if decided.is_allowed() => match self.aws_at(&way, name, dialled, Greetings::All).await {
                    None => {
                        permitted.push(dialled);
                        decision = Some(decided);
                    }
                    Some(aws) => refused = Some(Refused::Aws(is_aws(name, dialled, &aws))),
                },
                decided => refused = Some(Refused::Denied(Box::new(decided))),
            }
        }
        for address in places.resolved {
            let decided = self.decide(&principal, name, kind, address);
            if decided.is_allowed() {
                permitted.push(address);
                decision.get_or_insert(decided);
            } else {
                refused.get_or_insert(Refused::Denied(Box::new(decided)));
            }
        }
        let Some(decision) = decision else {
            return Err(refused.unwrap_or_else(|| TunnelError::Unknown { name: told.to_owned() }.into()));
        };
        let after = self.shared.limits.connect_timeout;
        let connected = tunnel::connect(told, &permitted, &way, after).await?;
        let reached = connected.peer_addr().map_err(|error| Refused::Unreached(error.to_string()))?;
        // A name of anybody's may be given AWS's address.
        if name.is_some()
            && places.dialled != Some(reached)
            && is_public(reached.ip())
            && let Some(aws) = self.aws_at(&way, name, reached, Greetings::Own).await
        {
            return Err(Refused::Aws(is_aws(name, reached, &aws)));
        }
        Ok((connected, decision))
    }

    async fn places(&self, name: Option<&str>) -> Result<Places, TunnelError> {
        let wanted = self.destination.ip().to_canonical();
        let Some(name) = name else {
            return if is_link_local(wanted) {
                Err(TunnelError::Forbidden { name: wanted.to_string(), address: wanted })
            } else {
                Ok(Places { dialled: Some(self.destination), resolved: Vec::new() })
            };
        };
        let after = self.shared.limits.connect_timeout;
        let resolved = tunnel::resolve(name, self.destination, &self.share, after).await?;
        let is_known = resolved.iter().any(|address| address.ip().to_canonical() == wanted);
        // The host's own answer holds for addresses of the internet's, of which large names have many.
        let may_be_its_networks = !is_known && !is_link_local(wanted) && (resolved.is_empty() || !is_public(wanted));
        Ok(Places { dialled: may_be_its_networks.then_some(self.destination), resolved })
    }

    /// Who the agent is for the policies. One whose identity is needed and missing or over is nobody in particular: it must
    /// get to where its token comes from.
    fn principal(&self) -> Principal {
        match self.shared.standing(&self.session) {
            Ok(standing) => standing.principal.clone(),
            Err(_) => self.shared.generation().engine.principal(&self.session.session),
        }
    }

    fn decide(&self, principal: &Principal, host: Option<&str>, kind: EgressKind, address: SocketAddr) -> Decision {
        let (session, exe) = (&*self.session.own.id, &*self.process.exe);
        self.shared.generation().engine.egress(principal, &Egress { kind, host, address, session, exe })
    }

    /// At an address that nothing but the agent gives that name.
    fn dialled_decision(
        &self,
        principal: &Principal,
        name: Option<&str>,
        kind: EgressKind,
        address: SocketAddr,
    ) -> Decision {
        let by_address = self.decide(principal, None, kind, address);
        if name.is_none() || !by_address.is_allowed() {
            by_address
        } else {
            self.decide(principal, name, kind, address)
        }
    }

    async fn aws_at(
        &self,
        way: &Way,
        name: Option<&str>,
        mut address: SocketAddr,
        greetings: Greetings,
    ) -> Option<String> {
        if address.port() == 80 {
            address.set_port(443);
        }
        let session = (!self.at_home).then_some(self.session.session.id);
        self.shared.presented.aws_at(way, session, name, address, greetings).await
    }
}

fn is_aws(name: Option<&str>, address: SocketAddr, aws: &str) -> String {
    let named = name.map_or_else(
        || "the connection has no server name".to_owned(),
        |name| format!("the connection is for `{name}`"),
    );
    format!("{named}, and at {} AWS answers, as `{aws}`: call it by its own name", address.ip())
}

/// An answer in the clear.
fn refusal(why: &str) -> Vec<u8> {
    let body = format!("Chaperone: {why}\n");
    let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
