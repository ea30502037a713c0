//! TLS through reloads, and certificates replaced under load; the clients are rustls's.

#[expect(clippy::unwrap_used, reason = "shared with the TLS tests")]
#[path = "../../it/tls/certs.rs"]
mod certs;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("tls_idle", idle_through_reloads), Scenario::new("tls_certificate", certificate_under_load)];

const UNIT: &str = "tls.service";
const RELOADS: usize = 20;
const IDLE: usize = 1000;
/// So that no more generations drain at once than may.
const PACE: Duration = Duration::from_millis(400);
const LINGER: Duration = Duration::from_millis(2500);

type Result<T = (), E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Whoever asks more often than linger ends gets an answer to each request, whoever is silent an announced end; both come
/// back with a ticket, which the next generation takes. After a SIGKILL the restarted one does as well.
fn idle_through_reloads(lab: &Container) -> Outcome {
    let service = Service::start(lab, &certs::pair(), "10s")?;
    let stats = Arc::new(Stats::default());
    service.under(&stats, Load { idle: IDLE, fresh: 3 }, || {
        lab.wait_until(DEADLINE * 2, "all idle connections", || Ok((stats.idle.load(Relaxed) >= IDLE as u64).then_some(())))?;
        for _ in 0..RELOADS {
            let begun = Instant::now();
            service.reload()?;
            thread::sleep(PACE.saturating_sub(begun.elapsed()));
        }
        Ok(())
    })?;
    stats.lost_nothing()?;
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    let (resumed, announced) = (count(&stats.resumed), count(&stats.announced));
    assert!(resumed >= IDLE as u64, "{stats:?}");
    assert!(announced >= IDLE as u64 / 4, "{stats:?}");
    assert_eq!(count(&stats.not_resumed), 0, "{stats:?}");
    assert!(count(&stats.fresh) > 20, "{stats:?}");

    let config = new_client();
    assert_eq!(service.one(&config)?.0, HandshakeKind::Full);
    let killed = lab.main_pid(UNIT)?;
    lab.signal(killed, "KILL")?;
    lab.wait_until(DEADLINE, "a restarted one", || Ok(lab.main_pid(UNIT).ok().filter(|new| *new != killed)))?;
    assert_eq!(service.one(&config)?.0, HandshakeKind::Resumed, "after SIGKILL");
    Ok(())
}

/// By a rename, by a symlink; then everything that can be wrong with a pair.
fn certificate_under_load(lab: &Container) -> Outcome {
    let mut good = certs::pair();
    let service = Service::start(lab, &good, "100ms")?;
    let stats = Arc::new(Stats::default());
    // Without a ticket: who resumes, is shown no certificate.
    let shown = || Ok(service.one(&new_client())?.1) as Outcome<CertificateDer<'static>>;
    let (dir, pid) = (service.files(), lab.main_pid(UNIT)?);
    service.under(&stats, Load { idle: 20, fresh: 4 }, || {
        let until_shown = |pair: &certs::Pair| {
            lab.wait_until(DEADLINE, "the new certificate", || Ok((shown()? == pair.der).then_some(())))
        };
        for round in 0..4 {
            good = certs::pair();
            if round % 2 == 0 {
                service.rename("cert.pem", &good.chain)?;
                service.rename("key.pem", &good.key)?;
            } else {
                service.version(&format!("v{round}"), &good)?;
            }
            until_shown(&good)?;
        }
        let bad: [(&str, &dyn Fn() -> Outcome); 5] = [
            ("it is not the key of", &|| service.rename("key.pem", &certs::pair().key)),
            ("it expired 3 days ago", &|| service.version("expired", &certs::expired())),
            ("is not valid for another", &|| service.version("future", &certs::not_yet_valid())),
            ("is the path right", &|| Ok(fs::remove_file(dir.join("cert.pem"))?)),
            ("only half written", &|| service.rename("cert.pem", &good.chain[..good.chain.len() / 2])),
        ];
        for (reason, spoil) in bad {
            spoil()?;
            let refused = "the new TLS certificate is refused, the one before serves on: the ";
            lab.wait_until(DEADLINE, &format!("{reason:?} in the journal"), || {
                let found = lab.journal_json(UNIT)?;
                let found = found.iter().any(|e| e.message().starts_with(refused) && e.message().contains(reason));
                Ok(found.then_some(()))
            })?;
            assert_eq!(shown()?, good.der, "{reason}: another one is served");
        }
        // A new generation reads the files, which are bad: there is none, and the old one serves on.
        lab.systemctl(&["reload", UNIT])?;
        lab.wait_until(DEADLINE, "a reload that failed", || {
            let found = lab.journal_json(UNIT)?;
            let failed = found.iter().any(|e| e.message().contains("generation 2 failed: the certificate chain"));
            Ok(failed.then_some(()))
        })?;
        assert_eq!((lab.main_pid(UNIT)?, shown()?), (pid, good.der.clone()));
        good = certs::pair();
        service.version("last", &good)?;
        until_shown(&good)?;
        service.reload()?;
        assert_eq!(shown()?, good.der);
        Ok(())
    })?;
    stats.lost_nothing()?;
    let shown = stats.shown.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(shown.len() >= 4, "the clients of the load have seen {} certificates", shown.len());
    assert!(stats.fresh.load(Relaxed) > 20, "{stats:?}");
    Ok(())
}

/// examples/tls.rs.
struct Service<'a> {
    lab: &'a Container,
    address: SocketAddr,
}

impl<'a> Service<'a> {
    fn start(lab: &'a Container, pair: &certs::Pair, poll: &str) -> Outcome<Self> {
        let program = lab.install(&example("tls")?, "tls")?;
        let address = SocketAddr::from(([127, 0, 0, 1], lab.port(8443)?));
        let service = Self { lab, address };
        service.version("v", pair)?;
        for name in ["cert.pem", "key.pem"] {
            symlink(format!("..data/{name}"), service.files().join(name))?;
        }
        let dir = lab.dir().join("files").display().to_string();
        let linger = format!("{}ms", LINGER.as_millis());
        lab.write_unit(
            "tls.socket",
            &format!("[Socket]\nListenStream={address}\nFileDescriptorName=https\n[Install]\nWantedBy=sockets.target\n"),
        )?;
        lab.write_unit(
            UNIT,
            &format!(
                "[Unit]\nRequires=tls.socket\nAfter=tls.socket\n[Service]\nType=notify\nNotifyAccess=main\n\
                 ExecReload=/bin/kill -HUP $MAINPID\nFileDescriptorStoreMax=64\nLimitNOFILE=65536\nRestart=on-failure\n\
                 RestartSec=100ms\nWatchdogSec=20\nExecStart={program} --cert {dir}/cert.pem --key {dir}/key.pem \
                 --poll {poll} --linger {linger}\n"
            ),
        )?;
        lab.daemon_reload()?;
        lab.systemctl_ok(&["start", "tls.socket", UNIT])?;
        Ok(service)
    }

    fn files(&self) -> std::path::PathBuf {
        self.lab.host_dir().join("files")
    }

    fn rename(&self, name: &str, text: &str) -> Outcome {
        fs::write(self.files().join("new"), text)?;
        Ok(fs::rename(self.files().join("new"), self.files().join(name))?)
    }

    /// Both at once, as Kubernetes does it.
    fn version(&self, name: &str, pair: &certs::Pair) -> Outcome {
        let dir = self.files();
        fs::create_dir_all(dir.join(name))?;
        fs::write(dir.join(name).join("cert.pem"), &pair.chain)?;
        fs::write(dir.join(name).join("key.pem"), &pair.key)?;
        symlink(name, dir.join("..data_new"))?;
        fs::rename(dir.join("..data_new"), dir.join("..data"))?;
        // What a rename has put in their place.
        for file in ["cert.pem", "key.pem"] {
            if !dir.join(file).is_symlink() && name != "v" {
                symlink(format!("..data/{file}"), dir.join("link"))?;
                fs::rename(dir.join("link"), dir.join(file))?;
            }
        }
        Ok(())
    }

    fn reload(&self) -> Outcome {
        let old = self.lab.main_pid(UNIT)?;
        self.lab.systemctl_ok(&["reload", UNIT])?;
        self.lab.wait_until(DEADLINE, "another main process", || {
            let done = self.lab.show(UNIT, "SubState")? == "running" && self.lab.main_pid(UNIT)? != old;
            Ok(done.then_some(()))
        })
    }

    /// One request of a new client.
    fn one(&self, config: &Arc<ClientConfig>) -> Outcome<(HandshakeKind, CertificateDer<'static>)> {
        let one = self.lab.in_netns(|| {
            runtime()?.block_on(async {
                let mut client = Client::connect(self.address, config).await?;
                client.ask("close").await?;
                client.announced().await?;
                Ok::<_, Box<dyn Error + Send + Sync>>((client.kind()?, client.certificate()?))
            })
        })?;
        one.map_err(|e| e.to_string().into())
    }

    /// Clients ask while `f` runs; afterwards each finishes what it has begun.
    fn under(&self, stats: &Arc<Stats>, load: Load, f: impl FnOnce() -> Outcome) -> Outcome {
        let (stop, stopped) = watch::channel(false);
        thread::scope(|scope| {
            let clients = scope.spawn(|| self.lab.in_netns(|| run(self.address, stats, load, stopped)));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            stop.send_replace(true);
            let ran = clients.join();
            match outcome {
                Ok(outcome) => outcome.map_err(|e| format!("{} ({stats:?})", e.message().unwrap_or_default()))?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            match ran {
                Ok(ran) => ran?.map_err(|e| e.to_string().into()),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Load {
    /// One in four asks now and then, the others are silent until they are sent away.
    idle: usize,
    /// Each request on a new connection, with a full handshake.
    fresh: usize,
}

#[derive(Debug, Default)]
struct Stats {
    /// That have had their first answer.
    idle: AtomicU64,
    answered: AtomicU64,
    fresh: AtomicU64,
    resumed: AtomicU64,
    not_resumed: AtomicU64,
    announced: AtomicU64,
    /// The ends of the certificates.
    shown: Mutex<BTreeSet<String>>,
    lost: Mutex<Vec<String>>,
}

impl Stats {
    fn lost_nothing(&self) -> Outcome {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match lost.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} lost, the first: {first}", lost.len()).into()),
        }
    }

    fn note(&self, outcome: Result) {
        if let Err(error) = outcome {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
        }
    }
}

/// With a session cache of its own.
fn new_client() -> Arc<ClientConfig> {
    certs::client(&certs::VERSIONS, &["http/1.1"])
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn run(address: SocketAddr, stats: &Arc<Stats>, load: Load, stopped: watch::Receiver<bool>) -> Result {
    runtime()?.block_on(async {
        let mut clients = JoinSet::new();
        for at in 0..load.idle {
            let (stats, stopped) = (Arc::clone(stats), stopped.clone());
            clients.spawn(async move {
                // not all at once: the first handshakes of all are full ones
                sleep(Duration::from_millis(at as u64)).await;
                stats.note(idle(address, at, &stats, stopped).await);
            });
        }
        for _ in 0..load.fresh {
            let (stats, stopped) = (Arc::clone(stats), stopped.clone());
            clients.spawn(async move { stats.note(fresh(address, &stats, stopped).await) });
        }
        let all = async { while clients.join_next().await.is_some() {} };
        let mut stopped = stopped;
        let _ = stopped.wait_for(|stop| *stop).await;
        timeout(DEADLINE, all).await.map_err(|_| "clients that did not end".into())
    })
}

async fn fresh(address: SocketAddr, stats: &Stats, stopped: watch::Receiver<bool>) -> Result {
    while !*stopped.borrow() {
        let mut client = Client::connect(address, &new_client()).await?;
        client.ask("close").await?;
        client.announced().await?;
        stats.fresh.fetch_add(1, Relaxed);
        let shown = client.certificate()?.rchunks(4).next().map(<[u8]>::escape_ascii).map(|end| end.to_string());
        stats.shown.lock().unwrap_or_else(PoisonError::into_inner).extend(shown);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn idle(address: SocketAddr, at: usize, stats: &Stats, mut stopped: watch::Receiver<bool>) -> Result {
    let config = certs::client(&[certs::VERSIONS[at / 4 % 2]], &["http/1.1"]);
    // Spread over less than linger, the same in each run.
    let pause = LINGER.mul_f64(0.3 + 0.4 * (at as f64 * 0.618).fract());
    for connection in 0_u64.. {
        let mut client = Client::connect(address, &config).await?;
        let kind = client.kind()?;
        match (connection, kind) {
            (0, _) => 0,
            (_, HandshakeKind::Resumed) => stats.resumed.fetch_add(1, Relaxed),
            _ => stats.not_resumed.fetch_add(1, Relaxed),
        };
        let mut last = client.ask("keep-alive").await?;
        stats.answered.fetch_add(1, Relaxed);
        if connection == 0 {
            stats.idle.fetch_add(1, Relaxed);
        }
        while !last {
            let silent = !at.is_multiple_of(4);
            tokio::select! {
                biased;
                ended = client.announced() => {
                    ended?;
                    // a client that asks is answered first, and told then
                    if !silent {
                        return Err(format!("closed after less than {pause:?}").into());
                    }
                    stats.announced.fetch_add(1, Relaxed);
                    break;
                }
                () = async { drop(stopped.wait_for(|stop| *stop).await) } => return Ok(()),
                () = sleep(pause), if !silent => {
                    last = client.ask("keep-alive").await?;
                    stats.answered.fetch_add(1, Relaxed);
                }
            }
        }
        if last {
            client.announced().await?;
            stats.announced.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}

struct Client {
    stream: TlsStream<TcpStream>,
}

impl Client {
    async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let connect = async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(config)).connect("localhost".try_into()?, socket).await.map_err(Box::from)
        };
        let stream = timeout(DEADLINE, connect).await.map_err(|_| "no handshake in time")?;
        Ok(Self { stream: stream.map_err(|e: Box<dyn Error + Send + Sync>| format!("no handshake: {e}"))? })
    }

    /// A request and its answer; whether that was the last one.
    async fn ask(&mut self, connection: &str) -> Result<bool> {
        let request = format!("GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
        let answer = async {
            self.stream.write_all(request.as_bytes()).await?;
            let mut received = Vec::new();
            // the body ends in the only newline without a carriage return
            while !received.ends_with(b"\n") || received.ends_with(b"\r\n") {
                if self.stream.read_buf(&mut received).await? == 0 {
                    return Err(format!("closed after {:?}", received.escape_ascii().to_string()).into());
                }
            }
            Result::<String>::Ok(String::from_utf8(received)?.to_ascii_lowercase())
        };
        let answer = timeout(DEADLINE, answer).await.map_err(|_| "no answer in time")?;
        let answer = answer.map_err(|e| format!("not answered: {e}"))?;
        if !answer.starts_with("http/1.1 200 ") {
            return Err(format!("answered {answer:?}").into());
        }
        Ok(answer.contains("\r\nconnection: close\r\n"))
    }

    /// Waits for the end, which must be TLS's: anything else is an error of rustls.
    async fn announced(&mut self) -> Result {
        match self.stream.read(&mut [0; 64]).await {
            Ok(0) => Ok(()),
            Ok(read) => Err(format!("{read} bytes that nobody asked for").into()),
            Err(error) => Err(format!("not announced: {error}").into()),
        }
    }

    fn kind(&self) -> Result<HandshakeKind> {
        self.stream.get_ref().1.handshake_kind().ok_or_else(|| "no handshake".into())
    }

    fn certificate(&self) -> Result<CertificateDer<'static>> {
        let shown = self.stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        shown.cloned().ok_or_else(|| "no certificate".into())
    }
}
