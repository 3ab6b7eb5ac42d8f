//! The fields of an answer's head, and of its trailers: those that are of the body as it came, and those in which a
//! secret may stand.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chaperone_aws::Sensitivity;
use chaperone_masking::{Detectors, Format, Kind, Masker, Rules, Secret, Vault as _};
use chaperone_model::Masked;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED, SERVER},
};

use crate::masking::AnswerPlaceholders;

/// Lambda's last lines of a function's log, in base64.
const LOG: &str = "x-amz-log-result";

/// How a body is encoded, each coding by itself, outermost last; `identity` is none.
pub(super) fn encodings(headers: &HeaderMap) -> Vec<String> {
    let all = headers.get_all(CONTENT_ENCODING).into_iter();
    let parts = all.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = parts.map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase());
    names.filter(|name| !name.is_empty() && name != "identity").collect()
}

/// Takes out the fields that are of the body as it comes; the entity tag may have been changed already.
pub(super) fn take_of_body(headers: &mut HeaderMap, keep_tag: bool) -> Vec<(HeaderName, HeaderValue)> {
    let of_body = |name: &HeaderName| {
        matches!(name.as_str(), "content-md5" | "digest" | "content-digest" | "repr-digest" | "x-amz-crc32")
            || name == ETAG && !keep_tag
            || name == CONTENT_LENGTH
            || name.as_str().starts_with("x-amz-checksum-")
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| of_body(name)).cloned().collect();
    let mut taken = Vec::new();
    for name in names {
        taken.extend(headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
        headers.remove(&name);
    }
    taken
}

/// What is masked in fields.
pub(super) struct FieldRules<'a> {
    /// By their names, with what said so.
    pub(super) named: Vec<(&'a str, &'a str)>,
    pub(super) detectors: Option<&'a Detectors>,
}

impl<'a> FieldRules<'a> {
    /// Those that the models say are secret, and, where a policy asks for what is sensitive, those that they mark.
    pub(super) fn sensitive(
        headers: &[(&'static str, Sensitivity)],
        secrets: bool,
        all: bool,
    ) -> Vec<(&'a str, &'a str)> {
        let is = |it: Sensitivity| all || secrets && it == Sensitivity::Secret;
        headers.iter().filter(|(_, it)| is(*it)).map(|(name, _)| (*name, "sensitive")).collect()
    }

    /// Masks them; gives what was masked.
    pub(super) fn mask(&self, headers: &mut HeaderMap, placeholders: &mut AnswerPlaceholders) -> Vec<Masked> {
        let mut found: Vec<Masked> = Vec::new();
        for (name, value) in headers.iter_mut() {
            // AWS's own, of which clients read more than texts.
            if [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED, SERVER].contains(name) {
                continue;
            }
            let named = self.named.iter().find(|(wanted, _)| name.as_str().eq_ignore_ascii_case(wanted));
            if let Some((_, rule)) = named {
                let secret = Secret { kind: Kind::Text, rule, path: name.as_str(), value: Some(value.as_bytes()) };
                let text = placeholders.placeholder(secret);
                *value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("chaperone-masked"));
                note(&mut found, rule, name, 1);
            } else if let Some(detectors) = self.detectors {
                let decoded = if name == LOG { STANDARD.decode(value.as_bytes()).ok() } else { None };
                let text = decoded.as_deref().unwrap_or(value.as_bytes());
                if detectors.finds_nothing(text) {
                    continue;
                }
                let Some(mut text) = masked(text, detectors, placeholders, name, &mut found) else { continue };
                if decoded.is_some() {
                    text = STANDARD.encode(text).into_bytes();
                }
                *value = HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("chaperone-masked"));
            }
        }
        found
    }
}

/// A text with what detectors find in it masked; `None` if that is nothing.
fn masked(
    text: &[u8],
    detectors: &Detectors,
    placeholders: &AnswerPlaceholders,
    name: &HeaderName,
    found: &mut Vec<Masked>,
) -> Option<Vec<u8>> {
    let rules = Rules { detectors: Some(detectors.clone()), ..Rules::default() };
    let mut masker = Masker::new(Format::Text, rules, Box::new(placeholders.clone()));
    let mut out = Vec::new();
    // Any bytes are a text, and a head is short.
    masker.push(&Bytes::copy_from_slice(text), &mut out).ok()?;
    masker.finish(&mut out).ok()?;
    for finding in masker.findings().all() {
        note(found, &finding.rule, name, finding.count);
    }
    (!masker.findings().is_empty()).then(|| out.concat())
}

fn note(found: &mut Vec<Masked>, rule: &str, name: &HeaderName, count: u64) {
    match found.iter_mut().find(|it| it.rule == rule && it.path == name.as_str()) {
        Some(known) => known.count += count,
        None => found.push(Masked { rule: rule.to_owned(), path: name.as_str().to_owned(), count }),
    }
}
