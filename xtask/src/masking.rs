//! `cargo xtask masking`: the built-in detectors against samples, near-misses and ordinary text from outside.

mod samples;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use chaperone_masking::{DETECTORS, Detectors, Format, Masker, Rules, Secret, Vault};
use clap::Args;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::{masking::samples::Sampler, place};

/// Samples that are made of each expression.
const SAMPLES: usize = 40;
const MIN_RECALL: f64 = 0.99;
/// One false hit in so many bytes of ordinary text at most.
const BYTES_PER_FALSE_HIT: u64 = 10_000_000;
const YAML: &str = "PyYAML==6.0.2";

/// Arguments of `cargo xtask masking`.
#[derive(Args, Debug)]
pub struct Options {
    /// Use what was fetched before.
    #[arg(long)]
    offline: bool,
    /// Say every sample that is missed and every hit in ordinary text.
    #[arg(long)]
    show: bool,
    /// The figures as JSON.
    #[arg(long)]
    json: bool,
    /// Change nothing in docs/masking.md.
    #[arg(long)]
    check: bool,
}

/// What a vendor's tokens look like, by a public list.
#[derive(Deserialize)]
struct Kind {
    id: String,
    pattern: String,
    group: usize,
}

/// Which detector is to find a kind, and what a well-formed one looks like where the list's expression fits much else.
#[derive(Debug)]
struct Assigned {
    detector: String,
    narrower: Option<String>,
}

/// A kind with a detector.
struct Known {
    id: String,
    detector: String,
    pattern: String,
    group: usize,
    /// What is well-formed.
    expression: Regex,
    /// The list's own.
    listed: Regex,
}

impl Known {
    fn new(kind: &Kind, own: &Assigned) -> Result<Self> {
        let pattern = own.narrower.clone().unwrap_or_else(|| kind.pattern.clone());
        Ok(Self {
            id: kind.id.clone(),
            detector: own.detector.clone(),
            group: if own.narrower.is_some() { 1 } else { kind.group },
            expression: expression(&kind.id, &pattern)?,
            listed: expression(&kind.id, &kind.pattern)?,
            pattern,
        })
    }

    /// The secret itself.
    fn secret<'a>(&self, captures: &regex::bytes::Captures<'a>) -> Option<&'a [u8]> {
        let own = captures.get(self.group.max(1)).or_else(|| captures.get(0));
        own.map(|it| it.as_bytes())
    }
}

/// What came of one detector.
#[derive(Debug, Default, Serialize)]
struct Figures {
    /// Well-formed secrets, and how many of them were found.
    samples: u64,
    found: u64,
    /// What only looks like one, and how often it was taken for one.
    near_misses: u64,
    mistaken: u64,
    /// Hits in ordinary text that are no secrets.
    false_hits: u64,
}

#[derive(Serialize)]
struct Report {
    detectors: BTreeMap<String, Figures>,
    /// Kinds of secrets that the list knows and no detector finds.
    unknown_kinds: Vec<String>,
    ordinary_bytes: u64,
    false_hits: u64,
    /// Hits in ordinary text that are well-formed secrets: examples in documentation, keys of tests.
    examples: u64,
}

/// Runs every default detector over all of it. Reaches PyPI and crates.io.
pub fn run(options: &Options) -> Result<()> {
    let folder = place::target()?.join("masking-corpus");
    if !options.offline {
        fetch(&folder)?;
    }
    let kinds = kinds(&folder)?;
    let mut report = Report {
        detectors: DETECTORS
            .iter()
            .filter(|it| it.default)
            .map(|it| (it.name.to_owned(), Figures::default()))
            .collect(),
        unknown_kinds: Vec::new(),
        ordinary_bytes: 0,
        false_hits: 0,
        examples: 0,
    };
    let own = assigned()?;
    let mut known = Vec::new();
    for kind in kinds {
        match own.get(&kind.id) {
            Some(own) => known.push(Known::new(&kind, own)?),
            None => report.unknown_kinds.push(kind.id),
        }
    }
    ensure!(known.len() == own.len(), "xtask/masking/kinds.tsv names kinds that the list doesn't have");
    let show = |text: String| {
        if options.show {
            eprintln!("{text}");
        }
    };
    made(&known, &mut report, &show)?;
    tests(&folder.join("samples"), &known, &mut report, &show)?;
    ordinary(&folder.join("ordinary"), &mut report, &show)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).context("writing the figures")?);
    } else {
        print!("{}", table(&report));
    }
    if !options.check {
        document(&report)?;
    }
    judge(&report)
}

fn fetch(folder: &Path) -> Result<()> {
    let venv = folder.with_file_name("masking-venv");
    let python = venv.join("bin/python");
    execute(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    execute(Command::new(&python).args(["-m", "pip", "install", "--quiet", YAML]))?;
    execute(Command::new(&python).arg(place::root().join("xtask/python/masking_corpus.py")).arg(folder))
}

fn execute(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("starting `{name}`; is it installed?"))?;
    if !status.success() {
        bail!("`{name}` failed ({status}); its own output is above");
    }
    Ok(())
}

fn kinds(folder: &Path) -> Result<Vec<Kind>> {
    let file = folder.join("rules.ndjson");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("reading {}", file.display()))).collect()
}

/// xtask/masking/kinds.tsv: the list's id, the detector, and perhaps a narrower expression.
fn assigned() -> Result<BTreeMap<String, Assigned>> {
    let file = place::root().join("xtask/masking/kinds.tsv");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut all = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let at = at + 1;
        let mut fields = line.split('\t');
        let (Some(kind), Some(detector)) = (fields.next(), fields.next()) else {
            bail!("{}:{at}: no tab", file.display());
        };
        let is = DETECTORS.iter().any(|it| it.default && it.name == detector);
        ensure!(is, "{}:{at}: there is no default detector `{detector}`", file.display());
        let own = Assigned { detector: detector.to_owned(), narrower: fields.next().map(str::to_owned) };
        ensure!(all.insert(kind.to_owned(), own).is_none(), "{}:{at}: twice", file.display());
    }
    Ok(all)
}

/// Secrets made by the list's expressions, and what is made of those and is none by any of them.
fn made(known: &[Known], report: &mut Report, show: &dyn Fn(String)) -> Result<()> {
    for kind in known {
        let mut sampler = Sampler::new(&kind.pattern).with_context(|| format!("the expression of {}", kind.id))?;
        // Borders of words aren't walked through: what doesn't fit for them is made again.
        let fitting = (0..SAMPLES * 50).filter_map(|_| {
            let text = sampler.sample();
            let secret = kind.secret(&kind.expression.captures(&text)?)?.to_vec();
            kind.listed.is_match(&text).then_some((text, secret))
        });
        let fitting: Vec<_> = fitting.take(SAMPLES).collect();
        ensure!(fitting.len() == SAMPLES, "too little fits {} that is made of it", kind.id);
        let figures = report.detectors.get_mut(&kind.detector).context("BUG: a detector without figures")?;
        for (text, secret) in fitting {
            let text = [b"The value: ", &text[..], b"\n"].concat();
            figures.samples += 1;
            if is_found(&hits(&text), &secret) {
                figures.found += 1;
            } else {
                let text = String::from_utf8_lossy(&text);
                show(format!("missed: {} ({}): {}", kind.id, kind.detector, text.trim_end()));
            }
            for near in near_misses(&secret) {
                let text = [b"The value: ", &near[..], b"\n"].concat();
                if known.iter().any(|it| it.listed.is_match(&text)) {
                    continue;
                }
                figures.near_misses += 1;
                if let Some((rule, _)) = hits(&text).first() {
                    figures.mistaken += 1;
                    show(format!("mistaken: {} ({rule}): {}", kind.id, String::from_utf8_lossy(&near)));
                }
            }
        }
    }
    Ok(())
}

/// Half of a secret, and one of the same letter from its middle on.
fn near_misses(secret: &[u8]) -> [Vec<u8>; 2] {
    let half = secret[..secret.len() / 2].to_vec();
    let mut same = secret.to_vec();
    for byte in &mut same[secret.len() / 4..] {
        if byte.is_ascii_alphanumeric() {
            *byte = b'x';
        }
    }
    [half, same]
}

/// What scanners' own tests hold: wherever an expression finds something that isn't plainly a stand-in.
fn tests(folder: &Path, known: &[Known], report: &mut Report, show: &dyn Fn(String)) -> Result<()> {
    for file in files(folder)? {
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let found = hits(&text);
        let mut seen = BTreeSet::new();
        for kind in known {
            for captures in kind.expression.captures_iter(&text) {
                let Some(secret) = kind.secret(&captures) else { continue };
                if !seen.insert(secret.to_vec()) || is_stand_in(secret) {
                    continue;
                }
                let figures = report.detectors.get_mut(&kind.detector).context("BUG: a detector without figures")?;
                figures.samples += 1;
                if is_found(&found, secret) {
                    figures.found += 1;
                } else {
                    let secret = String::from_utf8_lossy(secret);
                    show(format!("missed in {}: {} ({}): {secret}", file.display(), kind.id, kind.detector));
                }
            }
        }
    }
    Ok(())
}

/// Whether nobody would take it for a secret: of few different characters, or with words that say so.
fn is_stand_in(secret: &[u8]) -> bool {
    let distinct: BTreeSet<u8> = secret.iter().copied().collect();
    let text = String::from_utf8_lossy(secret).to_ascii_lowercase();
    let says = [
        "example",
        "pass",
        "xxxx",
        "placeholder",
        "your",
        "changeme",
        "redacted",
        "0000000",
        "aaaaaa",
        "abcdefgh",
        "{",
        "$",
        "...",
    ];
    distinct.len() < 8 || says.iter().any(|it| text.contains(it))
}

/// Answers, templates, documentation and source code. What is found there and was reviewed to be well-formed isn't false.
fn ordinary(folder: &Path, report: &mut Report, show: &dyn Fn(String)) -> Result<()> {
    let file = place::root().join("xtask/masking/examples.tsv");
    let reviewed = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let reviewed: BTreeSet<&str> = reviewed.lines().filter_map(|line| line.split('\t').next()).collect();
    let own = place::root().join("userspace/aws/tests/data");
    let mut all = files(folder)?;
    all.extend(["answers.ndjson.zst", "wire.ndjson.zst"].map(|name| own.join(name)));
    for file in all {
        let mut text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        if file.extension().is_some_and(|it| it == "zst") {
            text = zstd::decode_all(&text[..]).with_context(|| format!("expanding {}", file.display()))?;
        }
        report.ordinary_bytes += text.len() as u64;
        for (rule, value) in hits(&text) {
            let id = fingerprint(&value);
            if reviewed.contains(id.as_str()) {
                report.examples += 1;
                continue;
            }
            report.false_hits += 1;
            report.detectors.entry(rule.clone()).or_default().false_hits += 1;
            let value = String::from_utf8_lossy(&value[..value.len().min(120)]).into_owned();
            show(format!("ordinary: {rule}\t{id}\t{value:?}\t{}", file.file_name().unwrap_or_default().display()));
        }
    }
    Ok(())
}

/// A hit as it is named in xtask/masking/examples.tsv: FNV-1a of 64 bits, which is no secret's guard.
fn fingerprint(value: &[u8]) -> String {
    let hash = value
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("listing {}; fetch it first", folder.display()))?;
    let mut all: Vec<PathBuf> = listed.map(|it| Ok(it?.path())).collect::<Result<_>>()?;
    all.sort_unstable();
    ensure!(!all.is_empty(), "{} is empty: fetch it first", folder.display());
    Ok(all)
}

fn expression(id: &str, pattern: &str) -> Result<Regex> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(64 << 20)
        .build()
        .with_context(|| format!("reading the expression of {id}"))
}

/// What the default detectors take for secrets, by the masker that answers go through.
fn hits(text: &[u8]) -> Vec<Hit> {
    let rules = Rules { detectors: Some(Detectors::credentials()), ..Rules::default() };
    let seen = Seen::default();
    let mut masker = Masker::new(Format::Text, rules, Box::new(seen.clone()));
    let mut out = Vec::new();
    masker.push(&Bytes::copy_from_slice(text), &mut out).expect("BUG: any bytes are text");
    masker.finish(&mut out).expect("BUG: any bytes are text");
    std::mem::take(&mut seen.0.lock().expect("BUG: nobody panics while it is held"))
}

/// Masked enough of a secret: its end, or more than half of it.
fn is_found(hits: &[Hit], secret: &[u8]) -> bool {
    let within = |text: &[u8], part: &[u8]| text.windows(part.len().max(1)).any(|it| it == part);
    let end = &secret[secret.len().saturating_sub(16)..];
    hits.iter().any(|(_, hit)| within(hit, end) || hit.len() * 2 >= secret.len() && within(secret, hit))
}

/// What a detector took for a secret: its name, and the text.
type Hit = (String, Vec<u8>);

/// Notes what is masked.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Hit>>>);

impl Vault for Seen {
    fn placeholder(&mut self, secret: Secret<'_>) -> String {
        let value = secret.value.unwrap_or_default().to_vec();
        self.0.lock().expect("BUG: nobody panics while it is held").push((secret.rule.to_owned(), value));
        "masked".to_owned()
    }
}

#[allow(clippy::cast_precision_loss)] // far fewer than 2^52
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 1.0 } else { part as f64 / all as f64 }
}

impl Figures {
    fn recall(&self) -> f64 {
        share(self.found, self.samples)
    }

    fn precision(&self) -> f64 {
        share(self.found, self.found + self.mistaken + self.false_hits)
    }
}

fn table(report: &Report) -> String {
    let mut text = String::from("| detector | samples | recall | near-misses | precision |\n|---|---|---|---|---|\n");
    for (name, it) in &report.detectors {
        let recall = if it.samples == 0 { "—".to_owned() } else { format!("{:.1} %", it.recall() * 100.0) };
        let precision = it.precision() * 100.0;
        text.extend([format!("| {name} | {} | {recall} | {} | {precision:.1} % |\n", it.samples, it.near_misses)]);
    }
    text.extend([format!(
        "\nIn {} MB of ordinary text: {} hits that are none, and {} that are well-formed examples.\n",
        report.ordinary_bytes / 1_000_000,
        report.false_hits,
        report.examples
    )]);
    text
}

/// Puts the figures into the documentation, between its marks.
fn document(report: &Report) -> Result<()> {
    const BEGIN: &str = "<!-- cargo xtask masking: begin -->\n";
    const END: &str = "<!-- cargo xtask masking: end -->";
    let file = place::root().join("docs/masking.md");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{} lacks {BEGIN}", file.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{} lacks {END}", file.display()))?;
    let new = format!("{before}{BEGIN}{}{END}{after}", table(report));
    fs::write(&file, new).with_context(|| format!("writing {}", file.display()))
}

fn judge(report: &Report) -> Result<()> {
    let low: Vec<&str> =
        report.detectors.iter().filter(|(_, it)| it.recall() < MIN_RECALL).map(|(name, _)| &name[..]).collect();
    ensure!(low.is_empty(), "less than {MIN_RECALL} of the samples are found by: {}", low.join(", "));
    ensure!(
        report.false_hits * BYTES_PER_FALSE_HIT <= report.ordinary_bytes,
        "{} false hits in {} bytes of ordinary text; one in {BYTES_PER_FALSE_HIT} may be. `--show` names them; what is a \
         well-formed secret goes into xtask/masking/examples.tsv",
        report.false_hits,
        report.ordinary_bytes
    );
    Ok(())
}
