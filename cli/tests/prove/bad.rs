//! Bad servers: each is caught, and named with the count that it has itself.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::server::{Act, Server};
use super::tool::{kind, lost_only, number, prove, report};

const LOAD: [&str; 8] = ["--reloads", "0", "--every", "200ms", "--duration", "1500ms", "--cadence", "1ms-3ms"];

/// Does that to one request in so many, and must be found to have done it just as often.
async fn one_in(every: u64, act: Act, cause: &str, arguments: &[&str]) -> serde_json::Value {
    // Not to the first: that one tells whether the server can be measured at all.
    let server = Server::start(move |n, _| if n % every == every / 2 { act } else { Act::Answer }).await;
    let report = report(&server.url, &[&LOAD[..], arguments].concat()).await;
    assert_eq!(report["verdict"], "lost", "{report}");
    assert_eq!(lost_only(&report, cause), server.acts(), "{}", report["losses"]);
    assert!(server.acts() > 0);
    let example = report["losses"].as_array().unwrap().iter().find(|row| row["cause"] == cause).unwrap();
    assert!(number(&example["count"]) > 0 && example["example"].is_string());
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn drops_one_in_10000() {
    // In the middle of each 10,000, and at the 500th, so that a slow machine comes that far.
    let server = Server::start(|n, _| if n % 10_000 == 500 { Act::Close } else { Act::Answer }).await;
    let report = report(&server.url, &[&LOAD[..], &["--keep-alive", "50"]].concat()).await;
    assert_eq!(lost_only(&report, "eof"), server.acts(), "{}", report["losses"]);
    assert!(server.acts() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_instead_of_answering() {
    one_in(50, Act::Close, "eof", &["--keep-alive", "5", "--fresh", "2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_instead_of_answering() {
    one_in(50, Act::Reset, "reset", &["--keep-alive", "5", "--fresh", "2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncates() {
    one_in(50, Act::Truncate, "truncated", &["--keep-alive", "5", "--fresh", "2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_twice() {
    one_in(50, Act::AnswerTwice, "unasked", &["--keep-alive", "5", "--fresh", "2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_wrongly() {
    one_in(50, Act::WrongBody, "wrong_body", &["--keep-alive", "5", "--fresh", "2"]).await;
    let expected = ["--keep-alive", "5", "--expect-body", "h{}llo"];
    let server = Server::start(|n, _| if n == 20 { Act::WrongBody } else { Act::Answer }).await;
    assert_eq!(report(&server.url, &[&LOAD[..], &expected].concat()).await["verdict"], "nothing_lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn never_answers() {
    one_in(200, Act::Silence, "timeout", &["--keep-alive", "5", "--timeout", "1s"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_pipelined_requests() {
    // The first of four is answered; three are lost with it.
    let server = Server::start(|n, here| if n > 1 && here == 6 { Act::Close } else { Act::Answer }).await;
    let report = report(&server.url, &[&LOAD[..], &["--pipelined", "1"]].concat()).await;
    let lost = number(&kind(&report, "pipelined")["lost"]);
    assert_eq!(lost, server.acts() * 3, "{}", report["losses"]);
    assert!(lost > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_announced_is_no_loss() {
    let server = Server::start(|_, here| if here == 6 { Act::AnswerLast } else { Act::Answer }).await;
    let report = report(&server.url, &[&LOAD[..], &["--pipelined", "1", "--keep-alive", "2"]].concat()).await;
    assert_eq!(report["verdict"], "nothing_lost", "{}", report["losses"]);
    let pipelined = kind(&report, "pipelined");
    assert_eq!(number(&pipelined["handed_back"]), number(&pipelined["closes_announced"]) * 2, "{pipelined}");
    assert_eq!(number(&report["total"]["closes_announced"]), server.acts());
    assert_eq!(number(&report["total"]["closes_unannounced"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_of_idle_connections_are_shown_and_no_loss() {
    for act in [Act::AnswerAndClose, Act::AnswerAndReset] {
        let server = Server::start(move |n, _| if n % 10 == 0 { act } else { Act::Answer }).await;
        let report = report(&server.url, &[&LOAD[..], &["--idle", "50"]].concat()).await;
        assert_eq!(report["verdict"], "nothing_lost", "{act:?} {}", report["losses"]);
        assert!(number(&kind(&report, "idle")["closes_unannounced"]) > 0, "{act:?} {}", report["kinds"]);
        assert_eq!(number(&report["total"]["closes_announced"]), 0);
    }
}

/// Listens anew 5 ms after it has ceased to, whenever it is told to reload.
#[tokio::test(flavor = "multi_thread")]
async fn refuses_for_5_ms() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("reload");
    nix::unistd::mkfifo(&control, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut told = tokio::net::unix::pipe::OpenOptions::new().read_write(true).open_receiver(&control).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut listener, mut generation) = (listener, 1);
        loop {
            tokio::select! {
                accepted = listener.accept() => drop(tokio::spawn(generations(accepted.unwrap().0, generation))),
                read = told.read_u8() => {
                    read.unwrap();
                    drop(listener);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    listener = TcpListener::bind(address).await.unwrap();
                    generation += 1;
                }
            }
        }
    });
    let reload = format!("printf x > {}", control.display());
    let arguments =
        ["--reload", &reload, "--reloads", "3", "--every", "400ms", "--fresh", "4", "--fresh-cadence", "1ms"];
    let report =
        report(&format!("http://{address}/"), &[&arguments[..], &["--generation-header", "X-Generation"]].concat())
            .await;
    let lost = &report["total"]["lost_by"];
    assert!(number(&lost["refused"]) >= 3, "{lost}");
    // Those in the backlog when it closed are reset.
    let named = number(&lost["refused"]) + number(&lost["reset"]) + number(&lost["eof"]);
    assert_eq!(named, number(&report["total"]["lost"]), "{lost}");
    assert_eq!(report["generation_told_by"], "header");
    let reloads = report["reloads"].as_array().unwrap();
    assert_eq!(reloads.iter().map(|r| number(&r["lost"])).sum::<u64>(), named, "{reloads:?}");
    for (n, reload) in reloads.iter().enumerate() {
        assert_eq!((&reload["old"], &reload["new"]), (&(n + 1).to_string().into(), &(n + 2).to_string().into()));
        assert!(number(&reload["lost"]) > 0, "{reload}");
        assert!(reload["longest_gap_ms"].as_f64() >= Some(4.0), "{reload}");
        assert!(reload["first_new_ms"].as_f64() >= Some(4.0), "{reload}");
    }
}

async fn generations(mut stream: tokio::net::TcpStream, generation: u32) {
    let mut seen = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut seen).await {
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            let answer = format!("HTTP/1.1 200 OK\r\nx-generation: {generation}\r\ncontent-length: 2\r\n\r\nok");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_measured_is_no_success() {
    let server = Server::start(|_, _| Act::Answer).await;
    let url = server.url.as_str();
    let closed = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let closed = format!("http://{closed}/");
    for (url, arguments, says) in [
        (url, &["--reloads", "1"][..], "--unit"),
        ("http://192.0.2.1/", &["--reloads", "0"], "--i-own-this-host"),
        ("ftp://127.0.0.1/", &["--reloads", "0"], "http://"),
        ("https://127.0.0.1:1/", &["--reloads", "0"], "--cacert"),
        (&closed, &["--reloads", "0"], "refused"),
        (url, &["--reloads", "0", "--keep-alive", "4000000000"], "ulimit -n 4000000200"),
        (url, &["--http2", "--reloads", "0", "--half-head", "1"], "half-head"),
        (url, &["--signal", "NONE", "--pid", "1"], "signal"),
        (url, &["--reload", "echo not today >&2; exit 3", "--reloads", "1", "--every", "100ms"], "not today"),
        (
            url,
            &["--reload", "true", "--reloads", "1", "--every", "100ms", "--reload-timeout", "300ms"],
            "no new process",
        ),
    ] {
        let run = prove(url, arguments).await;
        assert_eq!(run.code, Some(2), "{arguments:?} {run:?}");
        assert!(run.stderr.contains(says), "{says}: {run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_from_a_server_reaches_the_terminal() {
    let mut evil = String::new();
    for c in ['\u{1b}', '\u{9b}', '\u{7}', '\u{202e}'] {
        let _ = write!(evil, "{c}[31m<script>");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let status = if n % 3 == 0 { "200 OK" } else { "500 No" };
            let (evil, length) = (evil.clone(), evil.len());
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let head =
                    format!("HTTP/1.1 {status}\r\nx-g: {n} \u{202e}<script>\r\ncontent-length: {length}\r\n\r\n");
                drop(stream.write_all((head + &evil).as_bytes()).await);
            });
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("report.html");
    let arguments = ["--any-body", "--fresh", "2", "--generation-header", "X-G", "--html", html.to_str().unwrap()];
    let run = prove(&url, &[&LOAD[..], &arguments].concat()).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    }
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg") && !page.contains("<script>") && !page.contains('\u{1b}'), "{page}");
}
