//! Who an agent is, by a token.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod provider;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
    path::Path,
};

use chaperone_system_tests::{Caller, Lab, PERMIT_ALL, both, python, script, text, until};
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
    let caller = Caller::start(&lab, "coder");
    let call = || caller.call();
    let place = caller.place();
    let before = call();
    assert!(before.contains("AccessDenied"), "{before}");
    let own = text(&lab.calls()[0], "session").to_owned();
    let session = lab.list("sessions").into_iter().find(|it| text(it, "id") == own).unwrap();
    let register = |token: &str| {
        let file = place.join("token");
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
    caller.end();
    assert!(lab.log().contains("a session's agent is identified") && !lab.log().contains("eyJ"), "{}", lab.log());
}

/// The settings that the files' tests have in common.
fn issuer(keys: &Path) -> String {
    format!(
        "[[identity.issuers]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudiences = [\"chaperone\"]\n\
         algorithms = [\"ES256\"]\njwks_file = \"{}\"\nclock_skew = 0\ngroups = \"groups\"\nsponsor = \"sponsor\"\n\
         claims = {{ team = \"team\" }}\n",
        keys.display()
    )
}

/// Puts a token where a file is looked for, in one step, as whoever renews tokens does.
fn put(at: &Path, token: &str) {
    let new = at.with_extension("new");
    fs::write(&new, token).unwrap();
    fs::rename(&new, at).unwrap();
}

#[test]
#[allow(clippy::too_many_lines)] // one session, one story
fn a_token_file_is_read_again_and_only_from_those_who_are_trusted() {
    const NOBODY: u32 = 65_534;
    let provider = Provider::new();
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let at = folder.path().to_owned();
    let tokens = at.join("tokens");
    fs::create_dir(&tokens).unwrap();
    fs::write(at.join("jwks.json"), provider.jwks()).unwrap();
    let (file, dead, config) = (tokens.join("token"), at.join("dead"), at.join("identity.toml"));
    fs::create_dir(&dead).unwrap();
    let agents = format!(
        "[[agents]]\nname = \"coder\"\ncgroups = [\"${{CGROUP}}/agents/coder*\"]\ntoken_file = \"{}\"\n\
         identity = \"required\"\n[[agents]]\nname = \"stuck\"\ncgroups = [\"${{CGROUP}}/agents/stuck*\"]\n\
         token_file = \"{}/token\"\nidentity = \"required\"\n",
        file.display(),
        dead.display()
    );
    fs::write(&config, agents + &issuer(&at.join("jwks.json"))).unwrap();
    let lab = Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[]);
    let token = |subject: &str, seconds: u64, different: &Value| {
        let mut all = json!({ "team": "red" });
        all.as_object_mut().unwrap().extend(different.as_object().unwrap().clone());
        provider.token(subject, seconds, &all)
    };

    // Another agent's file lies where nobody ever answers, from before its session to after the end of everything.
    let command = format!("exec {} {} {}", python(), script("dead_filesystem.py").display(), dead.display());
    let mut silent = lab.spawn_operator(&command);
    let mut ready = String::new();
    BufReader::new(silent.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "mounted\n");
    let stuck = Caller::start(&lab, "stuck");
    let said = stuck.call();
    assert!(said.contains("no token has come") && said.contains("can't be read within 2 seconds"), "{said}");

    // There is none yet; then the agent's own, a link of the agent's, one that anybody may write to, nonsense.
    let caller = Caller::start(&lab, "coder");
    let said = caller.call();
    assert!(said.contains("this agent needs an identity") && said.contains("No such file"), "{said}");
    let good = token("repo:app", 600, &json!({}));
    put(&file, &good);
    chown(&file, Some(NOBODY), None).unwrap();
    caller.until_said("belongs to uid 65534");
    fs::write(tokens.join("good"), &good).unwrap();
    fs::remove_file(&file).unwrap();
    symlink("good", &file).unwrap();
    lchown(&file, Some(NOBODY - 1), None).unwrap();
    caller.until_said("belongs to uid 65533, who could be the agent itself");
    fs::remove_file(&file).unwrap();
    put(&file, &good);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    caller.until_said("others than its owner may write to it");
    put(&file, "no token");
    caller.until_said("this is no signed token");
    put(&file, &provider.token("repo:app", 600, &json!({ "team": null })));
    caller.until_said("the token's claim `team` is not a text");
    pipe(&lab, &file);
    caller.until_said("is not a file");
    put(&file, &token("repo:app", 600, &json!({ "iss": "https://evil.example" })));
    caller.until_said("no configured issuer is `https://evil.example`");
    put(&file, &token("repo:app", 600, &json!({ "nbf": 32_503_680_000_u64 })));
    caller.until_said("which is yet to come");

    // Good, until it ends; another subject's changes nothing.
    put(&file, &token("repo:app", 30, &json!({})));
    caller.until_said("exit: 0");
    put(&file, &token("repo:other", 600, &json!({})));
    until("the refusal of another subject", || lab.log().contains("keeps its identity"));
    let status = || {
        let status: Value = serde_json::from_str(&lab.operator_ok("chaperone status --json")).unwrap();
        let coders = status["sessions"].as_array().unwrap().iter().filter(|it| it["agent"] == "coder");
        // The latest: their ids begin with the time.
        coders.max_by_key(|it| text(it, "id").to_owned()).unwrap().clone()
    };
    assert_eq!(status()["identity"]["subject"], "repo:app");
    assert!(text(&status(), "identity_trouble").contains("`repo:other`"), "{}", status());
    let said = caller.until_said("ended with its token");
    assert!(said.contains("AccessDenied") && said.contains("bring a fresh token"), "{said}");

    // Renewed as Kubernetes does it: by a link to another folder, in one step.
    let folder = |name: &str, token: &str| {
        fs::create_dir(tokens.join(name)).unwrap();
        fs::write(tokens.join(name).join("token"), token).unwrap();
        symlink(name, tokens.join("..data.new")).unwrap();
        fs::rename(tokens.join("..data.new"), tokens.join("..data")).unwrap();
    };
    folder("..first", &token("repo:app", 600, &json!({ "jti": "first" })));
    fs::remove_file(&file).unwrap();
    symlink("..data/token", &file).unwrap();
    caller.until_said("exit: 0");
    let end = status()["identity"]["expires"].clone();
    // Made anew with the same end and other groups.
    let exp = time::OffsetDateTime::parse(end.as_str().unwrap(), &time::format_description::well_known::Rfc3339)
        .unwrap()
        .unix_timestamp();
    folder("..second", &token("repo:app", 600, &json!({ "jti": "second", "exp": exp, "groups": ["readers"] })));
    caller.until_said("AccessDenied");
    assert_eq!((&status()["identity"]["groups"], &status()["identity"]["expires"]), (&json!(["ci:readers"]), &end));
    // And all the while nobody waited for the other agent's.
    assert!(stuck.call().contains("can't be read within 2 seconds"));
    caller.end();
    stuck.end();
    drop(silent.stdin.take());
    assert!(silent.wait().unwrap().success());
    let log = lab.log();
    assert_eq!(log.matches("can't be read within 2 seconds").count(), 1, "it is told once: {log}");
    assert!(!log.contains("eyJ"), "{log}");
}

/// A pipe in a file's place, which whoever opened it would wait at.
fn pipe(lab: &Lab, at: &Path) {
    let _ = fs::remove_file(at);
    lab.operator_ok(&format!("mkfifo -m 600 {}", at.display()));
}

/// The fake STS is asked in words that the real one takes: `RoleSessionName` and `SourceIdentity` are `[\w+=,.@-]*` of 2 to 64,
/// tags' values at most 256 of letters, digits, spaces and `_.:/=+-@` (STS's reference, AssumeRole and Tag).
#[test]
fn roles_sessions_are_named_by_who_it_is_within_what_sts_takes() {
    let provider = Provider::new();
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let at = folder.path().to_owned();
    fs::write(at.join("jwks.json"), provider.jwks()).unwrap();
    let (file, config) = (at.join("token"), at.join("identity.toml"));
    let more = format!(
        "[[agents]]\nname = \"coder\"\ncgroups = [\"${{CGROUP}}/agents/coder*\"]\ntoken_file = \"{}\"\n[[roles]]\n\
         agents = [\"coder\"]\narn = \"arn:aws:iam::123456789012:role/agents\"\nsession_name = \"{{subject}}\"\n\
         source_identity = \"{{sponsor}}\"\ntags = {{ team = \"{{claim.team}}\", who = \"{{subject}} for {{sponsor}}\" }}\n",
        file.display()
    );
    fs::write(&config, more + &issuer(&at.join("jwks.json"))).unwrap();
    let lab = Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], PERMIT_ALL, &[]);
    let long = format!("repo:octo-org/{}:environment:production", "a-long-name".repeat(20));
    let subjects = [
        ("repo-7@ci", "alice@example.com", "red"),
        ("repo:octo-org/octo-repo:environment:prod", "alice@example.com", "red"),
        ("repo-octo-org-octo-repo-environment-prod", "alice@example.com", "red"),
        ("system:serviceaccount:agents:coder", "jürgen müller", "rot & grün; <b>"),
        ("x", "y", "z"),
        (&long, &"s".repeat(500), &"ü".repeat(250)),
        ("{agent}", "{session}", "{claim.team}"),
        ("a&RoleArn=arn:aws:iam::1:role/admin", "b%26c", "#{}\\"),
    ];
    let mut names = BTreeSet::new();
    for (subject, sponsor, team) in subjects {
        let seen = lab.upstream().len();
        put(&file, &provider.token(subject, 600, &json!({ "sponsor": sponsor, "team": team })));
        let said = lab.agent_ok(&format!("{REGION} aws sts get-caller-identity --query Arn --output text"));
        let upstream = lab.upstream();
        let asked = upstream[seen..].iter().find(|it| text(it, "body").contains("Action=AssumeRole")).unwrap();
        let form: Vec<(String, String)> = parsed(text(asked, "body"));
        let value = |name: &str| {
            let mut found = form.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone());
            let one = found.next().unwrap_or_else(|| panic!("no {name} in {form:?}"));
            assert_eq!(found.next(), None, "{name} twice");
            one
        };
        assert_eq!(value("RoleArn"), "arn:aws:iam::123456789012:role/agents");
        let (name, source) = (value("RoleSessionName"), value("SourceIdentity"));
        for text in [&name, &source] {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
            assert!((2..=64).contains(&text.len()) && text.bytes().all(fits), "{subject}: {text}");
        }
        for at in 1..=2 {
            let tag = value(&format!("Tags.member.{at}.Value"));
            let fits = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
            assert!(tag.chars().count() <= 256 && tag.chars().all(fits), "{subject}: {tag}");
        }
        assert!(said.trim().ends_with(&format!("assumed-role/agents/{name}")), "{said}: {form:?}");
        if subject == "repo-7@ci" {
            assert_eq!((&*name, &*source), (subject, sponsor));
            let tags = [value("Tags.member.1.Key"), value("Tags.member.1.Value"), value("Tags.member.2.Value")];
            assert_eq!(tags, ["team", "red", "repo-7@ci for alice@example.com"]);
        }
        assert!(names.insert(name), "{subject} is another one's name: {names:?}");
    }
}

/// A form's fields.
fn parsed(form: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        let mut bytes = text.bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                out.push(byte);
            }
        }
        String::from_utf8(out).unwrap()
    };
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// A runner registers its own jobs; nobody else does, and nobody anything else.
#[test]
fn a_registrar_says_who_its_own_jobs_are_and_nothing_more() {
    let provider = Provider::new();
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let at = folder.path().to_owned();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at.join("jwks.json"), provider.jwks()).unwrap();
    let config = at.join("identity.toml");
    let more = format!("[identity]\nregistrars = [\"daemon\"]\n{}", issuer(&at.join("jwks.json")));
    fs::write(&config, more).unwrap();
    let lab = Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[]);
    let job = |user: &str| {
        let place = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
        let pid = place.path().join("pid");
        let become_it = format!("exec setpriv --reuid {user} --clear-groups sleep infinity");
        // The shell's number, which is the job's.
        let child = lab.spawn_agent(&format!("echo $$ > {}; {become_it}", pid.display()));
        let mut number = String::new();
        until("the job's beginning", || {
            number = fs::read_to_string(&pid).unwrap_or_default().trim().to_owned();
            fs::read_to_string(format!("/proc/{number}/comm")).is_ok_and(|it| it == "sleep\n")
        });
        (child, number)
    };
    let ((mut own, mine), (mut other, theirs)) = (job("daemon"), job("nobody"));
    let file = lab.file("job.token", &provider.token("repo:app", 600, &json!({ "team": "red" })));
    let as_user = |user: &str, command: &str| {
        lab.operator(&format!("exec setpriv --reuid {user} --clear-groups chaperone {command}"))
    };
    let register = |user: &str, pid: &str| as_user(user, &format!("register --pid {pid} --token-file {file}"));
    for (user, pid, why) in [
        ("daemon", &theirs, "isn't yours"),
        ("nobody", &theirs, "asking the daemon"),
        ("nobody", &mine, "asking the daemon"),
    ] {
        let refused = register(user, pid);
        assert!(!refused.status.success() && both(&refused).contains(why), "{user}: {}", both(&refused));
    }
    let done = register("daemon", &mine);
    assert!(done.status.success() && both(&done).contains("is repo:app at"), "{}\n{}", both(&done), lab.log());
    // Nothing else may be asked there, and no agent's process is heard.
    let ask = |what: &str| {
        let socket = lab.dir.join("register.sock");
        format!(
            "curl -sS --max-time 20 --unix-socket {} -H 'content-type: application/json' -d '{what}' http://x/v1/control",
            socket.display()
        )
    };
    for what in [r#"{"request":"status"}"#, r#"{"request":"reload"}"#, r#"{"request":"stop","of":"coder"}"#] {
        let said = both(&lab.operator(&format!("setpriv --reuid daemon --clear-groups {}", ask(what))));
        assert!(said.contains("others than root may register sessions, and nothing else"), "{what}: {said}");
    }
    let agent = lab.agent(&format!("setpriv --reuid daemon --clear-groups {}", ask(r#"{"request":"status"}"#)));
    assert!(!agent.status.success(), "{}", both(&agent));
    assert!(lab.log().contains("agents don't say who they are"), "{}", lab.log());
    for child in [&mut own, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
