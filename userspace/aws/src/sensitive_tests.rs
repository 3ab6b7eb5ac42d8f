//! Synthetic answers of every operation with sensitive members, in every protocol: no byte of a secret goes on, wherever
//! the answer is cut. What botocore reads of them is `cargo xtask sensitive --prove`'s to say.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write as _},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chaperone_masking::{Fixed, Format, Masker, Rules};
use serde::{Deserialize, Serialize};

use crate::SensitiveMembers;

/// Made by `xtask/python/answers.py make` from botocore 1.44.5.
static ANSWERS: &[u8] = include_bytes!("../tests/data/answers.ndjson.zst");
/// Answers up to this length are cut everywhere.
const SMALL: usize = 400;

#[derive(Deserialize)]
struct Line {
    service: String,
    operation: String,
    protocol: String,
    format: String,
    body: String,
    secrets: Vec<String>,
}

#[derive(Serialize)]
struct MaskedLine<'a> {
    service: &'a str,
    operation: &'a str,
    protocol: &'a str,
    body: String,
}

fn mask(format: Format, rules: &Rules, pieces: &[&[u8]]) -> Vec<u8> {
    let mut masker = Masker::new(format, rules.clone(), Box::new(Fixed));
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(&Bytes::copy_from_slice(piece), &mut out).unwrap();
    }
    masker.finish(&mut out).unwrap();
    out.concat()
}

#[test]
fn no_secret_of_any_operation_goes_on_wherever_its_answer_is_cut() {
    let mut masked =
        std::env::var_os("CHAPERONE_ANSWERS_MASKED").map(|path| std::io::BufWriter::new(File::create(path).unwrap()));
    let (mut answers, mut secrets) = (0, 0);
    for line in BufReader::new(zstd::Decoder::new(ANSWERS).unwrap()).lines() {
        let line: Line = serde_json::from_str(&line.unwrap()).unwrap();
        let name = format!("{}:{} in {}", line.service, line.operation, line.protocol);
        let format = match line.format.as_str() {
            "json" => Format::Json,
            "xml" => Format::Xml,
            _ => Format::Cbor,
        };
        let members = SensitiveMembers::of(&line.service, &line.operation, format == Format::Xml);
        let all = members.and_then(|it| it.all).unwrap_or_else(|| panic!("{name}: nothing is selected"));
        let rules = Rules { selectors: vec![Arc::new(all)], ..Rules::default() };
        let body = STANDARD.decode(&line.body).unwrap();
        let whole = mask(format, &rules, &[&body]);
        for secret in [&b"SECRET-"[..], b"U0VDUkVUL"] {
            assert!(memchr::memmem::find(&whole, secret).is_none(), "{name}: {}", String::from_utf8_lossy(&whole));
        }
        let cuts: Vec<usize> = if body.len() <= SMALL {
            (1..body.len()).collect()
        } else {
            (1..5).map(|n: usize| n.wrapping_mul(2_654_435_761) % body.len()).collect()
        };
        for cut in cuts {
            assert!(mask(format, &rules, &[&body[..cut], &body[cut..]]) == whole, "{name}: cut at {cut}");
        }
        if let Some(masked) = &mut masked {
            let Line { service, operation, protocol, .. } = &line;
            let body = STANDARD.encode(&whole);
            serde_json::to_writer(&mut *masked, &MaskedLine { service, operation, protocol, body }).unwrap();
            writeln!(masked).unwrap();
        }
        answers += 1;
        secrets += line.secrets.len();
    }
    assert!(answers >= 2000 && secrets >= 10_800, "{answers} answers with {secrets} secrets");
}
