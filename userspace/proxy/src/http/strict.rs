//! HTTP/1.1 framing, checked byte for byte before hyper sees it.
//!
//! hyper is lenient where a gateway can't be: it lets `Transfer-Encoding` win over `Content-Length`, drops fragments
//! from targets, takes NUL in chunk extensions and repairs what it can. Whatever two parties could read in two ways is
//! refused here (RFC 9112, 11.2), so that what goes on is always one request with one length, one Host and one path.
//! [`Strict`] wraps the stream that hyper reads from; heads are held back until they are whole and clean, bodies pass.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

pub use crate::http::violation::Violation;
use crate::http::{
    heads::{Heads, Refused},
    through::writes_through,
};

/// The largest request or answer head, with its trailers.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// The most fields in a request's head.
pub const MAX_FIELDS: usize = 200;
/// The most fields in the head of an answer: an object's metadata comes back as a field for each, and how many fields
/// there are has one reading.
pub const MAX_ANSWER_FIELDS: usize = 2000;
/// Empty lines before a request, which are ignored (RFC 9112, 2.2).
const MAX_EMPTY_LINES: u8 = 4;
/// The longest chunk size line; extensions have no use between an SDK and AWS.
const MAX_CHUNK_LINE: usize = 256;

/// Which messages are read.
#[derive(Clone, Debug)]
pub enum Role {
    /// Requests of an agent. A head that is refused is replaced by one that hyper can read, and told here: so the
    /// answer comes in its order, after those of requests that were pipelined before it.
    Requests(Arc<Heads>),
    /// Answers of a server. The flag tells whether the request was HEAD, which is answered without a body.
    Answers(Arc<AtomicBool>),
    /// The answers to a WebSocket's handshake. After one with the status 101 nothing is looked at any more.
    Handshake,
}

/// How long a request's head says its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By `Content-Length`, in bytes; 0 if neither is there.
    Length(u64),
}

/// Checks one whole request head, its empty line included, as the data path does.
pub fn check_request_head(head: &[u8]) -> Result<BodyLength, Violation> {
    let mut framing = Framing::new(Role::Requests(Arc::default()));
    if framing.find(head, false)? != Some(head.len()) {
        return Err(Violation("the head doesn't end with its empty line"));
    }
    Ok(match request_head(head)? {
        State::ChunkSize => BodyLength::Chunked,
        State::Length(length) => BodyLength::Length(length),
        _ => BodyLength::Length(0),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    /// Nothing more is read: after an answer that has no body and says that it has.
    Over,
}

/// The framing of one direction of a connection.
#[derive(Debug)]
struct Framing {
    role: Role,
    state: State,
    /// Bytes at the start of what is held back that have been searched for the end already.
    searched: usize,
    /// Empty lines that came before the next head.
    empty_lines: u8,
    /// What follows is one of them, and goes nowhere.
    at_empty_line: bool,
}

impl Framing {
    fn new(role: Role) -> Self {
        Self { role, state: State::Head, searched: 0, empty_lines: 0, at_empty_line: false }
    }

    /// How many of these bytes may go on, and what is wrong with those after them. What is merely incomplete must be
    /// presented again, with more after it.
    fn advance(&mut self, bytes: &[u8]) -> (usize, Result<(), Violation>) {
        let mut done = 0;
        let outcome = self.advance_from(bytes, &mut done);
        (done, outcome)
    }

    fn advance_from(&mut self, bytes: &[u8], done: &mut usize) -> Result<(), Violation> {
        loop {
            let rest = &bytes[*done..];
            match self.state {
                State::Head if matches!(self.role, Role::Requests(_)) && rest.starts_with(b"\r\n") => {
                    self.empty_lines += 1;
                    if self.empty_lines > MAX_EMPTY_LINES {
                        return Err(Violation("empty lines instead of a request"));
                    }
                    self.searched = 0;
                    self.at_empty_line = true;
                    return Ok(());
                }
                State::Head | State::Trailers => {
                    let Some(length) = self.find(rest, self.state == State::Trailers)? else { return Ok(()) };
                    if self.state == State::Head {
                        self.empty_lines = 0;
                        self.state = match &self.role {
                            Role::Requests(_) => request_head(&rest[..length])?,
                            Role::Answers(head) => answer_head(&rest[..length], head.load(Ordering::Acquire), false)?,
                            Role::Handshake => answer_head(&rest[..length], false, true)?,
                        };
                    } else {
                        trailers(&rest[..length])?;
                        self.state = State::Head;
                    }
                    *done += length;
                }
                State::Length(0) => self.state = State::Head,
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::Length(left) | State::Chunk(left) => {
                    if rest.is_empty() {
                        return Ok(());
                    }
                    let taken = left.min(rest.len() as u64);
                    *done += usize::try_from(taken).expect("BUG: at most the length of a slice");
                    self.state = match self.state {
                        State::Length(_) => State::Length(left - taken),
                        _ => State::Chunk(left - taken),
                    };
                }
                State::ChunkSize => {
                    let Some(end) = memchr_crlf(rest) else {
                        clean_so_far(&rest[..rest.len().min(MAX_CHUNK_LINE)], 0)?;
                        let bad = rest.len() > MAX_CHUNK_LINE;
                        return if bad { Err(Violation("a chunk size line is too long")) } else { Ok(()) };
                    };
                    let size = chunk_size(&rest[..end])?;
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                    *done += end + 2;
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.state = State::ChunkSize;
                        *done += 2;
                    }
                    [] | [b'\r'] => return Ok(()),
                    _ => return Err(Violation("a chunk is longer than its size says")),
                },
                State::UntilClose => {
                    *done = bytes.len();
                    return Ok(());
                }
                State::Over => return Ok(()),
            }
        }
    }

    /// The length of a head or trailer section, its empty line included.
    fn find(&mut self, bytes: &[u8], trailers: bool) -> Result<Option<usize>, Violation> {
        if trailers && bytes.starts_with(b"\r\n") {
            return Ok(Some(2));
        }
        let from = self.searched.saturating_sub(3).min(bytes.len());
        let end = |at: &usize| bytes[from + at..].starts_with(b"\r\n\r\n");
        let found = memchr::memchr_iter(b'\r', &bytes[from..]).find(end).map(|at| from + at + 4);
        if found.unwrap_or(bytes.len()) > MAX_HEAD_BYTES {
            return Err(Violation("the head is larger than 64 KiB"));
        }
        // Of a head with other line ends no end would ever be found.
        clean_so_far(&bytes[..found.unwrap_or(bytes.len())], self.searched.saturating_sub(1))?;
        self.searched = if found.is_some() { 0 } else { bytes.len() };
        Ok(found)
    }
}

/// Where the first CR LF is. Lines are short: a search made for longer needles costs more than it saves.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\r', bytes).find(|at| bytes.get(at + 1) == Some(&b'\n'))
}

fn memchr_crlf(bytes: &[u8]) -> Option<usize> {
    let bounded = &bytes[..bytes.len().min(MAX_CHUNK_LINE + 2)];
    line_end(bounded)
}

/// Whether lines end by CR LF alone, as far as they have come: others may read a bare one as an end (RFC 9112, 2.2). Before
/// `from` they were looked at.
fn clean_so_far(bytes: &[u8], from: usize) -> Result<(), Violation> {
    let rest = bytes.get(from..).unwrap_or_default();
    let alone = |at: usize| match bytes[from + at] {
        b'\n' => (from + at).checked_sub(1).is_none_or(|before| bytes[before] != b'\r'),
        _ => bytes.get(from + at + 1).is_some_and(|next| *next != b'\n'),
    };
    if memchr::memchr2_iter(b'\r', b'\n', rest).any(alone) {
        return Err(Violation("control characters: a line that ends by CR or LF alone"));
    }
    Ok(())
}

/// What follows a chunk's size: `;name`, `;name=token` or `;name="text"` (RFC 9112, 7.1.1). A quoted text ends on its line,
/// or whoever reads it otherwise sees the chunk begin elsewhere.
fn extensions(mut text: &[u8]) -> bool {
    let spaces = |text: &mut &[u8]| *text = text.trim_ascii_start();
    let token = |text: &mut &[u8]| {
        let length = text.iter().take_while(|byte| is_token(**byte)).count();
        *text = &text[length..];
        length > 0
    };
    loop {
        spaces(&mut text);
        let Some((b';', rest)) = text.split_first() else { return text.is_empty() };
        text = rest;
        spaces(&mut text);
        if !token(&mut text) {
            return false;
        }
        spaces(&mut text);
        let Some((b'=', rest)) = text.split_first() else { continue };
        text = rest;
        spaces(&mut text);
        if let Some((b'"', quoted)) = text.split_first() {
            // Nothing that is escaped: readers differ in that, too.
            let Some(end) = quoted.iter().position(|byte| *byte == b'"') else { return false };
            if quoted[..end].contains(&b'\\') {
                return false;
            }
            text = &quoted[end + 1..];
        } else if !token(&mut text) {
            return false;
        }
    }
}

/// RFC 9112, 7.1: hexadecimal digits, then nothing or extensions of visible characters.
fn chunk_size(line: &[u8]) -> Result<u64, Violation> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    if size.is_empty() || size.len() > 15 {
        return Err(Violation("a chunk size is not 1 to 15 hexadecimal digits"));
    }
    let clean = |byte: &u8| (0x20..0x7f).contains(byte) || *byte == b'\t';
    if !extension.is_empty() && (extension[0] != b';' || !extension.iter().all(clean) || !extensions(extension)) {
        return Err(Violation("something other than a clean extension follows a chunk size"));
    }
    Ok(size.iter().fold(0, |sum, digit| sum << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or(0))))
}

/// RFC 9110, 5.6.2. A table, since every byte of every field's name is looked up.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x7f {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Without the spaces and tabs around it (RFC 9110, 5.6.3). `trim_ascii` takes CR, LF and form feeds for space as well.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A field's name and value.
type Field<'a> = (&'a [u8], &'a [u8]);

/// Fields, one a line: a token, a colon without space before it, a value without control characters.
fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>, most: usize) -> Result<Vec<Field<'a>>, Violation> {
    let mut all = Vec::with_capacity(16);
    for line in lines {
        if all.len() == most {
            return Err(Violation(if most == MAX_FIELDS {
                "more than 200 header fields"
            } else {
                "more than 2000 header fields"
            }));
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Violation("a folded header field (RFC 9112, 5.2)"));
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(Violation("a header line without a colon"));
        };
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(Violation("a header name with characters that aren't a token's"));
        }
        if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
            return Err(Violation("a header value with control characters"));
        }
        all.push((name, value));
    }
    Ok(all)
}

/// The lines of a section, each without its CR LF. A CR or LF elsewhere makes a value unclean, which `fields` refuses.
fn lines(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = section;
    std::iter::from_fn(move || {
        let end = line_end(rest)?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        (!line.is_empty()).then_some(line)
    })
}

/// A length as it must be written.
fn length_of(value: &[u8]) -> Result<u64, Violation> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Violation("Content-Length is not 1 to 18 digits"));
    }
    Ok(value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// How long the body is: the one thing that sender and receiver must agree on. In an answer, the same length said again
/// has one meaning (RFC 9110, 8.6), and goes on said once.
fn body_of(fields: &[Field<'_>], version: Version, again: bool) -> Result<Option<State>, Violation> {
    let mut length = None;
    let mut chunked = false;
    for (name, value) in fields {
        if name.eq_ignore_ascii_case(b"content-length") {
            if !again {
                if length.is_some() {
                    return Err(Violation("two Content-Length fields"));
                }
                length = Some(length_of(value)?);
                continue;
            }
            for value in value.split(|byte| *byte == b',') {
                let said = length_of(trim(value))?;
                if length.is_some_and(|length| length != said) {
                    return Err(Violation("two Content-Length fields that differ"));
                }
                length = Some(said);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked {
                return Err(Violation("two Transfer-Encoding fields"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation("a Transfer-Encoding other than chunked"));
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(Violation("both Content-Length and Transfer-Encoding")),
        (None, true) if version == Version::Http10 => Err(Violation("Transfer-Encoding in HTTP/1.0")),
        (None, true) => Ok(Some(State::ChunkSize)),
        (Some(length), false) => Ok(Some(State::Length(length))),
        (None, false) => Ok(None),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn request_head(head: &[u8]) -> Result<State, Violation> {
    let mut lines = lines(head);
    let line = lines.next().ok_or(Violation("an empty line instead of a request"))?;
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Violation("the request line isn't three words with one space between them"));
    };
    if method.is_empty() || method.len() > 32 || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Violation("the method isn't a token"));
    }
    if [b"CONNECT".as_slice(), b"TRACE"].contains(&method) {
        return Err(Violation("the methods CONNECT and TRACE are refused"));
    }
    if !target.starts_with(b"/") {
        return Err(Violation("the target isn't a path: absolute, authority and asterisk forms are refused"));
    }
    if target.iter().any(|byte| !(0x21..0x7f).contains(byte) || *byte == b'#') {
        return Err(Violation("the target has a fragment, or characters that must be percent-encoded"));
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(Violation("the version isn't HTTP/1.1 or HTTP/1.0")),
    };
    let fields = fields(lines, MAX_FIELDS)?;
    let (mut hosts, mut expects) = (0, 0);
    for (name, value) in &fields {
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"connection") {
            // Whoever names another field here wants it dropped between us and the next.
            let known = |option: &[u8]| {
                [b"close".as_slice(), b"keep-alive", b"te", b"upgrade", b""]
                    .iter()
                    .any(|known| trim(option).eq_ignore_ascii_case(known))
            };
            if !value.split(|byte| *byte == b',').all(known) {
                return Err(Violation("Connection names something other than close, keep-alive, te or upgrade"));
            }
        } else if name.eq_ignore_ascii_case(b"expect") {
            // What is not 100-continue, AWS answers by itself: 417.
            expects += 1;
        }
    }
    if expects > 1 {
        return Err(Violation("two Expect fields"));
    }
    if hosts != 1 {
        return Err(Violation("not exactly one Host field"));
    }
    Ok(body_of(&fields, version, false)?.unwrap_or(State::Head))
}

fn answer_head(head: &[u8], to_head: bool, may_switch: bool) -> Result<State, Violation> {
    let mut lines = lines(head);
    let line = lines.next().ok_or(Violation("an empty line instead of a status line"))?;
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::Http11,
        Some(b"HTTP/1.0 ") => Version::Http10,
        _ => return Err(Violation("the status line doesn't begin with HTTP/1.1 or HTTP/1.0")),
    };
    let status = match &line[9..] {
        [a @ b'1'..=b'5', b, c, rest @ ..] if b.is_ascii_digit() && c.is_ascii_digit() => {
            if !(rest.is_empty() || rest[0] == b' ') {
                return Err(Violation("the status isn't three digits and a space"));
            }
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(Violation("the status isn't three digits from 100 to 599")),
    };
    if line.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
        return Err(Violation("the status line has control characters"));
    }
    if status == 101 && !may_switch {
        return Err(Violation("101 Relay Protocols, which nobody asked for"));
    }
    let body = body_of(&fields(lines, MAX_ANSWER_FIELDS)?, version, true)?;
    if status == 101 {
        return match body {
            None => Ok(State::UntilClose),
            Some(_) => Err(Violation("a length or Transfer-Encoding where no body may be")),
        };
    }
    if status < 200 || status == 204 {
        return match body {
            // It has none, whatever it says (RFC 9112, 6.3), and what follows is nobody's: the connection is over.
            Some(State::ChunkSize | State::Length(1..)) if status == 204 => Ok(State::Over),
            Some(State::ChunkSize) => Err(Violation("a chunked body where none may be")),
            Some(State::Length(1..)) => Err(Violation("a length where no body may be")),
            _ => Ok(State::Head),
        };
    }
    if to_head || status == 304 {
        return Ok(State::Head);
    }
    Ok(body.unwrap_or(State::UntilClose))
}

fn trailers(section: &[u8]) -> Result<(), Violation> {
    let forbidden = [b"content-length".as_slice(), b"transfer-encoding", b"host", b"authorization", b"connection"];
    for (name, _) in fields(lines(section), MAX_FIELDS)? {
        if forbidden.iter().any(|field| name.eq_ignore_ascii_case(field)) {
            return Err(Violation("a trailer that belongs into the head"));
        }
    }
    Ok(())
}

/// A stream whose incoming HTTP/1 messages are checked. What goes out is left as it is: hyper wrote it.
#[derive(Debug)]
pub struct Strict<S> {
    stream: S,
    framing: Framing,
    /// Read, and not yet cleared to go on.
    held: BytesMut,
    /// Cleared to go on.
    cleared: BytesMut,
    /// What is held is to be looked at before more is read.
    again: bool,
    refused: bool,
    /// Why, to be told as an error once what came before has gone on.
    broken: Option<Violation>,
}

impl<S> Strict<S> {
    /// Checks what comes from `stream`.
    pub fn new(stream: S, role: Role) -> Self {
        let (held, cleared) = (BytesMut::new(), BytesMut::new());
        Self { stream, framing: Framing::new(role), held, cleared, again: false, refused: false, broken: None }
    }

    /// Reads on, whatever it is, and throws it away; 0 at the end.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        let mut space = [MaybeUninit::uninit(); 8 << 10];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// The stream itself, if nothing has been read of it that wasn't given out.
    pub(crate) fn between(self) -> Option<S> {
        self.is_between().then_some(self.stream)
    }

    /// Nothing has been read of the next message.
    pub(crate) fn is_between(&self) -> bool {
        self.framing.state == State::Head && self.held.is_empty() && self.cleared.is_empty() && !self.refused
    }

    fn refuse(&mut self, violation: Violation) {
        self.refused = true;
        let head = std::mem::take(&mut self.held);
        match &self.framing.role {
            Role::Requests(heads) if self.framing.state == State::Head => {
                let stand_in = heads.refuse(Refused::Violation(violation), &head);
                let _ = heads.hold(0);
                self.cleared.extend_from_slice(&stand_in);
            }
            _ => self.broken = Some(violation),
        }
    }

    /// Clears what may go on of what is held.
    fn look_at_held(&mut self) {
        let (cleared, outcome) = self.framing.advance(&self.held);
        self.cleared = self.held.split_to(cleared);
        self.settle(outcome);
    }

    /// What becomes of what is held after what was cleared.
    fn settle(&mut self, outcome: Result<(), Violation>) {
        if std::mem::take(&mut self.framing.at_empty_line) {
            self.held.advance(2);
            self.again = !self.held.is_empty();
        }
        match outcome {
            Err(violation) => self.refuse(violation),
            Ok(()) => self.count(),
        }
    }

    /// Counts what is held of a head that isn't whole; without memory for it, it is refused.
    fn count(&mut self) {
        if let Role::Requests(heads) = &self.framing.role
            && let Err(exceeded) = heads.hold(self.held.len())
        {
            self.refused = true;
            let head = std::mem::take(&mut self.held);
            let _ = heads.hold(0);
            let stand_in = heads.refuse(Refused::Quota(exceeded), &head);
            self.cleared.extend_from_slice(&stand_in);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.cleared.is_empty() {
                let count = this.cleared.len().min(buf.remaining());
                buf.put_slice(&this.cleared[..count]);
                this.cleared.advance(count);
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.framing.state == State::Over {
                return Poll::Ready(Ok(()));
            }
            if let Some(violation) = this.broken.take() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
            }
            if this.refused {
                // Nothing is read any more. An end here would look like the agent's going away, and hyper would drop
                // the answer; it closes the connection by itself after it.
                return Poll::Pending;
            }
            if std::mem::take(&mut this.again) {
                this.look_at_held();
                continue;
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let new = &buf.filled()[before..];
            if new.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                // The usual case: what was read goes on from where it is, without a copy.
                let (cleared, outcome) = this.framing.advance(new);
                this.held.extend_from_slice(&new[cleared..]);
                buf.set_filled(before + cleared);
                this.settle(outcome);
                if cleared > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(new);
                buf.set_filled(before);
                this.look_at_held();
            }
        }
    }
}

writes_through!(Strict<S>, S);

#[cfg(test)]
mod tests;
