//! What makes an AMI of the image: told exactly, or done with the credentials of whoever asks.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use clap::Args;

use super::Architecture;
use crate::{Refusal, place, setup};

#[derive(Args, Debug)]
pub struct Ami {
    /// The region of the AMI.
    #[arg(long, requires = "publish", value_name = "REGION")]
    region: Option<String>,
    /// The AMI's name.
    #[arg(long, requires = "publish", value_name = "NAME")]
    name: Option<String>,
    /// Do it, with the credentials that boto3 finds.
    #[arg(long, requires = "publish")]
    yes: bool,
}

pub fn run(image: &Path, architecture: &Architecture, ami: &Ami) -> Result<()> {
    if !image.exists() {
        anyhow::bail!(Refusal(format!("{} isn't there: `cargo xtask image` makes it", image.display())));
    }
    let script = place::root().join("ami/publish.py");
    let python = if ami.yes { setup::lab_python()? } else { "/usr/bin/python3".into() };
    let mut command = Command::new(python);
    command.arg(script).arg("--image").arg(image).args(["--architecture", architecture.name]);
    for (flag, value) in [("--region", &ami.region), ("--name", &ami.name)] {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    if ami.yes {
        command.arg("--yes");
    }
    let status = command.status()?;
    ensure!(status.success(), "the image isn't published; what is wrong is above");
    Ok(())
}
