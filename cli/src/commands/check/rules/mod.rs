//! The rules, in one table. An id is for ever: what was one is never given to another rule.

mod file;
mod lifecycle;
mod loads;
mod process;
mod reload;
mod resources;
mod sandbox;
mod signals;
mod socket;
mod store;
mod timeouts;

use super::rule::Rule;

/// By id.
pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    let groups: [&'static [Rule]; 10] = [
        file::RULES,
        lifecycle::RULES,
        process::RULES,
        signals::RULES,
        reload::RULES,
        timeouts::RULES,
        resources::RULES,
        socket::RULES,
        store::RULES,
        sandbox::RULES,
    ];
    groups.into_iter().flatten()
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
            assert!(String::from(rule.link).starts_with("https://"));
        }
    }
}
