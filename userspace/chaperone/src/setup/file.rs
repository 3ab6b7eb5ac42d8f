//! The configuration that `setup` writes.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::candidates::Rule;
use crate::config::{Config, ConfigError};

/// What it is to say.
#[derive(Debug, Default)]
pub struct Answers {
    pub agent: String,
    pub groups: Vec<String>,
    pub rules: Vec<Rule>,
    pub role: Option<String>,
    pub region: Option<String>,
    pub warehouse: Option<String>,
    pub warehouse_user: String,
    pub warehouse_password_file: Option<PathBuf>,
    pub metrics: Option<SocketAddr>,
}

/// The file, commented.
pub fn render(answers: &Answers) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let list = |values: &[&str]| {
        toml::Value::Array(values.iter().map(|value| toml::Value::String((*value).to_owned())).collect()).to_string()
    };
    let mut out = String::from(
        "# Written by `chaperone setup`. `chaperone config default` prints every key with what it is for;\n\
         # `chaperone config check` tells what is wrong with this file.\n\n[[agents]]\n",
    );
    let _ =
        writeln!(out, "name = {}    # the policies' principal: Agent::{}", text(&answers.agent), text(&answers.agent));
    let groups: Vec<_> = answers.groups.iter().map(String::as_str).collect();
    if !groups.is_empty() {
        let _ = writeln!(out, "groups = {}", list(&groups));
    }
    for (kind, what) in [
        ("units", "services and scopes of systemd's"),
        ("slices", "every unit in there"),
        ("users", "what systemd runs for these users"),
        ("labels", "containers with this label"),
        ("images", "containers of these images"),
        ("cgroups", "paths below the cgroup v2 root"),
    ] {
        let patterns: Vec<_> =
            answers.rules.iter().filter(|rule| rule.kind == kind).map(|rule| rule.pattern.as_str()).collect();
        if !patterns.is_empty() {
            let _ = writeln!(out, "{kind} = {}    # {what}", list(&patterns));
        }
    }
    let _ = writeln!(out, "run = true    # root may start commands as this agent: chaperone run --agent …");
    if let Some(role) = &answers.role {
        let _ = writeln!(
            out,
            "\n[[roles]]    # by whose authority its calls are made\nagents = {}\narn = {}\nsession_name = \"{{agent}}\"",
            list(&[&answers.agent]),
            text(role)
        );
    }
    if let Some(region) = &answers.region {
        let _ = writeln!(out, "\n[aws]\nregion = {}    # told to agents by the metadata address", text(region));
    }
    if let Some(url) = &answers.warehouse {
        let _ = writeln!(
            out,
            "\n[warehouse]    # ClickHouse\nurl = {}\nuser = {}",
            text(url),
            text(&answers.warehouse_user)
        );
        if let Some(file) = &answers.warehouse_password_file {
            let _ = writeln!(out, "password_file = {}", text(&file.to_string_lossy()));
        }
    }
    if let Some(listen) = answers.metrics {
        let _ = writeln!(out, "\n[metrics]    # for Prometheus\nlisten = {}", text(&listen.to_string()));
    }
    out
}

/// Reads it as the daemon would, before it is anywhere.
pub fn check(path: &Path, text: &str) -> Result<(), ConfigError> {
    let config = Config::parse(path, text.to_owned())?;
    config.warehouse()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers {
            agent: "ci".into(),
            rules: vec![Rule { kind: "units", pattern: "actions.runner.*.service".into() }],
            warehouse_user: "chaperone_writer".into(),
            ..Answers::default()
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, "secret").unwrap();
        let all = Answers {
            groups: vec!["developers".into()],
            rules: vec![
                Rule { kind: "units", pattern: "actions.runner.*.service".into() },
                Rule { kind: "labels", pattern: "team=re\"d".into() },
                Rule { kind: "units", pattern: "gitlab-runner.service".into() },
            ],
            role: Some("arn:aws:iam::123456789012:role/agents".into()),
            region: Some("eu-west-1".into()),
            warehouse: Some("https://clickhouse.example.com:8443".into()),
            warehouse_password_file: Some(password),
            metrics: Some("127.0.0.1:9464".parse().unwrap()),
            ..answers()
        };
        let text = render(&all);
        check(Path::new("config.toml"), &text).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let agent = &table["agents"][0];
        assert_eq!(agent["units"].as_array().unwrap().len(), 2);
        assert_eq!(agent["labels"][0].as_str(), Some("team=re\"d"));
        assert_eq!(agent["groups"][0].as_str(), Some("developers"));
        assert_eq!(table["roles"][0]["agents"][0].as_str(), Some("ci"));
        assert_eq!(table["aws"]["region"].as_str(), Some("eu-west-1"));
        check(Path::new("config.toml"), &render(&answers())).unwrap();
    }

    #[test]
    fn what_the_daemon_would_refuse_is_not_written() {
        let wrong = |change: fn(&mut Answers)| {
            let mut answers = answers();
            change(&mut answers);
            check(Path::new("config.toml"), &render(&answers)).unwrap_err().to_string()
        };
        assert!(wrong(|it| it.rules[0].pattern = "*".into()).contains("config.toml:"));
        assert!(wrong(|it| it.warehouse = Some("ftp://x".into())).contains("warehouse"));
        assert!(wrong(|it| it.role = Some("role".into())).contains("arn"));
    }
}
