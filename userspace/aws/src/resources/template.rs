//! The catalog's templates of ARNs (`xtask/python/catalog_resources.py` makes them), filled from the input.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Place, checked, names, texts};
use crate::{
    actions::{MAX_RESOURCES, Requirements},
    catalog::{Candidate, Operation},
    decode::value::MAX_STRING,
    decode_error::DecodeError,
};

/// What a template is, by its first character; the generator's `MARKS` say the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Counts if its members are there.
    Optional,
    /// What isn't said of it is unknown.
    Required,
    /// Required, or one of several, of which an ARN says which.
    OneOf,
    /// Made by the operation: what isn't said of it AWS assigns, and it is nothing that there is yet.
    New,
    /// Touched or not, and nothing in the input says.
    Possible,
    /// Named by the input, though IAM has no permission for it: for policies that forbid.
    Mentioned,
}

impl Mark {
    fn of(template: &str) -> Self {
        match template.as_bytes().first() {
            Some(b'-') => Self::Optional,
            Some(b'|') => Self::OneOf,
            Some(b'+') => Self::New,
            Some(b'?') => Self::Possible,
            Some(b'~') => Self::Mentioned,
            _ => Self::Required,
        }
    }
}

/// A template's ARN, without its mark and condition.
fn arn_of(template: &str) -> &str {
    template.find("arn:").and_then(|at| template.get(at..)).unwrap_or_default()
}

/// Whether a template is for this input: `[ResourceType=Document|Parameter]` between the mark and the ARN, or with `!=`,
/// asks a member for its value.
fn is_meant(template: &str, members: &Map<String, Value>) -> bool {
    let Some((condition, _)) = template[1..].strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return true;
    };
    let Some((member, values)) = condition.split_once('=') else {
        // `[PublicIp]` asks whether it is there, `[!PublicIp]` whether it isn't.
        return match condition.strip_prefix('!') {
            Some(member) => !members.contains_key(member),
            None => members.contains_key(condition),
        };
    };
    let (member, is_one) = member.strip_suffix('!').map_or((member, true), |member| (member, false));
    let said = members.get(member).and_then(Value::as_str);
    said.is_some_and(|said| values.split('|').any(|value| value == said)) == is_one
}

/// The same for what isn't named yet by hand: the types that IAM requires of which nothing is known.
pub(super) fn fill_what_is_left(
    needs: &mut Requirements,
    candidate: &Candidate,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    for template in &candidate.operation.templates {
        let (mark, text) = (Mark::of(template), arn_of(template));
        let is_required = matches!(mark, Mark::Required | Mark::OneOf | Mark::New);
        if is_required && is_meant(template, members) && !needs.names_like(&widest(text)) {
            let filled = Filled::of(needs, candidate, text, members, place)?;
            // A name that is a resource of another type says nothing of this one.
            let says_nothing = filled.open.is_empty() && !needs.names_like(&widest(text));
            for pattern in filled.open.into_iter().chain(says_nothing.then_some(filled.widest)) {
                needs.unknown(pattern, Cow::Borrowed("the request names none"), false)?;
            }
        }
    }
    Ok(())
}

/// Names the resources of an operation, and notes those that aren't named.
pub(super) fn fill(
    needs: &mut Requirements,
    candidate: &Candidate,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    let operation = candidate.operation;
    let arns = arns(operation, members);
    for arn in &arns {
        names::arn(needs, &checked(arn)?)?;
    }
    let is_said = |value: &Value| match value {
        Value::Null => false,
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
        _ => true,
    };
    let selector = operation.selectors.iter().find(|name| members.get(**name).is_some_and(is_said));
    let mut absent = Vec::new();
    let mut possible = Vec::new();
    for template in &operation.templates {
        if !is_meant(template, members) {
            continue;
        }
        let (mark, text) = (Mark::of(template), arn_of(template));
        if mark == Mark::Mentioned {
            let filled = needs.only_mentioned(|needs| Filled::of(needs, candidate, text, members, place))?;
            for pattern in filled.open.into_iter().filter(|_| filled.is_last_said || filled.missing.is_empty()) {
                needs.unknown(pattern, Cow::Borrowed("the request mentions it in part"), true)?;
            }
            continue;
        }
        let filled = Filled::of(needs, candidate, text, members, place)?;
        // An endpoint that is made in a network has neither the network's id nor its ARN for a name: AWS assigns it.
        // Whatever a member says in the name's place, something of the type is made.
        if mark == Mark::New && filled.open.is_empty() && !needs.names_like(&widest(text)) {
            needs.made_resource(filled.widest)?;
            continue;
        }
        if let Some(selector) = selector
            && matches!(mark, Mark::Optional | Mark::Required)
            && (filled.from_list || !filled.open.is_empty())
        {
            needs.unknown(filled.widest, Cow::Owned(format!("selected by {selector}")), false)?;
        }
        if filled.open.is_empty() {
            continue;
        }
        match mark {
            Mark::New => {
                for arn in filled.open {
                    if filled.in_part {
                        needs.unknown(arn, Cow::Borrowed(IN_PART), false)?;
                    } else if !filled.missing.is_empty() {
                        // AWS may assign the name, or the input may say it elsewhere.
                        needs.unknown(arn, not_named_by(&filled.missing), false)?;
                    } else {
                        needs.made_resource(arn)?;
                    }
                }
            }
            Mark::Optional => absent.extend(filled.open),
            Mark::Possible => possible.extend(filled.open.into_iter().map(|pattern| (pattern, filled.is_last_said))),
            Mark::OneOf if !arns.is_empty() => {}
            Mark::Mentioned => {}
            Mark::OneOf | Mark::Required => {
                let why = not_named_by(&filled.missing);
                for pattern in filled.open {
                    // An ARN in a member of its own is as good as the name.
                    if !arns.iter().any(|arn| names::fits(arn, &pattern)) {
                        needs.unknown(pattern, why.clone(), false)?;
                    }
                }
            }
        }
    }
    if needs.names_resources() {
        // An ARN says which of several it is. What a member says in part is touched nevertheless.
        for (pattern, _) in possible.into_iter().filter(|(_, is_said)| *is_said || arns.is_empty()) {
            needs.unknown(pattern, Cow::Borrowed("the request may touch it without naming it"), true)?;
        }
    } else {
        for pattern in absent.into_iter().chain(possible.into_iter().map(|(pattern, _)| pattern)) {
            needs.unknown(pattern, Cow::Borrowed("the request names none"), false)?;
        }
    }
    Ok(())
}

fn not_named_by(missing: &[&str]) -> Cow<'static, str> {
    match missing {
        [] => Cow::Borrowed("the request can't name it"),
        _ => Cow::Owned(format!("not named by {}", missing.join(", ").replace('|', " or "))),
    }
}

/// ARNs of the operation's own service, or of whatever a member called plainly `resourceArn` holds.
fn arns<'a>(operation: &Operation, members: &'a Map<String, Value>) -> Vec<&'a str> {
    const PLAIN: [&str; 10] = [
        "arn",
        "arns",
        "identifier",
        "resource",
        "resourcearn",
        "resourcearnlist",
        "resourcearns",
        "resourceidentifier",
        "resourcename",
        "rolearn",
    ];
    let mut all = Vec::new();
    for name in &operation.arn_members {
        for text in texts(members.get(*name)) {
            if !text.starts_with("arn:") {
                // No template makes anything of it, and the service may.
                let plain = PLAIN.iter().any(|plain| name.eq_ignore_ascii_case(plain));
                let in_template = || {
                    let variables = operation.templates.iter().flat_map(|template| template.split('{').skip(1));
                    variables
                        .filter_map(|rest| rest.split('}').next())
                        .filter_map(|it| it.strip_prefix(['=', '~']))
                        .any(|it| it.split('|').any(|it| it == *name))
                };
                if names::is_arn_in_disguise(text) || plain && !in_template() {
                    all.push(text);
                }
                continue;
            }
            let own = operation.actions.iter().any(|action| {
                let prefix = action.0.split(':').next().unwrap_or_default();
                text.split(':').nth(2) == Some(prefix)
            });
            if own || PLAIN.iter().any(|plain| name.eq_ignore_ascii_case(plain)) {
                all.push(text);
            }
        }
    }
    all
}

const IN_PART: &str = "named in part, or by a wildcard";

/// A template after it was filled. What was said went to the requirements.
struct Filled {
    /// What isn't said, each an ARN with `*` for what is missing of it. Empty if all is said.
    open: Vec<String>,
    /// An ARN with `*` for what is missing, and for lists, which a selector could add to.
    widest: String,
    /// A list said some of it.
    from_list: bool,
    /// What the input says of it is a pattern.
    in_part: bool,
    /// The last of its members says something.
    is_last_said: bool,
    /// Members that could have said more.
    missing: Vec<&'static str>,
}

/// What stands in one place of an ARN.
struct Part<'a> {
    text: Cow<'a, str>,
    /// It is this and nothing else; otherwise a pattern.
    known: bool,
}

impl<'a> Part<'a> {
    fn known(text: impl Into<Cow<'a, str>>) -> Vec<Self> {
        vec![Self { text: text.into(), known: true }]
    }

    fn any() -> Vec<Self> {
        vec![Self { text: Cow::Borrowed("*"), known: false }]
    }
}

impl Filled {
    fn of(
        needs: &mut Requirements,
        candidate: &Candidate,
        template: &'static str,
        members: &Map<String, Value>,
        place: &Place<'_>,
    ) -> Result<Self, DecodeError> {
        let (open, widest, missing) = Default::default();
        let mut filled = Self { open, widest, from_list: false, in_part: false, is_last_said: false, missing };
        let mut arns = vec![Part { text: Cow::Borrowed(""), known: true }];
        let mut is_said = true;
        let mut owner = Owner::Own;
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((variable, tail)) = after.split_once('}') else { break };
            rest = tail;
            let mut is_list = false;
            let parts = match variable.as_bytes().first() {
                Some(b'P') => Part::known(place.partition),
                Some(b'R') => Part::known(place.region.as_deref().unwrap_or_default()),
                Some(b'A') => match variable.split_once('=').and_then(|(_, name)| members.get(name)?.as_str()) {
                    None => Part::known(place.account.unwrap_or("*")),
                    Some(owner) if names::is_account(owner) => Part::known(owner),
                    Some(_) => Part::any(),
                },
                Some(b'=' | b'~') => {
                    let member = &variable[1..];
                    let mut found = Vec::new();
                    // Members of which a request has one: `logGroupName|logGroupIdentifier`.
                    for member in member.split('|') {
                        is_list |= values(members, member, &mut found);
                    }
                    let next = tail.chars().next();
                    let arn_only = variable.starts_with('~');
                    // Only what is known: what isn't makes all of it a pattern.
                    let so_far = arns.iter().filter(|arn| arn.known).map(|arn| [&*arn.text, before].concat());
                    let at = template.len() - after.len() - 1;
                    let variable = names::Variable {
                        candidate,
                        template,
                        in_template: &template[at..template.len() - tail.len()],
                        kind: before,
                        before: so_far.collect(),
                        next,
                        arn_only,
                        members,
                        place,
                    };
                    if found.is_empty() {
                        found.extend(variable.default());
                    }
                    let is_missing = found.is_empty();
                    filled.is_last_said = !is_missing;
                    let mut parts = Vec::new();
                    for value in found {
                        if value.len() >= MAX_STRING {
                            return Err(DecodeError::TooLarge("resource's name"));
                        }
                        match variable.read(needs, value)? {
                            names::Named::Whole | names::Named::Other => {}
                            names::Named::Arn(arn) => match within(&variable, tail, arn) {
                                Within::Nothing => names::arn(needs, &checked(arn)?)?,
                                Within::Foreign(name) => {
                                    names::arn(needs, &checked(arn)?)?;
                                    for before in &variable.before {
                                        let why = Cow::Borrowed("an ARN of another type in the place of its name");
                                        needs.unknown(
                                            checked(&[before, name, &self::widest(tail)].concat())?,
                                            why,
                                            true,
                                        )?;
                                    }
                                }
                                Within::Named(name) => {
                                    needs.only_mentioned(|needs| names::arn(needs, &checked(arn)?))?;
                                    owner.add(arn);
                                    parts.push(Part { text: Cow::Borrowed(name), known: true });
                                }
                                Within::Unclear => {
                                    names::arn(needs, &checked(arn)?)?;
                                    filled.in_part = true;
                                    parts.extend(Part::any());
                                }
                            },
                            names::Named::Exactly(text) => parts.push(Part { text, known: true }),
                            names::Named::Like(text) => {
                                filled.in_part = true;
                                parts.push(Part { text: Cow::Owned(text), known: false });
                            }
                        }
                    }
                    if is_missing {
                        is_said = false;
                        filled.missing.push(member);
                        parts = Part::any();
                    }
                    parts
                }
                _ => {
                    is_said = false;
                    Part::any()
                }
            };
            filled.from_list |= is_list;
            filled.widest.push_str(before);
            filled.widest.push_str(if is_list || parts.is_empty() { "*" } else { &parts[0].text });
            if arns.len() * parts.len() > MAX_RESOURCES {
                return Err(DecodeError::TooLarge("list of resources"));
            }
            let each = |so_far: &Part<'_>| -> Vec<Part<'static>> {
                let join = |part: &Part<'_>| Part {
                    text: Cow::Owned([&so_far.text, before, &part.text].concat()),
                    known: so_far.known && part.known,
                };
                parts.iter().map(join).collect()
            };
            arns = arns.iter().flat_map(each).collect();
        }
        filled.widest.push_str(rest);
        filled.widest = owner.of(filled.widest, template);
        let accounts = if template.contains("{A}") { other_accounts(members, place) } else { Vec::new() };
        let regions = if template.contains("{R}") { other_regions(members, place) } else { Vec::new() };
        for arn in arns {
            let text = owner.of(arn.text.into_owned() + rest, template);
            match (is_said, arn.known) {
                (true, true) => {
                    for account in &accounts {
                        let why = Cow::Borrowed("the account that the input names");
                        needs.unknown(with_part(&text, 4, account), why, true)?;
                    }
                    for region in &regions {
                        let why = Cow::Borrowed("the region that the input names");
                        needs.unknown(with_part(&text, 3, region), why, true)?;
                    }
                    if let Some(lower) = names::in_lower_case(&text) {
                        needs.unknown(lower, Cow::Borrowed("its ARN in lower case"), true)?;
                    }
                    needs.resource(text)?;
                }
                (true, false) => needs.unknown(text, Cow::Borrowed(IN_PART), false)?,
                (false, _) => filled.open.push(text),
            }
        }
        Ok(filled)
    }
}

/// What an ARN in the place of a name says of the template that the name is part of.
enum Within<'a> {
    /// It is the resource itself.
    Nothing,
    /// It is a resource of a type that isn't asked for there, of that name.
    Foreign(&'a str),
    /// It is what the resource belongs to, of that name: a cluster's, where a service of it is named beside.
    Named(&'a str),
    /// It is a resource of that type, and another one is named beside.
    Unclear,
}

fn within<'a>(variable: &names::Variable<'_>, tail: &str, arn: &'a str) -> Within<'a> {
    let is_one_of = |template: &str| names::fits(arn, &widest(template));
    // Of another type that the same member can name.
    let is_of_the_operation = || {
        let mut templates = variable.candidate.operation.templates.iter();
        templates.any(|it| it.contains(variable.in_template) && is_one_of(arn_of(it)))
    };
    let name = arn.splitn(6, ':').nth(5).unwrap_or_default();
    let name = name.rsplit([':', '/']).next().unwrap_or_default();
    // Nothing is said behind it: then the ARN is all.
    if !tail.contains('{') {
        return if is_of_the_operation() { Within::Nothing } else { Within::Foreign(name) };
    }
    let said_behind = tail.split('{').skip(1).filter_map(|rest| rest.split('}').next()?.strip_prefix(['=', '~']));
    let mut found = Vec::new();
    for path in said_behind.flat_map(|paths| paths.split('|')) {
        values(variable.members, path, &mut found);
    }
    // The same ARN may stand for a name in two places.
    let says_more = found.iter().any(|text| *text != arn);
    match (is_one_of(variable.template), says_more) {
        (true, true) => Within::Unclear,
        (true, false) => Within::Nothing,
        // What belongs to it may have been named, and wasn't.
        (false, false) if is_of_the_operation() && tail.contains("{=") => Within::Foreign(name),
        (false, false) if is_of_the_operation() => Within::Nothing,
        (false, _) if name.is_empty() || names::ambiguous(name).is_some() => Within::Unclear,
        (false, _) => Within::Named(name),
    }
}

/// A template with `*` for each of its variables.
fn widest(template: &str) -> String {
    let mut pieces = template.split('{');
    let mut pattern = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        pattern.push('*');
        pattern.push_str(piece.split_once('}').map_or("", |(_, literal)| literal));
    }
    pattern
}

/// Whose and where a resource is that belongs to one which is named by its ARN.
enum Owner {
    /// The caller's, where it calls.
    Own,
    /// The ARN's region and account.
    Other([String; 2]),
}

impl Owner {
    fn add(&mut self, arn: &str) {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [_, _, _, region, account, _] = parts[..] else { return };
        *self = match std::mem::replace(self, Self::Own) {
            Self::Own => Self::Other([region.to_owned(), account.to_owned()]),
            // Two that don't agree: it could be anybody's.
            Self::Other([region_before, account_before]) => Self::Other([
                if region_before == region { region_before } else { "*".to_owned() },
                if account_before == account { account_before } else { "*".to_owned() },
            ]),
        };
    }

    /// The resource's ARN with the region and account of what it belongs to.
    fn of(&self, arn: String, template: &str) -> String {
        let Self::Other([region, account]) = self else { return arn };
        let arn = if template.contains("{R}") { with_part(&arn, 3, region) } else { arn };
        if template.contains("{A}") { with_part(&arn, 4, account) } else { arn }
    }
}

/// More accounts than this in one input are taken for any.
const MAX_OTHER_ACCOUNTS: usize = 8;

/// Accounts that the input names beside the caller's own: of what it is on, or of whom it is for.
fn other_accounts<'a>(members: &'a Map<String, Value>, place: &Place<'_>) -> Vec<&'a str> {
    let named = members.iter().filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name.contains("account") || matches!(name.as_str(), "catalogid" | "registryid")
    });
    let accounts = named.flat_map(|(_, value)| texts(Some(value))).filter(|text| names::is_account(text));
    let others: Vec<_> = accounts.filter(|account| place.account != Some(account)).collect();
    if others.len() > MAX_OTHER_ACCOUNTS { vec!["*"] } else { others }
}

/// Regions that the input names beside its own, such as a snapshot's that is copied. One that is none could be any.
fn other_regions<'a>(members: &'a Map<String, Value>, place: &Place<'_>) -> Vec<&'a str> {
    let named = members.iter().filter(|(name, _)| name.to_ascii_lowercase().ends_with("region"));
    let regions = named.filter_map(|(_, value)| value.as_str()).filter(|text| place.region.as_deref() != Some(text));
    regions.map(|text| if names::is_region(text) { text } else { "*" }).collect()
}

/// The ARN with that in the place of its region (3) or account (4).
fn with_part(arn: &str, at: usize, part: &str) -> String {
    let mut parts: Vec<&str> = arn.splitn(6, ':').collect();
    if let Some(own) = parts.get_mut(at) {
        *own = part;
    }
    parts.join(":")
}

/// The texts at a path of members, through lists; whether there is a list on the way.
fn values<'a>(members: &'a Map<String, Value>, path: &str, found: &mut Vec<&'a str>) -> bool {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let Some(value) = members.get(name) else { return false };
    match (value, rest) {
        (_, None) => {
            found.extend(texts(Some(value)));
            value.is_array()
        }
        (Value::Object(inner), Some(rest)) => values(inner, rest, found),
        (Value::Array(all), Some(rest)) => {
            for inner in all.iter().filter_map(Value::as_object) {
                values(inner, rest, found);
            }
            true
        }
        _ => false,
    }
}
