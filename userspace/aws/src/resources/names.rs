//! What a name in a request stands for. The same thing gets the same ARN however it was named; what only AWS can
//! resolve becomes a pattern, and the other names that a thing may have are noted for policies that forbid.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Place, checked, ids};
use crate::{actions::Requirements, catalog::Candidate, decode_error::DecodeError};

/// A variable of a template that a member says.
pub(super) struct Variable<'a> {
    pub candidate: &'a Candidate,
    /// The whole template.
    pub template: &'static str,
    /// As the template has it: `{=FunctionName}`.
    pub in_template: &'static str,
    /// What stands right before it: `:parameter/`, `:function:`.
    pub kind: &'static str,
    /// All that stands before it, as far as it is filled; one for each value of the variables before.
    pub before: Vec<String>,
    /// What stands right after it; `None` at the ARN's end.
    pub next: Option<char>,
    /// AWS assigns the name that ARNs have, so that only a whole ARN says it.
    pub arn_only: bool,
    pub members: &'a Map<String, Value>,
    pub place: &'a Place<'a>,
}

/// What a value says.
pub(super) enum Named<'a> {
    /// Exactly this, in the variable's place.
    Exactly(Cow<'a, str>),
    /// Something that fits this pattern.
    Like(String),
    /// A whole ARN in the place of a name. (ECS, Lambda, KMS, Secrets Manager, DynamoDB, …)
    Arn(&'a str),
    /// The whole resource: the requirements have it already.
    Whole,
    /// Nothing of the template's type, but of another template's of the operation.
    Other,
}

/// Services, as ARNs call them, that take names in any case and keep them in lower case. (DocumentDB, Neptune and RDS's
/// Data API have ARNs of `rds`.)
const LOWER_CASE: [&str; 5] = ["dax", "elasticache", "memorydb", "rds", "redshift"];

/// An ARN with its name in lower case, where ARNs may have it so though the API keeps it as it was written. (SageMaker
/// takes names for the same in any case, and most of its ARNs have them in lower case.)
pub(super) fn in_lower_case(arn: &str) -> Option<String> {
    let at = arn.match_indices(':').nth(4)?.0;
    let is_other =
        arn.split(':').nth(2) == Some("sagemaker") && arn[at..].bytes().any(|byte| byte.is_ascii_uppercase());
    is_other.then(|| [&arn[..at], &arn[at..].to_ascii_lowercase()].concat())
}

/// Parts of an ARN's name that are separated by colons, more than any service has.
const MAX_QUALIFIERS: usize = 8;

/// Whether a text is an account's number.
pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether an ARN fits a pattern in which `*` stands for any run of characters.
pub(crate) fn fits(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// What a resource's ARN could stand for, if its name holds what a service may read as something else: wildcards,
/// control characters, or blanks at the edge of a part. `None` for a plain name, and for S3's keys.
pub(crate) fn ambiguous(arn: &str) -> Option<String> {
    // Nearly all: nothing in it could be taken for anything else.
    if arn.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'?')) {
        return None;
    }
    let mut parts = arn.splitn(6, ':').skip(2);
    if matches!(parts.next(), Some("s3" | "s3express" | "s3-outposts" | "s3-object-lambda")) {
        return None;
    }
    // The account that isn't known is `*`, and is looked after elsewhere.
    let own_star = usize::from(parts.nth(1) == Some("*"));
    let is_blank = |c: char| c.is_whitespace() || is_invisible(c);
    let is_wild = |c: char| matches!(c, '*' | '?') || c.is_control() || is_invisible(c);
    let plain = |piece: &str| {
        let piece = piece.trim_end_matches([':', '/']);
        !piece.starts_with(is_blank) && !piece.ends_with(is_blank)
    };
    if arn.matches(is_wild).count() == own_star && arn.split_inclusive([':', '/']).all(plain) {
        return None;
    }
    let mut pattern = String::new();
    for piece in arn.split_inclusive([':', '/']) {
        let name = piece.trim_end_matches([':', '/']);
        let trimmed = name.trim_matches(is_blank);
        let at_edge = if trimmed.len() == name.len() { "" } else { "*" };
        pattern.extend([at_edge, &trimmed.replace(is_wild, "*"), at_edge, &piece[name.len()..]]);
    }
    Some(pattern)
}

/// Characters that nothing is seen of, and that some readers drop.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Whether a text in an ARN's place is meant for an ARN, however it is dressed up.
pub(crate) fn is_arn_in_disguise(text: &str) -> bool {
    let holds_arn = || {
        memchr::memchr_iter(b':', text.as_bytes())
            .any(|at| at >= 3 && text.as_bytes()[at - 3..at].eq_ignore_ascii_case(b"arn"))
    };
    !text.starts_with("arn:") && (ambiguous(text).is_some() || holds_arn())
}

/// A whole ARN that the request names.
pub(crate) fn arn(needs: &mut Requirements, text: &str) -> Result<(), DecodeError> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, service, region, account, name] = parts[..] else {
        // Some services complete what is left out.
        return needs.unknown("*".into(), Cow::Borrowed("part of an ARN"), false);
    };
    if text.contains(['*', '?'])
        && !(service == "logs" && name.ends_with(":*") && !name[..name.len() - 2].contains(['*', '?']))
    {
        return needs.unknown(text.replace('?', "*"), Cow::Borrowed("a wildcard in the request"), false);
    }
    let here = |name: &str| ["arn:", partition, ":", service, ":", region, ":", account, ":", name].concat();
    match service {
        "lambda" if name.starts_with("function:") => {
            let mut parts = name.split(':').skip(1);
            let (function, qualifier) = (parts.next().unwrap_or_default(), parts.next());
            needs.resource(here(&format!("function:{function}")))?;
            if qualifier.is_some() {
                needs.resource(text.to_owned())?;
            }
            Ok(())
        }
        "logs" => needs.resource(here(name.strip_suffix(":*").unwrap_or(name))),
        "ssm" if name.starts_with("parameter/") => {
            needs.resource(here(&format!("parameter/{}", parameter(&name[10..]))))
        }
        "kms" | "payment-cryptography" if name.starts_with("alias/") => {
            needs.resource(text.to_owned())?;
            needs.unknown(here("key/*"), Cow::Borrowed("the key that the alias stands for"), false)
        }
        "kms" | "payment-cryptography" if name.starts_with("key/") => {
            needs.resource(text.to_owned())?;
            needs.unknown(here("alias/*"), Cow::Borrowed("an alias of the key"), true)
        }
        "secretsmanager" => {
            needs.resource(text.to_owned())?;
            // `secret:NAME-AbCdEf` may also be called by its name alone; and what looks like it may be a name.
            if let Some((plain, _)) = name.rsplit_once('-').filter(|(_, end)| end.len() == 6) {
                needs.unknown(here(plain), Cow::Borrowed("the secret's name"), true)?;
            }
            needs.unknown(here(&format!("{name}-*")), Cow::Borrowed("the secret's full ARN"), true)
        }
        _ if LOWER_CASE.contains(&service) => needs.resource(here(&name.to_ascii_lowercase())),
        _ => {
            // Behind a colon a version or an alias may stand, which counts as what it is of.
            for (at, _) in name.match_indices(':').take(MAX_QUALIFIERS) {
                needs.unknown(here(&name[..at]), Cow::Borrowed("what a version is of"), true)?;
            }
            if let Some(lower) = in_lower_case(text) {
                needs.unknown(lower, Cow::Borrowed("its ARN in lower case"), true)?;
            }
            needs.resource(text.to_owned())
        }
    }
}

/// A parameter's name without its first slash and its `:VERSION` or `:LABEL`.
fn parameter(name: &str) -> &str {
    let name = name.trim_start_matches('/');
    name.split_once(':').map_or(name, |(name, _)| name)
}

/// Secrets that SSM reads as parameters, of those names: `/aws/reference/secretsmanager/ID`.
/// <https://docs.aws.amazon.com/systems-manager/latest/userguide/integration-ps-secretsmanager.html>
pub(crate) fn secrets_by_parameter<'a>(names: impl Iterator<Item = &'a str>, place: &Place<'_>) -> Vec<String> {
    let path = |name: &'a str| {
        let name = match name.strip_prefix("arn:") {
            Some(arn) => arn.split_once(":parameter")?.1,
            None => name,
        };
        name.trim_start_matches('/').strip_prefix("aws/reference/secretsmanager/")
    };
    names.filter_map(path).map(|id| place.arn("secretsmanager", &format!("secret:{id}"))).collect()
}

impl Variable<'_> {
    /// Reads one value.
    pub fn read<'v>(&self, needs: &mut Requirements, value: &'v str) -> Result<Named<'v>, DecodeError> {
        let service = self.candidate.service.name;
        if service == "lambda" && self.kind == ":function:" {
            return match value.strip_prefix("arn:") {
                Some(_) => self.function_by_arn(needs, value),
                None => self.function(needs, value),
            };
        }
        if value.starts_with("arn:") {
            return Ok(Named::Arn(value));
        }
        if let Some(spelled) = self.spelled(value) {
            return Ok(spelled);
        }
        if ids::kind(value).is_some_and(|kind| self.is_for_another(kind)) || self.is_of_another(value) {
            return Ok(Named::Other);
        }
        if self.arn_only || self.repeats_kind(value) || self.repeats_before(value) || self.is_part_of_arn(value) {
            return Ok(Named::Like("*".into()));
        }
        if let Some(pattern) = ambiguous(value) {
            return Ok(Named::Like(pattern));
        }
        let kind = self.kind.trim_start_matches(':');
        let qualified = matches!((service, kind), ("ssm", "parameter/") | ("codebuild", "project/"));
        if value.contains(':') && !qualified && !holds_colons(service) {
            // Part of an ARN perhaps, or a name with something behind it: whatever the service makes of it.
            return Ok(Named::Like("*".into()));
        }
        match (service, kind) {
            ("ssm", "parameter/") => {
                let selected = value.starts_with('/') && value.len() == 1;
                return Ok(if selected { Named::Like("*".into()) } else { Named::Exactly(parameter(value).into()) });
            }
            ("kms" | "payment-cryptography" | "payment-cryptography-data", "key/") => return self.key(needs, value),
            ("kms", "alias/") => return Ok(Named::Exactly(value.strip_prefix("alias/").unwrap_or(value).into())),
            ("secretsmanager", "secret:") => {
                let full = self.place.arn("secretsmanager", &format!("secret:{value}-*"));
                needs.unknown(full, Cow::Borrowed("the secret's full ARN"), true)?;
                return Ok(Named::Exactly(value.into()));
            }
            // The family's latest revision, or `FAMILY:REVISION`.
            ("ecs", "task-definition/" | "daemon-task-definition/") if self.next.is_none() => {
                return Ok(match value.split_once(':') {
                    Some((_, revision)) if revision.bytes().all(|byte| byte.is_ascii_digit()) => {
                        Named::Exactly(value.into())
                    }
                    Some(_) => Named::Like("*".into()),
                    None => Named::Like([value, ":*"].concat()),
                });
            }
            // `ID` begins with its project's name.
            ("codebuild", "project/") => {
                return Ok(Named::Exactly(value.split_once(':').map_or(value, |(project, _)| project).into()));
            }
            ("iam", "role/" | "user/" | "group/" | "policy/" | "instance-profile/" | "server-certificate/") => {
                let account = self.place.account.unwrap_or("*");
                let named = |path: &str| format!("arn:{}:iam::{account}:{kind}{path}{value}", self.place.partition);
                needs.unknown(named("*/"), Cow::Borrowed("the same name below a path"), true)?;
                // What is made gets the path that the request says.
                if let Some(path) = self.members.get("Path").and_then(Value::as_str).filter(|path| *path != "/")
                    && ["Create", "Upload"].iter().any(|verb| self.candidate.operation.name.starts_with(verb))
                {
                    needs.unknown(named(""), Cow::Borrowed("the same name without its path"), true)?;
                    return Ok(
                        match path.strip_prefix('/').filter(|path| path.ends_with('/') && !path.contains(':')) {
                            Some(path) => Named::Exactly(Cow::Owned([path, value].concat())),
                            None => Named::Like(["*", value].concat()),
                        },
                    );
                }
            }
            _ => {}
        }
        // Ids that begin with what stands before them in the ARN already: `p-` in `policy/o-…/p-…` and `p-12345678`.
        let prefix = self.kind.rsplit([':', '/']).next().unwrap_or_default();
        if let Some(rest) = value.strip_prefix(prefix).filter(|rest| !prefix.is_empty() && !rest.is_empty()) {
            return Ok(Named::Exactly(rest.into()));
        }
        // What would end the variable in the ARN: then where it ends can't be told.
        if self.next.is_some_and(|next| next != '{' && value.contains(next)) {
            return Ok(Named::Like("*".into()));
        }
        let of = self.template.split(':').nth(2).unwrap_or(service);
        let is_lower = LOWER_CASE.contains(&of) && value.bytes().any(|byte| byte.is_ascii_uppercase());
        let value = if is_lower { Cow::Owned(value.to_ascii_lowercase()) } else { Cow::Borrowed(value) };
        Ok(Named::Exactly(value))
    }

    /// Whether another template of the operation has the same member for the name of a resource of that kind, and this
    /// one is of another kind.
    fn is_for_another(&self, kind: &str) -> bool {
        let is_own = |before: &str| before.ends_with(kind) && before[..before.len() - kind.len()].ends_with([':', '/']);
        // What is only mentioned needs no permission, and takes none from this one.
        let theirs =
            |template: &str| !template.starts_with('~') && template.strip_suffix(self.in_template).is_some_and(is_own);
        !is_own(self.kind) && self.candidate.operation.templates.iter().any(|template| theirs(template))
    }

    /// Whether its form tells that an id isn't one of this template's type, and is one of another's which has the same
    /// member.
    fn is_of_another(&self, id: &str) -> bool {
        let service = self.candidate.service.name;
        let before = |template: &'static str| {
            let before = template.strip_suffix(self.in_template).filter(|_| !template.starts_with('~'))?;
            Some(before.rsplit('}').next().unwrap_or(before))
        };
        !ids::may_be(service, self.kind, id)
            && self.candidate.operation.templates.iter().filter_map(|one| before(one)).any(|kind| {
                // With the account for a word: `:aws:browser/`.
                kind != self.kind && ids::may_be(service, kind, id)
            })
    }

    /// What the service takes if nothing is said.
    pub fn default(&self) -> Option<&'static str> {
        match (self.candidate.service.name, self.in_template) {
            ("ecs", "{=cluster}") => Some("default"),
            // The default bus has its rules beside its name.
            ("events", "{=EventBusName}") if self.kind == ":event-bus/" => Some("default"),
            _ => None,
        }
    }

    /// What ARNs have for words that the API has otherwise.
    fn spelled<'v>(&self, value: &str) -> Option<Named<'v>> {
        let spelled = match (self.candidate.service.name, self.in_template, value) {
            ("wafv2", "{=Scope}", "REGIONAL") => "regional",
            ("wafv2", "{=Scope}", "CLOUDFRONT") => "global",
            ("pi", "{=ServiceType}", "RDS") => "rds",
            ("wafv2", "{=Scope}", _) | ("pi", "{=ServiceType}", _) | ("proton", "{=provider}", _) => {
                return Some(Named::Like("*".into()));
            }
            _ => return None,
        };
        Some(Named::Exactly(spelled.into()))
    }

    /// Whether a name begins with a word that stands before it in the ARN: `role/worker` for `worker`.
    fn repeats_kind(&self, value: &str) -> bool {
        let Some((first, _)) = value.split_once(['/', ':']) else { return false };
        let literals = self.template.split('}').map(|piece| piece.split('{').next().unwrap_or_default());
        literals
            .flat_map(|literal| literal.split([':', '/']))
            .any(|kind| !kind.is_empty() && first.eq_ignore_ascii_case(kind))
    }

    /// Whether a name begins with all that stands before it in the ARN from some separator on, other variables'
    /// values included: then it may be the end of an ARN and no name, such as `/workspaces/g-1` for `g-1`, or
    /// `release/approve` for a pipeline's stage. S3's keys are what they are.
    fn repeats_before(&self, value: &str) -> bool {
        let value = value.trim_start_matches(['/', ':']);
        if self.candidate.service.name.starts_with("s3") || !value.contains(['/', ':']) {
            return false;
        }
        self.before.iter().any(|before| {
            let name = before.splitn(6, ':').nth(5).unwrap_or_default();
            let name = name.trim_start_matches('/');
            let ends = name.match_indices([':', '/']).map(|(at, _)| &name[at + 1..]);
            std::iter::once(name).chain(ends).any(|end| !end.is_empty() && starts_with_any_case(value, end))
        })
    }

    /// Whether a name has something of an ARN before a colon: a region, an account, the service or the type.
    fn is_part_of_arn(&self, value: &str) -> bool {
        let service = self.candidate.service.name;
        value.rsplit_once(':').is_some_and(|(before, _)| {
            before.split([':', '/']).any(|part| {
                let named = |name: &str| part.eq_ignore_ascii_case(name);
                part.is_empty() && value.starts_with(':')
                    || is_account(part)
                    || is_region(part)
                    || named("arn")
                    || named(service)
                    || self.kind.split([':', '/']).any(|kind| !kind.is_empty() && named(kind))
                    || self
                        .candidate
                        .operation
                        .actions
                        .iter()
                        .any(|action| action.0.split(':').next().is_some_and(named))
            })
        })
    }

    /// `[REGION:][ACCOUNT:][function:]NAME[:QUALIFIER]`, as Lambda's model has it.
    fn function<'v>(&self, needs: &mut Requirements, value: &'v str) -> Result<Named<'v>, DecodeError> {
        let mut parts: Vec<&str> = value.split(':').collect();
        let mut region = self.place.region.as_deref().unwrap_or_default();
        let mut account = self.place.account.unwrap_or("*");
        if parts.len() > 1 && is_region(parts[0]) {
            region = parts.remove(0);
        }
        if parts.len() > 1 && is_account(parts[0]) {
            account = parts.remove(0);
        }
        if parts.len() > 1 && parts[0] == "function" {
            parts.remove(0);
        }
        let (name, qualifier) = match parts[..] {
            [name] => (name, None),
            [name, qualifier] => (name, Some(qualifier)),
            _ => ("", None),
        };
        let other = self.members.get("Qualifier").and_then(Value::as_str);
        let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_$.".contains(&b));
        if name.is_empty() || !is_plain(name) || !qualifier.into_iter().chain(other).all(is_plain) {
            let any = format!("arn:{}:lambda:*:*:function:*", self.place.partition);
            needs.unknown(any, Cow::Borrowed("no name of a function"), false)?;
            return Ok(Named::Whole);
        }
        let base = format!("arn:{}:lambda:{region}:{account}:function:{name}", self.place.partition);
        for qualifier in qualifier.into_iter().chain(other).filter(|qualifier| !qualifier.is_empty()) {
            needs.resource(checked(&format!("{base}:{qualifier}"))?)?;
        }
        needs.resource(base)?;
        Ok(Named::Whole)
    }

    /// A function's ARN. The qualifier may stand in a member of its own.
    fn function_by_arn<'v>(&self, needs: &mut Requirements, value: &'v str) -> Result<Named<'v>, DecodeError> {
        if value.splitn(6, ':').nth(5).is_none_or(|name| !name.starts_with("function:")) {
            let any = format!("arn:{}:lambda:*:*:function:*", self.place.partition);
            needs.unknown(any, Cow::Borrowed("no ARN of a function"), false)?;
            return Ok(Named::Arn(value));
        }
        let qualifier = self.members.get("Qualifier").and_then(Value::as_str).filter(|qualifier| !qualifier.is_empty());
        if let Some(qualifier) = qualifier {
            // Without one of its own an ARN has seven parts.
            let base: Vec<&str> = value.splitn(8, ':').take(7).collect();
            needs.resource(checked(&[&base.join(":"), ":", qualifier].concat())?)?;
        }
        Ok(Named::Arn(value))
    }

    /// A key by its id, or by an alias, which stands for a key that only KMS knows.
    fn key<'v>(&self, needs: &mut Requirements, value: &'v str) -> Result<Named<'v>, DecodeError> {
        let of = self.template.split(':').nth(2).unwrap_or("kms");
        if value.starts_with("alias/") {
            needs.resource(checked(&self.place.arn(of, value))?)?;
            let key = self.place.arn(of, "key/*");
            needs.unknown(key, Cow::Borrowed("the key that the alias stands for"), false)?;
            return Ok(Named::Whole);
        }
        needs.unknown(self.place.arn(of, "alias/*"), Cow::Borrowed("an alias of the key"), true)?;
        Ok(Named::Exactly(value.into()))
    }
}

/// Services some of whose resources have names with colons.
fn holds_colons(service: &str) -> bool {
    ["batch", "bedrock", "bedrock-runtime", "docdb", "ecs", "logs", "neptune", "rds", "s3", "s3control"]
        .contains(&service)
}

fn starts_with_any_case(text: &str, start: &str) -> bool {
    text.as_bytes().get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
}

pub(super) fn is_region(text: &str) -> bool {
    let mut parts = text.rsplit('-');
    let number = parts.next().is_some_and(|part| part.len() == 1 && part.bytes().all(|byte| byte.is_ascii_digit()));
    number
        && text.split('-').count() >= 3
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
