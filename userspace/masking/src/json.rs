//! JSON (RFC 8259), read strictly while it streams: one value, or with [`JsonMasker::new`]'s `many` one after the other.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};

use crate::{
    MaskError,
    escapes::{Decoded, Style, decode},
    out::Out,
    run::{MAX_VALUE, Run, Scanner},
    selector::{Kind, MAX_NAME, Place, Selected},
    utf8::Utf8,
};

/// Deeper than DynamoDB's 32 levels, of which each takes three of JSON's.
const MAX_DEPTH: usize = 256;
/// Six bytes of an escape for each of a value that its vault is shown.
const MAX_RAW: usize = 6 * MAX_VALUE;
const BOM: &[u8] = b"\xef\xbb\xbf";
/// A time that every client can read, and that nobody takes for one.
pub(crate) const NO_TIME: &str = "1970-01-01T00:00:00Z";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The beginning, where a byte order mark may stand; how much of it was there.
    Bom(u8),
    /// A value must come.
    Value,
    /// A value, or the list's end.
    FirstElement,
    /// A key, or the object's end.
    FirstKey,
    Key,
    Colon,
    /// A comma, or the end of the list or object.
    Next,
    /// Within a number.
    Number(Number),
    /// Within `true`, `false` or `null`: which, and how much of it was there.
    Word(&'static [u8], u8),
    /// Within a text. Whether it is a key.
    Text(bool, Escape),
    /// The value is over.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Dot,
    Fraction,
    E,
    Sign,
    Exponent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    /// So many digits are still to come.
    Unicode(u8),
}

#[derive(Debug)]
struct Frame {
    list: bool,
    place: Place,
    /// How long the path to it is.
    path: usize,
    /// One of its members has said that those beside it stay.
    spared: bool,
}

/// Masks JSON.
#[derive(Debug)]
pub(crate) struct JsonMasker {
    selected: Selected,
    many: bool,
    same_length: bool,
    state: State,
    stack: Vec<Frame>,
    /// Where the next value is.
    place: Place,
    path: String,
    key: BytesMut,
    /// The key is not in the path yet: most members' paths nobody asks for.
    unnamed: bool,
    /// Nothing in this piece could be a secret, so that texts that are whole in it needn't be looked at.
    clean: bool,
    /// What was read of a masked value, as it was written.
    value: Option<BytesMut>,
    /// What was read of a text that may spare those beside it.
    sibling: Option<BytesMut>,
    run: Run,
    utf8: Utf8,
}

const fn wrong(what: &'static str) -> MaskError {
    MaskError::Unparsable(what)
}

/// Bytes that a text may have, quotes and backslashes apart.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut at = 0;
    while at < 0x20 {
        plain[at] = false;
        at += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

impl JsonMasker {
    pub(crate) fn new(selected: Selected, many: bool, same_length: bool) -> Self {
        let place = selected.root();
        Self {
            selected,
            many,
            same_length,
            state: State::Bom(0),
            stack: Vec::new(),
            place,
            path: String::new(),
            key: BytesMut::new(),
            unnamed: false,
            clean: false,
            value: None,
            sibling: None,
            run: Run::default(),
            utf8: Utf8::default(),
        }
    }

    pub(crate) fn push(&mut self, bytes: &Bytes, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        self.utf8.push(bytes)?;
        self.clean = scanner.is_clean(bytes) && memchr::memchr(b'\\', bytes).is_none();
        let mut out = Out::new(bytes, out);
        let mut at = 0;
        while at < bytes.len() {
            at = self.step(bytes, at, scanner, &mut out)?;
        }
        if self.value.is_some() {
            out.drop_to(bytes.len());
        }
        out.pass_to(bytes.len());
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<(), MaskError> {
        self.utf8.finish()?;
        if let State::Number(number) = self.state {
            // Only the outermost value can be a number that nothing follows; it isn't masked then.
            if !number.is_whole() || !self.stack.is_empty() || self.value.is_some() {
                return Err(wrong("JSON that is whole"));
            }
            self.state = State::End;
        }
        let empty = matches!(self.state, State::Bom(0)) || self.many && self.state == State::Value;
        if self.state == State::End || empty && self.stack.is_empty() {
            return Ok(());
        }
        Err(wrong("JSON that is whole"))
    }

    /// Reads some bytes from `at` on; gives where to go on.
    fn step(&mut self, bytes: &[u8], at: usize, scanner: &mut Scanner, out: &mut Out<'_>) -> Result<usize, MaskError> {
        match self.state {
            State::Text(key, escape) => return self.text(bytes, at, key, escape, scanner, out),
            State::Number(number) => return self.number(bytes, at, number, scanner, out),
            State::Word(word, read) => return self.word(bytes, at, word, read, scanner, out),
            State::Bom(read) => {
                if bytes[at] == BOM[usize::from(read)] {
                    self.state = if read == 2 { State::Value } else { State::Bom(read + 1) };
                    return Ok(at + 1);
                }
                if read > 0 {
                    return Err(wrong("JSON: its byte order mark is none"));
                }
                self.state = State::Value;
            }
            _ => {}
        }
        let byte = bytes[at];
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(at + 1);
        }
        match (self.state, byte) {
            (State::FirstElement, b']') => self.close(true)?,
            (State::Next, b']' | b'}') => self.close(byte == b']')?,
            (State::FirstKey, b'}') => self.close(false)?,
            (State::FirstKey | State::Key, b'"') => {
                self.key.clear();
                self.run.begin(self.same_length);
                self.state = State::Text(true, Escape::None);
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Next, b',') => {
                let list = self.stack.last().is_some_and(|frame| frame.list);
                self.state = if list { State::Value } else { State::Key };
                if list {
                    self.element();
                }
            }
            (State::Value | State::FirstElement, _) => return self.value(byte, at, out),
            (State::End, _) if self.many => {
                self.state = State::Value;
                self.place = self.selected.root();
                return Ok(at);
            }
            (State::End, _) => return Err(wrong("one JSON value: something follows it")),
            _ => return Err(wrong("JSON")),
        }
        Ok(at + 1)
    }

    /// A value begins.
    fn value(&mut self, byte: u8, at: usize, out: &mut Out<'_>) -> Result<usize, MaskError> {
        if byte != b'"' {
            self.sibling = None;
        }
        let masked = self.place.mask.is_some();
        if masked || matches!(byte, b'{' | b'[') {
            self.name_it()?;
        }
        let mut withhold = |this: &mut Self, from: usize| {
            if masked {
                out.pass_to(from);
                this.value = Some(BytesMut::new());
            }
        };
        self.state = match byte {
            b'"' => {
                self.run.begin(self.same_length);
                withhold(self, at + 1);
                State::Text(false, Escape::None)
            }
            b'{' | b'[' => {
                if self.stack.len() >= MAX_DEPTH {
                    return Err(MaskError::TooLarge("JSON within JSON", MAX_DEPTH));
                }
                let list = byte == b'[';
                self.stack.push(Frame { list, place: self.place.clone(), path: self.path.len(), spared: false });
                if list {
                    self.path.push_str("[]");
                    self.element();
                    State::FirstElement
                } else {
                    State::FirstKey
                }
            }
            b't' => {
                withhold(self, at);
                State::Word(b"true", 1)
            }
            b'f' => {
                withhold(self, at);
                State::Word(b"false", 1)
            }
            b'n' => State::Word(b"null", 1),
            b'-' | b'0'..=b'9' => {
                // A number that is the whole body has no end of its own, and no name that could select it.
                if !self.stack.is_empty() {
                    withhold(self, at);
                }
                State::Number(match byte {
                    b'-' => Number::Minus,
                    b'0' => Number::Zero,
                    _ => Number::Integer,
                })
            }
            _ => return Err(wrong("JSON: a value is none")),
        };
        Ok(at + 1)
    }

    /// The next value is an element of the list that is being read.
    fn element(&mut self) {
        if let Some(frame) = self.stack.last() {
            self.place = self.selected.element(&frame.place);
        }
    }

    fn close(&mut self, list: bool) -> Result<(), MaskError> {
        let frame = self.stack.pop().filter(|frame| frame.list == list).ok_or(wrong("JSON: its brackets don't fit"))?;
        self.path.truncate(frame.path);
        self.over();
        Ok(())
    }

    /// A value is over.
    fn over(&mut self) {
        match self.stack.last() {
            None => {
                self.path.clear();
                self.state = State::End;
            }
            Some(frame) => {
                if !frame.list {
                    self.path.truncate(frame.path);
                    self.unnamed = false;
                }
                self.state = State::Next;
            }
        }
    }

    fn text(
        &mut self,
        bytes: &[u8],
        start: usize,
        key: bool,
        mut escape: Escape,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<usize, MaskError> {
        let mut at = start;
        let mut closed = false;
        while at < bytes.len() {
            let byte = bytes[at];
            escape = match escape {
                Escape::None if PLAIN[usize::from(byte)] => {
                    at += 1;
                    while bytes.get(at).is_some_and(|byte| PLAIN[usize::from(*byte)]) {
                        at += 1;
                    }
                    continue;
                }
                Escape::None if byte == b'"' => {
                    closed = true;
                    break;
                }
                Escape::None if byte == b'\\' => Escape::Backslash,
                Escape::None => return Err(wrong("JSON: a text has a control character")),
                Escape::Backslash => match byte {
                    b'u' => Escape::Unicode(4),
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Escape::None,
                    _ => return Err(wrong("JSON: an escape is none")),
                },
                Escape::Unicode(_) if !byte.is_ascii_hexdigit() => return Err(wrong("JSON: an escape is none")),
                Escape::Unicode(1) => Escape::None,
                Escape::Unicode(left) => Escape::Unicode(left - 1),
            };
            at += 1;
        }
        self.state = State::Text(key, escape);
        if key && self.key.len() <= 6 * MAX_NAME {
            let most = (6 * MAX_NAME + 1 - self.key.len()).min(at - start);
            self.key.extend_from_slice(&bytes[start..start + most]);
        }
        if let Some(text) = self.sibling.as_mut().filter(|text| !key && text.len() + (at - start) <= MAX_NAME) {
            text.extend_from_slice(&bytes[start..at]);
        }
        if let Some(value) = self.value.as_mut().filter(|_| !key) {
            if value.len() <= MAX_RAW {
                let most = (MAX_RAW + 1 - value.len()).min(at - start);
                value.extend_from_slice(&bytes[start..start + most]);
            }
        } else if !(self.clean && closed && self.run.is_idle()) {
            if !key {
                self.name_it()?;
            }
            self.run.push((start, at), closed, Style::Json, &self.path, scanner, out)?;
        }
        if !closed {
            return Ok(at);
        }
        if key {
            self.named()?;
        } else {
            if let Some(text) = self.sibling.take() {
                self.beside(&text)?;
            }
            if let Some(value) = self.value.take() {
                out.drop_to(at);
                let by = self.masked_text(&value, scanner)?;
                out.put(by);
            }
            self.over();
        }
        Ok(at + 1)
    }

    /// A key is whole: the next value is that member.
    fn named(&mut self) -> Result<(), MaskError> {
        let Some(frame) = self.stack.last() else { return Err(wrong("JSON")) };
        (self.unnamed, self.sibling, self.state) = (true, None, State::Colon);
        if frame.place.is_nothing() {
            self.place = frame.place.clone();
            return Ok(());
        }
        let name = self.name()?;
        let place = self.selected.member(&frame.place, &name.text);
        let sibling = self.selected.may_spare(&frame.place, &name.text).then(BytesMut::new);
        let spared = frame.spared && place.mask.is_some_and(|(_, mask)| mask.spared);
        (self.place, self.sibling) = (place, sibling);
        if spared {
            self.place.mask = None;
        }
        Ok(())
    }

    /// The key. One that is longer than any member's name stands for none.
    fn name(&self) -> Result<Decoded<'_>, MaskError> {
        let raw = if self.key.len() > 6 * MAX_NAME { &[][..] } else { &self.key[..] };
        decode(raw, Style::Json, true)
    }

    /// Puts the key into the path, if it isn't there yet.
    fn name_it(&mut self) -> Result<(), MaskError> {
        if !std::mem::take(&mut self.unnamed) {
            return Ok(());
        }
        let told = self.name()?;
        // Long names are keys of maps; of those the beginning is told.
        let told: String = String::from_utf8_lossy(&told.text).chars().take(64).collect();
        self.path.truncate(self.stack.last().map_or(0, |frame| frame.path));
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(&told);
        Ok(())
    }

    /// A text that may spare the members beside it is whole.
    fn beside(&mut self, text: &[u8]) -> Result<(), MaskError> {
        let (name, text) = (decode(&self.key, Style::Json, true)?, decode(text, Style::Json, true)?);
        if let Some(frame) = self.stack.last_mut() {
            frame.spared = self.selected.spares(&frame.place, &name.text, &text.text);
        }
        Ok(())
    }

    /// What a masked text goes on as. Nothing is nobody's secret.
    fn masked_text(&self, raw: &[u8], scanner: &mut Scanner) -> Result<Bytes, MaskError> {
        let Some(mask) = self.place.mask.filter(|_| !raw.is_empty()) else { return Ok(Bytes::new()) };
        let rule = self.selected.rule(mask);
        let decoded = if raw.len() > MAX_RAW { None } else { Some(decode(raw, Style::Json, true)?) };
        let value = decoded.as_ref().map(|it| &it.text[..]);
        Ok(replacement(mask.1.kind, rule, &self.path, value, scanner))
    }

    fn number(
        &mut self,
        bytes: &[u8],
        start: usize,
        mut number: Number,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<usize, MaskError> {
        let mut at = start;
        while at < bytes.len() {
            let next = match (number, bytes[at]) {
                (Number::Minus, b'0') => Number::Zero,
                (Number::Minus, b'1'..=b'9') | (Number::Integer, b'0'..=b'9') => Number::Integer,
                (Number::Zero | Number::Integer, b'.') => Number::Dot,
                (Number::Dot | Number::Fraction, b'0'..=b'9') => Number::Fraction,
                (Number::Zero | Number::Integer | Number::Fraction, b'e' | b'E') => Number::E,
                (Number::E, b'+' | b'-') => Number::Sign,
                (Number::E | Number::Sign | Number::Exponent, b'0'..=b'9') => Number::Exponent,
                _ => break,
            };
            number = next;
            at += 1;
        }
        if at == bytes.len() {
            self.state = State::Number(number);
            return Ok(at);
        }
        if !number.is_whole() {
            return Err(wrong("JSON: a number is none"));
        }
        self.masked_word(at, b"0", scanner, out);
        self.over();
        Ok(at)
    }

    fn word(
        &mut self,
        bytes: &[u8],
        at: usize,
        word: &'static [u8],
        read: u8,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<usize, MaskError> {
        if bytes[at] != word[usize::from(read)] {
            return Err(wrong("JSON: a value is none"));
        }
        if usize::from(read) + 1 < word.len() {
            self.state = State::Word(word, read + 1);
            return Ok(at + 1);
        }
        self.masked_word(at + 1, b"false", scanner, out);
        self.over();
        Ok(at + 1)
    }

    /// A masked number or boolean ends before `at`.
    fn masked_word(&mut self, at: usize, by: &'static [u8], scanner: &mut Scanner, out: &mut Out<'_>) {
        if self.value.take().is_some()
            && let Some(mask) = self.place.mask
        {
            out.drop_to(at);
            out.put(Bytes::from_static(by));
            scanner.findings.add(self.selected.rule(mask), &self.path);
        }
    }
}

impl Number {
    const fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::Exponent)
    }
}

/// What a masked text of this kind goes on as, in formats that are text.
pub(crate) fn replacement(kind: Kind, rule: &str, path: &str, value: Option<&[u8]>, scanner: &mut Scanner) -> Bytes {
    match kind {
        Kind::Text => scanner.placeholder(kind, rule, path, value).into(),
        Kind::Blob => STANDARD.encode(scanner.placeholder(kind, rule, path, value)).into(),
        Kind::Timestamp | Kind::Boolean | Kind::Number => {
            scanner.findings.add(rule, path);
            Bytes::from_static(match kind {
                Kind::Timestamp => NO_TIME.as_bytes(),
                Kind::Boolean => b"false",
                _ => b"0",
            })
        }
    }
}
