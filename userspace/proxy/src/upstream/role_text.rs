//! Names and tags of role sessions, made of who the agent is, within what STS takes.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>: a session's name and a source identity have 2
//! to 64 of `A-Z a-z 0-9 _ + = , . @ -`; a tag's value has at most 256 letters, digits, spaces and `_ . : / = + - @`.

use chaperone_model::{Identity, Session};

/// What an agent without an identity is called.
const UNIDENTIFIED: &str = "unidentified";

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A session's name or source identity.
    Name,
    /// A tag's value.
    Tag,
}

impl Place {
    fn allows(self, it: char) -> bool {
        match self {
            Self::Name => it.is_ascii_alphanumeric() || "_+=,.@-".contains(it),
            Self::Tag => it.is_alphanumeric() || it == ' ' || "_.:/=+-@".contains(it),
        }
    }

    const fn bounds(self) -> (usize, usize) {
        match self {
            Self::Name => (2, 64),
            Self::Tag => (0, 256),
        }
    }
}

/// The text with what its placeholders stand for, as STS takes it. What is filled in is looked through for placeholders no
/// more. Other characters become `-`, and what is too long is cut; then nine characters of the text's SHA-256 follow, so
/// that different texts stay different.
pub(crate) fn fill(text: &str, session: &Session, identity: Option<&Identity>, place: Place) -> String {
    let mut filled = String::new();
    let mut left = text;
    while let Some((before, rest)) = left.split_once('{') {
        filled.push_str(before);
        let Some((name, after)) = rest.split_once('}') else {
            filled.push('{');
            left = rest;
            continue;
        };
        filled.push_str(&value(name, session, identity));
        left = after;
    }
    filled.push_str(left);
    fit(&filled, place)
}

fn value(name: &str, session: &Session, identity: Option<&Identity>) -> String {
    let found = match name {
        "agent" => Some(session.agent.clone()),
        "session" => Some(session.id.to_string()),
        "subject" => identity.map(|it| it.subject.clone()),
        "sponsor" => identity.and_then(|it| it.sponsor.clone()),
        other => other.strip_prefix("claim.").and_then(|claim| identity?.claims.get(claim).cloned()),
    };
    found.unwrap_or_else(|| UNIDENTIFIED.to_owned())
}

fn fit(text: &str, place: Place) -> String {
    let (least, most) = place.bounds();
    let length = text.chars().count();
    if text.chars().all(|it| place.allows(it)) && (least..=most).contains(&length) {
        return text.to_owned();
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let digest = hex::encode(&digest.as_ref()[..4]);
    let kept = text.chars().take(most - digest.len() - 1).map(|it| if place.allows(it) { it } else { '-' });
    kept.chain(['-']).chain(digest.chars()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chaperone_model::{CgroupId, SessionId};

    use super::*;

    fn identity(subject: &str, sponsor: Option<&str>) -> Identity {
        Identity {
            provider: "p".into(),
            issuer: "https://p".into(),
            subject: subject.into(),
            groups: Vec::new(),
            sponsor: sponsor.map(str::to_owned),
            display_name: None,
            token_id: "t".into(),
            claims: BTreeMap::from([("team".to_owned(), "red & blue".to_owned())]),
            expires: time::OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn filled(text: &str, identity: Option<&Identity>, place: Place) -> String {
        let session = Session {
            id: SessionId::new(),
            agent: "coder".into(),
            groups: Vec::new(),
            cgroup: CgroupId(1),
            cgroup_path: "/a".into(),
            container: None,
            parent: None,
            started: time::OffsetDateTime::UNIX_EPOCH,
        };
        fill(text, &session, identity, place)
    }

    #[test]
    fn what_is_filled_in_is_what_sts_takes_and_stays_different() {
        let names = [
            "repo:octo/app:ref:refs/heads/main",
            "repo:octo/app:ref:refs-heads/main",
            "repo-octo-app-ref-refs-heads-main",
            "system:serviceaccount:ns:agent",
            "spiffe://example.org/ns/agent",
            "x",
            "{agent}",
            "jürgen",
            &"long".repeat(40),
            &("long".repeat(40) + "er"),
        ];
        let mut all = std::collections::BTreeSet::new();
        for subject in names {
            let identity = identity(subject, None);
            let name = filled("{subject}", Some(&identity), Place::Name);
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
            assert!((2..=64).contains(&name.len()) && name.bytes().all(fits), "{subject}: {name}");
            let tag = filled("{subject}", Some(&identity), Place::Tag);
            assert!(tag.chars().count() <= 256 && tag.chars().all(|it| Place::Tag.allows(it)), "{subject}: {tag}");
            assert!(all.insert(name), "{subject} is another\'s name");
        }
        assert!(!all.contains("coder"), "what a token says is no placeholder");
    }

    #[test]
    fn placeholders_stand_for_the_identity_or_say_that_there_is_none() {
        let alice = identity("bot@example.com", Some("alice@example.com"));
        let text = "{subject},{sponsor},{agent}";
        assert_eq!(filled(text, Some(&alice), Place::Name), "bot@example.com,alice@example.com,coder");
        assert_eq!(filled("{sponsor}", None, Place::Name), "unidentified");
        assert_eq!(filled("{claim.none}", Some(&alice), Place::Tag), "unidentified");
        let team = filled("{claim.team}", Some(&alice), Place::Tag);
        assert!(team.starts_with("red - blue-"), "{team}");
        assert_eq!(filled("", None, Place::Tag), "", "an empty tag is one");
    }
}
