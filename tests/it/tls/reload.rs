//! The certificate replaced in place, and pairs that are refused.

use crate::support::{Client, DEADLINE, Reply, SHORT, Server, until, within};
use handover::http::HttpOptions;
use handover::tls::{Tls, TlsOptions};
use handover_testing::certs::{self, Pair, VERSIONS, client, pair};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;

const POLL: Duration = Duration::from_millis(20);

/// A directory with both files.
struct Files {
    dir: TempDir,
    chain: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(pair: &Pair) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let files = Self { dir, chain, key };
        files.write(pair);
        files
    }

    fn write(&self, pair: &Pair) {
        fs::write(&self.chain, &pair.chain).unwrap();
        fs::write(&self.key, &pair.key).unwrap();
    }

    /// As careful programs do it.
    fn rename(&self, pair: &Pair) {
        for (path, text) in [(&self.chain, &pair.chain), (&self.key, &pair.key)] {
            let new = self.dir.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, path).unwrap();
        }
    }

    fn tls(&self, poll: Option<Duration>) -> handover::Result<Tls> {
        Tls::from_files_with(&self.chain, &self.key, TlsOptions::new().poll(poll))
    }

    fn serve(&self, poll: Option<Duration>) -> (Tls, Server) {
        capture();
        let tls = self.tls(poll).unwrap();
        let server = Server::with(&tls, HttpOptions::new());
        (tls, server)
    }
}

/// What a new client is shown.
async fn shown(server: &Server) -> CertificateDer<'static> {
    let mut client = Client::connect(server.address, &client(&VERSIONS, &["http/1.1"])).await;
    client.handshake().await;
    assert_eq!(client.reply_to("/1").await, Reply::ok("/1"));
    client.tls.peer_certificates().unwrap()[0].clone()
}

async fn until_shown(server: &Server, pair: &Pair) {
    within("the new certificate", async {
        while shown(server).await != pair.der {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn by_a_method() {
    let (old, new) = (pair(), pair());
    let files = Files::of(&old);
    let (tls, server) = files.serve(None);
    let mut kept = server.client(&client(&VERSIONS, &["http/1.1"])).await;
    assert!(!tls.reload().unwrap(), "nothing has changed");
    files.write(&new);
    assert_eq!(shown(&server).await, old.der, "nobody looks");
    assert!(tls.reload().unwrap());
    assert_eq!(shown(&server).await, new.der);
    assert_eq!(kept.reply_to("/1").await, Reply::ok("/1"), "connections of before are not concerned");
    assert!(tls.replace_pem(&old.chain, &old.key).unwrap());
    assert_eq!(shown(&server).await, old.der);
    let given = Tls::from_pem(&old.chain, &old.key).unwrap();
    assert!(given.reload().unwrap_err().is_state());
}

#[tokio::test]
async fn by_a_write_and_by_a_rename() {
    let files = Files::of(&pair());
    let (_tls, server) = files.serve(Some(POLL));
    for round in 0..4 {
        let new = pair();
        if round % 2 == 0 {
            files.write(&new)
        } else {
            files.rename(&new)
        }
        until_shown(&server, &new).await;
    }
    assert_eq!(log(files.dir.path()).matches("was replaced").count(), 4);
}

/// As Kubernetes does it: `chain.pem` → `..data/chain.pem`, `..data` → a directory of that version.
#[tokio::test]
async fn by_another_target_of_a_symlink() {
    let dir = tempfile::tempdir().unwrap();
    let version = |name: &str, pair: &Pair| {
        let new = dir.path().join(name);
        fs::create_dir(&new).unwrap();
        fs::write(new.join("chain.pem"), &pair.chain).unwrap();
        fs::write(new.join("key.pem"), &pair.key).unwrap();
        symlink(name, dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    version("v1", &pair());
    let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    symlink("..data/chain.pem", &chain).unwrap();
    symlink("..data/key.pem", &key).unwrap();
    let tls = Tls::from_files_with(&chain, &key, TlsOptions::new().poll(Some(POLL))).unwrap();
    let server = Server::with(&tls, HttpOptions::new());
    for name in ["v2", "v3"] {
        let new = pair();
        version(name, &new);
        until_shown(&server, &new).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_handshakes_that_all_succeed() {
    let pairs = [pair(), pair()];
    let files = Files::of(&pairs[0]);
    let (tls, server) = files.serve(Some(POLL));
    let (address, done) = (server.address, Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..8)
        .map(|at| {
            let (done, pairs) = (Arc::clone(&done), pairs.clone());
            tokio::spawn(async move {
                let mut seen = [0; 2];
                while !done.load(Ordering::Relaxed) {
                    // a configuration of its own each time: full handshakes, which sign with the
                    // key
                    let config = client(&[VERSIONS[at % 2]], &["http/1.1"]);
                    let mut client = Client::connect(address, &config).await;
                    client.handshake().await;
                    assert_eq!(client.reply_to("/1").await, Reply::ok("/1"));
                    let shown = &client.tls.peer_certificates().unwrap()[0];
                    seen[pairs.iter().position(|pair| pair.der == *shown).unwrap()] += 1;
                }
                seen
            })
        })
        .collect();
    for round in 1..100 {
        files.rename(&pairs[round % 2]);
        let _ = tls.reload(); // the watcher may have been first
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    done.store(true, Ordering::Relaxed);
    let mut seen = [0; 2];
    for client in clients {
        let of_it = within("a client", client).await.unwrap();
        seen = [seen[0] + of_it[0], seen[1] + of_it[1]];
    }
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}

/// What is done to the files, and what the message says.
type Bad = (&'static str, fn(&Files), &'static [&'static str]);

const BAD: &[Bad] = &[
    ("no chain", |files| fs::remove_file(&files.chain).unwrap(), &["chain.pem", "is the path right"]),
    ("no key", |files| fs::remove_file(&files.key).unwrap(), &["key.pem", "is the path right"]),
    ("a directory", |files| replace_by_directory(&files.chain), &["chain.pem", "must be a readable file"]),
    ("an empty chain", |files| fs::write(&files.chain, "").unwrap(), &["chain.pem", "no certificate in it"]),
    ("an empty key", |files| fs::write(&files.key, "").unwrap(), &["key.pem", "no private key in it"]),
    ("half a chain", |files| halve(&files.chain), &["chain.pem", "half written", "END CERTIFICATE"]),
    ("half a key", |files| halve(&files.key), &["key.pem", "half written", "END PRIVATE KEY"]),
    (
        "a key as chain",
        |files| assert_ne!(fs::copy(&files.key, &files.chain).unwrap(), 0),
        &["chain.pem", "no certificate"],
    ),
    ("nonsense in the chain", |files| fs::write(&files.chain, NONSENSE).unwrap(), &["chain.pem", "no PEM between"]),
    ("no DER in the chain", |files| fs::write(&files.chain, NO_DER).unwrap(), &["chain.pem"]),
    ("no DER in the key", |files| fs::write(&files.key, NO_KEY).unwrap(), &["key.pem", "ECDSA"]),
    ("an encrypted key", |files| fs::write(&files.key, ENCRYPTED).unwrap(), &["key.pem", "decrypt it first"]),
    ("another key", |files| fs::write(&files.key, pair().key).unwrap(), &["key.pem", "not the key", "chain.pem"]),
    ("an expired one", |files| files.write(&certs::expired()), &["chain.pem", "expired 3 days ago", "renew"]),
    ("a future one", |files| files.write(&certs::not_yet_valid()), &["chain.pem", "not valid for another", "clock"]),
    ("a huge file", |files| fs::write(&files.chain, vec![b'x'; 2 << 20]).unwrap(), &["chain.pem", "longer than"]),
    ("a FIFO", |files| fifo(&files.chain), &["chain.pem"]),
];

const NONSENSE: &str = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
const NO_DER: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
// In two halves each, or scanners for secrets would take them for some.
const NO_KEY: &str = concat!("-----BEGIN PRIV", "ATE KEY-----\nAAAA\n-----END PRIV", "ATE KEY-----\n");
const ENCRYPTED: &str =
    concat!("-----BEGIN ENCRYPTED PRIV", "ATE KEY-----\nAAAA\n-----END ENCRYPTED PRIV", "ATE KEY-----\n");

fn halve(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn replace_by_directory(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
}

fn fifo(path: &Path) {
    fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn says(text: &str, dir: &Path, words: &[&str], what: &str) {
    for word in words {
        assert!(text.contains(word), "{what}: {word:?} is not in {text:?}");
    }
    // the directory's name has random letters
    let own = text.replace(&*dir.to_string_lossy(), "");
    assert!(!own.contains("MI"), "{what}: part of a key or certificate in {text:?}");
}

#[test]
fn a_bad_pair_is_an_error_at_the_start() {
    for (what, spoil, words) in BAD {
        let files = Files::of(&pair());
        spoil(&files);
        let error = files.tls(None).unwrap_err();
        says(&error.to_string(), files.dir.path(), words, what);
    }
}

#[tokio::test]
async fn a_bad_pair_is_refused_by_the_method_and_the_old_one_serves() {
    for (what, spoil, words) in BAD {
        let old = pair();
        let files = Files::of(&old);
        let (tls, server) = files.serve(None);
        spoil(&files);
        says(&tls.reload().unwrap_err().to_string(), files.dir.path(), words, what);
        assert_eq!(shown(&server).await, old.der, "{what}");
    }
}

#[tokio::test]
async fn a_bad_pair_is_refused_by_the_watcher_and_told_once() {
    for (what, spoil, words) in BAD {
        let (old, new) = (pair(), pair());
        let files = Files::of(&old);
        let (_tls, server) = files.serve(Some(POLL));
        spoil(&files);
        let refused =
            || log(files.dir.path()).lines().filter(|l| l.contains("is refused")).collect::<Vec<_>>().join("\n");
        until("refused", || !refused().is_empty()).await;
        tokio::time::sleep(POLL * 5).await; // some more looks
        assert_eq!(refused().lines().count(), 1, "{what}: {}", refused());
        says(&refused(), files.dir.path(), words, what);
        assert_eq!(shown(&server).await, old.der, "{what}");
        if files.chain.is_dir() {
            fs::remove_dir(&files.chain).unwrap();
        }
        files.rename(&new);
        until_shown(&server, &new).await;
    }
}

#[tokio::test]
async fn ignoring_the_time_must_be_asked_for() {
    for pair in [certs::expired(), certs::not_yet_valid()] {
        assert!(Tls::from_pem(&pair.chain, &pair.key).unwrap_err().is_invalid());
        let tls = Tls::from_pem_with(&pair.chain, &pair.key, TlsOptions::new().ignore_validity(true)).unwrap();
        assert_eq!(shown(&Server::with(&tls, HttpOptions::new())).await, pair.der);
    }
}

/// An RSA key that no client trusts any more. rcgen makes none; openssl does.
#[test]
fn a_weak_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["req", "-x509", "-newkey", "rsa:1024", "-nodes", "-days", "9", "-subj", "/CN=localhost"];
    let files = ["-keyout", "key.pem", "-out", "chain.pem"];
    match Command::new("openssl").args(args).args(files).current_dir(dir.path()).output() {
        Ok(output) if output.status.success() => {}
        _ => return, // no openssl on this machine, or one that refuses it itself
    }
    let error = Tls::from_files(dir.path().join("chain.pem"), dir.path().join("key.pem")).unwrap_err();
    says(&error.to_string(), dir.path(), &["key.pem", "2048"], "1024 bits");
}

/// Its second certificate has expired: clients may know a newer one.
#[test]
fn an_expired_intermediate_is_no_reason_to_stop() {
    let (leaf, old) = (pair(), certs::expired());
    Tls::from_pem(leaf.chain + &old.chain, leaf.key).unwrap();
}

#[test]
fn settings_that_cannot_work() {
    let pair = pair();
    let week = Duration::from_secs(7 * 24 * 3600);
    for options in [
        TlsOptions::new().handshake_timeout(Duration::ZERO),
        TlsOptions::new().poll(Some(Duration::ZERO)),
        TlsOptions::new().ticket_rotation(Some(Duration::ZERO)),
        TlsOptions::new().ticket_rotation(Some(week * 2)),
        TlsOptions::new().alpn([""]),
    ] {
        assert!(Tls::from_pem_with(&pair.chain, &pair.key, options).unwrap_err().is_invalid());
    }
}

/// The thread that looks at the files goes when nobody needs it any more.
#[test]
fn nothing_is_left_of_it() {
    let files = Files::of(&pair());
    // the kernel cuts a thread's name to 15 bytes; the tests beside this one have some, too
    let watchers = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks.filter(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == "handover-tls")).count()
    };
    let before = Instant::now();
    let many: Vec<_> = (0..200).map(|_| files.tls(Some(TlsOptions::POLL)).unwrap()).collect();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(before.elapsed() < DEADLINE, "{what}");
            std::thread::sleep(SHORT / 10);
        }
    };
    until("threads have not come", &|| watchers() >= 200); // each names itself
    drop(many);
    until("threads are left", &|| watchers() < 150);
}

/// What was logged about files in this directory.
fn log(dir: &Path) -> String {
    let dir = dir.display().to_string();
    let text = capture().lock().unwrap().clone();
    String::from_utf8_lossy(&text).lines().filter(|l| l.contains(&dir)).fold(String::new(), |all, l| all + l + "\n")
}

/// The watcher logs on its own thread: the subscriber must be everybody's.
fn capture() -> &'static Arc<Mutex<Vec<u8>>> {
    static CAPTURE: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    CAPTURE.get_or_init(|| {
        struct Writer(Arc<Mutex<Vec<u8>>>);
        impl Write for Writer {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let capture = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&capture);
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || Writer(Arc::clone(&writer))).init();
        capture
    })
}
