//! WebSockets (RFC 6455): which handshakes are taken for one, which answers open it, and the frames that an agent sends.
//!
//! Extensions are not passed on, so that nothing is compressed: what passes can be read in the record.

use std::collections::VecDeque;

use aws_lc_rs::digest;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use chaperone_aws::{EventResigner, EventStreamError};
use http::{
    HeaderMap, HeaderName, Method, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    },
    request, response,
};

/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// So many bytes of frames' heads and of control frames wait at most for a message that is being checked.
const MAX_WAITING: usize = 64 << 10;

/// A handshake that can be read in one way only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What `Sec-WebSocket-Accept` must be.
    accept: String,
    /// What `Sec-WebSocket-Protocol` may be.
    protocols: Vec<String>,
}

impl Handshake {
    /// What the request says; `None`: it asks for no other protocol.
    pub fn of(request: &request::Parts) -> Option<Result<Self, &'static str>> {
        request.headers.contains_key(UPGRADE).then(|| Self::read(request))
    }

    fn read(request: &request::Parts) -> Result<Self, &'static str> {
        let headers = &request.headers;
        if request.version != Version::HTTP_11 || request.method != Method::GET {
            return Err("an upgrade is a GET of HTTP/1.1");
        }
        if !only(headers, &UPGRADE).is_some_and(|it| it.eq_ignore_ascii_case(b"websocket")) {
            return Err("the protocol that is asked for is not `websocket`");
        }
        if !names_upgrade(headers) {
            return Err("Connection doesn't name the upgrade");
        }
        if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
            return Err("Sec-WebSocket-Version is not 13");
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
        if key.and_then(|key| BASE64_STANDARD.decode(key).ok()).is_none_or(|key| key.len() != 16) {
            return Err("Sec-WebSocket-Key is not 16 bytes in base64");
        }
        let empty = !headers.contains_key(CONTENT_LENGTH) || only(headers, &CONTENT_LENGTH) == Some(b"0");
        if !empty || headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(EXPECT) {
            return Err("an upgrade has no body");
        }
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(key.unwrap_or_default());
        hash.update(GUID);
        let accept = BASE64_STANDARD.encode(hash.finish());
        let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|field| field.to_str().ok());
        let protocols = protocols.flat_map(|field| field.split(',')).map(|name| name.trim().to_owned()).collect();
        Ok(Self { accept, protocols })
    }

    /// Whether the answer, which has the status 101, opens the WebSocket that was asked for.
    pub fn check(&self, answer: &response::Parts) -> Result<(), &'static str> {
        let headers = &answer.headers;
        if answer.status != StatusCode::SWITCHING_PROTOCOLS {
            return Err("the status is not 101");
        }
        if !only(headers, &UPGRADE).is_some_and(|it| it.eq_ignore_ascii_case(b"websocket")) || !names_upgrade(headers) {
            return Err("the protocol is not `websocket`");
        }
        if only(headers, &SEC_WEBSOCKET_ACCEPT) != Some(self.accept.as_bytes()) {
            return Err("Sec-WebSocket-Accept is not the key's");
        }
        if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err("there is an extension that nobody asked for");
        }
        let named = only(headers, &SEC_WEBSOCKET_PROTOCOL);
        let offered = |name: &[u8]| self.protocols.iter().any(|it| it.as_bytes() == name);
        if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) && !named.is_some_and(offered) {
            return Err("there is a subprotocol that nobody asked for");
        }
        Ok(())
    }
}

/// The value of a field that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    options.into_iter().any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// What is wrong with the frames that an agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message of the event stream inside is wrong.
    #[error("in the WebSocket, {0}")]
    Events(#[from] EventStreamError),
    /// The framing is wrong.
    #[error("the WebSocket's framing is wrong: {0}")]
    Malformed(&'static str),
}

/// What a frame is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// A ping, a pong or a close.
    Control,
    /// A message in bytes.
    Binary,
    /// A message in text.
    Text,
}

/// The frames that an agent sends: checked, and made readable for the record.
pub struct AgentFrames {
    /// A frame's head, as far as it has come.
    head: Vec<u8>,
    key: [u8; 4],
    of: Of,
    /// Bytes of the frame's payload that have come, and are to come.
    at: usize,
    left: u64,
    /// The message that is not over yet.
    message: Option<Of>,
    signed: Option<Signed>,
}

/// Binary messages carry an event stream, whose messages may be signed.
struct Signed {
    resigner: Box<EventResigner>,
    waiting: VecDeque<Piece>,
    /// Bytes in the literal pieces that wait.
    literal: usize,
    /// Signed again, and not yet in a frame.
    ready: BytesMut,
}

/// What goes on, in its order.
enum Piece {
    Literal(BytesMut),
    /// So many bytes of what is ready, masked by this key from this place on.
    Data([u8; 4], usize, u64),
}

impl std::fmt::Debug for AgentFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentFrames").field("left", &self.left).finish_non_exhaustive()
    }
}

impl AgentFrames {
    /// With a resigner, binary messages are an event stream, and go on through it.
    pub fn new(resigner: Option<EventResigner>) -> Self {
        let signed = resigner.map(|resigner| Signed {
            resigner: Box::new(resigner),
            waiting: VecDeque::new(),
            literal: 0,
            ready: BytesMut::new(),
        });
        Self { head: Vec::with_capacity(14), key: [0; 4], of: Of::Control, at: 0, left: 0, message: None, signed }
    }

    /// Takes what has come. Gives it as it is recorded, the frames with a masking key of zeroes and so with readable
    /// payloads, and what goes on.
    pub fn update(&mut self, bytes: &Bytes) -> Result<(Bytes, Bytes), FrameError> {
        let mut record = BytesMut::with_capacity(bytes.len());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if self.left == 0 {
                let (byte, after) = rest.split_at(1);
                rest = after;
                self.head.extend_from_slice(byte);
                if self.head_is_whole()? {
                    record.extend_from_slice(&self.head[..self.head.len() - 4]);
                    record.put_bytes(0, 4);
                    if let Some(signed) = &mut self.signed {
                        signed.literal(&self.head)?;
                    }
                    self.head.clear();
                }
                continue;
            }
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
            let (payload, after) = rest.split_at(count);
            rest = after;
            let from = record.len();
            record.extend_from_slice(payload);
            mask(&mut record[from..], self.key, self.at);
            match &mut self.signed {
                Some(signed) if self.of == Of::Binary => signed.data(&record[from..], self.key, self.at)?,
                Some(signed) => signed.literal(payload)?,
                None => {}
            }
            self.at += count;
            self.left -= count as u64;
        }
        let onward = match &mut self.signed {
            None => bytes.clone(),
            Some(signed) => signed.onward(),
        };
        Ok((record.freeze(), onward))
    }

    /// The end of what the agent sends.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.left > 0 || !self.head.is_empty() {
            return Err(FrameError::Malformed("it ends within a frame"));
        }
        match &self.signed {
            Some(signed) if signed.resigner.held() > 0 => Err(EventStreamError::Incomplete.into()),
            _ => Ok(()),
        }
    }

    /// RFC 6455, 5.2.
    fn head_is_whole(&mut self) -> Result<bool, FrameError> {
        use FrameError::Malformed;
        let head = &self.head[..];
        let [first, second, ..] = *head else { return Ok(false) };
        if second & 0x80 == 0 {
            return Err(Malformed("a client's frame is not masked"));
        }
        if first & 0x70 != 0 {
            return Err(Malformed("a frame uses an extension that was not agreed on"));
        }
        let (last, opcode, short) = (first & 0x80 != 0, first & 0x0f, second & 0x7f);
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if head.len() < 2 + extended + 4 {
            return Ok(false);
        }
        let length = match extended {
            0 => u64::from(short),
            _ => head[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        if length >> 63 != 0 || (extended == 2 && length < 126) || (extended == 8 && length < 1 << 16) {
            return Err(Malformed("a length that is not in its shortest form, or too large"));
        }
        self.of = match (opcode, self.message) {
            (0, Some(message)) => message,
            (1, None) => Of::Text,
            (2, None) => Of::Binary,
            (8..=10, _) if last && length < 126 => Of::Control,
            (8..=10, _) => return Err(Malformed("a control frame that is long or in pieces")),
            (0..=2, _) => return Err(Malformed("a message begins within another, or goes on that hasn't begun")),
            _ => return Err(Malformed("a frame of an unknown kind")),
        };
        if self.of != Of::Control {
            self.message = (!last).then_some(self.of);
        }
        self.key.copy_from_slice(&head[head.len() - 4..]);
        (self.at, self.left) = (0, length);
        Ok(true)
    }
}

impl Signed {
    fn literal(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.literal += bytes.len();
        if self.literal > MAX_WAITING + bytes.len() {
            return Err(FrameError::Malformed("too many frames for one message of the event stream"));
        }
        if let Some(Piece::Literal(last)) = self.waiting.back_mut() {
            last.extend_from_slice(bytes);
        } else {
            self.waiting.push_back(Piece::Literal(bytes.into()));
        }
        Ok(())
    }

    fn data(&mut self, payload: &[u8], key: [u8; 4], at: usize) -> Result<(), FrameError> {
        let count = payload.len() as u64;
        match self.waiting.back_mut() {
            // The frame that it belongs to: a new one has its head before it.
            Some(Piece::Data(_, _, length)) => *length += count,
            _ => self.waiting.push_back(Piece::Data(key, at, count)),
        }
        self.ready.extend_from_slice(&self.resigner.update(payload)?);
        Ok(())
    }

    /// What need not wait any more.
    fn onward(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        while let Some(piece) = self.waiting.front_mut() {
            match piece {
                Piece::Literal(bytes) => {
                    self.literal -= bytes.len();
                    out.extend_from_slice(bytes);
                }
                Piece::Data(key, at, left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.ready.len());
                    let from = out.len();
                    out.extend_from_slice(&self.ready.split_to(count));
                    mask(&mut out[from..], *key, *at);
                    *at += count;
                    *left -= count as u64;
                    if *left > 0 {
                        break;
                    }
                }
            }
            self.waiting.pop_front();
        }
        out.freeze()
    }
}

/// RFC 6455, 5.3; the same in both directions.
fn mask(bytes: &mut [u8], key: [u8; 4], at: usize) {
    let key: [u8; 4] = std::array::from_fn(|index| key[(at + index) % 4]);
    let mut pieces = bytes.chunks_exact_mut(4);
    for piece in &mut pieces {
        piece.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    }
    pieces.into_remainder().iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    /// The example of RFC 6455, 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ];

    fn request(fields: &[(&str, &str)]) -> request::Parts {
        let request = fields.iter().fold(Request::get("/"), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn with(changes: &[(&str, &str)]) -> request::Parts {
        let mut parts = request(&GOOD);
        for (name, value) in changes {
            let name: HeaderName = name.parse().unwrap();
            if value.is_empty() {
                parts.headers.remove(name);
            } else if parts.headers.contains_key(&name) && *value == "twice" {
                parts.headers.append(&name, parts.headers[&name].clone());
            } else {
                parts.headers.insert(name, value.parse().unwrap());
            }
        }
        parts
    }

    fn answer(fields: &[(&str, &str)]) -> response::Parts {
        let answer = Response::builder().status(101);
        let answer = fields.iter().fold(answer, |answer, (name, value)| answer.header(*name, *value));
        answer.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_handshake_and_its_answer_are_the_rfcs() {
        assert_eq!(Handshake::of(&request(&[("connection", "keep-alive")])), None);
        let handshake = Handshake::of(&with(&[("sec-websocket-protocol", "mqtt, chat")])).unwrap().unwrap();
        let good = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)];
        assert_eq!(handshake.check(&answer(&good)), Ok(()));
        assert_eq!(handshake.check(&answer(&[&good[..], &[("sec-websocket-protocol", "mqtt")]].concat())), Ok(()));
        for bad in [
            &good[1..],
            &good[..2],
            &[good[0], ("upgrade", "h2c"), good[2]],
            &[good[0], good[1], ("sec-websocket-accept", KEY)],
            &[good[0], good[1], good[2], good[2]],
            &[good[0], good[1], good[2], ("sec-websocket-protocol", "other")],
            &[good[0], good[1], good[2], ("sec-websocket-extensions", "permessage-deflate")],
        ] {
            assert!(handshake.check(&answer(bad)).is_err(), "{bad:?}");
        }
        let mut other = answer(&good);
        other.status = StatusCode::OK;
        assert!(handshake.check(&other).is_err());
    }

    #[test]
    fn other_handshakes_are_refused() {
        for bad in [
            &[("upgrade", "h2c")][..],
            &[("upgrade", "websocket, h2c")],
            &[("upgrade", "twice")],
            &[("connection", "keep-alive")],
            &[("connection", "")],
            &[("sec-websocket-version", "8")],
            &[("sec-websocket-version", "13, 8")],
            &[("sec-websocket-version", "")],
            &[("sec-websocket-version", "twice")],
            &[("sec-websocket-key", "")],
            &[("sec-websocket-key", "twice")],
            &[("sec-websocket-key", "c2hvcnQ=")],
            &[("sec-websocket-key", "!!!!!!!!!!!!!!!!!!!!!!==")],
            &[("content-length", "1")],
            &[("content-length", "0, 0")],
            &[("transfer-encoding", "chunked")],
            &[("expect", "100-continue")],
        ] {
            assert!(Handshake::of(&with(bad)).unwrap().is_err(), "{bad:?}");
        }
        assert!(Handshake::of(&with(&[("content-length", "0")])).unwrap().is_ok());
        for change in [
            |parts: &mut request::Parts| parts.method = Method::POST,
            |parts: &mut request::Parts| parts.version = Version::HTTP_2,
            |parts: &mut request::Parts| parts.version = Version::HTTP_10,
        ] {
            let mut parts = request(&GOOD);
            change(&mut parts);
            assert!(Handshake::of(&parts).unwrap().is_err());
        }
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                bytes.push(0x80 | 0x7e);
                bytes.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
            }
        }
        let key = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend_from_slice(&key);
        bytes.extend_from_slice(payload);
        let from = bytes.len() - payload.len();
        mask(&mut bytes[from..], key, 0);
        bytes
    }

    /// What is recorded and what goes on, when it comes in pieces of `step` bytes.
    fn passed(bytes: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>), FrameError> {
        let mut frames = AgentFrames::new(None);
        let (mut record, mut onward) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            let (one, other) = frames.update(&Bytes::copy_from_slice(piece))?;
            record.extend_from_slice(&one);
            onward.extend_from_slice(&other);
        }
        frames.finish().map(|()| (record, onward))
    }

    #[test]
    fn frames_go_on_as_they_are_and_can_be_read_in_the_record() {
        // The first is the example of RFC 6455, 5.7.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(frame(0x81, b"Hello"), hello);
        let long = vec![b'x'; 300];
        let all =
            [hello.to_vec(), frame(0x02, &long), frame(0x89, b"ping"), frame(0x80, b"end"), frame(0x88, b"")].concat();
        for step in [1, 3, 64, all.len()] {
            let (record, onward) = passed(&all, step).unwrap();
            assert_eq!(onward, all);
            assert_eq!(record.len(), all.len());
            let text = String::from_utf8_lossy(&record);
            assert!(text.contains("Hello") && text.contains(&"x".repeat(300)) && text.contains("ping"), "{text}");
        }
    }

    #[test]
    fn other_frames_are_refused() {
        let mut unmasked = frame(0x81, b"Hello");
        unmasked[1] &= 0x7f;
        for bad in [
            unmasked,
            frame(0xc1, b"compressed"),
            frame(0x83, b"unknown"),
            frame(0x80, b"goes on"),
            [frame(0x01, b"one"), frame(0x81, b"another")].concat(),
            frame(0x09, b"ping in pieces"),
            frame(0x89, &[0; 126]),
            vec![0x82, 0xfe, 0, 5],
            [&[0x82, 0xff][..], &[0xff; 8], &[0; 4]].concat(),
            [&[0x82, 0xff][..], &[0; 7], &[5], &[0; 4]].concat(),
        ] {
            let mut long = bad.clone();
            long.extend_from_slice(&[0; 8]);
            assert!(passed(&long, 1).is_err(), "{bad:?}");
        }
        assert!(passed(&frame(0x82, b"cut")[..6], 6).is_err());
        assert!(passed(&frame(0x82, b"cut")[..3], 6).is_err());
    }
}
