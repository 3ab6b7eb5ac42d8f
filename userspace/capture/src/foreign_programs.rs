//! What runs at the hooks' places besides them: other daemons' hooks, and other programs, which may refuse or rewrite.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use aya::{
    maps::MapInfo,
    programs::{ProgramInfo, loaded_programs},
};

use crate::{
    CaptureError, bpffs, cgroup_root,
    hooks::{ATTACH_TYPES, is_map},
    sys,
};

/// A program that isn't the daemon's, in force where one of its hooks is.
#[derive(Clone, Debug)]
pub struct ForeignPrograms {
    /// The hook there.
    pub hook: &'static str,
    /// Its id, as `bpftool prog` lists it.
    pub program: u32,
    /// Its name, which may be empty.
    pub name: String,
    /// Whose it is.
    pub whose: Whose,
}

/// Whose a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A daemon's with another folder in the BPF filesystem, and whether that daemon lives.
    Chaperones {
        /// The folder.
        folder: PathBuf,
        /// Whether a process holds it.
        lives: bool,
    },
    /// A daemon's, pinned nowhere that can be seen: in another mount namespace, or taken away since.
    Unpinned,
    /// Somebody else's.
    Others,
}

/// The programs at the root of cgroup v2, in the places of the hooks, that aren't those pinned in `bpffs`.
pub fn beside(bpffs: &Path) -> Result<Vec<ForeignPrograms>, CaptureError> {
    let failed = || CaptureError::system("listing what is attached at the root of cgroup v2");
    let root = File::open(cgroup_root()?).map_err(failed())?;
    let own = pinned(bpffs).map_err(failed())?;
    let mut folders = BTreeMap::new();
    for parent in [bpffs.parent().unwrap_or(Path::new("/")), Path::new("/sys/fs/bpf")] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten().filter(|_| bpffs::is_bpffs(parent)) {
            let programs = pinned(&entry.path()).unwrap_or_default();
            folders.extend(programs.into_values().map(|program| (program, entry.path())));
        }
    }
    let known: BTreeMap<u32, ProgramInfo> = loaded_programs().flatten().map(|info| (info.id(), info)).collect();
    let mut found = Vec::new();
    for (hook, kind) in ATTACH_TYPES {
        for program in sys::effective_programs(root.as_fd(), kind).map_err(failed())? {
            if own.get(hook) == Some(&program) {
                continue;
            }
            let info = known.get(&program);
            let whose = match folders.get(&program) {
                Some(folder) => Whose::Chaperones { folder: folder.clone(), lives: bpffs::Folder::is_locked(folder) },
                None if info.is_some_and(|info| is_chaperones(hook, info)) => Whose::Unpinned,
                None => Whose::Others,
            };
            let name = info.map(|info| String::from_utf8_lossy(info.name()).into_owned()).unwrap_or_default();
            found.push(ForeignPrograms { hook, program, name, whose });
        }
    }
    Ok(found)
}

/// Those of the hooks that are pinned there, but not in force: somebody detached them. `None` if there are no pins at all.
pub fn pinned_but_off(bpffs: &Path) -> Result<Option<Vec<&'static str>>, CaptureError> {
    let failed = || CaptureError::system(format!("comparing the pins in {} with what is attached", bpffs.display()));
    if !bpffs.exists() {
        return Ok(None);
    }
    let root = File::open(cgroup_root()?).map_err(failed())?;
    let own = pinned(bpffs).map_err(failed())?;
    let mut off = Vec::new();
    for (hook, kind) in ATTACH_TYPES {
        let effective = sys::effective_programs(root.as_fd(), kind).map_err(failed())?;
        // Kernels before 6.1 may do without that one.
        let needed = hook != "device" || own.contains_key(hook);
        if needed && !own.get(hook).is_some_and(|program| effective.contains(program)) {
            off.push(hook);
        }
    }
    Ok(Some(off))
}

/// The programs of the links that are pinned there, by their hooks.
fn pinned(folder: &Path) -> io::Result<BTreeMap<&'static str, u32>> {
    let mut programs = BTreeMap::new();
    for (hook, _) in ATTACH_TYPES {
        let pin = CString::new(folder.join(format!("link_{hook}")).as_os_str().as_bytes())?;
        match sys::open_pinned(&pin) {
            Ok(link) => drop(programs.insert(hook, sys::link_program(link.as_fd())?)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

/// By its name and a map's.
fn is_chaperones(hook: &str, info: &ProgramInfo) -> bool {
    let maps = info.map_ids().ok().flatten().unwrap_or_default();
    let named = |id: &u32| MapInfo::from_id(*id).is_ok_and(|map| map.name_as_str().is_some_and(is_map));
    info.name_as_str() == Some(hook) && maps.iter().any(named)
}
