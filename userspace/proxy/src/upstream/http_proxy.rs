//! An HTTP proxy between this host and the internet: asked by `CONNECT` (RFC 9110, 9.3.6), and told nothing but where to.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::spawn_blocking,
};

use crate::connection::hello::host_name;

/// The largest answer's head.
const MAX_ANSWER: usize = 16 << 10;
const MAX_FIELDS: usize = 100;
/// The largest file of credentials.
const MAX_CREDENTIALS: u64 = 4 << 10;

/// Where the daemon goes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    All,
    /// And everything below it.
    Name(String),
    Network(IpAddr, u8),
}

/// The proxy that the daemon goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProxy {
    host: String,
    port: u16,
    credentials_file: Option<PathBuf>,
    direct: Vec<Direct>,
}

impl HttpProxy {
    /// By its URL, such as `http://proxy.corp.example:3128`; a file with `user:password`; and what needs no proxy: names,
    /// each with all below it, addresses, networks (`10.0.0.0/8`), or `*`.
    pub fn new(url: &str, credentials_file: Option<&Path>, no_proxy: &[String]) -> Result<Self, String> {
        let wrong = || {
            format!("`{url}` is not a proxy's URL: write `http://HOST:PORT`, and its credentials into credentials_file")
        };
        let authority = url.strip_prefix("http://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(host);
        if bare.parse::<IpAddr>().is_err() && host_name(host.as_bytes()).is_none() {
            return Err(wrong());
        }
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let direct = no_proxy.iter().map(|text| direct(text)).collect::<Result<_, _>>()?;
        Ok(Self { host: bare.to_owned(), port, credentials_file: credentials_file.map(Path::to_owned), direct })
    }

    /// Whether this is reached by the proxy.
    pub(crate) fn is_for(&self, name: Option<&str>, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !self.direct.iter().any(|direct| match direct {
            Direct::All => true,
            Direct::Name(own) => name.is_some_and(|name| {
                name.strip_suffix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            Direct::Network(network, bits) => is_within(address, *network, *bits),
        })
    }

    /// A connection by the proxy to `HOST:PORT`, with what the other side has said already.
    pub(crate) async fn connect(&self, authority: &str) -> io::Result<(TcpStream, Bytes)> {
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("by the proxy {}:{}: {error}", self.host, self.port))
        };
        let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(file) = self.credentials_file.clone() {
            let credentials = spawn_blocking(move || credentials(&file)).await.map_err(io::Error::other)??;
            let credentials = BASE64_STANDARD.encode(credentials);
            head.extend(["Proxy-Authorization: Basic ", &credentials, "\r\n"]);
        }
        head.push_str("\r\n");
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true)?;
        let said = ask(&mut stream, head.as_bytes()).await.map_err(failed)?;
        Ok((stream, said))
    }
}

/// Asks a proxy for a connection by this head; gives what the other side has said after the proxy's answer.
pub(crate) async fn ask(stream: &mut TcpStream, head: &[u8]) -> io::Result<Bytes> {
    stream.write_all(head).await?;
    let mut answer = BytesMut::with_capacity(512);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the proxy closed the connection"));
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&answer).map_err(|error| io::Error::other(format!("the proxy's answer: {error}")))? {
            httparse::Status::Partial if answer.len() > MAX_ANSWER => {
                return Err(io::Error::other("the proxy's answer is larger than 16 KiB"));
            }
            httparse::Status::Partial => {}
            httparse::Status::Complete(length) => {
                let status = response.code.unwrap_or_default();
                return match status {
                    200..=299 => Ok(answer.freeze().slice(length..)),
                    407 => Err(io::Error::other("the proxy wants other credentials (407)")),
                    _ => Err(io::Error::other(format!("the proxy refused it ({status})"))),
                };
            }
        }
    }
}

fn credentials(file: &Path) -> io::Result<String> {
    let failed =
        |why: &dyn std::fmt::Display| io::Error::other(format!("the proxy's credentials in {}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| failed(&error))?.len();
    if length > MAX_CREDENTIALS {
        return Err(failed(&"too large"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if !text.contains(':') || text.chars().any(char::is_control) {
        return Err(failed(&"one line, `user:password`, is wanted"));
    }
    Ok(text.to_owned())
}

fn direct(text: &str) -> Result<Direct, String> {
    if text == "*" {
        return Ok(Direct::All);
    }
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    if let Ok(address) = address.parse::<IpAddr>() {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most));
        return bits
            .map(|bits| Direct::Network(address, bits))
            .ok_or_else(|| format!("no_proxy: `{text}` is not a network"));
    }
    let name = text.trim_start_matches("*.").trim_start_matches('.');
    host_name(name.as_bytes())
        .map(Direct::Name)
        .ok_or_else(|| format!("no_proxy: `{text}` is neither a name nor an address, a network or `*`"))
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let shift = 32 - u32::from(bits);
            u32::from(address).checked_shr(shift) == u32::from(network).checked_shr(shift)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let shift = 128 - u32::from(bits);
            u128::from(address).checked_shr(shift) == u128::from(network).checked_shr(shift)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn proxy(no_proxy: &[&str]) -> HttpProxy {
        let no_proxy: Vec<String> = no_proxy.iter().map(|&text| text.to_owned()).collect();
        HttpProxy::new("http://proxy.example:3128", None, &no_proxy).unwrap()
    }

    #[test]
    fn what_needs_no_proxy_is_named_or_in_a_network() {
        let proxy =
            proxy(&["internal.example", ".corp.example", "*.dev.example", "10.0.0.0/8", "192.0.2.1", "fd00::/8"]);
        let is_for = |name, address: &str| proxy.is_for(name, address.parse().unwrap());
        for (name, address) in [
            (Some("internal.example"), "203.0.113.1"),
            (Some("a.internal.example"), "203.0.113.1"),
            (Some("a.corp.example"), "203.0.113.1"),
            (Some("b.dev.example"), "203.0.113.1"),
            (Some("example.com"), "10.1.2.3"),
            (None, "::ffff:10.1.2.3"),
            (None, "192.0.2.1"),
            (None, "fd12::1"),
        ] {
            assert!(!is_for(name, address), "{name:?} {address}");
        }
        for (name, address) in [(Some("notinternal.example"), "11.0.0.1"), (None, "192.0.2.2"), (None, "2001:db8::1")] {
            assert!(is_for(name, address), "{name:?} {address}");
        }
        assert!(
            !HttpProxy::new("http://p.example:1", None, &["*".to_owned()])
                .unwrap()
                .is_for(Some("a.com"), "2001:db8::1".parse().unwrap())
        );
        assert!(
            !HttpProxy::new("http://p.example:1", None, &["0.0.0.0/0".to_owned()])
                .unwrap()
                .is_for(None, "203.0.113.1".parse().unwrap())
        );
    }

    #[test]
    fn what_is_not_a_proxys_url_is_refused() {
        for url in ["http://proxy.example:3128/", "http://10.0.0.1:8080", "http://[::1]:3128"] {
            HttpProxy::new(url, None, &[]).unwrap();
        }
        for url in [
            "proxy.example:3128",
            "https://proxy.example:3128",
            "http://proxy.example",
            "http://a b:1",
            "http://p:0",
            "http://user:secret@proxy.example:3128",
            "http://proxy.example:3128/path",
        ] {
            assert!(HttpProxy::new(url, None, &[]).is_err(), "{url}");
        }
        for bad in ["10.0.0.0/33", "a b", ""] {
            assert!(HttpProxy::new("http://p.example:1", None, &[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn it_is_asked_with_credentials_and_its_answer_is_read_to_the_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let answers = [
            "HTTP/1.1 200 OK\r\nVia: x\r\n\r\nSSH-2.0",
            "HTTP/1.1 407 No\r\n\r\n",
            "HTTP/1.1 503 No\r\n\r\n",
            "nonsense\r\n\r\n",
        ];
        let told = tokio::spawn(async move {
            let mut told = String::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 4096];
                let length = stream.read(&mut asked).await.unwrap();
                told = String::from_utf8(asked[..length].to_vec()).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            told
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy");
        std::fs::write(&file, "me:secret\n").unwrap();
        let proxy = HttpProxy::new(&format!("http://{at}"), Some(&file), &[]).unwrap();
        let (_, said) = proxy.connect("a.example:443").await.unwrap();
        assert_eq!(said, "SSH-2.0");
        for why in ["credentials", "(503)", "answer"] {
            let error = proxy.connect("a.example:443").await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let told = told.await.unwrap();
        let expected =
            "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n";
        assert_eq!(told, expected);
    }
}
