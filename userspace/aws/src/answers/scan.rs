//! What no answer may hold, whatever was asked: a whole set of temporary credentials, and the key that the request was
//! signed by. Looked for in the bytes as they pass, by content alone, across the cuts between them.
//!
//! A set is known by its three members, in JSON, XML, CBOR or a form; when the last of them comes, before its value, the
//! answer ends there. The signing key's id and token are written over in their place, so that the length stays: AWS says
//! them again in `SignatureDoesNotMatch`, and CloudTrail's events name the key.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use aho_corasick::AhoCorasick;
use memchr::memmem;

use crate::{AwsCredentials, Placeholder, signing_key::SigningKey};

/// How much of what has gone on is looked at again together with what follows: a member's name, with what is around it.
const CONTEXT: usize = 64;
/// White space between a name and its value; with more of it the name counts as one with a value.
const MAX_SPACE: usize = 16;

/// The members of a set of credentials, by what [`NAMES`] finds.
const ID: u8 = 1;
const SECRET: u8 = 2;
const TOKEN: u8 = 4;
const SET: u8 = ID | SECRET | TOKEN;
const MEMBERS: [(&str, u8); 4] =
    [("accesskeyid", ID), ("secretaccesskey", SECRET), ("secretkey", SECRET), ("sessiontoken", TOKEN)];

static NAMES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(MEMBERS.map(|(name, _)| name))
        .expect("BUG: four names make an automaton")
});

/// An answer holds a whole set of temporary credentials that nobody expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer holds temporary credentials, which its operation doesn't give out")]
pub struct SecretFound;

/// Looks for secrets in one answer's body, frame by frame. It keeps a few hundred bytes.
#[derive(Default)]
pub struct SecretScan {
    /// The key that signed the request, and the id that goes on in the place of its own.
    key: Option<(Arc<SigningKey>, Box<[u8]>)>,
    /// Sets of credentials are looked for too.
    sets: bool,
    seen: u8,
    /// The end of what has gone on.
    context: Vec<u8>,
    /// The end of what came, which may be the beginning of something known.
    held: Vec<u8>,
}

impl SecretScan {
    /// Looks for the key that signed the request. In its id's place goes the agent's own.
    pub fn of(signed_by: &AwsCredentials, placeholder: Option<&Placeholder>) -> Self {
        let own_id = placeholder.map(|it| it.access_key_id().as_bytes()).unwrap_or_default();
        Self { key: Some((signed_by.signing_key(), own_id.into())), ..Self::default() }
    }

    /// Looks for whole sets of credentials too. Not in objects of S3, which are whatever somebody has stored.
    #[must_use]
    pub fn with_sets(mut self) -> Self {
        self.sets = true;
        self
    }

    /// Takes what came, and gives what goes on now.
    pub fn push<'b>(&mut self, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>, SecretFound> {
        let mut now = if self.held.is_empty() {
            Cow::Borrowed(bytes)
        } else {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(bytes);
            Cow::Owned(joined)
        };
        if self.sets {
            self.look(&now)?;
        }
        if let Some((key, own_id)) = &self.key {
            for (at, by) in key.find(&now, own_id) {
                now.to_mut()[at..at + by.len()].copy_from_slice(&by);
            }
        }
        let goes_on = now.len() - self.beginning(&now);
        self.held = now[goes_on..].to_vec();
        match &mut now {
            Cow::Borrowed(all) => *all = &all[..goes_on],
            Cow::Owned(all) => all.truncate(goes_on),
        }
        self.remember(&now);
        Ok(now)
    }

    /// What a header field goes on as, if it has something known in it.
    pub fn field(&self, value: &[u8]) -> Option<Vec<u8>> {
        let (key, own_id) = self.key.as_ref()?;
        let found = key.find(value, own_id);
        let mut clean = (!found.is_empty()).then(|| value.to_vec())?;
        for (at, by) in found {
            clean[at..at + by.len()].copy_from_slice(&by);
        }
        Some(clean)
    }

    /// The end of the answer: what was held, which was the beginning of nothing.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// How many bytes at the end may be the beginning of something known.
    fn beginning(&self, bytes: &[u8]) -> usize {
        self.key.as_ref().map_or(0, |(key, _)| key.beginning(bytes))
    }

    fn remember(&mut self, bytes: &[u8]) {
        if bytes.len() >= CONTEXT {
            self.context.clear();
            self.context.extend_from_slice(&bytes[bytes.len() - CONTEXT..]);
        } else {
            self.context.extend_from_slice(bytes);
            let over = self.context.len().saturating_sub(CONTEXT);
            self.context.drain(..over);
        }
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), SecretFound> {
        let seam = [&self.context[..], &bytes[..bytes.len().min(CONTEXT)]].concat();
        for text in [&seam[..], bytes] {
            for found in NAMES.find_iter(text) {
                let (_, member) = MEMBERS[found.pattern().as_usize()];
                if self.seen & member == 0 && is_member(text, found.start(), found.end()) {
                    self.seen |= member;
                }
            }
            if self.seen & ID == 0 && has_key_id(text) {
                self.seen |= ID;
            }
        }
        if self.seen == SET { Err(SecretFound) } else { Ok(()) }
    }
}

/// Whether a name is that of a member with a text for its value. What isn't there yet is looked at when it comes.
fn is_member(text: &[u8], start: usize, end: usize) -> bool {
    let (before, after) = (&text[..start], &text[end..]);
    let length = u8::try_from(end - start).unwrap_or(u8::MAX);
    // A value after white space that is longer than anybody's is one all the same.
    let value = |rest: &[u8], fits: &dyn Fn(u8) -> bool| match rest.iter().position(|b| !b.is_ascii_whitespace()) {
        Some(at) => at > MAX_SPACE || fits(rest[at]),
        None => rest.len() > MAX_SPACE,
    };
    match (before.last(), after.first()) {
        // JSON, and not JSON in a text.
        (Some(b'"'), Some(b'"')) => {
            let quoted = before.len() >= 2 && before[before.len() - 2] == b'\\';
            let rest = after[1..].trim_ascii_start();
            !quoted
                && (rest.first() == Some(&b':') && value(&rest[1..], &|b| b == b'"')
                    || after.len() - 1 - rest.len() > MAX_SPACE)
        }
        (Some(b'<' | b':'), Some(b'>')) => value(&after[1..], &|b| b != b'<'),
        (Some(b'<' | b':'), Some(b' ' | b'\t' | b'\n')) => true,
        (None | Some(b'&' | b'?' | b'.' | b'\n' | b' '), Some(b'=')) => value(&after[1..], &|b| b != b'&'),
        // CBOR: the head of a text of this length before, and that of another after.
        (Some(head), Some(next)) if *head == 0x60 | length || *head == length && before.ends_with(&[0x78, length]) => {
            (0x61..=0x7f).contains(next)
        }
        _ => false,
    }
}

/// Whether there is an access key id: `AKIA` or `ASIA`, and sixteen letters and digits.
fn has_key_id(text: &[u8]) -> bool {
    let is = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    let whole = |at: usize| {
        text.get(at..at + 20).is_some_and(|id| id.iter().all(is))
            && !text.get(at + 20).is_some_and(is)
            && (at == 0 || !text[at - 1].is_ascii_alphanumeric())
    };
    memmem::find_iter(text, b"ASIA").chain(memmem::find_iter(text, b"AKIA")).any(whole)
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;

    const ID_TEXT: &str = "ASIAQWERTYUIOPASDFGH";
    const TOKEN_TEXT: &str = "IQoJb3JpZ2luX2VjEGoaCXVzLWVhc3QtMSJHMEUCIQDx/abc+def==";

    fn passed(mut scan: SecretScan, body: &[u8], step: usize) -> Result<Vec<u8>, SecretFound> {
        let mut out = Vec::new();
        for piece in body.chunks(step.max(1)) {
            out.extend_from_slice(&scan.push(piece)?);
            assert!(scan.held.len() < 160 && scan.context.len() <= CONTEXT);
        }
        out.extend(scan.finish());
        Ok(out)
    }

    const STEPS: [usize; 7] = [1, 2, 7, 16, 63, 200, 1 << 20];

    #[test]
    fn sets_are_found_in_every_format_however_they_are_cut() {
        let text = |name: &str, value: &str| {
            let mut out = vec![0x60 | u8::try_from(name.len()).unwrap()];
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&[0x78, u8::try_from(value.len()).unwrap()]);
            out.extend_from_slice(value.as_bytes());
            out
        };
        let cbor = [
            vec![0xa3],
            text("SecretAccessKey", "a secret of some length"),
            text("SessionToken", TOKEN_TEXT),
            text("AccessKeyId", ID_TEXT),
        ]
        .concat();
        let sets: [&[u8]; 9] = [
            br#"{"Credentials":{"AccessKeyId":"ASIAQWERTYUIOPASDFGH","SecretAccessKey":"s3cr3t","SessionToken":"t0k3n"}}"#,
            br#"{"x":[{"sessionToken" : "t0k3n","accessKeyId": "ASIAQWERTYUIOPASDFGH", "secretAccessKey"  :  "s3cr3t"}]}"#,
            br#"{"SecretKey":"s3cr3t","SESSIONTOKEN":"t0k3n","key":"ASIAQWERTYUIOPASDFGH"}"#,
            br#"{"SecretKey":"s3cr3t","SessionToken":                                                   "t0k3n","AccessKeyId":"A"}"#,
            b"<C><AccessKeyId>ASIAQWERTYUIOPASDFGH</AccessKeyId><SecretAccessKey>s3cr3t</SecretAccessKey><SessionToken>t0k3n</SessionToken></C>",
            b"<s:C><s:SessionToken>\n t0k3n</s:SessionToken><s:SecretAccessKey a='1'>s3cr3t</s:SecretAccessKey><s:AccessKeyId>A</s:AccessKeyId></s:C>",
            b"AccessKeyId=ASIAQWERTYUIOPASDFGH&SecretAccessKey=s3cr3t&SessionToken=t0k3n",
            b"AKIAQWERTYUIOPASDFGH <SecretKey>s3cr3t</SecretKey><SessionToken>t0k3n</SessionToken>",
            &cbor,
        ];
        for set in sets {
            for step in STEPS {
                let scan = SecretScan::default().with_sets();
                assert_eq!(passed(scan, set, step), Err(SecretFound), "{step} {}", String::from_utf8_lossy(set));
            }
        }
    }

    #[test]
    fn the_last_members_value_never_goes_on() {
        let body = br#"{"AccessKeyId":"ASIAQWERTYUIOPASDFGH","SecretAccessKey":"s3cr3t","SessionToken":"t0k3n"}"#;
        for step in STEPS {
            let mut scan = SecretScan::default().with_sets();
            let mut out = Vec::new();
            for piece in body.chunks(step) {
                let Ok(piece) = scan.push(piece) else { break };
                out.extend_from_slice(&piece);
            }
            assert!(!out.windows(2).any(|two| two == b"t0"), "{step}: {}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn what_is_no_set_goes_on_as_it_is() {
        let bodies: [&[u8]; 8] = [
            br#"{"AccessKey":{"AccessKeyId":"AKIAQWERTYUIOPASDFGH","SecretAccessKey":"s3cr3t","Status":"Active"}}"#,
            br#"{"AccessKeyId":"AKIAQWERTYUIOPASDFGH","SecretAccessKey":"s3cr3t","SessionToken":null}"#,
            br#"{"text":"put AccessKeyId, SecretAccessKey and SessionToken there: ASIAANOTHERKEYOFSOME"}"#,
            br#"{"text":"{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\"}"}"#,
            br#"{"columns":["AccessKeyId","SecretAccessKey","SessionToken"]}"#,
            b"<C><AccessKeyId>A</AccessKeyId><SecretAccessKey></SecretAccessKey><SessionToken/></C>",
            b"",
            b"AKI",
        ];
        for body in bodies {
            for step in STEPS {
                let scan = SecretScan::of(&key(), None).with_sets();
                assert_eq!(passed(scan, body, step).as_deref(), Ok(body), "{step} {}", String::from_utf8_lossy(body));
            }
        }
    }

    fn key() -> AwsCredentials {
        AwsCredentials::new(Credentials::new(ID_TEXT, "secret", Some(TOKEN_TEXT.into()), None, "test"))
    }

    /// As S3 answers a wrong signature.
    #[test]
    fn the_signing_key_is_written_over_however_it_is_written() {
        let dump = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        let body = format!(
            "<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{ID_TEXT}</AWSAccessKeyId><CanonicalRequest>GET\n/\n\n\
             x-amz-security-token:{TOKEN_TEXT}\n</CanonicalRequest><CanonicalRequestBytes>{} {}</CanonicalRequestBytes>\
             {}{}</Error>",
            dump(ID_TEXT),
            dump(TOKEN_TEXT).to_uppercase(),
            TOKEN_TEXT.replace('/', "\\/").replace('+', "%2B"),
            &ID_TEXT[..19],
        );
        let placeholder = Placeholder::fixed("ASIAPLACEHOLDER12345", "s", "t");
        for step in STEPS {
            let scan = SecretScan::of(&key(), Some(&placeholder)).with_sets();
            let out = String::from_utf8(passed(scan, body.as_bytes(), step).unwrap()).unwrap();
            assert_eq!(out.len(), body.len());
            let run = "IQoJb3JpZ2luX2VjEGoaCXVzLWVhc3QtMSJHMEUCIQDx";
            for secret in [ID_TEXT, run, &dump(ID_TEXT), &dump(run), &dump(run).to_uppercase()] {
                assert!(!out.contains(secret), "{step} {secret}: {out}");
            }
            assert!(out.contains("ASIAPLACEHOLDER12345") && out.ends_with("ASIAQWERTYUIOPASDFG</Error>"), "{out}");
        }
    }

    /// What passes isn't copied.
    #[test]
    fn frames_without_anything_are_lent() {
        let mut scan = SecretScan::of(&key(), None).with_sets();
        let body = vec![b'.'; 100_000];
        assert!(matches!(scan.push(&body), Ok(Cow::Borrowed(all)) if all.len() == body.len()));
    }
}
