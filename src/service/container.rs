//! A small init as PID 1 of a container, which ends with the program that it started.

use std::fs;

/// What such an init is called: `docker run --init`, `podman run --init`, and what images bring
/// along. A shell without exec is one, too.
const INITS: [&str; 11] = [
    "tini",
    "tini-static",
    "docker-init",
    "dumb-init",
    "catatonit",
    "podman-init",
    "sh",
    "bash",
    "dash",
    "ash",
    "busybox",
];
/// Where older versions of podman have it.
const PODMAN_INIT: &str = "/dev/init";

/// Names the parent of this process, if that is PID 1 and ends, with the whole container, when this
/// process does.
pub(crate) fn ending_init() -> Option<String> {
    if nix::unistd::getppid().as_raw() != 1 {
        return None;
    }
    named(&fs::read_to_string("/proc/1/comm").ok()?, &fs::read("/proc/1/cmdline").unwrap_or_default())
}

/// Knows such an init by what the kernel says of it.
fn named(comm: &str, arguments: &[u8]) -> Option<String> {
    let comm = comm.trim_end();
    let zeroth = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    let known = INITS.contains(&comm) || zeroth == PODMAN_INIT.as_bytes();
    // Of busybox that is every applet, its init included, which does not end.
    let is_init = comm == "busybox" && zeroth.ends_with(b"init");
    (known && !is_init).then(|| comm.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_that_ends_with_its_child_is_known() {
        for (comm, arguments, ends) in [
            ("tini\n", "/usr/bin/tini\0--\0web\0", true),
            ("docker-init\n", "/sbin/docker-init\0--\0web\0", true),
            ("dumb-init\n", "dumb-init\0web\0", true),
            ("catatonit\n", "/catatonit\0-P\0", true),
            ("init\n", "/dev/init\0--\0web\0", true),
            ("sh\n", "sh\0-c\0web; true\0", true),
            ("systemd\n", "/sbin/init\0", false),
            ("init\n", "init [2]\0", false),
            ("busybox\n", "/sbin/init\0", false),
            ("runit\n", "runit\0", false),
            ("s6-svscan\n", "s6-svscan\0", false),
        ] {
            assert_eq!(named(comm, arguments.as_bytes()).is_some(), ends, "{comm}");
        }
    }
}
