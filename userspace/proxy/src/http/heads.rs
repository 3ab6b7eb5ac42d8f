//! What is told of request heads past hyper: which one was refused, and what heads hold.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    connection::quota::{Memory, Quota, QuotaExceeded},
    http::violation::Violation,
};

/// By this field, with a value that no agent can know, a request stands in for a head that was refused.
const STANDS_IN: HeaderName = HeaderName::from_static("x-chaperone-refused");
/// A begun head that is smaller isn't counted.
const COUNTED_FROM: usize = 4 << 10;

/// Why a head was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Quota(QuotaExceeded),
    Violation(Violation),
}

/// The request heads of one connection, as far as the framing check and whoever answers have to agree on them.
#[derive(Debug)]
pub struct Heads {
    token: Uuid,
    refused: Mutex<Option<Refused>>,
    /// What is held of a head that isn't whole.
    memory: Option<Mutex<Memory>>,
}

impl Default for Heads {
    /// Of no session's; the stand-ins of all such are the same.
    fn default() -> Self {
        Self { token: Uuid::nil(), refused: Mutex::new(None), memory: None }
    }
}

impl Heads {
    /// Those of one connection, which uses this share.
    pub(crate) fn new(share: &Arc<Quota>) -> Self {
        Self { token: Uuid::now_v7(), refused: Mutex::new(None), memory: Some(Mutex::new(share.memory())) }
    }

    /// Why the request with these fields stands in for one that was refused, if it does.
    pub(crate) fn refused(&self, fields: &mut HeaderMap) -> Option<Refused> {
        let value = fields.get(STANDS_IN)?;
        if value.as_bytes() != self.token.to_string().as_bytes() {
            return None;
        }
        fields.remove(STANDS_IN);
        self.refused.lock().take()
    }

    /// Why the last head that was read is refused, whichever request stands in for it.
    pub fn violation(&self) -> Option<Violation> {
        match &*self.refused.lock() {
            Some(Refused::Violation(violation)) => Some(violation.clone()),
            Some(Refused::Quota(_)) | None => None,
        }
    }

    /// Notes that a head is refused; gives the one that stands in for it, in its order and with what of it is clean, so that
    /// it is recorded as what it was for and answered in that service's own way.
    pub(crate) fn refuse(&self, why: Refused, head: &[u8]) -> Vec<u8> {
        *self.refused.lock() = Some(why);
        let shown = Shown::of(head);
        let mut stand_in = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", shown.method, shown.target, shown.host);
        for (name, value) in [("Content-Type", shown.content_type), ("X-Amz-Target", shown.amz_target)] {
            if let Some(value) = value {
                let _ = write!(stand_in, "{name}: {value}\r\n");
            }
        }
        let _ = write!(stand_in, "{}: {}\r\nConnection: close\r\n\r\n", STANDS_IN.as_str(), self.token);
        stand_in.into_bytes()
    }

    /// So many bytes are held of a head that isn't whole.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), QuotaExceeded> {
        let Some(memory) = &self.memory else { return Ok(()) };
        memory.lock().resize(if bytes < COUNTED_FROM { 0 } else { bytes })
    }
}

/// What of a refused head can be shown: each part if it is clean by itself.
struct Shown<'a> {
    method: &'a str,
    target: &'a str,
    host: &'a str,
    content_type: Option<&'a str>,
    amz_target: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn of(head: &'a [u8]) -> Self {
        let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
        let method = words.next().and_then(|word| known.into_iter().find(|known| known.as_bytes() == word));
        let target = words
            .next()
            .and_then(|word| clean(word, 0x21))
            .filter(|target| target.starts_with('/') && !target.contains('#'));
        let (mut host, mut content_type, mut amz_target) = (None, None, None);
        for line in lines.take_while(|line| !line.is_empty()).take(200) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let slot = if name.eq_ignore_ascii_case(b"host") {
                &mut host
            } else if name.eq_ignore_ascii_case(b"content-type") {
                &mut content_type
            } else if name.eq_ignore_ascii_case(b"x-amz-target") {
                &mut amz_target
            } else {
                continue;
            };
            // Of two, none is shown.
            let value = clean(value, if name.eq_ignore_ascii_case(b"content-type") { 0x20 } else { 0x21 });
            *slot = if slot.is_none() { Some(value) } else { Some(None) };
        }
        let plain = |host: &str| !host.contains(['/', '@', '?', '\\']);
        Self {
            method: method.unwrap_or("GET"),
            target: target.unwrap_or("/"),
            host: host.flatten().filter(|host| plain(host)).unwrap_or("refused.invalid"),
            content_type: content_type.flatten(),
            amz_target: amz_target.flatten(),
        }
    }
}

/// Visible ASCII, from that character on, and not too much of it.
fn clean(value: &[u8], from: u8) -> Option<&str> {
    let visible = !value.is_empty() && value.len() <= 1024 && value.iter().all(|byte| (from..0x7f).contains(byte));
    visible.then(|| std::str::from_utf8(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_head_is_shown_as_far_as_it_is_clean() {
        let heads = Heads::default();
        let refused = |head: &[u8]| {
            let why = Refused::Violation(Violation("of a test"));
            let text = String::from_utf8(heads.refuse(why, head)).unwrap();
            text.split_once("x-chaperone-refused").unwrap().0.to_owned()
        };
        assert_eq!(
            refused(b"POST /a?b=1 HTTP/1.1\r\nHost: sqs.eu-west-1.amazonaws.com\r\nX-Amz-Target: AmazonSQS.X\r\nContent-Length: +1\r\n\r\n"),
            "POST /a?b=1 HTTP/1.1\r\nHost: sqs.eu-west-1.amazonaws.com\r\nX-Amz-Target: AmazonSQS.X\r\n"
        );
        let nothing = "GET / HTTP/1.1\r\nHost: refused.invalid\r\n";
        for bad in [
            b"GET http://b/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".as_slice(),
            b"GE\0T /\xff HTTP/1.1\r\nHost: a\x1b\r\n\r\n",
            b"GET /#x HTTP/1.1\r\nHost: a b\r\nContent-Type: a\rX: b\r\n\r\n",
            b"GET  HTTP/1.1\r\nHost: a/../b\r\n\r\n",
            b"",
        ] {
            assert_eq!(refused(bad), nothing, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn no_request_of_an_agents_is_taken_for_a_refused_one() {
        let heads = Heads::default();
        heads.refuse(Refused::Violation(Violation("of a test")), b"");
        let mut fields = HeaderMap::new();
        assert_eq!(heads.refused(&mut fields), None);
        fields.insert(STANDS_IN, "guess".parse().unwrap());
        assert_eq!(heads.refused(&mut fields), None);
        fields.insert(STANDS_IN, heads.token.to_string().parse().unwrap());
        assert_eq!(heads.refused(&mut fields), Some(Refused::Violation(Violation("of a test"))));
        assert!(fields.is_empty());
    }
}
