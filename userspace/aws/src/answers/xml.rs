//! XML: STS and S3.

use std::borrow::Cow;

use quick_xml::{
    Reader, Writer,
    events::{BytesText, Event},
};

use super::{AnswerError, CredentialRewriter, Part, Parts};

const UNREADABLE: AnswerError = AnswerError::Unreadable("XML");
/// Deeper than any answer.
const MAX_DEPTH: usize = 64;

/// An element that has one text and nothing else.
struct Leaf {
    part: Part,
    /// Where its text is among the events.
    text: usize,
    /// Which element is around it.
    parent: usize,
}

pub(super) fn rewrite(body: &[u8], issuer: &CredentialRewriter<'_>) -> Result<Vec<u8>, AnswerError> {
    let text = std::str::from_utf8(body).map_err(|_| UNREADABLE)?;
    let mut events = read(text)?;
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut arn = None;
    // Positions of the start tags of what is open.
    let mut open: Vec<usize> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Start(_) => open.push(at),
            Event::End(_) => {
                open.pop();
            }
            Event::Text(_) | Event::CData(_) => {
                let Some(&start) = open.last() else { continue };
                let Event::Start(tag) = &events[start] else { continue };
                let name = tag.local_name();
                let name = std::str::from_utf8(name.as_ref()).map_err(|_| UNREADABLE)?;
                if name.eq_ignore_ascii_case("arn") && arn.is_none() {
                    arn = Some(value(event)?.into_owned());
                }
                if let Some(part) = Part::of(name) {
                    let alone = start + 1 == at && matches!(events.get(at + 1), Some(Event::End(_)));
                    let parent = open.len().checked_sub(2).map(|it| open[it]);
                    let (true, Some(parent)) = (alone, parent) else { return Err(AnswerError::Partial) };
                    leaves.push(Leaf { part, text: at, parent });
                }
            }
            _ => {}
        }
    }
    let mut parents: Vec<usize> = leaves.iter().map(|leaf| leaf.parent).collect();
    parents.dedup();
    parents.sort_unstable();
    parents.dedup();
    for parent in parents {
        let here = || leaves.iter().filter(move |leaf| leaf.parent == parent);
        let mut parts = Parts::default();
        for leaf in here() {
            if !parts.text(leaf.part, &value(&events[leaf.text])?) {
                return Err(AnswerError::Partial);
            }
        }
        if let Some(real) = parts.real()? {
            let given = issuer.give(real, arn.as_deref());
            for leaf in here() {
                if let Some(text) = given.part(leaf.part) {
                    events[leaf.text] = Event::Text(BytesText::new(text).into_owned());
                }
            }
        }
    }
    let mut writer = Writer::new(Vec::with_capacity(body.len() + 256));
    for event in events {
        writer.write_event(event).map_err(|_| UNREADABLE)?;
    }
    Ok(writer.into_inner())
}

fn read(text: &str) -> Result<Vec<Event<'_>>, AnswerError> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = false;
    let (mut events, mut depth) = (Vec::new(), 0_usize);
    loop {
        let event = reader.read_event().map_err(|_| UNREADABLE)?;
        match &event {
            Event::Eof if depth == 0 => return Ok(events),
            Event::Start(_) if depth < MAX_DEPTH => depth += 1,
            Event::End(_) => depth = depth.checked_sub(1).ok_or(UNREADABLE)?,
            Event::Text(_) | Event::CData(_) | Event::Empty(_) | Event::Decl(_) => {}
            // Comments and entities of their own have no place in AWS's answers, and could split a text.
            _ => return Err(UNREADABLE),
        }
        events.push(event);
    }
}

fn value<'a>(event: &'a Event<'_>) -> Result<Cow<'a, str>, AnswerError> {
    match event {
        Event::Text(text) => text.unescape().map_err(|_| UNREADABLE),
        Event::CData(text) => std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| UNREADABLE),
        _ => Err(UNREADABLE),
    }
}
