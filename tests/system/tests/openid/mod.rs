//! An OpenID provider in a lab, for several tests.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command},
};

use chaperone_system_tests::{Lab, installed, python, script, text};
use serde_json::Value;

const POLICY: &str = r#"
@id("builders") permit (principal in Group::"op:builders", action in [Action::"s3:ListAllMyBuckets"], resource)
    when { principal.identified && principal.sponsor != "" };
"#;
const PORT: &str = "8449";

/// The provider's process, which starts and stops the provider as it is told.
pub struct Provider {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Provider {
    pub fn new(lab: &Lab, at: &Path) -> Self {
        let program = installed("oidc").join("provider.mjs");
        let command =
            format!("exec node {} {PORT} {at}/provider.crt {at}/provider.key", program.display(), at = at.display());
        let mut child = lab.spawn_operator(&command);
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Does something, and gives what came of it.
    pub fn act(&mut self, what: &Value) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        // The library talks, too.
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "{what}: the provider ended");
        }
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{what}: {error}: {line}"));
        assert!(answer.get("failed").is_none(), "{what}: {answer}");
        answer["ok"].clone()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A lab that believes the provider, with these settings of its issuer besides.
pub fn lab(settings: &str) -> (Lab, Provider) {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let at = folder.path().to_owned();
    assert!(Command::new(python()).arg(script("provider_certificate.py")).arg(&at).status().unwrap().success());
    let issuer = format!(
        "[[identity.issuers]]\nname = \"op\"\nissuer = \"https://127.0.0.1:{PORT}\"\nca_file = \"{}/authority.crt\"\n\
         groups = \"groups\"\n{settings}\n",
        at.display()
    );
    let config = at.join("identity.toml");
    fs::write(&config, issuer).unwrap();
    let lab = Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[]);
    let provider = Provider::new(&lab, &at);
    (lab, provider)
}

/// The newest session that is open, as `status` tells it.
pub fn session(lab: &Lab) -> Value {
    session_of(lab).unwrap()
}

/// The newest session that is open, if there is one.
pub fn session_of(lab: &Lab) -> Option<Value> {
    let status: Value = serde_json::from_str(&lab.operator_ok("chaperone status --json")).unwrap();
    // The latest: their ids begin with the time. The lab's own first one may not have ended yet.
    status["sessions"].as_array().unwrap().iter().max_by_key(|it| text(it, "id").to_owned()).cloned()
}

/// What logins need of an issuer.
pub const LOGIN: &str = "audiences = [\"chaperone-cli\"]\nclient_id = \"chaperone-cli\"\nscopes = [\"offline_access\"]";

/// Reads what a command says until a line has this in it.
pub fn line_with(said: &mut BufReader<ChildStdout>, wanted: &str) -> String {
    let mut all = String::new();
    loop {
        let begins = all.len();
        assert_ne!(said.read_line(&mut all).unwrap(), 0, "{wanted}: {all}");
        if all[begins..].contains(wanted) {
            return all[begins..].to_owned();
        }
    }
}
