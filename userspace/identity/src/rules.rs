//! The rules by which a cgroup is an agent's: what they enrol, what makes a session, whether two of them overlap.

use std::fmt::{self, Write as _};

/// What a rule is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// A path below the cgroup v2 root.
    Cgroup,
    /// A container's image.
    Image,
    /// A container's or a pod's label.
    Label,
    /// `chaperone run`.
    Run,
    /// A slice of systemd's.
    Slice,
    /// Services and scopes of systemd's, by their names.
    Unit,
    /// What systemd runs for a user: their sessions and services.
    User,
}

impl RuleKind {
    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroups",
            Self::Image => "images",
            Self::Label => "labels",
            Self::Run => "run",
            Self::Slice => "slices",
            Self::Unit => "units",
            Self::User => "users",
        }
    }
}

/// One rule, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    kind: RuleKind,
    text: String,
    /// The cgroup that is enrolled.
    enrols: Vec<Step>,
    /// The cgroup that makes a session: that one, or one below.
    sessions: Vec<Step>,
}

/// A part of a pattern of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A folder; `*` stands for any characters.
    Name(String),
    /// Any number of slices, one in the other.
    Slices,
}

/// Where the cgroups of `chaperone run` are for an agent without others.
const RUN: &str = "chaperone.run";

impl Rule {
    /// A path below the cgroup v2 root in which `*` stands for any characters but `/`. Everything before the first `*` is
    /// enrolled, so that nothing in there is free; what the whole names is a session each.
    pub fn cgroup(text: &str) -> Result<Self, &'static str> {
        if !text.starts_with('/') {
            return Err("it must begin with `/`: it is a path below the cgroup v2 root");
        }
        if text.len() > 1000 {
            return Err("it is longer than 1,000 bytes");
        }
        if text.trim_end_matches('/').is_empty() {
            return Err("it would enrol the whole host: name at least the first folder");
        }
        let parts: Vec<&str> = text[1..].split('/').collect();
        if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
            return Err("it has an empty part, `.` or `..`");
        }
        if parts[0].contains('*') {
            return Err("it would enrol the whole host: name at least the first folder");
        }
        let sessions: Vec<_> = parts.iter().map(|&part| Step::Name(part.to_owned())).collect();
        let fixed = parts.iter().take_while(|part| !part.contains('*')).count();
        Self::checked(RuleKind::Cgroup, text, sessions[..fixed].to_vec(), sessions)
    }

    /// What `chaperone run` starts as this agent.
    pub fn run(agent: &str) -> Result<Self, &'static str> {
        let folder = vec![Step::Name(RUN.to_owned()), Step::Name(agent.to_owned())];
        let sessions = with(&folder, [Step::Name("*".to_owned())]);
        Self::checked(RuleKind::Run, "true", folder, sessions)
    }

    /// A slice, such as `agents.slice` or `agents-ci.slice`: each of its units is a session, wherever in it that is.
    pub fn slice(name: &str) -> Result<Self, &'static str> {
        let folder = slice_path(name)?;
        let sessions = with(&folder, [Step::Slices, Step::Name("*".to_owned())]);
        Self::checked(RuleKind::Slice, name, folder, sessions)
    }

    /// Services and scopes by their names, such as `agent-*.service`, in `system.slice`, where systemd puts them unless told
    /// otherwise; or `agents.slice/agent-*.service` in that slice. Those in slices inside are meant, too. Those of users'
    /// own managers are not, being below a service: users name them as they like.
    pub fn unit(text: &str) -> Result<Self, &'static str> {
        let (slice, unit) = text.split_once('/').unwrap_or(("system.slice", text));
        let stem = unit.strip_suffix(".service").or_else(|| unit.strip_suffix(".scope"));
        if !stem.is_some_and(|stem| is_unit_name(stem, true)) {
            return Err(
                "a unit's name ends in `.service` or `.scope`, such as \"agent-*.service\", or with its slice \
                        \"agents.slice/agent-*.service\"",
            );
        }
        let steps = with(&slice_path(slice)?, [Step::Slices, Step::Name(unit.to_owned())]);
        Self::checked(RuleKind::Unit, text, steps.clone(), steps)
    }

    /// What systemd runs for this user: each login session and the user's own service manager is a session.
    pub fn user(text: &str, uid: u32) -> Result<Self, &'static str> {
        if uid == 0 {
            return Err("root can't be an agent: the host's own services are root's");
        }
        let folder = vec![Step::Name("user.slice".to_owned()), Step::Name(format!("user-{uid}.slice"))];
        let sessions = with(&folder, [Step::Slices, Step::Name("*".to_owned())]);
        Self::checked(RuleKind::User, text, folder, sessions)
    }

    fn checked(kind: RuleKind, text: &str, enrols: Vec<Step>, sessions: Vec<Step>) -> Result<Self, &'static str> {
        let rule = Self { kind, text: text.to_owned(), enrols, sessions };
        let names = |path| rule.covers(path) || rule.claims(path);
        if names("/init.scope") {
            return Err("it would enrol PID 1");
        }
        if names("/system.slice/chaperone.service") {
            return Err(
                "it would enrol the daemon itself, /system.slice/chaperone.service (of `cgroups`, everything before \
                        the first `*` is enrolled: services in system.slice are named by `units`)",
            );
        }
        Ok(rule)
    }

    /// What it is written as.
    pub fn kind(&self) -> RuleKind {
        self.kind
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The part of `path` that makes the session of a process in there; `/agents/*` names `/agents/a` for `/agents/a/b`.
    pub fn session<'a>(&self, path: &'a str) -> Option<&'a str> {
        matched(&self.sessions, path)
    }

    /// Whether `path` is enrolled by this rule, being what it enrols or below that.
    pub fn covers(&self, path: &str) -> bool {
        matched(&self.enrols, path).is_some()
    }

    /// Whether `path` is what this rule enrols.
    pub fn enrols(&self, path: &str) -> bool {
        matched(&self.enrols, path) == Some(path)
    }

    fn claims(&self, path: &str) -> bool {
        self.session(path).is_some()
    }

    /// Whether there can be a process that both name.
    pub fn overlaps(&self, other: &Self) -> bool {
        meet(&self.sessions, &other.sessions)
    }

    /// What is enrolled, as a regular expression for a whole path.
    pub fn pattern(&self) -> String {
        let mut pattern = String::new();
        for step in &self.enrols {
            match step {
                Step::Slices => pattern.push_str(r"(?:/[^/]*\x2eslice)*"),
                Step::Name(name) => {
                    pattern.push('/');
                    for byte in name.bytes() {
                        match byte {
                            b'*' => pattern.push_str("[^/]*"),
                            byte if byte.is_ascii_alphanumeric() => pattern.push(char::from(byte)),
                            // Writing to a string can't fail.
                            byte => drop(write!(pattern, r"(?-u:\x{byte:02x})")),
                        }
                    }
                }
            }
        }
        pattern
    }

    /// The cgroup that the daemon makes, if this rule has one that doesn't depend on others' making it.
    pub fn folder(&self) -> Option<String> {
        matches!(self.kind, RuleKind::Cgroup | RuleKind::Run).then(|| path_of(&self.enrols, ""))
    }

    /// A cgroup for a process that is about to be started, called `name` if this rule leaves that open.
    pub fn cgroup_for(&self, name: &str) -> Option<String> {
        matches!(self.kind, RuleKind::Cgroup | RuleKind::Run).then(|| path_of(&self.sessions, name))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RuleKind::Run => f.write_str("run"),
            kind => write!(f, "{} \"{}\"", kind.key(), self.text),
        }
    }
}

/// Where a slice is: systemd.slice(5): `a-b.slice` is in `a.slice`.
fn slice_path(name: &str) -> Result<Vec<Step>, &'static str> {
    let Some(stem) = name.strip_suffix(".slice").filter(|stem| is_unit_name(stem, false)) else {
        return Err("a slice's name ends in `.slice` and has no `*` or `/`, such as \"agents.slice\"");
    };
    if stem.split('-').any(str::is_empty) {
        return Err(
            "it is no slice's name: no part between dashes is empty (systemd.slice(5)), and `-.slice` is the host",
        );
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| Step::Name(format!("{}.slice", &stem[..end]))).collect())
}

fn with(folder: &[Step], rest: impl IntoIterator<Item = Step>) -> Vec<Step> {
    folder.iter().cloned().chain(rest).collect()
}

/// systemd.unit(5), and `*` where it may be.
fn is_unit_name(stem: &str, star: bool) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte) || (star && byte == b'*');
    !stem.is_empty() && stem.len() < 248 && stem.bytes().all(fits)
}

fn path_of(steps: &[Step], name: &str) -> String {
    steps
        .iter()
        .map(|step| match step {
            Step::Name(part) => format!("/{}", part.replace('*', name)),
            Step::Slices => String::new(),
        })
        .collect()
}

/// The part of `path` that the steps name.
fn matched<'a>(steps: &[Step], path: &'a str) -> Option<&'a str> {
    let mut end = 0;
    let mut parts = path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty()).peekable();
    for step in steps {
        match step {
            Step::Slices => {
                while let Some(slice) = parts.next_if(|part| part.strip_suffix(".slice").is_some()) {
                    end += 1 + slice.len();
                }
            }
            Step::Name(wanted) => {
                let part = parts.next()?;
                if !glob(wanted, part) {
                    return None;
                }
                end += 1 + part.len();
            }
        }
    }
    Some(&path[..end])
}

/// Whether some path is below what both name.
fn meet(a: &[Step], b: &[Step]) -> bool {
    match (a, b) {
        ([], _) | (_, []) => true,
        ([Step::Name(x), a @ ..], [Step::Name(y), b @ ..]) => globs_meet(x, y) && meet(a, b),
        ([Step::Slices, rest @ ..], [Step::Name(name), b_rest @ ..]) => {
            meet(rest, b) || (globs_meet("*.slice", name) && meet(a, b_rest))
        }
        ([Step::Slices, rest @ ..], [Step::Slices, b_rest @ ..]) => meet(rest, b) || meet(a, b_rest),
        ([Step::Name(_), ..], [Step::Slices, ..]) => meet(b, a),
    }
}

/// Whether `*` in `pattern` can be filled to give `text`. Linear in both, whatever the pattern.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            back = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star, from)) = back {
            (p, t, back) = (star + 1, from + 1, Some((star, from + 1)));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether `*` in both can be filled to give the same text.
fn globs_meet(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // By what is left of `b`, for what is left of `a`: whether the rests meet.
    let mut rest = vec![false; b.len() + 1];
    for i in (0..=a.len()).rev() {
        let shorter = rest;
        rest = vec![false; b.len() + 1];
        for j in (0..=b.len()).rev() {
            let (x, y) = (a.get(i), b.get(j));
            rest[j] = match (x, y) {
                (None, None) => true,
                (Some(b'*'), _) => shorter[j] || (y.is_some() && rest[j + 1]),
                (_, Some(b'*')) => rest[j + 1] || (x.is_some() && shorter[j]),
                (Some(x), Some(y)) => x == y && shorter[j + 1],
                (Some(_), None) | (None, Some(_)) => false,
            };
        }
    }
    rest[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_bounded() {
        assert!(glob("a*b*c", "aXXbYYc") && !glob("a*b*c", "aXXbYY") && glob("*", "") && !glob("", "a"));
        assert!(!glob(&"*a".repeat(200), &"b".repeat(10_000)));
    }

    #[test]
    fn globs_meet_if_a_name_fits_both() {
        for (a, b, so) in [
            ("a*", "*b", true),
            ("a*", "ab", true),
            ("a*", "b*", false),
            ("a*c", "ab*", true),
            ("a*c", "*d", false),
            ("*", "", true),
            ("*.slice", "a.service", false),
            ("ab", "ab", true),
            ("ab", "abc", false),
        ] {
            assert_eq!((globs_meet(a, b), globs_meet(b, a)), (so, so), "{a} {b}");
        }
        assert!(!globs_meet(&"*a".repeat(120), &"*b".repeat(120)));
    }

    #[test]
    fn sessions_are_units_of_slices_and_folders_of_cgroups() {
        let session = |rule: &Rule, path| rule.session(path).map(str::to_owned);
        let slice = Rule::slice("agents-ci.slice").unwrap();
        for (path, wanted) in [
            ("/agents.slice/agents-ci.slice/a.service/b", Some("/agents.slice/agents-ci.slice/a.service")),
            (
                "/agents.slice/agents-ci.slice/agents-ci-x.slice/a.scope",
                Some("/agents.slice/agents-ci.slice/agents-ci-x.slice/a.scope"),
            ),
            ("/agents.slice/agents-ci.slice", None),
            ("/agents.slice/a.service", None),
        ] {
            assert_eq!(session(&slice, path).as_deref(), wanted, "{path}");
        }
        assert!(slice.covers("/agents.slice/agents-ci.slice") && !slice.covers("/agents.slice"));
        let unit = Rule::unit("agent-*.service").unwrap();
        assert_eq!(session(&unit, "/system.slice/agent-1.service/x").as_deref(), Some("/system.slice/agent-1.service"));
        assert_eq!(session(&unit, "/user.slice/user-1.slice/user@1.service/agent-1.service"), None);
        assert!(!unit.covers("/system.slice"));
        assert_eq!(session(&unit, "/other.slice/agent-1.service"), None);
        let path = "/system.slice/system-agent.slice/agent-1.service";
        assert_eq!(session(&unit, path).as_deref(), Some(path));
        let user = Rule::user("coder", 1000).unwrap();
        let path = "/user.slice/user-1000.slice/session-3.scope";
        assert_eq!(session(&user, path).as_deref(), Some(path));
        let run = Rule::run("coder").unwrap();
        assert_eq!(run.folder().as_deref(), Some("/chaperone.run/coder"));
        assert_eq!(run.cgroup_for("run-1").as_deref(), Some("/chaperone.run/coder/run-1"));
        assert_eq!(Rule::cgroup("/a/b-*/c").unwrap().cgroup_for("1").as_deref(), Some("/a/b-1/c"));
        assert_eq!(unit.cgroup_for("1"), None);
    }

    #[test]
    fn rules_that_name_the_same_overlap() {
        let cgroup = |text| Rule::cgroup(text).unwrap();
        let (slice, unit) = (Rule::slice("agents.slice").unwrap(), Rule::unit("agent-*.service").unwrap());
        for (a, b, so) in [
            (cgroup("/agents/*"), cgroup("/agents/x/job"), true),
            (cgroup("/agents/a-*"), cgroup("/agents/b-*"), false),
            (slice.clone(), cgroup("/agents.slice/a.service"), true),
            (slice.clone(), cgroup("/agents.slices/a.service"), false),
            // It is in system.slice.
            (unit.clone(), slice.clone(), false),
            (Rule::unit("agents.slice/x.service").unwrap(), slice.clone(), true),
            (Rule::unit("agents.slice/x.service").unwrap(), unit.clone(), false),
            (unit.clone(), cgroup("/system.slice/system-agent.slice/agent-x.service"), true),
            (unit.clone(), cgroup("/system.slice/agent-x.service"), true),
            (unit.clone(), cgroup("/system.slice/other.service"), false),
            (unit.clone(), Rule::unit("ci-*.service").unwrap(), false),
            (unit.clone(), Rule::unit("*-ci.service").unwrap(), true),
            (unit, Rule::unit("agent-*.scope").unwrap(), false),
            (slice, Rule::user("1", 1000).unwrap(), false),
        ] {
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (so, so), "{a} {b}");
        }
    }

    #[test]
    fn what_would_enrol_too_much_is_refused() {
        for (rule, why) in [
            (Rule::cgroup("/"), "whole host"),
            (Rule::cgroup("/*"), "whole host"),
            (Rule::cgroup("/a*/b"), "whole host"),
            (Rule::cgroup("agents"), "begin with"),
            (Rule::cgroup("/a//b"), "empty"),
            (Rule::cgroup("/a/../b"), "`..`"),
            (Rule::cgroup("/init.scope"), "PID 1"),
            (Rule::cgroup("/system.slice/agent-*.service"), "named by `units`"),
            (Rule::cgroup("/system.slice/chaperone.service"), "daemon itself"),
            (Rule::slice("system.slice"), "daemon itself"),
            (Rule::slice("-.slice"), "the host"),
            (Rule::slice("a--b.slice"), "no slice's name"),
            (Rule::slice("a*.slice"), "no `*`"),
            (Rule::slice("agents"), "`.slice`"),
            (Rule::unit("*.service"), "daemon itself"),
            (Rule::unit("chap*.service"), "daemon itself"),
            (Rule::unit("a/*.service"), "`.slice`"),
            (Rule::unit("a.slice/b/*.service"), "`.service`"),
            (Rule::unit("agents.slice"), "`.service`"),
            (Rule::user("root", 0), "root"),
        ] {
            let said = rule.clone().expect_err(&format!("{rule:?}"));
            assert!(said.contains(why), "{rule:?}: {said}");
        }
    }
}
