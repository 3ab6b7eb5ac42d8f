//! What `setup` starts as an agent: a client of the metadata address that knows nothing of Chaperone.

use std::process::ExitCode;

use crate::metadata;

/// Prints the role that the metadata address has for this process, as AWS's SDKs ask for it.
pub fn run() -> anyhow::Result<ExitCode> {
    let token = metadata::token()?;
    println!("{}", metadata::word("/latest/meta-data/iam/security-credentials/", &token)?);
    Ok(ExitCode::SUCCESS)
}
