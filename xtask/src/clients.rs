//! Puts the clients and container engines in place that the whole-system tests run. Quick when all is there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    engines, place,
    setup::{self, Package, packages, python, run},
};

const LIGHT: [Package; 6] = [
    Package { name: "nodejs", why: "runs the AWS SDK for JavaScript", shows: "/usr/bin/node" },
    Package { name: "npm", why: "installs the AWS SDK for JavaScript", shows: "/usr/bin/npm" },
    Package { name: "podman", why: "agents in containers", shows: "/usr/bin/podman" },
    Package { name: "rclone", why: "a client of S3", shows: "/usr/bin/rclone" },
    Package { name: "runc", why: "podman's runtime that needs no CAP_SYS_RESOURCE", shows: "/usr/sbin/runc" },
    Package { name: "s3cmd", why: "a client of S3", shows: "/usr/bin/s3cmd" },
];

/// What the OpenID provider alone needs.
const NODE: [Package; 2] = [
    Package { name: "nodejs", why: "runs an OpenID provider", shows: "/usr/bin/node" },
    Package { name: "npm", why: "installs an OpenID provider", shows: "/usr/bin/npm" },
];

/// Those that take minutes, or hundreds of megabytes.
pub const HEAVY: [&str; 10] =
    ["ansible", "approvals", "cdk", "go", "java", "keycloak", "mini-swe-agent", "model-sdks", "opencode", "rust"];

/// Installs the clients that are light, and of the others these, and says in which folder they are.
pub fn install(heavy: &[String]) -> Result<PathBuf> {
    let folder = place::target()?.join("lab/clients");
    let sources = place::root().join("tests/system/clients");
    packages_but(&LIGHT, &["npm", "node"])?;
    engines::install(&folder.join("engines"))?;
    npm(
        &sources.join("js"),
        &folder.join("js"),
        &["masked.mjs", "work.mjs", "streams.mjs"],
        "the AWS SDK for JavaScript, 40 MB",
    )?;
    npm(&sources.join("iam"), &folder.join("iam"), &["simulate.mjs"], "a simulator of IAM, 20 MB")?;
    install_oidc(&sources.join("oidc"), &folder.join("oidc"))?;
    heavy.iter().try_for_each(|name| install_heavy(name, &sources.join(name), &folder.join(name)))?;
    Ok(folder)
}

/// Installs the OpenID provider alone, and says in which folder it is.
pub fn oidc_provider() -> Result<PathBuf> {
    setup::root_user()?;
    let folder = place::target()?.join("lab/clients/oidc");
    packages_but(&NODE, &["npm", "node"])?;
    install_oidc(&place::root().join("tests/system/clients/oidc"), &folder)?;
    Ok(folder)
}

/// Installs what takes pictures of Superset's dashboards, and says in which folder it is.
pub fn superset() -> Result<PathBuf> {
    let folder = place::target()?.join("lab/clients/superset");
    packages_but(&NODE, &["npm", "node"])?;
    packages(&[Package { name: "chromium", why: "looks at Superset's dashboards", shows: "/usr/bin/chromium" }])?;
    npm(&place::root().join("tests/system/clients/superset"), &folder, &["shots.mjs"], "a browser's driver, 10 MB")?;
    Ok(folder)
}

fn install_oidc(sources: &Path, folder: &Path) -> Result<()> {
    npm(sources, folder, &["provider.mjs"], "an OpenID provider, 4 MB")?;
    copy_shared(sources, folder)
}

/// What both OpenID providers run with lies beside their folders.
fn copy_shared(sources: &Path, folder: &Path) -> Result<()> {
    let beside = sources.parent().context("BUG: the clients' sources have no folder")?;
    copy(beside, folder, &["node_18.mjs"])
}

fn install_heavy(name: &str, sources: &Path, folder: &Path) -> Result<()> {
    match name {
        "ansible" => python(folder, "ansible-requirements.txt", "Ansible, 600 MB"),
        "approvals" => {
            packages(&[Package { name: "chromium", why: "a browser for approvers", shows: "/usr/bin/chromium" }])?;
            let programs = ["browser.mjs", "client.mjs", "provider.mjs"];
            let what = "an OpenID provider, a browser's driver and a client of OpenAPI, 30 MB";
            npm(sources, folder, &programs, what)?;
            copy_shared(sources, folder)
        }
        "cdk" => npm(sources, folder, &["app.mjs"], "CDK, 150 MB"),
        "go" => {
            let why = "builds the client of the AWS SDK for Go";
            packages_but(&[Package { name: "golang-go", why, shows: "/usr/bin/go" }], &["go"])?;
            go(sources, folder)
        }
        "java" => {
            let why = "builds the client of the AWS SDK for Java";
            packages_but(&[Package { name: "maven", why, shows: "/usr/bin/mvn" }], &["mvn"])?;
            java(sources, folder)
        }
        "keycloak" => {
            let why = "brings Keycloak from Maven Central, and the Java that it runs on";
            packages_but(&[Package { name: "maven", why, shows: "/usr/bin/mvn" }], &["mvn"])?;
            keycloak(sources, folder)
        }
        "mini-swe-agent" => python(folder, "mini-swe-agent-requirements.txt", "mini-swe-agent, 400 MB"),
        "model-sdks" => python(folder, "model-sdks-requirements.txt", "the SDKs of OpenAI and Anthropic, 110 MB"),
        "opencode" => {
            let program = setup::opencode()?;
            let _ = fs::remove_file(folder);
            std::os::unix::fs::symlink(&program, folder).with_context(|| format!("making {}", folder.display()))
        }
        "rust" => rust(sources, folder),
        other => bail!("there is no client `{other}` that takes long to install: {}", HEAVY.join(", ")),
    }
}

/// Packages, but for those whose program there is already, from wherever.
fn packages_but(wanted: &[Package], programs: &[&str]) -> Result<()> {
    let there = |package: &&Package| {
        let program = Path::new(package.shows).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        programs.contains(&program)
            && Command::new(program).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let missing: Vec<Package> = wanted.iter().filter(|package| !there(package)).copied().collect();
    packages(&missing)
}

/// Whether what was made from these sources is there; they are copied beside it, last of all.
fn is_current(sources: &Path, folder: &Path, names: &[&str]) -> bool {
    names.iter().all(|name| {
        fs::read(sources.join(name)).ok().is_some_and(|text| fs::read(folder.join(name)).is_ok_and(|it| it == text))
    })
}

fn copy(sources: &Path, folder: &Path, names: &[&str]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for name in names {
        let to = folder.join(name);
        fs::copy(sources.join(name), &to).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(())
}

fn npm(sources: &Path, folder: &Path, programs: &[&str], what: &str) -> Result<()> {
    if !is_current(sources, folder, &["package-lock.json"]) {
        eprintln!("set-up: {what}, into {}: seconds, once", folder.display());
        copy(sources, folder, &["package.json"])?;
        // With the lock beside it from the start, but under its name only when all is there.
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(staged(sources, folder)?)
            .stdout(Stdio::null()))?;
        let modules = folder.join("node_modules");
        let _ = fs::remove_dir_all(&modules);
        fs::rename(folder.join("staged/node_modules"), &modules).context("putting node_modules in place")?;
        copy(sources, folder, &["package-lock.json"])?;
    }
    copy(sources, folder, programs)
}

fn staged(sources: &Path, folder: &Path) -> Result<PathBuf> {
    let staged = folder.join("staged");
    copy(sources, &staged, &["package.json", "package-lock.json"])?;
    Ok(staged)
}

fn go(sources: &Path, folder: &Path) -> Result<()> {
    const SOURCES: [&str; 4] = ["go.mod", "go.sum", "main.go", "masked.go"];
    if !is_current(sources, folder, &SOURCES) {
        eprintln!("set-up: building the client of the AWS SDK for Go: a minute or two, once");
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        run(Command::new("go").args(["build", "-o"]).arg(folder.join("client")).arg(".").current_dir(sources))?;
        copy(sources, folder, &SOURCES)?;
    }
    Ok(())
}

fn java(sources: &Path, folder: &Path) -> Result<()> {
    const SOURCES: [&str; 2] = ["pom.xml", "Work.java"];
    if !is_current(sources, folder, &SOURCES) {
        eprintln!("set-up: building the client of the AWS SDK for Java: half a minute, 60 MB, once");
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        run(Command::new("mvn")
            .args(["-q", "-B", "dependency:copy-dependencies"])
            .arg(format!("-DoutputDirectory={}", folder.join("jars").display()))
            .arg("-f")
            .arg(sources.join("pom.xml")))?;
        run(Command::new("javac")
            .arg("-cp")
            .arg(format!("{}/*", folder.join("jars").display()))
            .arg("-d")
            .arg(folder.join("classes"))
            .arg(sources.join("Work.java")))?;
        copy(sources, folder, &SOURCES)?;
    }
    Ok(())
}

fn keycloak(sources: &Path, folder: &Path) -> Result<()> {
    const SOURCES: [&str; 2] = ["pom.xml", "realm.json"];
    if !is_current(sources, folder, &SOURCES) {
        eprintln!("set-up: Keycloak, 200 MB, into {}: a minute, once", folder.display());
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        run(Command::new("mvn")
            .args(["-q", "-B", "dependency:copy-dependencies"])
            .arg(format!("-DoutputDirectory={}", folder.join("archive").display()))
            .arg("-f")
            .arg(sources.join("pom.xml")))?;
        let archive = fs::read_dir(folder.join("archive")).context("looking for Keycloak's archive")?;
        let archive = archive.flatten().next().context("Maven brought no archive of Keycloak")?.path();
        let home = folder.join("keycloak");
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
        run(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&home).arg("--strip-components=1"))?;
        fs::remove_dir_all(folder.join("archive")).context("removing Keycloak's archive")?;
        copy(sources, folder, &SOURCES)?;
    }
    Ok(())
}

fn rust(sources: &Path, folder: &Path) -> Result<()> {
    const SOURCES: [&str; 3] = ["Cargo.toml", "Cargo.lock", "src/main.rs"];
    if !is_current(sources, folder, &SOURCES) {
        eprintln!("set-up: building the client of the AWS SDK for Rust: some minutes, once");
        let built = folder.join("target");
        run(place::cargo()
            .args(["build", "--quiet", "--locked", "--target-dir"])
            .arg(&built)
            .current_dir(sources)
            .env_remove("CARGO_TARGET_DIR"))?;
        fs::rename(built.join("debug/client"), folder.join("client")).context("putting the client in place")?;
        fs::remove_dir_all(&built).with_context(|| format!("removing {}", built.display()))?; // 800 MB
        fs::create_dir_all(folder.join("src")).with_context(|| format!("making {}", folder.display()))?;
        copy(sources, folder, &SOURCES)?;
    }
    Ok(())
}
