//! The key that sessions' placeholder credentials are derived from: made on the first start, and kept beside the CA.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use chaperone_aws::PlaceholderKey;

use crate::config::ConfigError;

/// The key in that folder, and the boot's own name.
pub fn open_or_create(folder: &Path) -> Result<(PlaceholderKey, String), ConfigError> {
    let path = folder.join("placeholders.key");
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path),
        read => read,
    };
    let failed = |what: &str| ConfigError(format!("the key of placeholders, {}: {what}", path.display()));
    let bytes = bytes.map_err(|error| failed(&error.to_string()))?;
    let bytes: [u8; PlaceholderKey::BYTES] =
        bytes.try_into().map_err(|_| failed("it isn't 32 bytes long; remove it, and agents get other placeholders"))?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|error| ConfigError(format!("reading /proc/sys/kernel/random/boot_id: {error}")))?;
    Ok((PlaceholderKey::new(&bytes), boot.trim().to_owned()))
}

/// Whole or not at all.
fn create(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PlaceholderKey::BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system has no randomness"))?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use chaperone_model::SessionId;

    use super::*;

    #[test]
    fn the_next_daemon_has_the_same_key_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let id = || {
            let (key, boot) = open_or_create(folder.path()).unwrap();
            key.derive(SessionId::new(), &[boot.as_bytes()]).access_key_id().to_owned()
        };
        let first = id();
        assert_eq!(id(), first);
        let path = folder.path().join("placeholders.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(open_or_create(folder.path()).unwrap_err().to_string().contains("32 bytes"));
    }
}
