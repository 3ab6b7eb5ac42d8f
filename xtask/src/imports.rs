//! No file of the proxy imports one that imports it, directly or by way of others: each can be read with what is below
//! it alone.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A module's path within its crate: `["connection", "quota"]`.
type Module = Vec<String>;

#[test]
fn no_file_of_the_proxy_imports_one_that_imports_it() {
    let imports = imports(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../userspace/proxy/src"));
    assert!(imports.len() > 30 && imports.values().map(BTreeSet::len).sum::<usize>() > 100, "{imports:?}");
    let mut done = BTreeSet::new();
    for module in imports.keys() {
        if let Some(circle) = circle(module, &imports, &mut Vec::new(), &mut done) {
            let circle: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
            panic!("a circle of imports: {}", circle.join(" -> "));
        }
    }
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
    for entry in fs::read_dir(folder).unwrap() {
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
