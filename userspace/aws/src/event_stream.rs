//! Event streams to AWS (Transcribe, Bedrock, Lex, Polly over HTTP/2): each message is wrapped into one that is signed, the
//! signatures chained from the head's. Each is checked by the agent's key and signed again by ours, of the same length.
//!
//! A message is held until its signature is known to be right, so that nothing goes on that the session's key has not
//! signed; so messages have a bound. Audio comes in some 8 to 32 KiB at a time.
//!
//! <https://docs.aws.amazon.com/transcribe/latest/dg/streaming-http2.html> and
//! <https://smithy.io/2.0/aws/amazon-eventstream.html>

use std::fmt;

use aws_lc_rs::{digest, hmac};
use bytes::{Buf as _, Bytes, BytesMut};
use chaperone_model::BodyDigest;
use http::request::Parts;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    Signer,
    request_auth::RequestAuth,
    sign::{derive, format_date, push_scope},
};

/// Lengths of the whole and of the headers, and their checksum.
const PRELUDE: usize = 12;
/// The checksum of all that is before it.
const CRC: usize = 4;
/// `:date`, a timestamp, and `:chunk-signature`, 32 bytes, in whichever order.
const HEADERS: usize = (1 + 5 + 1 + 8) + (1 + 16 + 1 + 2 + 32);

const TIMESTAMP: u8 = 8;
const BYTES: u8 = 6;

/// What is wrong with an event stream. The agent's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventStreamError {
    /// It ended in the middle.
    #[error("the event stream ends within a message")]
    Incomplete,
    /// The framing can't be read.
    #[error("the event stream's framing is wrong: {0}")]
    Malformed(&'static str),
    /// A signature is not the one that the session's key makes.
    #[error("the signature of a message is not the one that this session's key makes")]
    Signature,
    /// A message must be held until its signature is checked, and is too large for that.
    #[error("a message has {size} bytes, and at most {bound} are held to be checked (limits.signed_chunk_bytes)")]
    TooLarge {
        /// The message's length.
        size: usize,
        /// What would be held.
        bound: usize,
    },
}

/// What messages are signed by, and where its chain of signatures has got to.
/// [`Signer::event_key`](crate::Signer::event_key) makes it.
pub struct EventKey {
    pub(crate) secret: Zeroizing<String>,
    pub(crate) region: String,
    pub(crate) service: String,
    /// The signature before, in hexadecimal.
    pub(crate) previous: String,
    /// The key of a day: streams may go on past midnight.
    pub(crate) of_day: Option<(String, hmac::Key)>,
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventKey").field("service", &self.service).finish_non_exhaustive()
    }
}

impl EventKey {
    /// `date` are the header's eight bytes: milliseconds since 1970.
    fn to_sign(&self, stamp: &str, date: [u8; 8], payload: &[u8]) -> String {
        let mut header = Vec::with_capacity(15);
        header.extend_from_slice(b"\x05:date");
        header.push(TIMESTAMP);
        header.extend_from_slice(&date);
        let mut text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n");
        push_scope(&mut text, &[&stamp[..8], &self.region, &self.service]);
        let sha256 = |bytes: &[u8]| hex::encode(digest::digest(&digest::SHA256, bytes));
        format!("{text}\n{}\n{}\n{}", self.previous, sha256(&header), sha256(payload))
    }

    fn key(&mut self, day: &str) -> &hmac::Key {
        if self.of_day.as_ref().is_none_or(|(it, _)| it != day) {
            self.of_day = None;
        }
        let Self { secret, region, service, of_day, .. } = self;
        &of_day.get_or_insert_with(|| (day.to_owned(), derive(secret, day, region, service))).1
    }

    fn verify(&mut self, stamp: &str, date: [u8; 8], payload: &[u8], signature: &[u8]) -> Result<(), EventStreamError> {
        let to_sign = self.to_sign(stamp, date, payload);
        hmac::verify(self.key(&stamp[..8]), to_sign.as_bytes(), signature).map_err(|_| EventStreamError::Signature)?;
        self.previous = hex::encode(signature);
        Ok(())
    }

    fn sign(&mut self, stamp: &str, date: [u8; 8], payload: &[u8]) -> hmac::Tag {
        let to_sign = self.to_sign(stamp, date, payload);
        let tag = hmac::sign(self.key(&stamp[..8]), to_sign.as_bytes());
        self.previous = hex::encode(tag);
        tag
    }
}

impl Signer {
    /// What the messages of an event stream are signed by, as [`chunk_key`](Self::chunk_key) is for chunks.
    pub fn event_key(parts: &Parts, secret: &str) -> Option<EventKey> {
        let RequestAuth::Header(header) = RequestAuth::of(parts) else { return None };
        Some(EventKey {
            secret: Zeroizing::new(secret.to_owned()),
            region: header.region.to_owned(),
            service: header.service.to_owned(),
            previous: hex::encode(header.signature),
            of_day: None,
        })
    }
}

/// Whether messages have signatures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signatures {
    /// They have none, and need none.
    Absent,
    /// They have, or must have.
    Needed,
    /// The first message will tell.
    Unknown,
}

/// Checks each message of a stream and signs it again.
pub struct EventResigner {
    signatures: Signatures,
    agent: EventKey,
    ours: EventKey,
    held: BytesMut,
    max_message: usize,
    payload: digest::Context,
    bytes: u64,
}

impl fmt::Debug for EventResigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventResigner").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl EventResigner {
    /// For a stream whose head was signed by `agent`, and then by `ours`. At most `max_message` bytes of a message are
    /// held, besides what comes in one [`update`](Self::update).
    pub fn new(agent: EventKey, ours: EventKey, max_message: usize) -> Self {
        let payload = digest::Context::new(&digest::SHA256);
        Self { signatures: Signatures::Needed, agent, ours, held: BytesMut::new(), max_message, payload, bytes: 0 }
    }

    /// Messages may be without signatures, as clients send them in WebSockets: either all of them are, or none.
    #[must_use]
    pub fn or_unsigned(self) -> Self {
        Self { signatures: Signatures::Unknown, ..self }
    }

    /// Takes the next bytes of the stream and gives what may go on: possibly nothing.
    pub fn update(&mut self, bytes: &[u8]) -> Result<Bytes, EventStreamError> {
        self.held.extend_from_slice(bytes);
        if self.signatures == Signatures::Unknown && self.held.len() >= PRELUDE {
            let headers = self.held[4..8].try_into().map_or(0, u32::from_be_bytes);
            let signed = headers as usize == HEADERS;
            self.signatures = if signed { Signatures::Needed } else { Signatures::Absent };
        }
        match self.signatures {
            Signatures::Absent => return Ok(self.held.split().freeze()),
            Signatures::Needed => {}
            Signatures::Unknown => return Ok(Bytes::new()),
        }
        let mut ready = 0;
        while let Some(length) = whole(&self.held[ready..], self.max_message)? {
            self.resign(ready, length)?;
            ready += length;
        }
        Ok(self.held.split_to(ready).freeze())
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The end of the stream: length and SHA-256 of the messages that were inside.
    pub fn finish(self) -> Result<BodyDigest, EventStreamError> {
        if !self.held.is_empty() {
            return Err(EventStreamError::Incomplete);
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.payload.finish().as_ref());
        Ok(BodyDigest { bytes: self.bytes, sha256, kept: None })
    }

    /// Checks the message at `at`, puts our signature in the agent's place, and makes the checksum right.
    fn resign(&mut self, at: usize, length: usize) -> Result<(), EventStreamError> {
        let message = &mut self.held[at..at + length];
        let (head, mut last) = message.split_at(length - CRC);
        if crc32fast::hash(head) != last.get_u32() {
            return Err(EventStreamError::Malformed("a message's checksum"));
        }
        let (date, signature_at) = headers(&head[PRELUDE..PRELUDE + HEADERS])?;
        let (signature_at, payload) = (PRELUDE + signature_at, &head[PRELUDE + HEADERS..]);
        let stamp = stamp(date)?;
        self.agent.verify(&stamp, date, payload, &head[signature_at..signature_at + 32])?;
        let ours = self.ours.sign(&stamp, date, payload);
        self.payload.update(payload);
        self.bytes += payload.len() as u64;
        message[signature_at..signature_at + 32].copy_from_slice(ours.as_ref());
        let crc = crc32fast::hash(&message[..length - CRC]);
        message[length - CRC..].copy_from_slice(&crc.to_be_bytes());
        Ok(())
    }
}

/// The length of the first message, once all of it is there. What can't become one is refused before it is held.
fn whole(mut bytes: &[u8], bound: usize) -> Result<Option<usize>, EventStreamError> {
    use EventStreamError::{Malformed, TooLarge};
    let there = bytes.len();
    if there < PRELUDE {
        return Ok(None);
    }
    let crc = crc32fast::hash(&bytes[..PRELUDE - CRC]);
    let (length, headers) = (bytes.get_u32() as usize, bytes.get_u32() as usize);
    if bytes.get_u32() != crc {
        return Err(Malformed("a prelude's checksum"));
    }
    if length > bound {
        return Err(TooLarge { size: length, bound });
    }
    if headers != HEADERS || length < PRELUDE + HEADERS + CRC {
        return Err(Malformed("a message with other headers than :date and :chunk-signature"));
    }
    Ok((length <= there).then_some(length))
}

/// The date, and where the signature is.
fn headers(mut bytes: &[u8]) -> Result<([u8; 8], usize), EventStreamError> {
    const OTHER: EventStreamError =
        EventStreamError::Malformed("a message with other headers than :date and :chunk-signature");
    const DATE: &[u8] = b"\x05:date\x08";
    const SIGNATURE: &[u8] = b"\x10:chunk-signature\x06\x00\x20";
    debug_assert!(DATE.ends_with(&[TIMESTAMP]) && SIGNATURE.ends_with(&[BYTES, 0, 32]));
    let (mut date, mut signature) = (None, None);
    let all = bytes.len();
    while !bytes.is_empty() {
        let at = all - bytes.len();
        if let Some(rest) = bytes.strip_prefix(DATE) {
            let (value, rest) = rest.split_first_chunk::<8>().ok_or(OTHER)?;
            date = Some(*value);
            bytes = rest;
        } else if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
            signature = Some(at + SIGNATURE.len());
            bytes = rest.get(32..).ok_or(OTHER)?;
        } else {
            return Err(OTHER);
        }
    }
    date.zip(signature).ok_or(OTHER)
}

/// As it is signed: to the second, like a request's `x-amz-date`.
fn stamp(date: [u8; 8]) -> Result<String, EventStreamError> {
    let seconds = i64::from_be_bytes(date).div_euclid(1000);
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|date| (1970..=9999).contains(&date.year()));
    date.map(format_date).ok_or(EventStreamError::Malformed("a message's date"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use aws_credential_types::Credentials;
    use aws_sigv4::{
        event_stream::{sign_empty_message, sign_message},
        sign::v4::SigningParams,
    };
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
    use time::macros::datetime;

    use super::*;

    const BOUND: usize = 64 << 10;
    const SEED: &str = "0e2c4a8efb3e1c2d33de9b6f8a1c0d5e7f60718293a4b5c6d7e8f90a1b2c3d4e";
    const OTHER_SEED: &str = "ff2c4a8efb3e1c2d33de9b6f8a1c0d5e7f60718293a4b5c6d7e8f90a1b2c3d4e";

    fn key(secret: &str, seed: &str) -> EventKey {
        EventKey {
            secret: Zeroizing::new(secret.to_owned()),
            region: "eu-west-1".into(),
            service: "transcribe".into(),
            previous: seed.to_owned(),
            of_day: None,
        }
    }

    /// What the SDK for Rust makes of these, by its own signer, one a minute; the last is past midnight.
    fn messages(secret: &str, seed: &str) -> Vec<Vec<u8>> {
        let identity = Credentials::new("AKIA", secret, None, None, "test").into();
        let mut previous = seed.to_owned();
        let mut out = Vec::new();
        for (minute, size) in [(0, Some(10)), (1, Some(30_000)), (2, Some(0)), (3, None)] {
            let time = SystemTime::from(datetime!(2025-06-01 23:57:00.25 UTC)) + Duration::from_mins(minute);
            let params = SigningParams::builder()
                .identity(&identity)
                .region("eu-west-1")
                .name("transcribe")
                .time(time)
                .settings(())
                .build()
                .unwrap();
            let signed = match size {
                Some(size) => {
                    let audio = Message::new(vec![7; size])
                        .add_header(Header::new(":event-type", HeaderValue::String("AudioEvent".into())));
                    sign_message(&audio, &previous, &params).unwrap()
                }
                None => sign_empty_message(&previous, &params).unwrap(),
            };
            let (message, signature) = signed.into_parts();
            let mut bytes = Vec::new();
            write_message_to(&message, &mut bytes).unwrap();
            out.push(bytes);
            previous = signature;
        }
        out
    }

    fn resigner() -> EventResigner {
        EventResigner::new(key("agent's", SEED), key("real", OTHER_SEED), BOUND)
    }

    fn resign(bytes: &[u8], step: usize) -> Result<(Vec<u8>, BodyDigest), EventStreamError> {
        let mut resigner = resigner();
        let mut out = Vec::new();
        for piece in bytes.chunks(step) {
            out.extend_from_slice(&resigner.update(piece)?);
            assert!(resigner.held() <= BOUND + step);
        }
        Ok((out, resigner.finish()?))
    }

    #[test]
    fn what_comes_out_is_what_the_sdk_would_have_signed_by_our_key() {
        let (agents, ours) = (messages("agent's", SEED).concat(), messages("real", OTHER_SEED).concat());
        for step in [1, 13, 1000, 1 << 20] {
            let (out, digest) = resign(&agents, step).unwrap();
            assert_eq!(out, ours, "however it is cut");
            assert!(digest.bytes > 30_000 && digest.bytes < ours.len() as u64);
        }
    }

    #[test]
    fn nothing_that_is_not_signed_goes_on() {
        let good = messages("agent's", SEED);
        let passed = |stream: &[Vec<u8>]| {
            let mut resigner = resigner();
            let mut passed = 0;
            for message in stream {
                match resigner.update(message) {
                    Ok(out) => passed += usize::from(!out.is_empty()),
                    Err(error) => return (passed, Some(error)),
                }
            }
            (passed, None)
        };
        assert_eq!(passed(&good), (4, None));
        let wrong = Some(EventStreamError::Signature);
        assert_eq!(passed(&messages("guessed", SEED)), (0, wrong));
        assert_eq!(passed(&messages("agent's", OTHER_SEED)), (0, wrong), "another request's stream");
        assert_eq!(passed(&good[1..]), (0, wrong), "one left out");
        let swapped = [good[0].clone(), good[2].clone(), good[1].clone()];
        assert_eq!(passed(&swapped), (1, wrong));
        let twice = [good[0].clone(), good[0].clone()];
        assert_eq!(passed(&twice), (1, wrong));
        // Another payload, date or signature, each with a checksum that is right.
        for place in [20, PRELUDE + 10, PRELUDE + HEADERS - 1, PRELUDE + HEADERS + 3, good[1].len() - 5] {
            let mut changed = good.clone();
            let message = &mut changed[1];
            message[place] ^= 1;
            let end = message.len() - CRC;
            let crc = crc32fast::hash(&message[..end]).to_be_bytes();
            message[end..].copy_from_slice(&crc);
            let (before, error) = passed(&changed);
            assert!(before == 1 && error.is_some(), "{place}: {error:?}");
        }
    }

    #[test]
    fn lies_about_lengths_and_framing_are_refused() {
        use EventStreamError::{Incomplete, Malformed, TooLarge};
        let good = messages("agent's", SEED).concat();
        for end in [1, PRELUDE, 50, good.len() - 1] {
            assert_eq!(resign(&good[..end], 7).unwrap_err(), Incomplete, "{end}");
        }
        let prelude = |length: u32, headers: u32| {
            let mut bytes = [length.to_be_bytes(), headers.to_be_bytes()].concat();
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
            bytes
        };
        let all = u32::try_from(HEADERS).unwrap();
        assert_eq!(
            resign(&prelude(u32::MAX, all), 100).unwrap_err(),
            TooLarge { size: u32::MAX as usize, bound: BOUND }
        );
        for (length, headers) in
            [(0, all), (12, all), (82, all), (100, all - 1), (1000, 0), (1000, 900), (100, u32::MAX)]
        {
            assert!(matches!(resign(&prelude(length, headers), 100), Err(Malformed(_))), "{length} {headers}");
        }
        let flipped = |place: usize| {
            let mut bytes = good.clone();
            bytes[place] ^= 0x40;
            resign(&bytes, 100).unwrap_err()
        };
        for place in [0, 5, 9, 40, 100] {
            assert!(matches!(flipped(place), Malformed(_)), "{place}: {:?}", flipped(place));
        }
        let framed = |headers: &[u8]| {
            let mut bytes = prelude(u32::try_from(PRELUDE + HEADERS + CRC).unwrap(), all);
            bytes.extend_from_slice(headers);
            bytes.resize(PRELUDE + HEADERS, 0);
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
            resign(&bytes, 100).unwrap_err()
        };
        let date = |date: i64| [b"\x05:date\x08".as_slice(), &date.to_be_bytes()].concat();
        let signature = [b"\x10:chunk-signature\x06\x00\x20".as_slice(), &[0; 32]].concat();
        assert!(matches!(framed(&[date(0), date(0), date(0)].concat()), Malformed(_)));
        assert!(matches!(framed(b"\xff"), Malformed(_)));
        for bad in [i64::MIN, i64::MAX, -1] {
            assert_eq!(framed(&[date(bad), signature.clone()].concat()), Malformed("a message's date"), "{bad}");
        }
        assert_eq!(framed(&[date(0), signature].concat()), EventStreamError::Signature);
    }
}
