//! `handover run` as PID 1 of a container of podman, by the unit of the recipes: a socket that
//! systemd holds, notifications through podman, and reloads by `podman exec`.

use std::net::SocketAddr;

use crate::lab::{Container, Outcome, Scenario, handover};
use crate::load::{self, Clients, Kind};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("run_in_podman", run_in_podman).with_apps().with_host_tool("podman")];

const CLIENTS: &Clients = &[(Kind::Fresh, 6)];
const RELOADS: usize = 5;
const UNIT: &str = "web-container.service";

fn run_in_podman(lab: &Container) -> Outcome {
    let handover = lab.install(handover(), "handover")?;
    lab.write_file("/lab/web.py", include_str!("../../../lab/apps/web.py"))?;
    // The root of programs stands for an image, and /lab for what is built into it.
    let service = include_str!("../../../../packaging/recipes/web-container.service")
        .replace("--env RUNTIME", "--volume /lab:/lab --env RUNTIME")
        // A container within a container may not load the programs that guard its devices.
        .replace("--cgroups=split", "--cgroups=disabled")
        .replace("localhost/web ", "--rootfs /apps:O ")
        .replace("/usr/bin/handover", &handover)
        .replace("--ready accept -- /usr/bin/web", "-- python3 /lab/web.py");
    let socket = include_str!("../../../../packaging/recipes/web-container.socket").replace("8080", "127.0.0.1:8080");
    lab.write_file(
        "/etc/containers/containers.conf",
        "[containers]\nkeyring = false\n[engine]\ncgroup_manager = \"cgroupfs\"\n",
    )?;
    lab.write_unit(UNIT, &service)?;
    lab.write_unit("web-container.socket", &socket)?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "web-container.socket", UNIT])?;
    let first = lab.sh_ok("podman inspect --format '{{.State.Pid}}' web")?;
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let ((), stats) = load::under(lab, address, CLIENTS, |_| {
        for _ in 0..RELOADS {
            lab.systemctl_ok(&["reload", UNIT])?;
        }
        Ok(())
    })?;
    let summary = load::lost_nothing(&stats)?;
    let status = lab.sh_ok(&format!("podman exec web {handover} status --json 1"))?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    assert_eq!(status["generation"], RELOADS + 1);
    assert_eq!(lab.sh_ok("podman inspect --format '{{.State.Pid}}' web")?, first, "the container is the same");
    println!("systemd {}: podman, {RELOADS} reloads, lost 0 of {}", lab.version(), summary.total.answered);
    // A version that hangs: the reload fails, and says so.
    lab.systemctl_ok(&["stop", UNIT])?;
    assert_eq!(lab.show(UNIT, "Result")?, "success");
    Ok(())
}
