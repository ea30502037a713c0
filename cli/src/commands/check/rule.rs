//! What a rule is.

use serde::{Deserialize, Serialize};

pub(super) use super::directives::{SERVICE, SOCKET, UNIT};
pub(super) use super::finding::Finding;
use super::finding::Severity;
use super::pair::Claim;
pub(super) use super::pair::Pair;
pub(super) use super::unit::{Setting, Unit};
pub(super) use Check::{Each, Service, ServiceAll, Socket, When};
pub(super) use Then::{Remedy, Set};

/// What `rules.toml` says of a rule, and explains there.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    pub(super) scope: Scope,
    pub(super) title: &'static str,
    pub(super) why: &'static str,
    pub(super) remedy: &'static str,
    pub(super) link: &'static str,
    #[serde(skip)]
    pub(super) check: Check,
}

/// The id of a rule, and what it looks at.
pub(super) type Row = (&'static str, Check);

/// For whom a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    /// For every unit: systemd itself does something else than what is written.
    Any,
    /// For services that are reloaded by a handover.
    Rolling,
}

type Text = &'static str;
type One = fn(&Unit, &Pair<'_>) -> Option<Finding>;
type Several = fn(&Unit, &Pair<'_>) -> Vec<Finding>;

/// What a rule looks at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Check {
    /// One setting: whether its last value is bad, and what to do then.
    When(Text, Text, fn(&str) -> bool, Then),
    Service(One),
    ServiceAll(Several),
    Socket(One),
    /// Services and sockets alike.
    Each(Several),
    #[default]
    Nothing,
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
    /// What it finds in one service and its sockets.
    pub(super) fn apply(&self, pair: &Pair<'_>) -> Vec<Finding> {
        match self.check {
            When(section, key, is_bad, then) => {
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
            Service(check) => pair.service.and_then(|service| check(service, pair)).into_iter().collect(),
            ServiceAll(check) => pair.service.map(|service| check(service, pair)).unwrap_or_default(),
            Socket(check) => pair.sockets.iter().filter_map(|socket| check(socket, pair)).collect(),
            Each(check) => pair.units().flat_map(|unit| check(unit, pair)).collect(),
            Check::Nothing => Vec::new(),
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
