//! What on a host could be an agent's: CI runners, coding agents' users, container engines.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A rule of enrolment: a key of `[[agents]]` and a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub kind: &'static str,
    pub pattern: String,
}

impl Rule {
    /// `unit`, `agent-*.service`, as it is typed.
    pub fn parse(kind: &str, pattern: &str) -> Option<Self> {
        const KINDS: [&str; 6] = ["units", "slices", "users", "labels", "images", "cgroups"];
        let kind = KINDS.into_iter().find(|known| *known == kind || known.strip_suffix('s') == Some(kind))?;
        (!pattern.is_empty()).then(|| Self { kind, pattern: pattern.to_owned() })
    }

    /// As it is given to `setup`.
    pub fn flag(&self) -> String {
        format!("--{} '{}'", self.kind.strip_suffix('s').unwrap_or(self.kind), self.pattern.replace('\'', ""))
    }
}

/// Something that could be an agent's.
#[derive(Debug)]
pub struct Candidate {
    /// What it is, and by what it was found.
    pub what: String,
    pub rule: Rule,
}

/// CI runners, by the names that their own installers give to their services.
const RUNNERS: [(&str, &str, &str); 10] = [
    ("actions.runner.", "actions.runner.*.service", "GitHub Actions' runner"),
    ("gitlab-runner", "gitlab-runner.service", "GitLab's runner"),
    ("buildkite-agent", "buildkite-agent*.service", "Buildkite's agent"),
    ("jenkins", "jenkins*.service", "Jenkins or its agent"),
    ("vsts.agent.", "vsts.agent.*.service", "Azure Pipelines' agent"),
    ("circleci-runner", "circleci-runner.service", "CircleCI's runner"),
    ("teamcity-agent", "teamcity-agent*.service", "TeamCity's agent"),
    ("forgejo-runner", "forgejo-runner*.service", "Forgejo's runner"),
    ("act_runner", "act_runner*.service", "Gitea's runner"),
    ("woodpecker-agent", "woodpecker-agent*.service", "Woodpecker's agent"),
];

/// What coding agents leave in the homes of those who use them.
const TRACES: [(&str, &str); 10] = [
    (".claude", "Claude Code"),
    (".codex", "Codex"),
    (".config/opencode", "opencode"),
    (".local/share/opencode", "opencode"),
    (".gemini", "Gemini CLI"),
    (".aider.conf.yml", "aider"),
    (".cursor-server", "Cursor"),
    (".openhands", "OpenHands"),
    (".config/goose", "goose"),
    (".copilot", "Copilot CLI"),
];

/// Container engines, by their sockets or storage.
const ENGINES: [(&str, &str); 4] = [
    ("run/docker.sock", "Docker"),
    ("var/lib/containers/storage", "podman"),
    ("run/containerd/containerd.sock", "containerd"),
    ("run/crio/crio.sock", "CRI-O"),
];

/// More lines of a passwd file than are looked at.
const MOST_USERS: usize = 10_000;

/// Looks below `root`, a host's root folder.
pub fn candidates(root: &Path) -> Vec<Candidate> {
    let mut found = runners(root);
    found.extend(users(root));
    found.extend(engines(root));
    found
}

fn runners(root: &Path) -> Vec<Candidate> {
    let folders = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
    let units: BTreeSet<String> = folders
        .iter()
        .filter_map(|folder| fs::read_dir(root.join(folder)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .filter(|name| Path::new(name).extension().is_some_and(|it| it == "service"))
        .collect();
    let known = RUNNERS.iter().filter_map(|(start, pattern, what)| {
        let unit = units.iter().find(|unit| unit.starts_with(start))?;
        Some(Candidate {
            what: format!("{what} ({unit})"),
            rule: Rule { kind: "units", pattern: (*pattern).to_owned() },
        })
    });
    known.collect()
}

fn users(root: &Path) -> Vec<Candidate> {
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let mut found = Vec::new();
    for line in passwd.lines().take(MOST_USERS) {
        let [name, _, uid, _, _, home, _] = line.split(':').collect::<Vec<_>>()[..] else { continue };
        // Root can't be held by anything, and isn't an agent.
        if uid == "0" || name.is_empty() {
            continue;
        }
        let home: PathBuf = root.join(home.trim_start_matches('/'));
        let traces: BTreeSet<_> =
            TRACES.iter().filter(|(trace, _)| home.join(trace).exists()).map(|(_, what)| *what).collect();
        if !traces.is_empty() {
            let what = traces.into_iter().collect::<Vec<_>>().join(", ");
            let rule = Rule { kind: "users", pattern: name.to_owned() };
            found.push(Candidate { what: format!("user {name}, who uses {what}"), rule });
        }
    }
    found
}

fn engines(root: &Path) -> Vec<Candidate> {
    let there: Vec<_> = ENGINES.iter().filter(|(path, _)| root.join(path).exists()).map(|(_, what)| *what).collect();
    if there.is_empty() {
        return Vec::new();
    }
    let rule = Rule { kind: "labels", pattern: "chaperone.agent".to_owned() };
    vec![Candidate { what: format!("containers of {} that are given this label", there.join(", ")), rule }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_users_and_engines_are_found() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(candidates(root.path()).is_empty());
        make("etc/systemd/system/actions.runner.org-repo.host.service", "");
        make("usr/lib/systemd/system/gitlab-runner.service", "");
        make("usr/lib/systemd/system/jenkins.txt", "");
        make("home/dev/.claude/settings.json", "");
        make("root/.claude/settings.json", "");
        make("run/docker.sock", "");
        make(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\ndev:x:1000:1000::/home/dev:/bin/sh\nplain:x:1001:1001::/home/plain:/bin/sh\nbroken\n",
        );
        let flags: Vec<_> = candidates(root.path()).iter().map(|one| one.rule.flag()).collect();
        assert_eq!(
            flags,
            [
                "--unit 'actions.runner.*.service'",
                "--unit 'gitlab-runner.service'",
                "--user 'dev'",
                "--label 'chaperone.agent'"
            ]
        );
    }

    #[test]
    fn rules_are_read_as_they_are_typed() {
        assert_eq!(Rule::parse("unit", "a.service"), Some(Rule { kind: "units", pattern: "a.service".into() }));
        assert_eq!(Rule::parse("users", "a"), Some(Rule { kind: "users", pattern: "a".into() }));
        assert_eq!(Rule::parse("use", "a"), None);
        assert_eq!(Rule::parse("user", ""), None);
    }
}
