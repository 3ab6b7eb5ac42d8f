//! Connections to a proxy that agents dial: what it is asked for is judged as if the agent had gone there by itself.
//!
//! A `CONNECT` is answered here, so that what follows can be looked at. What is passed on then goes by that same proxy, with
//! the agent's own credentials for it and by a head that is written anew, so that it is asked for what was judged; AWS is
//! reached as it always is. A request in the clear (in absolute form, RFC 9112, 3.2.2) has its connection for itself: the
//! next one may be for another host.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use chaperone_capture::{ALTERNATE_HTTPS, is_metadata};
use chaperone_policy::EgressKind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    connection::{
        accepted::{Accepted, Asked},
        hello::{self, host_name, take_leave},
        prefixed::Prefixed,
        tunnel::look_up,
    },
    http::strict::{MAX_FIELDS, MAX_HEAD_BYTES},
};

/// What a proxy is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    /// A connection, by this head.
    Connection { host: String, port: u16, head: String },
    /// An answer: by this head at the server, by that at a proxy; with a body of so many bytes.
    Answer { host: String, head: String, proxys: String, body: u64 },
}

/// What is between an agent and its proxy, and nobody else's.
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"];

impl Accepted {
    pub(super) async fn asked_as_proxy(self: Arc<Self>, mut stream: TcpStream) -> Result<(u64, u64), String> {
        let mut start = BytesMut::with_capacity(2048);
        let wish = timeout(self.shared.limits.handshake_timeout, async {
            loop {
                match wish(&start) {
                    Some((wish, length)) => return wish.map(|wish| (wish, length)),
                    None if start.len() > MAX_HEAD_BYTES => {
                        return Err(Unreadable {
                            status: "431 Request Header Fields Too Large",
                            why: "the head is larger than 64 KiB",
                        });
                    }
                    None => {}
                }
                match stream.read_buf(&mut start).await {
                    Ok(0) | Err(_) => {
                        return Err(Unreadable { status: "", why: "the connection ended before its request" });
                    }
                    Ok(_) => {}
                }
            }
        });
        let (wish, length) = match wish.await.map_err(|_| "no request to the proxy came in time".to_owned())? {
            Ok(found) => found,
            Err(Unreadable { status, why }) => {
                if !status.is_empty() {
                    take_leave(&mut stream, answer(status, why).as_bytes()).await;
                }
                return Err(format!("what the proxy was asked: {why}"));
            }
        };
        let rest = start.split_off(length);
        match wish {
            Wish::Connection { host, port, head } => Box::pin(self.tunnelled(stream, rest, &host, port, head)).await,
            Wish::Answer { host, head, proxys, body } => {
                self.note(&host, 80, proxys.into_bytes().into(), false).await;
                if is_metadata(self.target().ip()) {
                    // Clients that mind `HTTP_PROXY` there, too.
                    let start = [head.as_bytes(), &rest].concat().into();
                    return Box::pin(self.serve_metadata(Prefixed { start, stream })).await;
                }
                let catalogued = self.shared.catalog.host(&host).is_some();
                if catalogued || self.shared.generation().is_inspected(&host) {
                    let mut request = BytesMut::from(head.as_bytes());
                    request.extend_from_slice(&rest);
                    return Box::pin(self.plain(stream, request)).await;
                }
                let name = host_name(host.as_bytes());
                let stream = Prefixed { start: rest.freeze(), stream };
                Box::pin(self.pass_request_on(name.as_deref(), stream, body)).await
            }
        }
    }

    /// Notes what the proxy is asked for.
    async fn note(&self, host: &str, port: u16, head: Bytes, connects: bool) {
        let literal = address(host);
        let name = host_name(host.as_bytes());
        let ip = match (literal, &name) {
            (Some(ip), _) => ip,
            (None, Some(name)) => {
                // Behind a proxy there may be no resolver that knows it.
                let found = timeout(self.shared.limits.connect_timeout, look_up(name, port, &self.share)).await;
                let found = found.ok().and_then(Result::ok).and_then(|found| found.first().map(SocketAddr::ip));
                found.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
            }
            (None, None) => Ipv4Addr::UNSPECIFIED.into(),
        };
        let _ = self.asked.set(Asked { name, address: SocketAddr::new(ip, port), head, connects });
    }

    async fn tunnelled(
        self: Arc<Self>,
        mut stream: TcpStream,
        start: BytesMut,
        host: &str,
        port: u16,
        head: String,
    ) -> Result<(u64, u64), String> {
        self.note(host, port, head.into_bytes().into(), true).await;
        let opened = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
        opened.map_err(|error| error.to_string())?;
        match port {
            _ if is_metadata(self.target().ip()) => {
                Box::pin(self.serve_metadata(Prefixed { start: start.freeze(), stream })).await
            }
            443 | ALTERNATE_HTTPS => self.tls(stream, start).await,
            80 => self.plain(stream, start).await,
            _ => {
                let name = host_name(host.as_bytes());
                let stream = Prefixed { start: start.freeze(), stream };
                Box::pin(self.pass_on(name.as_deref(), EgressKind::Tcp, stream)).await
            }
        }
    }
}

/// Why it isn't known what a proxy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unreadable {
    /// What the agent is told.
    status: &'static str,
    why: &'static str,
}

/// What a head asks a proxy for, and its length; `None` until it is whole.
fn wish(start: &[u8]) -> Option<(Result<Wish, Unreadable>, usize)> {
    let bad = |why| Err(Unreadable { status: "400 Bad Request", why });
    if start.first() == Some(&22) {
        return Some((
            Err(Unreadable { status: "", why: "TLS with the proxy itself is not supported: name it by http://" }),
            0,
        ));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(start) {
        Err(_) => Some((bad("not an HTTP/1.1 request"), 0)),
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(length)) => Some((read(&request), length)),
    }
}

fn read(request: &httparse::Request<'_, '_>) -> Result<Wish, Unreadable> {
    let bad = |why| Unreadable { status: "400 Bad Request", why };
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let field = |name: &str| {
        let mut found = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        (found.next().map(|field| field.value), found.next().is_some())
    };
    let text = |value: &[u8]| std::str::from_utf8(value).map(str::to_owned).map_err(|_| bad("a field isn't text"));
    let mut for_proxy = String::new();
    for name in ["Proxy-Authorization", "User-Agent"] {
        if let (Some(value), _) = field(name) {
            let _ = write!(for_proxy, "{name}: {}\r\n", text(value)?);
        }
    }
    if method == "CONNECT" {
        let (host, port) = host_and_port(target, None).ok_or_else(|| bad("CONNECT's target isn't HOST:PORT"))?;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{for_proxy}\r\n");
        return Ok(Wish::Connection { host, port, head });
    }
    let (scheme, rest) =
        target.split_once("://").ok_or_else(|| bad("a proxy is asked by CONNECT or for a whole URL"))?;
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(bad("a URL of another scheme than http: use CONNECT"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) =
        host_and_port(authority, Some(80)).ok_or_else(|| bad("the URL's host isn't a name or an address"))?;
    if port != 80 {
        return Err(Unreadable {
            status: "403 Forbidden",
            why: "in the clear, Chaperone takes requests to port 80 alone: use CONNECT",
        });
    }
    // What the body is must be known to know where it ends.
    if field("transfer-encoding").0.is_some() {
        return Err(Unreadable { status: "411 Length Required", why: "a body without its length" });
    }
    let body = match field("content-length") {
        (None, _) => 0,
        (Some(length), false) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            text(length)?.parse().map_err(|_| bad("a length that is too large"))?
        }
        _ => return Err(bad("more than one length, or none that is a number")),
    };
    let mut fields = format!("Host: {authority}\r\n");
    for field in request.headers.iter() {
        let name = field.name.to_ascii_lowercase();
        if name == "host" || name.starts_with("proxy-") || HOP_BY_HOP.contains(&name.as_str()) {
            continue;
        }
        let _ = write!(fields, "{}: {}\r\n", field.name, text(field.value)?);
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let credentials = match field("proxy-authorization") {
        (Some(value), _) => format!("Proxy-Authorization: {}\r\n", text(value)?),
        (None, _) => String::new(),
    };
    let head = format!("{method} {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    let proxys =
        format!("{method} http://{authority}{path} HTTP/1.1\r\n{fields}{credentials}Connection: close\r\n\r\n");
    Ok(Wish::Answer { host, head, proxys, body })
}

/// A name in lower case or an address, and a port.
fn host_and_port(authority: &str, usual: Option<u16>) -> Option<(String, u16)> {
    let split = authority.rsplit_once(':').filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
    let (host, port) = match (split, usual) {
        (Some((host, port)), _) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port.parse().ok()?),
        (None, Some(usual)) => (authority, usual),
        _ => return None,
    };
    let host = host_name(host.as_bytes()).or_else(|| address(host).map(|_| host.to_owned()))?;
    (port != 0).then_some((host, port))
}

/// An address as a URL has it: IPv6 in brackets.
fn address(host: &str) -> Option<IpAddr> {
    hello::address(host.as_bytes())
}

fn answer(status: &str, why: &str) -> String {
    let body = format!("Chaperone: {why}\n");
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str) -> Result<Wish, Unreadable> {
        let (wish, length) = wish(head.as_bytes()).unwrap();
        if wish.is_ok() {
            assert_eq!(length, head.len());
        }
        wish
    }

    #[test]
    fn a_connection_is_asked_for_anew() {
        let head = "CONNECT Example.com:443 HTTP/1.1\r\nHost: other.example:443\r\nProxy-Authorization: Basic eA==\r\nX: y\r\n\r\n";
        let expected =
            "CONNECT Example.com:443 HTTP/1.1\r\nHost: Example.com:443\r\nProxy-Authorization: Basic eA==\r\n\r\n";
        let wish = Wish::Connection { host: "example.com".into(), port: 443, head: expected.into() };
        assert_eq!(of(head), Ok(wish));
        for (target, host, port) in [("[2001:db8::1]:443", "[2001:db8::1]", 443), ("192.0.2.1:22", "192.0.2.1", 22)] {
            let Ok(Wish::Connection { host: found, port: at, .. }) = of(&format!("CONNECT {target} HTTP/1.1\r\n\r\n"))
            else {
                panic!("{target}")
            };
            assert_eq!((found.as_str(), at), (host, port));
        }
        for bad in [
            "example.com",
            "example.com:",
            "example.com:99999",
            "a@example.com:443",
            "2001:db8::1:443",
            "[x]:443",
            "/:443",
            "example.com:0",
            "example.com:+443",
        ] {
            assert!(of(&format!("CONNECT {bad} HTTP/1.1\r\n\r\n")).is_err(), "{bad}");
        }
        assert_eq!(wish_of_nothing(), None);
    }

    fn wish_of_nothing() -> Option<usize> {
        wish(b"CONNECT a.com:443 HTTP/1.1\r\n").map(|(_, length)| length)
    }

    #[test]
    fn a_request_in_the_clear_is_one_and_has_a_length() {
        let head = "POST http://Example.com/a?b HTTP/1.1\r\nHost: x\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nContent-Length: 5\r\nUpgrade: h2c\r\n\r\n";
        let Ok(Wish::Answer { host, head, proxys, body }) = of(head) else { panic!() };
        assert_eq!((host.as_str(), body), ("example.com", 5));
        assert_eq!(head, "POST /a?b HTTP/1.1\r\nHost: Example.com\r\nContent-Length: 5\r\nConnection: close\r\n\r\n");
        assert_eq!(
            proxys,
            "POST http://Example.com/a?b HTTP/1.1\r\nHost: Example.com\r\nContent-Length: 5\r\nProxy-Authorization: Basic eA==\r\nConnection: close\r\n\r\n"
        );
        for (head, status) in [
            ("GET /path HTTP/1.1\r\nHost: a.com\r\n\r\n", "400"),
            ("GET https://a.com/ HTTP/1.1\r\n\r\n", "400"),
            ("GET http://user@a.com/ HTTP/1.1\r\n\r\n", "400"),
            ("GET http://a.com:8080/ HTTP/1.1\r\n\r\n", "403"),
            ("POST http://a.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "411"),
            ("POST http://a.com/ HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "400"),
            ("POST http://a.com/ HTTP/1.1\r\nContent-Length: +5\r\n\r\n", "400"),
        ] {
            assert!(of(head).unwrap_err().status.starts_with(status), "{head}");
        }
        assert_eq!(of("\u{16}\u{3}\u{1}").unwrap_err().status, "");
    }
}
