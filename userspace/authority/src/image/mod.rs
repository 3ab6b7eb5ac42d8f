//! The trust stores in a container's image: the CA is added to all that are there, as `update-ca-certificates` would, and
//! nothing that an image trusts is taken away. An image without a store gets the host's.
//!
//! It happens before the container starts, in its own layer: the image stays as it is. What doesn't look like a store is
//! left alone, and what can't be written is told; neither keeps a container from starting.

mod der;
mod hash;
mod java;
mod root;

use std::{collections::BTreeSet, fs, io::Read as _, path::Path};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use self::root::{Place, Root};
use crate::AuthorityError;

/// The system's stores, as distributions have them: those first that OpenSSL's and Go's defaults name.
const SYSTEM: [&str; 9] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];
/// What programs bring along.
const BROUGHT: [&str; 5] = [
    "/usr/lib/ssl/cert.pem",
    "/usr/local/ssl/cert.pem",
    "/opt/*/ssl/cacert.pem",
    "/usr/local/aws-cli/v2/*/dist/awscli/botocore/cacert.pem",
    "/opt/aws-cli/v2/*/dist/awscli/botocore/cacert.pem",
];
/// Where Pythons have their libraries.
const PYTHONS: [&str; 15] = [
    "/usr/lib/python3*",
    "/usr/lib64/python3*",
    "/usr/local/lib/python3*",
    "/usr/local/lib64/python3*",
    "/opt/*/lib/python3*",
    "/opt/*/envs/*/lib/python3*",
    "/opt/*/*/lib/python3*",
    "/venv/lib/python3*",
    "/.venv/lib/python3*",
    "/app/.venv/lib/python3*",
    "/app/venv/lib/python3*",
    "/root/.local/lib/python3*",
    "/home/*/.local/lib/python3*",
    "/root/.pyenv/versions/*/lib/python3*",
    "/root/.local/share/uv/*/*/lib/python3*",
];
/// What those have of their own.
const OF_PYTHON: [&str; 4] =
    ["certifi/cacert.pem", "pip/_vendor/certifi/cacert.pem", "botocore/cacert.pem", "awscli/botocore/cacert.pem"];
const JAVA: [&str; 10] = [
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/var/lib/ca-certificates/java-cacerts",
    "/usr/lib/jvm/*/lib/security/cacerts",
    "/usr/lib/jvm/*/jre/lib/security/cacerts",
    "/usr/java/*/lib/security/cacerts",
    "/opt/*/lib/security/cacerts",
    "/opt/*/*/lib/security/cacerts",
    "/usr/local/*/lib/security/cacerts",
];
/// Folders in which OpenSSL looks for a CA by its name's hash.
const HASHED: [&str; 3] = ["/etc/ssl/certs", "/etc/pki/tls/certs", "/usr/lib/ssl/certs"];
/// Where `update-ca-certificates` and the like look when they make the store anew.
const ANCHORS: [&str; 4] = [
    "/etc/pki/trust/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/ca-trust/source/anchors",
    "/usr/local/share/ca-certificates",
];

/// Before the CA in a bundle.
const MARK: &str = "# Chaperone's CA, added on the host when this container was made.\n";
/// The longest store, by far, and how many are looked at.
const MAX_STORE: u64 = 4 << 20;
const MAX_STORES: usize = 128;

/// The CA, as it goes into stores.
#[derive(Debug)]
pub struct CaCertificate {
    pem: String,
    der: CertificateDer<'static>,
    hash: Option<String>,
}

impl CaCertificate {
    /// Reads it; its key isn't needed.
    pub fn read(path: &Path) -> Result<Self, AuthorityError> {
        let broken =
            |why: &dyn std::fmt::Display| AuthorityError::Broken { path: path.to_owned(), why: why.to_string() };
        let text = fs::read_to_string(path).map_err(|source| AuthorityError::Io {
            doing: "reading",
            path: path.to_owned(),
            source,
        })?;
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|why| broken(&why))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|why| broken(&why))?;
        let hash = hash::subject(parsed.subject().as_raw());
        Ok(Self { pem: format!("{}\n", text.trim()), der, hash })
    }
}

/// What became of an image's stores.
#[derive(Debug, Default)]
pub struct Merged {
    /// The system's store, for those who are told of one by a variable.
    pub bundle: Option<String>,
    /// The CA alone, for those who add to what they bring.
    pub anchor: Option<String>,
    /// The stores that have the CA now, and hadn't.
    pub added: Vec<String>,
    /// Those that had it already.
    pub had: usize,
    /// Those that don't have it, and why.
    pub failed: Vec<(String, String)>,
}

/// Adds the CA to the stores below `root`, and to those that `named` are, as variables of the container's name them.
/// `host` is the host's store, for an image without one.
pub fn trust_below(root: &Path, ca: &CaCertificate, host: &Path, named: &[String]) -> Result<Merged, AuthorityError> {
    let root = Root::open(root).map_err(|source| AuthorityError::Io {
        doing: "opening the container's root",
        path: root.to_owned(),
        source,
    })?;
    let mut merging = Merging { root, ca, merged: Merged::default(), seen: BTreeSet::new() };
    merging.anchor();
    merging.system(host);
    let brought = BROUGHT.iter().flat_map(|pattern| merging.root.expand(pattern)).collect::<Vec<_>>();
    let pythons = PYTHONS.iter().flat_map(|pattern| merging.root.expand(pattern));
    let pythons: Vec<_> = pythons
        .flat_map(|folder| ["site-packages", "dist-packages"].map(|packages| format!("{folder}/{packages}")))
        .flat_map(|packages| OF_PYTHON.map(|bundle| format!("{packages}/{bundle}")))
        .collect();
    for path in named.iter().chain(&brought).chain(&pythons) {
        merging.bundle(path);
    }
    for path in JAVA.iter().flat_map(|pattern| merging.root.expand(pattern)).collect::<Vec<_>>() {
        merging.java(&path);
    }
    merging.hashed();
    Ok(merging.merged)
}

struct Merging<'a> {
    root: Root,
    ca: &'a CaCertificate,
    merged: Merged,
    /// Stores that were looked at, without links.
    seen: BTreeSet<String>,
}

impl Merging<'_> {
    /// A file that is there, is a file, and wasn't looked at before.
    fn store(&mut self, path: &str) -> Option<Place> {
        let place = self.root.place(path).filter(Place::is_file)?;
        if self.seen.len() >= MAX_STORES && !self.seen.contains(&place.path) {
            self.merged.failed.push((path.to_owned(), format!("there are more than {MAX_STORES} stores")));
            return None;
        }
        self.seen.insert(place.path.clone()).then_some(place)
    }

    /// Puts what it makes of the file in its place; nothing if it is as it should be.
    fn change(&mut self, path: &str, place: &Place, make: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>, String>) {
        let made = place.read(MAX_STORE).map_err(|error| error.to_string()).and_then(|bytes| make(&bytes));
        match made {
            Ok(None) => self.merged.had += 1,
            Ok(Some(bytes)) => self.put(path, place, &bytes),
            Err(why) => self.merged.failed.push((path.to_owned(), why)),
        }
    }

    fn put(&mut self, path: &str, place: &Place, bytes: &[u8]) {
        match place.write(bytes) {
            Ok(()) => self.merged.added.push(path.to_owned()),
            Err(error) => self.merged.failed.push((path.to_owned(), format!("writing it: {error}"))),
        }
    }

    /// The CA as a file of its own, which outlasts a store that is made anew.
    fn anchor(&mut self) {
        let folder = ANCHORS.into_iter().find(|folder| self.root.has_folder(folder)).unwrap_or(ANCHORS[3]);
        let path = format!("{folder}/chaperone.crt");
        if self.new_file(&path, self.ca.pem.as_bytes()) {
            self.merged.anchor = Some(path);
        }
    }

    fn system(&mut self, host: &Path) {
        for path in SYSTEM {
            self.bundle(path);
            let is_there = || self.root.place(path).is_some_and(|place| place.is_file());
            if self.merged.bundle.is_none() && is_there() {
                self.merged.bundle = Some(path.to_owned());
            }
        }
        if self.merged.bundle.is_some() {
            return;
        }
        // Without the host's, who falls back to roots of its own would have no others any more.
        let mut bundle = Vec::new();
        let read = fs::File::open(host).and_then(|file| file.take(MAX_STORE).read_to_end(&mut bundle));
        if read.is_err() || bundle.len() as u64 == MAX_STORE {
            let why = format!("this image has no store, and neither has the host in {}", host.display());
            self.merged.failed.push((SYSTEM[0].to_owned(), why));
            return;
        }
        let bundle = with(&bundle, &self.ca.pem).unwrap_or_default().unwrap_or(bundle);
        if self.new_file(SYSTEM[0], &bundle) {
            self.merged.bundle = Some(SYSTEM[0].to_owned());
        }
    }

    /// Whether that file is there now, with that in it.
    fn new_file(&mut self, path: &str, bytes: &[u8]) -> bool {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let made = self.root.make_folder(folder);
        let Some(place) = self.root.place(path).filter(|place| place.is_free || place.is_file()) else {
            let why =
                made.err().map_or_else(|| "something that is no file is there".to_owned(), |error| error.to_string());
            self.merged.failed.push((path.to_owned(), why));
            return false;
        };
        if place.read(MAX_STORE).is_ok_and(|there| there == bytes) {
            self.merged.had += 1;
            return true;
        }
        let before = self.merged.failed.len();
        self.put(path, &place, bytes);
        self.merged.failed.len() == before
    }

    fn bundle(&mut self, path: &str) {
        if let Some(place) = self.store(path) {
            let pem = &self.ca.pem;
            self.change(path, &place, |bytes| with(bytes, pem).map_err(str::to_owned));
        }
    }

    fn java(&mut self, path: &str) {
        if let Some(place) = self.store(path) {
            let der = &self.ca.der;
            self.change(path, &place, |bytes| java::with(bytes, der).map_err(str::to_owned));
        }
    }

    fn hashed(&mut self) {
        let Some(hash) = self.ca.hash.clone() else { return };
        let mut folders = BTreeSet::new();
        for folder in HASHED {
            // Another CA of the same name has the same hash, and a number of its own.
            for number in 0..10 {
                let path = format!("{folder}/{hash}.{number}");
                let Some(place) = self.root.place(&path) else { break };
                if !folders.insert(place.path.clone()) {
                    break;
                }
                if place.is_free {
                    self.put(&path, &place, self.ca.pem.as_bytes());
                    break;
                }
                if place.read(MAX_STORE).is_ok_and(|there| there.trim_ascii() == self.ca.pem.trim().as_bytes()) {
                    self.merged.had += 1;
                    break;
                }
            }
        }
    }
}

/// A bundle with the CA at its end, and without an earlier one of ours; nothing if it has it. Comments in it may be in
/// whatever encoding.
fn with(bundle: &[u8], pem: &str) -> Result<Option<Vec<u8>>, &'static str> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let find = |text: &str| bundle.windows(text.len()).position(|window| window == text.as_bytes());
    if find("PRIVATE KEY-----").is_some() {
        return Err("it has a private key in it");
    }
    if find("-----BEGIN CERTIFICATE-----").is_none() && find("-----BEGIN TRUSTED CERTIFICATE-----").is_none() {
        return Err("there is no certificate in it");
    }
    if find(pem.trim()).is_some() {
        return Ok(None);
    }
    let mut made = bundle.to_vec();
    if let Some(start) = find(MARK)
        && let Some(length) = bundle[start..].windows(END.len()).position(|window| window == END.as_bytes())
    {
        made.drain(start..start + length + END.len());
    }
    if made.last() != Some(&b'\n') {
        made.push(b'\n');
    }
    made.extend(MARK.bytes().chain(pem.bytes()));
    Ok(Some(made))
}

#[cfg(test)]
mod tests;
