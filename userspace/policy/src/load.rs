//! Reading policy files, checking them against the schema, naming what is wrong and where.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::{self, Write as _},
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use aws_lc_rs::digest::{Context as Sha, SHA256};
use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use chaperone_model::AccessLevel;
use jiff::tz::TimeZone;
use miette::Diagnostic;
use parking_lot::RwLock;

use crate::{
    action_catalog::ActionCatalog,
    annotations, approvals, egress_actions,
    inputs::Decisions,
    mask_target::{self, MaskTarget},
    places::{Named, Places, line_and_column},
    problem::{PolicyError, PolicyProblem},
    slice::{Reads, Slices},
    suggest::nearest,
    unmask::{self, UnmaskTarget},
};

/// The part of the schema that isn't derived from the catalog.
const SCHEMA: &str = include_str!("schema.cedarschema");
const LEVELS: [AccessLevel; 5] = [
    AccessLevel::List,
    AccessLevel::Read,
    AccessLevel::Tagging,
    AccessLevel::Write,
    AccessLevel::PermissionsManagement,
];
/// The methods of inspected names, which are actions: `http:GET`.
const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
/// How many unknown actions of a file are compared with all that there are.
const MAX_SUGGESTIONS: usize = 20;
/// A policy file larger than this is refused.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// A policy set that has been checked, and the slices of it that have been needed so far.
pub struct PolicyVersion {
    pub(crate) policies: Vec<Policy>,
    pub(crate) slices: RwLock<Slices>,
    pub(crate) decisions: Arc<Decisions>,
    /// The paths of parameters that policies look for.
    pub(crate) parameter_paths: Arc<BTreeSet<String>>,
    annotations: HashMap<String, Arc<BTreeMap<String, String>>>,
    /// Policies with `@mask`, as a set of their own; those that lift what is masked by default; and what each masks.
    pub(crate) masks: Option<Box<PolicyVersion>>,
    pub(crate) lifts: Option<Box<PolicyVersion>>,
    pub(crate) mask_targets: HashMap<String, Arc<Vec<MaskTarget>>>,
    /// Those of them with `@unmask_into`, as permits, and where each lets values go.
    pub(crate) unmasks: Option<Box<PolicyVersion>>,
    pub(crate) unmask_targets: HashMap<String, Arc<Vec<UnmaskTarget>>>,
    /// The zone of `context.hour` and its like.
    pub(crate) time_zone: TimeZone,
    /// SHA-256 over the files' names and contents, in hexadecimal.
    pub digest: String,
    /// Notes that don't stop it from being put in force.
    pub warnings: Vec<PolicyProblem>,
    /// The files and their texts.
    files: Vec<(PathBuf, String)>,
}

impl fmt::Debug for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyVersion({}, {} policies)", self.digest, self.policies.len())
    }
}

impl PolicyVersion {
    /// Reads a `.cedar` file, or all of a folder in the order of their names.
    pub fn read(path: &Path, catalog: &dyn ActionCatalog) -> Result<Self, PolicyError> {
        let mut files = Vec::new();
        for file in files_of(path)? {
            let io = |source| PolicyError::Io { path: file.clone(), source };
            if fs::metadata(&file).map_err(io)?.len() > MAX_FILE_BYTES {
                return Err(io(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes"))));
            }
            files.push((file.clone(), fs::read_to_string(&file).map_err(io)?));
        }
        match Self::parse(&files, catalog) {
            Ok(version) if version.policies.is_empty() => Err(PolicyError::Empty(path.to_owned())),
            other => other,
        }
    }

    /// With the clock of a zone.
    #[must_use]
    pub fn in_zone(self, time_zone: TimeZone) -> Self {
        Self { time_zone, ..self }
    }

    /// The groups that policies ask for approval, each with the policy's id.
    pub fn approver_groups(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.policies.iter().flat_map(|policy| {
            let groups = policy.annotation("approvers").unwrap_or_default();
            approvals::groups_of(groups).map(|group| (policy.id().to_string(), group.to_owned()))
        })
    }

    /// Checks these files' contents.
    pub fn parse(files: &[(PathBuf, String)], catalog: &dyn ActionCatalog) -> Result<Self, PolicyError> {
        let mut problems = Vec::new();
        let mut policies: Vec<Policy> = Vec::new();
        let mut sources: BTreeMap<String, usize> = BTreeMap::new();
        let (mut mentioned, known) = (BTreeSet::new(), OnceCell::new());
        let mut sha = Sha::new(&SHA256);
        for (index, (file, text)) in files.iter().enumerate() {
            sha.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            sha.update(&[0]);
            sha.update(text.as_bytes());
            sha.update(&[0]);
            let places = Places::of(text);
            problems.extend(unknown_actions(file, text, &places, catalog, &mut mentioned, &known));
            match PolicySet::from_str(text) {
                Ok(set) if set.templates().next().is_some() => problems.push(PolicyProblem {
                    file: file.clone(),
                    line: 1,
                    column: 1,
                    message: "templates (?principal, ?resource) are not supported".into(),
                    help: Some("write the principal and the resource out".into()),
                }),
                Ok(set) => {
                    name_policies(
                        file,
                        index,
                        text,
                        &places,
                        &set,
                        catalog,
                        &mut policies,
                        &mut sources,
                        &mut problems,
                    );
                }
                Err(errors) => {
                    problems.extend(errors.iter().map(|error| problem(file, text, error, &error.to_string())));
                }
            }
        }
        if !problems.is_empty() {
            return Err(PolicyError::Invalid(problems));
        }
        let whole = PolicySet::from_policies(policies.iter().cloned())
            .map_err(|error| PolicyError::Bug(format!("policies that parsed don't make a set: {error}")))?;
        let checked = Validator::new(schema(&mentioned, catalog)?).validate(&whole, ValidationMode::Strict);
        let place = |id: &PolicyId| &files[sources.get::<str>(id.as_ref()).copied().unwrap_or(0)];
        let mut problems: Vec<PolicyProblem> = checked
            .validation_errors()
            .map(|error| {
                let (file, text) = place(error.policy_id());
                problem(file, text, error, &error.to_string())
            })
            .collect();
        // Cedar says the same for each action that the policy may be about.
        let mut seen = BTreeSet::new();
        problems.retain(|one| seen.insert((one.file.clone(), one.line, one.column, one.help.clone())));
        if !problems.is_empty() {
            return Err(PolicyError::Invalid(problems));
        }
        let warnings: Vec<PolicyProblem> = checked
            .validation_warnings()
            .map(|warning| {
                let (file, text) = place(warning.policy_id());
                problem(file, text, warning, &warning.to_string())
            })
            .collect();
        let digest = hex::encode(sha.finish());
        let warnings = [warnings, may_come_back(&policies, place)].concat();
        let annotations = policies.iter().map(|policy| {
            let all = policy.annotations().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            (policy.id().to_string(), Arc::new(all))
        });
        let annotations = annotations.collect();
        let parameter_paths = Arc::new(Reads::of(&policies).into_parameters());
        let (masking, policies): (Vec<_>, Vec<_>) =
            policies.into_iter().partition(|policy| policy.annotation("mask").is_some());
        let (mut mask_targets, mut masks, mut lifts) = (HashMap::new(), Vec::new(), Vec::new());
        let (mut unmask_targets, mut unmasks) = (HashMap::new(), Vec::new());
        for policy in masking {
            if let Some(into) = policy.annotation("unmask_into") {
                let targets = unmask::parse(into, catalog).map_err(PolicyError::Bug)?;
                unmask_targets.insert(policy.id().to_string(), Arc::new(targets));
                unmasks.push(policy.clone());
            }
            match mask_target::parse(policy.annotation("mask").unwrap_or_default()).map_err(PolicyError::Bug)? {
                None => lifts.push(policy),
                Some(targets) => {
                    mask_targets.insert(policy.id().to_string(), Arc::new(targets));
                    masks.push(mask_target::as_forbid(&policy).map_err(PolicyError::Bug)?);
                }
            }
        }
        let set = |policies: Vec<Policy>| (!policies.is_empty()).then(|| Box::new(Self::of_masks(policies)));
        let (masks, lifts, unmasks) = (set(masks), set(lifts), set(unmasks));
        let (slices, time_zone) = (RwLock::default(), TimeZone::UTC);
        Ok(Self {
            decisions: Arc::default(),
            policies,
            slices,
            parameter_paths,
            annotations,
            masks,
            lifts,
            mask_targets,
            unmasks,
            unmask_targets,
            time_zone,
            digest,
            warnings,
            files: files.to_vec(),
        })
    }

    /// A set of policies that are only asked what they mask.
    fn of_masks(policies: Vec<Policy>) -> Self {
        Self {
            policies,
            slices: RwLock::default(),
            decisions: Arc::default(),
            parameter_paths: Arc::default(),
            annotations: HashMap::new(),
            masks: None,
            lifts: None,
            mask_targets: HashMap::new(),
            unmasks: None,
            unmask_targets: HashMap::new(),
            time_zone: TimeZone::UTC,
            digest: String::new(),
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The ids of all policies, those that mask included.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.annotations.keys().map(String::as_str)
    }

    /// Warnings about agents and groups that policies name, and that are written almost like known ones. Others may be a
    /// token's.
    pub fn misspelt(&self, agents: &[String], groups: &[String]) -> Vec<PolicyProblem> {
        let mut warnings = Vec::new();
        for (file, text) in &self.files {
            for Named { name, text: id, at } in Places::of(text).entities {
                let known = match name.as_str() {
                    "Agent" => agents,
                    "Group" => groups,
                    _ => continue,
                };
                if known.contains(&id) {
                    continue;
                }
                if let Some(meant) = nearest(&id, known.iter().map(String::as_str)) {
                    let (line, column) = line_and_column(text, at);
                    let message =
                        format!("no {} `{id}` in the configuration; did you mean `{meant}`?", name.to_lowercase());
                    warnings.push(PolicyProblem { file: file.clone(), line, column, message, help: None });
                }
            }
        }
        warnings
    }

    /// The annotations of a policy, by name.
    pub(crate) fn annotations(&self, id: &str) -> Arc<BTreeMap<String, String>> {
        self.annotations.get(id).cloned().unwrap_or_default()
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

/// The whole schema: what is checked in, and every action of the catalog.
pub fn schema_text(catalog: &dyn ActionCatalog) -> String {
    let mut text = SCHEMA.to_owned();
    let actions = catalog.actions();
    let prefixes: BTreeSet<&str> = actions.iter().filter_map(|(name, _)| Some(name.split_once(':')?.0)).collect();
    for prefix in prefixes {
        let _ = writeln!(text, "action \"{prefix}:*\";");
    }
    for (name, level) in &actions {
        text.push_str(&action_text(name, *level));
    }
    text
}

fn action_text(name: &str, level: AccessLevel) -> String {
    let prefix = name.split_once(':').map_or("", |(prefix, _)| prefix);
    let level = level.as_str();
    format!(
        "action \"{name}\" in [Action::\"{level}\", Action::\"{prefix}:*\"] \
         appliesTo {{ principal: [Agent], resource: [Resource], context: Context }};\n"
    )
}

/// A schema with the mentioned actions alone, and one stand-in for each group. Cedar's validator checks each policy
/// once for each action that it can apply to: with all 22,000 that takes seconds, and as every action has the same
/// principal, resource and context it would find nothing more.
fn schema(mentioned: &BTreeSet<String>, catalog: &dyn ActionCatalog) -> Result<Schema, PolicyError> {
    let mut text = SCHEMA.to_owned();
    let mut actions = BTreeMap::new();
    let mut prefixes = BTreeSet::from(["chaperone".to_owned()]);
    for level in LEVELS {
        actions.insert(format!("chaperone:{}", level.as_str()), level);
    }
    for name in mentioned {
        let Some((prefix, action)) = name.split_once(':') else { continue };
        if prefix == egress_actions::PREFIX {
            continue; // in what is checked in
        }
        prefixes.insert(prefix.to_owned());
        if action == "*" {
            actions.insert(format!("{prefix}:any"), AccessLevel::Read);
        } else if let Some(level) = known_level(name, catalog) {
            actions.insert(name.clone(), level);
        }
    }
    for prefix in prefixes {
        let _ = writeln!(text, "action \"{prefix}:*\";");
    }
    for (name, level) in actions {
        text.push_str(&action_text(&name, level));
    }
    let (schema, _) = Schema::from_cedarschema_str(&text)
        .map_err(|error| PolicyError::Bug(format!("the schema doesn't parse: {error}")))?;
    Ok(schema)
}

/// The access level of an action. `http:` actions are the methods of inspected names; the rest is the catalog's.
pub fn known_level(name: &str, catalog: &dyn ActionCatalog) -> Option<AccessLevel> {
    match name.strip_prefix("http:") {
        Some("GET" | "HEAD" | "OPTIONS") => Some(AccessLevel::Read),
        Some("POST" | "PUT" | "PATCH" | "DELETE") => Some(AccessLevel::Write),
        Some(_) => None,
        None => catalog.level(name),
    }
}

/// Every `Action::"…"` in the text must name an action, a service's group or an access level.
fn unknown_actions(
    file: &Path,
    text: &str,
    places: &Places,
    catalog: &dyn ActionCatalog,
    mentioned: &mut BTreeSet<String>,
    known: &OnceCell<Vec<String>>,
) -> Vec<PolicyProblem> {
    let mut problems = Vec::new();
    for Named { text: name, at, .. } in places.entities.iter().filter(|it| it.name == "Action") {
        if is_known_action(name, catalog) {
            mentioned.insert(name.clone());
            continue;
        }
        let suggestion = (problems.len() < MAX_SUGGESTIONS).then(|| suggest_action(name, catalog, known)).flatten();
        let (line, column) = line_and_column(text, *at);
        let (message, help) = match suggestion {
            Some(meant) => (format!("no action {name}; did you mean {meant}?"), None),
            None => (
                format!("no action {name}"),
                Some(
                    "actions are IAM's, such as s3:GetObject, a service's `s3:*`, or Read, List, Tagging, Write, \
                     PermissionsManagement; http:GET, egress:TLS and their like: `chaperone policy schema` lists them"
                        .into(),
                ),
            ),
        };
        problems.push(PolicyProblem { file: file.to_owned(), line, column, message, help });
    }
    problems
}

/// Whether it is an action, a service's group such as `s3:*`, or an access level.
fn is_known_action(name: &str, catalog: &dyn ActionCatalog) -> bool {
    match name.split_once(':') {
        None => LEVELS.iter().any(|level| level.as_str() == name),
        Some((prefix, "*")) => ["http", egress_actions::PREFIX].contains(&prefix) || catalog.has_prefix(prefix),
        Some((egress_actions::PREFIX, kind)) => egress_actions::KINDS.contains(&kind),
        Some(_) => known_level(name, catalog).is_some(),
    }
}

/// What was meant by the name of an action that there isn't. `known` keeps all names between calls.
pub fn suggest_action(name: &str, catalog: &dyn ActionCatalog, known: &OnceCell<Vec<String>>) -> Option<String> {
    if let Some(meant) = catalog.meant(name) {
        return Some(meant);
    }
    let known = known.get_or_init(|| {
        let mut all: BTreeSet<String> = LEVELS.iter().map(|level| level.as_str().to_owned()).collect();
        for (name, _) in catalog.actions() {
            if let Some((prefix, _)) = name.split_once(':') {
                all.insert(format!("{prefix}:*"));
            }
            all.insert(name);
        }
        all.extend(METHODS.iter().map(|method| format!("http:{method}")));
        all.extend(egress_actions::KINDS.iter().map(|kind| format!("{}:{kind}", egress_actions::PREFIX)));
        all.into_iter().collect()
    });
    nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
}

/// Warnings about members that values may go into, and that AWS may give back to whoever asks.
fn may_come_back<'f>(policies: &[Policy], file_of: impl Fn(&PolicyId) -> &'f (PathBuf, String)) -> Vec<PolicyProblem> {
    let mut warnings = Vec::new();
    for policy in policies {
        let into = policy.annotation("unmask_into").unwrap_or_default();
        for target in into.split(',').map(str::trim).filter(|it| !it.is_empty() && !unmask::is_write_only(it)) {
            let (file, text) = file_of(policy.id());
            let (line, column) = line_and_column(text, Places::of(text).of_id(policy.id().as_ref()));
            let id = policy.id();
            let message = format!("`@unmask_into` on the policy `{id}` names {target}, which AWS may give back");
            let help = "what comes back to the same session is masked again, and nobody else's is: name members that are \
                        written and never read, such as passwords";
            warnings.push(PolicyProblem { file: file.clone(), line, column, message, help: Some(help.into()) });
        }
    }
    warnings
}

/// Gives each policy its `@id`, or `FILE#N`.
#[allow(clippy::too_many_arguments)] // a step of reading, with all that it adds to
fn name_policies(
    file: &Path,
    index: usize,
    text: &str,
    places: &Places,
    set: &PolicySet,
    catalog: &dyn ActionCatalog,
    policies: &mut Vec<Policy>,
    sources: &mut BTreeMap<String, usize>,
    problems: &mut Vec<PolicyProblem>,
) {
    let stem = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for (number, policy) in set.policies().enumerate() {
        let id = policy.annotation("id").map_or_else(|| format!("{stem}#{}", number + 1), str::to_owned);
        if sources.insert(id.clone(), index).is_some() {
            // The last one with that id: the first is the one that it repeats, unless it is in another file.
            let (line, column) = line_and_column(text, places.of_id(&id));
            problems.push(PolicyProblem {
                file: file.to_owned(),
                line,
                column,
                message: format!("a second policy with the id `{id}`"),
                help: Some("ids name policies in errors and recordings: give each its own".into()),
            });
        }
        annotations::check(policy, &id, file, text, places, catalog, problems);
        policies.push(policy.new_id(PolicyId::new(id)));
    }
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let io = |source| PolicyError::Io { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.extension().is_some_and(|extension| extension == "cedar") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn problem(file: &Path, text: &str, diagnostic: &dyn Diagnostic, message: &str) -> PolicyProblem {
    let offset = diagnostic.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset());
    let (line, column) = line_and_column(text, offset);
    let help = diagnostic.help().map(|help| help.to_string());
    PolicyProblem { file: file.to_owned(), line, column, message: message.to_owned(), help }
}
