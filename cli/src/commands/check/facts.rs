//! What a unit says of itself by more than one setting.

use super::directives::{SERVICE, SOCKET, UNIT};
use super::name::UnitName;
use super::unit::{Setting, Unit};
use super::value;

/// Settings that open a socket which is passed to a service.
const LISTENS: [&str; 6] =
    ["ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO", "ListenNetlink", "ListenMessageQueue"];

impl Unit {
    /// The section that is its kind's own.
    pub(super) fn own_section(&self) -> &'static str {
        if self.name.is_socket() { SOCKET } else { SERVICE }
    }

    /// The type of a service: of one that says nothing `dbus` with a BusName=, else `simple`.
    pub(super) fn service_type(&self) -> (&str, Option<Setting<'_>>) {
        match self.text(SERVICE, "Type") {
            Some(setting) => (setting.value(), Some(setting)),
            None if self.text(SERVICE, "BusName").is_some() => ("dbus", None),
            None => ("simple", None),
        }
    }

    pub(super) fn notifies(&self) -> bool {
        matches!(self.service_type().0, "notify" | "notify-reload")
    }

    pub(super) fn reloads_by_notify(&self) -> bool {
        self.service_type().0 == "notify-reload"
    }

    /// What `Environment=` sets: see `handover::Settings::from_env`.
    pub(super) fn environment(&self, variable: &str) -> Option<String> {
        let value = |word: &String| word.strip_prefix(variable)?.strip_prefix('=').map(str::to_owned);
        self.words(SERVICE, "Environment").iter().rev().find_map(value)
    }

    /// Sockets that it asks for.
    pub(super) fn sockets(&self) -> impl Iterator<Item = UnitName> {
        self.words(SERVICE, "Sockets").into_iter().filter_map(|name| UnitName::of_instance(&name))
    }

    /// A socket that it will not start without, wherever its unit is.
    pub(super) fn required_socket(&self) -> Option<UnitName> {
        let required = ["Requires", "BindsTo"].into_iter().flat_map(|key| self.words(UNIT, key));
        required.filter_map(|name| UnitName::of_instance(&name)).chain(self.sockets()).find(UnitName::is_socket)
    }

    /// Room in the fd store, where there is any.
    pub(super) fn stores(&self) -> Option<(u64, Setting<'_>)> {
        self.read(SERVICE, "FileDescriptorStoreMax", value::count).filter(|(entries, _)| *entries > 0)
    }

    /// A setting that is on, or names what of it is to be: all but `no`.
    pub(super) fn not_off<'a>(&'a self, key: &'a str) -> Option<Setting<'a>> {
        self.text(SERVICE, key).filter(|setting| !value::is_off(setting.value()))
    }

    /// Whether `ExecStart=` runs any program by this tool, reloaded by handover.
    pub(super) fn runs_by_handover(&self) -> bool {
        self.commands("ExecStart").iter().any(|(exec, _)| exec.program() == "handover" && exec.has(&["run"]))
    }

    /// Whether systemd passes the listener of a socket on, and not single connections.
    pub(super) fn passes_listeners(&self) -> bool {
        self.on(SOCKET, "Accept").is_none()
    }

    /// How many sockets it opens and passes on.
    pub(super) fn listens(&self) -> usize {
        LISTENS.iter().map(|key| self.list(SOCKET, key).len()).sum()
    }

    /// The service that it starts.
    pub(super) fn starts(&self) -> Option<UnitName> {
        match self.text(SOCKET, "Service") {
            Some(setting) => UnitName::of_instance(&setting.expanded()),
            None if self.passes_listeners() => Some(self.name.with_type("service")),
            None => UnitName::parse(&format!("{}@.service", self.name.stem())),
        }
    }
}
