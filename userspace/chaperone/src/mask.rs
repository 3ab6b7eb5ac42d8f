//! `chaperone mask`: what would be masked in an answer, and why. Needs no daemon and no privileges.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use chaperone_aws::{Catalog, SensitiveMembers};
use chaperone_masking::{DETECTORS, Detectors, Fixed, Format, Kind, Masker, Rules, Selector, SelectorBuilder};
use serde::Serialize;

use crate::{
    cli::{self, MaskCommand},
    output::{clean, json_line},
};

/// What was given can't be tested.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadMask(String);

#[derive(Serialize)]
struct Tested<'a> {
    format: String,
    masked: u64,
    findings: &'a [chaperone_masking::Finding],
}

pub fn run(what: &MaskCommand, json: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match what {
        MaskCommand::Detectors => {
            for one in DETECTORS {
                if json {
                    let line = serde_json::json!({"name": one.name, "finds": one.finds, "default": one.default});
                    json_line(&mut out, &line)?;
                } else {
                    let default = if one.default { "on" } else { "off" };
                    writeln!(out, "{:24} {default:4} {}", one.name, one.finds)?;
                }
            }
        }
        MaskCommand::Test(test) => self::test(test, json, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn test(test: &cli::MaskTest, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let mut source: Box<dyn Read> = if test.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&test.file).with_context(|| format!("open {}", test.file.display()))?)
    };
    let mut piece = vec![0; 64 * 1024];
    let read = fill(&mut *source, &mut piece).with_context(|| format!("read {}", test.file.display()))?;
    let format = format(test, &piece[..read])?;
    let mut masker = Masker::new(format, rules(test, format)?, Box::new(Fixed));
    let (mut length, mut given) = (read, Vec::new());
    while length > 0 {
        masker.push(&Bytes::copy_from_slice(&piece[..length]), &mut given).map_err(|error| bad(&error))?;
        write(test, &mut given, out)?;
        length = source.read(&mut piece).with_context(|| format!("read {}", test.file.display()))?;
    }
    masker.finish(&mut given).map_err(|error| bad(&error))?;
    write(test, &mut given, out)?;
    let findings = masker.findings();
    if test.body {
        return Ok(());
    }
    if json {
        let tested = Tested { format: format!("{format:?}"), masked: findings.count(), findings: findings.all() };
        json_line(out, &tested)?;
        return Ok(());
    }
    for finding in findings.all() {
        writeln!(out, "{:24} {:>6}  {}", clean(&finding.rule), finding.count, clean(&finding.path))?;
    }
    writeln!(out, "{} masked in {format:?}", findings.count())?;
    Ok(())
}

fn bad(error: &chaperone_masking::MaskError) -> BadMask {
    BadMask(format!("{error}: the answer would be refused (masking.on_error)"))
}

fn write(test: &cli::MaskTest, given: &mut Vec<Bytes>, out: &mut impl Write) -> io::Result<()> {
    for bytes in given.drain(..) {
        if test.body {
            out.write_all(&bytes)?;
        }
    }
    Ok(())
}

fn fill(source: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < piece.len() {
        match source.read(&mut piece[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// By the content type or, without one, by how the body begins.
fn format(test: &cli::MaskTest, body: &[u8]) -> Result<Format, BadMask> {
    if let Some(kind) = &test.content_type {
        return Format::of(kind).ok_or_else(|| {
            BadMask(format!("--content-type `{kind}`: there is no masker for it; text/plain takes bytes of any sort"))
        });
    }
    let begins = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start().first();
    Ok(match begins {
        Some(b'{' | b'[') => Format::Json,
        Some(b'<') => Format::Xml,
        _ => Format::Text,
    })
}

fn rules(test: &cli::MaskTest, format: Format) -> Result<Rules, BadMask> {
    let xml = format == Format::Xml;
    let mut rules = Rules { detectors: Some(Detectors::credentials()), ..Rules::default() };
    if let Some(operation) = &test.operation {
        let known = operation
            .split_once(':')
            .filter(|(service, operation)| Catalog::global().has_operation(service, operation));
        let (service, name) = known.ok_or_else(|| {
            BadMask(format!("--operation `{operation}`: no such operation; write it as secretsmanager:GetSecretValue"))
        })?;
        let members = SensitiveMembers::of(service, name, xml);
        let selected = members.and_then(|it| if test.sensitive { it.all } else { it.secrets });
        rules.selectors.extend(selected.map(Arc::new));
    }
    if !test.path.is_empty() {
        let mut builder = SelectorBuilder::default();
        for path in &test.path {
            builder.path(path, "--path", Kind::Text, xml).map_err(|error| BadMask(error.to_string()))?;
        }
        rules.selectors.push(Arc::new(Selector::from(builder)));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(operation: Option<&str>, body: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), body).unwrap();
        let test = cli::MaskTest {
            file: file.path().to_owned(),
            content_type: None,
            operation: operation.map(str::to_owned),
            sensitive: false,
            path: vec!["Pin".to_owned()],
            body: false,
        };
        let mut out = Vec::new();
        super::test(&test, true, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_would_be_masked_is_said_and_the_secret_is_not() {
        let body = r#"{"SecretString":"hunter2","Pin":"1","x":"ghp_16C7e42F292c6912E7710c838347Ae178B4a"}"#;
        let said = test(Some("secretsmanager:GetSecretValue"), body).unwrap();
        for part in ["\"sensitive\"", "SecretString", "--path", "github", "\"masked\":3"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("hunter2") && !said.contains("ghp_"));
        assert!(test(None, "{").unwrap_err().contains("refused"));
        assert!(test(Some("s3:Nothing"), "{}").unwrap_err().contains("no such operation"));
    }
}
