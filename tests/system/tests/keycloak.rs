//! Keycloak says who agents are and who works with them: as `oidc_provider.rs`, with the provider that most companies have.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

#[allow(dead_code)] // its provider is played by another one here
mod openid;

use std::{
    fs,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use chaperone_system_tests::{Caller, Lab, both, installed, python, script, text, until_within};
use openid::{line_with, session};
use serde_json::Value;

const REALM: &str = "https://127.0.0.1:8449/realms/company";
const POLICY: &str = r#"
@id("builders") permit (principal in Group::"keycloak:builders", action in [Action::"s3:ListAllMyBuckets"], resource)
    when { principal.identified && principal.sponsor != "" };
"#;
/// Its JVM begins on two processors that do something else, too.
const BEGINS_WITHIN: Duration = Duration::from_mins(5);

/// A Keycloak in the lab, with one realm, whose files are in `at`.
struct Keycloak<'a> {
    lab: &'a Lab,
    at: PathBuf,
    process: Child,
}

impl<'a> Keycloak<'a> {
    fn start(lab: &'a Lab, at: &Path) -> Self {
        let home = at.join("keycloak");
        // It builds itself within its folder.
        assert!(
            Command::new("cp")
                .arg("-r")
                .arg(installed("keycloak").join("keycloak"))
                .arg(&home)
                .status()
                .unwrap()
                .success()
        );
        fs::create_dir_all(home.join("data/import")).unwrap();
        fs::copy(installed("keycloak").join("realm.json"), home.join("data/import/realm.json")).unwrap();
        let start = format!(
            "KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=the-administrators JAVA_OPTS_KC_HEAP='-Xms64m -Xmx512m' \
             exec bash {home}/bin/kc.sh start-dev --db=dev-mem --import-realm --https-port=8449 --http-port=8450 \
             --https-certificate-file={at}/provider.crt --https-certificate-key-file={at}/provider.key \
             --hostname=https://127.0.0.1:8449 >{at}/keycloak.log 2>&1",
            home = home.display(),
            at = at.display()
        );
        let keycloak = Self { lab, at: at.to_owned(), process: lab.spawn_operator(&start) };
        let there = format!("curl -sf --cacert {}/authority.crt {REALM}", at.display());
        until_within(BEGINS_WITHIN, "Keycloak's beginning", || lab.operator(&there).status.success());
        keycloak
    }

    fn act(&self, what: &[&str]) -> String {
        let quoted: Vec<String> = what.iter().map(|one| format!("'{one}'")).collect();
        let (python, script, at) = (python(), script("keycloak.py"), self.at.display());
        self.lab.operator_ok(&format!("{python} {} {REALM} {at}/authority.crt {}", script.display(), quoted.join(" ")))
    }

    fn token(&self, client: &str) -> String {
        self.act(&["token", client, &format!("the secret of {client}")])
    }
}

impl Drop for Keycloak<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn agents_and_people_are_who_keycloak_says() {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let at = folder.path().to_owned();
    assert!(Command::new(python()).arg(script("provider_certificate.py")).arg(&at).status().unwrap().success());
    let config = at.join("identity.toml");
    let issuer = |name: &str, settings: &str| {
        let ca = at.join("authority.crt");
        format!(
            "[[identity.issuers]]\nname = \"{name}\"\nissuer = \"{REALM}\"\nca_file = \"{}\"\ngroups = \"groups\"\n{settings}\n",
            ca.display()
        )
    };
    fs::write(
        &config,
        issuer(
            "keycloak",
            "audiences = [\"chaperone\", \"chaperone-cli\"]\nsponsor = \"/owner/email\"\ndisplay_name = \"preferred_username\"\n\
             client_id = \"chaperone-cli\"\nscopes = [\"offline_access\"]",
        ),
    )
    .unwrap();
    let lab = Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[]);
    let keycloak = Keycloak::start(&lab, &at);

    // A job with a token of its own.
    let caller = Caller::start(&lab, "coder");
    assert!(caller.call().contains("AccessDenied"));
    let cgroup = text(&session(&lab), "cgroup_path").to_owned();
    let file = caller.place().join("token");
    let register = |token: &str| {
        fs::write(&file, token).unwrap();
        let done = lab.operator(&format!("chaperone register --cgroup {cgroup} --token-file {}", file.display()));
        (done.status.success(), both(&done))
    };
    let (accepted, said) = register(&keycloak.token("elsewhere"));
    assert!(!accepted && said.contains("and not for `chaperone`"), "{said}");
    let (accepted, said) = register(&keycloak.token("ci"));
    assert!(accepted, "{said}\n{}", lab.log());
    let answer = caller.call();
    assert!(answer.contains("exit: 0"), "{answer}\n{}", lab.log());
    let identity = session(&lab)["identity"].clone();
    assert_eq!(
        ["provider", "sponsor", "display_name"].map(|name| text(&identity, name).to_owned()),
        ["keycloak", "bob@example.com", "service-account-ci"],
        "{identity}"
    );
    assert_eq!(identity["groups"], serde_json::json!(["keycloak:builders"]));

    // The realm signs by a new key from now on.
    keycloak.act(&["rotate", "the-administrators"]);
    let token = keycloak.token("ci");
    until_within(Duration::from_mins(1), "that the new key is believed", || register(&token).0);
    assert!(caller.call().contains("exit: 0"));
    caller.end();

    // A person logs in by a code.
    let (caller, said) = Caller::start_by(&lab, "chaperone run --login=device --");
    let mut said = BufReader::new(said);
    let line = line_with(&mut said, "enter the code");
    let after = |word: &str| line.split(word).nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let page: Value = serde_json::from_str(&keycloak.act(&[
        "enter",
        &after("open "),
        &after("enter the code "),
        "alice",
        "in wonderland",
    ]))
    .unwrap();
    assert!(text(&page, "text").contains("Device Login Successful"), "{page}");
    line_with(&mut said, "is logged in at keycloak");
    let answer = caller.call();
    assert!(answer.contains("exit: 0"), "{answer}\n{}", lab.log());
    let identity = session(&lab)["identity"].clone();
    assert_eq!(text(&identity, "display_name"), "alice", "{identity}");
    caller.end();
    assert!(!lab.log().contains("eyJ"), "a token is in the log: {}", lab.log());
}
