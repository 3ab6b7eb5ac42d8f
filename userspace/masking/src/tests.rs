//! Every format, at every split: secrets are in no byte that goes on, and everything else is the same.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    CustomDetector, Detectors, Finding, Fixed, Format, Kind, MaskError, Masker, Rules, Selector, SelectorBuilder,
};

const GITHUB: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
const JWT: &str =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
const P: &str = "chaperone-masked";

fn selector(paths: &[(&str, Kind)], xml: bool) -> Arc<Selector> {
    let mut builder = SelectorBuilder::default();
    for (path, kind) in paths {
        builder.path(path, "sensitive", *kind, xml).unwrap();
    }
    Arc::new(builder.build())
}

fn paths(paths: &[(&str, Kind)], xml: bool) -> Rules {
    Rules { selectors: vec![selector(paths, xml)], ..Rules::default() }
}

fn detectors() -> Rules {
    Rules { detectors: Some(Detectors::credentials()), ..Rules::default() }
}

fn run(format: Format, rules: &Rules, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<Finding>), MaskError> {
    let mut masker = Masker::new(format, rules.clone(), Box::new(Fixed));
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(&Bytes::copy_from_slice(piece), &mut out)?;
    }
    masker.finish(&mut out)?;
    Ok((out.concat(), masker.findings().all().to_vec()))
}

/// What comes of a body, which must be the same at every split into two or three, and byte by byte.
fn masked(format: Format, rules: &Rules, body: &[u8]) -> Vec<u8> {
    let (whole, findings) = run(format, rules, &[body]).unwrap();
    for at in 0..=body.len() {
        let (split, found) = run(format, rules, &[&body[..at], &body[at..]]).unwrap();
        assert_eq!(String::from_utf8_lossy(&split), String::from_utf8_lossy(&whole), "split at {at}");
        assert_eq!(found, findings, "split at {at}");
        let next = (at + 7).min(body.len());
        let (split, _) = run(format, rules, &[&body[..at], &body[at..next], &body[next..]]).unwrap();
        assert_eq!(String::from_utf8_lossy(&split), String::from_utf8_lossy(&whole), "split at {at} and {next}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(String::from_utf8_lossy(&run(format, rules, &bytes).unwrap().0), String::from_utf8_lossy(&whole));
    whole
}

fn text(format: Format, rules: &Rules, body: &str) -> String {
    String::from_utf8(masked(format, rules, body.as_bytes())).unwrap()
}

#[test]
fn members_of_json_are_masked_and_the_rest_stays() {
    let rules = paths(
        &[
            ("Secret", Kind::Text),
            ("Blob", Kind::Blob),
            ("Env.*", Kind::Text),
            ("Items[].Key", Kind::Text),
            ("At", Kind::Timestamp),
            ("Pin", Kind::Number),
            ("Whole", Kind::Text),
            ("Pair\u{e9}", Kind::Text),
        ],
        false,
    );
    let body = r#"{"Secret":"a\"b\u00e9\\","x":{"Secret":"stays"},"Blob":"c2VjcmV0","Env":{"A":"one","B":"", "C":null},
        "Items":[{"Key":"k1","Name":"n"},{"Name":"m","Key":"k2"}],"At":1.5e9,"Pin":12345,"Secr\u0065t":"again",
        "Whole":{"a":[true,"deep",-0.5],"b":null},"Pairé":"é𝄞","Last":[],"n":[0,-1,1e+5,2.50]} "#;
    let expected = format!(
        r#"{{"Secret":"{P}","x":{{"Secret":"stays"}},"Blob":"{}","Env":{{"A":"{P}","B":"", "C":null}},
        "Items":[{{"Key":"{P}","Name":"n"}},{{"Name":"m","Key":"{P}"}}],"At":0,"Pin":0,"Secr\u0065t":"{P}",
        "Whole":{{"a":[false,"{P}",0],"b":null}},"Pairé":"{P}","Last":[],"n":[0,-1,1e+5,2.50]}} "#,
        STANDARD.encode(P)
    );
    assert_eq!(text(Format::Json, &rules, body), expected);
    let (_, found) = run(Format::Json, &rules, &[body.as_bytes()]).unwrap();
    assert!(found.contains(&Finding { rule: "sensitive".into(), path: "Items[].Key".into(), count: 2 }), "{found:?}");
    // Twice the same name: both.
    assert_eq!(
        text(Format::Json, &rules, r#"{"Secret":"a","Secret":"b"}"#),
        format!(r#"{{"Secret":"{P}","Secret":"{P}"}}"#)
    );
    // A byte order mark, and lines.
    assert_eq!(text(Format::Json, &rules, "\u{feff}{\"Secret\":\"a\"}"), format!("\u{feff}{{\"Secret\":\"{P}\"}}"));
    let lines = "{\"Secret\":\"a\"}\n{\"b\":1}\n{\"Secret\":\"c\"}";
    assert_eq!(
        text(Format::JsonLines, &rules, lines),
        format!("{{\"Secret\":\"{P}\"}}\n{{\"b\":1}}\n{{\"Secret\":\"{P}\"}}")
    );
}

#[test]
fn a_member_beside_a_secret_can_say_that_it_is_none() {
    let mut builder = SelectorBuilder::default();
    let (parameter, value) = (builder.node().unwrap(), builder.node().unwrap());
    builder.member(SelectorBuilder::ROOT, "P", parameter);
    builder.member(parameter, "Value", value);
    builder.mask(value, "sensitive", Kind::Text);
    builder.spares(parameter, "Type", &["String"]);
    builder.spared(value);
    let rules = Rules { selectors: vec![Arc::new(builder.build())], ..Rules::default() };
    let one = |kind: &str, value: &str| format!(r#"{{"P":{{"Type":"{kind}","Value":"{value}"}}}}"#);
    assert_eq!(text(Format::Json, &rules, &one("String", "a")), one("String", "a"));
    assert_eq!(text(Format::Json, &rules, &one("Str\\u0069ng", "a")), one("Str\\u0069ng", "a"));
    assert_eq!(text(Format::Json, &rules, &one("SecureString", "a")), one("SecureString", P));
    // Nobody has said so yet, or says so elsewhere, or takes it back.
    for before in [
        r#""Value":"a","Type":"String""#,
        r#""x":{"Type":"String"},"Value":"a""#,
        r#""Type":"String","Type":"x","Value":"a""#,
    ] {
        let out = text(Format::Json, &rules, &format!("{{\"P\":{{{before}}}}}"));
        assert_eq!(out, format!("{{\"P\":{{{}}}}}", before.replace("\"a\"", &format!("\"{P}\""))));
    }
    let of = |kind: &str| {
        let mut body = b"\xa1\x61P\xa2\x64Type".to_vec();
        body.push(0x60 + u8::try_from(kind.len()).unwrap());
        body.extend(kind.as_bytes());
        body.extend(b"\x65Value\x61a");
        body
    };
    assert_eq!(masked(Format::Cbor, &rules, &of("String")), of("String"));
    assert!(masked(Format::Cbor, &rules, &of("SecureString")).ends_with(P.as_bytes()));
}

#[test]
fn what_is_no_json_is_refused() {
    for rules in [paths(&[("a", Kind::Text)], false), detectors()] {
        for bad in [
            "{",
            "{\"a\":\"b\"",
            "{\"a\" \"b\"}",
            "{\"a\":1,}",
            "[1,]",
            "[,1]",
            "{a:1}",
            "{'a':1}",
            "01",
            "1.",
            "-",
            "+1",
            "1e",
            "tru",
            "nul",
            "NaN",
            "[1 2]",
            "{\"a\":\"\n\"}",
            "\"\\x\"",
            "\"\\u12g4\"",
            "{} {}",
            "]",
            "}",
            "[}",
            "{]",
            "x",
            "\"",
            "\"a\\",
            "\u{feff}\u{feff}{}",
            "{\"a\":1 \"b\":2}",
            "[\"a\",\"b\"",
            "\u{0}",
        ] {
            for pieces in [vec![bad.as_bytes()], bad.as_bytes().chunks(1).collect()] {
                assert!(run(Format::Json, &rules, &pieces).is_err(), "{bad}");
            }
        }
        assert!(run(Format::Json, &rules, &[b"{\"a\":\"\xff\"}"]).is_err());
        assert!(run(Format::Json, &rules, &[b"{\"b\":\"\xc3\"}"]).is_err());
        assert!(run(Format::Json, &rules, &["[".repeat(1000).as_bytes()]).is_err());
        for good in ["", "0", "-1.5e-7", "null", "\"\"", "[]", "{}", " [ ] ", "[[],{}]", "\"\\ud834\\udd1e\\ud834\""] {
            assert_eq!(text(Format::Json, &rules, good), good);
        }
    }
}

#[test]
fn detectors_look_into_json_behind_its_escapes() {
    let body = format!(
        r#"{{"a":"x {GITHUB}, y","b":"\u0067hp_16C7e42F292c6912E7710c838347Ae178B4a","c":"say \"{GITHUB}\"","{GITHUB}":1,
        "d":"-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1c7+9z5Pad7OejecsQ0buJkwdpNhfnZ0kgBvBCbDABLXAaIr\nabc=\n-----END RSA PRIVATE KEY-----\n",
        "e":"{{\"u\":\"postgres://admin:s3cr\\/t@db:5432/x\"}}","f":"ghp_\u002d{GITHUB}","g":"é\u00e9{JWT}"}}"#
    );
    let out = text(Format::Json, &detectors(), &body);
    let expected = format!(
        r#"{{"a":"x {P}, y","b":"{P}","c":"say \"{P}\"","{P}":1,
        "d":"-----BEGIN RSA PRIVATE KEY-----\n{P}\n-----END RSA PRIVATE KEY-----\n",
        "e":"{{\"u\":\"postgres://admin:s3cr\\/t@db:5432/x\"}}","f":"ghp_\u002d{P}","g":"é\u00e9{JWT}"}}"#
    );
    // A backslash in a password is not looked over; and behind a letter begins no token.
    let expected = expected.replace(JWT, P);
    assert_eq!(out, expected);
}

#[test]
fn members_of_xml_are_masked_and_the_rest_stays() {
    let rules = paths(&[("Credentials.Secret", Kind::Text), ("Users.Name", Kind::Text), ("Data", Kind::Blob)], true);
    let body = "<?xml version=\"1.0\"?>\n<R xmlns=\"http://x/\">\n <Res><Credentials>\n<Secret>a&amp;b&#x2F;</Secret>\n<Id>1</Id></Credentials>\
        <Users><member><Name><![CDATA[x<y]]></Name><b/></member><member><Name>é</Name><Secret>s</Secret></member></Users>\
        <Data>c2VjcmV0</Data><!-- c --><Empty></Empty><n:Data a='1>2'>c2U=</n:Data></Res></R>\n";
    let blob = STANDARD.encode(P);
    let expected = format!(
        "<?xml version=\"1.0\"?>\n<R xmlns=\"http://x/\">\n <Res><Credentials>\n<Secret>{P}</Secret>\n<Id>1</Id></Credentials>\
        <Users><member><Name>{P}</Name><b/></member><member><Name>{P}</Name><Secret>s</Secret></member></Users>\
        <Data>{blob}</Data><!-- c --><Empty></Empty><n:Data a='1>2'>{blob}</n:Data></Res></R>\n"
    );
    assert_eq!(text(Format::Xml, &rules, body), expected);
    let found = format!(
        "<a><k>x {GITHUB} &lt;</k><k>&#103;hp_16C7e42F292c6912E7710c838347Ae178B4a</k><k><![CDATA[{GITHUB}]]></k><k at=\"{GITHUB}\"/></a>"
    );
    assert_eq!(
        text(Format::Xml, &detectors(), &found),
        format!("<a><k>x {P} &lt;</k><k>{P}</k><k><![CDATA[{P}]]></k><k at=\"{P}\"/></a>")
    );
}

#[test]
fn what_is_no_xml_of_awss_is_refused() {
    for rules in [paths(&[("a", Kind::Text)], true), detectors()] {
        for bad in [
            "<a>",
            "</a>",
            "<a></b>",
            "x",
            "<a/>x",
            "<a/><b/>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a/>",
            "<a>&x;</a>",
            "<a>&#xzz;</a>",
            "<a>&amp</a>",
            "<a b></a>",
            "<a b=c/>",
            "<a b='<'/>",
            "<a><!-- -- --></a>",
            "<a><![CDATA[x]]</a>",
            "<a><?x?></a>",
            "<a>x<![CDATA[y]]></a>",
            "<a>x<!-- c -->y</a>",
            "<a",
            "<a>&#1114112;</a>",
            "<>",
            "< a/>",
            "<a><![FOO[]]></a>",
        ] {
            for pieces in [vec![bad.as_bytes()], bad.as_bytes().chunks(1).collect()] {
                assert!(run(Format::Xml, &rules, &pieces).is_err(), "{bad}");
            }
        }
        assert!(run(Format::Xml, &rules, &["<a>".repeat(1000).as_bytes()]).is_err());
        assert!(run(Format::Xml, &rules, &[b"<a>\xff</a>"]).is_err());
        for good in ["", "<a/>", "\u{feff}<a/>", "<a b=\"c\" d='e'/>", "<a>\n <b>é</b>\n</a >"] {
            assert_eq!(text(Format::Xml, &rules, good), good);
        }
    }
}

fn cbor(value: &ciborium::Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

#[test]
fn members_of_cbor_are_masked_and_the_rest_stays() {
    use ciborium::Value::{Array, Bool, Bytes as Blob, Float, Integer, Map, Null, Tag, Text};
    let t = |text: &str| Text(text.to_owned());
    let of = |secret: &str, blob: &[u8], number: i32, time: f64, long: &str| {
        Map(vec![
            (t("Secret"), t(secret)),
            (t("Blob"), Blob(blob.to_vec())),
            (t("Pin"), Integer(number.into())),
            (t("At"), Tag(1, Box::new(Float(time)))),
            (t("Items"), Array(vec![Map(vec![(t("Key"), t(secret)), (t("Name"), t("n"))]), Null, Bool(true)])),
            (t("Other"), t("stays")),
            (t("Long"), t(long)),
        ])
    };
    let rules = paths(
        &[
            ("Secret", Kind::Text),
            ("Blob", Kind::Blob),
            ("Pin", Kind::Number),
            ("At", Kind::Timestamp),
            ("Items[].Key", Kind::Text),
        ],
        false,
    );
    let long = "x".repeat(300);
    let out = masked(Format::Cbor, &rules, &cbor(&of("the secret", b"raw", 70_000, 1.5e9, &long)));
    let read: ciborium::Value = ciborium::from_reader(&out[..]).unwrap();
    let Map(mut expected) = of(P, P.as_bytes(), 0, 0.0, &long) else { unreachable!() };
    expected[3].1 = Tag(1, Box::new(Integer(0.into())));
    assert_eq!(read, Map(expected));
    // Of unknown lengths.
    let mut parts = b"\xbf\x66Secret\x7f\x63abc\x63def\xff\x65Items\x9f\xbf\x63Key\x61k\xff\xff\xff".to_vec();
    let out = masked(Format::Cbor, &rules, &parts);
    assert!(!String::from_utf8_lossy(&out).contains("abc") && memchr::memmem::find(&out, P.as_bytes()).is_some());
    let read: ciborium::Value = ciborium::from_reader(&out[..]).unwrap();
    assert_eq!(read.as_map().unwrap()[0].1, t(P));
    // What a detector finds, in short and in long ones, and in parts.
    let long = format!("{} {GITHUB} {}", "x".repeat(70_000), "y".repeat(70_000));
    for text in [format!("a {GITHUB} b"), long] {
        let body = cbor(&Map(vec![(t("k"), t(&text))]));
        let (out, _) = run(Format::Cbor, &detectors(), &body.chunks(1000).collect::<Vec<_>>()).unwrap();
        assert!(memchr::memmem::find(&out, GITHUB.as_bytes()).is_none());
        let read: ciborium::Value = ciborium::from_reader(&out[..]).unwrap();
        assert!(read.as_map().unwrap()[0].1.as_text().unwrap().contains(P));
    }
    let (head, tail) = GITHUB.split_at(10);
    parts = b"\x7f\x6a".to_vec();
    parts.extend(head.as_bytes());
    parts.extend(b"\x78\x1e");
    parts.extend(tail.as_bytes());
    parts.push(0xff);
    assert_eq!(masked(Format::Cbor, &detectors(), &parts), [b"\x70", P.as_bytes()].concat());
    for bad in [
        &b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x7b\x00\x00\x00\xff\xff\xff\xff\xffx",
        &[0x81; 5000],
        b"\xa0\xa0",
        b"\x61\xff",
        b"\xa1\x01\x02",
        b"\xff",
        b"\x9f\xc1\xff",
        b"\xbf\x61a\xff",
        b"\x1c",
        b"\x7f\x41a\xff",
        b"\xf8\x01",
        b"\x62a",
        b"\xa1\x41a\x01",
        &[0xc1; 20],
        b"\x1f",
    ] {
        assert!(run(Format::Cbor, &rules, &[bad]).is_err(), "{bad:x?}");
        assert!(run(Format::Cbor, &detectors(), &bad.chunks(1).collect::<Vec<_>>()).is_err(), "{bad:x?}");
    }
}

fn message(event: &str, kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":message-type", "event"), (":event-type", event), (":content-type", kind)] {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend(name.as_bytes());
        headers.push(7);
        headers.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let total = u32::try_from(16 + headers.len() + payload.len()).unwrap();
    let mut out = total.to_be_bytes().to_vec();
    out.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

#[test]
fn messages_of_event_streams_are_framed_anew() {
    let rules = paths(&[("chunk.secret", Kind::Text)], false);
    let json = "application/json";
    let body = |secret: &str| {
        [
            message("chunk", json, format!("{{\"secret\":\"{secret}\",\"n\":1}}").as_bytes()),
            message("end", json, b"{\"secret\":\"s\"}"),
        ]
        .concat()
    };
    assert_eq!(masked(Format::EventStream, &rules, &body("hidden")), body(P));
    // A secret over two messages of one event, and others in between.
    let octets = "application/octet-stream";
    let (head, tail) = GITHUB.split_at(12);
    let split = [
        message("Records", octets, format!("row,{head}").as_bytes()),
        message("Records", octets, format!("{tail},row\nghp_").as_bytes()),
        message("Stats", "text/xml", b"<Stats><n>1</n></Stats>"),
        message("End", octets, b""),
    ]
    .concat();
    let out = masked(Format::EventStream, &detectors(), &split);
    let expected = [
        message("Records", octets, b"row,"),
        message("Records", octets, format!("{P},row\n").as_bytes()),
        message("Records", octets, b"ghp_"),
        message("Stats", "text/xml", b"<Stats><n>1</n></Stats>"),
        message("End", octets, b""),
    ]
    .concat();
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    let good = body("x");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(run(Format::EventStream, &rules, &[&bad]).is_err(), "changed at {at}");
    }
    assert!(run(Format::EventStream, &rules, &[&good[..good.len() - 1]]).is_err());
}

#[test]
fn plain_text_is_looked_through_and_goes_on_as_it_came() {
    let body = format!("token={GITHUB}\nurl: mysql://root:hunter2!@db/x {JWT}.\nsk-nothing AKIA eyJ xox");
    assert_eq!(
        text(Format::Text, &detectors(), &body),
        format!("token={P}\nurl: mysql://root:{P}@db/x {P}.\nsk-nothing AKIA eyJ xox")
    );
    let clean = Bytes::from("nothing in it, https://example.com/a@b and user@host:22\n".repeat(100));
    let mut masker = Masker::new(Format::Text, detectors(), Box::new(Fixed));
    let mut out = Vec::new();
    masker.push(&clean, &mut out).unwrap();
    masker.finish(&mut out).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].as_ptr(), clean.as_ptr(), "no byte is copied");
}

#[test]
fn custom_expressions_are_bounded() {
    let of = |pattern: &str| CustomDetector::new("own", pattern, 100);
    for bad in ["(", "a*", "((a{1000}){1000}){1000}", &"a".repeat(5000), &"(".repeat(100)] {
        assert!(of(bad).is_err(), "{bad}");
    }
    let own = of("emp-(?<secret>[0-9]{6})\\b").unwrap();
    let rules = Rules { detectors: Some(Detectors::new(&["github"], vec![own]).unwrap()), ..Rules::default() };
    let body = format!("emp-123456 emp-12345 {GITHUB} emp-654321");
    assert_eq!(text(Format::Text, &rules, &body), format!("emp-{P} emp-12345 {P} emp-{P}"));
    assert!(Detectors::new(&["nobody"], Vec::new()).is_err());
}

#[test]
fn card_numbers_are_found_by_their_checksum() {
    let rules = Rules { detectors: Some(Detectors::new(&["card-number"], Vec::new()).unwrap()), ..Rules::default() };
    let body = "4111111111111111, 4111 1111 1111 1111; 5500-0000-0000-0004 4111111111111112 12345678901234567890 a4111111111111111 378282246310005 1.4111111111111111";
    let expected =
        format!("{P}, {P}; {P} 4111111111111112 12345678901234567890 a4111111111111111 {P} 1.4111111111111111");
    assert_eq!(text(Format::Text, &rules, body), expected);
}

#[test]
fn a_long_text_is_masked_in_bounded_memory() {
    let rules = paths(&[("Secret", Kind::Text)], false);
    let mut masker = Masker::new(Format::Json, rules, Box::new(Fixed));
    let mut out = Vec::new();
    masker.push(&Bytes::from_static(b"{\"Secret\":\""), &mut out).unwrap();
    let part = Bytes::from(vec![b'a'; 1 << 16]);
    for _ in 0..160 {
        masker.push(&part, &mut out).unwrap();
    }
    masker.push(&Bytes::from_static(b"\",\"b\":1}"), &mut out).unwrap();
    masker.finish(&mut out).unwrap();
    assert_eq!(out.concat(), format!("{{\"Secret\":\"{P}\",\"b\":1}}").as_bytes());
}

/// JSON of any shape, with a secret where `S` is.
fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|it| json!(f64::from(it) / 4.0)),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z\"\\\\é]{0,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_byte_of_a_secret_goes_on_and_the_rest_is_equal(
        mut value in prop::collection::btree_map("[a-z]{1,4}", json(), 0..4),
        secret in "\\PC{1,20}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ascii in any::<bool>(),
    ) {
        let marked = format!("§{secret}§");
        value.insert("Secret".to_owned(), marked.clone().into());
        let mut body = serde_json::to_string(&value).unwrap();
        if ascii {
            // As Java and others write it.
            body = body.chars().map(|c| if c.is_ascii() { c.to_string() } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }).collect();
        }
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        places.extend([0, body.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &body.as_bytes()[pair[0]..pair[1]]).collect();
        let rules = paths(&[("Secret", Kind::Text)], false);
        let (out, _) = run(Format::Json, &rules, &pieces).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        value.insert("Secret".to_owned(), P.into());
        prop_assert_eq!(read, serde_json::to_value(&value).unwrap());
        prop_assert!(memchr::memmem::find(&out, marked.as_bytes()).is_none());
        // And nothing at all where nothing is selected.
        let (same, _) = run(Format::Json, &paths(&[("Nowhere.x", Kind::Text)], false), &pieces).unwrap();
        prop_assert_eq!(same, body.as_bytes());
    }
}

/// Bodies of each format, for being broken.
const SEEDS: [(Format, &[u8]); 6] = [
    (Format::Json, b"\xef\xbb\xbf{\"s\":\"a\\u00e9\\ud834\\udd1e\",\"x\":[1,-2.5e3,true,null,{\"y\":\"AKIA -----BEGIN \"}]} "),
    (Format::JsonLines, b"{\"s\":1}\n[\"ghp_16C7e42F292c6912E7710c838347Ae178B4a\"]\n\"://a:b@c\" 12"),
    (Format::Xml, b"<?xml version=\"1.0\"?><R a='b'><s>x&amp;&#x41;</s><t><![CDATA[a]]b]]></t><!-- c --><u/></R>"),
    (Format::Cbor, b"\xbf\x61s\x7f\x62ab\x61c\xff\x61x\x83\x1a\x00\x01\x02\x03\xc1\xfb\x41\xd9\x00\x00\x00\x00\x00\x00\xf5\x62yy\x43abc\xff"),
    (Format::Text, b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.x sk-ant-api03-aa postgres://u:pw@h ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    (Format::EventStream, b""),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_comes_is_the_same_at_every_cut(
        seed in 0..SEEDS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let (format, body) = SEEDS[seed];
        let mut body = if format == Format::EventStream {
            [message("Records", "application/octet-stream", b"a ghp_16C7e42F292c"),
             message("Records", "application/octet-stream", b"6912E7710c838347Ae178B4a b"),
             message("s", "application/json", b"{\"y\":1}")].concat()
        } else {
            body.to_vec()
        };
        for (at, byte, how) in edits {
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => { body.remove(at); }
            }
            if body.is_empty() {
                break;
            }
        }
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        places.extend([0, body.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
        let xml = format == Format::Xml;
        let nothing = paths(&[("no.such.member", Kind::Text)], xml);
        for rules in [&nothing, &detectors(), &paths(&[("s", Kind::Text), ("x", Kind::Blob)], xml)] {
            let whole = run(format, rules, &[&body]).map(|(out, _)| out);
            let cut = run(format, rules, &pieces).map(|(out, _)| out);
            prop_assert_eq!(whole.is_ok(), cut.is_ok());
            if let (Ok(whole), Ok(cut)) = (whole, cut) {
                prop_assert!(whole == cut, "{} and {}", String::from_utf8_lossy(&whole), String::from_utf8_lossy(&cut));
            }
        }
        if let Ok((same, _)) = run(format, &nothing, &pieces) {
            prop_assert!(same == body);
        }
    }
}

/// What is told of a body before it is read holds for what goes on of it.
#[test]
fn what_detectors_find_can_be_written_over_by_as_many_bytes() {
    let token = format!("ghp_{}", "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5"); // well-formed by its letters and its length
    for (format, body) in [
        (Format::Text, format!("key = {token}\n")),
        (Format::Json, format!("{{\"a\":\"x {token} \\u00e9\\/{token}\"}}")),
        (Format::JsonLines, format!("{{\"a\":\"{token}\"}}\n[\"{token}\"]\n")),
        (Format::Xml, format!("<a b=\"{token}\"><c>{token}</c><![CDATA[x]]></a>").replace("<![CDATA[x]]>", "")),
        (Format::Xml, format!("<a><![CDATA[{token}]]></a>")),
    ] {
        for step in [1, 5, 64, 4096] {
            let rules = Rules { same_length: true, ..detectors() };
            let mut masker = Masker::new(format, rules, Box::new(Fixed));
            let mut out = Vec::new();
            for piece in body.as_bytes().chunks(step) {
                masker.push(&Bytes::copy_from_slice(piece), &mut out).unwrap();
            }
            masker.finish(&mut out).unwrap();
            let out = String::from_utf8(out.concat()).unwrap();
            assert_eq!(out.len(), body.len(), "{format:?} {step}: {out}");
            assert!(!out.contains("aB3dE5") && out.contains("chaperone-masked--"), "{format:?} {step}: {out}");
        }
    }
}
