//! All keys of the configuration, from the types that read them: what each is for, its default, and whether a reload
//! applies it.

use std::fmt::Write as _;

use chaperone_identity::Agent;
use chaperone_model::Field;
use chaperone_proxy::Limits;
use serde::Serialize;
use toml::{Table, Value};

use super::{
    Aws, CaptureSection, CommandsSection, ContainersSection, IdentitySection, Journal, Metrics, Paths, Policy, Proxy,
    Upstream, WarehouseSection,
};
use crate::{approvals::ApprovalsSection, budgets::BudgetSection, masking::MaskingSection, roles::RoleSection};

/// When a changed value is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Applies {
    /// From the next `chaperone reload` on.
    Reload,
    /// From the daemon's next start on. A reload that finds it changed is refused, and names it.
    Restart,
}

/// A section of the file.
#[derive(Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Whether there may be several: `[[name]]`.
    pub is_list: bool,
    /// What it is for.
    pub documentation: &'static str,
    /// Its keys.
    pub fields: &'static [Field],
    /// Those of them that a reload applies.
    reloaded: Reloaded,
    /// What its keys are if nobody says otherwise.
    defaults: fn() -> Table,
}

#[derive(Debug)]
enum Reloaded {
    All,
    But(&'static [&'static str]),
    Only(&'static [&'static str]),
}

/// All sections.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "agents",
        is_list: true,
        documentation: "Which processes are agents'. At least one is needed, with a rule.",
        fields: Agent::FIELDS,
        reloaded: Reloaded::Only(&["groups", "identity", "token_file"]),
        defaults: || table(&Agent::default()),
    },
    Section {
        name: "approvals",
        is_list: false,
        documentation: "Who approves calls, and how long they have.",
        fields: ApprovalsSection::FIELDS,
        reloaded: Reloaded::But(&["api", "slack", "webhooks"]),
        defaults: || table(&ApprovalsSection::default()),
    },
    Section {
        name: "aws",
        is_list: false,
        documentation: "What agents are told of AWS, and what the daemon is.",
        fields: Aws::FIELDS,
        reloaded: Reloaded::But(&["account"]),
        defaults: || table(&Aws::default()),
    },
    Section {
        name: "budgets",
        is_list: true,
        documentation: "How much agents may do.",
        fields: BudgetSection::FIELDS,
        reloaded: Reloaded::All,
        defaults: || {
            "agents = []\nper = \"agent\"\nactions = []\nwindow = 0\nover = \"deny\""
                .parse::<Table>()
                .expect("BUG: a table")
        },
    },
    Section {
        name: "capture",
        is_list: false,
        documentation: "The kernel hooks.",
        fields: CaptureSection::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || table(&CaptureSection::default()),
    },
    Section {
        name: "commands",
        is_list: false,
        documentation: "What agents execute.",
        fields: CommandsSection::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || table(&CommandsSection::default()),
    },
    Section {
        name: "containers",
        is_list: false,
        documentation: "Where containers are described.",
        fields: ContainersSection::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || table(&ContainersSection::default()),
    },
    Section {
        name: "identity",
        is_list: false,
        documentation: "Whose tokens say who agents are (docs/identities.md).",
        fields: IdentitySection::FIELDS,
        reloaded: Reloaded::All,
        defaults: || table(&IdentitySection::default()),
    },
    Section {
        name: "journal",
        is_list: false,
        documentation: "The record.",
        fields: Journal::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || table(&Journal::default()),
    },
    Section {
        name: "limits",
        is_list: false,
        documentation: "Bounds on time, in seconds, and on memory.",
        fields: Limits::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || table(&Limits::default()),
    },
    Section {
        name: "masking",
        is_list: false,
        documentation: "Secrets in answers, which agents don't get (docs/masking.md).",
        fields: MaskingSection::FIELDS,
        reloaded: Reloaded::All,
        defaults: || table(&MaskingSection::default()),
    },
    Section {
        name: "metrics",
        is_list: false,
        documentation: "Prometheus.",
        fields: Metrics::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || table(&Metrics::default()),
    },
    Section {
        name: "paths",
        is_list: false,
        documentation: "Folders and sockets.",
        fields: Paths::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || table(&Paths::default()),
    },
    Section {
        name: "policy",
        is_list: false,
        documentation: "The policies.",
        fields: Policy::FIELDS,
        reloaded: Reloaded::All,
        defaults: || table(&Policy::default()),
    },
    Section {
        name: "proxy",
        is_list: false,
        documentation: "The data path.",
        fields: Proxy::FIELDS,
        reloaded: Reloaded::Only(&["inspect"]),
        defaults: || table(&Proxy::default()),
    },
    Section {
        name: "roles",
        is_list: true,
        documentation: "Whose authority agents' calls are made by. The first that is for an agent holds; without one, the \
                        daemon's own credentials sign.",
        fields: RoleSection::FIELDS,
        reloaded: Reloaded::All,
        defaults: || {
            "agents = []"
                .parse::<Table>()
                .ok()
                .and_then(|it| it.try_into::<RoleSection>().ok())
                .map_or_else(Table::new, |role| table(&role))
        },
    },
    Section {
        name: "upstream",
        is_list: false,
        documentation: "The way to AWS.",
        fields: Upstream::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || table(&Upstream::default()),
    },
    Section {
        name: "warehouse",
        is_list: false,
        documentation: "ClickHouse. Without this section the journal alone is asked.",
        fields: WarehouseSection::FIELDS,
        reloaded: Reloaded::Only(&[]),
        defaults: || {
            "url = ''"
                .parse::<Table>()
                .ok()
                .and_then(|it| it.try_into::<WarehouseSection>().ok())
                .map_or_else(Table::new, |it| table(&it))
        },
    },
];

impl Section {
    /// When a change of this key is in force.
    pub fn applies(&self, key: &str) -> Applies {
        let reloaded = match &self.reloaded {
            Reloaded::All => true,
            Reloaded::But(keys) => !keys.contains(&key),
            Reloaded::Only(keys) => keys.contains(&key),
        };
        if reloaded { Applies::Reload } else { Applies::Restart }
    }

    /// Its keys' defaults; those that have none are missing.
    pub fn defaults(&self) -> Table {
        (self.defaults)()
    }
}

/// A value's keys as TOML.
pub fn table(value: &impl Serialize) -> Table {
    Table::try_from(value).unwrap_or_default()
}

/// A whole configuration with every key, commented out with its default.
pub fn default_file() -> String {
    let mut out = String::from(
        "# Every key of Chaperone's configuration, with its default. Keys without one say an example or nothing.\n\
         # Sizes are in bytes and times in seconds, unless a key says otherwise.\n",
    );
    for section in SECTIONS {
        let (open, close) = if section.is_list { ("[[", "]]") } else { ("[", "]") };
        // Needed, so that what is printed can be used once a rule is added.
        let off = if section.is_list || section.name == "warehouse" { "# " } else { "" };
        write(&mut out, format_args!("\n# {}\n{off}{open}{}{close}\n", section.documentation, section.name));
        let defaults = section.defaults();
        for field in section.fields {
            let applies = match section.applies(field.name) {
                Applies::Reload => "",
                Applies::Restart => " Takes a restart.",
            };
            for line in wrapped(&format!("{}{applies}", field.documentation()), 110) {
                write(&mut out, format_args!("# {line}\n"));
            }
            match defaults.get(field.name) {
                Some(value) => write(&mut out, format_args!("# {} = {value}\n", field.name)),
                None => write(&mut out, format_args!("# {} =\n", field.name)),
            }
        }
    }
    out
}

/// The same for programs: by section and key, what each is.
pub fn default_json() -> serde_json::Value {
    let of = |section: &Section| {
        let defaults = section.defaults();
        let keys = section.fields.iter().map(|field| {
            let about = serde_json::json!({
                "default": defaults.get(field.name),
                "applies": section.applies(field.name),
                "documentation": field.documentation(),
            });
            (field.name.to_owned(), about)
        });
        serde_json::Value::Object(keys.collect())
    };
    serde_json::Value::Object(SECTIONS.iter().map(|section| (section.name.to_owned(), of(section))).collect())
}

/// The reference in `docs/configuration.md`.
#[cfg(test)]
fn reference() -> String {
    let mut out = String::from(
        "# Configuration\n\nOne file, `/etc/chaperone/config.toml` unless `--config` or `CHAPERONE_CONFIG` names another. \
         `chaperone config check` tells what is wrong with\nit, `chaperone config show` what is in force by it, and \
         `chaperone config default` prints every key with its default. Sizes are in bytes\nand times in seconds, unless a key \
         says otherwise. A reload (`chaperone reload`) that finds a key changed which takes a restart puts nothing\nin force, \
         and names the key.\n\nThis page is made from the types that read the file; a test holds it to them.\n",
    );
    for section in SECTIONS {
        let (open, close) = if section.is_list { ("[[", "]]") } else { ("[", "]") };
        write(&mut out, format_args!("\n## `{open}{}{close}`\n\n{}\n\n", section.name, section.documentation));
        out.push_str("| key | default | applied by | what |\n|---|---|---|---|\n");
        let defaults = section.defaults();
        for field in section.fields {
            let default = defaults.get(field.name).map_or_else(String::new, |value| format!("`{value}`"));
            let applies = match section.applies(field.name) {
                Applies::Reload => "reload",
                Applies::Restart => "restart",
            };
            let what = field.documentation().replace('|', "\\|");
            write(&mut out, format_args!("| `{}` | {default} | {applies} | {what} |\n", field.name));
        }
        for (name, fields) in NESTED.iter().filter(|(name, _)| name.trim_matches(['[', ']']).starts_with(section.name))
        {
            write(&mut out, format_args!("\n### `{name}`\n\n| key | what |\n|---|---|\n"));
            for field in *fields {
                let what = field.documentation().replace('|', "\\|");
                write(&mut out, format_args!("| `{}` | {what} |\n", field.name));
            }
        }
    }
    out
}

/// Tables in sections.
#[cfg(test)]
const NESTED: &[(&str, &[Field])] = &[
    ("[approvals.api]", chaperone_approvals::ApiSection::FIELDS),
    ("[approvals.api.sign_in]", chaperone_oidc::SignIn::FIELDS),
    ("[approvals.slack]", chaperone_approvals::SlackSection::FIELDS),
    ("[[approvals.webhooks]]", chaperone_approvals::WebhookSection::FIELDS),
    ("[[identity.issuers]]", chaperone_oidc::Issuer::FIELDS),
];

fn write(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = out.write_fmt(text);
}

/// In lines of at most so many characters, where words allow it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The keys, such as `commands.mask`, in which two configurations differ and which a running daemon doesn't take. Both were
/// read before; what can't be is another file.
pub fn takes_restart(before: &str, after: &str) -> Vec<String> {
    let table = |text: &str| text.parse::<Table>().unwrap_or_default();
    let (before, after) = (table(before), table(after));
    let mut changed = Vec::new();
    for section in SECTIONS {
        let (before, after) = (before.get(section.name), after.get(section.name));
        // Which cgroups are enrolled is compared by what it means.
        if before == after || section.name == "agents" {
            continue;
        }
        if section.is_list {
            let restarts = section.fields.iter().any(|field| section.applies(field.name) == Applies::Restart);
            changed.extend(restarts.then(|| section.name.to_owned()));
            continue;
        }
        // What is said to be the default is no change.
        let defaults = section.defaults();
        let of = |table: Option<&Value>, key: &str| {
            table.and_then(Value::as_table).and_then(|table| table.get(key)).or_else(|| defaults.get(key)).cloned()
        };
        let differs = |key: &str| of(before, key) != of(after, key);
        let names = section.fields.iter().map(|field| field.name);
        let keys = names.filter(|key| differs(key) && section.applies(key) == Applies::Restart);
        changed.extend(keys.map(|key| format!("{}.{key}", section.name)));
        if section.name == "warehouse"
            && before.is_some() != after.is_some()
            && changed.iter().all(|it| !it.starts_with("warehouse"))
        {
            changed.push("warehouse".to_owned());
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_key_is_documented_and_every_rule_for_reloads_names_one() {
        for section in SECTIONS {
            for field in section.fields {
                assert!(!field.documentation().is_empty(), "{}.{}", section.name, field.name);
            }
            let (Reloaded::But(keys) | Reloaded::Only(keys)) = section.reloaded else { continue };
            for key in keys {
                assert!(section.fields.iter().any(|field| field.name == *key), "{}.{key}", section.name);
            }
            for key in section.defaults().keys() {
                assert!(section.fields.iter().any(|field| field.name == key), "{}.{key}", section.name);
            }
        }
        // The file's own members are these sections.
        let config: super::super::Config =
            toml::from_str("[[agents]]\nname = \"a\"\nrun = true\n[warehouse]\nurl = \"http://x\"").unwrap();
        let mut members: Vec<_> = table(&config).keys().cloned().collect();
        members.sort();
        assert_eq!(members, SECTIONS.iter().map(|section| section.name).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_printed_as_the_default_is_read_as_the_default() {
        let text = default_file();
        let on: Vec<_> =
            text.lines()
                .map(|line| match line.strip_prefix("# ") {
                    // Keys and sections, not what is said of them.
                    Some(key) if key.starts_with('[') => key,
                    Some(key) if key.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')) => key,
                    _ => line,
                })
                // What has no default is needed.
                .map(|line| {
                    if line == "[[budgets]]" { "[[budgets]]\nname = \"b\"\ncount = \"calls\"\nlimit = 1" } else { line }
                })
                .map(|line| if line == "name = \"\"" { "name = \"x\"\nrun = true" } else { line })
                .filter(|line| *line != "run = false")
                .collect();
        let config: super::super::Config = toml::from_str(&on.join("\n")).unwrap_or_else(|error| panic!("{error}"));
        for section in SECTIONS.iter().filter(|section| !section.is_list) {
            assert_eq!(table(&config)[section.name].as_table(), Some(&section.defaults()), "{}", section.name);
        }
        assert!(default_json()["limits"]["head_timeout"]["default"] == 75);
    }

    #[test]
    fn the_reference_is_what_the_types_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        if std::env::var_os("CHAPERONE_WRITE_DOCS").is_some() {
            fs::write(&path, reference()).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == reference(),
            "docs/configuration.md isn't what the types say: run this test with CHAPERONE_WRITE_DOCS=1, and look at the change"
        );
    }

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
        // To say what is so anyhow changes nothing.
        assert_eq!(
            of(&format!("{before}\n[paths]\nstate = \"/var/lib/chaperone\"\n[proxy]\nthreads = 0")),
            Vec::<String>::new()
        );
        assert_eq!(of(&format!("{before}\n[warehouse]\nurl = \"http://x\"")), ["warehouse.url"]);
        assert_eq!(of(&format!("{before}\n[proxy]\nthreads = 2\ninspect = [\"a.example\"]")), ["proxy.threads"]);
    }
}
