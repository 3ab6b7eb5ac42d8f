//! A JDK's `cacerts`: a certificate put into one of JKS (JDKs up to 17, and Debian's) or of PKCS #12 without a password
//! (later ones). A key store that is protected by a password of somebody's own is left alone.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::der::{element, first, only};

/// What `cacerts` always has: it protects nothing, there is nothing secret in it.
const PASSWORD: &str = "changeit";
const ALIAS: &str = "chaperone";
const JKS: [u8; 8] = [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2];
const DIGEST: usize = 20;

/// The key store with the certificate in it; nothing if it has it already.
pub(super) fn with(store: &[u8], certificate: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if contains(store, certificate) {
        return Ok(None);
    }
    let made = if store.starts_with(&JKS) { jks(store, certificate) } else { pkcs12(store, certificate) };
    made.map(Some)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    // The first bytes of all certificates are the same, and their lengths differ.
    part.len() >= 4 && bytes.windows(part.len()).any(|window| window[..4] == part[..4] && window == part)
}

/// `sun.security.provider.JavaKeyStore`: a head, entries, and a digest of the password, a phrase and all of that.
fn jks(store: &[u8], certificate: &[u8]) -> Result<Vec<u8>, &'static str> {
    let entries = store.len().checked_sub(DIGEST).filter(|length| *length >= 12).ok_or("it is cut short")?;
    let (body, seal) = store.split_at(entries);
    if digest_of(body) != seal {
        return Err("it has a password of its own");
    }
    let count = body[8..12].iter().fold(0u32, |count, &byte| count << 8 | u32::from(byte));
    let mut made = JKS.to_vec();
    made.extend(count.checked_add(1).ok_or("it has too many entries")?.to_be_bytes());
    made.extend(&body[12..]);
    // A trusted certificate, of the year 1970.
    made.extend(2u32.to_be_bytes());
    utf(&mut made, ALIAS);
    made.extend(0u64.to_be_bytes());
    utf(&mut made, "X.509");
    made.extend(u32::try_from(certificate.len()).map_err(|_| "the certificate is too long")?.to_be_bytes());
    made.extend(certificate);
    let seal = digest_of(&made);
    made.extend(seal);
    Ok(made)
}

fn digest_of(body: &[u8]) -> Vec<u8> {
    let mut whole: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    whole.extend(b"Mighty Aphrodite");
    whole.extend(body);
    digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole).as_ref().to_vec()
}

fn utf(out: &mut Vec<u8>, text: &'static str) {
    out.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
    out.extend(text.as_bytes());
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const EXPLICIT: u8 = 0xa0;
/// 1.2.840.113549.1.7.1, `data`.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// 1.2.840.113549.1.12.10.1.3, a bag with a certificate.
const BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 3];
/// 1.2.840.113549.1.9.22.1, which is one of X.509's.
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
/// 1.2.840.113549.1.9.20, its name.
const NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 20];
/// 2.16.840.1.113894.746875.1.1, Oracle's: what it is trusted for.
const TRUSTED: &[u8] = &[0x60, 0x86, 0x48, 1, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 1, 1];
/// 2.5.29.37.0, for whatever it may be.
const ANYTHING: &[u8] = &[0x55, 0x1d, 0x25, 0];

/// RFC 7292. Without a password there is no MAC, and nothing is encrypted.
fn pkcs12(store: &[u8], certificate: &[u8]) -> Result<Vec<u8>, &'static str> {
    const OTHER: &str = "it is neither JKS nor PKCS #12";
    let pfx = only(store, SEQUENCE).ok_or(OTHER)?;
    let (version, rest) = first(pfx, 2).ok_or(OTHER)?;
    let (content, mac) = first(rest, SEQUENCE).ok_or(OTHER)?;
    if !mac.is_empty() {
        return Err("it has a password of its own");
    }
    let safes = data(content).ok_or("it is signed, or encrypted")?;
    let safes = only(safes, SEQUENCE).ok_or(OTHER)?;
    let (safe, others) = first(safes, SEQUENCE).ok_or("it is empty")?;
    let bags = only(data(safe).ok_or("it is encrypted")?, SEQUENCE).ok_or(OTHER)?;

    let oid = |oid: &[u8]| element(OID, &[oid]);
    let utf16: Vec<u8> = ALIAS.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let attribute = |name: &[u8], value: &[u8]| element(SEQUENCE, &[&oid(name), &element(SET, &[value])]);
    let attributes = element(SET, &[&attribute(NAME, &element(0x1e, &[&utf16])), &attribute(TRUSTED, &oid(ANYTHING))]);
    let inner = element(SEQUENCE, &[&oid(X509), &element(EXPLICIT, &[&element(OCTETS, &[certificate])])]);
    let bag = element(SEQUENCE, &[&oid(BAG), &element(EXPLICIT, &[&inner]), &attributes]);

    let of_data =
        |contents: &[u8]| element(SEQUENCE, &[&oid(DATA), &element(EXPLICIT, &[&element(OCTETS, &[contents])])]);
    let safe = of_data(&element(SEQUENCE, &[bags, &bag]));
    let content = of_data(&element(SEQUENCE, &[&safe, others]));
    Ok(element(SEQUENCE, &[&element(2, &[version]), &content]))
}

/// The contents of a `ContentInfo` that is plain data.
fn data(info: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = first(info, OID)?;
    only(only(rest, EXPLICIT)?, OCTETS).filter(|_| kind == DATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_JKS: &[u8] = &[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 0];

    #[test]
    fn a_jks_gets_it_once_and_another_password_is_left_alone() {
        let mut store = EMPTY_JKS.to_vec();
        store.extend(digest_of(EMPTY_JKS));
        let certificate = vec![0x30; 300];
        let made = with(&store, &certificate).unwrap().unwrap();
        assert_eq!(made[8..12], [0, 0, 0, 1]);
        assert_eq!(with(&made, &certificate), Ok(None));
        let mut locked = store.clone();
        *locked.last_mut().unwrap() ^= 1;
        assert_eq!(with(&locked, &certificate), Err("it has a password of its own"));
        for cut in 0..made.len() {
            assert!(!matches!(with(&made[..cut], b"another certificate"), Ok(Some(_))), "{cut}");
        }
    }

    #[test]
    fn pkcs12_with_a_mac_or_a_cut_is_left_alone() {
        let oid = element(OID, &[DATA]);
        let of_data =
            |contents: &[u8]| element(SEQUENCE, &[&oid, &element(EXPLICIT, &[&element(OCTETS, &[contents])])]);
        let safes = element(SEQUENCE, &[&of_data(&element(SEQUENCE, &[]))]);
        let content = of_data(&safes);
        let store = element(SEQUENCE, &[&element(2, &[&[3]]), &content]);
        let certificate = vec![0x30; 300];
        let made = with(&store, &certificate).unwrap().unwrap();
        assert!(contains(&made, &certificate));
        assert_eq!(with(&made, &certificate), Ok(None));
        let locked = element(SEQUENCE, &[&element(2, &[&[3]]), &content, &element(SEQUENCE, &[b"mac"])]);
        assert_eq!(with(&locked, &certificate), Err("it has a password of its own"));
        for cut in 0..made.len() {
            assert!(with(&made[..cut], b"another certificate").is_err(), "{cut}");
        }
    }
}
