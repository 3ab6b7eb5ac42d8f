//! A certified OpenID provider, npm's `oidc-provider`, says who agents are and who works with them.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod openid;

use std::{fs, io::BufReader, process::ChildStdout};

use chaperone_system_tests::{Caller, both, text, until};
use openid::{LOGIN, Provider, lab, line_with, session, session_of};
use serde_json::{Value, json};

/// A token that the provider, or its keys, made.
fn token(provider: &mut Provider, what: &Value) -> String {
    provider.act(what).as_str().unwrap().to_owned()
}

#[test]
#[allow(clippy::too_many_lines)] // one session, one story
fn agents_are_who_a_real_provider_says() {
    let settings = "audiences = [\"chaperone\"]\nclock_skew = 0\nsponsor = \"email\"";
    let (lab, mut provider) = lab(settings);
    let caller = Caller::start(&lab, "coder");
    assert!(caller.call().contains("AccessDenied"));
    let cgroup = text(&session(&lab), "cgroup_path").to_owned();
    let file = caller.place().join("token");
    let register = |token: &str| {
        fs::write(&file, token).unwrap();
        let done = lab.operator(&format!("chaperone register --cgroup {cgroup} --token-file {}", file.display()));
        let said = both(&done);
        assert!(!said.contains(token), "{said}");
        if done.status.success() { Ok(said) } else { Err(said) }
    };
    let refused = |token: &str, why: &str| {
        let said = register(token).expect_err(why);
        assert!(said.contains(why), "{why}: {said}");
    };
    // The provider may be asked again after five seconds.
    let accepted = |token: &str| until("that the token is believed", || register(token).is_ok());

    // Away, with nothing that is known of it; then there.
    provider.act(&json!(["start", ["one"]]));
    let first = token(&mut provider, &json!(["job", "chaperone"]));
    provider.act(&json!(["stop"]));
    refused(
        &first,
        "the keys of the issuer `op` are not known: asking https://127.0.0.1:8449/.well-known/openid-configuration",
    );
    provider.act(&json!(["start", ["one"]]));
    accepted(&first);
    let said = caller.call();
    assert!(said.contains("exit: 0"), "{said}\n{}", lab.log());
    let identity = session(&lab)["identity"].clone();
    let seen = ["provider", "subject", "sponsor"].map(|name| text(&identity, name).to_owned());
    assert_eq!(seen, ["op", "ci-job-7", "alice@example.com"], "{identity}");

    // What is wrong with a token is told.
    let elsewhere = token(&mut provider, &json!(["job", "elsewhere"]));
    refused(&elsewhere, "the token is made for `elsewhere`, and not for `chaperone`");
    for (how, header, claims, why) in [
        ("RS256", json!({}), json!({ "exp": 1_700_000_000 }), "the token ended at 2023-11-14T22:13:20Z"),
        (
            "RS256",
            json!({}),
            json!({ "nbf": 4_102_444_800_u64 }),
            "valid from 2100-01-01T00:00:00Z on, which is yet to come",
        ),
        (
            "RS256",
            json!({}),
            json!({ "iss": "https://127.0.0.1:8450" }),
            "no configured issuer is `https://127.0.0.1:8450`",
        ),
        ("RS256", json!({}), json!({ "sub": "somebody-else" }), "a session keeps its identity"),
        ("RS256", json!({}), json!({ "x": "y".repeat(1 << 20) }), "has more than 16384 bytes"),
        ("none", json!({}), json!({}), "signed with `none`"),
        ("HS256", json!({}), json!({}), "signed with `HS256`"),
        ("HS256", json!({ "alg": "RS256" }), json!({}), "the token's signature is not the issuer `op`'s"),
        ("RS256", json!({ "kid": "another" }), json!({}), "the issuer `op` has no key `another`"),
    ] {
        refused(&token(&mut provider, &json!(["forged", "one", how, header, claims])), why);
    }
    refused(
        &token(&mut provider, &json!(["forged", "stranger", "RS256", { "kid": "one" }, {}])),
        "signature is not the issuer `op`'s",
    );
    assert!(caller.call().contains("exit: 0"), "none of it changes anything");

    // Its keys rotate in the middle; the old one is published for a while.
    provider.act(&json!(["stop"]));
    provider.act(&json!(["start", ["two", "one"]]));
    let second = token(&mut provider, &json!(["job", "chaperone"]));
    accepted(&second);
    register(&token(&mut provider, &json!(["forged", "one", "RS256", {}, {}]))).unwrap();
    // Away: what is known goes on, and what isn't is told with the reason.
    let later = token(&mut provider, &json!(["forged", "two", "RS256", {}, {}]));
    let unknown = token(&mut provider, &json!(["forged", "three", "RS256", {}, {}]));
    provider.act(&json!(["stop"]));
    register(&later).unwrap();
    until("that it is asked again", || {
        register(&unknown).is_err_and(|said| said.contains("(asking https://127.0.0.1:8449/"))
    });
    refused(&unknown, "the issuer `op` has no key `three` that fits `RS256`");
    provider.act(&json!(["start", ["three", "two"]]));
    accepted(&unknown);

    // Another issuer has taken its place: nothing of it is believed, as soon as it is asked.
    let settings = lab.dir.join("config.toml");
    let skew = |seconds: u32| {
        let text = fs::read_to_string(&settings).unwrap();
        let line = text.lines().find(|line| line.starts_with("clock_skew = ")).unwrap().to_owned();
        fs::write(&settings, text.replace(&line, &format!("clock_skew = {seconds}"))).unwrap();
        lab.operator_ok("chaperone reload");
    };
    let document = json!({ "issuer": "https://evil.example", "jwks_uri": "https://evil.example/jwks" });
    provider.act(&json!(["answer", "/.well-known/openid-configuration", document]));
    skew(1);
    let said = caller.call();
    assert!(said.contains("is of an issuer that the configuration has no more, or has changed"), "{said}");
    let fresh = token(&mut provider, &json!(["job", "chaperone"]));
    refused(&fresh, "is the document of the issuer `https://evil.example`, and not of `https://127.0.0.1:8449`");
    provider.act(&json!(["answer", "/.well-known/openid-configuration", null]));
    accepted(&fresh);
    assert!(caller.call().contains("exit: 0"));

    // Ids that collide.
    let both_keys: Vec<Value> = ["three", "four"]
        .map(|name| {
            let mut key = provider.act(&json!(["publicKey", name]));
            key["kid"] = "same".into();
            key
        })
        .to_vec();
    provider.act(&json!(["answer", "/jwks", { "keys": both_keys }]));
    skew(2);
    for name in ["three", "four"] {
        register(&token(&mut provider, &json!(["forged", name, "RS256", { "kid": "same" }, {}]))).unwrap();
    }
    refused(
        &token(&mut provider, &json!(["forged", "one", "RS256", { "kid": "same" }, {}])),
        "signature is not the issuer `op`'s",
    );
    caller.end();
    assert!(!lab.log().contains("eyJ"), "{}", lab.log());
}

/// Where a person is to go, and with which code.
fn device(said: &mut BufReader<ChildStdout>) -> (String, String) {
    let line = line_with(said, "enter the code");
    let after = |word: &str| line.split(word).nth(1).unwrap().split(' ').next().unwrap().to_owned();
    (after("open "), after("enter the code "))
}

#[test]
fn a_person_logs_in_by_a_code_and_is_the_sponsor_while_the_command_runs() {
    let (lab, mut provider) = lab(LOGIN);
    provider.act(&json!(["start", ["one"], { "token": 12 }]));
    let (caller, said) = Caller::start_by(&lab, "chaperone run --login --");
    let mut said = BufReader::new(said);
    let (url, code) = device(&mut said);
    let page = provider.act(&json!(["enter", url, code, "alice"]));
    assert!(page["status"] == 200 && text(&page, "text").contains("Sign-in Success"), "{page}");
    line_with(&mut said, "alice is logged in at op");
    let answer = caller.call();
    assert!(answer.contains("exit: 0"), "{answer}\n{}", lab.log());
    let identity = || session(&lab)["identity"].clone();
    let first = identity();
    assert_eq!((text(&first, "subject"), text(&first, "sponsor")), ("alice", "alice"), "{first}");
    // Twice renewed, nobody notices; and the tokens that the session began with are over.
    let mut ends = vec![first["expires"].clone()];
    while ends.len() < 3 {
        assert!(caller.call().contains("exit: 0"));
        let now = identity()["expires"].clone();
        if ends.last() != Some(&now) {
            ends.push(now);
        }
    }
    // What the provider takes back ends at the token's own end.
    assert!(provider.act(&json!(["revoke"])).as_u64().unwrap() >= 1);
    line_with(&mut said, "the login is over");
    let answer = caller.until_said("ended with its token");
    assert!(answer.contains("AccessDenied"), "{answer}");
    caller.end();
    assert!(!lab.log().contains("eyJ"), "{}", lab.log());
    let shown = lab.operator("grep -a -r -l eyJhbGciOi $CHAPERONE_LAB/journal $CHAPERONE_LAB/state");
    assert!(!shown.status.success(), "a token was kept: {}", both(&shown));
}

/// Sessions begin anew with the daemon; who has logged in need not.
#[test]
fn a_daemon_that_starts_anew_is_told_who_has_logged_in() {
    let (lab, mut provider) = lab(LOGIN);
    provider.act(&json!(["start", ["one"]]));
    let (caller, said) = Caller::start_by(&lab, "chaperone run --login --");
    let mut said = BufReader::new(said);
    let (url, code) = device(&mut said);
    provider.act(&json!(["enter", url, code, "alice"]));
    line_with(&mut said, "alice is logged in at op");
    assert!(caller.call().contains("exit: 0"));
    let before = session(&lab)["identity"].clone();
    let daemon = lab.daemon();
    lab.operator_ok(&format!("kill -9 {daemon}"));
    until("the daemon's end", || {
        !fs::read_to_string(format!("/proc/{daemon}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
    lab.restart();
    until("the session's identity", || session_of(&lab).is_some_and(|it| text(&it["identity"], "subject") == "alice"));
    assert_eq!(
        session(&lab)["identity"]["token_id"],
        before["token_id"],
        "the token that there was, not a renewed one"
    );
    assert!(caller.call().contains("exit: 0"), "{}", lab.log());
    caller.end();
}

#[test]
fn a_login_that_is_refused_or_never_comes_runs_nothing() {
    let (lab, mut provider) = lab(LOGIN);
    let run = |more: &str| {
        let mut child =
            lab.spawn_operator(&format!("exec chaperone run {more} -- touch {}/ran 2>&1", lab.dir.display()));
        let said = BufReader::new(child.stdout.take().unwrap());
        (child, said)
    };
    let away = lab.operator("chaperone run --login -- true");
    let said = both(&away);
    assert!(!away.status.success() && said.contains("logging in at op: asking https://127.0.0.1:8449/"), "{said}");
    provider.act(&json!(["start", ["one"]]));
    let (mut child, mut said) = run("--login");
    let (url, code) = device(&mut said);
    let page = provider.act(&json!(["refuse", url, code]));
    line_with(&mut said, "the login was refused at the provider `op`");
    assert!(!child.wait().unwrap().success(), "{page}");
    assert!(text(&page, "text").contains("interrupted"), "{page}");
    provider.act(&json!(["stop"]));
    provider.act(&json!(["start", ["one"], { "code": 2 }]));
    let (mut child, mut said) = run("--login=device");
    line_with(&mut said, "nobody has logged in at the provider `op` in time");
    assert!(!child.wait().unwrap().success());
    // The person's token is of another client than the one that the daemon believes.
    let (mut child, mut said) = run("--login --issuer elsewhere");
    line_with(&mut said, "--issuer elsewhere: one may log in at op alone");
    assert!(!child.wait().unwrap().success());
    assert!(!lab.dir.join("ran").exists());
}

#[test]
fn a_person_logs_in_in_a_browser_that_comes_back_to_this_host() {
    let (lab, mut provider) = lab(LOGIN);
    provider.act(&json!(["start", ["one"]]));
    let (caller, said) = Caller::start_by(&lab, "chaperone run --login=browser --");
    let mut said = BufReader::new(said);
    line_with(&mut said, "open this in a browser on this host");
    let url = line_with(&mut said, "https://").trim().to_owned();
    for wanted in ["code_challenge_method=S256", "redirect_uri=http%3A%2F%2F127.0.0.1%3A", "nonce=", "state="] {
        assert!(url.contains(wanted), "{wanted}: {url}");
    }
    let page = provider.act(&json!(["signIn", url, "bob"]));
    assert!(page["status"] == 200 && text(&page, "text").contains("goes on in the terminal"), "{page}");
    line_with(&mut said, "bob is logged in at op");
    let answer = caller.call();
    assert!(answer.contains("exit: 0"), "{answer}\n{}", lab.log());
    let identity = session(&lab)["identity"].clone();
    assert_eq!((text(&identity, "subject"), text(&identity, "sponsor")), ("bob", "bob"), "{identity}");
    caller.end();
}
