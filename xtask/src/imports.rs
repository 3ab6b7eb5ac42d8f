//! No file of these crates imports one that imports it, directly or by way of others: each can be read with what is below it
//! alone.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A module's path within its crate: `["connection", "quota"]`.
type Module = Vec<String>;

/// What is left: what an action needs is said in terms of resources, which are gathered into it; an answer inside of an
/// event's payload is masked like one by itself. It may only shrink.
const KNOWN: [(&str, &str); 2] =
    [("aws", "(all: actions, endpoint, host, resources)"), ("masking", "(all: event_stream, masker)")];

#[test]
fn no_file_imports_one_that_imports_it() {
    let mut found = Vec::new();
    for (name, files, arrows) in [
        ("aws", 30, 60),
        ("capture", 20, 15),
        ("console", 3, 1),
        ("identity", 3, 2),
        ("journal", 20, 50),
        ("masking", 0, 0),
        ("policy", 4, 4),
        ("proxy", 30, 100),
        ("warehouse", 5, 5),
    ] {
        let imports = imports(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../userspace").join(name).join("src"));
        let count = imports.values().map(BTreeSet::len).sum::<usize>();
        assert!(imports.len() >= files && count >= arrows, "{name}: {imports:?}");
        let known = KNOWN.iter().filter(|(of, _)| *of == name).map(|(_, files)| *files);
        let circles =
            circles(&imports).into_iter().filter(|circle| !known.clone().any(|files| circle.ends_with(files)));
        found.extend(circles.map(|circle| format!("{name}: {circle}")));
    }
    assert!(found.is_empty(), "circles of imports:\n{}", found.join("\n"));
}

#[test]
fn circles_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("lib.rs", "mod a;\nmod b;\npub use b::Thing;\n");
    write("a.rs", "// crate::nothing\nuse crate::{Thing, c::{D, E}};\n#[cfg(test)]\nmod tests { use crate::a; }\n");
    write("b.rs", "pub struct Thing(crate::c::D);\n");
    write("c.rs", "use std::fmt;\n");
    let first = imports(folder.path());
    let found = |of: &str, imports: &BTreeMap<Module, BTreeSet<Module>>| {
        circle(&vec![of.to_owned()], imports, &mut Vec::new(), &mut BTreeSet::new())
    };
    assert_eq!(found("a", &first), None);
    write("c.rs", "use super::a;\n");
    assert!(found("a", &imports(folder.path())).is_some_and(|circle| circle.len() >= 3));
}

/// One circle of each group of files that import each other, the group's other files named behind it.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    let reach: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|from| (from, reached(from, imports))).collect();
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for (module, reached) in &reach {
        if !reached.contains(module) || told.contains(module) {
            continue;
        }
        let group: Vec<_> = reached.iter().copied().filter(|other| reach[other].contains(module)).collect();
        told.extend(group.iter().copied());
        let circle = circle(module, imports, &mut Vec::new(), &mut BTreeSet::new()).unwrap_or_default();
        let names = |modules: &[Module], between: &str| {
            modules.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(between)
        };
        let all: Vec<Module> = group.into_iter().cloned().collect();
        found.push(format!("{} (all: {})", names(&circle, " -> "), names(&all, ", ")));
    }
    found
}

fn reached<'a>(from: &'a Module, imports: &'a BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let (mut all, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        next.extend(imports.get(module).into_iter().flatten().filter(|module| all.insert(*module)));
    }
    all
}

fn circle(
    module: &Module,
    imports: &BTreeMap<Module, BTreeSet<Module>>,
    way: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    if let Some(at) = way.iter().position(|one| one == module) {
        return Some([&way[at..], std::slice::from_ref(module)].concat());
    }
    if done.contains(module) {
        return None;
    }
    way.push(module.clone());
    let found = imports.get(module).into_iter().flatten().find_map(|next| circle(next, imports, way, done));
    way.pop();
    done.insert(module.clone());
    found
}

/// What each file imports, without its tests. Files that only name others (`lib.rs`, `mod.rs`) are seen through.
fn imports(root: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = Vec::new();
    walk(root, &mut files);
    let texts: BTreeMap<Module, String> = files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
            (module_of(root, file), lines.join("\n"))
        })
        .collect();
    let named = |module: &Module| {
        let texts = &texts;
        let own = texts.get(module).cloned().unwrap_or_default();
        let mut paths = Vec::new();
        for statement in own.split(';').filter_map(|it| it.trim_start().strip_prefix("pub use ")) {
            for path in tree(statement.trim_start_matches("crate::")).0 {
                paths.push(path);
            }
        }
        paths
    };
    let resolve = |path: &[String]| -> Option<Module> {
        let mut path = path.to_vec();
        for _ in 0..4 {
            let length = (0..=path.len()).rev().find(|&length| texts.contains_key(&path[..length]))?;
            let module = path[..length].to_vec();
            let is_face = module.is_empty() || root.join(module.join("/")).join("mod.rs").exists();
            if !is_face {
                return Some(module);
            }
            let item = path.get(length)?;
            path = named(&module).into_iter().find(|named| named.last() == Some(item))?;
        }
        None
    };
    texts
        .iter()
        .filter(|(module, _)| !module.is_empty() && !root.join(module.join("/")).join("mod.rs").exists())
        .map(|(module, text)| {
            let mut found = BTreeSet::new();
            for (at, _) in text.match_indices("crate::") {
                found.extend(tree(&text[at + 7..]).0.iter().filter_map(|path| resolve(path)));
            }
            for (at, _) in text.match_indices("super::") {
                let above = &module[..module.len() - 1];
                let paths = tree(&text[at + 7..]).0;
                found.extend(paths.iter().filter_map(|path| resolve(&[above, path].concat())));
            }
            found.remove(module);
            (module.clone(), found)
        })
        .collect()
}

/// The paths of `a::{b, c::{D, E}}`, and what follows it.
fn tree(text: &str) -> (Vec<Vec<String>>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut all = Vec::new();
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            match rest.strip_prefix('}') {
                Some(after) => return (all, after),
                None if rest.is_empty() => return (all, rest),
                None => {}
            }
            let (paths, after) = tree(rest);
            let after = after.trim_start();
            // `as NAME`
            rest = after.strip_prefix("as ").map_or(after, |renamed| renamed.trim_start_matches(is_name));
            all.extend(paths);
            if after.len() == rest.len() && !after.starts_with([',', '}']) {
                return (all, after);
            }
        }
    }
    let name: String = text.chars().take_while(|c| is_name(*c)).collect();
    let after = &text[name.len()..];
    if name.is_empty() {
        return (vec![Vec::new()], text.strip_prefix('*').unwrap_or(text));
    }
    match after.strip_prefix("::") {
        Some(inner) if inner.starts_with(|c| is_name(c) || c == '{' || c == '*') => {
            let (paths, rest) = tree(inner);
            (paths.into_iter().map(|path| [vec![name.clone()], path].concat()).collect(), rest)
        }
        _ => (vec![vec![name]], after),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    // A crate that is not there yet imports nothing.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

fn module_of(root: &Path, file: &Path) -> Module {
    let path = file.strip_prefix(root).unwrap().with_extension("");
    let mut module: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(module.last().map(String::as_str), Some("lib" | "mod")) {
        module.pop();
    }
    module
}
