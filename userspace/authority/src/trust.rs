//! The trust stores on the host: the system's own, and the environment variables that clients with a store of their
//! own read.
//!
//! boto3, awscli v1 and requests carry a bundle of their own and read `REQUESTS_CA_BUNDLE`; httpx, and with it the SDKs
//! of OpenAI, Anthropic and LiteLLM, carry certifi's and read `SSL_CERT_FILE`, as uv and everything of OpenSSL's does;
//! node and Bun read `NODE_EXTRA_CA_CERTS`, Deno `DENO_CERT`, gRPC `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`; most others (curl,
//! Go, Rust, the CRT clients) read the system's store. `AWS_CA_BUNDLE` is not set: rclone 1.60 fails with it.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Serialize;

/// Says of a file that it is ours, so that `remove` touches nothing else.
const MARK: &str = "# Written by `chaperone trust install`; `chaperone trust remove` takes it away.\n";

/// What is wrong with a trust store.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file could not be read or written.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No known system store.
    #[error(
        "found neither update-ca-certificates (Debian, SUSE, Alpine: package ca-certificates) nor update-ca-trust (Fedora, Arch): \
         install one of them, so that programs can be told of the CA"
    )]
    NoSystemStore,
    /// The store's own program failed.
    #[error("`{program}` failed: {why}")]
    Program {
        /// The program.
        program: &'static str,
        /// Its exit status and what it said.
        why: String,
    },
    /// A file of ours that somebody else wrote is in the way.
    #[error("{0} is there and was not written by chaperone: move it away first")]
    Foreign(PathBuf),
}

/// A family of system trust stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Family {
    /// A folder that this family alone has, where its program isn't enough to tell.
    mark: Option<&'static str>,
    anchors: &'static str,
    program: &'static str,
    /// What the program is told when an anchor was added, and when one was taken away.
    added: &'static [&'static str],
    removed: &'static [&'static str],
    bundle: &'static str,
}

/// Those first that are told by a folder: others have programs of the same names.
const FAMILIES: [Family; 4] = [
    // SUSE. Its bundle in /etc is a link to this one.
    Family {
        mark: Some("etc/pki/trust/anchors"),
        anchors: "etc/pki/trust/anchors",
        program: "update-ca-certificates",
        added: &[],
        removed: &[],
        bundle: "/var/lib/ca-certificates/ca-bundle.pem",
    },
    // Arch.
    Family {
        mark: Some("etc/ca-certificates/trust-source/anchors"),
        anchors: "etc/ca-certificates/trust-source/anchors",
        program: "update-ca-trust",
        added: &["extract"],
        removed: &["extract"],
        bundle: "/etc/ssl/certs/ca-certificates.crt",
    },
    // Debian, Ubuntu, Alpine. Only `--fresh` takes away the links to what is gone.
    Family {
        mark: None,
        anchors: "usr/local/share/ca-certificates",
        program: "update-ca-certificates",
        added: &[],
        removed: &["--fresh"],
        bundle: "/etc/ssl/certs/ca-certificates.crt",
    },
    // Fedora, RHEL, Amazon Linux.
    Family {
        mark: None,
        anchors: "etc/pki/ca-trust/source/anchors",
        program: "update-ca-trust",
        added: &["extract"],
        removed: &["extract"],
        bundle: "/etc/pki/tls/certs/ca-bundle.crt",
    },
];

/// One place that should know the CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustStore {
    /// What it is, such as `system` or `environment`.
    pub store: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Whether it knows this CA.
    pub trusted: bool,
    /// What to do about it, when it doesn't.
    pub remedy: Option<String>,
}

/// What is trusted where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustReport {
    /// Every store looked at.
    pub stores: Vec<TrustStore>,
}

impl TrustReport {
    /// Whether every store knows the CA.
    pub fn is_complete(&self) -> bool {
        self.stores.iter().all(|store| store.trusted)
    }
}

/// Engines that call hooks in a folder of the host's before they start a container, and at which stage: podman hands the
/// container's configuration through it, CRI-O tells where that is, and knows no other stages. Where both are, CRI-O's.
const ENGINES: [(&str, &str); 2] = [("usr/bin/crio", "createRuntime"), ("usr/bin/podman", "precreate")];
const HOOK: &str = "etc/containers/oci/hooks.d/50-chaperone.json";
/// podman looks for hooks where packages have them, and here it is told to look there, too.
const HOOKS: &str = "etc/containers/containers.conf.d/50-chaperone.conf";
/// Where somebody may have told it already.
const PODMAN: [&str; 3] =
    ["usr/share/containers/containers.conf", "etc/containers/containers.conf", "etc/containers/containers.conf.d"];
/// The command that the hook is, by which it is known as ours.
const HOOKED: &str = "oci-hook";

/// The trust stores of the host whose root folder is given.
#[derive(Debug)]
pub struct Trust {
    root: PathBuf,
    family: Family,
    /// What engines of containers are to call, if they are: this program, with that configuration.
    called: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    /// Finds the host's stores.
    pub fn of_host() -> Result<Self, TrustError> {
        Self::below(Path::new("/"))
    }

    /// … and those in the containers that are agents' by this configuration, which engines are then to have us called for.
    pub fn with_containers_by(self, config: &Path) -> Result<Self, TrustError> {
        let program = std::env::current_exe().map_err(|source| error("finding", Path::new("this program"), source))?;
        let config = std::path::absolute(config).map_err(|source| error("finding", config, source))?;
        Ok(Self { called: Some((program, config)), ..self })
    }

    fn below(root: &Path) -> Result<Self, TrustError> {
        let there = |family: &&Family| {
            ["usr/sbin", "usr/bin"].iter().any(|folder| root.join(folder).join(family.program).exists())
                && family.mark.is_none_or(|folder| root.join(folder).is_dir())
        };
        let family = *FAMILIES.iter().find(there).ok_or(TrustError::NoSystemStore)?;
        Ok(Self { root: root.to_owned(), family, called: None })
    }

    /// The variables that clients with a store of their own need.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("REQUESTS_CA_BUNDLE", self.family.bundle.to_owned()),
            ("SSL_CERT_FILE", self.family.bundle.to_owned()),
            ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", self.family.bundle.to_owned()),
            ("NODE_EXTRA_CA_CERTS", format!("/{}/chaperone.crt", self.family.anchors)),
            ("DENO_CERT", format!("/{}/chaperone.crt", self.family.anchors)),
        ]
    }

    /// The system's store.
    pub fn bundle(&self) -> &'static str {
        self.family.bundle
    }

    /// Tells every store of the certificate (PEM). Doing it twice changes nothing more.
    pub fn install(&self, certificate: &Path) -> Result<TrustReport, TrustError> {
        let pem = fs::read(certificate).map_err(|source| error("reading", certificate, source))?;
        let anchor = self.anchor();
        if fs::read(&anchor).ok().as_deref() != Some(&pem) || !self.bundle_has(&pem) {
            write(&anchor, &pem)?;
            self.refresh(self.family.added)?;
        }
        for (path, text) in self.environment_files() {
            if fs::read_to_string(&path).is_ok_and(|there| !there.starts_with(MARK)) {
                return Err(TrustError::Foreign(path));
            }
            write(&path, text.as_bytes())?;
        }
        for (path, text) in self.hooks() {
            if fs::read_to_string(&path).is_ok_and(|there| !is_ours(&there)) {
                return Err(TrustError::Foreign(path));
            }
            write(&path, text.as_bytes())?;
        }
        self.status(certificate)
    }

    /// What is trusted where.
    pub fn status(&self, certificate: &Path) -> Result<TrustReport, TrustError> {
        let pem = fs::read(certificate).map_err(|source| error("reading", certificate, source))?;
        let remedy = |trusted: bool| (!trusted).then(|| "run `chaperone trust install`".to_owned());
        let bundle = self.root.join(self.family.bundle.trim_start_matches('/'));
        let trusted = self.bundle_has(&pem);
        let mut stores = vec![TrustStore { store: "system", path: bundle, trusted, remedy: remedy(trusted) }];
        let environment = self.environment_files().into_iter().map(|(path, text)| ("environment", path, text));
        for (store, path, text) in
            environment.chain(self.hooks().into_iter().map(|(path, text)| ("containers", path, text)))
        {
            let trusted = fs::read_to_string(&path).is_ok_and(|there| there == text);
            stores.push(TrustStore { store, path, trusted, remedy: remedy(trusted) });
        }
        Ok(TrustReport { stores })
    }

    /// Takes away what `install` wrote, and nothing else.
    pub fn remove(&self) -> Result<(), TrustError> {
        for (path, _) in self.environment_files() {
            if fs::read_to_string(&path).is_ok_and(|text| text.starts_with(MARK)) {
                fs::remove_file(&path).map_err(|source| error("removing", &path, source))?;
            }
        }
        for file in [HOOK, HOOKS].map(|file| self.root.join(file)) {
            if fs::read_to_string(&file).is_ok_and(|text| is_ours(&text)) {
                fs::remove_file(&file).map_err(|source| error("removing", &file, source))?;
            }
        }
        let anchor = self.anchor();
        if anchor.exists() {
            fs::remove_file(&anchor).map_err(|source| error("removing", &anchor, source))?;
            self.refresh(self.family.removed)?;
        }
        Ok(())
    }

    fn anchor(&self) -> PathBuf {
        self.root.join(self.family.anchors).join("chaperone.crt")
    }

    fn bundle_has(&self, pem: &[u8]) -> bool {
        let bundle = self.root.join(self.family.bundle.trim_start_matches('/'));
        let wanted = body_of(&String::from_utf8_lossy(pem));
        !wanted.is_empty() && fs::read_to_string(bundle).is_ok_and(|text| body_of(&text).contains(&wanted))
    }

    /// Files that set the variables: for login shells, for services and for user managers.
    fn environment_files(&self) -> Vec<(PathBuf, String)> {
        let variables = self.environment();
        let lines = |prefix: &str| -> String {
            variables.iter().map(|(name, value)| format!("{prefix}{name}={value}\n")).collect()
        };
        let quoted: Vec<String> = variables.iter().map(|(name, value)| format!("\"{name}={value}\"")).collect();
        vec![
            (self.root.join("etc/profile.d/chaperone.sh"), format!("{MARK}{}", lines("export "))),
            (self.root.join("etc/environment.d/50-chaperone.conf"), format!("{MARK}{}", lines(""))),
            (
                self.root.join("etc/systemd/system.conf.d/50-chaperone.conf"),
                format!("{MARK}[Manager]\nDefaultEnvironment={}\n", quoted.join(" ")),
            ),
        ]
    }

    /// The files that have engines call us before they start a container, if there are such (containers-common's
    /// oci-hooks(5), containers.conf(5)).
    fn hooks(&self) -> Vec<(PathBuf, String)> {
        let Some((program, config)) = &self.called else { return Vec::new() };
        let Some((engine, stage)) = ENGINES.iter().find(|(engine, _)| self.root.join(engine).exists()) else {
            return Vec::new();
        };
        let quoted = |path: &Path| format!("{:?}", path.to_string_lossy());
        let (program, config) = (quoted(program), quoted(config));
        let hook = format!(
            "{{\"version\": \"1.0.0\", \"when\": {{\"always\": true}}, \"stages\": [\"{stage}\"],\n \
             \"hook\": {{\"path\": {program}, \"args\": [\"chaperone\", \"--config\", {config}, \"{HOOKED}\"]}}}}\n"
        );
        let mut files = vec![(self.root.join(HOOK), hook)];
        // Who has named folders of their own keeps them, and names this one, too.
        if engine.ends_with("podman") && !self.names_folders_of_hooks() {
            let folders = "[\"/usr/share/containers/oci/hooks.d\", \"/etc/containers/oci/hooks.d\"]";
            files.push((self.root.join(HOOKS), format!("{MARK}[engine]\nhooks_dir = {folders}\n")));
        }
        files
    }

    /// Whether somebody else's configuration of podman's says where hooks are.
    fn names_folders_of_hooks(&self) -> bool {
        let files = PODMAN.iter().map(|path| self.root.join(path)).flat_map(|path| {
            let within = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            within.chain([path.clone()]).collect::<Vec<_>>()
        });
        let texts = files.filter_map(|path| fs::read_to_string(path).ok()).filter(|text| !is_ours(text));
        texts.into_iter().any(|text| text.lines().any(|line| line.trim_start().starts_with("hooks_dir")))
    }

    fn refresh(&self, arguments: &[&str]) -> Result<(), TrustError> {
        let program = self.family.program;
        let output = Command::new(program)
            .args(arguments)
            .output()
            .map_err(|why| TrustError::Program { program, why: why.to_string() })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(TrustError::Program { program, why: format!("{}: {}", output.status, said.trim()) })
    }
}

/// Whether a file that engines read was written by us.
fn is_ours(text: &str) -> bool {
    text.starts_with(MARK) || text.contains(HOOKED)
}

/// A PEM text without line ends, so that bundles with other line lengths compare equal.
fn body_of(pem: &str) -> String {
    pem.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// For everybody to read, whatever the umask: agents are no root.
fn write(path: &Path, bytes: &[u8]) -> Result<(), TrustError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.exists() {
        fs::create_dir_all(folder)
            .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o755)))
            .map_err(|source| error("making", folder, source))?;
    }
    let temporary = path.with_extension("chaperone-new");
    fs::write(&temporary, bytes)
        .and_then(|()| fs::set_permissions(&temporary, Permissions::from_mode(0o644)))
        .map_err(|source| error("writing", &temporary, source))?;
    fs::rename(&temporary, path).map_err(|source| error("writing", path, source))
}

fn error(doing: &'static str, path: &Path, source: io::Error) -> TrustError {
    TrustError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_store_is_told_what_to_install() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(Trust::below(root.path()), Err(TrustError::NoSystemStore)));
    }

    #[test]
    fn each_distribution_s_store_is_known_from_the_others() {
        for (name, program, folder, bundle) in [
            (
                "Debian",
                "usr/sbin/update-ca-certificates",
                "usr/local/share/ca-certificates",
                "/etc/ssl/certs/ca-certificates.crt",
            ),
            (
                "Alpine",
                "usr/sbin/update-ca-certificates",
                "usr/local/share/ca-certificates",
                "/etc/ssl/certs/ca-certificates.crt",
            ),
            (
                "SUSE",
                "usr/sbin/update-ca-certificates",
                "etc/pki/trust/anchors",
                "/var/lib/ca-certificates/ca-bundle.pem",
            ),
            (
                "Fedora",
                "usr/bin/update-ca-trust",
                "etc/pki/ca-trust/source/anchors",
                "/etc/pki/tls/certs/ca-bundle.crt",
            ),
            (
                "Arch",
                "usr/bin/update-ca-trust",
                "etc/ca-certificates/trust-source/anchors",
                "/etc/ssl/certs/ca-certificates.crt",
            ),
        ] {
            let root = tempfile::tempdir().unwrap();
            for path in ["usr/sbin", "usr/bin", folder] {
                fs::create_dir_all(root.path().join(path)).unwrap();
            }
            fs::write(root.path().join(program), "").unwrap();
            let trust = Trust::below(root.path()).unwrap();
            assert_eq!((trust.family.anchors, trust.family.bundle), (folder, bundle), "{name}");
            assert!(trust.environment().contains(&("SSL_CERT_FILE", bundle.to_owned())), "{name}");
        }
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        for folder in ["usr/sbin", "etc/profile.d", "etc/ssl/certs"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("usr/sbin/update-ca-certificates"), "").unwrap();
        let ca = root.join("ca.crt");
        fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let trust = Trust::below(root).unwrap();
        assert!(!trust.status(&ca).unwrap().is_complete());
        // The bundle knows the CA already, so that nothing has to run.
        fs::create_dir_all(root.join("usr/local/share/ca-certificates")).unwrap();
        fs::copy(&ca, root.join("usr/local/share/ca-certificates/chaperone.crt")).unwrap();
        fs::copy(&ca, root.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
        assert!(trust.install(&ca).unwrap().is_complete());
        fs::write(root.join("etc/profile.d/chaperone.sh"), "export MINE=1\n").unwrap();
        assert!(matches!(trust.install(&ca), Err(TrustError::Foreign(_))));
        fs::remove_file(root.join("etc/profile.d/chaperone.sh")).unwrap();

        let called = Some(("/usr/bin/chaperone".into(), "/etc/chaperone/config.toml".into()));
        let trust = Trust { called, ..trust };
        // Engines of containers are told, each as it understands it.
        for (engine, stage) in [("podman", "precreate"), ("crio", "createRuntime")] {
            fs::create_dir_all(root.join("usr/bin")).unwrap();
            fs::write(root.join("usr/bin").join(engine), "").unwrap();
            assert!(!trust.status(&ca).unwrap().is_complete());
            assert!(trust.install(&ca).unwrap().is_complete());
            let hook = fs::read_to_string(root.join(HOOK)).unwrap();
            assert!(hook.contains(stage) && hook.contains(r#""path": "/usr/bin/chaperone""#), "{hook}");
        }
        let hooks = fs::read_to_string(root.join(HOOKS)).unwrap();
        assert!(hooks.contains("\"/etc/containers/oci/hooks.d\"") && !trust.names_folders_of_hooks(), "{hooks}");
        fs::remove_file(root.join(HOOKS)).unwrap();
        fs::remove_file(root.join("usr/bin/crio")).unwrap();
        fs::write(root.join("etc/containers/containers.conf"), "[engine]\n hooks_dir = [\"/own\"]\n").unwrap();
        assert!(trust.install(&ca).unwrap().is_complete() && !root.join(HOOKS).exists());
        fs::write(root.join(HOOK), "{}").unwrap();
        assert!(matches!(trust.install(&ca), Err(TrustError::Foreign(_))));
    }
}
