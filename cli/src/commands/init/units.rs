//! The text of the two units. Pure.

use std::path::Path;
use std::time::Duration;

use super::plan::{Listen, Plan};

/// On top of the times that the program needs.
const MARGIN: Duration = Duration::from_secs(15);

/// File names and texts: the .socket, then the .service.
pub(super) fn files(plan: &Plan) -> Vec<(String, String)> {
    vec![(plan.unit("socket"), socket(plan)), (plan.unit("service"), service(plan))]
}

fn socket(plan: &Plan) -> String {
    let mode = match plan.listen {
        Listen::Unix(ref path) if !path.starts_with('@') => {
            "# Who may connect: everybody, unless SocketMode=0660 and SocketGroup= say otherwise.\nSocketMode=0666\n"
        }
        _ => "",
    };
    format!(
        "[Unit]
Description=Socket of {title}

[Socket]
{listen}
{mode}# The name that the program asks for.
FileDescriptorName={name}

[Install]
WantedBy=sockets.target
",
        title = title(plan),
        listen = plan.listen.line(),
        name = plan.socket_name,
    )
}

fn service(plan: &Plan) -> String {
    let reload = match (&plan.wait, plan.notify_reload) {
        (Some(tool), _) => format!(
            "Type=notify\n# Waits until the next generation is main, and fails with the reason if it never will be.\n\
             ExecReload={tool} reload $MAINPID\n\
             # Where the program's control interface is.\n\
             RuntimeDirectory={}\nRuntimeDirectoryPreserve=restart\n",
            plan.runtime_directory()
        ),
        (None, true) => "# systemd sends SIGHUP itself and waits until the next generation is main (253 and later): no ExecReload=.\nType=notify-reload\n".to_owned(),
        (None, false) => "Type=notify\n# Asks for a reload and does not wait for it: systemctl reload may return first.\nExecReload=/bin/kill -HUP $MAINPID\n".to_owned(),
    };
    // Comments, as they are unknown keys before 254, which systemd logs and `check` warns of.
    let steps = "# From systemd 254 on, let it wait longer after each failed attempt:\n#RestartSteps=8\n#RestartMaxDelaySec=10s\n";
    let ignored = match plan.notify_reload || plan.wait.is_some() {
        true => "",
        false => "# The signal is sent and not waited for: see ExecReload= above.\nIgnore=HO132\n",
    };
    format!(
        "[Unit]
Description={title}
# Never without its socket: the service is stopped when that is.
Requires={socket}
After={socket}
# Never give up: what a crash starts may be a file that an operator is about to mend.
StartLimitIntervalSec=0

[Service]
{reload}# The main generation speaks for the service; it names the next one itself.
NotifyAccess=main
ExecStart={exec}
# Above the time that one generation needs to be ready.
TimeoutStartSec={start}
# Above the drain timeout.
TimeoutStopSec={stop}
WatchdogSec=10
Restart=on-failure
RestartSec=100ms
{steps}# An old generation drains beside the new one and must be signalled with it, not left behind or
# killed early.
KillMode=control-group
# Let the kernel take one process, not systemd the whole service.
OOMPolicy=continue
FileDescriptorStoreMax=64
# Two generations at once, each with all the connections that it may have.
LimitNOFILE=65536
{hardening}
[Install]
WantedBy={target}
Also={also}

# What `handover check` knows about this service; systemd ignores the section.
[X-Handover]
DrainTimeout={drain}
WarmUp={warm_up}
{ignored}",
        title = title(plan),
        socket = plan.reference("socket"),
        exec = plan.exec,
        start = plan.warm_up.saturating_add(MARGIN).as_secs(),
        stop = plan.drain_timeout.saturating_add(MARGIN).as_secs(),
        hardening = hardening(plan),
        target = if plan.user { "default.target" } else { "multi-user.target" },
        also = plan.reference("socket"),
        drain = seconds(plan.drain_timeout),
        warm_up = seconds(plan.warm_up),
    )
}

fn title(plan: &Plan) -> String {
    format!("{}{}", plan.prefix, if plan.template { " (%i)" } else { "" })
}

/// As systemd and `handover check` read it.
fn seconds(time: Duration) -> String {
    if time.subsec_nanos() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis().max(1)) }
}

fn hardening(plan: &Plan) -> String {
    if !plan.hardened {
        return String::new();
    }
    let below = |places: &[&str]| places.iter().any(|place| Path::new(&plan.exec).starts_with(place));
    let mut lines =
        vec!["", "# Hardening that leaves reloads alone; `handover check` knows what does not.", "NoNewPrivileges=yes"];
    if !plan.user {
        lines.push("# It runs as root without any right of root's; a User= of its own is better still.");
        if binds_privileged_port(plan) {
            lines.push("# systemd binds the port below 1024: the service needs no capability for it.");
        }
        lines.extend(["CapabilityBoundingSet=", "ProtectSystem=strict"]);
        lines.push(match below(&["/home", "/root", "/run/user", "%h"]) {
            true => "ProtectHome=read-only",
            false => "ProtectHome=yes",
        });
        if !below(&["/tmp", "/var/tmp"]) {
            lines.push("PrivateTmp=yes");
        }
        lines.extend(SYSTEM_ONLY);
    }
    lines.extend(EVERYWHERE);
    lines.push("");
    lines.join("\n")
}

/// A user's manager may neither mount nor give up what it does not have.
const SYSTEM_ONLY: [&str; 7] = [
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
];
const EVERYWHERE: [&str; 8] = [
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "UMask=0077",
];

fn binds_privileged_port(plan: &Plan) -> bool {
    let port = match &plan.listen {
        Listen::Tcp(address) | Listen::Udp(address) => address.rsplit(':').next().and_then(|p| p.parse::<u16>().ok()),
        Listen::Unix(_) => None,
    };
    port.is_some_and(|port| port < 1024)
}
