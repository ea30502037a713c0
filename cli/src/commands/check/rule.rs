//! What a rule is.

use serde::Serialize;

pub(super) use super::directives::{SERVICE, SOCKET, UNIT};
pub(super) use super::finding::Finding;
pub(super) use super::finding::Severity::{self, Error, Info, Warning};
use super::pair::Claim;
pub(super) use super::pair::Pair;
pub(super) use super::unit::{Setting, Unit};
pub(super) use Then::{Remedy, Set};

/// One rule, as a row of a table that begins with [`Rule::rolling`] or [`Rule::any`].
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Rule {
    /// `HO`, the group's digit, two more.
    pub(super) id: Text,
    /// For people: also accepted by `--explain` and `Ignore=`.
    pub(super) name: Text,
    pub(super) severity: Severity,
    pub(super) scope: Scope,
    /// What is wrong, in one line.
    pub(super) title: Text,
    /// Why, in one sentence.
    pub(super) why: Text,
    /// What to do about it, where a finding knows nothing better.
    pub(super) remedy: Text,
    pub(super) link: Link,
    #[serde(skip)]
    check: Check,
}

/// For whom a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    /// For every unit: systemd itself does something else than what is written.
    Any,
    /// For services that are reloaded by a handover.
    Rolling,
}

/// A page of systemd's manual with a setting after `#`, or a chapter of our documentation.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(into = "String")]
pub(super) struct Link(Text);

type Text = &'static str;
type One = fn(&Unit, &Pair<'_>) -> Option<Finding>;
type Several = fn(&Unit, &Pair<'_>) -> Vec<Finding>;

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
enum Check {
    /// One setting: whether its value is bad, and what to do then.
    Setting(Text, Text, fn(&str) -> bool, Then),
    Service(One),
    ServiceAll(Several),
    Socket(One),
    /// Services and sockets alike.
    Each(Several),
}

/// What to do about a setting with a bad value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    /// Write this one; an empty one is the default.
    Set(Text),
    /// What the rule's remedy says.
    Remedy,
}

impl Rule {
    /// A rule for services that are reloaded by a handover.
    pub(super) const fn rolling(id: Text, name: Text, severity: Severity, title: Text) -> Self {
        let check = Check::Service(|_, _| None);
        Self { id, name, severity, scope: Scope::Rolling, title, why: "", remedy: "", link: Link(""), check }
    }

    /// A rule for every unit.
    pub(super) const fn any(id: Text, name: Text, severity: Severity, title: Text) -> Self {
        Self { scope: Scope::Any, ..Self::rolling(id, name, severity, title) }
    }

    pub(super) const fn why(self, why: Text) -> Self {
        Self { why, ..self }
    }

    pub(super) const fn remedy(self, remedy: Text) -> Self {
        Self { remedy, ..self }
    }

    pub(super) const fn link(self, page: Text) -> Self {
        Self { link: Link(page), ..self }
    }

    /// Finds a setting whose last value is bad.
    pub(super) const fn when(self, section: Text, key: Text, is_bad: fn(&str) -> bool, then: Then) -> Self {
        Self { check: Check::Setting(section, key, is_bad, then), ..self }
    }

    pub(super) const fn service(self, check: One) -> Self {
        Self { check: Check::Service(check), ..self }
    }

    pub(super) const fn service_all(self, check: Several) -> Self {
        Self { check: Check::ServiceAll(check), ..self }
    }

    pub(super) const fn socket(self, check: One) -> Self {
        Self { check: Check::Socket(check), ..self }
    }

    pub(super) const fn each(self, check: Several) -> Self {
        Self { check: Check::Each(check), ..self }
    }

    /// What it finds in one service and its sockets.
    pub(super) fn apply(&self, pair: &Pair<'_>) -> Vec<Finding> {
        match self.check {
            Check::Setting(section, key, is_bad, then) => {
                let settings = pair.units().filter_map(|unit| {
                    let here = section == unit.own_section();
                    unit.text(section, key).filter(|setting| here && is_bad(&setting.expanded()))
                });
                let found = settings.map(|setting| match then {
                    Set(value) => Finding::of(&setting).instead(value),
                    Remedy => Finding::of(&setting),
                });
                found.collect()
            }
            Check::Service(check) => pair.service.and_then(|service| check(service, pair)).into_iter().collect(),
            Check::ServiceAll(check) => pair.service.map(|service| check(service, pair)).unwrap_or_default(),
            Check::Socket(check) => pair.sockets.iter().filter_map(|socket| check(socket, pair)).collect(),
            Check::Each(check) => pair.units().flat_map(|unit| check(unit, pair)).collect(),
        }
    }

    /// How much it weighs for a service of which only that much is known.
    pub(super) fn severity_for(&self, claim: Claim) -> Severity {
        match (self.scope, claim) {
            (Scope::Any, _) | (Scope::Rolling, Claim::Yes) => self.severity,
            (Scope::Rolling, Claim::Likely) => self.severity.lowered(),
            (Scope::Rolling, Claim::No) => Info,
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

impl From<Link> for String {
    fn from(Link(page): Link) -> Self {
        let manual = "https://www.freedesktop.org/software/systemd/man/latest";
        match page.split_once('#') {
            Some((page, setting)) => format!("{manual}/{page}.html#{setting}="),
            None if page.starts_with("systemd.") => format!("{manual}/{page}.html"),
            None => format!("https://docs.rs/handover/latest/handover/docs/{page}/index.html"),
        }
    }
}
