//! Clients that nobody here wrote, where the machine has them.

use super::{Secured, request, start};
use handover_testing::processes::{End, end_of, end_within, signal};
use nix::sys::signal::Signal;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// `None`: this machine does not have it.
fn spawn(command: &mut Command) -> Option<Child> {
    match command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

pub(super) fn curl_keeps_its_connection() {
    const REQUESTS: usize = 25;
    /// Several of its requests.
    const BETWEEN: Duration = Duration::from_millis(300);
    for version in ["1.2", "1.3"] {
        let (world, _, address) = start(&Secured::new());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--insecure", "--http1.1", "--noproxy", "*", "--max-time", "60"]);
        curl.args([format!("--tlsv{version}"), "--tls-max".into(), version.into(), "--rate".into(), "10/s".into()]);
        curl.args(["--write-out", " %{num_connects} %{http_version}\n"]);
        curl.arg(format!("https://{address}/n/[1-{REQUESTS}]"));
        let Some(curl) = spawn(&mut curl) else { return };
        let mut reloads = 0;
        while end_within(curl.id(), BETWEEN).is_none() {
            reloads += 1;
            world.reload_to(reloads + 1);
        }
        let ended = end_of(curl.id());
        let errors = io::read_to_string(curl.stderr.unwrap()).unwrap();
        assert_eq!((ended, errors.as_str()), (End::Exited(0), ""));
        let said = io::read_to_string(curl.stdout.unwrap()).unwrap();
        let expected: String = (1..=REQUESTS).map(|id| format!("{id} {} 1.1\n", u8::from(id == 1))).collect();
        assert_eq!(said, expected, "one connection");
        println!("curl with TLS {version}: {REQUESTS} requests on 1 connection, {reloads} reloads");
        assert!(reloads >= 3);
        world.stop();
    }
}

/// Its commands: `K` changes its key and wants ours changed, `k` changes its own.
pub(super) fn openssl_keeps_its_connection_over_key_updates() {
    const COMMANDS: [&str; 6] = ["K", "k", "k", "K", "K", "k"];
    for (version, commands) in [("-tls1_3", COMMANDS), ("-tls1_2", [""; 6])] {
        let mut openssl = Command::new("openssl");
        let (world, _, address) = start(&Secured::new());
        openssl.args(["s_client", "-connect", &address.to_string(), version, "-crlf", "-servername", "localhost"]);
        let Some(mut openssl) = spawn(&mut openssl) else { return };
        let mut to = openssl.stdin.take().unwrap();
        let mut out = BufReader::new(openssl.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut err = BufReader::new(openssl.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut ask = |command: &str, id: u64| {
            if !command.is_empty() {
                to.write_all(format!("{command}\n").as_bytes()).unwrap();
                assert!(err.any(|line| line == "KEYUPDATE"), "closed before {command}");
            }
            // its reply has no end of line, and that of the next one tells where it is over
            let both = [request(&format!("/n/{id}")), request("/n/-")].concat().replace('\r', "");
            to.write_all(both.as_bytes()).unwrap();
            let wanted = format!("{id}HTTP/1.1 200 OK");
            assert!(out.any(|line| line.ends_with(&wanted)), "closed before {id}");
        };
        ask("", 1);
        for (generation, command) in (2..).zip(commands) {
            world.reload_to(generation);
            ask(command, generation);
            ask(command, generation + 100);
        }
        let updates = commands.concat().len() * 2;
        println!("openssl s_client {version}: 1 connection, {} reloads, {updates} key updates", commands.len());
        signal(openssl.id(), Signal::SIGKILL);
        world.stop();
    }
}
