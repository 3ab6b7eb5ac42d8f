//! Reading policy files, checking them against the schema, naming what is wrong and where.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::{self, Write as _},
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use aws_lc_rs::digest::{Context as Sha, SHA256};
use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use chaperone_model::AccessLevel;
use miette::Diagnostic;
use parking_lot::RwLock;

use crate::{
    approvals, egress,
    masks::{self, MaskTarget},
    slice::{Reads, Slices},
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
/// A policy file larger than this is refused.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// What the policy room must know of IAM's actions.
pub trait ActionCatalog {
    /// The access level of `prefix:Name`; `None` if there is no such action.
    fn level(&self, action: &str) -> Option<AccessLevel>;
    /// Whether there is a service with this IAM prefix.
    fn has_prefix(&self, prefix: &str) -> bool;
    /// All actions, in order.
    fn actions(&self) -> Vec<(String, AccessLevel)>;
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PolicyProblem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where Cedar or we know.
    pub help: Option<String>,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// Why a policy set can't be put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or folder can't be read.
    #[error("reading policies from {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to decide by.
    #[error(
        "no policy in {0}: everything would be denied; put a .cedar file there (`chaperone policy default` prints one)"
    )]
    Empty(PathBuf),
    /// A policy is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<PolicyProblem>),
    /// A bug of ours.
    #[error("BUG: {0}")]
    Bug(String),
}

/// A policy set that has been checked, and the slices of it that have been needed so far.
pub struct PolicyVersion {
    pub(crate) policies: Vec<Policy>,
    pub(crate) slices: RwLock<Slices>,
    /// The paths of parameters that policies look for.
    pub(crate) parameter_paths: Arc<BTreeSet<String>>,
    annotations: HashMap<String, Arc<BTreeMap<String, String>>>,
    /// Policies with `@mask`, as a set of their own; those that lift what is masked by default; and what each masks.
    pub(crate) masks: Option<Box<PolicyVersion>>,
    pub(crate) lifts: Option<Box<PolicyVersion>>,
    pub(crate) mask_targets: HashMap<String, Arc<Vec<MaskTarget>>>,
    /// SHA-256 over the files' names and contents, in hexadecimal.
    pub digest: String,
    /// Notes that don't stop it from being put in force.
    pub warnings: Vec<PolicyProblem>,
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
        let mut mentioned = BTreeSet::new();
        let mut sha = Sha::new(&SHA256);
        for (index, (file, text)) in files.iter().enumerate() {
            sha.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            sha.update(&[0]);
            sha.update(text.as_bytes());
            sha.update(&[0]);
            problems.extend(unknown_actions(file, text, catalog, &mut mentioned));
            match PolicySet::from_str(text) {
                Ok(set) if set.templates().next().is_some() => problems.push(PolicyProblem {
                    file: file.clone(),
                    line: 1,
                    column: 1,
                    message: "templates (?principal, ?resource) are not supported".into(),
                    help: Some("write the principal and the resource out".into()),
                }),
                Ok(set) => name_policies(file, index, text, &set, &mut policies, &mut sources, &mut problems),
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
        let problems: Vec<PolicyProblem> = checked
            .validation_errors()
            .map(|error| {
                let (file, text) = place(error.policy_id());
                problem(file, text, error, &error.to_string())
            })
            .collect();
        if !problems.is_empty() {
            return Err(PolicyError::Invalid(problems));
        }
        let warnings = checked
            .validation_warnings()
            .map(|warning| {
                let (file, text) = place(warning.policy_id());
                problem(file, text, warning, &warning.to_string())
            })
            .collect();
        let digest = hex::encode(sha.finish());
        let annotations = policies.iter().map(|policy| {
            let all = policy.annotations().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            (policy.id().to_string(), Arc::new(all))
        });
        let annotations = annotations.collect();
        let parameter_paths = Arc::new(Reads::of(&policies).into_parameters());
        let (masking, policies): (Vec<_>, Vec<_>) =
            policies.into_iter().partition(|policy| policy.annotation("mask").is_some());
        let (mut mask_targets, mut masks, mut lifts) = (HashMap::new(), Vec::new(), Vec::new());
        for policy in masking {
            match masks::parse(policy.annotation("mask").unwrap_or_default()).map_err(PolicyError::Bug)? {
                None => lifts.push(policy),
                Some(targets) => {
                    mask_targets.insert(policy.id().to_string(), Arc::new(targets));
                    masks.push(masks::as_forbid(&policy).map_err(PolicyError::Bug)?);
                }
            }
        }
        let set = |policies: Vec<Policy>| (!policies.is_empty()).then(|| Box::new(Self::of_masks(policies)));
        let (masks, lifts) = (set(masks), set(lifts));
        let slices = RwLock::default();
        Ok(Self { policies, slices, parameter_paths, annotations, masks, lifts, mask_targets, digest, warnings })
    }

    /// A set of policies that are only asked what they mask.
    fn of_masks(policies: Vec<Policy>) -> Self {
        Self {
            policies,
            slices: RwLock::default(),
            parameter_paths: Arc::default(),
            annotations: HashMap::new(),
            masks: None,
            lifts: None,
            mask_targets: HashMap::new(),
            digest: String::new(),
            warnings: Vec::new(),
        }
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
        if prefix == egress::PREFIX {
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

/// `http:` actions are the methods of inspected names; the rest is the catalog's.
fn known_level(name: &str, catalog: &dyn ActionCatalog) -> Option<AccessLevel> {
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
    catalog: &dyn ActionCatalog,
    mentioned: &mut BTreeSet<String>,
) -> Vec<PolicyProblem> {
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, _) in code.match_indices("Action::\"") {
            let Some(name) = code[at + 9..].split('"').next() else { continue };
            let known = match name.split_once(':') {
                None => LEVELS.iter().any(|level| level.as_str() == name),
                Some((prefix, "*")) => ["http", egress::PREFIX].contains(&prefix) || catalog.has_prefix(prefix),
                Some((egress::PREFIX, kind)) => matches!(kind, "HTTP" | "TCP" | "TLS"),
                Some(_) => known_level(name, catalog).is_some(),
            };
            if known {
                mentioned.insert(name.to_owned());
            } else {
                problems.push(PolicyProblem {
                    file: file.to_owned(),
                    line: number + 1,
                    column: at + 1,
                    message: format!("there is no action `{name}`"),
                    help: Some(
                        "actions are IAM's, such as s3:GetObject, a service's `s3:*`, or Read, List, Tagging, \
                         Write, PermissionsManagement; http:GET and its like; egress:TLS, egress:HTTP and egress:TCP for what is \
                         passed on: `chaperone policy schema` lists them"
                            .into(),
                    ),
                });
            }
        }
    }
    problems
}

/// Gives each policy its `@id`, or `FILE#N`.
fn name_policies(
    file: &Path,
    index: usize,
    text: &str,
    set: &PolicySet,
    policies: &mut Vec<Policy>,
    sources: &mut BTreeMap<String, usize>,
    problems: &mut Vec<PolicyProblem>,
) {
    let stem = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for (number, policy) in set.policies().enumerate() {
        let id = policy.annotation("id").map_or_else(|| format!("{stem}#{}", number + 1), str::to_owned);
        if sources.insert(id.clone(), index).is_some() {
            // The last one with that id: the first is the one that it repeats, unless it is in another file.
            let wanted = format!("@id(\"{id}\")");
            let line = text.lines().enumerate().filter(|(_, line)| line.contains(&wanted)).last();
            let line = line.map_or(1, |(number, _)| number + 1);
            problems.push(PolicyProblem {
                file: file.to_owned(),
                line,
                column: 1,
                message: format!("a second policy with the id `{id}`"),
                help: Some("ids name policies in errors and recordings: give each its own".into()),
            });
        }
        let bad = |message: String, help: &str| PolicyProblem {
            file: file.to_owned(),
            line: 1 + text[..text.find(&format!("@id(\"{id}\")")).unwrap_or(0)].matches('\n').count(),
            column: 1,
            message,
            help: Some(help.into()),
        };
        if let Some(approvers) = policy.annotation("approvers")
            && approvals::groups_of(approvers).next().is_none()
        {
            problems.push(bad(
                format!("the policy `{id}` has `@approvers` without a group"),
                "name groups: @approvers(\"sre\"), or @approvers(\"sre, security\") where either will do",
            ));
        }
        if let Some(needed) = policy.annotation("approvals_needed")
            && !needed.parse::<u32>().is_ok_and(|number| (1..=20).contains(&number))
        {
            problems.push(bad(
                format!("the policy `{id}` has `@approvals_needed(\"{needed}\")`"),
                "it is a number of people, from 1 to 20",
            ));
        }
        if let Some(may) = policy.annotation("sponsor_may_approve")
            && !matches!(may, "true" | "false")
        {
            problems.push(bad(
                format!("the policy `{id}` has `@sponsor_may_approve(\"{may}\")`"),
                "it is \"true\" or \"false\"",
            ));
        }
        if policy.annotation("approvers").is_none() {
            for name in ["approvals_needed", "sponsor_may_approve"] {
                if policy.annotation(name).is_some() {
                    problems.push(bad(
                        format!("the policy `{id}` has `@{name}` and no `@approvers`"),
                        "say who approves: @approvers(\"sre\")",
                    ));
                }
            }
        }
        for (name, _) in policy.annotations() {
            if let Some(meant) = ANNOTATIONS.iter().find(|known| is_typo(name, known)) {
                problems.push(bad(
                    format!("the policy `{id}` has the annotation `@{name}`"),
                    &format!("did you mean `@{meant}`?"),
                ));
            }
        }
        if policy.annotation("approvers").is_some() && !(policy.effect() == Effect::Forbid && reads_approved(policy)) {
            problems.push(PolicyProblem {
                file: file.to_owned(),
                line: 1,
                column: 1,
                message: format!("`@approvers` on the policy `{id}`, which no approval can change"),
                help: Some("approvers are named on `forbid (…) unless { context.approved };`".into()),
            });
        }
        if let Some(mask) = policy.annotation("mask")
            && let Err(why) = masks::check(policy).and_then(|()| masks::parse(mask).map(|_| ()))
        {
            let wanted = format!("@mask(\"{mask}\")");
            let line = text.lines().position(|line| line.contains(&wanted)).map_or(1, |at| at + 1);
            problems.push(PolicyProblem {
                file: file.to_owned(),
                line,
                column: 1,
                message: format!("`@mask` on the policy `{id}`: {why}"),
                help: Some(
                    "write `@mask(\"sensitive, github, Items[].Secret\") permit (…);`: it masks, and permits nothing"
                        .into(),
                ),
            });
        }
        policies.push(policy.new_id(PolicyId::new(id)));
    }
}

/// Annotations that mean something here. Others are the author's own.
const ANNOTATIONS: [&str; 6] = ["approvals_needed", "approvers", "id", "mask", "sponsor_may_approve", "unmask_into"];

/// Whether one is written like the other, but for two letters: so near that it was meant.
fn is_typo(written: &str, known: &str) -> bool {
    let same_start = written.bytes().zip(known.bytes()).next().is_some_and(|(a, b)| a.eq_ignore_ascii_case(&b));
    if ANNOTATIONS.contains(&written) || known.len() < 4 || !same_start || written.len().abs_diff(known.len()) > 2 {
        return false;
    }
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (i, a) in written.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in known.bytes().enumerate() {
            let replaced = diagonal + usize::from(!a.eq_ignore_ascii_case(&b));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[known.len()] <= 2
}

fn reads_approved(policy: &Policy) -> bool {
    let reads = Reads::of([policy]);
    reads.context("approved")
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
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.split(|byte| *byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    let help = diagnostic.help().map(|help| help.to_string());
    PolicyProblem { file: file.to_owned(), line, column, message: message.to_owned(), help }
}
