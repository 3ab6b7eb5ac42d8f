//! A person logs in for an agent in a real browser.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod browser;
mod openid;

use std::io::BufReader;

use browser::Browser;
use chaperone_system_tests::{Caller, text};
use openid::{LOGIN, lab, line_with, session};
use serde_json::json;

#[test]
fn a_person_logs_in_in_chromium_by_either_way() {
    let (lab, mut provider) = lab(LOGIN);
    provider.act(&json!(["start", ["one"]]));
    let mut browser = Browser::start(&lab, "https://127.0.0.1:8449");
    let (caller, said) = Caller::start_by(&lab, "chaperone run --login=browser --");
    let mut said = BufReader::new(said);
    line_with(&mut said, "open this in a browser on this host");
    let url = line_with(&mut said, "https://").trim().to_owned();
    let page = browser.act(&json!(["logIn", "alice", url, null]));
    assert!(text(&page, "text").contains("This login goes on in the terminal"), "{page}");
    assert!(text(&page, "url").starts_with("http://127.0.0.1:"), "{page}");
    line_with(&mut said, "alice is logged in at op");
    assert!(caller.call().contains("exit: 0"), "{}", lab.log());
    assert_eq!(session(&lab)["identity"]["sponsor"], "alice");
    caller.end();

    let (caller, said) = Caller::start_by(&lab, "chaperone run --login --");
    let mut said = BufReader::new(said);
    let line = line_with(&mut said, "enter the code");
    let after = |word: &str| line.split(word).nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let page = browser.act(&json!(["logIn", "bob", after("open "), after("enter the code ")]));
    assert!(text(&page, "text").contains("Sign-in Success"), "{page}");
    line_with(&mut said, "bob is logged in at op");
    assert!(caller.call().contains("exit: 0"), "{}", lab.log());
    caller.end();
}
