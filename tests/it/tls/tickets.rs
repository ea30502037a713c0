//! Sessions that are resumed by another generation than the one that they were made by.

use crate::support::{Client, End, Reply, Server};
use handover::http::HttpOptions;
use handover::state::States;
use handover::systemd::activation::Activation;
use handover::systemd::environment::Environment;
use handover::systemd::fdstore::{FdStore, Names};
use handover::systemd::notify::Notifier;
use handover::tls::{TicketKeys, Tls, TlsOptions};
use handover_testing::certs::{VERSIONS, client, pair};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// One generation: its store has what the previous one's had.
struct Generation {
    tls: Tls,
    server: Server,
    store: FdStore,
}

fn generation(previous: Option<&FdStore>) -> Generation {
    let environment = Environment::from_pairs::<&str, &str>([]);
    let notifier = Notifier::from_env(&environment).unwrap();
    let passed = previous.map(|store| store.entries().unwrap()).unwrap_or_default();
    let mut activation = Activation::from_fds(passed).unwrap();
    let store = FdStore::open(&environment, &notifier, &mut activation, &Names::new()).unwrap();
    let tls = tls(None);
    tls.share_tickets(&States::new(store.clone())).unwrap();
    Generation { server: Server::with(&tls, HttpOptions::new()), tls, store }
}

fn tls(rotation: Option<Duration>) -> Tls {
    let pair = pair();
    let options = match rotation {
        Some(rotation) => TlsOptions::new().ticket_rotation(Some(rotation)),
        None => TlsOptions::new(),
    };
    Tls::from_pem_with(&pair.chain, &pair.key, options).unwrap()
}

/// Whether the session was resumed; the client has new tickets afterwards.
async fn resumes(server: &Server, config: &Arc<ClientConfig>) -> bool {
    let mut client = Client::connect(server.address, config).await;
    client.handshake().await;
    assert_eq!(client.reply_to("/1").await, Reply::ok("/1"));
    client.is_resumed()
}

#[tokio::test]
async fn over_generations_in_both_directions() {
    for version in VERSIONS {
        let config = client(&[version], &[]);
        let first = generation(None);
        assert!(!resumes(&first.server, &config).await);
        assert!(resumes(&first.server, &config).await);
        let second = generation(Some(&first.store));
        for _ in 0..3 {
            assert!(resumes(&second.server, &config).await, "made by the first");
            assert!(resumes(&first.server, &config).await, "made by the second, for example in its probation");
        }
        let third = generation(Some(&second.store));
        assert!(resumes(&third.server, &config).await);
    }
}

#[tokio::test]
async fn with_another_certificate_too() {
    let config = client(&VERSIONS, &[]);
    let Generation { server, tls, .. } = generation(None);
    assert!(!resumes(&server, &config).await);
    let other = pair();
    assert!(tls.replace_pem(&other.chain, &other.key).unwrap());
    assert!(resumes(&server, &config).await);
}

#[tokio::test]
async fn not_without_the_keys() {
    let config = client(&VERSIONS, &[]);
    let (first, stranger) = (generation(None), generation(None));
    assert!(!resumes(&first.server, &config).await);
    assert!(!resumes(&stranger.server, &config).await);
}

#[tokio::test]
async fn by_keys_that_are_passed_by_hand() {
    for version in VERSIONS {
        let config = client(&[version], &[]);
        let (one, other) = (tls(None), tls(None));
        let json = serde_json::to_string(&one.ticket_keys().unwrap()).unwrap();
        let keys: TicketKeys = serde_json::from_str(&json).unwrap();
        other.set_ticket_keys(&keys).unwrap();
        let servers = [Server::with(&one, HttpOptions::new()), Server::with(&other, HttpOptions::new())];
        assert!(!resumes(&servers[0], &config).await);
        for at in [1, 0, 0, 1] {
            assert!(resumes(&servers[at], &config).await);
        }
        assert!(!format!("{keys:?} {one:?}").contains("secret"));
    }
}

/// Real time, because rustls asks the clock: several rotations, and nobody tells anybody.
#[tokio::test]
async fn over_rotations_that_each_does_for_itself() {
    let (one, other) = (tls(Some(Duration::from_secs(2))), tls(Some(Duration::from_secs(2))));
    other.set_ticket_keys(&one.ticket_keys().unwrap()).unwrap();
    let servers = [Server::with(&one, HttpOptions::new()), Server::with(&other, HttpOptions::new())];
    let config = client(&VERSIONS, &[]);
    assert!(!resumes(&servers[0], &config).await);
    // The key that was made ahead comes into use after 2 s in both; one made after that is not
    // shared.
    for at in [1, 0, 1, 0, 1] {
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(resumes(&servers[at], &config).await);
    }
}

#[tokio::test]
async fn keys_given_by_hand_are_those_of_all_generations() {
    let config = client(&VERSIONS, &[]);
    let first = generation(None);
    let second = generation(Some(&first.store));
    assert!(!resumes(&first.server, &config).await);
    let given = tls(None).ticket_keys().unwrap();
    second.tls.set_ticket_keys(&given).unwrap();
    assert!(resumes(&second.server, &config).await, "made before");
    let third = generation(Some(&second.store));
    assert!(resumes(&third.server, &config).await, "made with the keys that were given");
    let stranger = tls(None);
    stranger.set_ticket_keys(&given).unwrap();
    assert!(resumes(&Server::with(&stranger, HttpOptions::new()), &config).await, "elsewhere too");
}

/// Rustls does not ask the verifier when a session is resumed: one of anybody's would pass for that
/// of a verified client.
#[tokio::test]
async fn not_where_clients_are_verified_otherwise() {
    for version in VERSIONS {
        let (anybody, asked, verified) = (tls(None), verifying(false), verifying(true));
        for tls in [&asked, &verified] {
            tls.set_ticket_keys(&anybody.ticket_keys().unwrap()).unwrap();
        }
        for (from, to) in [(&anybody, &asked), (&asked, &anybody)] {
            let config = client(&[version], &[]);
            let servers = [Server::with(from, HttpOptions::new()), Server::with(to, HttpOptions::new())];
            assert!(!resumes(&servers[0], &config).await);
            assert!(resumes(&servers[0], &config).await);
            assert!(!resumes(&servers[1], &config).await);
        }
        for from in [&anybody, &asked] {
            let config = client(&[version], &[]);
            let (from, to) = (Server::with(from, HttpOptions::new()), Server::with(&verified, HttpOptions::new()));
            assert!(!resumes(&from, &config).await);
            let mut client = Client::connect(to.address, &config).await;
            let end = match client.try_handshake().await {
                Some(end) => end,
                None => client.closed().await, // TLS 1.3: the client is done before it is refused
            };
            assert_eq!(end, End::Alert, "it has no certificate");
        }
    }
}

/// Of clients with a certificate.
fn verifying(mandatory: bool) -> Tls {
    let pair = pair();
    let mut roots = RootCertStore::empty();
    roots.add(pair.der.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let verifier = if mandatory { verifier } else { verifier.allow_unauthenticated() };
    let options = TlsOptions::new().client_verifier(verifier.build().unwrap());
    Tls::from_pem_with(&pair.chain, &pair.key, options).unwrap()
}

#[tokio::test]
async fn not_if_tickets_are_off() {
    let pair = pair();
    let tls = Tls::from_pem_with(&pair.chain, &pair.key, TlsOptions::new().ticket_rotation(None)).unwrap();
    assert!(tls.ticket_keys().is_none());
    let server = Server::with(&tls, HttpOptions::new());
    for version in VERSIONS {
        let config = client(&[version], &[]);
        assert!(!resumes(&server, &config).await);
        assert!(!resumes(&server, &config).await);
    }
}
