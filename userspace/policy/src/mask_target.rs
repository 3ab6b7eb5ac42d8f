//! What an annotation `@mask("…")` says.

use cedar_policy::{Effect, Policy};

/// Masks of one policy are no more than this many.
const MAX_TARGETS: usize = 64;

/// What is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaskTarget {
    /// What the credential detectors find.
    Credentials,
    /// What this detector finds; `custom:NAME` is one of the configuration's own.
    Detector(String),
    /// A member by its path.
    Path(String),
    /// All that AWS's models mark as sensitive.
    Sensitive,
}

/// What an annotation's text says: `None` for `none`.
pub fn parse(text: &str) -> Result<Option<Vec<MaskTarget>>, String> {
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    if names == ["none"] {
        return Ok(None);
    }
    if names.len() > MAX_TARGETS {
        return Err(format!("more than {MAX_TARGETS} masks"));
    }
    let one = |name: &&str| match *name {
        "" => Err("a mask without a name".to_owned()),
        "none" => Err("`none` stands by itself".to_owned()),
        "sensitive" => Ok(MaskTarget::Sensitive),
        "credentials" => Ok(MaskTarget::Credentials),
        name if name.starts_with("custom:") => Ok(MaskTarget::Detector(name.to_owned())),
        name if chaperone_masking::DETECTORS.iter().any(|it| it.name == name) => {
            Ok(MaskTarget::Detector(name.to_owned()))
        }
        path => {
            let mut builder = chaperone_masking::SelectorBuilder::default();
            let text = chaperone_masking::Kind::Text;
            builder.path(path, "", text, false).map_err(|error| error.to_string())?;
            Ok(MaskTarget::Path(path.to_owned()))
        }
    };
    names.iter().map(one).collect::<Result<Vec<_>, _>>().map(Some)
}

/// A mask as Cedar evaluates it. As a `forbid`, since those hold where something isn't known or fails.
pub(crate) fn as_forbid(policy: &Policy) -> Result<Policy, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    json["effect"] = "forbid".into();
    Policy::from_json(Some(policy.id().clone()), json).map_err(|error| error.to_string())
}

/// What is wrong with the effect of a policy with `@mask`.
pub(crate) fn check(policy: &Policy) -> Result<(), String> {
    if policy.effect() == Effect::Permit { Ok(()) } else { Err("it is a `forbid`".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_annotation_says() {
        assert_eq!(parse("none"), Ok(None));
        let all = parse("sensitive, github ,Items[].Secret,custom:own, credentials").unwrap().unwrap();
        let expected = [
            MaskTarget::Sensitive,
            MaskTarget::Detector("github".into()),
            MaskTarget::Path("Items[].Secret".into()),
            MaskTarget::Detector("custom:own".into()),
            MaskTarget::Credentials,
        ];
        assert_eq!(all, expected);
        for bad in ["", "a,,b", "none, a", "a[", "a..b", "[x]", &"a,".repeat(100)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
