//! CBOR (RFC 8949), one item, read strictly while it streams.
//!
//! A text's length stands before it. So texts are held until they are whole, and get a length of their own where a
//! secret in them is replaced; in longer ones secrets are written over by as many bytes, and the length stays.

use bytes::{Bytes, BytesMut};

use crate::{
    MaskError,
    escapes::Style,
    out::Out,
    run::{MAX_VALUE, Run, Scanner},
    selector::{Kind, MAX_NAME, Place, Selected},
    utf8::Utf8,
};

const MAX_DEPTH: usize = 128;
/// Texts up to this length may change it.
const MAX_WHOLE: u64 = 64 * 1024;
/// The most of a text in parts, whose length is known at its end alone.
const MAX_PARTS: usize = 1 << 20;
const BREAK: u8 = 0xff;

const fn wrong(what: &'static str) -> MaskError {
    MaskError::Unparsable(what)
}

#[derive(Debug)]
struct Frame {
    map: bool,
    /// How many items are still to come; `None` until a break.
    left: Option<u64>,
    /// A key is next.
    key: bool,
    place: Place,
    path: usize,
    /// One of its members has said that those beside it stay.
    spared: bool,
    /// The member being read.
    name: Bytes,
}

/// A text or bytes that are being read.
#[derive(Debug)]
struct Body {
    text: bool,
    /// How many bytes are still to come.
    left: u64,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Collected to its end; then it is told what goes on.
    Whole,
    /// Goes on while it is looked through.
    Passing,
    /// A masked one that is too long to be kept.
    Dropped,
}

/// Masks CBOR.
#[derive(Debug)]
pub(crate) struct CborMasker {
    selected: Selected,
    /// An item's head that isn't whole yet.
    head: BytesMut,
    stack: Vec<Frame>,
    place: Place,
    path: String,
    body: Option<Body>,
    /// The text's bytes, and as it was written with its head.
    content: BytesMut,
    written: BytesMut,
    /// Parts of a text of unknown length are being read: whether they are text.
    parts: Option<bool>,
    tags: usize,
    run: Run,
    utf8: Utf8,
    over: bool,
    began: bool,
}

impl CborMasker {
    pub(crate) fn new(selected: Selected) -> Self {
        let place = selected.root();
        Self {
            selected,
            head: BytesMut::new(),
            stack: Vec::new(),
            place,
            path: String::new(),
            body: None,
            content: BytesMut::new(),
            written: BytesMut::new(),
            parts: None,
            tags: 0,
            run: Run::default(),
            utf8: Utf8::default(),
            over: false,
            began: false,
        }
    }

    pub(crate) fn push(&mut self, bytes: &Bytes, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        self.began = true;
        let mut out = Out::new(bytes, out);
        let mut at = 0;
        while at < bytes.len() {
            at = match self.body.take() {
                Some(body) => self.body(body, bytes, at, scanner, &mut out)?,
                None => self.item(bytes, at, scanner, &mut out)?,
            };
        }
        out.pass_to(bytes.len());
        Ok(())
    }

    pub(crate) fn finish(&self) -> Result<(), MaskError> {
        if self.over && self.body.is_none() && self.head.is_empty() || !self.began {
            return Ok(());
        }
        Err(wrong("CBOR that is whole"))
    }

    /// Reads an item's head.
    fn item(&mut self, bytes: &[u8], at: usize, scanner: &mut Scanner, out: &mut Out<'_>) -> Result<usize, MaskError> {
        if self.over {
            return Err(wrong("one CBOR item: something follows it"));
        }
        let first = *self.head.first().unwrap_or(&bytes[at]);
        let more = match first & 0x1f {
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            28..=30 => return Err(wrong("CBOR: a length is reserved")),
            _ => 0,
        };
        // A head is held until it is whole, and goes on with what it is the head of.
        let needed = 1 + more - self.head.len();
        let take = needed.min(bytes.len() - at);
        let spilled = !self.head.is_empty() || take < needed;
        self.head.extend_from_slice(&bytes[at..at + take]);
        if spilled {
            out.pass_to(at);
            out.drop_to(at + take);
        }
        if take < needed {
            return Ok(at + take);
        }
        let head = std::mem::take(&mut self.head);
        let value = match more {
            0 => u64::from(first & 0x1f),
            _ => head[1..].iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        };
        // Where the head begins in this piece; where it ends, if it isn't in it.
        let begins = if spilled { at + take } else { at };
        self.headed(&head, value, (begins, at + take), spilled, scanner, out)?;
        Ok(at + take)
    }

    fn headed(
        &mut self,
        head: &[u8],
        value: u64,
        (start, end): (usize, usize),
        spilled: bool,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<(), MaskError> {
        let (major, unknown) = (head[0] >> 5, head[0] & 0x1f == 31);
        if let Some(text) = self.parts {
            out.pass_to(start);
            out.drop_to(end);
            self.written.extend_from_slice(head);
            if head[0] == BREAK {
                return self.parts_over(text, scanner, out);
            }
            if unknown || major != if text { 3 } else { 2 } {
                return Err(wrong("CBOR: a part of a text is none"));
            }
            self.body = Some(Body { text, left: value, how: How::Whole });
            return self.empty(end, scanner, out);
        }
        let masked = if self.is_key() { None } else { self.place.mask };
        let pass = |out: &mut Out<'_>| {
            if spilled {
                out.put(Bytes::copy_from_slice(head));
            }
        };
        match major {
            0 | 1 if unknown => Err(wrong("CBOR: a number without a length")),
            0 | 1 => {
                self.scalar(head, (start, end), masked.is_some(), &[0], scanner, out);
                self.item_over()
            }
            2 | 3 => {
                let text = major == 3;
                (self.content, self.written) = (BytesMut::new(), BytesMut::new());
                self.utf8 = Utf8::default();
                if unknown {
                    self.parts = Some(text);
                    self.written.extend_from_slice(head);
                    out.pass_to(start);
                    out.drop_to(end);
                    return Ok(());
                }
                let key = self.is_key();
                let how = if value <= MAX_WHOLE && !(key && value > MAX_NAME as u64) {
                    How::Whole
                } else if masked.is_some() {
                    How::Dropped
                } else {
                    How::Passing
                };
                if how == How::Passing {
                    pass(out);
                    self.run.begin(true);
                } else {
                    out.pass_to(start);
                    out.drop_to(end);
                    self.written.extend_from_slice(head);
                }
                self.body = Some(Body { text, left: value, how });
                self.empty(end, scanner, out)
            }
            4 | 5 => {
                if self.is_key() {
                    return Err(wrong("CBOR whose keys are texts"));
                }
                if self.stack.len() >= MAX_DEPTH {
                    return Err(MaskError::TooLarge("CBOR within CBOR", MAX_DEPTH));
                }
                pass(out);
                let map = major == 5;
                let left = if unknown { None } else { Some(value) };
                let (place, path) = (self.place.clone(), self.path.len());
                self.stack.push(Frame { map, left, key: map, place, path, spared: false, name: Bytes::new() });
                self.tags = 0;
                if !map {
                    self.path.push_str("[]");
                }
                self.next()
            }
            6 => {
                if self.is_key() || unknown {
                    return Err(wrong("CBOR: a tag is out of place"));
                }
                self.tags += 1;
                if self.tags > 8 {
                    return Err(MaskError::TooLarge("CBOR's tags on one item", 8));
                }
                pass(out);
                Ok(())
            }
            _ => {
                if head[0] == BREAK {
                    let open = self.stack.last().is_some_and(|frame| frame.left.is_none() && (!frame.map || frame.key));
                    if !open || self.tags > 0 {
                        return Err(wrong("CBOR: a break is out of place"));
                    }
                    pass(out);
                    return self.close();
                }
                if head[0] & 0x1f == 24 && value < 32 {
                    return Err(wrong("CBOR: a simple value is none"));
                }
                // Nothing and undefined stay.
                let by: &[u8] = if matches!(head[0] & 0x1f, 20 | 21) { &[0xf4] } else { &[0] };
                let masked = masked.is_some() && !matches!(head[0] & 0x1f, 22 | 23);
                self.scalar(head, (start, end), masked, by, scanner, out);
                self.item_over()
            }
        }
    }

    /// A number, a boolean or the like.
    fn scalar(
        &self,
        head: &[u8],
        (start, end): (usize, usize),
        masked: bool,
        by: &[u8],
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) {
        match self.place.mask {
            Some(mask) if masked => {
                out.pass_to(start);
                out.drop_to(end);
                out.put(Bytes::copy_from_slice(by));
                scanner.findings.add(self.selected.rule(mask), &self.path);
            }
            // It spilled if nothing of it is in this piece.
            _ if start == end => out.put(Bytes::copy_from_slice(head)),
            _ => {}
        }
    }

    fn is_key(&self) -> bool {
        self.stack.last().is_some_and(|frame| frame.map && frame.key)
    }

    /// A text or bytes without any.
    fn empty(&mut self, at: usize, scanner: &mut Scanner, out: &mut Out<'_>) -> Result<(), MaskError> {
        match self.body.take() {
            Some(body) if body.left == 0 => self.body_over(&body, scanner, out),
            body => {
                let _ = at;
                self.body = body;
                Ok(())
            }
        }
    }

    fn body(
        &mut self,
        mut body: Body,
        bytes: &[u8],
        start: usize,
        scanner: &mut Scanner,
        out: &mut Out<'_>,
    ) -> Result<usize, MaskError> {
        let length = usize::try_from(body.left).unwrap_or(usize::MAX).min(bytes.len() - start);
        let end = start + length;
        let part = &bytes[start..end];
        body.left -= length as u64;
        if body.text {
            self.utf8.push(part)?;
        }
        match body.how {
            How::Passing => {
                self.run.push((start, end), body.left == 0, Style::Plain, &self.path, scanner, out)?;
            }
            How::Dropped => {
                out.pass_to(start);
                out.drop_to(end);
            }
            How::Whole => {
                out.pass_to(start);
                out.drop_to(end);
                if self.written.len() + length > MAX_PARTS {
                    return Err(MaskError::TooLarge("a CBOR text in parts", MAX_PARTS));
                }
                self.content.extend_from_slice(part);
                self.written.extend_from_slice(part);
            }
        }
        if body.left == 0 {
            self.body_over(&body, scanner, out)?;
        } else {
            self.body = Some(body);
        }
        Ok(end)
    }

    fn body_over(&mut self, body: &Body, scanner: &mut Scanner, out: &mut Out<'_>) -> Result<(), MaskError> {
        if body.text {
            self.utf8.finish()?;
        }
        if self.parts.is_some() {
            return Ok(());
        }
        match body.how {
            How::Passing if self.is_key() => self.named(b""),
            How::Passing => self.item_over(),
            How::Dropped => {
                let by = self.masked(body.text, None, scanner);
                out.put(by);
                self.item_over()
            }
            How::Whole => self.whole(body.text, scanner, out),
        }
    }

    fn parts_over(&mut self, text: bool, scanner: &mut Scanner, out: &mut Out<'_>) -> Result<(), MaskError> {
        self.parts = None;
        self.whole(text, scanner, out)
    }

    /// A text or bytes that were collected.
    fn whole(&mut self, text: bool, scanner: &mut Scanner, out: &mut Out<'_>) -> Result<(), MaskError> {
        let content = std::mem::take(&mut self.content).freeze();
        let written = std::mem::take(&mut self.written).freeze();
        let key = self.is_key();
        if let Some(frame) = self.stack.last_mut().filter(|frame| !key && frame.map)
            && self.selected.may_spare(&frame.place, &frame.name)
        {
            frame.spared = self.selected.spares(&frame.place, &frame.name, &content);
        }
        if !key && self.place.mask.is_some() {
            if content.is_empty() {
                out.put(written);
            } else {
                let by = self.masked(text, Some(&content), scanner);
                out.put(by);
            }
            return self.item_over();
        }
        if key && !text {
            return Err(wrong("CBOR whose keys are texts"));
        }
        let before = scanner.findings.count();
        let mut given = Vec::new();
        let mut own = Out::new(&content, &mut given);
        Run::default().push((0, content.len()), true, Style::Plain, &self.path, scanner, &mut own)?;
        own.pass_to(content.len());
        if scanner.findings.count() == before {
            out.put(written);
        } else {
            out.put(item(text, &given.concat()));
        }
        if key { self.named(&content) } else { self.item_over() }
    }

    /// What goes on of a masked text.
    fn masked(&self, text: bool, value: Option<&[u8]>, scanner: &mut Scanner) -> Bytes {
        let Some(mask) = self.place.mask else { return item(text, b"") };
        let rule = self.selected.rule(mask);
        match mask.1.kind {
            Kind::Timestamp if text => {
                scanner.findings.add(rule, &self.path);
                item(text, crate::json::NO_TIME.as_bytes())
            }
            _ => {
                let value = value.filter(|value| value.len() <= MAX_VALUE);
                let kind = if text { mask.1.kind } else { Kind::Blob };
                item(text, scanner.placeholder(kind, rule, &self.path, value).as_bytes())
            }
        }
    }

    fn named(&mut self, name: &[u8]) -> Result<(), MaskError> {
        let Some(frame) = self.stack.last_mut() else { return Err(wrong("CBOR")) };
        frame.key = false;
        self.place = self.selected.member(&frame.place, name);
        frame.name = Bytes::copy_from_slice(name);
        if frame.spared && self.place.mask.is_some_and(|(_, mask)| mask.spared) {
            self.place.mask = None;
        }
        self.path.truncate(frame.path);
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.extend(String::from_utf8_lossy(name).chars().take(64));
        Ok(())
    }

    /// A value is over.
    fn item_over(&mut self) -> Result<(), MaskError> {
        if self.is_key() {
            return Err(wrong("CBOR whose keys are texts"));
        }
        self.tags = 0;
        if let Some(frame) = self.stack.last_mut() {
            if frame.map {
                self.path.truncate(frame.path);
                frame.key = true;
            }
            if let Some(left) = &mut frame.left {
                *left = left.saturating_sub(1);
            }
        }
        self.next()
    }

    /// What is next: another item of the same list or map, or its end.
    fn next(&mut self) -> Result<(), MaskError> {
        match self.stack.last() {
            None => {
                self.over = true;
                Ok(())
            }
            Some(frame) if frame.left == Some(0) => self.close(),
            Some(frame) => {
                if !frame.map {
                    self.place = self.selected.element(&frame.place);
                }
                Ok(())
            }
        }
    }

    fn close(&mut self) -> Result<(), MaskError> {
        if let Some(frame) = self.stack.pop() {
            self.path.truncate(frame.path);
            self.place = frame.place;
        }
        self.item_over()
    }
}

/// A text or bytes with their head.
fn item(text: bool, content: &[u8]) -> Bytes {
    let major = if text { 0x60 } else { 0x40 };
    let mut out = BytesMut::with_capacity(content.len() + 9);
    // RFC 8949, 3: up to 23 in the head itself, then in one, two or eight bytes.
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(length @ 0..24), _) => out.extend_from_slice(&[major | length]),
        (Ok(length), _) => out.extend_from_slice(&[major | 0x18, length]),
        (_, Ok(length)) => {
            out.extend_from_slice(&[major | 0x19]);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[major | 0x1b]);
            out.extend_from_slice(&(content.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out.freeze()
}
