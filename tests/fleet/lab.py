"""Machines of a fleet: containers with a real systemd, each with its own address in one network namespace, and with sshd."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT, ANSWER = 60.0, 30.0
LAB_TARGET = "[Unit]\nDescription=lab\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n"
# Load must not make the journal drop lines.
JOURNALD = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n"
# Units that want what a container does not have, or would stir while a test runs.
MASKED = [
    "systemd-machine-id-commit.service", "systemd-tmpfiles-clean.timer", "apt-daily.timer", "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer", "systemd-networkd.service", "systemd-networkd.socket", "systemd-networkd-wait-online.service",
]


class Failed(Exception):
    pass


def wait_for(what, seconds, look):
    """The first value of `look` that is one."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def run(*command, **options):
    done = subprocess.run(command, text=True, capture_output=True, timeout=options.pop("timeout", 60), check=False, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def has_ended(pid):
    """Also of one that nobody has waited for."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def is_first(pid):
    """Whether it is PID 1 of a namespace: nspawn has helpers, too."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            numbers = next(line.split()[1:] for line in status if line.startswith("NSpid:"))
    except (OSError, StopIteration):
        return False
    return len(numbers) > 1 and numbers[-1] == "1"


def hierarchies():
    """Mount points of cgroup v2, and of systemd's own v1 hierarchy; none where systemd is PID 1, which gives nspawn a scope."""
    if os.path.isdir("/run/systemd/system"):
        return []
    found = []
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, place, kind, options, *_ = line.split(" ")
            ours = kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(","))
            if ours and place.startswith("/sys/fs/cgroup"):
                found.append(place)
    return found


def remove_cgroup(path):
    """Only directories can be removed there, and only once they are empty of processes."""
    for below, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(below)


class Network:
    """A namespace with a bridge, of which this machine knows nothing."""

    def __init__(self):
        self.name = f"handover-{os.getpid()}"
        run("ip", "netns", "add", self.name)
        for words in (["link", "set", "lo", "up"], ["link", "add", "br0", "type", "bridge"],
                      ["address", "add", "10.77.0.1/24", "dev", "br0"], ["link", "set", "br0", "up"]):
            run("ip", "-n", self.name, *words)

    def within(self, *command):
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *command]

    def close(self):
        run("ip", "netns", "delete", self.name)


class Machine:
    """One container. `root` is what `tests/lab/rootfs fleet-…` has made."""

    def __init__(self, network, scratch, number, root, binds, key):
        self.name, self.address, self.root = f"web{number}", f"10.77.0.{10 + number}", root
        self.scratch = os.path.join(scratch, self.name)
        os.makedirs(os.path.join(self.scratch, "units"))
        os.makedirs(os.path.join(self.scratch, "journald"))
        self.write("units/lab.target", LAB_TARGET)
        self.write("journald/lab.conf", JOURNALD)
        for unit in MASKED:
            os.symlink("/dev/null", os.path.join(self.scratch, "units", unit))
        with open("/proc/sys/kernel/random/uuid", encoding="utf-8") as uuid:
            self.machine_id = uuid.read().strip().replace("-", "")
        self.write("machine-id", self.machine_id + "\n")
        self.write("hostname", self.name + "\n")
        unique = f"hf{number}-{os.getpid()}"
        self.cgroups = [os.path.join(base, f"handover-{os.getpid()}-{number}") for base in hierarchies()]
        for cgroup in self.cgroups:
            os.mkdir(cgroup)
        bind = lambda option, inside, path: f"--{option}={os.path.join(self.scratch, inside)}:{path}"
        command = [
            "systemd-nspawn", "--quiet", "--register=no", "--console=pipe", "--volatile=overlay", "-D", root, "--machine", unique,
            f"--hostname={self.name}", "--network-bridge=br0", bind("bind", "units", "/etc/systemd/system"),
            bind("bind-ro", "journald", "/etc/systemd/journald.conf.d"), bind("bind-ro", "machine-id", "/etc/machine-id"),
            bind("bind-ro", "hostname", "/etc/hostname"),
            *[f"--bind-ro={here}:{there}" for here, there in binds.items()],
        ]
        if self.cgroups:
            command.append("--keep-unit")
        environment = {"PATH": PATH, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"}
        self.console = open(os.path.join(self.scratch, "console"), "wb")
        enter = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'
        self.nspawn = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "sh", "-c", enter, "sh", *self.cgroups, "--",
             *network.within(*command, "-b", "--", "--unit=lab.target")],
            env=environment, stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console)
        self.leader, self.key = None, key

    def write(self, name, text):
        with open(os.path.join(self.scratch, name), "w", encoding="utf-8") as file:
            file.write(text)

    def boot(self):
        """Until systemd is up, its address is set, and sshd answers."""
        def leader():
            if self.nspawn.poll() is not None:
                with open(self.console.name, encoding="utf-8", errors="replace") as said:
                    raise Failed(f"{self.name} did not boot: {said.read()}")
            with open(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children", encoding="utf-8") as children:
                return next((child for child in children.read().split() if is_first(child)), None)
        self.leader = wait_for(f"{self.name} starts", BOOT, leader)
        wait_for(f"{self.name} boots", BOOT, lambda: self.command("systemctl", "is-active", "lab.target").returncode == 0)
        self.ok("ip", "address", "add", f"{self.address}/24", "dev", "host0")
        self.ok("ip", "link", "set", "host0", "up")
        self.put("/etc/ssh/lab_keys", self.key)
        self.put("/etc/ssh/sshd_config.d/lab.conf", "AuthorizedKeysFile /etc/ssh/lab_keys\n")
        self.command("systemctl", "start", "systemd-user-sessions.service")
        self.ok("systemctl", "start", "ssh.service")

    def command(self, *argv, timeout=60):
        return subprocess.run(["nsenter", "-t", self.leader, "-a", "--", *argv], env={"PATH": PATH, "LANG": "C.UTF-8"}, text=True,
                              capture_output=True, timeout=timeout, check=False)

    def ok(self, *argv):
        done = self.command(*argv)
        if done.returncode != 0:
            raise Failed(f"{self.name}: {' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def put(self, path, content, mode=0o644):
        """Below the container's root; no part of the path is a symbolic link there."""
        here = f"/proc/{self.leader}/root{path}"
        os.makedirs(os.path.dirname(here), exist_ok=True)
        with open(here, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        os.chmod(here, mode)

    def status(self):
        return json.loads(self.ok("handover", "status", "--json", "web"))

    def serves(self):
        """Who serves, and what it runs."""
        status = self.status()
        return {"generation": status["generation"], "pid": status["pid"],
                "program": self.ok("sha256sum", "/opt/web/web").split()[0]}

    def journal(self, form):
        done = subprocess.run(["nsenter", "-t", self.leader, "-a", "--", "journalctl", "--no-pager", "-o", form, "-u", "web"],
                              env={"PATH": PATH}, capture_output=True, timeout=60, check=True)
        return done.stdout

    def close(self):
        self.nspawn.send_signal(signal.SIGTERM)
        try:
            self.nspawn.wait(5)
        except subprocess.TimeoutExpired:
            # Not waited for by nspawn yet, so the pid is surely the leader's.
            if self.leader:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(self.leader), signal.SIGKILL)
            try:
                self.nspawn.wait(10)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()
        self.console.close()
        for cgroup in self.cgroups:
            remove_cgroup(cgroup)


class Fleet:
    """All of them, and what reaches them: ssh, Ansible, load."""

    def __init__(self, scratch, roots, binds):
        self.scratch, self.machines, self.network = scratch, [], None
        self.keyfile = os.path.join(scratch, "key")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.keyfile)
        with open(self.keyfile + ".pub", encoding="utf-8") as key:
            public = key.read()
        try:
            self.network = Network()
            for number, root in enumerate(roots, 1):
                self.machines.append(Machine(self.network, scratch, number, root, binds, public))
            for machine in self.machines:
                machine.boot()
        except BaseException:
            self.close()
            raise
        self.ssh_options = (f"-i {self.keyfile} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
                            "-o LogLevel=ERROR -o User=root")

    def close(self):
        for machine in self.machines:
            machine.close()
        if self.network:
            self.network.close()

    def serves(self):
        return {machine.name: machine.serves() for machine in self.machines}

    def ssh_on_path(self):
        """A directory with an ssh that knows the machines by their names, as ~/.ssh/config would."""
        place = os.path.join(self.scratch, "bin")
        os.makedirs(place, exist_ok=True)
        config = os.path.join(self.scratch, "ssh_config")
        with open(config, "w", encoding="utf-8") as file:
            for machine in self.machines:
                file.write(f"Host {machine.name}\n  HostName {machine.address}\n")
            file.write(f"Host *\n  User root\n  IdentityFile {self.keyfile}\n  StrictHostKeyChecking no\n"
                       "  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n")
        wrapper = os.path.join(place, "ssh")
        with open(wrapper, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
        os.chmod(wrapper, 0o755)
        return place
