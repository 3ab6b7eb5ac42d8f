//! The journal's identity: its id and the Ed25519 key that signs checkpoints.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use pem::{EncodeConfig, LineEnding, Pem};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    JournalError,
    error::Context as _,
    record::{ChainHash, Seq, sha256},
};

pub(crate) const ID_FILE: &str = "journal.id";
pub(crate) const KEY_FILE: &str = "journal.key";
pub(crate) const PUBLIC_FILE: &str = "journal.pub";

/// What stands around it, by RFC 7468.
const TAG: &str = "PUBLIC KEY";
/// RFC 8410's SubjectPublicKeyInfo of an Ed25519 key, up to the key's 32 bytes.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key that checkpoints are verified with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// A short name of the key: the first half of its SHA-256, in hexadecimal.
    pub fn id(&self) -> String {
        hex::encode(&sha256(&self.0)[..16])
    }

    /// As PEM (`openssl pkey -pubin` reads it).
    pub fn to_pem(&self) -> String {
        let der = [SPKI.as_slice(), &self.0].concat();
        pem::encode_config(&Pem::new(TAG, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
    }

    /// Reads what [`Self::to_pem`] writes.
    pub fn from_pem(pem: &str) -> Option<Self> {
        let der = pem::parse(pem).ok().filter(|block| block.tag() == TAG)?.into_contents();
        let key = der.strip_prefix(SPKI.as_slice())?;
        Some(Self(key.try_into().ok()?))
    }

    /// Reads the key that stands beside a journal.
    pub fn of_journal(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(PUBLIC_FILE);
        let pem = fs::read_to_string(&path).context("read the journal's public key", &path)?;
        Self::from_pem(&pem)
            .ok_or_else(|| JournalError::Key { path, why: "it is not an Ed25519 public key in PEM".into() })
    }
}

/// What a checkpoint's signature is over: 25 bytes of context, journal id, seq and time (big-endian), chain hash.
fn message(journal: Uuid, seq: Seq, hash: ChainHash, time_us: u64) -> Vec<u8> {
    [
        b"chaperone checkpoint v1\0\0".as_slice(),
        journal.as_bytes(),
        &seq.0.to_be_bytes(),
        &time_us.to_be_bytes(),
        &hash.0,
    ]
    .concat()
}

/// A signed statement: up to record `seq` the chain was `hash`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The journal.
    pub journal: Uuid,
    /// The last record that is covered: the one before the checkpoint.
    pub seq: Seq,
    /// Its hash.
    pub hash: ChainHash,
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// The key's [`PublicKey::id`].
    pub key: String,
    /// Ed25519, in hexadecimal.
    pub signature: String,
}

impl Checkpoint {
    /// Whether `key` signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let Ok(signature) = hex::decode(&self.signature) else { return false };
        let message = message(self.journal, self.seq, self.hash, self.time_us);
        self.key == key.id() && UnparsedPublicKey::new(&ED25519, key.0).verify(&message, &signature).is_ok()
    }
}

/// The journal's id and signing key.
pub(crate) struct Identity {
    pub(crate) journal: Uuid,
    pub(crate) public: PublicKey,
    pair: Ed25519KeyPair,
}

impl Identity {
    /// Reads the identity of the journal in `dir`, or makes one if the folder is new.
    pub(crate) fn load_or_create(dir: &Path) -> Result<Self, JournalError> {
        let id_path = dir.join(ID_FILE);
        if id_path.exists() {
            return Self::load(dir);
        }
        // The id is written last: without it the folder counts as new, so a start that was cut off is done again.
        let key_path = dir.join(KEY_FILE);
        if !key_path.exists() {
            let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .map_err(|_| JournalError::Key { path: key_path.clone(), why: "no randomness to make one".into() })?;
            write_whole(&key_path, document.as_ref(), 0o600)?;
        }
        let pair = read_key(&key_path)?;
        write_whole(&dir.join(PUBLIC_FILE), public_of(&pair).to_pem().as_bytes(), 0o644)?;
        write_whole(&id_path, format!("{}\n", Uuid::now_v7()).as_bytes(), 0o644)?;
        Self::load(dir)
    }

    fn load(dir: &Path) -> Result<Self, JournalError> {
        let pair = read_key(&dir.join(KEY_FILE))?;
        let public = public_of(&pair);
        if PublicKey::of_journal(dir)? != public {
            return Err(JournalError::Key {
                path: dir.join(PUBLIC_FILE),
                why: format!("it does not belong to `{KEY_FILE}` beside it; restore the two together"),
            });
        }
        Ok(Self { journal: journal_id(dir)?, public, pair })
    }

    pub(crate) fn checkpoint(&self, seq: Seq, hash: ChainHash, time_us: u64) -> Checkpoint {
        let signature = self.pair.sign(&message(self.journal, seq, hash, time_us));
        Checkpoint {
            journal: self.journal,
            seq,
            hash,
            time_us,
            key: self.public.id(),
            signature: hex::encode(signature.as_ref()),
        }
    }
}

/// The id of the journal in `dir`.
pub(crate) fn journal_id(dir: &Path) -> Result<Uuid, JournalError> {
    let path = dir.join(ID_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(JournalError::Missing { dir: dir.to_owned() });
        }
        Err(error) => return Err(JournalError::io("read", path, error)),
    };
    Uuid::try_parse(text.trim()).map_err(|_| JournalError::Key { path, why: "it does not hold a UUID".into() })
}

fn read_key(path: &Path) -> Result<Ed25519KeyPair, JournalError> {
    let mode = fs::metadata(path).context("look at", path)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(JournalError::Key {
            path: path.to_owned(),
            why: format!("others may read it (mode {:o}): chmod 600, and consider whether it leaked", mode & 0o777),
        });
    }
    let bytes = fs::read(path).context("read", path)?;
    Ed25519KeyPair::from_pkcs8(&bytes)
        .map_err(|_| JournalError::Key { path: path.to_owned(), why: "it is not an Ed25519 key in PKCS#8".into() })
}

fn public_of(pair: &Ed25519KeyPair) -> PublicKey {
    let key = pair.public_key().as_ref().try_into();
    PublicKey(key.expect("BUG: an Ed25519 public key has 32 bytes"))
}

/// Writes a small file so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), JournalError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let new = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new).context("create", &new)?;
    file.write_all(bytes).context("write", &new)?;
    file.sync_all().context("sync", &new)?;
    fs::rename(&new, path).context("put in place", path)?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).context("sync", dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_in_pem_is_read_as_it_is_written() {
        let key = PublicKey([7; 32]);
        let text = key.to_pem();
        assert_eq!(
            text,
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEABwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n-----END PUBLIC KEY-----\n"
        );
        assert_eq!(PublicKey::from_pem(&text), Some(key));
        assert_eq!(PublicKey::from_pem(&text.replace('\n', "\r\n")), Some(key));
        for wrong in ["", "MCow", &text.replace("MCow", "MCox"), &text.replace("PUBLIC", "PRIVATE"), &text[..70]] {
            assert_eq!(PublicKey::from_pem(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_identity_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let again = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!((first.journal, first.public), (again.journal, again.public));
        let key = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(dir.path()).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_checkpoint_holds_for_its_key_and_content_only() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (Identity::load_or_create(a.path()).unwrap(), Identity::load_or_create(b.path()).unwrap());
        let checkpoint = a.checkpoint(Seq(4), ChainHash([1; 32]), 5);
        assert!(checkpoint.is_signed_by(&a.public));
        assert!(!checkpoint.is_signed_by(&b.public));
        assert!(!Checkpoint { seq: Seq(5), ..checkpoint.clone() }.is_signed_by(&a.public));
        assert!(!Checkpoint { hash: ChainHash([2; 32]), ..checkpoint.clone() }.is_signed_by(&a.public));
        assert!(!Checkpoint { journal: b.journal, ..checkpoint.clone() }.is_signed_by(&a.public));
        assert!(!Checkpoint { time_us: 6, ..checkpoint }.is_signed_by(&a.public));
    }
}
