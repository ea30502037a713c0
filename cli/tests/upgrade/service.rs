//! The web example, as the tool has it, upgraded by the tool, under load: it never stops, whatever
//! the new program is.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use handover::Program;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::parts::{Place, Signer, executable, unless_busy};
use crate::serve::Server;
use crate::{Case, PATIENCE, cases, github, s3};
use handover_testing::processes::{self, until};

pub(crate) const CASES: &[Case] = cases![
    bad_ones_and_good_ones,
    it_hangs,
    it_dies_in_probation,
    interrupted_while_it_reloads,
    nobody_is_there,
    secrets_of_the_environment,
    what_the_command_line_says,
];

/// By which the processes of one service are known.
pub(crate) const DIRECTORY: &str = "RUNTIME_DIRECTORY";

/// More than a generation needs on the slowest machine, and what one that hangs costs.
const READY_TIMEOUT: &str = "12s";

/// The service, with clients.
struct Web {
    directory: TempDir,
    address: SocketAddr,
    first: u32,
    load: Load,
}

impl Web {
    fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web");
        executable(&path, &web());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let service = || {
            let program = options.iter().fold(Program::new(&path).arg("web"), |program, option| program.arg(option));
            let program = program.arg("--ready-timeout").arg(READY_TIMEOUT).arg("--linger").arg("200ms");
            let program = program.env(DIRECTORY, directory.path()).env("RUST_LOG", "error");
            program.socket("http", listener.try_clone().unwrap()).start()
        };
        let first = unless_busy(service).pid();
        drop(listener);
        let load = Load::start(address);
        let web = Self { directory, address, first, load };
        until("the control interface", || web.path("handover.sock").exists().then_some(()));
        web
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tool();
        command.arg("upgrade").arg("--socket").arg(self.path("handover.sock")).args(arguments);
        command
    }

    fn upgrade(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn ends(&self, arguments: &[&str], code: i32, says: &str) -> Output {
        let output = self.upgrade(arguments);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.code() == Some(code) && text.contains(says),
            "{code} and {says:?}: {} {text}",
            output.status
        );
        output
    }

    fn pid(&self) -> u32 {
        ask(self.address).unwrap()
    }

    /// The file is that, and so is what the one that answers runs.
    #[track_caller]
    fn runs(&self, bytes: &[u8]) -> u32 {
        assert!(fs::read(self.path("web")).unwrap() == bytes, "another file");
        let pid = self.pid();
        assert!(fs::read(format!("/proc/{pid}/exe")).unwrap() == bytes, "another program");
        pid
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // Whatever generations there are.
        for pid in processes::of_service(DIRECTORY, self.directory.path()).into_keys() {
            processes::signal(pid, Signal::SIGKILL);
        }
    }
}

/// Requests on new connections, all of which must be answered.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    client: Option<JoinHandle<std::io::Result<()>>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answered));
        let client = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                ask(address)?;
                counted.fetch_add(1, Ordering::SeqCst);
                thread::sleep(std::time::Duration::from_millis(2));
            }
            Ok(())
        });
        Self { stop, answered, client: Some(client) }
    }

    #[track_caller]
    pub(crate) fn lost_nothing(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.client.take().unwrap().join().unwrap().unwrap();
        assert!(self.answered.load(Ordering::SeqCst) > 0);
    }
}

pub(crate) fn ask(address: SocketAddr) -> std::io::Result<u32> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /pid HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body =
        answer.split_once("\r\n\r\n").map(|(_, body)| body.trim()).filter(|_| answer.starts_with("HTTP/1.1 200"));
    body.and_then(|pid| pid.parse().ok()).ok_or_else(|| std::io::Error::other(answer.clone()))
}

fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    for name in ["GITHUB_TOKEN", "GH_TOKEN", "JOURNAL_STREAM", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MAINPID"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn web() -> Vec<u8> {
    static WEB: OnceLock<Vec<u8>> = OnceLock::new();
    WEB.get_or_init(|| stripped(Path::new(env!("CARGO_BIN_EXE_handover")))).clone()
}

/// Without what debuggers need, which is most of it and is hashed and synced again and again.
pub(crate) fn stripped(program: &Path) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("stripped");
    let done = Command::new("strip").arg("-o").arg(&to).arg(program).status();
    fs::read(if done.is_ok_and(|status| status.success()) { &to } else { program }).unwrap()
}

/// Another version of it.
fn version(version: &str) -> Vec<u8> {
    [web(), version.as_bytes().to_vec()].concat()
}

fn bad_ones_and_good_ones() {
    let mut web = Web::start(&[]);
    let signer = Signer::new();
    let key = signer.line();
    let good = version("1");
    let from = web.put("new", &good);
    let signed = |bytes: &[u8]| web.put("new.minisig", &signer.sign(bytes));
    let arguments = ["--from", &from, "--key", &key];
    let untouched = || {
        let pid = web.runs(&self::web());
        assert_eq!(pid, web.first, "nobody was asked");
    };
    signed(b"something else");
    web.ends(&arguments, 1, "not of this file");
    untouched();
    let wrong = "0".repeat(64);
    signed(&good);
    web.ends(&["--from", &from, "--key", &key, "--sha256", &wrong], 1, "its SHA-256 is");
    for (bytes, why) in [(&good[..good.len() / 2], "cut off"), (b"#!/bin/sh\n", "script"), (b"\x7fELF", "")] {
        web.put("new", bytes);
        signed(bytes);
        web.ends(&arguments, 1, why);
    }
    let mut foreign = good.clone();
    foreign[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    web.put("new", &foreign);
    signed(&foreign);
    web.ends(&arguments, 1, "another architecture");
    untouched();
    // Good as a file, bad as this service: it exits.
    let exits = [fs::read("/bin/false").unwrap(), b"!".to_vec()].concat();
    web.put("new", &exits);
    signed(&exits);
    web.ends(&["--from", &from, "--key", &key, "--check", "{}"], 1, "the check `{}` fails");
    untouched();
    web.ends(&arguments, 1, "exited with status 1");
    untouched();
    web.ends(&arguments, 1, "known to be bad: reload failed: generation 2 exited with status 1");
    web.ends(&[&arguments[..], &["--retry"]].concat(), 1, "exited with status 1");
    untouched();
    web.put("new", &good);
    signed(&good);
    web.ends(&[&arguments[..], &["--dry-run"]].concat(), 0, "would be installed");
    untouched();
    let output = web.ends(&[&arguments[..], &["--check", "{} --version", "--json"]].concat(), 0, "");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    handover_testing::schema::holds("upgrade", &done);
    assert_eq!(done["reload"]["outcome"], "handed_over");
    assert_eq!(
        (&done["outcome"], &done["program"]),
        (&"upgraded".into(), &web.path("web").display().to_string().into())
    );
    let second = web.runs(&good);
    assert_ne!(second, web.first);
    web.ends(&arguments, 0, "is up to date");
    web.ends(&["--back"], 0, "and the service runs it");
    let third = web.runs(&self::web());
    assert_ne!(third, second);
    web.ends(&arguments, 1, "taken back by hand");
    web.load.lost_nothing();
}

fn it_hangs() {
    let mut web = Web::start(&[]);
    let hangs = web.put("new", b"#!/bin/sh\nexec sleep 1000\n");
    web.ends(&["--from", &hangs, "--no-signature", "--any-format"], 1, "was not ready within 12s");
    assert_eq!(web.runs(&self::web()), web.first);
    let good = web.put("new", &version("1"));
    web.ends(&["--from", &good, "--no-signature"], 0, "the service runs it");
    web.runs(&version("1"));
    web.load.lost_nothing();
}

fn it_dies_in_probation() {
    let mut web = Web::start(&["--probation", "20s"]);
    let from = web.put("new", &version("1"));
    let upgrading = spawn(&mut web.command(&["--from", &from, "--no-signature"]));
    let next = until("the next generation to answer", || Some(web.pid()).filter(|pid| *pid != web.first));
    // What it has accepted dies with it: no promise covers that. So the clients stop first.
    web.load.lost_nothing();
    assert!(fs::read(web.path("web")).unwrap() == version("1"), "until the outcome is known");
    processes::signal(next, Signal::SIGKILL);
    let output = upgrading.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(web.runs(&self::web()), web.first);
    web.ends(&["--from", &from, "--no-signature"], 1, "known to be bad");
}

fn interrupted_while_it_reloads() {
    let mut web = Web::start(&[]);
    let hangs = web.put("new", b"#!/bin/sh\nexec sleep 1000\n");
    let upgrading = spawn(&mut web.command(&["--from", &hangs, "--no-signature", "--any-format"]));
    until("the install", || fs::read(web.path("web")).unwrap().starts_with(b"#!").then_some(()));
    let busy = web.ends(&["--from", &hangs, "--no-signature", "--any-format"], 3, "another upgrade");
    assert!(String::from_utf8_lossy(&busy.stderr).contains(&upgrading.id().to_string()), "{busy:?}");
    processes::signal(upgrading.id(), Signal::SIGTERM);
    let output = upgrading.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(web.runs(&self::web()), web.first, "and the outcome was waited for");
    web.ends(&["--from", &hangs, "--no-signature", "--any-format"], 1, "known to be bad");
    web.load.lost_nothing();
}

fn nobody_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web");
    let (old, new) = (crate::parts::program("old"), crate::parts::program("new"));
    executable(&path, &old);
    fs::write(directory.path().join("new"), &new).unwrap();
    let run = |more: &[&str]| {
        let mut command = tool();
        command.args(["upgrade", "--socket"]).arg(directory.path().join("none.sock"));
        command
            .arg("--program")
            .arg(&path)
            .arg("--from")
            .arg(directory.path().join("new"))
            .arg("--no-signature")
            .args(more);
        command.output().unwrap()
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read(&path).unwrap(), old);
    let output = run(&["--no-reload"]);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("nobody was told"),
        "{output:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), new);
}

/// The tool itself, from a storage and a release, with what it needs in variables and nowhere else.
fn secrets_of_the_environment() {
    let (place, signer) = (Place::new(), Signer::new());
    let storage = s3::storage(&s3::put(&place, &signer, "1"));
    let api = Server::tls(&place.path("ca.pem"));
    github::release(&api, "latest", "\"a\"", "v2", &github::files(&signer, "2"), false);
    let run = |from: &str, more: &[&str], variables: &[(&str, &str)]| {
        let mut command = tool();
        command.args([
            "upgrade",
            "--no-reload",
            "--socket",
            "/none",
            "--from",
            from,
            "--key",
            &signer.line(),
            "--program",
        ]);
        let output = command.arg(&place.program).args(more).envs(variables.iter().copied()).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("hush"), "{text}");
        (output.status.code(), text)
    };
    let endpoint = format!("http://{}", storage.address);
    let from_s3 = |secret: &str| {
        let variables =
            [("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_ENDPOINT_URL_S3", &endpoint)];
        run("s3://releases/web/stable/web", &[], &variables)
    };
    let (code, text) = from_s3("hush-hush");
    assert!(code == Some(3) && text.contains("403"), "{text}");
    let (code, text) = from_s3("hush");
    assert!(code == Some(0), "{text}");
    place.is("1");
    let (ca, url) = (place.path("ca.pem").display().to_string(), api.url(""));
    let more = ["--asset", "web-*-x86_64", "--github-api", &url, "--ca-file", &ca, "--sha256-in"];
    let (code, text) = run("github:acme/web", &more, &[("GITHUB_TOKEN", "hush")]);
    assert!(code == Some(0) && text.contains("it is verified"), "{text}");
    place.is("2");
    assert_eq!(api.asked()[0].headers["authorization"], "Bearer hush");
    let (code, text) = run(&api.url("/none"), &["--ca-file", &ca], &[("HANDOVER_AUTHORIZATION", "Bearer hush")]);
    assert!(code == Some(3) && text.contains("404"), "{text}");
    assert_eq!(api.asked()[0].headers["authorization"], "Bearer hush");
}

fn what_the_command_line_says() {
    let run = |arguments: &str| tool().arg("upgrade").args(arguments.split(' ')).output().unwrap();
    for (arguments, why) in [
        ("web --from new", "--key"),
        ("web --program /x --from http://127.0.0.1:1/web --no-signature", "neither signed nor encrypted"),
        ("web --program /x --from github:a/b --no-signature", "--asset"),
        ("web --program /x --from new --key nonsense", "no public key"),
        ("web --program /x --from https://x/ --no-signature", "names no file"),
        ("web --program /x --from new --no-signature --sha256 12", "no SHA-256"),
    ] {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(why), "{arguments}: {} {text}", output.status);
    }
    assert_eq!(run("web --program /none/x --from new --no-signature").status.code(), Some(3));
    let help = run("--help");
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("minisign -S -m web"));
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}
