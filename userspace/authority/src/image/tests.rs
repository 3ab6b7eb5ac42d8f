use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::PathBuf,
    process::Command,
};

use super::*;
use crate::CertificateAuthority;

const OWN: &str = "-----BEGIN CERTIFICATE-----\nT1dO\n-----END CERTIFICATE-----\n";

struct Image {
    around: tempfile::TempDir,
    ca: CaCertificate,
}

impl Image {
    fn new() -> Self {
        let around = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::create(&around.path().join("ca"), &["amazonaws.com".to_owned()]).unwrap();
        let ca = CaCertificate::read(authority.path()).unwrap();
        fs::create_dir(around.path().join("root")).unwrap();
        fs::write(around.path().join("host.pem"), "-----BEGIN CERTIFICATE-----\nSE9TVA==\n-----END CERTIFICATE-----\n")
            .unwrap();
        Self { around, ca }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.around.path().join("root").join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn trust(&self, named: &[&str]) -> Merged {
        let named: Vec<_> = named.iter().map(|&path| path.to_owned()).collect();
        trust_below(&self.at(""), &self.ca, &self.around.path().join("host.pem"), &named).unwrap()
    }
}

#[test]
fn each_store_of_an_image_gets_the_ca_once_and_keeps_its_own() {
    let image = Image::new();
    let stores = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/usr/local/lib/python3.12/site-packages/certifi/cacert.pem",
        "/usr/lib/python3/dist-packages/botocore/cacert.pem",
        "/opt/conda/envs/work/lib/python3.11/site-packages/pip/_vendor/certifi/cacert.pem",
        "/usr/local/aws-cli/v2/2.17.0/dist/awscli/botocore/cacert.pem",
        "/opt/conda/ssl/cacert.pem",
        "/srv/own.pem",
    ];
    for path in stores {
        image.file(path, OWN);
    }
    fs::set_permissions(image.at(stores[0]), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("certs/ca-certificates.crt", image.at("/etc/ssl/cert.pem")).unwrap();
    let merged = image.trust(&["/srv/own.pem", "/nowhere"]);
    assert!(merged.failed.is_empty(), "{merged:?}");
    for path in stores {
        let text = image.text(path);
        assert!(text.starts_with(OWN) && text.matches(image.ca.pem.as_str()).count() == 1, "{path}: {text}");
    }
    assert_eq!(fs::metadata(image.at(stores[0])).unwrap().mode() & 0o777, 0o640);
    assert!(image.at("/etc/ssl/cert.pem").is_symlink());
    assert_eq!(merged.bundle.as_deref(), Some(stores[0]));
    assert_eq!(image.text(merged.anchor.as_deref().unwrap()), image.ca.pem);
    // A container that is started again.
    let again = image.trust(&["/srv/own.pem"]);
    assert!(again.added.is_empty() && again.failed.is_empty() && again.had == merged.added.len(), "{again:?}");
    // A CA that was renewed takes the earlier one's place.
    let renewed = Image::new();
    let ca = renewed.ca;
    let old = image.ca.pem.clone();
    trust_below(&image.at(""), &ca, Path::new("/nonexistent"), &[]).unwrap();
    let text = image.text(stores[0]);
    assert!(text.starts_with(OWN) && text.contains(&ca.pem) && !text.contains(&old) && text.matches(MARK).count() == 1);
}

#[test]
fn an_image_without_a_store_gets_the_hosts() {
    let image = Image::new();
    let merged = image.trust(&[]);
    assert!(merged.failed.is_empty(), "{merged:?}");
    assert_eq!(merged.bundle.as_deref(), Some(SYSTEM[0]));
    let text = image.text(SYSTEM[0]);
    assert!(text.contains("SE9TVA==") && text.contains(&image.ca.pem), "{text}");
    // Fedora's, with links that begin at the container's root.
    let image = Image::new();
    image.file("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", OWN);
    fs::create_dir_all(image.at("/etc/pki/tls/certs")).unwrap();
    fs::create_dir_all(image.at("/etc/pki/ca-trust/source/anchors")).unwrap();
    symlink("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", image.at("/etc/pki/tls/certs/ca-bundle.crt")).unwrap();
    let merged = image.trust(&[]);
    assert!(merged.failed.is_empty(), "{merged:?}");
    assert_eq!(merged.bundle.as_deref(), Some("/etc/pki/tls/certs/ca-bundle.crt"));
    assert_eq!(merged.anchor.as_deref(), Some("/etc/pki/ca-trust/source/anchors/chaperone.crt"));
    assert!(image.text("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem").contains(&image.ca.pem));
}

#[test]
fn an_image_leads_to_nothing_outside_of_it() {
    let image = Image::new();
    let outside = image.around.path().join("outside.pem");
    fs::write(&outside, OWN).unwrap();
    fs::create_dir_all(image.around.path().join("etc/anchors")).unwrap();
    for (path, target) in [
        ("/etc/ssl/certs/ca-certificates.crt", outside.to_str().unwrap()),
        ("/etc/ssl/cert.pem", "../../../../../../../../outside.pem"),
        ("/etc/pki/tls/cert.pem", "/proc/self/root/etc/passwd"),
        ("/etc/ssl/ca-bundle.pem", "ca-bundle.pem"),
        ("/etc/pki/trust", "../../../etc"),
        ("/usr/local/lib/python3.9", "/../../.."),
    ] {
        fs::create_dir_all(image.at(path).parent().unwrap()).unwrap();
        symlink(target, image.at(path)).unwrap();
    }
    image.file("/opt/a/ssl/other", "");
    fs::hard_link(&outside, image.at("/opt/a/ssl/cacert.pem")).unwrap();
    nix::unistd::mkfifo(&image.at("/etc/pki/tls/cert"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir_all(image.at("/usr/lib/ssl")).unwrap();
    fs::rename(image.at("/etc/pki/tls/cert"), image.at("/usr/lib/ssl/cert.pem")).unwrap();
    image.file("/srv/key.pem", &format!("{OWN}-----BEGIN PRIVATE KEY-----\n"));
    image.file("/srv/notes", "no store at all");
    fs::File::create(image.at("/srv/long")).unwrap().set_len(MAX_STORE + 1).unwrap();
    let merged =
        image.trust(&["/srv/key.pem", "/srv/notes", "/srv/long", "../outside.pem", "srv/key.pem", "", "/", "/srv/.."]);
    assert_eq!(fs::read_to_string(&outside).unwrap(), OWN, "{merged:?}");
    assert!(fs::read_dir(image.around.path().join("etc/anchors")).unwrap().next().is_none());
    assert!(!image.around.path().join("chaperone.crt").exists());
    assert_eq!(image.text("/srv/notes"), "no store at all");
    let failed: Vec<_> = merged.failed.iter().map(|(path, _)| path.as_str()).collect();
    assert!(["/srv/key.pem", "/srv/notes", "/srv/long"].iter().all(|path| failed.contains(path)), "{merged:?}");
    // The host's own root isn't a container's.
    assert!(trust_below(Path::new("/"), &image.ca, &outside, &[]).is_err());
}

/// By the tools that read them, where those are.
#[test]
fn openssl_and_keytool_find_it() {
    let image = Image::new();
    let pem = image.around.path().join("ca/ca.crt");
    let asked = Command::new("openssl").args(["x509", "-noout", "-hash", "-in"]).arg(&pem).output().unwrap();
    let hash = String::from_utf8(asked.stdout).unwrap().trim().to_owned();
    assert_eq!(image.ca.hash.as_deref(), Some(hash.as_str()));
    fs::create_dir_all(image.at("/etc/ssl/certs")).unwrap();
    image.file(&format!("/etc/ssl/certs/{hash}.0"), OWN);
    image.trust(&[]);
    assert_eq!(image.text(&format!("/etc/ssl/certs/{hash}.1")), image.ca.pem);

    let Ok(keytool) = fs::canonicalize("/usr/bin/keytool") else { return };
    for (kind, options) in [
        ("JKS", &[][..]),
        ("PKCS12", &["-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE", "-J-Dkeystore.pkcs12.macAlgorithm=NONE"][..]),
    ] {
        let image = Image::new();
        let path = format!("/opt/java-{kind}/lib/security/cacerts");
        fs::create_dir_all(image.at(&path).parent().unwrap()).unwrap();
        let other = Image::new();
        let tool = |options: &[&str], words: &[&str], file: &Path| {
            let mut tool = Command::new(&keytool);
            let said = tool.args(options).args(words).arg("-file").arg(file).output().unwrap();
            (said.status.success(), String::from_utf8_lossy(&said.stdout).into_owned())
        };
        let at = image.at(&path);
        let store = ["-keystore", at.to_str().unwrap(), "-storepass", "changeit"];
        let import = ["-importcert", "-noprompt", "-alias", "other", "-storetype", kind];
        let (made, said) = tool(options, &[&import[..], &store[..]].concat(), &other.around.path().join("ca/ca.crt"));
        assert!(made, "{said}");
        let merged = image.trust(&[]);
        assert!(merged.added.contains(&path), "{kind}: {merged:?}");
        for alias in ["chaperone", "other"] {
            let exported = image.around.path().join(alias);
            let words = [&["-exportcert", "-rfc", "-alias", alias][..], &store[..]].concat();
            let (found, said) = tool(options, &words, &exported);
            assert!(found, "{kind} {alias}: {said}");
            let expected = if alias == "other" { &other.ca.der } else { &image.ca.der };
            assert_eq!(CertificateDer::from_pem_file(&exported).unwrap(), *expected, "{kind} {alias}");
        }
    }
}
