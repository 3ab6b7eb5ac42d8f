//! Connections that are passed on byte for byte: not AWS.
//!
//! Where to, the host's resolver says by the name that the agent told. What it doesn't know, or has elsewhere, may be a name
//! of the agent's own network (its /etc/hosts, its container engine's DNS): such a name, and no name at all, is met where
//! the agent dialled, after it has been seen that AWS isn't there (`presented.rs`). There the name is the agent's claim
//! alone, and so the policies must permit the address without it, too.

use std::{io, net::SocketAddr, sync::Arc};

use chaperone_capture::ALTERNATE_HTTPS;
use chaperone_model::{ConnectionKind, Decision};
use chaperone_policy::{Egress, EgressKind, Principal};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split},
    net::TcpStream,
};

use crate::connection::{
    accepted::{Accepted, Opening},
    hello::{self, ACCESS_DENIED, MISSING_EXTENSION},
    prefixed::Prefixed,
    presented::{Greetings, There},
    reach::is_public,
    tunnel::{self, Tunnel, TunnelError, Way, is_link_local},
};

/// Why a connection isn't passed on.
enum Refused {
    /// AWS is there, or may be.
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
    /// What the host's resolver has for the name, or what stands for whatever a proxy finds.
    vouched: Vec<SocketAddr>,
}

impl Accepted {
    /// Passes a connection on; `name`: the one that it is for.
    pub(super) async fn pass_on(
        self: Arc<Self>,
        name: Option<&str>,
        kind: EgressKind,
        mut stream: Prefixed,
    ) -> Result<(u64, u64), String> {
        let mut upstream = self.reach(name, kind, &mut stream).await?;
        let copied = tokio::select! {
            // A tunnel has no end of its own to wait for.
            () = self.shared.stop.cancelled() => return Err("the daemon stopped".to_owned()),
            copied = tunnel::copy(&mut stream, &mut upstream) => copied,
        };
        copied.map_err(|error| error.to_string())
    }

    /// Passes one request on to the proxy that it was sent to: the head that was made for it, and a body of so many bytes.
    pub(super) async fn pass_request_on(
        self: Arc<Self>,
        name: Option<&str>,
        mut stream: Prefixed,
        body: u64,
    ) -> Result<(u64, u64), String> {
        let mut upstream = self.reach(name, EgressKind::Http, &mut stream).await?;
        let head = self.asked.get().map(|asked| asked.head.clone()).unwrap_or_default();
        let (mut from_agent, mut to_agent) = split(&mut stream);
        let (mut from_proxy, mut to_proxy) = split(&mut upstream);
        let up = async {
            to_proxy.write_all(&head).await?;
            copy(&mut (&mut from_agent).take(body), &mut to_proxy).await
        };
        let down = async {
            let received = copy(&mut from_proxy, &mut to_agent).await?;
            to_agent.shutdown().await?;
            Ok(received)
        };
        let both = async {
            // An answer may come, and all be over, before the body was taken.
            let (sent, received) = tokio::join!(up, down);
            received.map(|received| (sent.unwrap_or(0) + head.len() as u64, received))
        };
        tokio::select! {
            () = self.shared.stop.cancelled() => Err("the daemon stopped".to_owned()),
            done = both => done.map_err(|error: io::Error| error.to_string()),
        }
    }

    /// The other side, once it is recorded that the connection is passed on; else what the agent is told.
    async fn reach(&self, name: Option<&str>, kind: EgressKind, stream: &mut Prefixed) -> Result<Tunnel, String> {
        if let Some(stop) = self.shared.stops.of(&self.session.session) {
            let why = format!("{} is stopped", stop.of);
            self.open(Opening::refused(name, why.clone())).await?;
            return Err(why);
        }
        let told = name.or_else(|| self.asked.get()?.name.as_deref());
        let refused = match Box::pin(self.reach_out(name, told, kind, &stream.stream)).await {
            Ok((upstream, address, decision)) => {
                self.shared.metrics.passed.inc();
                let (kind, decision) = (ConnectionKind::Passed, Some(decision));
                self.open(Opening { name: told, upstream: Some(address), kind, error: None, decision }).await?;
                return Ok(upstream);
            }
            Err(refused) => refused,
        };
        let (why, decision, is_told) = match refused {
            Refused::Aws(why) => (why, None, true),
            Refused::Denied(decision) => (decision.message.clone(), Some(*decision), true),
            Refused::Unreached(why) => (why, None, false),
        };
        let alert = if name.is_none() && decision.is_none() { MISSING_EXTENSION } else { ACCESS_DENIED };
        self.open(Opening { decision, ..Opening::refused(told, why.clone()) }).await?;
        match kind {
            EgressKind::Mqtt | EgressKind::Tls if is_told => hello::alert(stream, alert).await,
            EgressKind::Http if is_told => hello::take_leave(stream, &refusal(&why)).await,
            _ => {}
        }
        Err(why)
    }

    /// `greeting`: the name in the ClientHello; `name`: that, or the one that a proxy was asked for.
    async fn reach_out(
        &self,
        greeting: Option<&str>,
        name: Option<&str>,
        kind: EgressKind,
        agent: &TcpStream,
    ) -> Result<(Tunnel, SocketAddr, Decision), Refused> {
        let way = if self.at_home { Way::home() } else { Way::of(agent)? };
        let asked = self.asked.get().map(|it| (self.destination, it.connects.then(|| it.head.clone())));
        let way = way.by(self.shared.upstream.proxy.as_ref(), asked);
        let address = self.target().ip().to_string();
        let told = name.unwrap_or(&address);
        // Nothing is asked of the host's resolver, either, for who could not have sent anything there.
        way.leads_to(told, self.destination).await?;
        let mut places = self.places(name, &way).await?;
        if kind == EgressKind::Mqtt {
            // It is AWS's name, and goes where the host has it; that AWS answers there is as it should be.
            places.dialled = None;
        }
        let (mut permitted, mut decision, mut refused) = (Vec::new(), None, None);
        let principal = self.principal();
        if let Some(dialled) = places.dialled {
            match self.dialled_decision(&principal, name, kind, dialled) {
                decided if decided.is_allowed() => match self.aws_at(&way, greeting, dialled, Greetings::All).await {
                    Ok(()) => {
                        permitted.push(dialled);
                        decision = Some(decided);
                    }
                    Err(why) => refused = Some(Refused::Aws(why)),
                },
                decided => refused = Some(Refused::Denied(Box::new(decided))),
            }
        }
        for address in places.vouched {
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
        let is_vouched_for = |address| name.is_some() && places.dialled != Some(address);
        let (tunnel, reached) = tunnel::connect(told, &permitted, is_vouched_for, &way, after).await?;
        // A name of anybody's may be given AWS's address.
        if kind != EgressKind::Mqtt
            && is_vouched_for(reached)
            && (self.asked.get().is_some() || is_public(reached.ip()))
        {
            let greetings = if greeting.is_some() { Greetings::Own } else { Greetings::All };
            self.aws_at(&way, greeting, reached, greetings).await.map_err(Refused::Aws)?;
        }
        Ok((tunnel, reached, decision))
    }

    async fn places(&self, name: Option<&str>, way: &Way) -> Result<Places, TunnelError> {
        let target = self.target();
        let wanted = target.ip().to_canonical();
        let Some(name) = name else {
            return if is_link_local(wanted) {
                Err(TunnelError::Forbidden { name: wanted.to_string(), address: wanted })
            } else {
                Ok(Places { dialled: Some(target), vouched: Vec::new() })
            };
        };
        // Of an address that a proxy was asked for, the name is the agent's claim, too.
        let is_resolved_there = self.asked.get().is_some_and(|asked| asked.name.is_some());
        if is_resolved_there {
            return Ok(Places { dialled: None, vouched: vec![target] });
        }
        let after = self.shared.limits.connect_timeout;
        let vouched = tunnel::resolve(name, target, &self.share, after).await?;
        let is_known = vouched.iter().any(|address| address.ip().to_canonical() == wanted);
        if vouched.is_empty() && way.is_by_proxy(name, target) && is_public(wanted) && self.asked.get().is_none() {
            // Behind a proxy there may be no resolver that knows it: the proxy has one.
            return Ok(Places { dialled: None, vouched: vec![target] });
        }
        // The host's own answer holds for addresses of the internet's, of which large names have many.
        let may_be_its_networks = !is_known && !is_link_local(wanted) && (vouched.is_empty() || !is_public(wanted));
        Ok(Places { dialled: may_be_its_networks.then_some(target), vouched })
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
        let (session, exe, argv) = (&*self.session.own.id, &*self.process.exe, &*self.process.argv);
        let (at, session_started) = (OffsetDateTime::now_utc(), self.session.session.started);
        self.shared
            .generation()
            .engine
            .egress(principal, &Egress { kind, host, address, session, exe, argv, at, session_started })
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

    /// Why a connection can't go there: AWS is there, or it can't be told. `greeting`: the name that the agent greets it by.
    async fn aws_at(
        &self,
        way: &Way,
        greeting: Option<&str>,
        mut address: SocketAddr,
        greetings: Greetings,
    ) -> Result<(), String> {
        let is_plain = address.port() == 80;
        match address.port() {
            443 | ALTERNATE_HTTPS => {}
            // AWS's servers have both.
            80 if self.asked.get().is_none() => address.set_port(443),
            _ => return Ok(()),
        }
        let session = (!self.at_home || self.asked.get().is_some()).then_some(self.session.session.id);
        let named = || {
            greeting.map_or_else(
                || "the connection has no server name".to_owned(),
                |name| format!("the connection is for `{name}`"),
            )
        };
        let ip = address.ip();
        match self.shared.presented.aws_at(way, session, greeting, address, greetings).await {
            There::Others => Ok(()),
            There::Aws(aws) => {
                Err(format!("{}, and at {ip} AWS answers, as `{aws}`: call it by its own name", named()))
            }
            // A server of the agent's own network in the clear, whose port 443 a firewall swallows.
            There::Silent if is_plain && !is_public(ip) => Ok(()),
            There::Silent => Err(format!("{}, and {ip} doesn't say in time whether it is AWS's: try again", named())),
        }
    }
}

/// An answer in the clear.
fn refusal(why: &str) -> Vec<u8> {
    let body = format!("Chaperone: {why}\n");
    let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
