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
use std::os::unix::process::CommandExt;

/// For a server to come or to go.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Handover,
    Ecdysis,
    Shellflip,
    Nginx,
    Haproxy,
    Restart,
}

impl Peer {
    pub(crate) const ALL: [Self; 6] =
        [Self::Handover, Self::Ecdysis, Self::Shellflip, Self::Nginx, Self::Haproxy, Self::Restart];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handover => "handover",
            Self::Ecdysis => "ecdysis",
            Self::Shellflip => "shellflip",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Restart => "restart",
        }
    }

    /// With its version; `None`: not to be had on this machine.
    pub(crate) fn version(self) -> Option<String> {
        let of = |program: &str, option: &str| {
            let output = Command::new(program).arg(option).output().ok()?;
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            text.split(['/', ' ']).find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
        };
        match self {
            Self::Handover => Some(format!("handover {}", locked("handover")?)),
            Self::Ecdysis => Some(format!("ecdysis {}", locked("ecdysis")?)),
            Self::Shellflip => Some(format!("shellflip {}", locked("shellflip")?)),
            Self::Nginx => Some(format!("nginx {}", of("nginx", "-v")?.trim())),
            Self::Haproxy => Some(format!("HAProxy {}", of("haproxy", "-v")?.trim())),
            Self::Restart => Some("restart (hyper, socket held)".into()),
        }
    }

    /// Whether its process can be made as large as one likes.
    pub(crate) fn takes_ballast(self) -> bool {
        !matches!(self, Self::Nginx | Self::Haproxy)
    }

    fn signal(self) -> &'static str {
        match self {
            Self::Shellflip => "USR1",
            Self::Haproxy => "USR2",
            _ => "HUP",
        }
    }

    fn command(self, directory: &Path, port: u16, slow: u16) -> io::Result<Command> {
        let own = |name: &str| Command::new(std::env::current_exe().unwrap_or_default().with_file_name(name));
        let file = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text)?;
            Ok::<_, io::Error>(path)
        };
        Ok(match self {
            Self::Handover => own("handover_web"),
            Self::Ecdysis => own("ecdysis_web"),
            Self::Shellflip => own("shellflip_web"),
            Self::Restart => own("restart"),
            Self::Nginx => {
                let here = directory.display();
                let text = format!(
                    "daemon off; worker_processes 1; worker_rlimit_nofile 60000; pid {here}/pid; error_log {here}/error.log;\n\
                     events {{ worker_connections 30000; }}\n\
                     http {{ access_log off; keepalive_timeout 75s; keepalive_requests 1000000;\n\
                     client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f;\n\
                     uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
                     server {{ listen 127.0.0.1:{port}; location = / {{ return 200 \"pid 1\\n\"; }}\n\
                     location /sleep {{ proxy_pass http://127.0.0.1:{slow}; }} }} }}\n"
                );
                let mut command = Command::new("nginx");
                command.arg("-c").arg(file("nginx.conf", text)?).arg("-e").arg(directory.join("error.log"));
                command
            }
            Self::Haproxy => {
                let text = format!(
                    "global\n  maxconn 30000\n  no strict-limits\n  stats socket {}/stats mode 600 expose-fd listeners\n  hard-stop-after 10s\n\
                     defaults\n  mode http\n  timeout client 75s\n  timeout server 30s\n  timeout connect 5s\n\
                     frontend web\n  bind 127.0.0.1:{port}\n  http-request return status 200 content-type text/plain \
                     lf-string \"pid 1\\n\" if {{ path / }}\n  default_backend slow\n\
                     backend slow\n  server slow 127.0.0.1:{slow}\n",
                    directory.display()
                );
                let mut command = Command::new("haproxy");
                command.args(["-W", "-f"]).arg(file("haproxy.cfg", text)?);
                command
            }
        })
    }

    pub(crate) fn start(self) -> io::Result<Server> {
        let directory = tempfile::tempdir()?;
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
        command.env(peers::ADDRESS, format!("127.0.0.1:{port}")).env(peers::DIRECTORY, directory.path());
        let child = spawn(&mut command, directory.path())?;
        let server = Server { peer: self, child, backend, port, directory };
        let began = Instant::now();
        while server.get("/").is_err() {
            if began.elapsed() > DEADLINE {
                let log = fs::read_to_string(server.directory.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("{} does not answer: {log}", self.name())));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
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

    /// The options of `handover prove` that reload it, for `pid` is who answers, where that is the
    /// one to be told.
    pub(crate) fn reload(&self) -> io::Result<Vec<String>> {
        let pid = match self.peer {
            Peer::Nginx | Peer::Haproxy | Peer::Restart => self.child.id().to_string(),
            _ => self.get("/")?.trim_start_matches("pid ").trim().to_owned(),
        };
        Ok(["--signal", self.peer.signal(), "--pid", &pid].map(str::to_owned).into())
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

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("log")
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
