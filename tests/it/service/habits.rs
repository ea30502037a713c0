//! `src/docs/habits.md`: each test and scenario that it names exists.

use std::fs;
use std::path::Path;

use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![every_test_that_it_names_exists];

fn every_test_that_it_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("src/docs/habits.md")).unwrap();
    let mut rows = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.contains("| shown by |")) {
        let named = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let name = named.strip_prefix('`').and_then(|n| n.strip_suffix('`')).unwrap_or_else(|| panic!("{row}"));
        let [target, module, case] = name.split("::").collect::<Vec<_>>()[..] else { panic!("{name}") };
        let file = match target {
            "scenario" => format!("tests/systemd/scenarios/{module}.rs"),
            _ => format!("tests/it/{target}/{module}.rs"),
        };
        let source = fs::read_to_string(root.join(&file)).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
        // Its function, and one more mention, in the list of cases.
        assert!(source.contains(&format!("fn {case}(")) && source.matches(case).count() > 1, "{name}: not in {file}");
        rows += 1;
    }
    assert!(rows > 30, "{rows} rows");
}
