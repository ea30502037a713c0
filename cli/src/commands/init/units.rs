//! The text of the two units. Pure.

use std::path::Path;
use std::time::Duration;

use super::plan::{Listen, Plan};

/// On top of the times that the program needs.
const MARGIN: Duration = Duration::from_secs(15);

/// The first version with a socket that may stay over a soft reboot. To others these lines do harm.
const DEFERS_TRIGGERS: u32 = 258;
/// The first version that waits longer from attempt to attempt.
const BACKS_OFF: u32 = 254;

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
    // A user's manager ends with the userspace.
    let stays = plan.preserve && !plan.user && plan.target.is_some_and(|version| version >= DEFERS_TRIGGERS);
    format!(
        include_str!("templates/socket.txt"),
        mode = mode,
        title = title(plan),
        listen = plan.listen.line(),
        name = plan.socket_name,
        stays = if stays { STAYS } else { "" },
        defers = if stays { DEFERS } else { "" },
    )
}

/// Beside `[Unit]` and `[Socket]` of a socket that stays over a soft reboot.
const STAYS: &str = "# Stays over systemctl soft-reboot: nobody is refused, and clients wait.\n\
                     DefaultDependencies=no\nIgnoreOnIsolate=yes\nAfter=sysinit.target\nBefore=sockets.target\n";
const DEFERS: &str = "# What a client wants meanwhile waits until the next boot has begun (systemd 258).\n\
                      DeferTrigger=patient\nDeferTriggerMaxSec=90s\n";

/// A program reads its settings from the environment by `Settings::from_env`.
const PRESERVE: &str = "# Also over systemctl stop and soft-reboot (systemd 254 and later).\n\
                        FileDescriptorStorePreserve=yes\n\
                        # Connections wait for the next start, of a program that reads Settings::from_env().\n\
                        Environment=HANDOVER_MIGRATE=restart\n";

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
    let ignored = match plan.notify_reload || plan.wait.is_some() {
        true => "",
        false => "\n# The signal is sent and not waited for: see ExecReload= above.\nIgnore=HO132",
    };
    // Before, systemd starts it again ten times a second, and says with each load that it knows
    // none of these lines.
    let back_off = match plan.target.is_none_or(|version| version >= BACKS_OFF) {
        true => {
            "# Wait longer after each failed attempt.\nRestartSteps=8\nRestartMaxDelaySec=10s\n\
                 # What depends on this service is not stopped with each attempt, and OnFailure= is not called.\n\
                 RestartMode=direct\n"
        }
        false => {
            "# From systemd 254 on, let it wait longer after each failed attempt:\n\
                  #RestartSteps=8\n#RestartMaxDelaySec=10s\n#RestartMode=direct\n"
        }
    };
    format!(
        include_str!("templates/service.txt"),
        back_off = back_off,
        reload = reload,
        ignored = ignored,
        title = title(plan),
        socket = plan.reference("socket"),
        exec = plan.exec,
        start = plan.warm_up.saturating_add(MARGIN).as_secs(),
        stop = plan.drain_timeout.saturating_add(MARGIN).as_secs(),
        preserve = if plan.preserve { PRESERVE } else { "" },
        hardening = hardening(plan),
        target = if plan.user { "default.target" } else { "multi-user.target" },
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
    let system = format!(
        include_str!("templates/system_sandbox.txt"),
        port = match binds_privileged_port(plan) {
            true => "# systemd binds the port below 1024: the service needs no capability for it.\n",
            false => "",
        },
        home = if below(&["/home", "/root", "/run/user", "%h"]) { "read-only" } else { "yes" },
        tmp = if below(&["/tmp", "/var/tmp"]) { "" } else { "PrivateTmp=yes\n" },
    );
    // A user's manager may neither mount nor give up what it does not have.
    format!(include_str!("templates/sandbox.txt"), system = if plan.user { "" } else { &system })
}

fn binds_privileged_port(plan: &Plan) -> bool {
    let port = match &plan.listen {
        Listen::Tcp(address) | Listen::Udp(address) => address.rsplit(':').next().and_then(|p| p.parse::<u16>().ok()),
        Listen::Unix(_) => None,
    };
    port.is_some_and(|port| port < 1024)
}
