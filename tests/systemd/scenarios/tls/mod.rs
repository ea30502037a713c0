//! TLS through reloads, and certificates replaced under load.
//!
//! `HANDOVER_SOAK=60` makes each of these take that many seconds.

mod credentials;
mod foreign;
mod load;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use handover_testing::certs;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::pki_types::CertificateDer;

use self::load::{Load, Stats};
use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("tls_idle", idle_through_reloads),
    Scenario::new("tls_certificate", certificate_under_load),
    Scenario::new("tls_in_place", in_place_by_a_reload),
    // Credentials of a unit are for the system's manager alone.
    Scenario::new("tls_credentials", credentials::renewed_by_a_reload).system_only(),
    Scenario::new("tls_foreign", foreign::through_reloads),
];

const UNIT: &str = "tls.service";
const RELOADS: usize = 20;
const IDLE: usize = 1000;
const LINGER: Duration = Duration::from_secs(2);
/// No more processes than this when a reload begins: with seven that drain, two below the cap, the
/// oldest would be told to hurry, which is another scenario.
const PROCESSES: usize = 6;

/// Whoever asks gets an answer to each request, on one and the same connection, and whoever is
/// silent keeps that, too: they move. Who comes anew comes with a ticket, which the next generation
/// takes. After a SIGKILL the restarted one does as well.
fn idle_through_reloads(lab: &Container) -> Outcome {
    let service = Service::start(lab, &certs::pair(), "10s")?;
    let stats = Arc::new(Stats::default());
    service.under(&stats, Load { idle: IDLE, fresh: 3 }, || {
        lab.wait_until(DEADLINE * 2, "all idle connections", || {
            Ok((stats.idle.load(Relaxed) >= IDLE as u64).then_some(()))
        })?;
        let (begun, mut reloads) = (Instant::now(), 0);
        while reloads < RELOADS || soak().is_some_and(|soak| begun.elapsed() < soak) {
            service.reload()?;
            service.until_few_drain()?;
            reloads += 1;
        }
        println!("{reloads} reloads in {:?}", begun.elapsed());
        Ok(())
    })?;
    println!("{stats}");
    stats.lost_nothing()?;
    assert_eq!((stats.idle.load(Relaxed), stats.announced.load(Relaxed)), (IDLE as u64, 0), "{stats}");
    assert!(stats.answered.load(Relaxed) > 2 * IDLE as u64 && stats.fresh.load(Relaxed) > 20, "{stats}");

    let config = load::new_client();
    assert_eq!(service.one(&config)?.0, HandshakeKind::Full);
    for _ in 0..3 {
        service.reload()?;
        assert_eq!(service.one(&config)?.0, HandshakeKind::Resumed, "by another generation");
    }
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
    let shown = || Ok(service.one(&load::new_client())?.1) as Outcome<CertificateDer<'static>>;
    let (dir, pid) = (service.files(), lab.main_pid(UNIT)?);
    service.under(&stats, Load { idle: 20, fresh: 4 }, || {
        let until_shown = |pair: &certs::Pair| {
            lab.wait_until(DEADLINE, "the new certificate", || Ok((shown()? == pair.der).then_some(())))
        };
        let (begun, mut round) = (Instant::now(), 0);
        while round < 4 || soak().is_some_and(|soak| begun.elapsed() < soak) {
            good = certs::pair();
            if round % 2 == 0 {
                service.rename("cert.pem", &good.chain)?;
                service.rename("key.pem", &good.key)?;
            } else {
                service.version(&format!("v{round}"), &good)?;
            }
            until_shown(&good)?;
            round += 1;
        }
        println!("{round} certificates in {:?}", begun.elapsed());
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
        // A new generation reads the files, which are bad: there is none, and the old one serves
        // on. It says why as well: of a process that has ended, journald may no longer know the
        // unit.
        lab.systemctl(&["reload", UNIT])?;
        lab.wait_until(DEADLINE, "a reload that failed", || {
            let found = lab.journal_json(UNIT)?;
            let failed =
                found.iter().any(|e| e.message().contains("generation 2 said that it failed: the certificate chain"));
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
    println!("{stats}");
    stats.lost_nothing()?;
    assert!(stats.certificates() >= 4 && stats.fresh.load(Relaxed) > 20, "{stats}");
    Ok(())
}

/// SIGHUP without a new generation.
fn in_place_by_a_reload(lab: &Container) -> Outcome {
    let (old, new) = (certs::pair(), certs::pair());
    let service = Service::start(lab, &old, "10s --in-place")?;
    let shown = || Ok(service.one(&load::new_client())?.1) as Outcome<CertificateDer<'static>>;
    let pid = lab.main_pid(UNIT)?;
    let stats = Arc::new(Stats::default());
    service.under(&stats, Load { idle: 20, fresh: 2 }, || {
        let reload_until = |said: &str| {
            lab.systemctl_ok(&["reload", UNIT])?;
            lab.wait_until(DEADLINE, &format!("{said:?} in the journal"), || {
                let entries = lab.journal_json(UNIT)?;
                Ok(entries.iter().any(|e| e.message().contains(said)).then_some(()))
            })
        };
        service.rename("key.pem", &new.key)?;
        reload_until("the new TLS certificate is refused, the one before serves on: the private key")?;
        assert_eq!(shown()?, old.der);
        service.rename("cert.pem", &new.chain)?;
        reload_until("the TLS certificate was replaced")?;
        assert_eq!(shown()?, new.der);
        Ok(())
    })?;
    println!("{stats}");
    stats.lost_nothing()?;
    assert_eq!((lab.main_pid(UNIT)?, stats.announced.load(Relaxed)), (pid, 0), "{stats}");
    Ok(())
}

/// How long to go on, beyond what a case must have.
fn soak() -> Option<Duration> {
    let seconds = std::env::var("HANDOVER_SOAK").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("HANDOVER_SOAK is in seconds")))
}

/// examples/tls.rs.
struct Service<'a> {
    lab: &'a Container,
    address: SocketAddr,
}

impl<'a> Service<'a> {
    fn start(lab: &'a Container, pair: &certs::Pair, poll: &str) -> Outcome<Self> {
        let dir = lab.dir().join("files").display().to_string();
        Self::reading(lab, pair, &dir, poll, "")
    }

    /// It has the two as credentials of its unit, which has these lines more.
    fn with_credentials(lab: &'a Container, pair: &certs::Pair, poll: &str, lines: &str) -> Outcome<Self> {
        let dir = lab.dir().join("files").display().to_string();
        let load = |name: &str| format!("LoadCredential={name}:{dir}/{name}\n");
        Self::reading(lab, pair, "%d", poll, &format!("{}{}{lines}", load("cert.pem"), load("key.pem")))
    }

    fn reading(lab: &'a Container, pair: &certs::Pair, dir: &str, poll: &str, lines: &str) -> Outcome<Self> {
        let program = lab.install(&example("tls")?, "tls")?;
        let address = SocketAddr::from(([127, 0, 0, 1], lab.port(8443)?));
        let service = Self { lab, address };
        service.version("v", pair)?;
        for name in ["cert.pem", "key.pem"].iter().filter(|name| !service.files().join(name).is_symlink()) {
            symlink(format!("..data/{name}"), service.files().join(name))?;
        }
        let linger = format!("{}ms", LINGER.as_millis());
        lab.write_unit(
            "tls.socket",
            &format!(
                "[Socket]\nListenStream={address}\nFileDescriptorName=https\n[Install]\nWantedBy=sockets.target\n"
            ),
        )?;
        lab.write_unit(
            UNIT,
            &format!(
                "[Unit]\nRequires=tls.socket\nAfter=tls.socket\n[Service]\nType=notify\nNotifyAccess=main\n\
                 ExecReload=/bin/kill -HUP $MAINPID\nFileDescriptorStoreMax=64\nLimitNOFILE=65536\nRestart=on-failure\n\
                 RestartSec=100ms\nWatchdogSec=20\nExecStart={program} --cert {dir}/cert.pem --key {dir}/key.pem \
                 --poll {poll} --linger {linger}\n{lines}"
            ),
        )?;
        lab.daemon_reload()?;
        lab.systemctl_ok(&["start", "tls.socket", UNIT])?;
        Ok(service)
    }

    fn files(&self) -> PathBuf {
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

    fn until_few_drain(&self) -> Outcome {
        let few = || Ok((self.lab.pids(UNIT)?.len() <= PROCESSES).then_some(()));
        self.lab.wait_until(DEADLINE, "few drain", few)
    }
}
