//! How long masking takes: `cargo run --release -p chaperone-masking --example speed`.

use std::{fs, hint::black_box, sync::Arc};

use bytes::Bytes;
use chaperone_masking::{Detectors, Echoes, Fixed, Format, Kind, Masker, Rules, SelectorBuilder};

const MIB: usize = 1 << 20;

fn run(format: Format, rules: &Rules, pieces: &[Bytes]) -> usize {
    let mut masker = Masker::new(format, rules.clone(), Box::new(Fixed));
    let mut out = Vec::with_capacity(8);
    let mut length = 0;
    for piece in pieces {
        masker.push(piece, &mut out).expect("the bodies are whole");
        length += out.drain(..).map(|it| it.len()).sum::<usize>();
    }
    masker.finish(&mut out).expect("the bodies are whole");
    length + out.iter().map(Bytes::len).sum::<usize>()
}

/// The processor's time that this thread has had, in seconds: others may be at work on the machine.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/self/schedstat").expect("the kernel keeps it");
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).expect("it is a number") / 1e9
}

/// Seconds for one, the best of five.
fn time(rounds: u32, mut it: impl FnMut() -> usize) -> f64 {
    let one = |it: &mut dyn FnMut() -> usize| {
        let began = cpu();
        for _ in 0..rounds {
            black_box(it());
        }
        (cpu() - began) / f64::from(rounds)
    };
    (0..5).map(|_| one(&mut it)).fold(f64::MAX, f64::min)
}

#[allow(clippy::cast_precision_loss)] // far fewer than 2^52 bytes
fn main() {
    let mut builder = SelectorBuilder::default();
    builder.path("Function.Environment.Variables.*", "sensitive", Kind::Text, false).expect("the path reads");
    let selectors = vec![Arc::new(builder.build())];
    let members = Rules { selectors: selectors.clone(), ..Rules::default() };
    let detectors = Rules { detectors: Some(Detectors::credentials()), ..Rules::default() };
    // As many values as are kept of a session by default.
    let values: Vec<String> =
        (0..256_u32).map(|at| format!("{:x}-Secret-{at}", at.wrapping_mul(0x9e37_79b9))).collect();
    let echoes = Echoes::new(values.iter().map(|it| (it.as_bytes(), "chaperone-masked-0123456789abcdef")));
    let echoes = Rules { echoes, ..Rules::default() };
    let both = Rules { selectors, detectors: Some(Detectors::credentials()), ..Rules::default() };

    let mut answer = String::from(r#"{"Function":{"Environment":{"Variables":{"A":"one","B":"two"}},"Tags":["#);
    while answer.len() < 1000 {
        answer.push_str(r#"{"Key":"team","Value":"payments-and-invoices","At":1700000000.5},"#);
    }
    answer.push_str("null]}}");
    let answer = [Bytes::from(answer)];
    let all = [("members", &members), ("detectors", &detectors), ("both", &both), ("256 kept values", &echoes)];
    for (name, rules) in all {
        let seconds = time(20_000, || run(Format::Json, rules, &answer));
        println!("JSON of {} bytes, {name}: {:.2} µs", answer[0].len(), seconds * 1e6);
    }

    let line = "2026-11-30T02:00:00Z INFO request id=8f1c9a path=/v1/items/42?page=3 took=12ms from https://example.com/a status=200\n";
    let text: Vec<Bytes> = (0..1024).map(|_| Bytes::from(line.repeat((64 << 10) / line.len()))).collect();
    let length: usize = text.iter().map(Bytes::len).sum();
    let seconds = time(1, || run(Format::Text, &detectors, &text));
    println!("text, credential detectors: {:.0} MB/s", length as f64 / 1e6 / seconds);
    let seconds = time(1, || run(Format::Text, &echoes, &text));
    println!("text, 256 kept values: {:.0} MB/s", length as f64 / 1e6 / seconds);
    let large = format!("[{}0]", r#"{"Key":"team","Value":"payments-and-invoices","At":1700000000.5},"#.repeat(MIB));
    let large: Vec<Bytes> = large.as_bytes().chunks(64 << 10).map(Bytes::copy_from_slice).collect();
    let length: usize = large.iter().map(Bytes::len).sum();
    for (name, rules) in [("members", &members), ("detectors", &detectors)] {
        let seconds = time(1, || run(Format::Json, rules, &large));
        println!("JSON, {name}: {:.0} MB/s", length as f64 / 1e6 / seconds);
    }
}
