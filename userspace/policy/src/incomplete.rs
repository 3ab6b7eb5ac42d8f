//! Deciding what isn't known whole: a policy is rewritten so that every condition on something unknown becomes a
//! constant, the one that errs on the side of denying. A `forbid` gets `true` where the condition could hold, a `permit`
//! gets `false` unless it must hold; below a `!` it is the other way round. What is left is decided by Cedar as ever.
//!
//! The rewriting works on Cedar's JSON form of policies. A form that it doesn't know counts as unknown.

use serde_json::{Value, json};

use crate::pattern::{Pattern, Token};

/// The attributes that every resource has.
const OF_RESOURCES: [&str; 6] = ["arn", "partition", "service", "region", "account", "name"];

/// What isn't known of a call.
pub(crate) struct Unknown<'a> {
    /// The resource, but for this.
    pub(crate) resource: Option<&'a ResourcePattern>,
    /// The operation's parameters.
    pub(crate) parameters: bool,
    /// The ARNs and accounts in its input.
    pub(crate) references: bool,
    /// Other attributes of the context.
    pub(crate) context: Vec<&'a str>,
}

/// Resources of which no more is known than a pattern of their ARN.
pub(crate) struct ResourcePattern {
    arn: Pattern,
    /// Partition, service, region, account, name.
    parts: [Pattern; 5],
}

impl ResourcePattern {
    /// An ARN with `*`. In its first five parts a `*` doesn't reach over a colon.
    pub(crate) fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let parts = match parts[..] {
            ["arn", partition, service, region, account, name] => {
                [partition, service, region, account, name].map(Pattern::parse)
            }
            _ => std::array::from_fn(|_| Pattern::any()),
        };
        let well_formed = text.starts_with("arn:") && text.splitn(6, ':').count() == 6;
        Self { arn: if well_formed { Pattern::parse(text) } else { Pattern::any() }, parts }
    }

    fn attribute(&self, name: &str) -> Option<&Pattern> {
        Some(match name {
            "arn" => &self.arn,
            _ => &self.parts[OF_RESOURCES.iter().position(|own| *own == name)?.checked_sub(1)?],
        })
    }
}

/// What a condition can come to: true, false, or either.
#[derive(Clone, Copy)]
struct Outcomes {
    can_be_true: bool,
    can_be_false: bool,
}

impl Outcomes {
    const EITHER: Self = Self { can_be_true: true, can_be_false: true };
    const TRUE: Self = Self { can_be_true: true, can_be_false: false };

    const fn not(self) -> Self {
        Self { can_be_true: self.can_be_false, can_be_false: self.can_be_true }
    }

    fn any(all: impl IntoIterator<Item = Self>) -> Self {
        let none = Self { can_be_true: false, can_be_false: true };
        all.into_iter().fold(none, |one, other| Self {
            can_be_true: one.can_be_true || other.can_be_true,
            can_be_false: one.can_be_false && other.can_be_false,
        })
    }
}

/// How a policy stands to what isn't known.
pub(crate) enum Rewritten {
    /// It doesn't look at it.
    Same,
    /// It can't apply, or it can't be shown to.
    Never,
    /// To be decided in its place.
    Instead(Value),
}

impl Unknown<'_> {
    /// Whether all is known.
    pub(crate) const fn is_nothing(&self) -> bool {
        self.resource.is_none() && !self.parameters && !self.references && self.context.is_empty()
    }

    /// Whether something of the context isn't known.
    const fn is_of_context(&self) -> bool {
        self.parameters || self.references || !self.context.is_empty()
    }

    /// Rewrites a policy in Cedar's JSON form.
    pub(crate) fn rewrite(&self, policy: &Value) -> Rewritten {
        let over = policy["effect"] != "permit";
        let empty = Vec::new();
        let conditions = policy["conditions"].as_array().unwrap_or(&empty);
        let scope = &policy["resource"];
        let by_resource = self.resource.is_some() && scope["op"] != "All";
        if !by_resource && !conditions.iter().any(|condition| self.touches(&condition["body"])) {
            return Rewritten::Same;
        }
        let mut policy = policy.clone();
        if by_resource {
            let outcomes = self.scope(scope);
            if !(if over { outcomes.can_be_true } else { !outcomes.can_be_false }) {
                return Rewritten::Never;
            }
            policy["resource"] = json!({ "op": "All" });
        }
        for condition in policy["conditions"].as_array_mut().into_iter().flatten() {
            let over = if condition["kind"] == "when" { over } else { !over };
            condition["body"] = self.approximate(&condition["body"], over);
        }
        Rewritten::Instead(policy)
    }

    /// Whether some resource that fits what is known is in a policy's scope.
    pub(crate) fn scope_can_match(&self, scope: &Value) -> bool {
        scope["op"] == "All" || self.scope(scope).can_be_true
    }

    fn scope(&self, scope: &Value) -> Outcomes {
        let entity = |scope: &Value| self.is_in(&scope["entity"], scope["op"] == "==");
        match scope["op"].as_str() {
            Some("==" | "in") => entity(scope),
            Some("is") if scope["entity_type"] == "Resource" => match scope.get("in") {
                None => Outcomes::TRUE,
                Some(within) => self.is_in(&within["entity"], false),
            },
            _ => Outcomes::EITHER,
        }
    }

    /// Whether the resource is this entity, or (unless `exactly`) in it: an S3 object is in its bucket.
    fn is_in(&self, entity: &Value, exactly: bool) -> Outcomes {
        let entity = entity.get("__entity").unwrap_or(entity);
        let (Some(resource), Some(kind), Some(id)) = (self.resource, entity["type"].as_str(), entity["id"].as_str())
        else {
            return Outcomes::EITHER;
        };
        if kind != "Resource" {
            return Outcomes::TRUE.not();
        }
        let mut all = vec![equals(&resource.arn, id)];
        if !exactly && id.split(':').nth(2) == Some("s3") {
            let below = Pattern::literal(id);
            let below = below.tokens().chain([Token::Is('/'), Token::Any]).collect();
            all.push(fits(&resource.arn, &below));
        }
        Outcomes::any(all)
    }

    /// Whether an expression depends on what isn't known.
    pub(crate) fn touches(&self, expression: &Value) -> bool {
        match expression {
            Value::Array(items) => items.iter().any(|item| self.touches(item)),
            Value::Object(members) => members.iter().any(|(operator, operand)| match operator.as_str() {
                "Var" => {
                    // The context as a value of its own: all of it may be read.
                    self.resource.is_some() && operand == "resource" || self.is_of_context() && operand == "context"
                }
                "." | "has" if operand["left"] == json!({ "Var": "context" }) => {
                    let first = operand["attr"].as_str().or_else(|| operand["attr"][0].as_str());
                    match first {
                        Some("parameters") => self.parameters,
                        Some("arns" | "accounts") => self.references,
                        Some(name) => self.context.contains(&name),
                        None => self.is_of_context(),
                    }
                }
                "type" if self.parameters && operand == "Parameters" => true,
                _ => self.touches(operand),
            }),
            _ => false,
        }
    }

    /// The expression with everything unknown decided: towards true if `over`, else towards false.
    fn approximate(&self, expression: &Value, over: bool) -> Value {
        if !self.touches(expression) {
            return expression.clone();
        }
        let two = |operator: &str, operand: &Value| {
            let [left, right] = ["left", "right"].map(|side| self.approximate(&operand[side], over));
            json!({ operator: { "left": left, "right": right } })
        };
        match operation(expression) {
            Some((operator @ ("&&" | "||"), operand)) => two(operator, operand),
            Some(("!", operand)) => json!({ "!": { "arg": self.approximate(&operand["arg"], !over) } }),
            Some(("if-then-else", operand)) => {
                let condition = &operand["if"];
                let [then, otherwise] = ["then", "else"].map(|branch| self.approximate(&operand[branch], over));
                if !self.touches(condition) {
                    return json!({ "if-then-else": { "if": condition, "then": then, "else": otherwise } });
                }
                let not = json!({ "!": { "arg": self.approximate(condition, !over) } });
                let branch = |left: Value, right: Value| json!({ "&&": { "left": left, "right": right } });
                let left = branch(self.approximate(condition, over), then);
                json!({ "||": { "left": left, "right": branch(not, otherwise) } })
            }
            _ => {
                let outcomes = self.judge(expression);
                json!({ "Value": if over { outcomes.can_be_true } else { !outcomes.can_be_false } })
            }
        }
    }

    /// A condition on the resource and on constants alone.
    fn judge(&self, expression: &Value) -> Outcomes {
        self.known(expression).unwrap_or(Outcomes::EITHER)
    }

    fn known(&self, expression: &Value) -> Option<Outcomes> {
        let (operator, operand) = operation(expression)?;
        let (left, right) = (&operand["left"], &operand["right"]);
        Some(match operator {
            "==" => self.equal(left, right).or_else(|| self.equal(right, left))?,
            "!=" => self.equal(left, right).or_else(|| self.equal(right, left))?.not(),
            "contains" => {
                let text = self.text(right)?;
                Outcomes::any(elements(left)?.into_iter().map(|element| match element.as_str() {
                    Some(element) => equals(text, element),
                    None => Outcomes::TRUE.not(),
                }))
            }
            "has" if is_resource(left) && OF_RESOURCES.contains(&operand["attr"].as_str()?) => Outcomes::TRUE,
            "in" if is_resource(left) => match elements(right) {
                Some(all) => Outcomes::any(all.into_iter().map(|entity| self.is_in(entity, false))),
                None => self.is_in(right.get("Value")?, false),
            },
            "is" if is_resource(left) && operand["entity_type"] == "Resource" => match operand.get("in") {
                None => Outcomes::TRUE,
                Some(within) => self.is_in(within.get("Value")?, false),
            },
            "like" => fits(self.text(left)?, &pattern(&operand["pattern"])?),
            _ => return None,
        })
    }

    fn equal(&self, one: &Value, other: &Value) -> Option<Outcomes> {
        let value = other.get("Value")?;
        if is_resource(one) {
            return Some(self.is_in(value, true));
        }
        let text = self.text(one)?;
        Some(value.as_str().map_or(Outcomes::TRUE.not(), |value| equals(text, value)))
    }

    /// `resource.NAME`
    fn text(&self, expression: &Value) -> Option<&Pattern> {
        let attribute = expression.get(".")?;
        if !is_resource(&attribute["left"]) {
            return None;
        }
        self.resource?.attribute(attribute["attr"].as_str()?)
    }
}

/// The one operator of an expression, and what it is applied to.
fn operation(expression: &Value) -> Option<(&str, &Value)> {
    let members = expression.as_object()?;
    let (operator, operand) = members.iter().next().filter(|_| members.len() == 1)?;
    Some((operator, operand))
}

fn is_resource(expression: &Value) -> bool {
    *expression == json!({ "Var": "resource" })
}

/// A set's elements, if all of them are constants.
fn elements(expression: &Value) -> Option<Vec<&Value>> {
    match expression.get("Set") {
        Some(set) => set.as_array()?.iter().map(|element| element.get("Value")).collect(),
        None => Some(expression.get("Value")?.as_array()?.iter().collect()),
    }
}

/// `like`'s pattern: `["Wildcard", {"Literal": "a"}]`
fn pattern(tokens: &Value) -> Option<Pattern> {
    let mut all = Vec::new();
    for token in tokens.as_array()? {
        match token {
            Value::String(wildcard) if wildcard == "Wildcard" => all.push(Token::Any),
            _ => all.extend(token.get("Literal")?.as_str()?.chars().map(Token::Is)),
        }
    }
    Some(all.into_iter().collect())
}

fn equals(text: &Pattern, value: &str) -> Outcomes {
    fits(text, &Pattern::literal(value))
}

fn fits(text: &Pattern, pattern: &Pattern) -> Outcomes {
    Outcomes { can_be_true: text.overlaps(pattern), can_be_false: !text.is_within(pattern) }
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;

    /// What becomes of a condition on a resource of which only `arn` is known: over- and underestimated.
    fn judged(arn: &str, condition: &str) -> (bool, bool) {
        let resource = ResourcePattern::parse(arn);
        let unknown = Unknown { resource: Some(&resource), parameters: true, references: true, context: vec![] };
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        let policy = Policy::parse(None, text).unwrap().to_json().unwrap();
        let body = &policy["conditions"][0]["body"];
        let both = [true, false].map(|over| unknown.approximate(body, over));
        both.map(|value| value["Value"].as_bool().unwrap_or_else(|| panic!("{condition}: {value}"))).into()
    }

    #[test]
    fn each_form_of_condition_is_judged() {
        const ANY: &str = "arn:aws:ec2:eu-west-1:123456789012:instance/*";
        for (condition, expected) in [
            (r#"resource.arn like "*prod*""#, (true, false)),
            (r#"resource.arn like "arn:aws:ec2:*""#, (true, true)),
            (r#"resource.arn like "arn:aws:s3:*""#, (false, false)),
            (r#"resource.name like "instance/*""#, (true, true)),
            (r#"resource.service == "ec2""#, (true, true)),
            (r#""s3" == resource.service"#, (false, false)),
            (r#"resource.account != "123456789012""#, (false, false)),
            (r#"resource == Resource::"arn:aws:ec2:eu-west-1:123456789012:instance/i-1""#, (true, false)),
            (r#"resource == Resource::"arn:aws:ec2:eu-west-1:123456789012:volume/v-1""#, (false, false)),
            (r#"resource in [Resource::"arn:aws:s3:::a", Resource::"arn:aws:s3:::b"]"#, (false, false)),
            (r#"["eu-west-1", "eu-west-2"].contains(resource.region)"#, (true, true)),
            (r#"["i-1", "i-2"].contains(resource.name)"#, (false, false)),
            ("resource has account", (true, true)),
            ("resource is Resource", (true, true)),
            (r#"context.parameters.hasTag("InstanceId")"#, (true, false)),
            (r#"context.arns.contains("arn:aws:s3:::b")"#, (true, false)),
            ("(resource.name == context.host) == true", (true, false)),
        ] {
            assert_eq!(judged(ANY, condition), expected, "{condition}");
        }
    }

    #[test]
    fn an_object_of_a_bucket_is_in_it() {
        assert_eq!(judged("arn:aws:s3:::b/*", r#"resource in Resource::"arn:aws:s3:::b""#), (true, true));
        assert_eq!(judged("arn:aws:s3:::b/*", r#"resource in Resource::"arn:aws:s3:::bc""#), (false, false));
        assert_eq!(judged("arn:aws:s3:::b*", r#"resource in Resource::"arn:aws:s3:::bc""#), (true, false));
        assert_eq!(judged("*", r#"resource in Resource::"arn:aws:s3:::bc""#), (true, false));
    }

    #[test]
    fn what_is_known_is_left_to_cedar() {
        let resource = ResourcePattern::parse("*");
        let unknown = Unknown { resource: Some(&resource), parameters: false, references: false, context: vec![] };
        let same = |text: &str| {
            matches!(unknown.rewrite(&Policy::parse(None, text).unwrap().to_json().unwrap()), Rewritten::Same)
        };
        assert!(same("permit (principal, action, resource) when { context.level == \"Read\" };"));
        assert!(same("permit (principal, action, resource) when { context.parameters.hasTag(\"a\") };"));
        assert!(!same("permit (principal, action, resource == Resource::\"a\");"));
        assert!(!same("permit (principal, action, resource) when { {a: resource.arn}.a == \"b\" };"));
    }
}
