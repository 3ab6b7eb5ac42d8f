//! Runtimes whose containers have a network of their own making: a kernel of their own sends by packet sockets or TUN devices
//! that somebody else has made, and no socket of the container's cgroup is what its programs talk through.

/// In the names of gVisor's runtimes, those of Kata Containers, Firecracker's and libkrun's, as engines and Kubernetes have
/// them: `io.containerd.runsc.v1`, `io.containerd.kata-qemu.v2`, `aws.firecracker`, …
const WITHIN: [&str; 5] = ["runsc", "gvisor", "kata", "firecracker", "krun"];

/// Whether containers of the runtime of that name can't be captured.
pub(super) fn is_unsupported(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WITHIN.iter().any(|within| name.contains(within))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_with_kernels_of_their_own_are_known_by_their_names() {
        for name in [
            "io.containerd.runsc.v1",
            "runsc",
            "gVisor",
            "io.containerd.kata.v2",
            "io.containerd.kata-qemu.v2",
            "kata-runtime",
            "aws.firecracker",
            "krun",
        ] {
            assert!(is_unsupported(name), "{name}");
        }
        for name in ["", "runc", "crun", "youki", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"] {
            assert!(!is_unsupported(name), "{name}");
        }
    }
}
