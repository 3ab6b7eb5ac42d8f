//! XML as AWS writes it (REST, query, EC2), read strictly while it streams. A DOCTYPE is refused, and with it every
//! entity that isn't XML's own; so is text beside CDATA or comments, in which nobody could find what is split by them.

use bytes::{Bytes, BytesMut};

use crate::{
    MaskError,
    escapes::{Style, decode},
    json::replacement,
    out::Out,
    run::{MAX_VALUE, Run, Scanner},
    selector::{MAX_NAME, Place, Selected},
    utf8::Utf8,
};

const MAX_DEPTH: usize = 128;
/// The longest tag, with its attributes, and the longest comment.
const MAX_TAG: usize = 64 * 1024;
const MAX_RAW: usize = 8 * MAX_VALUE;
const MAX_CDATA: usize = 1 << 20;
const CDATA_BEGINS: &[u8] = b"<![CDATA[";
const BOM: &[u8] = b"\xef\xbb\xbf";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// Within what `<` begins; it is in `tag`.
    Tag,
    /// Within CDATA; how many `]` were last.
    Cdata(u8),
}

#[derive(Debug)]
struct Element {
    place: Place,
    path: usize,
    /// Where its name begins in `names`.
    name: usize,
    /// Sort of text that it has: [`PLAIN`], [`CDATA`], [`COMMENT`].
    has: u8,
}

const PLAIN: u8 = 1;
const CDATA: u8 = 2;
const COMMENT: u8 = 4;

/// Masks XML.
#[derive(Debug)]
pub(crate) struct XmlMasker {
    selected: Selected,
    same_length: bool,
    state: State,
    stack: Vec<Element>,
    names: Vec<u8>,
    path: String,
    tag: BytesMut,
    /// What was read of a masked text, as it was written.
    value: BytesMut,
    run: Run,
    utf8: Utf8,
    began: bool,
    over: bool,
}

const fn wrong(what: &'static str) -> MaskError {
    MaskError::Unparsable(what)
}

impl XmlMasker {
    pub(crate) fn new(selected: Selected, same_length: bool) -> Self {
        Self {
            selected,
            same_length,
            state: State::Text,
            stack: Vec::new(),
            names: Vec::new(),
            path: String::new(),
            tag: BytesMut::new(),
            value: BytesMut::new(),
            run: Run::default(),
            utf8: Utf8::default(),
            began: false,
            over: false,
        }
    }

    pub(crate) fn push(&mut self, bytes: &Bytes, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        self.utf8.push(bytes)?;
        let mut out = Out::new(bytes, out);
        let mut at = 0;
        while at < bytes.len() {
            at = match self.state {
                State::Text => self.text(bytes, at, scanner, &mut out)?,
                State::Tag => self.tag(bytes, at, scanner, &mut out)?,
                State::Cdata(_) => self.cdata(bytes, at, scanner, &mut out)?,
            };
        }
        out.pass_to(bytes.len());
        Ok(())
    }

    pub(crate) fn finish(&self) -> Result<(), MaskError> {
        self.utf8.finish()?;
        // No body at all is what some answers have.
        if self.state == State::Text && self.stack.is_empty() && (self.over || !self.began) {
            return Ok(());
        }
        Err(wrong("XML that is whole"))
    }

    fn mask(&self) -> Option<(u8, crate::Mask)> {
        self.stack.last().and_then(|element| element.place.mask)
    }

    fn text(&mut self, bytes: &[u8], at: usize, scanner: &mut Scanner, out: &mut Out<'_>) -> Result<usize, MaskError> {
        let end = memchr::memchr(b'<', &bytes[at..]).map_or(bytes.len(), |found| at + found);
        if end > at {
            let part = &bytes[at..end];
            if self.stack.is_empty() {
                // A byte order mark, in as many pieces as it likes, and white space.
                if part.iter().any(|b| !b.is_ascii_whitespace() && (self.began || !BOM.contains(b))) {
                    return Err(wrong("XML: there is text outside of it"));
                }
            } else {
                self.has(part, PLAIN)?;
                if self.mask().is_some() {
                    out.pass_to(at);
                    out.drop_to(end);
                    self.keep(part);
                } else {
                    // What follows tells whether the text is over: all but CDATA and comments.
                    let last = bytes.get(end + 1).is_some_and(|b| *b != b'!');
                    self.run.push((at, end), last, Style::Xml, &self.path, scanner, out)?;
                }
            }
        }
        if end == bytes.len() {
            return Ok(end);
        }
        self.state = State::Tag;
        self.tag.clear();
        Ok(end)
    }

    /// Notes that the element being read has text of this sort.
    fn has(&mut self, part: &[u8], sort: u8) -> Result<(), MaskError> {
        let Some(element) = self.stack.last_mut() else { return Ok(()) };
        if sort != PLAIN || part.iter().any(|b| !b.is_ascii_whitespace()) {
            element.has |= sort;
        }
        if element.has.count_ones() > 1 {
            return Err(wrong("XML whose texts are whole: one is beside CDATA or a comment"));
        }
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) {
        if self.value.len() <= MAX_RAW {
            let most = (MAX_RAW + 1 - self.value.len()).min(part.len());
            self.value.extend_from_slice(&part[..most]);
        }
    }

    /// Reads what is from `<` to `>`. Where the piece ends before, it is collected in `tag`.
    fn tag(
        &mut self,
        bytes: &[u8],
        start: usize,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<usize, MaskError> {
        if self.tag.is_empty()
            && let Some(length) = tag_length(&bytes[start..])?
        {
            let tag = out.chunk.slice(start..start + length);
            self.whole_tag(&tag, start, false, scanner, out)?;
            return Ok(start + length);
        }
        out.pass_to(start);
        let mut at = start;
        while at < bytes.len() {
            self.tag.extend_from_slice(&bytes[at..=at]);
            at += 1;
            let ends = bytes[at - 1] == b'>' || self.tag.len() == CDATA_BEGINS.len() || at == bytes.len();
            if ends && tag_length(&self.tag)?.is_some() {
                out.drop_to(at);
                let tag = std::mem::take(&mut self.tag).freeze();
                self.whole_tag(&tag, at, true, scanner, out)?;
                return Ok(at);
            }
        }
        out.drop_to(at);
        Ok(at)
    }

    /// A tag that is whole and begins at `at`; `spilled` if it isn't in the piece, and is to be put in there.
    fn whole_tag(
        &mut self,
        tag: &Bytes,
        at: usize,
        spilled: bool,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<(), MaskError> {
        self.state = State::Text;
        match &tag[..] {
            CDATA_BEGINS => {
                self.has(b"", CDATA)?;
                if self.stack.is_empty() {
                    return Err(wrong("XML: there is text outside of it"));
                }
                // White space before it, at most.
                self.run.end(Style::Xml, &self.path, scanner, out, at)?;
                self.run.begin(self.same_length);
                self.value.clear();
                if !spilled {
                    out.pass_to(at);
                    out.drop_to(at + tag.len());
                }
                self.state = State::Cdata(0);
                return Ok(());
            }
            [b'<', b'!', b'-', b'-', inner @ .., b'-', b'-', b'>'] => {
                if memchr::memmem::find(inner, b"--").is_some() || inner.ends_with(b"-") {
                    return Err(wrong("XML: a comment is none"));
                }
                self.has(b"", COMMENT)?;
                return self.scanned(tag, at, spilled, Style::Plain, scanner, out);
            }
            [b'<', b'!', ..] => return Err(wrong("XML without a DOCTYPE")),
            [b'<', b'?', ..] => {
                if self.began || !tag.starts_with(b"<?xml") {
                    return Err(wrong("XML: it has a processing instruction"));
                }
            }
            [b'<', b'/', name @ .., b'>'] => {
                self.text_ends(scanner, out, at, true)?;
                self.close(trim_end(name))?;
            }
            _ => {
                self.text_ends(scanner, out, at, false)?;
                self.open(tag)?;
                self.scanned(tag, at, spilled, Style::Xml, scanner, out)?;
                if tag.ends_with(b"/>") {
                    let element = self.stack.pop();
                    self.shorten(element);
                }
                return Ok(());
            }
        }
        if spilled {
            out.put(tag.clone());
        }
        Ok(())
    }

    /// The text before a tag is over.
    fn text_ends(
        &mut self,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
        at: usize,
        closes: bool,
    ) -> Result<(), MaskError> {
        let Some(mask) = self.mask() else {
            self.run.end(Style::Xml, &self.path, scanner, out, at)?;
            self.run.begin(self.same_length);
            return Ok(());
        };
        let value = std::mem::take(&mut self.value);
        if value.is_empty() {
            return Ok(());
        }
        // What is between elements is layout.
        if !closes && value.iter().all(u8::is_ascii_whitespace) {
            out.put(value.freeze());
            return Ok(());
        }
        let cdata = self.stack.last().is_some_and(|element| element.has & CDATA != 0);
        let style = if cdata { Style::Plain } else { Style::Xml };
        let decoded = if value.len() > MAX_RAW { None } else { Some(decode(&value, style, true)?) };
        let rule = self.selected.rule(mask);
        let value = decoded.as_ref().map(|it| &it.text[..]);
        out.put(replacement(mask.1.kind, rule, &self.path, value, scanner));
        Ok(())
    }

    fn open(&mut self, tag: &[u8]) -> Result<(), MaskError> {
        if self.over {
            return Err(wrong("one XML element: something follows it"));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(MaskError::TooLarge("XML within XML", MAX_DEPTH));
        }
        let inner = tag[1..tag.len() - 1].strip_suffix(b"/").unwrap_or(&tag[1..tag.len() - 1]);
        let length = inner.iter().position(u8::is_ascii_whitespace).unwrap_or(inner.len());
        let name = &inner[..length];
        if name.is_empty() || name.len() > MAX_NAME || !name.iter().all(|b| is_name(*b)) {
            return Err(wrong("XML: an element's name is none"));
        }
        attributes(&inner[length..])?;
        self.began = true;
        let local = name.rsplit(|b| *b == b':').next().unwrap_or(name);
        let place = match self.stack.last() {
            Some(parent) => self.selected.member(&parent.place, local),
            None => self.selected.member(&self.selected.root(), local),
        };
        let path = self.path.len();
        // The outermost element says which answer it is, and is no part of the path.
        if !self.stack.is_empty() {
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.extend(String::from_utf8_lossy(local).chars().take(64));
        }
        let at = self.names.len();
        self.names.extend_from_slice(name);
        self.stack.push(Element { place, path, name: at, has: 0 });
        self.run.begin(self.same_length);
        Ok(())
    }

    fn close(&mut self, name: &[u8]) -> Result<(), MaskError> {
        let element = self.stack.pop().filter(|element| self.names[element.name..] == *name);
        if element.is_none() {
            return Err(wrong("XML: its tags don't fit"));
        }
        self.shorten(element);
        Ok(())
    }

    fn shorten(&mut self, element: Option<Element>) {
        if let Some(element) = element {
            self.names.truncate(element.name);
            self.path.truncate(element.path);
        }
        self.over = self.stack.is_empty();
        self.run.begin(self.same_length);
    }

    /// A tag's attributes, or a comment, are looked through like a text, and go on.
    fn scanned(
        &self,
        tag: &Bytes,
        at: usize,
        spilled: bool,
        style: Style,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<(), MaskError> {
        let before = scanner.findings.count();
        let mut given = Vec::new();
        // Most tags have no attributes.
        if tag.iter().any(u8::is_ascii_whitespace) || style == Style::Plain {
            let mut own = Out::new(tag, &mut given);
            Run::new(self.same_length).push((0, tag.len()), true, style, &self.path, scanner, &mut own)?;
            own.pass_to(tag.len());
        } else {
            given.push(tag.clone());
        }
        if spilled || scanner.findings.count() != before {
            if !spilled {
                out.pass_to(at);
                out.drop_to(at + tag.len());
            }
            for part in given {
                out.put(part);
            }
        }
        Ok(())
    }

    /// CDATA is kept until it ends.
    fn cdata(
        &mut self,
        bytes: &[u8],
        start: usize,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<usize, MaskError> {
        let State::Cdata(mut brackets) = self.state else { return Ok(start) };
        let mut at = start;
        let mut closed = false;
        while at < bytes.len() && !closed {
            match bytes[at] {
                b']' => brackets = brackets.saturating_add(1).min(2),
                b'>' if brackets == 2 => closed = true,
                _ => brackets = 0,
            }
            at += 1;
        }
        self.state = State::Cdata(brackets);
        out.pass_to(start);
        out.drop_to(at);
        if self.value.len() + (at - start) > MAX_CDATA {
            return Err(MaskError::TooLarge("XML's CDATA", MAX_CDATA));
        }
        self.value.extend_from_slice(&bytes[start..at]);
        if !closed {
            return Ok(at);
        }
        self.state = State::Text;
        self.value.truncate(self.value.len() - 3);
        if self.mask().is_some() {
            return Ok(at);
        }
        let text = std::mem::take(&mut self.value).freeze();
        out.put(Bytes::from_static(CDATA_BEGINS));
        let mut given = Vec::new();
        let mut own = Out::new(&text, &mut given);
        Run::new(self.same_length).push((0, text.len()), true, Style::Plain, &self.path, scanner, &mut own)?;
        own.pass_to(text.len());
        for part in given {
            out.put(part);
        }
        out.put(Bytes::from_static(b"]]>"));
        Ok(at)
    }
}

/// How long the tag is that begins here; `None` if it isn't whole.
fn tag_length(text: &[u8]) -> Result<Option<usize>, MaskError> {
    let bounded = |length: Option<usize>| match length {
        Some(length) if length <= MAX_TAG => Ok(Some(length)),
        None if text.len() <= MAX_TAG => Ok(None),
        _ => Err(MaskError::TooLarge("an XML tag", MAX_TAG)),
    };
    let until = |end: &[u8], from: usize| {
        let found = text.get(from..).and_then(|rest| memchr::memmem::find(rest, end));
        bounded(found.map(|at| from + at + end.len()))
    };
    match text {
        [b'<'] | [b'<', b'!'] | [b'<', b'!', b'-'] => return Ok(None),
        [b'<', b'!', b'-', b'-', ..] => return until(b"-->", 4),
        [b'<', b'?', ..] => return until(b"?>", 2),
        [b'<', b'!', b'[', ..] => {
            let length = text.len().min(CDATA_BEGINS.len());
            if text[..length] != CDATA_BEGINS[..length] {
                return Err(wrong("XML without a DOCTYPE"));
            }
            return Ok((length == CDATA_BEGINS.len()).then_some(length));
        }
        [b'<', b'!', ..] => return Err(wrong("XML without a DOCTYPE")),
        _ => {}
    }
    let mut quote = None;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match (quote, byte) {
            (Some(it), _) if it == *byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'>') => return bounded(Some(at + 1)),
            (None, b'<') => return Err(wrong("XML: a tag is in a tag")),
            _ => {}
        }
    }
    bounded(None)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-' | b'.') || byte >= 0x80
}

fn trim_end(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|b| !b.is_ascii_whitespace()).map_or(0, |at| at + 1);
    &name[..end]
}

/// Attributes must be names with quoted values, and nothing else.
fn attributes(mut rest: &[u8]) -> Result<(), MaskError> {
    let bad = || wrong("XML: an attribute is none");
    loop {
        let trimmed = rest.trim_ascii_start();
        if trimmed.is_empty() {
            return Ok(());
        }
        if trimmed.len() == rest.len() {
            return Err(bad());
        }
        let length = trimmed.iter().take_while(|b| is_name(**b)).count();
        let value = trimmed[length..].trim_ascii_start().strip_prefix(b"=").ok_or_else(bad)?.trim_ascii_start();
        let quote = *value.first().filter(|b| matches!(b, b'"' | b'\'')).ok_or_else(bad)?;
        let end = value[1..].iter().position(|b| *b == quote).ok_or_else(bad)?;
        if length == 0 || value[1..=end].contains(&b'<') {
            return Err(bad());
        }
        rest = &value[end + 2..];
    }
}
