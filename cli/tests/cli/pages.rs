//! The manual pages.

use std::process::Command;

use crate::{commands, handover, is_there, run};

#[test]
fn a_page_for_every_command_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let made = handover(&["man", dir.path().to_str().unwrap()]);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    let mut expected: Vec<_> = commands().iter().map(|name| format!("handover-{name}.1")).collect();
    expected.push("handover.1".to_owned());
    let mut found: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    if !is_there("man", "man-db") || !is_there("groff", "groff") {
        return;
    }
    for page in found {
        let mut command = Command::new("man");
        // As Debian's lintian asks.
        command.args(["--warnings", "-E", "UTF-8", "-l"]).arg(dir.path().join(&page));
        command.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "80");
        let shown = run(&mut command);
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{page}");
        for section in
            ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"]
        {
            assert!(shown.stdout.lines().any(|line| line == section), "{page} has no {section}:\n{}", shown.stdout);
        }
        let wide: Vec<_> = shown.stdout.lines().filter(|line| line.chars().count() > 92).collect();
        assert!(wide.is_empty(), "{page}: {wide:#?}");
    }
}
