//! A unit as systemd sees it: its file and its drop-ins, merged.

use std::time::Duration;

use super::name::UnitName;
use super::parse::{Assignment, Header, Ignored, Parsed, parse};
use super::value::{self, Span};
use super::{directives, known};

pub(super) const UNIT: &str = "Unit";
pub(super) const SERVICE: &str = "Service";
pub(super) const SOCKET: &str = "Socket";
pub(super) const INSTALL: &str = "Install";
/// Ours; systemd ignores every section whose name begins so.
pub(super) const OURS: &str = "X-Handover";

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
        self.unit.place(self.file, self.at.line, self.at.section, Some(self.at.key))
    }
}

impl Unit {
    pub(super) fn new(name: UnitName, files: Vec<File>) -> Self {
        Self { name, files }
    }

    /// Every assignment, also those that a later one replaces.
    pub(super) fn all(&self) -> impl Iterator<Item = Setting<'_>> {
        self.files
            .iter()
            .flat_map(move |file| file.parsed.assignments().map(move |at| Setting { unit: self, file, at }))
    }

    /// Lines that systemd ignores.
    pub(super) fn ignored(&self) -> impl Iterator<Item = (Place, &Ignored)> {
        self.files
            .iter()
            .flat_map(move |file| file.parsed.ignored.iter().map(move |i| (self.place(file, i.line, "", None), i)))
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (Place, &Header)> {
        self.files.iter().flat_map(move |file| {
            file.parsed.headers.iter().map(move |h| (self.place(file, h.line, &h.section, None), h))
        })
    }

    /// Whether this is the unit's own file, and no drop-in.
    pub(super) fn is_own_file(&self, path: &str) -> bool {
        self.files.first().is_some_and(|file| file.path == path)
    }

    /// Whether there is such an assignment at all.
    pub(super) fn says<'a>(&'a self, section: &'a str, key: &'a str) -> bool {
        self.assigned(section, key).next().is_some()
    }

    /// What ends the reading of the unit's own file.
    pub(super) fn fatal(&self) -> Option<(Place, &Ignored)> {
        let file = self.files.first()?;
        file.parsed.fatal().map(|ignored| (self.place(file, ignored.line, "", None), ignored))
    }

    /// Assignments of the unit's own file.
    pub(super) fn own(&self) -> impl Iterator<Item = Setting<'_>> {
        self.all().take_while(|s| self.is_own_file(&s.file.path))
    }

    pub(super) fn has_section(&self, name: &str) -> bool {
        self.files.iter().any(|f| f.has_section(name))
    }

    fn assigned<'a>(&'a self, section: &'a str, key: &'a str) -> impl Iterator<Item = Setting<'a>> {
        let of_key = move |file: &'a File| file.parsed.of_key(key).map(move |at| Setting { unit: self, file, at });
        self.files.iter().flat_map(of_key).filter(move |s| s.at.section == section)
    }

    /// The last assignment that systemd can read; an empty one goes back to the default.
    pub(super) fn read<'a, T>(
        &'a self,
        section: &'a str,
        key: &'a str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<(T, Setting<'a>)> {
        let mut last = None;
        for setting in self.assigned(section, key) {
            if setting.value().is_empty() {
                last = None;
            } else if let Some(value) = read(&setting.expanded()) {
                last = Some((value, setting));
            }
        }
        last
    }

    /// A setting of which only the last assignment counts.
    pub(super) fn text<'a>(&'a self, section: &'a str, key: &'a str) -> Option<Setting<'a>> {
        let kind = known::kind(section, directives::key(key), key);
        let reads = |text: &str| kind.is_none_or(|kind| kind.reads(text)).then_some(());
        self.read(section, key, reads).map(|(_, setting)| setting)
    }

    /// A setting whose assignments add up, since the last empty one.
    pub(super) fn list<'a>(&'a self, section: &'a str, key: &'a str) -> Vec<Setting<'a>> {
        let mut list = Vec::new();
        for setting in self.assigned(section, key) {
            if setting.value().is_empty() {
                list.clear();
            } else {
                list.push(setting);
            }
        }
        list
    }

    pub(super) fn boolean<'a>(&'a self, section: &'a str, key: &'a str) -> Option<(bool, Setting<'a>)> {
        self.read(section, key, value::boolean)
    }

    /// The setting, if it is on.
    pub(super) fn on<'a>(&'a self, section: &'a str, key: &'a str) -> Option<Setting<'a>> {
        self.boolean(section, key).filter(|(on, _)| *on).map(|(_, setting)| setting)
    }

    pub(super) fn span<'a>(&'a self, section: &'a str, key: &'a str) -> Option<(Span, Setting<'a>)> {
        self.read(section, key, value::span)
    }

    /// A time of which 0 means that there is none.
    pub(super) fn time<'a>(&'a self, section: &'a str, key: &'a str) -> Option<(Duration, Setting<'a>)> {
        match self.span(section, key)? {
            (Span::Time(time), setting) if !time.is_zero() => Some((time, setting)),
            _ => None,
        }
    }

    pub(super) fn count<'a>(&'a self, section: &'a str, key: &'a str) -> Option<(u64, Setting<'a>)> {
        self.read(section, key, value::count)
    }

    pub(super) fn signal<'a>(&'a self, section: &'a str, key: &'a str) -> Option<(String, Setting<'a>)> {
        self.read(section, key, crate::signals::name)
    }

    /// Where a setting of this section would have to be added: the first header of that section, or
    /// the first line.
    pub(super) fn header(&self, section: &str) -> Place {
        let found = self.headers().find(|(_, h)| h.section == section).map(|(place, _)| place);
        found.unwrap_or_else(|| Place {
            unit: self.name.to_string(),
            file: self.files.first().map(|f| f.path.clone()).unwrap_or_default(),
            line: 1,
            section: section.to_owned(),
            key: None,
        })
    }

    fn place(&self, file: &File, line: u32, section: &str, key: Option<&str>) -> Place {
        Place {
            unit: self.name.to_string(),
            file: file.path.clone(),
            line,
            section: section.to_owned(),
            key: key.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(files: &[&str]) -> Unit {
        let files = files.iter().enumerate().map(|(n, text)| File::new(format!("{n}.conf"), text.as_bytes())).collect();
        Unit::new(UnitName::parse("web@blue.service").unwrap(), files)
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
        assert!(unit.span(SERVICE, "TimeoutStopSec").is_none() && unit.time(SERVICE, "WatchdogSec").is_none());
    }

    #[test]
    fn a_missing_setting_is_missed_where_it_belongs() {
        let unit = unit(&["[Unit]\n\n[Service]\n"]);
        assert_eq!((unit.header(SERVICE).line, unit.header(SOCKET).line), (3, 1));
    }
}
