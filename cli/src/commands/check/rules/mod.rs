//! What the rules of `rules.toml` look at, by subject.

mod file;
mod lifecycle;
mod loads;
mod process;
mod reload;
mod resources;
mod restarts;
mod sandbox;
mod signals;
mod socket;
mod store;
mod timeouts;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::rule::{Row, Rule};

/// By id.
const ROWS: [&[Row]; 11] = [
    file::RULES,
    lifecycle::RULES,
    process::RULES,
    restarts::RULES,
    signals::RULES,
    reload::RULES,
    timeouts::RULES,
    resources::RULES,
    socket::RULES,
    store::RULES,
    sandbox::RULES,
];

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let table: HashMap<String, Vec<Rule>> = toml::from_str(include_str!("../rules.toml")).expect("tests read it");
    let mut rules: Vec<_> = table.into_values().flatten().collect();
    let checks: HashMap<_, _> = ROWS.into_iter().flatten().copied().collect();
    for rule in &mut rules {
        rule.check = checks.get(rule.id).copied().unwrap_or_default();
    }
    rules
});

pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    RULES.iter()
}

pub(super) fn find(text: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.is_called(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_unique_and_in_order() {
        let ids: Vec<_> = all().map(|r| r.id).collect();
        assert!(ROWS.into_iter().flatten().map(|(id, _)| *id).eq(ids.iter().copied()), "each looks at something");
        assert!(ids.windows(2).all(|two| two[0] < two[1]), "{ids:?}");
        let mut names: Vec<_> = all().map(|r| r.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ids.len());
    }

    #[test]
    fn each_rule_says_why_in_one_sentence_and_what_to_do() {
        for rule in all() {
            let sentence =
                |text: &str| text.ends_with('.') && !text.trim_end_matches('.').contains(". ") && text.len() > 20;
            assert!(sentence(rule.why), "{}: {}", rule.id, rule.why);
            assert!(rule.remedy.ends_with('.') && !rule.title.ends_with('.'), "{}", rule.id);
            assert!(rule.id.len() == 5 && rule.id.starts_with("HO"), "{}", rule.id);
            assert!(rule.link.starts_with("https://"));
        }
    }
}
