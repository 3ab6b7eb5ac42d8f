//! AWS's event streams: each message is read whole and checked, its payload masked in its own format, and framed anew
//! where that changed it. A payload of plain bytes goes on in the next message of its kind, and so may a secret.
//!
//! <https://smithy.io/2.0/aws/amazon-eventstream.html>

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::{
    MaskError,
    cbor::CborMasker,
    escapes::Style,
    json::JsonMasker,
    masker::Format,
    out::Out,
    run::{Run, Scanner},
    selector::{Kind, Selected},
    xml::XmlMasker,
};

/// Total length, headers' length, and their CRC-32.
const PRELUDE: usize = 12;
const CRC: usize = 4;
/// What the protocol allows: 16 MiB of payload and 128 KiB of headers.
const MAX_MESSAGE: usize = (16 << 20) + (128 << 10) + PRELUDE + CRC;

const fn wrong(what: &'static str) -> MaskError {
    MaskError::Unparsable(what)
}

/// Masks an event stream.
#[derive(Debug)]
pub(crate) struct EventStreamMasker {
    selected: Selected,
    held: BytesMut,
    /// A payload of plain bytes that goes on over messages: of which event, with which headers.
    open: Option<(Bytes, Bytes)>,
    run: Run,
}

impl EventStreamMasker {
    pub(crate) fn new(selected: Selected) -> Self {
        Self { selected, held: BytesMut::new(), open: None, run: Run::default() }
    }

    pub(crate) fn push(&mut self, bytes: &Bytes, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        let mut rest = bytes.clone();
        loop {
            // Whole messages of one piece are slices of it.
            if self.held.is_empty() {
                match length(&rest)? {
                    Some(length) if rest.len() >= length => {
                        let message = rest.split_to(length);
                        self.message(&message, scanner, out)?;
                        continue;
                    }
                    _ => {
                        self.held.extend_from_slice(&rest);
                        return Ok(());
                    }
                }
            }
            if rest.is_empty() {
                return Ok(());
            }
            let wanted = length(&self.held)?.unwrap_or(PRELUDE);
            let take = wanted.saturating_sub(self.held.len()).min(rest.len());
            self.held.extend_from_slice(&rest.split_to(take));
            if length(&self.held)?.is_some_and(|length| self.held.len() >= length) {
                let message = std::mem::take(&mut self.held).freeze();
                self.message(&message, scanner, out)?;
            }
        }
    }

    pub(crate) fn finish(&mut self, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        if !self.held.is_empty() {
            return Err(wrong("an event stream that is whole"));
        }
        self.flush(scanner, out)
    }

    fn message(&mut self, message: &Bytes, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        let crc = message.slice(message.len() - CRC..).get_u32();
        if crc32fast::hash(&message[..message.len() - CRC]) != crc {
            return Err(wrong("an event stream: a message's checksum is wrong"));
        }
        let headers_length = message.slice(4..8).get_u32() as usize;
        let headers = message.slice(PRELUDE..PRELUDE + headers_length);
        let payload = message.slice(PRELUDE + headers_length..message.len() - CRC);
        let told = Told::of(&headers)?;
        let place = self.selected.member(&self.selected.root(), &told.event);
        let plain = told.format.is_none() || told.format == Some(Format::Text);
        let same = plain && self.open.as_ref().is_some_and(|(event, _)| *event == told.event);
        if !same {
            self.flush(scanner, out)?;
        }
        let before = scanner.findings.count();
        let headers = cleaned(headers, scanner)?;
        let mut given = Vec::new();
        let mut carried = false;
        if payload.is_empty() {
            // Nothing to read.
        } else if plain {
            if let Some(mask) = place.mask {
                let rule = self.selected.rule(mask);
                given.push(scanner.placeholder(Kind::Blob, rule, &told.path(), Some(&payload)).into());
            } else {
                if !same {
                    self.run.begin(false);
                }
                self.open = Some((told.event.clone(), headers.clone()));
                let mut own = Out::new(&payload, &mut given);
                self.run.push((0, payload.len()), false, Style::Plain, &told.path(), scanner, &mut own)?;
                own.pass_to(payload.len());
                carried = given.len() != 1 || given[0].len() != payload.len();
            }
        } else {
            let selected = self.selected.below(&told.event);
            match told.format {
                Some(Format::Cbor) => {
                    let mut masker = CborMasker::new(selected);
                    masker.push(&payload, scanner, &mut given)?;
                    masker.finish()?;
                }
                Some(Format::Xml) => {
                    let mut masker = XmlMasker::new(selected, false);
                    masker.push(&payload, scanner, &mut given)?;
                    masker.finish()?;
                }
                _ => {
                    let mut masker = JsonMasker::new(selected, false, false);
                    masker.push(&payload, scanner, &mut given)?;
                    masker.finish()?;
                }
            }
        }
        if !carried && scanner.findings.count() == before {
            out.push(message.clone());
        } else {
            out.push(framed(&headers, &given));
        }
        Ok(())
    }

    /// A payload that went on over messages is over: what is held of it goes on in a message of its own.
    fn flush(&mut self, scanner: &mut Scanner, out: &mut Vec<Bytes>) -> Result<(), MaskError> {
        let Some((_, headers)) = self.open.take() else { return Ok(()) };
        let empty = Bytes::new();
        let mut given = Vec::new();
        self.run.end(Style::Plain, "", scanner, &mut Out::new(&empty, &mut given), 0)?;
        self.run.begin(false);
        if !given.is_empty() {
            out.push(framed(&headers, &given));
        }
        Ok(())
    }
}

/// How long the message is that begins here, as far as that is there yet.
fn length(bytes: &[u8]) -> Result<Option<usize>, MaskError> {
    let Some(mut prelude) = bytes.get(..PRELUDE) else { return Ok(None) };
    if crc32fast::hash(&prelude[..8]) != u32::from_be_bytes([prelude[8], prelude[9], prelude[10], prelude[11]]) {
        return Err(wrong("an event stream: a message's first checksum is wrong"));
    }
    let (total, headers) = (prelude.get_u32() as usize, prelude.get_u32() as usize);
    if total > MAX_MESSAGE {
        return Err(MaskError::TooLarge("a message of an event stream", MAX_MESSAGE));
    }
    if total < PRELUDE + CRC || headers > total - PRELUDE - CRC {
        return Err(wrong("an event stream: a message's lengths don't fit"));
    }
    Ok(Some(total))
}

fn framed(headers: &[u8], payload: &[Bytes]) -> Bytes {
    let length = PRELUDE + headers.len() + payload.iter().map(Bytes::len).sum::<usize>() + CRC;
    let mut out = BytesMut::with_capacity(length);
    // Placeholders are shorter than what a message may have left over; a longer one its reader refuses.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.put_u32(u32::try_from(headers.len()).unwrap_or(u32::MAX));
    let crc = crc32fast::hash(&out);
    out.put_u32(crc);
    out.put_slice(headers);
    for part in payload {
        out.put_slice(part);
    }
    let crc = crc32fast::hash(&out);
    out.put_u32(crc);
    out.freeze()
}

/// Looks through the texts among a message's headers: an error's message is one.
fn cleaned(headers: Bytes, scanner: &mut Scanner) -> Result<Bytes, MaskError> {
    if !scanner.looks() || scanner.is_clean(&headers) {
        return Ok(headers);
    }
    let mut out = BytesMut::with_capacity(headers.len());
    let mut rest = headers.clone();
    while !rest.is_empty() {
        let whole = rest.clone();
        let Header { name, kind, value } = Header::next(&mut rest)?;
        let written = whole.len() - rest.len();
        if kind != TEXT || Told::TELLING.contains(&&name[..]) {
            out.extend_from_slice(&whole[..written]);
            continue;
        }
        let mut given = Vec::new();
        let mut own = Out::new(&value, &mut given);
        let path = String::from_utf8_lossy(&name).into_owned();
        Run::default().push((0, value.len()), true, Style::Plain, &path, scanner, &mut own)?;
        own.pass_to(value.len());
        let value = given.concat();
        out.extend_from_slice(&whole[..name.len() + 2]);
        out.put_u16(u16::try_from(value.len()).map_err(|_| wrong("an event stream: a header is too long"))?);
        out.extend_from_slice(&value);
    }
    Ok(out.freeze())
}

/// The type of a header that is a text.
const TEXT: u8 = 7;

/// One header of a message.
struct Header {
    name: Bytes,
    kind: u8,
    value: Bytes,
}

impl Header {
    /// The next one.
    fn next(rest: &mut Bytes) -> Result<Self, MaskError> {
        let take = |rest: &mut Bytes, length: usize| {
            let bad = wrong("an event stream: a message's headers can't be read");
            if rest.len() < length { Err(bad) } else { Ok(rest.split_to(length)) }
        };
        let length = usize::from(take(rest, 1)?[0]);
        let name = take(rest, length)?;
        let kind = take(rest, 1)?[0];
        let length = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            6 | TEXT => usize::from(take(rest, 2)?.get_u16()),
            9 => 16,
            _ => return Err(wrong("an event stream: a message's headers can't be read")),
        };
        Ok(Self { name, kind, value: take(rest, length)? })
    }
}

/// What a message's headers say.
struct Told {
    event: Bytes,
    format: Option<Format>,
}

impl Told {
    /// Those that clients choose a reader by.
    const TELLING: [&[u8]; 4] = [b":event-type", b":content-type", b":message-type", b":exception-type"];

    fn of(headers: &Bytes) -> Result<Self, MaskError> {
        let mut told = Self { event: Bytes::new(), format: None };
        let mut rest = headers.clone();
        while !rest.is_empty() {
            let Header { name, value, .. } = Header::next(&mut rest)?;
            match &name[..] {
                b":event-type" => told.event = value,
                b":content-type" => {
                    told.format = std::str::from_utf8(&value).ok().and_then(Format::of);
                }
                _ => {}
            }
        }
        Ok(told)
    }

    fn path(&self) -> String {
        String::from_utf8_lossy(&self.event).chars().take(64).collect()
    }
}
