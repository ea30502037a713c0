//! Which programs have the library in them: known by what it passes to the next generation.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use memchr::memmem;

use super::unit::Unit;

/// Variables that the library sets for the next generation, and nothing else does.
const MARKS: [&[u8]; 2] = [b"HANDOVER_FD", b"HANDOVER_PID"];
/// Of one program; a larger one is not looked into.
const LARGEST: u64 = 256 * 1024 * 1024;
/// Of all programs together: a directory can have hundreds of units.
const BUDGET: u64 = 2 * 1024 * 1024 * 1024;

/// Programs, as units name them, that are on this machine and have handover in them.
pub(super) fn with_handover(units: &[Unit]) -> BTreeSet<String> {
    let services = units.iter().filter(|u| u.name.is_service());
    let paths: BTreeSet<String> = services.flat_map(|s| s.commands("ExecStart")).map(|(exec, _)| exec.path).collect();
    let mut left = BUDGET;
    paths.into_iter().filter(|path| path.starts_with('/') && has_marks(Path::new(path), &mut left)).collect()
}

fn has_marks(path: &Path, budget: &mut u64) -> bool {
    // The tool itself has the library too; what it is started for says more.
    let is_tool = path.file_name().is_some_and(|name| name == "handover");
    let Some(size) = path.metadata().ok().filter(|m| m.is_file() && !is_tool).map(|m| m.len()) else { return false };
    if size > LARGEST || size > *budget {
        return false;
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        let mut file = file.take(LARGEST);
        let mut magic = [0; 4];
        file.read_exact(&mut magic)?;
        if magic == *b"\x7fELF" { file.read_to_end(&mut bytes) } else { Ok(0) }
    });
    *budget -= size;
    read.is_ok() && MARKS.iter().all(|mark| memmem::find(&bytes, mark).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_has_the_library_in_it_and_a_shell_has_not() {
        let here = std::env::current_exe().unwrap();
        assert!(has_marks(&here, &mut { BUDGET }));
        assert!(!has_marks(Path::new("/bin/sh"), &mut { BUDGET }));
        assert!(!has_marks(&here, &mut 10), "above the budget nothing is read");
        assert!(!has_marks(Path::new("/dev/zero"), &mut { BUDGET }));
    }
}
