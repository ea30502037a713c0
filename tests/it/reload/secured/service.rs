//! What a generation does with the socket "tls".

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Extension as Given, Path as Part};
use axum::response::Response;
use axum::routing::{any, get, post};
use handover::Service;
use handover::http::{ConnectionInfo, HttpOptions};
use handover::tls::{MovedClients, Tls, TlsOptions};
use handover_testing::certs::{self, Pair};
use handover_testing::service::Extension;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::LARGE;

/// What a generation does with the socket "tls".
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Secured {
    pub(crate) chain: String,
    pub(crate) key: String,
    /// The certificates of clients that are trusted, in PEM; none are asked for if this is empty.
    pub(crate) trusted: String,
    /// Who shows none is let in, too.
    pub(crate) optional: bool,
    pub(crate) moved: Option<String>,
    pub(crate) most: Option<usize>,
    pub(crate) plain: bool,
    /// A file for the names of secrets that a log of keys has heard of.
    pub(crate) logs: Option<String>,
}

impl Secured {
    pub(crate) fn new() -> Self {
        let Pair { chain, key, .. } = certs::pair();
        Self { chain, key, ..Self::default() }
    }
}

pub(crate) const EXTENSION: Extension = Extension { builder, started };

pub(crate) fn extra(secured: &Secured) -> serde_json::Value {
    serde_json::json!({ "secured": secured })
}

fn secured(extra: &serde_json::Value) -> Option<Secured> {
    extra.get("secured").map(|secured| serde_json::from_value(secured.clone()).unwrap())
}

fn builder(builder: handover::Builder, _: &Path, extra: &serde_json::Value) -> handover::Builder {
    if secured(extra).is_some() { builder.socket("tls") } else { builder }
}

fn started(service: &Service, extra: &serde_json::Value) -> handover::Result<()> {
    let Some(secured) = secured(extra) else { return Ok(()) };
    let options = secured.most.into_iter().fold(HttpOptions::new(), HttpOptions::max_connections);
    let router = Router::new()
        .route("/n/{id}", get(async |Part(id): Part<String>| id))
        .route("/large", get(async || vec![b'x'; LARGE]))
        .route("/up", post(async |body: axum::body::Bytes| body.len().to_string()))
        .route("/tls", get(info))
        .route("/socket", any(socket))
        .layer(Given(service.generation()))
        .layer(axum::extract::DefaultBodyLimit::disable());
    if secured.plain {
        return service.serve_http_with("tls", options, router);
    }
    service.serve_https_with("tls", &tls(&secured), options, router)
}

fn tls(secured: &Secured) -> Tls {
    let mut options = TlsOptions::new();
    if !secured.trusted.is_empty() {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(secured.trusted.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if secured.optional { verifier.allow_unauthenticated() } else { verifier };
        options = options.client_verifier(verifier.build().unwrap());
    }
    options = match secured.moved.as_deref() {
        Some("take") => options.moved_clients(MovedClients::Take),
        Some("leave") => options.moved_clients(MovedClients::Leave),
        _ => options,
    };
    if let Some(path) = secured.logs.clone() {
        options = options.configure(move |config| config.key_log = Arc::new(Log(path.clone())));
    }
    Tls::from_pem_with(&secured.chain, &secured.key, options).unwrap()
}

#[derive(Debug)]
struct Log(String);

impl tokio_rustls::rustls::KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], _: &[u8]) {
        let mut file = std::fs::File::options().create(true).append(true).open(&self.0).unwrap();
        file.write_all(format!("{label}\n").as_bytes()).unwrap();
    }
}

async fn info(Given(info): Given<ConnectionInfo>) -> String {
    let tls = info.tls().unwrap();
    let certificates: Vec<_> = tls.client_certificates().iter().map(|certificate| certificate.len()).collect();
    let protocol = tls.protocol().map(|protocol| protocol.escape_ascii().to_string());
    format!("{:?} {protocol:?} {:?} {} {certificates:?}", tls.server_name(), tls.version(), tls.is_resumed())
}

/// Answers each message with its number and its length.
async fn socket(upgrade: WebSocketUpgrade, Given(info): Given<ConnectionInfo>) -> Response {
    upgrade.max_message_size(1 << 20).on_upgrade(async move |mut socket| {
        let mut count: u64 = info.inherited().and_then(|state| state.state().ok()).unwrap_or(0);
        loop {
            let length = tokio::select! {
                Some(pass) = info.ready_to_move() => return pass.give(&count).unwrap(),
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => text.len(),
                    Some(Ok(_)) => continue,
                    _ => return,
                },
            };
            count += 1;
            if socket.send(Message::text(format!("{count} {length}"))).await.is_err() {
                return;
            }
        }
    })
}
