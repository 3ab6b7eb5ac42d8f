//! The name by which OpenSSL finds a CA in a folder, such as /etc/ssl/certs: `X509_NAME_hash`, in eight digits.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::der::{element, first, only};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTF8: u8 = 0x0c;
/// Other strings that may be ASCII: PrintableString, T61String, IA5String, VisibleString.
const ASCII: [u8; 4] = [0x13, 0x14, 0x16, 0x1a];

/// … of a subject in DER. Nothing if a name in it is in UTF-16, as no CA of ours is.
pub(super) fn subject(subject: &[u8]) -> Option<String> {
    let mut names = only(subject, SEQUENCE)?;
    let mut canonical = Vec::new();
    while !names.is_empty() {
        let (mut attributes, rest) = first(names, SET)?;
        names = rest;
        let mut set = Vec::new();
        while !attributes.is_empty() {
            let (attribute, rest) = first(attributes, SEQUENCE)?;
            attributes = rest;
            let (oid, value) = first(attribute, OID)?;
            let text = only(value, UTF8).or_else(|| ASCII.iter().find_map(|tag| only(value, *tag)))?;
            set.push(element(SEQUENCE, &[&element(OID, &[oid]), &element(UTF8, &[&plain(text)])]));
        }
        set.sort();
        canonical.extend(element(SET, &[&set.concat()]));
    }
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &canonical);
    let four = digest.as_ref().first_chunk::<4>()?;
    Some(format!("{:08x}", u32::from_le_bytes(*four)))
}

/// Lower case, and no space but single ones inside.
fn plain(text: &[u8]) -> Vec<u8> {
    let words: Vec<_> =
        text.split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b).filter(|word| !word.is_empty()).collect();
    words.join(&b' ').to_ascii_lowercase()
}
