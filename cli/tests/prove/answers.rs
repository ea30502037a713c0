//! Who answers is known, or it is said at once what would help.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::server::{Act, Server};
use super::tool::{number, prove, report};
use super::web::Web;

const CLIENTS: [&str; 4] = ["--keep-alive", "4", "--fresh", "1"];

/// The next version has another path, so only its supervisor tells that it is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_of_handover_run_is_found_by_its_supervisor() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    for version in ["1", "2", "3"] {
        std::fs::copy(env!("CARGO_BIN_EXE_handover"), path(version)).unwrap();
    }
    symlink(path("1"), path("current")).unwrap();
    let (control, program) = (path("control"), path("current"));
    let tool = env!("CARGO_BIN_EXE_handover");
    let web = Web::run(tool, &["run", "--control", &control, "--", &program, "web"], "--socket").await;
    let next = format!("cd {}; test $(readlink current) = 2 && n=3 || n=2", directory.path().display());
    let reload = format!("{next}; ln -sfn $n next; mv -T next current; exec {tool} reload --socket {control}");
    let arguments = [&["--reload", &reload, "--reloads", "2", "--every", "1s"], &CLIENTS[..]].concat();
    let report = report(&web.url, &arguments).await;
    assert_eq!(report["generation_told_by"], "process", "{}", report["notes"]);
    assert_eq!(report["verdict"], "nothing_lost", "{} {}", report["losses"], report["problems"]);
    let reloads = report["reloads"].as_array().unwrap();
    assert_eq!(reloads[0]["new"], reloads[1]["old"]);
    assert!(reloads.iter().all(|reload| reload["first_new_ms"].as_f64() > Some(0.0)), "{reloads:?}");
    assert!(number(&reloads[0]["usage"]["peak"]["processes"]) >= 3, "the supervisor is one of them: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_told_apart_from_the_server_behind_it() {
    let web = Web::start(&["--linger", "1s"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let to = web.address.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let to = to.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                drop(copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    let pid = web.pid().to_string();
    let begun = Instant::now();
    let arguments = [&["--signal", "HUP", "--pid", &pid, "--reloads", "1", "--every", "1s"], &CLIENTS[..]].concat();
    let report = report(&url, &arguments).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(report["generation_told_by"], "nothing");
    let note = report["notes"][0].as_str().unwrap();
    assert!(note.contains("a proxy?") && note.contains(&pid) && note.contains("--generation-header"), "{note}");
    assert_eq!(report["verdict"], "nothing_lost", "{} {}", report["losses"], report["problems"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_starts_nobody_is_waited_for_once_and_not_for_long() {
    // Of a program of its own: of the same one, those of other tests would be its siblings.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("alone");
    std::fs::copy(env!("CARGO_BIN_EXE_handover"), &program).unwrap();
    let web = Web::run(program.to_str().unwrap(), &["web"], "--listen").await;
    let begun = Instant::now();
    let arguments = [&["--reload", "true", "--reloads", "3", "--every", "200ms"], &CLIENTS[..]].concat();
    let run = prove(&web.url, &arguments).await;
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    for said in ["reload 1: no new process answered", "no process was started", "--pid", "--generation-header"] {
        assert!(run.stderr.contains(said), "{said}: {run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_tells_who_answers_is_said_before_the_first_reload() {
    let server = Server::start(|_, _| Act::Answer).await;
    let arguments = ["--reload", "true", "--generation-header", "X-None", "--timeout", "1s", "--fresh", "1"];
    let begun = Instant::now();
    let run = prove(&server.url, &arguments).await;
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("nothing in its answers tells who gave them"), "{run:?}");
    assert!(begun.elapsed() < Duration::from_secs(10) && !run.stdout.contains("reload 1"), "{run:?}");
}

/// Back to back there are many more probes.
#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_the_prober_is_a_setting() {
    let server = Server::start(|_, _| Act::Answer).await;
    let load = ["--reloads", "0", "--every", "200ms", "--duration", "1s", "--fresh", "1"];
    let mut medians = Vec::new();
    for every in ["50ms", "0s"] {
        let report = report(&server.url, &[&load[..], &["--probe-every", every]].concat()).await;
        medians.push(report["prober"]["resolution_ms"]["p50"].as_f64().unwrap());
    }
    assert!(medians[0] >= 50.0 && medians[1] < 25.0, "{medians:?}");
}
