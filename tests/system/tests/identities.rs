//! Who an agent is, by a token.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod provider;

use std::fs;

use chaperone_system_tests::{Lab, both, text, until};
use provider::Provider;
use serde_json::{Value, json};

const POLICY: &str = r#"
@id("builders") permit (principal in Group::"ci:builders", action in [Action::"s3:ListAllMyBuckets"], resource)
    when { principal.identified && principal.sponsor == "alice@example.com" };
"#;
const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";

#[test]
fn an_agent_is_who_its_token_says_and_for_as_long() {
    let provider = Provider::new();
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let (keys, config) = (folder.path().join("jwks.json"), folder.path().join("identity.toml"));
    fs::write(&keys, provider.jwks()).unwrap();
    let issuer = format!(
        "[[identity.issuers]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudiences = [\"chaperone\"]\n\
         algorithms = [\"ES256\"]\njwks_file = \"{}\"\nclock_skew = 0\ngroups = \"groups\"\nsponsor = \"sponsor\"\n",
        keys.display()
    );
    fs::write(&config, issuer).unwrap();
    let lab = Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[]);
    // One session that calls whenever it is told to, and says how that went.
    let calls = "n=0; while [ ! -e $LABTEST/end ]; do if [ -e $LABTEST/call ]; then rm $LABTEST/call; \
                 aws s3api list-buckets > $LABTEST/said.new 2>&1; echo \"exit: $?\" >> $LABTEST/said.new; \
                 mv $LABTEST/said.new $LABTEST/said; fi; sleep 0.1; done";
    let place = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let at = place.path().display();
    let agent = lab.spawn_agent(&format!("{REGION} export LABTEST={at}; {calls}"));
    let call = || {
        let said = place.path().join("said");
        let _ = fs::remove_file(&said);
        fs::write(place.path().join("call"), "").unwrap();
        until("an answer", || said.exists());
        fs::read_to_string(said).unwrap()
    };
    let before = call();
    assert!(before.contains("AccessDenied"), "{before}");
    let own = text(&lab.calls()[0], "session").to_owned();
    let session = lab.list("sessions").into_iter().find(|it| text(it, "id") == own).unwrap();
    let register = |token: &str| {
        let file = place.path().join("token");
        fs::write(&file, token).unwrap();
        let cgroup = text(&session, "cgroup");
        lab.operator(&format!("chaperone register --cgroup {cgroup} --token-file {}", file.display()))
    };
    // What isn't believed changes nothing, and is told.
    let other = Provider::new().token("repo:app", 600, &json!({}));
    for (token, why) in [
        (provider.token("repo:app", 600, &json!({ "aud": "somebody" })), "audience"),
        (provider.token("repo:app", 600, &json!({ "iss": "https://ci.example.com/" })), "issuer"),
        (provider.token("repo:app", 600, &json!({ "exp": 1_000 })), "ended"),
        (other, "signature"),
        ("a.b.c".to_owned(), "token"),
    ] {
        let refused = register(&token);
        let said = both(&refused);
        assert!(!refused.status.success() && said.contains(why), "{why}: {said}");
        assert!(!said.contains(&token), "{said}");
    }
    assert!(call().contains("AccessDenied"));

    let good = register(&provider.token("repo:app", 20, &json!({})));
    assert!(good.status.success(), "{}\n{}", both(&good), lab.log());
    let now = call();
    assert!(now.contains("exit: 0"), "{now}\n{}", lab.log());
    let status: Value = serde_json::from_str(&lab.operator_ok("chaperone status --json")).unwrap();
    let told = status["sessions"].as_array().unwrap().iter().find(|it| it["id"] == session["id"]).unwrap();
    assert_eq!(
        (&told["identity"]["subject"], &told["identity"]["sponsor"]),
        (&json!("repo:app"), &json!("alice@example.com"))
    );
    // Somebody else's is refused, and its own goes on with a fresh one or ends.
    let another = register(&provider.token("repo:other", 600, &json!({})));
    assert!(!another.status.success() && both(&another).contains("keeps its identity"), "{}", both(&another));
    until("the token's end", || call().contains("ended with its token"));
    assert!(register(&provider.token("repo:app", 600, &json!({}))).status.success());
    assert!(call().contains("exit: 0"));
    fs::write(place.path().join("end"), "").unwrap();
    assert!(agent.wait_with_output().unwrap().status.success());
    assert!(lab.log().contains("a session's agent is identified") && !lab.log().contains("eyJ"), "{}", lab.log());
}
