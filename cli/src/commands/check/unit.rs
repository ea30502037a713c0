//! A unit as systemd sees it: its file and its drop-ins, merged.

use std::time::Duration;

use super::directives;
use super::name::UnitName;
use super::parse::{Assignment, Header, Ignored, Parsed, parse};
use super::value;

#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) name: UnitName,
    /// The unit's own file first, then the drop-ins in their order.
    pub(super) files: Vec<File>,
}

/// One file of a unit.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// As it is printed.
    pub(super) path: String,
    parsed: Parsed,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) unit: String,
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) section: String,
    /// None where a setting is missing.
    pub(super) key: Option<String>,
}

/// An assignment that counts, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) unit: &'a Unit,
    file: &'a File,
    pub(super) at: Assignment<'a>,
}

impl File {
    pub(super) fn new(path: impl Into<String>, bytes: &[u8]) -> Self {
        Self { path: path.into(), parsed: parse(bytes) }
    }

    pub(super) fn has_section(&self, name: &str) -> bool {
        self.parsed.headers.iter().any(|h| h.section == name)
    }
}

impl<'a> Setting<'a> {
    pub(super) fn value(&self) -> &'a str {
        self.at.value
    }

    pub(super) fn key(&self) -> &'a str {
        self.at.key
    }

    /// Specifiers that name the unit replaced.
    pub(super) fn expanded(&self) -> String {
        self.unit.name.expand(self.value())
    }

    pub(super) fn words(&self) -> Vec<String> {
        value::words(&self.expanded())
    }

    /// Whether the two are the same line.
    pub(super) fn is(&self, other: &Setting<'_>) -> bool {
        std::ptr::eq(self.file, other.file) && self.at.line == other.at.line
    }

    pub(super) fn place(&self) -> Place {
        Place { key: Some(self.at.key.to_owned()), ..self.unit.place(self.file, self.at.line, self.at.section) }
    }
}

impl Unit {
    /// Every assignment, also those that a later one replaces.
    pub(super) fn all(&self) -> impl Iterator<Item = Setting<'_>> {
        self.files
            .iter()
            .flat_map(move |file| file.parsed.assignments().map(move |at| Setting { unit: self, file, at }))
    }

    /// Assignments of the unit's own file.
    pub(super) fn own(&self) -> impl Iterator<Item = Setting<'_>> {
        self.all().take_while(|s| self.is_own_file(&s.file.path))
    }

    /// Lines that systemd ignores.
    pub(super) fn ignored(&self) -> impl Iterator<Item = (Place, &Ignored)> {
        self.files
            .iter()
            .flat_map(move |file| file.parsed.ignored.iter().map(move |i| (self.place(file, i.line, ""), i)))
    }

    /// What ends the reading of the unit's own file.
    pub(super) fn fatal(&self) -> Option<(Place, &Ignored)> {
        self.ignored().find(|(place, ignored)| ignored.why.is_fatal() && self.is_own_file(&place.file))
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (Place, &Header)> {
        self.files
            .iter()
            .flat_map(move |file| file.parsed.headers.iter().map(move |h| (self.place(file, h.line, &h.section), h)))
    }

    /// Whether this is the unit's own file, and no drop-in.
    pub(super) fn is_own_file(&self, path: &str) -> bool {
        self.files.first().is_some_and(|file| file.path == path)
    }

    pub(super) fn has_section(&self, name: &str) -> bool {
        self.files.iter().any(|f| f.has_section(name))
    }

    fn assigned<'a>(&'a self, section: &'a str, key: &'a str) -> impl Iterator<Item = Setting<'a>> {
        let of_key = move |file: &'a File| file.parsed.of_key(key).map(move |at| Setting { unit: self, file, at });
        self.files.iter().flat_map(of_key).filter(move |s| s.at.section == section)
    }

    /// Whether there is such an assignment at all.
    pub(super) fn says(&self, section: &str, key: &str) -> bool {
        self.assigned(section, key).next().is_some()
    }

    /// A setting whose assignments add up, since the last empty one.
    pub(super) fn list<'a>(&'a self, section: &'a str, key: &'a str) -> Vec<Setting<'a>> {
        let mut list = Vec::new();
        for setting in self.assigned(section, key) {
            match setting.value() {
                "" => list.clear(),
                _ => list.push(setting),
            }
        }
        list
    }

    /// All words of such a setting.
    pub(super) fn words(&self, section: &str, key: &str) -> Vec<String> {
        self.list(section, key).iter().flat_map(Setting::words).collect()
    }

    /// The last assignment that systemd can read, since the last empty one.
    pub(super) fn read<'a, T>(
        &'a self,
        section: &'a str,
        key: &'a str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<(T, Setting<'a>)> {
        let mut last = None;
        for setting in self.assigned(section, key) {
            match setting.value() {
                "" => last = None,
                _ => last = read(&setting.expanded()).map(|value| (value, setting)).or(last),
            }
        }
        last
    }

    /// The same, where the value itself is of no interest, or one of a few words.
    pub(super) fn text<'a>(&'a self, section: &'a str, key: &'a str) -> Option<Setting<'a>> {
        let kind = directives::find(section, directives::key(key)).and_then(|directive| directive.kind.as_ref());
        let reads = |text: &str| kind.is_none_or(|kind| kind.reads(text)).then_some(());
        self.read(section, key, reads).map(|(_, setting)| setting)
    }

    /// Whether the last assignment is that word.
    pub(super) fn is(&self, section: &str, key: &str, value: &str) -> bool {
        self.text(section, key).is_some_and(|setting| setting.value() == value)
    }

    /// The setting, if it is on.
    pub(super) fn on<'a>(&'a self, section: &'a str, key: &'a str) -> Option<Setting<'a>> {
        self.read(section, key, value::boolean).filter(|(on, _)| *on).map(|(_, setting)| setting)
    }

    /// A time that comes to an end; 0 means that there is none.
    pub(super) fn time<'a>(&'a self, section: &'a str, key: &'a str) -> Option<(Duration, Setting<'a>)> {
        self.read(section, key, value::span).filter(|(time, _)| !time.is_zero() && *time != value::INFINITY)
    }

    /// Where a setting of this section would be added: at its first header, or the first line.
    pub(super) fn header(&self, section: &str) -> Place {
        let found = self.headers().find(|(_, h)| h.section == section).map(|(place, _)| place);
        found.unwrap_or_else(|| self.place(&self.files[0], 1, section))
    }

    fn place(&self, file: &File, line: u32, section: &str) -> Place {
        let (unit, file) = (self.name.to_string(), file.path.clone());
        Place { unit, file, line, section: section.to_owned(), key: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::directives::{SERVICE, SOCKET};

    fn unit(files: &[&str]) -> Unit {
        let files = files.iter().enumerate().map(|(n, text)| File::new(format!("{n}.conf"), text.as_bytes())).collect();
        Unit { name: UnitName::parse("web@blue.service").unwrap(), files }
    }

    #[test]
    fn a_later_file_overrides_or_adds() {
        let unit = unit(&[
            "[Service]\nType=simple\nExecReload=a\nEnvironment=A=%i\n",
            "[Service]\nType=notify\nExecReload=\nExecReload=b\nEnvironment=B=2\n",
        ]);
        let kind = unit.text(SERVICE, "Type").unwrap();
        assert_eq!((kind.value(), kind.place().file.as_str(), kind.place().line), ("notify", "1.conf", 2));
        let values = |key| unit.list(SERVICE, key).iter().map(Setting::expanded).collect::<Vec<_>>();
        assert_eq!(
            (values("ExecReload"), values("Environment")),
            (vec!["b".into()], vec!["A=blue".into(), "B=2".into()])
        );
    }

    #[test]
    fn what_cannot_be_read_does_not_count_and_empty_is_the_default() {
        let unit = unit(&[
            "[Service]\nSendSIGHUP=yes\nSendSIGHUP=perhaps\nTimeoutStopSec=5\nTimeoutStopSec=\nWatchdogSec=0\n",
        ]);
        assert_eq!(unit.on(SERVICE, "SendSIGHUP").unwrap().at.line, 2);
        assert!(unit.text(SERVICE, "TimeoutStopSec").is_none() && unit.time(SERVICE, "WatchdogSec").is_none());
    }

    #[test]
    fn a_missing_setting_is_missed_where_it_belongs() {
        let unit = unit(&["[Unit]\n\n[Service]\n"]);
        assert_eq!((unit.header(SERVICE).line, unit.header(SOCKET).line), (3, 1));
    }
}
