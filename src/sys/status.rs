//! What proc_pid_status(5) says of a process.

use std::fs;

/// Reads the line of this name. It is `None` if there is none, or no such process, or /proc does
/// not show it.
pub(crate) fn status(pid: u32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_whole_name() {
        let own = std::process::id();
        assert_eq!(status(own, "Pid"), Some(own.to_string()));
        assert_eq!((status(own, "Pi"), status(0, "Pid")), (None, None));
    }
}
