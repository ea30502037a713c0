//! Clients that nobody here wrote: curl, each Debian's own, and this machine's openssl.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::{Service, certs, soak};
use crate::lab::{Container, Outcome, Output};

/// Two reloads a second, for so long.
const LONG: Duration = Duration::from_secs(4);
const LEAST: u32 = 4;
const BETWEEN: Duration = Duration::from_millis(500);
/// What curl is told, and the version of HTTP that it says it spoke.
const CURLS: [(&str, &str); 3] =
    [("--http2 --tlsv1.3", "2"), ("--http2 --tls-max 1.2", "2"), ("--http1.1 --tlsv1.3", "1.1")];
/// What each curl asks for.
const REQUESTS: u32 = 12;
/// What openssl is told.
const OPENSSLS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// curl keeps its connections for ten requests a second. They move: over HTTP/1, curl needs one for
/// all its requests; over HTTP/2 it may be sent away, by GOAWAY. openssl comes back with its ticket
/// each time, and says whether that was taken, and whether the end was TLS's.
pub(super) fn through_reloads(lab: &Container) -> Outcome {
    let service = &Service::start(lab, &certs::pair(), "10s")?;
    let (long, dir) = (soak().unwrap_or(LONG), lab.host_dir());
    let limit = long * 2 + Duration::from_secs(60);
    fs::copy(service.files().join("v/cert.pem"), dir.join("ca.pem"))?;
    fs::write(dir.join("request"), "GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;

    let mut reloads = 0_u32;
    let (curls, opensslen) = thread::scope(|scope| -> Outcome<_> {
        let curls = CURLS.map(|(args, _)| scope.spawn(move || lab.sh_within(limit, &curl(service, args))));
        let opensslen = OPENSSLS.map(|args| scope.spawn(move || lab.sh_beside(limit, &openssl(service, args))));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| -> Outcome {
            let begun = Instant::now();
            while begun.elapsed() < long || reloads < LEAST {
                let next = Instant::now() + BETWEEN;
                service.reload()?;
                service.until_few_drain()?;
                reloads += 1;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(())
        }));
        fs::write(dir.join("stop"), "")?;
        let said = (curls.map(join), opensslen.map(join));
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic)).map(|()| said)
    })?;

    let mut pids = BTreeSet::new();
    for ((args, version), said) in CURLS.into_iter().zip(curls) {
        let Output { stdout, stderr, .. } = said?;
        assert!(stderr.is_empty(), "curl {args}: {stderr}");
        let (mut requests, mut connections) = (0, 0);
        let lines: Vec<_> = stdout.lines().collect();
        for lines in lines.chunks(2) {
            let said = lines.join(" ");
            let [pid, http, connects] = said.split(' ').collect::<Vec<_>>()[..] else {
                return Err(format!("curl {args} said {said:?}").into());
            };
            assert_eq!(http, version, "curl {args}");
            requests += 1;
            connections += connects.parse::<u32>()?;
            pids.insert(pid.to_owned());
        }
        println!("curl {args}: {requests} requests on {connections} connections, none failed");
        assert!(requests >= 12 && connections >= 1, "curl {args}: {requests} requests, {connections} connections");
        if version == "1.1" {
            assert_eq!(connections, requests / REQUESTS, "curl {args}: it has lost a connection");
        }
    }
    for (args, said) in OPENSSLS.into_iter().zip(opensslen) {
        let Output { stdout, stderr, .. } = said?;
        let wrong = ["errno", "eof while", "ended with", "not found"];
        let wrong = stderr.lines().chain(stdout.lines()).find(|line| wrong.iter().any(|wrong| line.contains(wrong)));
        assert_eq!(wrong, None, "openssl {args}");
        let count = |start: &str| stdout.lines().filter(|line| line.starts_with(start)).count();
        let (answered, new, reused) = (count("HTTP/1.1 200 OK"), count("New, "), count("Reused, "));
        println!(
            "openssl {args}: {answered} connections, {reused} sessions of them resumed, each ended by close_notify"
        );
        assert_eq!((new, reused), (1, answered - 1), "openssl {args}");
        assert!(answered >= 5, "openssl {args}: {answered}");
        pids.extend(stdout.lines().filter(|line| line.parse::<u32>().is_ok()).map(str::to_owned));
    }
    println!("{reloads} reloads in {long:?}, {} generations answered", pids.len());
    assert!(pids.len() >= 3, "{reloads} reloads, {} generations", pids.len());
    Ok(())
}

fn join(client: ScopedJoinHandle<'_, Outcome<Output>>) -> Outcome<Output> {
    client.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Prints for each request the answer, which is the pid; then the version of HTTP, and how many
/// connections had to be made.
fn curl(service: &Service<'_>, args: &str) -> String {
    let (port, dir) = (service.address.port(), service.lab.dir().display());
    format!(
        "while [ ! -e {dir}/stop ]; do \
         curl -q --silent --show-error --fail --max-time 20 --noproxy '*' --rate 10/s {args} --cacert {dir}/ca.pem \
         --resolve localhost:{port}:127.0.0.1 --write-out '%{{http_version}} %{{num_connects}}\\n' \
         'https://localhost:{port}/pid?[1-{REQUESTS}]' || echo \"curl ended with $?\" >&2; done"
    )
}

/// Prints what openssl tells of each connection, and the answers.
fn openssl(service: &Service<'_>, args: &str) -> String {
    let (address, dir) = (service.address, service.lab.host_dir());
    format!(
        "cd {dir}; while [ ! -e stop ]; do [ ! -e session{args} ] || resume='-sess_in session{args}'; \
         timeout 20 openssl s_client -connect {address} -servername localhost -CAfile ca.pem -verify_return_error \
         -ign_eof {args} $resume -sess_out session{args} <request || echo \"openssl ended with $?\" >&2; \
         sleep 0.05; done",
        dir = dir.display()
    )
}
