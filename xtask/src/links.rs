//! The pages of the documentation, and what they link to: no page names a file that isn't there.

use std::{fs, path::PathBuf};

use crate::place;

/// The workspace's pages: those at its root, and those of `docs`.
pub fn pages() -> Vec<PathBuf> {
    let folders = [place::root(), place::root().join("docs")];
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "md")).collect()
}

/// What `[text](target)` points at, save other sites and places in the page itself.
pub fn targets(text: &str) -> impl Iterator<Item = &str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ', '\n']).next());
    links
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .map(|link| link.split('#').next().unwrap_or(link))
}

#[cfg(test)]
#[test]
fn every_link_in_the_documentation_leads_to_a_file() {
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in targets(&text) {
            count += 1;
            let file = page.parent().unwrap().join(target);
            assert!(file.exists(), "{}: there is no {target}", page.display());
        }
    }
    assert!(count > 5, "only {count} links were found");
}
