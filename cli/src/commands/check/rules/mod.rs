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

pub(super) use self::lifecycle::notifies;
use super::finding::{Finding, Severity};
use super::pair::{Claim, Pair};
use super::unit::Unit;

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// `HO`, the group's digit, two more.
    pub(super) id: &'static str,
    /// For people: also accepted by `--explain` and `Ignore=`.
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    pub(super) scope: Scope,
    /// What is wrong, in one line.
    pub(super) title: &'static str,
    /// Why, in one sentence.
    pub(super) why: &'static str,
    /// What to do about it.
    pub(super) remedy: &'static str,
    /// Where it is written: a page of systemd's manual, or a chapter of ours.
    pub(super) link: Link,
    pub(super) check: Check,
}

/// For whom a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// For every unit: systemd itself does something else than what is written.
    Any,
    /// For services that are reloaded by a handover.
    Rolling,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Link {
    /// A page and, after `#`, a setting.
    Man(&'static str),
    /// A chapter of this crate's documentation.
    Docs(&'static str),
}

/// What a rule looks at.
#[derive(Clone, Copy)]
pub(super) enum Check {
    Service(fn(&Unit, &Pair<'_>) -> Option<Finding>),
    ServiceAll(fn(&Unit, &Pair<'_>) -> Vec<Finding>),
    Socket(fn(&Unit, &Pair<'_>) -> Option<Finding>),
    /// Services and sockets alike.
    EachAll(fn(&Unit, &Pair<'_>) -> Vec<Finding>),
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

impl Rule {
    /// What it finds in one service and its sockets.
    pub(super) fn apply(&self, pair: &Pair<'_>) -> Vec<Finding> {
        match self.check {
            Check::Service(check) => pair.service.and_then(|service| check(service, pair)).into_iter().collect(),
            Check::ServiceAll(check) => pair.service.map(|service| check(service, pair)).unwrap_or_default(),
            Check::Socket(check) => pair.sockets.iter().filter_map(|socket| check(socket, pair)).collect(),
            Check::EachAll(check) => pair.units().flat_map(|unit| check(unit, pair)).collect(),
        }
    }

    /// How much it weighs for a service of which only that much is known.
    pub(super) fn severity_for(&self, claim: Claim) -> Severity {
        match (self.scope, claim) {
            (Scope::Any, _) | (Scope::Rolling, Claim::Yes) => self.severity,
            (Scope::Rolling, Claim::Likely) => self.severity.lowered(),
            (Scope::Rolling, Claim::No) => Severity::Info,
        }
    }

    /// Whether what it proposes is only for a service that is known to speak sd_notify and to take
    /// listeners, and breaks any other.
    pub(super) fn breaks_others(&self) -> bool {
        matches!(self.id, "HO101" | "HO103" | "HO108" | "HO131" | "HO132" | "HO133" | "HO138" | "HO201" | "HO311")
    }

    pub(super) fn is_called(&self, text: &str) -> bool {
        self.id.eq_ignore_ascii_case(text) || self.name == text
    }
}

impl Link {
    pub(super) fn url(self) -> String {
        match self {
            Self::Man(page) => match page.split_once('#') {
                Some((page, setting)) => {
                    format!("https://www.freedesktop.org/software/systemd/man/latest/{page}.html#{setting}=")
                }
                None => format!("https://www.freedesktop.org/software/systemd/man/latest/{page}.html"),
            },
            Self::Docs(chapter) => format!("https://docs.rs/handover/latest/handover/docs/{chapter}/index.html"),
        }
    }
}

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
            assert!(rule.link.url().starts_with("https://"));
        }
    }
}
