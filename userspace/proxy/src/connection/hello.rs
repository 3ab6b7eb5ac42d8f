//! The ClientHello's name, read before anything is answered (RFC 8446, 4.1.2; RFC 6066, 3).
//!
//! rustls parses the same bytes again when the connection is opened, and what it finds is held against what was found
//! here; for connections that are passed on, these are the only eyes on them. What is refused is told by the alert that
//! TLS has for it.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use crate::connection::quota::Quota;

/// As much as rustls reads of one message. A ClientHello with post-quantum key shares is about 1.8 KiB, and tickets and
/// padding make some larger.
const MAX_HELLO: usize = 64 << 10;
/// What is counted against the share of whoever sends more.
const USUAL: usize = 16 << 10;
/// For an alert to be read, and what the other side was still sending.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: usize = 256 << 10;

/// What is wrong with a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It hides its real name.
    #[error("the ClientHello carries Encrypted Client Hello: its real name can't be seen")]
    Encrypted,
    /// It breaks off or contradicts itself.
    #[error("not a TLS ClientHello: {0}")]
    Malformed(&'static str),
    /// It names nobody.
    #[error("the ClientHello has no server name")]
    NoName,
    /// A record is longer than any may be.
    #[error("not a TLS ClientHello: a record's length is out of bounds")]
    Overflow,
    /// It is something else than a ClientHello, or than TLS.
    #[error("not a TLS ClientHello: {0}")]
    Unexpected(&'static str),
}

impl HelloError {
    /// The alert's number (RFC 8446, 6.2).
    fn alert(self) -> u8 {
        match self {
            Self::Unexpected(_) => 10, // unexpected_message
            Self::Overflow => 22,      // record_overflow
            Self::Encrypted => 40,     // handshake_failure
            Self::Malformed(_) => 50,  // decode_error
            Self::NoName => MISSING_EXTENSION,
        }
    }
}

/// What a ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The server name, in lower case.
    pub name: String,
    /// The only protocol that it asks for (RFC 7301); `None` where it names several, or none.
    pub protocol: Option<Vec<u8>>,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const PROTOCOLS: u16 = 16;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Reads a connection's ClientHello into `start`; `None`: it names nobody. Who sent something else is told so.
pub(crate) async fn read<S>(stream: &mut S, start: &mut BytesMut, share: &Arc<Quota>) -> Result<Option<Hello>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut memory = None;
    let refused = loop {
        match parse(start) {
            Some(Ok(hello)) => return Ok(Some(hello)),
            Some(Err(HelloError::NoName)) => return Ok(None),
            Some(Err(refused)) => break refused,
            None if start.len() >= MAX_HELLO => break HelloError::Malformed("it is larger than 64 KiB"),
            None => {}
        }
        if start.len() >= USUAL && memory.is_none() {
            memory = Some(share.hold(MAX_HELLO).map_err(|exceeded| exceeded.to_string())?);
        }
        match stream.read_buf(start).await {
            Ok(0) => return Err("the connection ended before its ClientHello".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    };
    alert(stream, refused.alert()).await;
    Err(refused.to_string())
}

/// `access_denied` (RFC 8446, 6.2).
pub(super) const ACCESS_DENIED: u8 = 49;
/// `missing_extension`: there, a name is needed.
pub(super) const MISSING_EXTENSION: u8 = 109;

/// Ends a handshake that hasn't been answered yet by a fatal alert.
pub(super) async fn alert<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, alert: u8) {
    take_leave(stream, &[21, 3, 3, 0, 2, 2, alert]).await;
}

/// Says why, and ends the connection. Closed at once, with bytes unread, it would be reset, and nobody read that.
pub(super) async fn take_leave<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, words: &[u8]) {
    let _ = timeout(FAREWELL, tell(stream, words)).await;
}

async fn tell<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, words: &[u8]) -> std::io::Result<()> {
    stream.write_all(words).await?;
    stream.shutdown().await?;
    let (mut space, mut left) = ([0; 4096], FAREWELL_BYTES);
    while left > 0 {
        match stream.read(&mut space).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// Reads a ClientHello from the first bytes of a connection. `None`: more bytes are needed.
pub fn parse(bytes: &[u8]) -> Option<Result<Hello, HelloError>> {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    loop {
        let [kind, major, _, high, low, after @ ..] = rest else { return unless_hopeless(rest) };
        if *kind != HANDSHAKE || *major != 3 {
            return Some(Err(HelloError::Unexpected("the first record isn't a handshake")));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 {
            return Some(Err(HelloError::Unexpected("an empty record of a handshake")));
        }
        if length > 16_384 {
            return Some(Err(HelloError::Overflow));
        }
        let fragment = after.get(..length)?;
        handshake.extend_from_slice(fragment);
        rest = &after[length..];
        if let [kind, a, b, c, message @ ..] = handshake.as_slice() {
            if *kind != CLIENT_HELLO {
                return Some(Err(HelloError::Unexpected("the first message isn't a ClientHello")));
            }
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap_or(usize::MAX);
            if let Some(message) = message.get(..length) {
                return Some(client_hello(message));
            }
        }
    }
}

/// Fewer bytes than a record's head: wait for more, unless what is there can't be TLS.
fn unless_hopeless(start: &[u8]) -> Option<Result<Hello, HelloError>> {
    match start {
        [kind, ..] if *kind != HANDSHAKE => Some(Err(HelloError::Unexpected("the first record isn't a handshake"))),
        _ => None,
    }
}

fn client_hello(message: &[u8]) -> Result<Hello, HelloError> {
    let mut fields = Fields(message);
    fields.take(2 + 32, "the version and random are cut short")?;
    fields.vector8("the session id is cut short")?;
    fields.vector16("the cipher suites are cut short")?;
    fields.vector8("the compression methods are cut short")?;
    if fields.0.is_empty() {
        return Err(HelloError::NoName);
    }
    let mut extensions = Fields(fields.vector16("the extensions are cut short")?);
    if !fields.0.is_empty() {
        return Err(HelloError::Malformed("bytes follow the extensions"));
    }
    let mut name = None;
    let mut encrypted = false;
    let mut protocols = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.u16("an extension is cut short")?;
        let body = extensions.vector16("an extension is cut short")?;
        match kind {
            SERVER_NAME if name.is_some() => return Err(HelloError::Malformed("two server name extensions")),
            SERVER_NAME => name = Some(server_name(body)?),
            ENCRYPTED_CLIENT_HELLO => encrypted = true,
            PROTOCOLS => protocols.push(only_protocol(body)),
            _ => {}
        }
    }
    match name {
        _ if encrypted => Err(HelloError::Encrypted),
        Some(name) => {
            let protocol = if protocols.len() == 1 { protocols.remove(0) } else { None };
            Ok(Hello { name, protocol })
        }
        None => Err(HelloError::NoName),
    }
}

/// The only name in a list of protocols. What can't be read names none: nobody here goes by it.
fn only_protocol(body: &[u8]) -> Option<Vec<u8>> {
    const CUT: &str = "the list of protocols is cut short";
    let mut outer = Fields(body);
    let mut list = Fields(outer.vector16(CUT).ok()?);
    let name = list.vector8(CUT).ok()?;
    (!name.is_empty() && list.0.is_empty() && outer.0.is_empty()).then(|| name.to_vec())
}

fn server_name(body: &[u8]) -> Result<String, HelloError> {
    let mut outer = Fields(body);
    let mut list = Fields(outer.vector16("the server name list is cut short")?);
    let kind = list.take(1, "the server name is cut short")?;
    let name = list.vector16("the server name is cut short")?;
    if kind != [0] || !list.0.is_empty() || !outer.0.is_empty() {
        return Err(HelloError::Malformed("more than one server name, or one of an unknown kind"));
    }
    host_name(name).ok_or(HelloError::Malformed("the server name isn't a DNS name"))
}

/// A DNS name in lower case: letters, digits, `-`, `_` and single dots; no address, at most 253 bytes.
pub fn host_name(bytes: &[u8]) -> Option<String> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if bytes.is_empty() || bytes.len() > 253 || !bytes.iter().all(fits) {
        return None;
    }
    let labels_fit = bytes.split(|byte| *byte == b'.').all(|label| !label.is_empty() && label.len() <= 63);
    let last_is_name = bytes.rsplit(|byte| *byte == b'.').next()?.iter().any(u8::is_ascii_alphabetic);
    (labels_fit && last_is_name).then(|| bytes.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

/// An address as a URL has it: IPv6 in brackets.
pub(super) fn address(host: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(host).ok()?;
    match text.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|v6| IpAddr::V6(v6).to_canonical()),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize, why: &'static str) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloError::Malformed(why))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self, why: &'static str) -> Result<u16, HelloError> {
        Ok(self.take(2, why)?.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte)))
    }

    fn vector8(&mut self, why: &'static str) -> Result<&'a [u8], HelloError> {
        let length = self.take(1, why)?[0];
        self.take(length.into(), why)
    }

    fn vector16(&mut self, why: &'static str) -> Result<&'a [u8], HelloError> {
        let length = self.u16(why)?;
        self.take(length.into(), why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello made by rustls, which nobody here wrote.
    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_found_whole_or_in_pieces() {
        let bytes = hello("S3.eu-west-1.amazonaws.com");
        assert_eq!(parse(&bytes).unwrap().unwrap().name, "s3.eu-west-1.amazonaws.com");
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None, "cut at {cut}");
        }
        // The same message in records of 64 bytes.
        let mut split = Vec::new();
        for piece in bytes[5..].chunks(64) {
            split.extend_from_slice(&[22, 3, 1, 0, u8::try_from(piece.len()).unwrap()]);
            split.extend_from_slice(piece);
        }
        assert_eq!(parse(&split).unwrap().unwrap().name, "s3.eu-west-1.amazonaws.com");
    }

    #[test]
    fn a_protocol_counts_where_it_is_the_only_one() {
        let of = |protocols: &[&[u8]]| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            let name = "a-ats.iot.eu-west-1.amazonaws.com".try_into().unwrap();
            let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
            let mut bytes = Vec::new();
            connection.write_tls(&mut bytes).unwrap();
            parse(&bytes).unwrap().unwrap().protocol
        };
        assert_eq!(of(&[b"x-amzn-mqtt-ca"]).as_deref(), Some(&b"x-amzn-mqtt-ca"[..]));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[b"x-amzn-mqtt-ca", b"h2"]), None);
        for bad in [&b""[..], &[0, 0], &[0, 1, 0], &[0, 2, 2, b'a'], &[0, 2, 1, b'a', 0], &[0, 4, 1, b'a', 1, b'b']] {
            assert_eq!(only_protocol(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_names_nobody_or_hides_is_an_error() {
        assert_eq!(parse(&hello("192.0.2.1")).unwrap(), Err(HelloError::NoName));
        assert!(matches!(parse(b"GET / HTTP/1.1\r\n").unwrap(), Err(HelloError::Unexpected(_))));
        let mut bytes = hello("example.com");
        // Turn the session ticket extension (35, empty) into an Encrypted Client Hello of the same length.
        let at = bytes.windows(4).position(|it| it == [0, 35, 0, 0]).unwrap();
        bytes[at..at + 2].copy_from_slice(&ENCRYPTED_CLIENT_HELLO.to_be_bytes());
        assert_eq!(parse(&bytes).unwrap(), Err(HelloError::Encrypted));
    }

    #[tokio::test]
    async fn what_is_refused_is_told_by_an_alert() {
        use crate::{Limits, connection::quota::Quotas};
        let share = Quotas::new(&Limits::default(), Arc::default()).of("/", "a");
        let record = |payload: &[u8]| {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            [&[22, 3, 1], &length[..], payload].concat()
        };
        let endless = [&[1, 0xff, 0xff, 0xff][..], &[0; 16_380]].concat();
        let mut cut = hello("example.com");
        let at = cut.len() - 1;
        cut[at] = 0xff;
        for (sent, alert) in [
            (record(&[]), 10),
            (record(&[2, 0, 0, 0]), 10),
            (vec![23, 3, 3, 0, 1, 0], 10),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 10),
            (vec![22, 3, 1, 0x40, 0x01], 22),
            (record(&endless).repeat(5), 50),
            (record(&[1, 0, 0, 2, 3, 3]), 50),
        ] {
            let (mut client, mut server) = tokio::io::duplex(1 << 20);
            client.write_all(&sent).await.unwrap();
            let told = tokio::spawn(async move {
                let mut told = Vec::new();
                client.read_to_end(&mut told).await.unwrap();
                told
            });
            let mut start = BytesMut::new();
            let refused = read(&mut server, &mut start, &share).await.unwrap_err();
            drop(server);
            assert_eq!(told.await.unwrap(), [21, 3, 3, 0, 2, 2, alert], "{refused}");
        }
        // Larger than any usual one, and whole.
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let name = hello("s3.amazonaws.com");
        client.write_all(&padded(&name, 40_000)).await.unwrap();
        let found = read(&mut server, &mut BytesMut::new(), &share).await.unwrap();
        assert_eq!(found.unwrap().name, "s3.amazonaws.com");
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        client.write_all(&hello("192.0.2.1")).await.unwrap();
        assert_eq!(read(&mut server, &mut BytesMut::new(), &share).await, Ok(None));
    }

    /// The same ClientHello with an extension of padding, in records as large as may be.
    fn padded(record: &[u8], padding: u16) -> Vec<u8> {
        let mut message = record[9..].to_vec();
        // The version, the random and the session's id; then the suites and the compression.
        let session = 35 + usize::from(message[34]);
        let suites = session + 2 + usize::from(u16::from_be_bytes([message[session], message[session + 1]]));
        let extensions = suites + 1 + usize::from(message[suites]);
        message.extend_from_slice(&21_u16.to_be_bytes());
        message.extend_from_slice(&padding.to_be_bytes());
        message.extend(vec![0; usize::from(padding)]);
        let length = u16::try_from(message.len() - extensions - 2).unwrap();
        message[extensions..extensions + 2].copy_from_slice(&length.to_be_bytes());
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let handshake = [&[1], &length[1..], &message].concat();
        let records = handshake.chunks(16_384);
        records
            .flat_map(|piece| [&[22, 3, 1], &u16::try_from(piece.len()).unwrap().to_be_bytes()[..], piece].concat())
            .collect()
    }

    #[test]
    fn no_single_changed_byte_makes_it_panic() {
        let bytes = hello("s3.amazonaws.com");
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = parse(&changed);
            }
        }
    }

    #[test]
    fn only_dns_names_are_names() {
        for bad in ["", ".", "a..b", "1.2.3.4", "a b", "a/b", "ex\u{e4}mple.com", "a.com.", "[::1]"] {
            assert_eq!(host_name(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(host_name(b"My_Bucket.s3.amazonaws.com").as_deref(), Some("my_bucket.s3.amazonaws.com"));
    }
}
