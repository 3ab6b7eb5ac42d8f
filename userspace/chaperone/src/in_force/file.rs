//! The file: written whole or not at all, for root alone; read member by member, so that what another version wrote, or
//! somebody spoiled, costs no more than itself.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use chaperone_identity::{Agent, Agents};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{ContainerRules, InForce, places};
use crate::config::user_id;

/// Far more than rules take.
const MAX_BYTES: u64 = 4 << 20;

pub fn write(place: &Path, now: &InForce) -> io::Result<()> {
    let folder = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    is_ours_alone(&fs::metadata(folder)?)?;
    let text = serde_json::to_string_pretty(now)?;
    if read(place).is_ok_and(|before| before.is_some_and(|before| before == text)) {
        return Ok(());
    }
    let new = place.with_extension("new");
    super::remove(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&new, place)) {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// Nobody else can have put there what is there.
fn is_ours_alone(found: &fs::Metadata) -> io::Result<()> {
    if found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other("it isn't root's alone: `chown root` and `chmod go-w` it"))
}

/// `None` if it isn't there.
fn read(place: &Path) -> io::Result<Option<String>> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(place);
    let file = match opened {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    is_ours_alone(&found)?;
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// The first of these that can be read, and its place. What can't be is said.
pub fn find(places: &[PathBuf], config: &Path) -> Option<(InForce, PathBuf)> {
    let config = places::absolute(config);
    let found = |place: &PathBuf, parse: fn(&str, &Path) -> Option<InForce>| {
        let text = read(place).unwrap_or_else(|error| {
            tracing::error!(place = %place.display(), %error, "what was in force can't be read there");
            None
        });
        Some((parse(&text?, place)?, place.clone()))
    };
    let mut found_now = places.iter().enumerate().filter_map(|(index, place)| {
        // Another daemon's folder may be named by a configuration that is wrong.
        let (in_force, place) = found(place, of_json)?;
        (index == 0 || in_force.config == config).then_some((in_force, place))
    });
    found_now.next().or_else(|| places.iter().find_map(|place| found(&places::former(place), of_former)))
}

/// Whether what is kept there, if anything, is of this configuration's daemon; the place that needs no configuration always
/// is.
pub fn is_of(place: &Path, config: &Path) -> bool {
    let config = places::absolute(config);
    let mine = |text: String| of_json(&text, place).is_some_and(|it| it.config == config);
    places::of(&config, None).iter().any(|own| own == place) || read(place).ok().flatten().is_none_or(mine)
}

fn of_json(text: &str, place: &Path) -> Option<InForce> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| tracing::error!(place = %place.display(), %error, "what was in force is spoiled there"))
        .ok()?;
    let reading = Reading { place };
    Some(InForce {
        version: InForce::VERSION,
        config: reading.one(&value, "config"),
        paths: reading.known(&value["paths"]),
        patterns: reading.all(&value, "patterns"),
        folders: reading.all(&value, "folders"),
        users: reading.all(&value, "users"),
        proxies: reading.all(&value, "proxies"),
        container_rules: value["container_rules"]
            .as_array()
            .into_iter()
            .flatten()
            .map(of_container(&reading))
            .collect(),
        containers: reading.known(&value["containers"]),
        journal: reading.known(&value["journal"]),
        kept_in: reading.all(&value, "kept_in"),
    })
}

fn of_container(reading: &Reading<'_>) -> impl Fn(&Value) -> ContainerRules {
    |agent| ContainerRules {
        name: reading.one(agent, "name"),
        labels: reading.all(agent, "labels"),
        images: reading.all(agent, "images"),
    }
}

/// The whole configuration, as versions before kept it.
fn of_former(text: &str, place: &Path) -> Option<InForce> {
    let table: toml::Table = toml::from_str(text)
        .map_err(|error| tracing::error!(place = %place.display(), %error, "what was in force is spoiled there"))
        .ok()?;
    let value = serde_json::to_value(table).ok()?;
    let reading = Reading { place };
    let mut in_force = InForce {
        paths: reading.known(&value["paths"]),
        containers: reading.known(&value["containers"]),
        journal: reading.known(&value["journal"]),
        kept_in: std::iter::once(place.to_owned()).collect(),
        ..InForce::default()
    };
    for agent in value["agents"].as_array().into_iter().flatten() {
        let name: String = reading.one(agent, "name");
        for rule in rules_of(&reading, agent, &name) {
            match Agents::new(vec![rule], user_id) {
                Ok(alone) => {
                    in_force.patterns.extend(alone.patterns());
                    in_force.folders.extend(alone.folders());
                    in_force.users.extend(alone.users());
                }
                Err(error) => tracing::error!(place = %place.display(), %error, "this rule can't be in force"),
            }
        }
        let of_containers = of_container(&reading)(agent);
        if !(of_containers.labels.is_empty() && of_containers.images.is_empty()) {
            in_force.container_rules.push(of_containers);
        }
    }
    for user in reading.all::<Vec<String>, String>(&value["capture"], "users") {
        match user_id(&user) {
            Ok(id) if id != 0 => drop(in_force.users.insert(id)),
            Ok(_) => {}
            Err(why) => tracing::error!(place = %place.display(), why, "this user can't be bound"),
        }
    }
    Some(in_force)
}

/// An agent for each of the rules, but those for containers.
fn rules_of(reading: &Reading<'_>, agent: &Value, name: &str) -> Vec<Agent> {
    let alone = || Agent { name: name.to_owned(), ..Agent::default() };
    let mut rules = Vec::new();
    for text in reading.all::<Vec<String>, String>(agent, "cgroups") {
        rules.push(Agent { cgroups: vec![text], ..alone() });
    }
    for text in reading.all::<Vec<String>, String>(agent, "slices") {
        rules.push(Agent { slices: vec![text], ..alone() });
    }
    for text in reading.all::<Vec<String>, String>(agent, "units") {
        rules.push(Agent { units: vec![text], ..alone() });
    }
    for text in reading.all::<Vec<String>, String>(agent, "users") {
        rules.push(Agent { users: vec![text], ..alone() });
    }
    if reading.one(agent, "run") {
        rules.push(Agent { run: true, ..alone() });
    }
    rules
}

/// Reads what can be read, and says what can't.
struct Reading<'a> {
    place: &'a Path,
}

impl Reading<'_> {
    fn left_out(&self, what: &str, error: &serde_json::Error) {
        tracing::error!(place = %self.place.display(), what, %error, "of what was in force, this can't be read, and isn't any more");
    }

    fn one<T: DeserializeOwned + Default>(&self, value: &Value, name: &str) -> T {
        let Some(member) = value.get(name) else { return T::default() };
        T::deserialize(member).unwrap_or_else(|error| {
            self.left_out(name, &error);
            T::default()
        })
    }

    fn all<C: FromIterator<T>, T: DeserializeOwned>(&self, value: &Value, name: &str) -> C {
        let members = value[name].as_array().into_iter().flatten();
        members.filter_map(|member| T::deserialize(member).map_err(|error| self.left_out(name, &error)).ok()).collect()
    }

    /// Its members that this version knows, as it knows them; the others, which another version wrote, aren't needed.
    fn known<T: DeserializeOwned + Default>(&self, value: &Value) -> T {
        let Value::Object(members) = value else { return T::default() };
        let is_known = |name: &String, member: &Value| {
            T::deserialize(Value::Object(Map::from_iter([(name.clone(), member.clone())]))).is_ok()
        };
        let known: Map<_, _> = members
            .iter()
            .filter(|(name, member)| is_known(name, member))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        T::deserialize(Value::Object(known)).unwrap_or_else(|error| {
            self.left_out("a section", &error);
            T::default()
        })
    }
}
