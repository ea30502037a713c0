//! What is to be written, checked before anything is.

use std::net::SocketAddr;
use std::time::Duration;

/// systemd has 255 bytes for the name of a unit; an instance and the type belong to it.
const LONGEST_NAME: usize = 200;
/// A limit of ours: systemd has one too, and ignores the line beyond it.
const LONGEST_TIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// `sun_path` of unix(7), less its NUL.
const LONGEST_PATH: usize = 107;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Without `@` and type.
    pub(super) prefix: String,
    pub(super) user: bool,
    pub(super) notify_reload: bool,
    /// The tool, if ExecReload= is to wait for the outcome.
    pub(super) wait: Option<String>,
    pub(super) template: bool,
    pub(super) listen: Listen,
    pub(super) exec: String,
    pub(super) socket_name: String,
    pub(super) drain_timeout: Duration,
    pub(super) warm_up: Duration,
    pub(super) preserve: bool,
    pub(super) hardened: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Listen {
    Tcp(String),
    Unix(String),
    Udp(String),
}

impl Plan {
    /// One for each instance.
    pub(super) fn runtime_directory(&self) -> String {
        if self.template { format!("{}-%i", self.prefix) } else { self.prefix.clone() }
    }

    /// Itself, if systemd would take it.
    pub(super) fn checked(self) -> Result<Self, String> {
        let named =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if self.prefix.len() > LONGEST_NAME {
            return Err(format!("a name of {} bytes is too long: at most {LONGEST_NAME}", self.prefix.len()));
        }
        if !named(&self.prefix) || self.prefix.starts_with(['-', '.']) {
            return Err(format!(
                "{:?} is no name for a unit here: letters, digits, `-`, `_` and `.`; --template adds the @",
                self.prefix
            ));
        }
        if [".service", ".socket"].iter().any(|kind| self.prefix.ends_with(kind)) {
            return Err(format!("{}: say the name without its type", self.prefix));
        }
        if !named(&self.socket_name) {
            return Err(format!("--socket-name {:?}: letters, digits, `-`, `_` and `.`", self.socket_name));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.+".contains(c);
        if let Some(tool) = self.wait.as_ref().filter(|tool| !tool.starts_with('/') || !tool.chars().all(plain)) {
            return Err(format!("--wait={tool}: an absolute path of letters, digits and `-_.+`"));
        }
        if !(self.exec.starts_with('/') || self.exec.starts_with("%h/")) {
            return Err(format!("--exec {}: an absolute path, or one that begins with %h/", self.exec));
        }
        if self.exec.chars().any(|c| c.is_whitespace() || c.is_control() || "\"'\\".contains(c)) {
            return Err(format!("--exec {:?}: a path without spaces and quotes; add arguments in the unit", self.exec));
        }
        // A specifier that systemd does not know is an error there, and one that depends on the
        // user may be nothing.
        let unknown = self.exec.replacen("%h/", "/", usize::from(self.exec.starts_with("%h/")));
        if unknown.replace("%i", "").contains('%') || self.exec.contains("%i") && !self.template {
            return Err(format!("--exec {}: no `%` but %h/ at the beginning and, with --template, %i", self.exec));
        }
        if [self.drain_timeout, self.warm_up].iter().any(|time| time.is_zero() || *time > LONGEST_TIME) {
            return Err("--drain-timeout and --warm-up must be above 0, and at most a year".to_owned());
        }
        let address = self.listen.address();
        if self.template != address.contains("%i") {
            return Err(match self.template {
                true => format!(
                    "{address}: instances cannot share an address; put %i into it, which is what comes after the @"
                ),
                false => format!("{address}: %i is for --template"),
            });
        }
        self.listen.check()?;
        Ok(self)
    }

    /// `web.socket`, `web@.socket`.
    pub(super) fn unit(&self, kind: &str) -> String {
        format!("{}{}.{kind}", self.prefix, if self.template { "@" } else { "" })
    }

    /// As one unit of a pair calls the other.
    pub(super) fn reference(&self, kind: &str) -> String {
        format!("{}{}.{kind}", self.prefix, if self.template { "@%i" } else { "" })
    }
}

impl Listen {
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Tcp(address) | Self::Unix(address) | Self::Udp(address) => address,
        }
    }

    /// In the .socket unit.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Tcp(address) | Self::Unix(address) => format!("ListenStream={address}"),
            Self::Udp(address) => format!("ListenDatagram={address}"),
        }
    }

    fn check(&self) -> Result<(), String> {
        // Any port will do for the instance.
        let address = self.address().replace("%i", "1");
        let good = match self {
            Self::Tcp(_) | Self::Udp(_) => {
                address.parse::<u16>().is_ok_and(|port| port > 0) || address.parse::<SocketAddr>().is_ok()
            }
            Self::Unix(_) => {
                let path = address.strip_prefix("%t").unwrap_or(&address);
                let begins = path.starts_with('/') || (path.starts_with('@') && path == address);
                begins
                    && (2..=LONGEST_PATH).contains(&path.len())
                    && !path.contains(|c: char| c.is_whitespace() || c.is_control() || "%\"'\\".contains(c))
            }
        };
        if good {
            return Ok(());
        }
        let wanted = match self {
            Self::Tcp(_) | Self::Udp(_) => {
                "a port or an address with one, as 8080, 127.0.0.1:8080 or [::]:8080; systemd looks up no names"
            }
            Self::Unix(_) => {
                "an absolute path, @name, or one that begins with %t/, of at most 107 bytes and without quotes"
            }
        };
        Err(format!("{}: {wanted}", self.address()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn plan(listen: Listen) -> Plan {
        Plan {
            prefix: "web".into(),
            user: false,
            notify_reload: false,
            wait: None,
            template: false,
            listen,
            exec: "/usr/bin/web".into(),
            socket_name: "http".into(),
            drain_timeout: Duration::from_secs(30),
            warm_up: Duration::from_secs(30),
            preserve: false,
            hardened: true,
        }
    }

    #[test]
    fn addresses_that_systemd_takes() {
        let taken = |listen: Listen| plan(listen).checked().is_ok();
        for good in ["8080", "127.0.0.1:80", "[::]:80", "[::1]:8080"] {
            assert!(taken(Listen::Tcp(good.into())) && taken(Listen::Udp(good.into())), "{good}");
        }
        for bad in ["", "0", "localhost:80", "127.0.0.1", "::1:80", "70000", "1.2.3.4:99999", "127.0.0.1:%i"] {
            assert!(!taken(Listen::Tcp(bad.into())), "{bad}");
        }
        for good in ["/run/web.sock", "@web", "%t/web.sock"] {
            assert!(taken(Listen::Unix(good.into())), "{good}");
        }
        assert!(!taken(Listen::Unix(format!("/{}", "x".repeat(107)))));
        for bad in ["web.sock", "/", "@", "/run/a b", "%t", "%h/x", "%t@x"] {
            assert!(!taken(Listen::Unix(bad.into())), "{bad}");
        }
    }

    #[test]
    fn names_that_need_no_quotes() {
        let named = |name: &str| Plan { prefix: name.into(), ..plan(Listen::Tcp("80".into())) }.checked().is_ok();
        assert!(named("web") && named("my-web_2.0"));
        for bad in ["", "web@", "web.service", "a b", "-x", "../x", "a:b", "é"] {
            assert!(!named(bad), "{bad}");
        }
        let run = |exec: &str| Plan { exec: exec.into(), ..plan(Listen::Tcp("80".into())) }.checked().is_ok();
        assert!(
            run("/opt/web/bin/web")
                && run("%h/bin/web")
                && !run("web")
                && !run("/opt/my web")
                && !run("/x\nUser=root")
                && !run("/opt/%i/web")
                && !run("/opt/100%")
                && !run("/opt/%h/web")
        );
    }
}
