"""Fetches what `cargo xtask masking` looks through, and lays it out as files.

Usage: masking_corpus.py FOLDER, by a Python that has PyYAML. Below FOLDER are then `rules.ndjson` (vendors' regular
expressions, one a line), `samples/` (texts of secret scanners' tests) and `ordinary/` (answers, templates,
documentation, source code).
"""

import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import yaml

ORDINARY = ("botocore", "cfn_lint", "moto")
# crates.io's, with the SHA-256 of their archives.
CRATES = {
    "kingfisher-rules": ("3.0.1", "ae83deaf5347fc4213918c557d69528c82772674825176d8a9fd734b8be78175"),
    "ripsecrets": ("0.1.11", "c07838134323adab4f8ec502f87ce3374e264846a8bc07351f221f7c30d02579"),
}
MAX_FILE = 32 << 20
TEXT = re.compile(r"\.(py|json|ya?ml|toml|md|rst|txt|xml|html|js|ts|tf|template|cfg|ini|ndjson|env|gz)$|/[^.]+$")


def crates(folder: Path) -> dict[str, Path]:
    """Has cargo fetch the crates, and gives where their sources are."""
    scratch = folder / "crates"
    (scratch / "src").mkdir(parents=True, exist_ok=True)
    (scratch / "src/lib.rs").write_text("")
    wanted = "".join(f'{name} = "={version}"\n' for name, (version, _) in CRATES.items())
    package = '[package]\nname = "corpus"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n'
    (scratch / "Cargo.toml").write_text(package + wanted)
    subprocess.run(["cargo", "fetch", "--quiet"], cwd=scratch, check=True)
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    found = {}
    for name, (version, checksum) in CRATES.items():
        [archive] = glob.glob(str(home / f"registry/cache/*/{name}-{version}.crate"))
        told = hashlib.sha256(Path(archive).read_bytes()).hexdigest()
        if told != checksum:
            sys.exit(f"{archive} has another checksum than is pinned: {told}")
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "unpacked", filter="data")
        found[name] = folder / "unpacked" / f"{name}-{version}"
    return found


def sources(folder: Path) -> list[Path]:
    """Downloads the source distributions, whose hashes pip checks, and unpacks them."""
    requirements = Path(__file__).parent.parent / "masking/requirements.txt"
    archives = folder / "archives"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--require-hashes"]
    subprocess.run([*command, "--dest", str(archives), "-r", str(requirements)], check=True)
    found = []
    for archive in sorted(archives.glob("*.tar.gz")):
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "unpacked", filter="data")
        found.append(folder / "unpacked" / archive.name.removesuffix(".tar.gz"))
    return found


def lay(source: Path, target: Path) -> None:
    """Copies texts, uncompressed, each with a name that tells where it is from."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        if not path.is_file() or path.is_symlink() or not TEXT.search("/" + path.name) or path.stat().st_size > MAX_FILE:
            continue
        body = path.read_bytes()
        if path.suffix == ".gz":
            body = gzip.decompress(body)
        if b"\0" not in body[:4096]:
            name = str(path.relative_to(source.parent)).replace("/", "__").removesuffix(".gz")
            (target / name[-200:]).write_bytes(body)


def main() -> None:
    folder = Path(sys.argv[1])
    for part in ("unpacked", "samples", "ordinary"):
        shutil.rmtree(folder / part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    found = crates(folder)
    for source in sources(folder):
        ordinary = source.name.startswith(ORDINARY)
        if source.name.startswith("moto"):
            # Its own tests have made-up keys on purpose.
            shutil.rmtree(source / "tests", ignore_errors=True)
        lay(source, folder / ("ordinary" if ordinary else "samples"))
    lay(found["ripsecrets"] / "test", folder / "samples")
    stdlib(folder / "ordinary")
    rules = yaml.load((found["kingfisher-rules"] / "generated/rules/betterleaks.yml").read_text(), yaml.CSafeLoader)
    with (folder / "rules.ndjson").open("w") as out:
        for rule in rules["rules"]:
            one = {"id": rule["id"].removeprefix("betterleaks."), "pattern": rule["pattern"].strip()}
            one["group"] = rule.get("betterleaks_secret_group") or 0
            out.write(json.dumps(one) + "\n")
    for part in ("archives", "crates", "unpacked"):
        shutil.rmtree(folder / part)


def stdlib(target: Path) -> None:
    """Python's own library, without its tests: they have keys of their own."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if "site-packages" not in parts and "test" not in parts and "tests" not in parts:
            (target / ("stdlib__" + "__".join(parts))[-200:]).write_bytes(path.read_bytes())


main()
