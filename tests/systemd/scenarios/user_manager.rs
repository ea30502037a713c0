//! The fallback of those who have no root: the lab on a user manager, run in a container as an
//! ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::lab::{Container, Outcome, Scenario, example, handover};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("lab_on_a_user_manager", lab_on_a_user_manager).system_only()];

/// What is run there: the lab itself, a reload, and what `handover init --user` writes, and the
/// recipe of a .path unit.
const CASES: [&str; 7] = [
    "socket_activation_smoke",
    "notify_smoke",
    "install_smoke",
    "socket_activation",
    "environment_of_the_next",
    "init_boots",
    "path_unit_recipe",
];

/// The harness runs itself: its own scenarios on `systemctl --user`.
fn lab_on_a_user_manager(lab: &Container) -> Outcome {
    let harness = lab.install(&std::env::current_exe()?, "harness")?;
    // The paths of the programs are fixed in the harness.
    for program in [handover().to_owned(), example("web")?, example("hello")?] {
        let directory = program.parent().unwrap_or(Path::new("/")).display();
        lab.sh_ok(&format!("mkdir -p '{directory}' && chmod a+rx '{directory}'"))?;
        fs::copy(&program, lab.outside(&program))?;
        fs::set_permissions(lab.outside(&program), fs::Permissions::from_mode(0o755))?;
    }

    lab.sh_ok("echo 'somebody:x:1000:1000::/:/bin/sh' >>/etc/passwd; echo 'somebody:x:1000:' >>/etc/group")?;
    lab.sh_ok("mkdir -p /run/user/1000 && chown 1000:1000 /run/user/1000 && chmod 700 /run/user/1000")?;
    // A user's own journal exists only where journals are kept on disk; the group, as /var may know
    // no ACLs here.
    lab.sh_ok("mkdir -p /var/log/journal && systemd-tmpfiles --create --prefix /var/log/journal")?;
    lab.write_file("/run/systemd/journald.conf.d/zz.conf", "[Journal]\nStorage=persistent\n")?;
    lab.sh_ok("systemctl restart systemd-journald.service && journalctl --flush")?;
    lab.write_unit(
        "user@1000.service",
        "[Service]\nType=notify\nUser=1000\nDelegate=yes\nSlice=user-1000.slice\nEnvironment=XDG_RUNTIME_DIR=/run/user/1000 HOME=/run/user/1000\n\
         ExecStart=/lib/systemd/systemd --user\n",
    )?;
    lab.systemctl_ok(&["start", "user@1000.service"])?;
    for case in CASES {
        let run = lab.sh_within(
            Duration::from_secs(60),
            &format!(
                "exec setpriv --reuid 1000 --regid 1000 --groups \"$(getent group systemd-journal | cut -d: -f3)\" \
                 env -u CI HOME=/run/user/1000 XDG_RUNTIME_DIR=/run/user/1000 {harness} --exact user-{}::{case}",
                lab.version()
            ),
        )?;
        assert!(run.success() && run.stdout.contains("1 passed; 0 failed; 0 ignored"), "{}{}", run.stdout, run.stderr);
    }
    Ok(())
}
