//! A program under `handover run`, by the packaged units.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Container, Outcome, handover};

/// Everything that is waited for comes sooner than this, also on a slow machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
const PORT: u16 = 8080;

/// An instance of the template unit.
#[derive(Debug, Clone)]
pub(in crate::scenarios) struct Instance<'a> {
    pub(in crate::scenarios) lab: &'a Container,
    pub(in crate::scenarios) unit: String,
    pub(in crate::scenarios) address: SocketAddr,
}

impl<'a> Instance<'a> {
    /// The only one of its case; `{dir}` in the arguments is the directory of the case.
    pub(in crate::scenarios) fn alone(lab: &'a Container, arguments: &str) -> Outcome<Self> {
        Self::start(lab, "web", lab.port(PORT)?, arguments, "")
    }

    /// Without a .socket unit; `{address}` is where it shall listen.
    pub(in crate::scenarios) fn bound(lab: &'a Container, arguments: &str) -> Outcome<Self> {
        let port = lab.port(PORT)?;
        let arguments = arguments.replace("{address}", &format!("127.0.0.1:{port}"));
        Self::make(lab, "web", port, &arguments, "", true)
    }

    /// `arguments`: of `handover run`. `lines`: more for `[Service]`.
    pub(in crate::scenarios) fn start(
        lab: &'a Container,
        name: &str,
        port: u16,
        arguments: &str,
        lines: &str,
    ) -> Outcome<Self> {
        Self::make(lab, name, port, arguments, lines, false)
    }

    fn make(lab: &'a Container, name: &str, port: u16, arguments: &str, lines: &str, binds: bool) -> Outcome<Self> {
        let handover = lab.install(handover(), "handover")?;
        let dir = lab.dir().display().to_string();
        let service = include_str!("../../../../packaging/systemd/handover-run@.service");
        let socket = include_str!("../../../../packaging/systemd/handover-run@.socket");
        let unit = format!("handover-run@{name}.service");
        let runtime =
            if lab.manager_pid() == 1 { "handover-run/%i".to_owned() } else { format!("handover-run-{port}") };
        let service = service
            .replace("/usr/bin/handover ", &format!("{handover} "))
            .replace("/etc/handover/%i.conf", &format!("{dir}/%i.conf"))
            .replace("RuntimeDirectory=handover-run/%i", &format!("RuntimeDirectory={runtime}"))
            .replace("\n[Install]", &format!("{lines}\n[Install]"));
        let socket = socket.replace("/run/handover-run-%i.sock", &format!("127.0.0.1:{port}"));
        let socket_unit = format!("handover-run@{name}.socket");
        lab.write_file(&format!("{dir}/{name}.conf"), &format!("RUN={}\n", arguments.replace("{dir}", &dir)))?;
        let service = match binds {
            true => service.lines().filter(|line| !line.ends_with("@%i.socket")).collect::<Vec<_>>().join("\n") + "\n",
            false => service,
        };
        lab.write_unit(&unit, &service)?;
        if !binds {
            lab.write_unit(&socket_unit, &socket)?;
        }
        lab.daemon_reload()?;
        let units = if binds { vec![unit.as_str()] } else { vec![socket_unit.as_str(), unit.as_str()] };
        lab.systemctl_ok(&[&["start"], &units[..]].concat())?;
        Ok(Self { lab, unit, address: SocketAddr::from(([127, 0, 0, 1], port)) })
    }

    pub(in crate::scenarios) fn reload(&self) -> Outcome<u32> {
        let old = self.pid()?;
        self.lab.systemctl_ok(&["reload", &self.unit])?;
        let new = self.pid()?;
        assert_ne!(old, new, "systemctl reload has returned");
        Ok(new)
    }

    /// By the control interface.
    pub(in crate::scenarios) fn status(&self) -> Outcome<Value> {
        let main = self.lab.main_pid(&self.unit)?;
        // It exits with 1 while no generation serves.
        let output = self.lab.sh(&format!("{}/handover status --json {main}", self.lab.dir().display()))?;
        Ok(serde_json::from_str(&output.stdout)?)
    }

    /// Of the program.
    pub(in crate::scenarios) fn pid(&self) -> Outcome<u32> {
        let status = self.status()?;
        Ok(status["pid"].as_u64().ok_or("no pid")?.try_into()?)
    }

    /// Waits until no process is left but the supervisor and the newest generation.
    pub(in crate::scenarios) fn until_alone(&self) -> Outcome {
        let mut wanted = vec![self.lab.main_pid(&self.unit)?, self.pid()?];
        wanted.sort_unstable();
        self.lab.wait_until(DEADLINE, "only the supervisor and one generation", || {
            let mut pids = self.lab.pids(&self.unit)?;
            pids.sort_unstable();
            Ok((pids == wanted).then_some(()))
        })
    }
}
