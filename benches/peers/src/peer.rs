//! The servers as they are started, reloaded and stopped.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use crate::cgroup::Cgroup;
use crate::config;

/// For a server to come or to go.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a server does at a reload with connections on which nothing is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// It closes them at once.
    Close,
    /// It waits for one more request.
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Handover,
    /// The same with a setting: its connections do not move.
    HandoverDrain,
    Ecdysis,
    Shellflip,
    Tableflip,
    Nginx,
    Haproxy,
    /// nginx as it is today, not as this machine's Debian has it.
    NginxToday(Idle),
    /// HAProxy as it is today.
    HaproxyToday(Idle),
    Restart,
}

impl Peer {
    /// Those whose reloads are compared.
    pub(crate) const ALL: [Self; 6] =
        [Self::Handover, Self::Ecdysis, Self::Shellflip, Self::Nginx, Self::Haproxy, Self::Restart];

    /// Those whose connections are compared.
    pub(crate) const CONNECTIONS: [Self; 9] = [
        Self::Handover,
        Self::HandoverDrain,
        Self::Ecdysis,
        Self::Shellflip,
        Self::Tableflip,
        Self::NginxToday(Idle::Close),
        Self::NginxToday(Idle::Keep),
        Self::HaproxyToday(Idle::Close),
        Self::HaproxyToday(Idle::Keep),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handover => "handover",
            Self::HandoverDrain => "handover, HANDOVER_MIGRATE=never",
            Self::Ecdysis => "ecdysis",
            Self::Shellflip => "shellflip",
            Self::Tableflip => "tableflip",
            Self::Nginx | Self::NginxToday(Idle::Close) => "nginx",
            Self::NginxToday(Idle::Keep) => "nginx, keepalive_min_timeout",
            Self::Haproxy | Self::HaproxyToday(Idle::Close) => "HAProxy",
            Self::HaproxyToday(Idle::Keep) => "HAProxy, idle-close-on-response",
            Self::Restart => "restart",
        }
    }

    /// By which it is asked for on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Handover => "handover",
            Self::HandoverDrain => "handover-drain",
            Self::Ecdysis => "ecdysis",
            Self::Shellflip => "shellflip",
            Self::Tableflip => "tableflip",
            Self::Nginx | Self::NginxToday(Idle::Close) => "nginx",
            Self::NginxToday(Idle::Keep) => "nginx-keep",
            Self::Haproxy | Self::HaproxyToday(Idle::Close) => "haproxy",
            Self::HaproxyToday(Idle::Keep) => "haproxy-keep",
            Self::Restart => "restart",
        }
    }

    /// With its version; `None`: not to be had on this machine.
    pub(crate) fn version(self) -> Option<String> {
        let of = |mut program: Command, option: &str| {
            let output = program.arg(option).output().ok()?;
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            text.split(['/', ' ']).find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
        };
        match self {
            Self::Handover | Self::HandoverDrain => Some(format!("handover {}", locked("handover")?)),
            Self::Ecdysis => Some(format!("ecdysis {}", locked("ecdysis")?)),
            Self::Shellflip => Some(format!("shellflip {}", locked("shellflip")?)),
            Self::Tableflip => Some(format!(
                "tableflip {} (Go {})",
                packaged("golang-github-cloudflare-tableflip-dev")?,
                packaged("golang-go")?
            )),
            Self::Nginx => Some(format!("nginx {}", of(Command::new("nginx"), "-v")?.trim())),
            Self::Haproxy => Some(format!("HAProxy {}", of(Command::new("haproxy"), "-v")?.trim())),
            Self::NginxToday(_) => Some(format!("nginx {}", of(today("nginx")?, "-v")?.trim())),
            Self::HaproxyToday(_) => Some(format!("HAProxy {}", of(today("haproxy")?, "-v")?.trim())),
            Self::Restart => Some("restart (hyper, socket held)".into()),
        }
    }

    /// Whether its process can be made as large as one likes.
    pub(crate) fn takes_ballast(self) -> bool {
        !self.has_master()
    }

    /// Whether who is told to reload stays, and only its workers change.
    fn has_master(self) -> bool {
        matches!(self, Self::Nginx | Self::Haproxy | Self::NginxToday(_) | Self::HaproxyToday(_))
    }

    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::Shellflip => Signal::SIGUSR1,
            Self::Haproxy | Self::HaproxyToday(_) => Signal::SIGUSR2,
            _ => Signal::SIGHUP,
        }
    }

    fn command(self, directory: &Path, port: u16, slow: u16) -> io::Result<Command> {
        let own = |name: &str| Command::new(std::env::current_exe().unwrap_or_default().with_file_name(name));
        let missing = || io::Error::other(format!("{} is not installed", self.name()));
        // as the server sees it, whose root may be another
        let root = if self.is_of_today() { root().ok_or_else(missing)? } else { "/".into() };
        let here = Path::new("/").join(directory.strip_prefix(root).map_err(io::Error::other)?);
        let file = |name: &str, text: String| fs::write(directory.join(name), text).map(|()| here.join(name));
        let nginx = |mut command: Command, idle| {
            let config = file("nginx.conf", config::nginx(&here, port, slow, idle))?;
            command.arg("-c").arg(config).arg("-e").arg(here.join("error.log"));
            Ok::<_, io::Error>(command)
        };
        let haproxy = |mut command: Command, idle| {
            command.args(["-W", "-f"]).arg(file("haproxy.cfg", config::haproxy(&here, port, slow, idle))?);
            Ok::<_, io::Error>(command)
        };
        Ok(match self {
            Self::Handover => own("handover_web"),
            Self::HandoverDrain => {
                let mut command = own("handover_web");
                command.env("HANDOVER_MIGRATE", "never");
                command
            }
            Self::Ecdysis => own("ecdysis_web"),
            Self::Shellflip => own("shellflip_web"),
            Self::Restart => own("restart"),
            // linked statically
            Self::Tableflip => {
                Command::new(crate::peer::root().ok_or_else(missing)?.join("usr/local/bin/tableflip_web"))
            }
            Self::Nginx => nginx(Command::new("nginx"), None)?,
            Self::NginxToday(idle) => nginx(today("nginx").ok_or_else(missing)?, Some(idle))?,
            Self::Haproxy => haproxy(Command::new("haproxy"), None)?,
            Self::HaproxyToday(idle) => haproxy(today("haproxy").ok_or_else(missing)?, Some(idle))?,
        })
    }

    fn is_of_today(self) -> bool {
        matches!(self, Self::NginxToday(_) | Self::HaproxyToday(_))
    }

    /// Starts it, in a control group if there is one.
    pub(crate) fn start(self, group: Option<&Cgroup>) -> io::Result<Server> {
        let directory = match root().filter(|_| self.is_of_today()) {
            Some(root) => tempfile::tempdir_in(root.join("tmp"))?,
            None => tempfile::tempdir()?,
        };
        // of another user than root, the workers
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let (port, slow) = (free_port()?, free_port()?);
        // what nginx and HAProxy pass slow requests on to; it is never reloaded
        let backend = match self {
            Self::Nginx | Self::Haproxy => Some(spawn(
                Command::new(std::env::current_exe()?.with_file_name("bare_web"))
                    .env(peers::ADDRESS, format!("127.0.0.1:{slow}")),
                directory.path(),
            )?),
            _ => None,
        };
        let mut command = self.command(directory.path(), port, slow)?;
        if let Some(group) = group {
            command = group.enter(&command);
        }
        command.env(peers::ADDRESS, format!("127.0.0.1:{port}")).env(peers::DIRECTORY, directory.path());
        let child = spawn(&mut command, directory.path())?;
        let server = Server { peer: self, child, backend, port, directory };
        let began = Instant::now();
        while server.get("/").is_err() {
            if began.elapsed() > DEADLINE {
                return Err(io::Error::other(format!("{} does not answer: {}", self.name(), server.log())));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

/// The root image with the servers of today; `None`: there is none.
fn root() -> Option<PathBuf> {
    std::env::var_os("PEERS_ROOT").map(PathBuf::from).filter(|root| root.join("usr/local/bin/tableflip_web").exists())
}

/// A program of that image.
fn today(program: &str) -> Option<Command> {
    let mut command = Command::new("chroot");
    command.arg(root()?).arg(format!("/usr/sbin/{program}"));
    Some(command)
}

/// The version of a package of that image.
fn packaged(package: &str) -> Option<String> {
    let status = fs::read_to_string(root()?.join("var/lib/dpkg/status")).ok()?;
    let (_, after) = status.split_once(&format!("Package: {package}\n"))?;
    let version = after.split("\n\n").next()?.lines().find_map(|line| line.strip_prefix("Version: "))?;
    Some(version.to_owned())
}

/// In a group of its own: all of its generations end with it.
fn spawn(command: &mut Command, directory: &Path) -> io::Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).spawn()
}

fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn locked(package: &str) -> Option<String> {
    let lock = include_str!("../Cargo.lock");
    let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(after.split('"').next()?.to_owned())
}

pub(crate) struct Server {
    peer: Peer,
    child: Child,
    backend: Option<Child>,
    port: u16,
    directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Who is told to reload: the process that answers, or the one above it.
    pub(crate) fn main(&self) -> io::Result<u32> {
        if self.peer.has_master() || self.peer == Peer::Restart {
            return Ok(self.child.id());
        }
        self.get("/")?.trim_start_matches("pid ").trim().parse().map_err(io::Error::other)
    }

    /// The process that lives on over reloads, if one does.
    pub(crate) fn master(&self) -> Option<u32> {
        self.peer.has_master().then(|| self.child.id())
    }

    /// The body of the answer.
    pub(crate) fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(io::Error::other(format!("unexpected answer: {answer:?}"))),
        }
    }

    /// Makes the process that answers so many MiB larger.
    pub(crate) fn touch(&self, mib: u32) -> io::Result<()> {
        self.get(&format!("/ballast?mib={mib}")).map(drop)
    }

    /// What it has written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in [Some(&mut self.child), self.backend.as_mut()].into_iter().flatten() {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}
