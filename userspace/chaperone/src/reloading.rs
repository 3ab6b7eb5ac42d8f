//! What a reload can put in force, and what it can't.

use std::collections::BTreeSet;

use toml::{Table, Value};

/// Sections that are read anew; which cgroups are enrolled is compared by what it means.
const WHOLE: [&str; 4] = ["agents", "approvals", "policy", "roles"];
/// Of other sections, the keys that are.
const KEYS: [(&str, &str); 3] = [("aws", "region"), ("aws", "role"), ("proxy", "inspect")];

/// The keys, such as `commands.mask`, in which two configurations differ and which a running daemon doesn't take. Both were
/// read before; what can't be is another file.
pub fn takes_restart(before: &str, after: &str) -> Vec<String> {
    let table = |text: &str| text.parse::<Table>().unwrap_or_default();
    let (before, after) = (table(before), table(after));
    let sections: BTreeSet<_> =
        before.keys().chain(after.keys()).filter(|name| !WHOLE.contains(&name.as_str())).collect();
    let mut changed = Vec::new();
    for section in sections {
        match (before.get(section), after.get(section)) {
            (before, after) if before == after => {}
            (None | Some(Value::Table(_)), None | Some(Value::Table(_))) => {
                let of = |table: &Table| table.get(section).and_then(Value::as_table).cloned().unwrap_or_default();
                let (before, after) = (of(&before), of(&after));
                let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
                let differs = |key: &&&String| before.get(**key) != after.get(**key);
                let keys = keys.iter().filter(differs).filter(|key| !KEYS.contains(&(section.as_str(), key.as_str())));
                changed.extend(keys.map(|key| format!("{section}.{key}")));
            }
            _ => changed.push(section.clone()),
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_does_not_put_in_force_is_named() {
        let before = "[capture]\nusers = [\"a\"]\n[limits]\nspool_bytes = 1\n[aws]\nregion = \"a\"\naccount = \"1\"";
        let of = |after: &str| takes_restart(before, after);
        assert_eq!(of(before), Vec::<String>::new());
        assert_eq!(
            of(&format!("{before}\nrole = \"b\"\n[policy]\npath = \"/x\"\n[[agents]]\nname = \"x\"")),
            Vec::<String>::new()
        );
        assert_eq!(of(&before.replace("\"a\"\naccount", "\"b\"\naccount")), Vec::<String>::new());
        assert_eq!(of(&before.replace("[\"a\"]", "[]")), ["capture.users"]);
        assert_eq!(of(&format!("{before}\n[commands]\nmask = [\"x\"]")), ["commands.mask"]);
        assert_eq!(of("[aws]\naccount = \"2\""), ["aws.account", "capture.users", "limits.spool_bytes"]);
    }
}
