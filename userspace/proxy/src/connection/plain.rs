//! Connections that begin with a request in the clear.

use std::{net::IpAddr, sync::Arc};

use bytes::BytesMut;
use chaperone_policy::EgressKind;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::{
    connection::{
        accepted::{Accepted, Opening},
        hello,
        prefixed::Prefixed,
        reach::is_public,
    },
    http::strict::{MAX_FIELDS, MAX_HEAD_BYTES},
};

/// What a request in the clear is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl Accepted {
    pub(super) async fn plain(
        self: Arc<Self>,
        mut stream: TcpStream,
        mut start: BytesMut,
    ) -> Result<(u64, u64), String> {
        start.reserve(2048);
        let host = timeout(self.shared.limits.handshake_timeout, async {
            loop {
                if let Some(host) = host_field(&start)? {
                    return Ok(host);
                }
                if start.len() > MAX_HEAD_BYTES {
                    return Err("the request head is larger than 64 KiB".to_owned());
                }
                match stream.read_buf(&mut start).await {
                    Ok(0) => return Err("the connection ended before its request".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        });
        let host = host.await.map_err(|_| "no request head came in time".to_owned())??;
        let stream = Prefixed { start: start.freeze(), stream };
        let host = match host {
            Host::Name(host) => host,
            Host::Address(address) if address == self.target().ip().to_canonical() => {
                return Box::pin(self.pass_on(None, EgressKind::Http, stream)).await;
            }
            Host::Address(address) => {
                return Err(format!("the request's Host is {address}, which is not where it was sent to"));
            }
        };
        if let Some(asked) = self.asked.get().and_then(|asked| asked.name.as_ref()).filter(|asked| **asked != host) {
            return Err(format!("the proxy was asked for `{asked}`, and the request is for `{host}`"));
        }
        if self.shared.catalog.host(&host).is_none() && !self.shared.generation().is_inspected(&host) {
            return Box::pin(self.pass_on(Some(&host), EgressKind::Http, stream)).await;
        }
        self.check_reach(&host).await?;
        Box::pin(self.open(Opening::inspected(&host, self.target()))).await?;
        // At an address that is this name's alone, other names are not asked for.
        let name = Some(host.as_str()).filter(|_| !is_public(self.target().ip()));
        Box::pin(self.serve_http1(name, stream)).await
    }
}

/// The Host of a request head: `None` until the head is whole. What is wrong with it in other ways, the strict reader
/// or the other side will say.
fn host_field(start: &[u8]) -> Result<Option<Host>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(start) {
        Err(error) => Err(format!("not an HTTP/1.1 request: {error}")),
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(_)) => {
            let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
            let (Some(host), None) = (hosts.next(), hosts.next()) else {
                return Err("the request has not exactly one Host field".to_owned());
            };
            let host = host.value.strip_suffix(b":80").unwrap_or(host.value);
            let name = hello::host_name(host).map(Host::Name).or_else(|| hello::address(host).map(Host::Address));
            name.map(Some).ok_or_else(|| "the request's Host is not a plain DNS name or an address".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let of = |host: &str| host_field(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let name = |name: &str| Ok(Some(Host::Name(name.to_owned())));
        let address = |text: &str| Ok(Some(Host::Address(text.parse().unwrap())));
        assert_eq!(of("Example.com:80"), name("example.com"));
        assert_eq!(of("192.0.2.1"), address("192.0.2.1"));
        assert_eq!(of("[2001:db8::1]:80"), address("2001:db8::1"));
        assert_eq!(of("[::ffff:192.0.2.1]"), address("192.0.2.1"));
        for bad in ["", "2001:db8::1", "[192.0.2.1]", "192.0.2.1:8080", "3232235777", "0x7f.1", "a b", "[::1%lo]"] {
            assert!(of(bad).is_err(), "{bad}: {:?}", of(bad));
        }
        assert!(host_field(b"GET / HTTP/1.1\r\nHost: a.com\r\nHost: b.com\r\n\r\n").is_err());
    }
}
