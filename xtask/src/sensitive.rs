//! `cargo xtask sensitive`: compiles from botocore's models which members of answers are masked, for `chaperone-aws`.

use std::{fs, process::Command};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::place;

/// Arguments of `cargo xtask sensitive`.
#[derive(Args, Debug)]
pub struct Options {
    /// The version of botocore.
    #[arg(long, default_value = "1.44.5")]
    botocore: String,
    /// Mask synthetic answers of every operation, and have botocore read them (some minutes).
    #[arg(long, conflicts_with = "check")]
    prove: bool,
    /// Change nothing; fail if the committed data aren't what the models and the reviewed list make.
    #[arg(long)]
    check: bool,
}

/// Compiles the data anew. Needs python3 with venv, and reaches PyPI.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let root = place::root();
    let venv = root.join("target/sensitive-venv");
    let python = venv.join("bin/python");
    execute(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    execute(
        Command::new(&python).args(["-m", "pip", "install", "--quiet"]).arg(format!("botocore=={}", options.botocore)),
    )?;
    if options.prove {
        let masked = root.join("target/answers-masked.ndjson");
        execute(
            place::cargo()
                .args(["test", "--quiet", "--locked", "-p", "chaperone-aws", "--lib", "no_secret_of_any_operation"])
                .env("CHAPERONE_ANSWERS_MASKED", &masked),
        )?;
        return execute(Command::new(&python).arg(root.join("xtask/python/answers.py")).arg("check").arg(&masked));
    }
    let script = root.join("xtask/python/sensitive.py");
    let output = Command::new(&python).arg(&script).output().with_context(|| format!("start {}", script.display()))?;
    ensure!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim_end());
    let text = String::from_utf8(output.stdout).context("the data are not UTF-8")?;
    let data = root.join("userspace/aws/data/sensitive.ndjson.zst");
    let committed = fs::read(&data).with_context(|| format!("read {}", data.display()))?;
    let committed = zstd::decode_all(&committed[..]).with_context(|| format!("expand {}", data.display()))?;
    if options.check {
        ensure!(committed == text.as_bytes(), "{} is not what these models and the list make", data.display());
        println!("sensitive: the committed data are what the models and the reviewed list make");
        return Ok(());
    }
    let mut packed = Vec::new();
    for line in text.split_inclusive('\n') {
        packed.extend(zstd::bulk::compress(line.as_bytes(), 19).context("compress a line")?);
    }
    fs::write(&data, &packed).with_context(|| format!("write {}", data.display()))?;
    println!("sensitive: {} ({} bytes)", data.display(), packed.len());
    Ok(())
}

fn execute(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("start `{name}`; is it installed?"))?;
    if !status.success() {
        bail!("`{name}` failed ({status}); its own output is above");
    }
    Ok(())
}
