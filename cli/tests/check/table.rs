//! Units with one fault each, and their nearest neighbours without it.

/// A pair without a fault. Cases append to it, so that what they say comes last and counts.
const SERVICE: &str = "[Unit]
Requires=web.socket
After=web.socket
StartLimitIntervalSec=0
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/web
ExecReload=/usr/bin/handover reload $MAINPID
KillMode=control-group
OOMPolicy=continue
FileDescriptorStoreMax=64
WatchdogSec=10
Restart=on-failure
RestartSec=100ms
TimeoutStartSec=60
TimeoutStopSec=45
[Service]
";
const SOCKET: &str = "[Socket]
ListenStream=127.0.0.1:8080
FileDescriptorName=http
[Install]
WantedBy=sockets.target
[Socket]
";

/// What differs from the pair without a fault.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Units {
    pub(crate) service: &'static str,
    pub(crate) socket: &'static str,
    /// Keys that are not there.
    pub(crate) without: &'static [&'static str],
    /// Further units, as `systemctl cat` prints them.
    pub(crate) more: &'static str,
    pub(crate) arguments: &'static [&'static str],
    /// No .socket unit at all.
    pub(crate) alone: bool,
    /// Of the socket.
    pub(crate) name: Option<&'static str>,
}

impl Units {
    pub(crate) fn parts(&self) -> (String, String, String) {
        let keep = |text: &str| -> String {
            let kept = text.lines().filter(|l| !self.without.iter().any(|key| l.split('=').next() == Some(key)));
            kept.map(|l| format!("{l}\n")).collect()
        };
        let socket = match self.alone {
            true => String::new(),
            false => {
                format!("# /etc/systemd/system/{}\n{}{}", self.name.unwrap_or("web.socket"), keep(SOCKET), self.socket)
            }
        };
        (format!("# /etc/systemd/system/web.service\n{}{}", keep(SERVICE), self.service), socket, self.more.to_owned())
    }

    pub(crate) fn text(&self) -> String {
        let (service, socket, more) = self.parts();
        format!("{service}\n{socket}\n{more}")
    }
}

const fn service(service: &'static str) -> Units {
    Units { service, socket: "", without: &[], more: "", arguments: &[], alone: false, name: None }
}

const fn socket(socket: &'static str) -> Units {
    Units { socket, ..service("") }
}

const fn without(without: &'static [&'static str], text: &'static str) -> Units {
    Units { without, ..service(text) }
}

const fn given(arguments: &'static [&'static str], text: &'static str) -> Units {
    Units { arguments, ..service(text) }
}

/// Rule, what it is about, what it leaves alone.
pub(crate) const CASES: &[(&str, Units, Units)] = &[
    ("HO001", service("KillMode control-group\n"), service("# KillMode control-group\n; no\n")),
    ("HO001", service("[Servce]\nType=notify\n"), service("[X-Anything]\nType=notify\n")),
    ("HO001", socket("[Service]\nType=notify\n"), socket("[Unit]\nDescription=\\\n# a comment\n continued\n")),
    ("HO002", service("[Unit]\nRestart=always\nRestartSec=1\n"), service("[Service]\nRestart=on-failure\n")),
    (
        "HO002",
        without(&["StartLimitIntervalSec"], "StartLimitIntervalSec=0\n"),
        service("[Unit]\nStartLimitIntervalSec=0\n"),
    ),
    ("HO002", service("After=network.target\n"), service("[Unit]\nAfter=network.target\n")),
    ("HO003", service("TimeoutStopSec=1 eternity\n"), service("TimeoutStopSec=1min 30s\n")),
    ("HO003", service("KillSignal=sigterm\n"), service("KillSignal=15\n")),
    ("HO003", service("[X-Handover]\nIgnore=HO999\n"), service("[X-Handover]\nIgnore=HO104 delegate\n")),
    ("HO004", service("KilMode=mixed\n"), service("X-KilMode=mixed\n")),
    ("HO004", service("killmode=mixed\n"), socket("KillMode=mixed\n")),
    (
        "HO003",
        given(&["--target-version", "257"], "FileDescriptorStorePreserve=on-success\n"),
        given(&["--target-version", "261"], "FileDescriptorStorePreserve=on-success\n"),
    ),
    ("HO003", service("RestartMode=fast\n"), service("RestartMode=direct\n")),
    ("HO004", service("Capabilities=\n"), service("CapabilityBoundingSet=\n")),
    (
        "HO004",
        given(&["--target-version", "252"], "OpenFile=/etc/web.toml\n"),
        given(&["--target-version", "253"], "OpenFile=/etc/web.toml\n"),
    ),
    ("HO004", given(&["--target-version", "258"], "CPUShares=5\n"), service("CPUShares=5\n")),
    ("HO005", without(&["ExecStart"], ""), without(&["ExecStart"], "ExecStart=web\n")),
    ("HO005", service("ExecStart=/usr/bin/web2\n"), service("ExecStart=\nExecStart=/usr/bin/web2\n")),
    ("HO005", service("ExecStartPre=bin/web\n"), service("ExecStartPre=-bin/web\n")),
    ("HO005", without(&["ListenStream"], ""), socket("ListenStream=\nListenDatagram=80\n")),
    ("HO003", service("FileDescriptorStoreMax=0x4g\n"), service("FileDescriptorStoreMax=0x40\n")),
    ("HO101", service("Type=exec\n"), service("Type=notify-reload\nExecReload=\n")),
    ("HO101", without(&["Type"], ""), service("Type=simple\nType=notify\n")),
    ("HO101", service("Type=simple\n"), service("Type=notify\nType=nonsense\n")),
    (
        "HO102",
        given(&["--target-version", "252"], "Type=notify-reload\nExecReload=\n"),
        given(&["--target-version", "253"], "Type=notify-reload\nExecReload=\n"),
    ),
    ("HO103", service("PIDFile=/run/web.pid\n"), service("PIDFile=/run/web.pid\nPIDFile=\n")),
    ("HO104", service("KillMode=mixed\n"), service("KillMode=\n")),
    ("HO104", service("KillMode=process\n"), service("KillMode=process\nKillMode=control-group\n")),
    ("HO104", service("KillMode=none\n"), without(&["KillMode"], "")),
    ("HO105", service("NotifyAccess=none\n"), service("NotifyAccess=exec\n")),
    ("HO106", service("NotifyAccess=all\n"), without(&["NotifyAccess"], "")),
    ("HO107", service("ExitType=cgroup\n"), service("ExitType=main\n")),
    ("HO108", service("RemainAfterExit=YES\n"), service("RemainAfterExit=0\n")),
    ("HO109", service("Restart=on-success\n"), service("Restart=on-abnormal\n")),
    ("HO109", without(&["Restart"], ""), service("Restart=always\n")),
    ("HO109", without(&["Restart"], "[Unit]\nRestartSec=1\n"), without(&["Restart"], "[Unit]\nRestart=always\n")),
    ("HO110", service("Restart=always\n"), service("Restart=on-failure\n")),
    ("HO111", service("ExecStopPost=-/bin/rm -f /run/web.sock\n"), service("ExecStopPost=/usr/bin/logger stopped\n")),
    (
        "HO111",
        service("ExecStopPost=/bin/sh -c 'sync; rm -rf /var/lib/web/state'\n"),
        service("ExecStopPost=/bin/sh -c 'echo form'\n"),
    ),
    (
        "HO112",
        service("ExecStart=\nExecStart=/usr/bin/sudo -u web /usr/bin/web\n"),
        service("ExecStart=\nExecStart=/usr/bin/env A=1 /usr/bin/web\n"),
    ),
    (
        "HO112",
        service("ExecStart=\nExecStart=/bin/sh -c 'cd /srv && /usr/bin/web'\n"),
        service("ExecStart=\nExecStart=/bin/sh -c 'cd /srv && exec /usr/bin/web'\n"),
    ),
    (
        "HO112",
        service("ExecStart=\nExecStart=/usr/bin/docker run --rm web\n"),
        service("ExecStart=\nExecStart=/usr/bin/flock -F /run/lock/web /usr/bin/web\n"),
    ),
    ("HO113", service("WorkingDirectory=/opt/app/current\n"), service("WorkingDirectory=/opt/app\n")),
    (
        "HO113",
        service("ExecStart=\nExecStart=/opt/app/1.2/web\nWorkingDirectory=/opt/app/current\n"),
        service("ExecStart=\nExecStart=/opt/app/current/web\nWorkingDirectory=/opt/app/current\n"),
    ),
    (
        "HO114",
        given(&["--target-version", "254"], "RestartSteps=8\n"),
        given(&["--target-version", "254"], "RestartSteps=8\nRestartMaxDelaySec=10s\n"),
    ),
    ("HO114", given(&["--target-version", "254"], ""), given(&["--target-version", "253"], "")),
    ("HO114", given(&["--target-version", "254"], ""), given(&["--target-version", "254"], "RestartSec=5s\n")),
    (
        "HO114",
        given(&["--target-version", "254"], "RestartSec=0\nRestartSteps=8\nRestartMaxDelaySec=10s\n"),
        given(&["--target-version", "254"], "RestartSec=100ms\nRestartSteps=8\nRestartMaxDelaySec=10s\n"),
    ),
    (
        "HO115",
        service("RestartMode=direct\n[Unit]\nOnFailure=mail.service\n"),
        service("RestartMode=normal\n[Unit]\nOnFailure=mail.service\n"),
    ),
    (
        "HO117",
        service("Environment=HANDOVER_EXIT_ON_IDLE=10m\nRestart=always\n"),
        service("Environment=HANDOVER_EXIT_ON_IDLE=10m\nRestart=on-failure\n"),
    ),
    ("HO121", service("SendSIGHUP=yes\n"), service("SendSIGHUP=no\n")),
    ("HO121", service("KillSignal=SIGHUP\n"), service("KillSignal=SIGINT\n")),
    ("HO122", service("WatchdogSignal=HUP\n"), service("WatchdogSignal=SIGABRT\n")),
    ("HO122", service("RestartKillSignal=1\n"), service("RestartKillSignal=SIGTERM\n")),
    (
        "HO122",
        service("Type=notify-reload\nExecReload=\nReloadSignal=SIGUSR1\nRestartKillSignal=SIGUSR1\n"),
        service("Type=notify-reload\nExecReload=\nReloadSignal=SIGUSR1\nWatchdogSignal=SIGHUP\n"),
    ),
    ("HO123", service("SendSIGKILL=no\n"), service("SendSIGKILL=on\n")),
    ("HO124", service("KillSignal=SIGKILL\n"), service("KillSignal=SIGINT\n")),
    ("HO124", service("KillSignal=SIGQUIT\n"), service("KillSignal=SIGQUIT\nEnvironment=HANDOVER_SIGNALS=nginx\n")),
    ("HO124", service("RestartKillSignal=SIGUSR1\n"), service("RestartKillSignal=SIGTERM\n")),
    (
        "HO131",
        Units { service: "[X-Handover]\n", ..without(&["ExecReload"], "") },
        service("Type=notify-reload\nExecReload=\n"),
    ),
    (
        "HO131",
        service("ExecReload=\n[X-Handover]\n"),
        service("ExecReload=\nExecReload=/usr/bin/webctl reload\n[X-Handover]\n"),
    ),
    (
        "HO132",
        service("ExecReload=\nExecReload=/bin/kill -HUP $MAINPID\n"),
        service("ExecReload=/usr/bin/webctl wait\n"),
    ),
    (
        "HO132",
        service("ExecReload=\nExecReload=/bin/sh -c 'test -f /etc/ok && kill -s HUP $MAINPID'\n"),
        service("ExecReload=/usr/bin/test -f /etc/skill-HUP\n"),
    ),
    (
        "HO133",
        service("ExecReload=\nExecReload=/bin/kill -USR2 $MAINPID\n[X-Handover]\n"),
        service("ExecReload=\nExecReload=/bin/kill -1 $MAINPID\n[X-Handover]\n"),
    ),
    (
        "HO133",
        service("Type=notify-reload\nExecReload=\nReloadSignal=SIGUSR1\n[X-Handover]\n"),
        service("Type=notify-reload\nExecReload=\nReloadSignal=SIGHUP\n"),
    ),
    (
        "HO133",
        service("ExecReload=\nExecReload=/bin/kill -USR2 $MAINPID\n[X-Handover]\n"),
        service("ExecReload=\nExecReload=/bin/kill -USR2 $MAINPID\nEnvironment=HANDOVER_SIGNALS=grace\n[X-Handover]\n"),
    ),
    (
        "HO133",
        service("ExecReload=\nExecReload=/bin/kill $MAINPID\n[X-Handover]\n"),
        service("ExecReload=\nExecReload=/bin/kill -USR1 $MAINPID\n[X-Handover]\nReloadSignal=SIGUSR1\n"),
    ),
    (
        "HO134",
        service("Type=notify-reload\n"),
        service("Type=notify-reload\nExecReload=\nExecReload=/usr/bin/webctl test\n"),
    ),
    (
        "HO135",
        service("ExecReload=+/usr/local/bin/web-reload\n"),
        service("ExecReload=+/usr/bin/handover reload $MAINPID\n"),
    ),
    (
        "HO135",
        service("ExecReload=!/bin/sh -c 'kill -HUP $MAINPID'\n"),
        service("ExecReload=-/usr/local/bin/web-reload\n"),
    ),
    (
        "HO136",
        Units {
            more: "# /etc/systemd/system/b.service\n[Unit]\nPropagatesReloadTo=web.service\n[Service]\nExecStart=/b\n",
            ..service("[Unit]\nPropagatesReloadTo=b.service\n")
        },
        Units {
            more: "# /etc/systemd/system/b.service\n[Unit]\nPropagatesReloadTo=c.service\n[Service]\nExecStart=/b\n",
            ..service("[Unit]\nPropagatesReloadTo=b.service\n")
        },
    ),
    ("HO136", service("[Unit]\nPropagatesReloadTo=%n\n"), service("[Unit]\nReloadPropagatedFrom=b.service\n")),
    (
        "HO137",
        service("ExecReload=\nExecReload=-/usr/bin/handover reload $MAINPID\n"),
        service("ExecReload=-/usr/bin/logger reloading\n"),
    ),
    (
        "HO138",
        service("ExecReload=\nExecReload=/bin/systemctl restart web.service\n[X-Handover]\n"),
        service("ExecReload=/bin/systemctl reload other.service\n"),
    ),
    (
        "HO138",
        service("ExecReload=/bin/sh -c 'systemctl try-restart %n'\n[X-Handover]\n"),
        service("ExecReload=/bin/systemctl kill -s HUP web.service\n"),
    ),
    (
        "HO139",
        service("LoadCredential=key.pem:/etc/web/key.pem\n"),
        service("LoadCredential=key.pem:/etc/web/key.pem\nRefreshOnReload=credentials\n"),
    ),
    (
        "HO139",
        service("ImportCredential=web.*\nRefreshOnReload=~credentials\n"),
        service("ImportCredential=web.*\nRefreshOnReload=~extensions\n"),
    ),
    (
        "HO139",
        given(&["--target-version", "257"], "LoadCredential=key.pem\n"),
        given(&["--target-version", "260"], "LoadCredential=key.pem\nRefreshOnReload=Yes\n"),
    ),
    ("HO141", service("TimeoutStartSec=infinity\n"), service("TimeoutStartSec=\n")),
    ("HO141", service("TimeoutStartSec=0\n"), given(&["--warm-up", "50s"], "")),
    ("HO141", given(&["--warm-up", "2m"], "TimeoutStartSec=\n"), service("TimeoutSec=5\nTimeoutStartSec=40\n")),
    ("HO141", service("TimeoutSec=5\n"), service("[X-Handover]\nWarmUp=40s\n")),
    ("HO142", service("TimeoutStopSec=30\n"), service("TimeoutStopSec=infinity\n")),
    ("HO142", given(&["--drain-timeout", "60s"], ""), given(&["--drain-timeout", "10s"], "TimeoutStopSec=11s\n")),
    (
        "HO142",
        service("[X-Handover]\nDrainTimeout=5min\n"),
        service("TimeoutStopSec=6min\n[X-Handover]\nDrainTimeout=5min\n"),
    ),
    (
        "HO142",
        service("Environment=LANG=C HANDOVER_DRAIN_TIMEOUT=5m\n"),
        service("TimeoutStopSec=6min\nEnvironment=\"HANDOVER_DRAIN_TIMEOUT=5m 10s\"\n"),
    ),
    (
        "HO141",
        service("Environment=HANDOVER_READY_TIMEOUT=2m\n"),
        service("Environment=HANDOVER_READY_TIMEOUT=2m HANDOVER_READY_TIMEOUT=50s\n"),
    ),
    ("HO143", service("WatchdogSec=500ms\n"), service("WatchdogSec=0\n")),
    ("HO144", service("UnsetEnvironment=NOTIFY_SOCKET\n"), service("UnsetEnvironment=LANG\n")),
    (
        "HO144",
        service("ExecStart=\nExecStart=/bin/sh -c '/usr/bin/web | logger'\n"),
        service("ExecStart=\nExecStart=/bin/sh -c 'exec /usr/bin/web'\n"),
    ),
    ("HO145", service("RuntimeMaxSec=1d\n"), service("RuntimeMaxSec=infinity\n")),
    (
        "HO146",
        service("[Unit]\nJobTimeoutSec=10\n"),
        service("[Unit]\nJobTimeoutSec=2min\nJobRunningTimeoutSec=infinity\n"),
    ),
    ("HO151", service("OOMPolicy=stop\n"), service("OOMPolicy=continue\n")),
    ("HO151", without(&["OOMPolicy"], ""), without(&["OOMPolicy"], "Delegate=yes\n")),
    ("HO152", service("OOMPolicy=kill\n"), service("OOMPolicy=kill\nOOMPolicy=continue\n")),
    ("HO153", service("MemoryMax=1G\n"), given(&["--memory", "500M"], "MemoryMax=1G\n")),
    ("HO153", service("MemoryMax=1G\n[X-Handover]\nMemory=600M\n"), service("MemoryMax=infinity\n")),
    ("HO154", service("TasksMax=64\n"), service("TasksMax=64\n[X-Handover]\nTasks=30\n")),
    ("HO155", service("LimitNPROC=512:1024\n"), service("LimitNPROC=infinity\n")),
    ("HO156", service("LimitNOFILE=1024\n"), service("LimitNOFILE=65536:524288\n")),
    ("HO156", given(&["--connections", "20000"], ""), given(&["--connections", "20000"], "LimitNOFILE=40000\n")),
    ("HO201", socket("Accept=yes\n"), socket("Accept=false\n")),
    ("HO202", socket("FlushPending=yes\n"), socket("FlushPending=no\n")),
    ("HO203", socket("RemoveOnStop=1\n"), socket("RemoveOnStop=off\n")),
    ("HO204", socket("ReusePort=true\n"), socket("ReusePort=true\nReusePort=false\n")),
    ("HO205", without(&["FileDescriptorName"], ""), socket("FileDescriptorName=%p\n")),
    (
        "HO206",
        Units { name: Some("web:1.socket"), service: "Sockets=web:1.socket\n", ..without(&["FileDescriptorName"], "") },
        Units { name: Some("web:1.socket"), service: "Sockets=web:1.socket\n", ..service("") },
    ),
    ("HO206", socket("FileDescriptorName=a:b\n"), socket("FileDescriptorName=a-b\n")),
    ("HO207", without(&["Requires"], ""), without(&["Requires"], "[Unit]\nBindsTo=%p.socket\n")),
    (
        "HO208",
        Units {
            more: "# /etc/systemd/system/b.service\n[Unit]\nRequires=web.socket\n[Service]\nSockets=web.socket\n",
            ..service("NonBlocking=yes\n")
        },
        Units {
            more: "# /etc/systemd/system/b.service\n[Unit]\nRequires=web.socket\n[Service]\nSockets=web.socket\nNonBlocking=1\n",
            ..service("NonBlocking=yes\n")
        },
    ),
    ("HO209", socket("TriggerLimitBurst=2\n"), socket("TriggerLimitBurst=200\nTriggerLimitIntervalSec=2\n")),
    ("HO209", socket("TriggerLimitIntervalSec=1min\n"), socket("TriggerLimitIntervalSec=0\n")),
    (
        "HO210",
        without(&["StartLimitIntervalSec"], "[Unit]\nStartLimitBurst=3\n"),
        service("[Unit]\nStartLimitBurst=3\n"),
    ),
    (
        "HO210",
        without(&["StartLimitIntervalSec"], "StartLimitInterval=60\n"),
        service("[Unit]\nStartLimitIntervalSec=10\nStartLimitBurst=200\n"),
    ),
    ("HO210", service("[Unit]\nStartLimitIntervalSec=\n"), service("RestartSec=3\n")),
    (
        "HO210",
        service("[Unit]\nStartLimitIntervalSec=10\n[Service]\nRestartSteps=3\n"),
        service("[Unit]\nStartLimitIntervalSec=10\n[Service]\nRestartSteps=3\nRestartMaxDelaySec=10s\n"),
    ),
    ("HO211", socket("MaxConnections=100\n"), socket("MaxConnections=\n")),
    (
        "HO221",
        service("FileDescriptorStoreMax=0\nFileDescriptorStorePreserve=yes\n"),
        service("FileDescriptorStorePreserve=yes\n"),
    ),
    (
        "HO221",
        without(&["FileDescriptorStoreMax"], "[X-Handover]\nStored=2\n"),
        without(&["FileDescriptorStoreMax"], ""),
    ),
    ("HO222", service("FileDescriptorStoreMax=1\n"), service("FileDescriptorStoreMax=2\n")),
    ("HO222", given(&["--stored", "64"], ""), given(&["--stored", "62"], "")),
    (
        "HO223",
        given(&["--target-version", "252"], "FileDescriptorStorePreserve=yes\n"),
        given(&["--target-version", "254"], "FileDescriptorStorePreserve=yes\n"),
    ),
    (
        "HO221",
        without(&["FileDescriptorStoreMax"], "[X-Handover]\nStored=2\n"),
        without(&["FileDescriptorStoreMax"], ""),
    ),
    ("HO222", service("FileDescriptorStoreMax=1\n"), service("FileDescriptorStoreMax=2\n")),
    ("HO222", given(&["--stored", "64"], ""), given(&["--stored", "62"], "")),
    (
        "HO223",
        given(&["--target-version", "252"], "FileDescriptorStorePreserve=yes\n"),
        given(&["--target-version", "254"], "FileDescriptorStorePreserve=yes\n"),
    ),
    (
        "HO225",
        without(&["WantedBy"], "FileDescriptorStorePreserve=on-success\n"),
        service("FileDescriptorStorePreserve=yes\n"),
    ),
    (
        "HO226",
        service("FileDescriptorStorePreserve=yes\nExecStart=\nExecStart=/mnt/web\n"),
        service("FileDescriptorStorePreserve=yes\nExecStart=\nExecStart=/opt/web\n"),
    ),
    (
        "HO227",
        socket("[Unit]\nDefaultDependencies=no\nIgnoreOnIsolate=yes\n"),
        socket("[Unit]\nDefaultDependencies=no\nIgnoreOnIsolate=yes\n[Socket]\nDeferTrigger=patient\n"),
    ),
    (
        "HO221",
        without(&["FileDescriptorStoreMax"], "Environment=HANDOVER_MIGRATE=restart\n"),
        service("Environment=HANDOVER_MIGRATE=restart\n"),
    ),
    (
        "HO224",
        Units { alone: true, ..without(&["Requires", "After", "FileDescriptorStoreMax"], "") },
        Units { alone: true, ..without(&["Requires", "After"], "") },
    ),
    (
        "HO301",
        service("RestrictAddressFamilies=AF_INET AF_INET6\n"),
        service("RestrictAddressFamilies=AF_INET\nRestrictAddressFamilies=AF_UNIX\n"),
    ),
    ("HO301", service("RestrictAddressFamilies=~AF_UNIX AF_PACKET\n"), service("RestrictAddressFamilies=~AF_PACKET\n")),
    (
        "HO301",
        service("RestrictAddressFamilies=none\n"),
        service("RestrictAddressFamilies=none\nRestrictAddressFamilies=\n"),
    ),
    (
        "HO302",
        service("TemporaryFileSystem=/run:ro\n"),
        service("TemporaryFileSystem=/run:ro\nBindReadOnlyPaths=/run/systemd\n"),
    ),
    ("HO302", service("InaccessiblePaths=-/run/systemd/\n"), service("InaccessiblePaths=/run/docker /runner\n")),
    ("HO303", service("PrivatePIDs=yes\n"), service("PrivatePIDs=no\n")),
    ("HO304", service("RestrictNamespaces=yes\n"), service("RestrictNamespaces=no\n")),
    (
        "HO305",
        service("SystemCallFilter=@basic-io @network-io\n"),
        service("SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n"),
    ),
    (
        "HO305",
        service("SystemCallFilter=@system-service\nSystemCallFilter=~@process\n"),
        service("SystemCallFilter=~@debug @mount\n"),
    ),
    (
        "HO305",
        service("SystemCallFilter=~memfd_create:EPERM\n"),
        service("SystemCallFilter=@process @network-io @ipc\n"),
    ),
    ("HO306", service("NoExecPaths=/\n"), service("NoExecPaths=/\nExecPaths=/usr\n")),
    ("HO306", service("NoExecPaths=/usr/bin/web\nExecPaths=/usr\n"), service("NoExecPaths=/home /usr/bin/web2\n")),
    (
        "HO307",
        service("BindReadOnlyPaths=/opt/web/web:/usr/bin/web\n"),
        service("BindReadOnlyPaths=/opt/web /etc/web.d /run/systemd/notify\n"),
    ),
    (
        "HO307",
        service("BindPaths=-/etc/web.toml\n"),
        service("BindPaths=/etc/web:/etc/other:rbind /srv/example.com /usr/lib/python3.11\n"),
    ),
    ("HO308", service("PrivateUsers=self\n"), service("PrivateUsers=no\n")),
    ("HO308", service("UserNamespacePath=/run/users\n"), service("NetworkNamespacePath=/run/net\n")),
    ("HO308", service("PrivateUsers=managed\n"), service("PrivateUsers=perhaps\n")),
    ("HO309", service("DynamicUser=yes\n"), service("DynamicUser=no\nUser=web\n")),
    ("HO310", service("RuntimeDirectory=web\n"), service("RuntimeDirectory=web\nRuntimeDirectoryPreserve=restart\n")),
    ("HO311", service("Delegate=cpu memory\n"), service("Delegate=no\n")),
    ("HO312", service("ProtectSystem=strict\n"), service("ProtectSystem=no\n")),
    ("HO313", service("RootDirectory=/srv/web\n"), service("RootDirectory=/\n")),
    ("HO313", service("ExtensionImages=/srv/web.raw\n"), service("ExtensionImages=/srv/web.raw\nExtensionImages=\n")),
];
