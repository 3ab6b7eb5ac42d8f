//! The state of containers' engines, as a user's own podman keeps it: whatever is in there, it is read to an end.
#![no_main]

use std::{cell::LazyCell, fs, path::PathBuf};

use chaperone_identity::{Containers, EngineFolders};
use libfuzzer_sys::fuzz_target;

/// Of the databases that the corpus begins with: podman's, in bbolt and in SQLite, and containerd's.
const IDS: [&str; 3] = [
    "6a909d5105424117f1b7c8820324fb8852db99fdfa409e3f1d66b91b6f881c92",
    "2ab72a5209c9348d5f19b9c1353d5d95dc33bce665dd84795beee912e6ea061d",
    "1bc7dca9f4d623f3946e6f3013d0879c57dfe326899801afc2fa51c1da8c2402",
];

thread_local! {
    static FOLDER: LazyCell<PathBuf> = LazyCell::new(|| {
        let folder = std::env::temp_dir().join(format!("chaperone-fuzz-{}", std::process::id()));
        for below in ["libpod", "vfs-containers", "io.containerd.metadata.v1.bolt"] {
            fs::create_dir_all(folder.join(below)).unwrap();
        }
        let task = folder.join("io.containerd.runtime.v2.task/k8s.io").join(IDS[2]);
        fs::create_dir_all(&task).unwrap();
        fs::write(task.join("config.json"), "{}").unwrap();
        folder
    });
}

fuzz_target!(|data: &[u8]| {
    FOLDER.with(|folder| {
        let files = [
            "db.sql",
            "libpod/bolt_state.db",
            "vfs-containers/containers.json",
            "io.containerd.metadata.v1.bolt/meta.db",
        ];
        for file in files {
            fs::write(folder.join(file), data).unwrap();
        }
        let folders = vec![folder.to_path_buf()];
        let containers =
            Containers::new(EngineFolders { podman: folders.clone(), containerd: folders, ..EngineFolders::default() });
        for id in IDS {
            let told = containers.of(&format!("/libpod-{id}")).unwrap();
            assert!(told.id == id && told.labels.len() <= 64 && told.name.len() <= 1024);
        }
    });
});
