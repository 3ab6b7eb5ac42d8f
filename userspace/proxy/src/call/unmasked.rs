//! What was masked goes back to AWS: where a permitted call has a placeholder in a member that a policy's `@unmask_into`
//! names, the request that is signed has the value. What is recorded is what the agent sent.

use chaperone_aws::PlacedText;
use chaperone_model::{Call, Masked, Payload, Reason};
use chaperone_policy::UnmaskTarget;
use http::{HeaderMap, header::CONTENT_ENCODING, request::Parts};

use crate::{
    body::unmasked::{Unmasked, without_checksum},
    call::{
        authenticated::{Authentication, Subject},
        error::{Kind, Refusal},
        exchange::{Exchange, RequestBody},
        work::Leave,
    },
    session_vault::PREFIX,
};

/// Members into which values go only if another has this text: AWS gives others of them back to whoever may read them.
const ONLY_IF: [(&str, &str, &str, &str); 1] = [("ssm", "PutParameter", "Type", "SecureString")];
/// A placeholder's letters behind [`PREFIX`].
const DIGITS: usize = 16;

/// The body of a call that the policies have permitted, with values in placeholders' places; `None` for nearly every call.
pub(super) async fn unmask(
    exchange: &Exchange,
    parts: &Parts,
    subject: &Subject,
    call: &Call,
) -> Result<Option<Unmasked>, Refusal> {
    let vault = exchange.connection.session.own.masking.vault();
    if !vault.may_unmask() || !is_plain(parts, subject, call) {
        return Ok(None);
    }
    let Some(RequestBody::Whole(body, ..)) = &exchange.body else { return Ok(None) };
    if memchr::memmem::find(body, PREFIX.as_bytes()).is_none() {
        return Ok(None);
    }
    let connection = &exchange.connection;
    let policies = exchange.generation.engine.version();
    let turn = Leave::of(&connection.share, body.len()).await;
    turn.run(|| {
        let mut texts = Vec::new();
        let mut by: Vec<Masked> = Vec::new();
        for text in connection.plane.catalog.placed_texts(call, body, &is_placeholder) {
            // What let it go when it was masked must let it go now.
            let may = |id: &str, target: &UnmaskTarget| {
                goes_to(target, call, &text.path) && policies.unmask_targets(id).contains(target)
            };
            let Some((value, policy)) = vault.unmask(&text.text, may) else { continue };
            match by.iter_mut().find(|it| it.rule == policy && it.path == text.path) {
                Some(known) => known.count += 1,
                None => by.push(Masked { rule: policy, path: text.path.clone(), count: 1 }),
            }
            texts.push((text, value));
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let memory = connection.share.hold(body.len() + texts.iter().map(|(_, value)| value.len()).sum::<usize>())?;
        let with: Vec<_> = texts.iter().map(|(text, value)| (text.clone(), &value[..])).collect();
        let body = PlacedText::replace(body, &with);
        check(&parts.headers, call)?;
        Ok(Some(Unmasked::new(body, memory, by)))
    })
}

/// Whether the request is one whose body can be another: signed by us as a whole, not compressed, and understood.
fn is_plain(parts: &Parts, subject: &Subject, call: &Call) -> bool {
    let signed = match subject {
        Subject::Aws { auth: Authentication::Signed { handshake, .. }, .. } => handshake.is_none(),
        Subject::Aws { auth: Authentication::V4a { .. }, .. } => true,
        _ => false,
    };
    let whole = matches!(call.payload, Payload::DeclaredHash | Payload::ImpliedHash | Payload::Unsigned);
    let encoded = parts.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    signed && whole && !encoded && call.unread.is_empty() && !call.has_dropped() && is_one(call) && is_meant(call)
}

/// Whether whatever service reads it takes it for the same operation: those of RDS, Neptune and DocumentDB are called alike.
fn is_one(call: &Call) -> bool {
    call.candidates.iter().all(|it| it.rsplit(':').next() == Some(&*call.operation))
}

fn is_meant(call: &Call) -> bool {
    ONLY_IF.iter().all(|(service, operation, member, text)| {
        call.service != *service
            || call.operation != *operation
            || call.parameters.get(*member).and_then(serde_json::Value::as_str) == Some(*text)
    })
}

/// Whether this is the member of this call.
fn goes_to(target: &UnmaskTarget, call: &Call, path: &str) -> bool {
    target.path == path
        && call.actions.iter().any(|action| *action.name == *target.action)
        && target
            .operations
            .iter()
            .any(|(service, operation)| *service == *call.service && *operation == *call.operation)
}

fn is_placeholder(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == DIGITS && rest.bytes().all(digit))
}

/// Whether what the head says of the body can be said of another.
fn check(headers: &HeaderMap, call: &Call) -> Result<(), Refusal> {
    match without_checksum(headers) {
        None => Ok(()),
        Some(name) => Err(Refusal::denied(
            Kind::BadRequest,
            Reason::NotSupported,
            format!(
                "{} has a masked value to be put back into its body, whose checksum in {name} can't be made anew. Send it \
                 without, or with SHA-256 or CRC-32 (request_checksum_calculation = when_required in the AWS configuration)",
                call.operation
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_one_to_its_last_letter() {
        assert!(is_placeholder("chaperone-masked-0123456789abcdef"));
        for other in
            ["chaperone-masked-", "chaperone-masked-0123456789ABCDEF", "chaperone-masked-0123456789abcdef0", "x"]
        {
            assert!(!is_placeholder(other), "{other}");
        }
    }
}
