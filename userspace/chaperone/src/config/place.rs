//! Where in the file something is.

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The line of a section, or of a key in one, such as `capture.users`; of several with one name, the first.
pub(super) fn line(text: &str, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let (mut table, mut at) = (table.into_inner(), None);
    for part in key.split('.') {
        let (name, value) = table.into_iter().find(|(name, _)| name.get_ref() == part)?;
        at = Some(name.span().start);
        table = match value.into_inner() {
            DeValue::Table(inner) => inner,
            DeValue::Array(items) => match items.into_iter().next().map(Spanned::into_inner) {
                Some(DeValue::Table(inner)) => inner,
                _ => DeTable::new(),
            },
            _ => DeTable::new(),
        };
    }
    text.get(..at?).map(|before| before.matches('\n').count() + 1)
}

/// The first line that sets `key`.
pub(super) fn line_of(text: &str, key: &str) -> usize {
    if let Some(line) = line(text, key) {
        return line;
    }
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', ']']))
    };
    text.lines().position(sets).map_or(1, |index| index + 1)
}

/// The line of an agent's rule, or of its name.
pub(super) fn line_of_rule(text: &str, agent: &str, rule: Option<(&str, &str)>) -> usize {
    #[derive(Deserialize)]
    struct Places {
        agents: Vec<AgentPlaces>,
    }
    #[derive(Deserialize)]
    struct AgentPlaces {
        name: Spanned<String>,
        #[serde(default)]
        cgroups: Vec<Spanned<String>>,
        #[serde(default)]
        slices: Vec<Spanned<String>>,
        #[serde(default)]
        units: Vec<Spanned<String>>,
        #[serde(default)]
        users: Vec<Spanned<String>>,
        #[serde(default)]
        labels: Vec<Spanned<String>>,
        #[serde(default)]
        images: Vec<Spanned<String>>,
        run: Option<Spanned<bool>>,
    }
    // Of two with one name, the second is wrong.
    let places = toml::from_str::<Places>(text).ok();
    let Some(place) =
        places.and_then(|places| places.agents.into_iter().rev().find(|place| place.name.get_ref() == agent))
    else {
        return line_of(text, "agents");
    };
    let texts = match rule.map(|(key, _)| key) {
        Some("cgroups") => &place.cgroups[..],
        Some("slices") => &place.slices,
        Some("units") => &place.units,
        Some("users") => &place.users,
        Some("labels") => &place.labels,
        Some("images") => &place.images,
        _ => &[],
    };
    let found = texts.iter().rev().find(|text| rule.is_some_and(|(_, rule)| text.get_ref() == rule));
    let run = place.run.filter(|_| rule.is_some_and(|(key, _)| key == "run"));
    let at = found.map(Spanned::span).or(run.map(|run| run.span())).unwrap_or_else(|| place.name.span()).start;
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_key_is_found_in_its_own_section() {
        let text = "[paths]\nstate = \"/x\"\n[metrics]\n# users = 1\nlisten = \"127.0.0.1:1\"\n[capture]\nusers = [\n  \"a\"]\n[[roles]]\nagents = []\n";
        for (key, expected) in [
            ("capture.users", Some(7)),
            ("metrics.listen", Some(5)),
            ("paths", Some(1)),
            ("roles.agents", Some(10)),
            ("capture.listen", None),
            ("paths.users", None),
        ] {
            assert_eq!(line(text, key), expected, "{key}");
        }
        // Keys may be quoted, dotted and inline.
        assert_eq!(line("a = 1\n\"capture\" . users = []\n", "capture.users"), Some(2));
        assert_eq!(line("x = 1\ncapture = { lsm = \"required\", users = [] }\n", "capture.users"), Some(2));
    }
}
