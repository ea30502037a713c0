//! Good servers: nothing is lost, in whatever way they are spoken to.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::routing::{any, get, post};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use super::tool::{kind, number, report};
use super::web::Web;

const QUIET: [&str; 6] = ["--reloads", "0", "--every", "200ms", "--duration", "1s"];

async fn hyper<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let service = service_fn(async |_| Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from("hello\n")))));
    // It ends with an error when the client does not say goodbye.
    drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_hyper_that_is_never_reloaded_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            tokio::spawn(hyper(listener.accept().await.unwrap().0));
        }
    });
    let one =
        ["--keep-alive", "20", "--fresh", "2", "--pipelined", "2", "--late", "2", "--half-head", "2", "--idle", "50"];
    let two = ["--http2", "--keep-alive", "20", "--fresh", "2", "--late", "2", "--idle", "50"];
    for clients in [&one[..], &two] {
        let report = report(&url, &[&QUIET[..], clients].concat()).await;
        assert_eq!(report["verdict"], "nothing_lost", "{}", report["losses"]);
        let total = &report["total"];
        assert_eq!(
            (number(&total["sent"]), number(&total["closes_unannounced"])),
            (number(&total["answered"]), 0),
            "{total}"
        );
        assert!(
            number(&kind(&report, "keep-alive")["answered"]) >= 20 && number(&kind(&report, "prober")["answered"]) > 0
        );
        assert!(report["prober"]["resolution_ms"]["p50"].as_f64() > Some(0.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_and_tls() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        loop {
            tokio::spawn(hyper(listener.accept().await.unwrap().0));
        }
    });
    let unix = format!("unix:{}", path.display());

    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).unwrap();
    let private = tokio_rustls::rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, acceptor) = (listener.accept().await.unwrap().0, acceptor.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    hyper(stream).await;
                }
            });
        }
    });
    let (by_name, by_number) = (format!("https://localhost:{port}/"), format!("https://127.0.0.1:{port}/"));
    let ca = ca.to_str().unwrap();
    for (url, arguments, protocol) in [
        (&unix, &[][..], "HTTP/1.1"),
        (&unix, &["--http2"], "HTTP/2"),
        (&by_name, &["--cacert", ca], "HTTP/1.1 over TLS"),
        (&by_number, &["--insecure", "--http2"], "HTTP/2 over TLS"),
    ] {
        let clients = ["--keep-alive", "5", "--fresh", "1"];
        let report = report(url, &[&QUIET[..], &clients, arguments].concat()).await;
        assert_eq!(report["verdict"], "nothing_lost", "{url} {}", report["losses"]);
        assert_eq!(report["target"]["protocol"], protocol);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_echo_and_one_that_does_not_is_caught() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // Every tenth message on a connection ends it, without an echo and without a close frame.
    let socket = |drops: bool| {
        async move |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async move |mut socket| {
                for n in 1.. {
                    match socket.recv().await {
                        Some(Ok(Message::Text(_))) if drops && n == 10 => return,
                        Some(Ok(Message::Text(text))) => drop(socket.send(Message::Text(text)).await),
                        Some(Ok(_)) => {}
                        _ => return,
                    }
                }
            })
        }
    };
    let router = Router::new()
        .route("/", get(async || "hello\n"))
        .route("/upload", post(async |body: Bytes| body))
        .route("/ws", any(socket(false)))
        .route("/drops", any(socket(true)));
    let router = router.into_make_service();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let clients = ["--websocket", "3", "--upload", "1", "--cadence", "2ms"];
    let good = report(&url, &[&QUIET[..], &clients].concat()).await;
    assert_eq!(good["verdict"], "nothing_lost", "{}", good["losses"]);
    assert!(number(&kind(&good, "websocket")["answered"]) > 10 && number(&kind(&good, "upload")["answered"]) > 0);
    assert_eq!(number(&good["total"]["closed"]), 0, "{}", good["total"]);
    let bad = report(&url, &[&QUIET[..], &clients, &["--websocket-path", "/drops"]].concat()).await;
    assert_eq!(bad["verdict"], "lost");
    let sockets = kind(&bad, "websocket");
    let lost = number(&sockets["lost"]);
    assert_eq!(lost, number(&sockets["lost_by"]["eof"]) + number(&sockets["lost_by"]["reset"]), "{sockets}");
    assert_eq!((number(&sockets["closed"]), number(&sockets["closed_unannounced"])), (lost, lost), "{sockets}");
    assert!(
        lost > 0 && lost == number(&bad["total"]["lost"]) && lost <= number(&sockets["answered"]) / 9 + 1,
        "{sockets}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_example_is_reloaded_and_loses_nothing() {
    let web = Web::start(&[]).await;
    let pid = web.pid().to_string();
    let reload = ["--signal", "HUP", "--pid", &pid, "--reloads", "2", "--every", "1500ms"];
    let clients = ["--keep-alive", "20", "--fresh", "2", "--slow", "2", "--upload", "1", "--download", "1"];
    let nasty = ["--pipelined", "2", "--late", "2", "--half-head", "2", "--idle", "100"];
    let report = report(&web.url, &[&reload[..], &clients, &nasty].concat()).await;
    assert_eq!(report["verdict"], "nothing_lost", "{} {}", report["losses"], report["problems"]);
    assert_eq!(report["generation_told_by"], "process");
    let reloads = report["reloads"].as_array().unwrap();
    assert_eq!(reloads[0]["old"], pid);
    assert_eq!(reloads[0]["new"], reloads[1]["old"]);
    assert_ne!(reloads[0]["new"], reloads[1]["new"]);
    for reload in reloads {
        assert!(reload["first_new_ms"].as_f64() > Some(0.0), "{reload}");
        let usage = &reload["usage"];
        assert!(number(&usage["peak"]["processes"]) >= 2 && number(&usage["new"]["rss"]) > 0, "{usage}");
    }
    for what in ["closed", "closed_unannounced", "opened_anew"] {
        assert_eq!(number(&report["total"][what]), 0, "{what}: {}", report["total"]);
    }
}
