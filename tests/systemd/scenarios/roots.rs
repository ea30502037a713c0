//! Services with a root or mounts of their own: which program a reload starts.

use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario, example, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("a_renamed_root_is_not_reloaded", renamed_root).system_only(),
    Scenario::new("a_renamed_root_of_any_program", renamed_root_of_any_program).system_only(),
    Scenario::new("a_reload_after_soft_reboot", after_soft_reboot).system_only().since(255),
];

const SERVICE: &str = "[Service]\nType=notify\nNotifyAccess=main\nExecReload=/bin/kill -HUP $MAINPID\n";
const IN_ROOT: &str = "RootDirectory=/srv/root\nMountAPIVFS=yes\nBindReadOnlyPaths=/usr /run/systemd\n";
const REFUSED: &str = "would be the old program again";

/// A service, and the file that it runs.
pub(super) struct Rooted<'a> {
    pub(super) lab: &'a Container,
    pub(super) unit: &'a str,
}

impl<'a> Rooted<'a> {
    /// Writes the units; the socket waits at that port.
    fn write(lab: &'a Container, unit: &'a str, port: u16, of_units: &str, lines: &str) -> Outcome<Self> {
        lab.write_unit(&format!("{unit}.service"), &format!("[Unit]\n{of_units}{SERVICE}{lines}"))?;
        let socket = format!("[Socket]\nListenStream=127.0.0.1:{port}\nFileDescriptorName=http\n");
        let of_socket = of_units.replace("SurviveFinalKillSignal=yes\n", "");
        lab.write_unit(&format!("{unit}.socket"), &format!("[Unit]\n{of_socket}{socket}"))?;
        Ok(Self { lab, unit })
    }

    pub(super) fn main(&self) -> Outcome<u32> {
        self.lab.main_pid(&format!("{}.service", self.unit))
    }

    /// The inode of the program that runs.
    fn runs(&self) -> Outcome<String> {
        self.lab.sh_ok(&format!("stat -L -c %i /proc/{}/exe", self.main()?))
    }

    /// The inode of the program that the main process has started, when there is one of it.
    fn program(&self) -> Outcome<String> {
        let main = self.main()?;
        let pids = self.lab.pids(&format!("{}.service", self.unit))?;
        match pids.iter().filter(|pid| **pid != main).collect::<Vec<_>>()[..] {
            [pid] => self.lab.sh_ok(&format!("stat -L -c %i /proc/{pid}/exe")),
            ref others => Err(format!("not one program: {others:?}").into()),
        }
    }

    pub(super) fn reload(&self) -> Outcome {
        self.lab.systemctl_ok(&["reload", &format!("{}.service", self.unit)]).map(drop)
    }

    pub(super) fn refuses(&self) -> Outcome<String> {
        let (old, unit) = (self.main()?, format!("{}.service", self.unit));
        self.reload()?;
        let status = self.lab.wait_until(DEADLINE, "the reload is refused", || {
            Ok(Some(self.lab.show(&unit, "StatusText")?).filter(|status| status.contains(REFUSED)))
        })?;
        assert_eq!((self.main()?, self.lab.show(&unit, "ActiveState")?), (old, "active".to_owned()));
        println!("{}: {status}", self.unit);
        Ok(status)
    }

    pub(super) fn becomes_another(&self, old: u32) -> Outcome {
        let other = || Ok(self.main().ok().filter(|new| *new != old && *new != 0).map(drop));
        self.lab.wait_until(DEADLINE, "another main process", other)
    }
}

/// A root with a program in it, and the machine's own libraries.
fn make_root(lab: &Container, program: &str) -> Outcome {
    lab.sh_ok(&format!(
        "mkdir -p /srv/root && cd /srv/root && mkdir -p opt usr run/systemd proc sys dev tmp etc && ln -s usr/lib lib && \
         ln -s usr/lib64 lib64 && ln -s usr/bin bin && cp {program} opt/web"
    ))
    .map(drop)
}

/// The directory of a root is replaced by another of its name: only a restart takes that one.
fn renamed_root(lab: &Container) -> Outcome {
    let web = lab.install(&example("web")?, "web")?;
    make_root(lab, &web)?;
    let rooted = Rooted::write(lab, "rooted", 8080, "", &format!("ExecStart=/opt/web\n{IN_ROOT}"))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "rooted.socket", "rooted.service"])?;
    let first = rooted.runs()?;

    // In the same root a new file is a new program.
    lab.sh_ok(&format!("cd /srv/root/opt && cp {web} new && mv new web"))?;
    let old = rooted.main()?;
    rooted.reload()?;
    rooted.becomes_another(old)?;
    let second = rooted.runs()?;
    assert_ne!(second, first);

    lab.sh_ok("cp -a /srv/root /srv/new && mv /srv/root /srv/old && mv /srv/new /srv/root")?;
    let status = rooted.refuses()?;
    assert!(status.contains("renamed to /srv/old"), "{status}");
    lab.sh_ok("rm -rf /srv/old")?;
    lab.systemctl_ok(&["restart", "rooted.service"])?;
    assert_eq!(rooted.runs()?, lab.sh_ok("stat -c %i /srv/root/opt/web")?);
    let old = rooted.main()?;
    rooted.reload()?;
    rooted.becomes_another(old)
}

/// The same for a program that knows nothing of us, under `handover run`: its supervisor lies in
/// that root, too.
fn renamed_root_of_any_program(lab: &Container) -> Outcome {
    let web = lab.install(&example("web")?, "web")?;
    let tool = lab.install(handover(), "handover")?;
    make_root(lab, &web)?;
    lab.sh_ok(&format!("cp {tool} /srv/root/opt/handover"))?;
    let command = "ExecStart=/opt/handover run --ready accept -- /opt/web\n";
    let rooted = Rooted::write(lab, "run", 8083, "", &format!("{command}{IN_ROOT}"))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "run.socket", "run.service"])?;
    let first = rooted.program()?;

    lab.sh_ok(&format!("cd /srv/root/opt && cp {web} new && mv new web"))?;
    rooted.reload()?;
    let second =
        lab.wait_until(DEADLINE, "the new file runs", || Ok(rooted.program().ok().filter(|now| *now != first)))?;

    lab.sh_ok("cp -a /srv/root /srv/new && mv /srv/root /srv/old && mv /srv/new /srv/root")?;
    let status = rooted.refuses()?;
    assert!(status.contains("renamed to /srv/old"), "{status}");
    assert_eq!(rooted.program()?, second);
    lab.systemctl_ok(&["restart", "run.service"])?;
    assert_eq!(rooted.program()?, lab.sh_ok("stat -c %i /srv/root/opt/web")?);
    Ok(())
}

/// Two services survive it: one goes along into the new root, one stays behind in its own mounts.
fn after_soft_reboot(lab: &Container) -> Outcome {
    let web = lab.install(&example("web")?, "web")?;
    lab.sh_ok(&format!("cp {web} /usr/local/bin/web"))?;
    let survives = "DefaultDependencies=no\nIgnoreOnIsolate=yes\nSurviveFinalKillSignal=yes\n";
    let plain = Rooted::write(lab, "plain", 8081, survives, "ExecStart=/usr/local/bin/web\n")?;
    let own = "ExecStart=/usr/local/bin/web\nProtectSystem=yes\nUser=nobody\n";
    let mounted = Rooted::write(lab, "mounted", 8082, survives, own)?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "plain.socket", "mounted.socket", "plain.service", "mounted.service"])?;
    let (old, (was_plain, was_mounted)) = (plain.runs()?, (plain.main()?, mounted.main()?));

    let next = "/run/nextroot";
    lab.sh_ok(&format!(
        "mkdir -p /run/up/upper /run/up/work {next} && \
         mount -t overlay -o lowerdir=/,upperdir=/run/up/upper,workdir=/run/up/work overlay {next} && \
         cp {next}/usr/local/bin/web {next}/usr/local/bin/new && mv {next}/usr/local/bin/new {next}/usr/local/bin/web && \
         mkdir -p /run/systemd/system && cp -a /etc/systemd/system/. /run/systemd/system/ && \
         ln -sfT /run/systemd/system/lab.target /run/systemd/system/default.target && touch {next}/is-next"
    ))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["soft-reboot"])?;
    lab.wait_until(DEADLINE, "the next root is booted", || {
        // Who asks while the manager executes itself anew may never be answered.
        let booted = lab.sh_ok("[ -e /is-next ] && timeout 2 systemctl is-active lab.target");
        Ok(booted.ok().map(drop))
    })?;
    assert_eq!((plain.main()?, mounted.main()?), (was_plain, was_mounted), "both have survived");

    plain.reload()?;
    plain.becomes_another(was_plain)?;
    let new = lab.sh_ok("stat -c %i /usr/local/bin/web")?;
    assert_eq!(plain.runs()?, new);
    assert_ne!(new, old);
    let status = mounted.refuses()?;
    assert!(status.contains("soft reboot"), "{status}");
    lab.systemctl_ok(&["restart", "mounted.service"])?;
    assert_eq!(mounted.runs()?, new);
    Ok(())
}
