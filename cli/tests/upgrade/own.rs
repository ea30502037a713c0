//! A service that upgrades itself, by the library alone: it is this binary.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use handover::Program;
use handover::upgrade::{ProgramSource, Trust, Upgrade};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::parts::{executable, program, sha256, unless_busy};
use crate::service::{Load, ask, stripped};
use crate::{Case, cases};
use handover_testing::processes::{self, until};

pub(crate) const CASES: &[Case] = cases![it_upgrades_itself];

/// Of the service: where its program is.
pub(crate) const DIRECTORY: &str = crate::service::DIRECTORY;
pub(crate) const OWN: &str = "HANDOVER_TEST_UPGRADE_OWN";

/// The service.
pub(crate) fn main() -> ExitCode {
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match runtime.block_on(serve(Path::new(&directory))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn serve(directory: &Path) -> handover::Result<()> {
    let service =
        handover::Service::builder().listen("http", "127.0.0.1:0").linger(Duration::from_millis(200)).start()?;
    service.serve_http("http", Router::new().route("/pid", get(async || std::process::id().to_string())))?;
    let source = ProgramSource::file(directory.join("new"));
    let upgrade = Upgrade::builder(directory.join("web"), source, Trust::unsigned()).service(&service)?;
    let drains = service.drain().signal();
    tokio::spawn(async move {
        tokio::select! {
            () = drains => {}
            () = upgrade.poll(Duration::from_secs(1), |_| ()) => {}
        }
    });
    service.run().await
}

fn it_upgrades_itself() {
    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str| directory.path().join(name);
    let own = stripped(&std::env::current_exe().unwrap());
    executable(&here("web"), &own);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let service = || Program::new(here("web")).env(OWN, "1").env(DIRECTORY, directory.path());
    let first = unless_busy(|| service().socket("http", listener.try_clone().unwrap()).start()).pid();
    drop(listener);
    let mut load = Load::start(address);
    let put = |bytes: &[u8]| {
        fs::write(here("part"), bytes).unwrap();
        fs::rename(here("part"), here("new")).unwrap();
    };
    let runs = |bytes: &[u8], other: u32| {
        until("the new program to answer", || {
            let pid = ask(address).unwrap();
            (pid != other && fs::read(format!("/proc/{pid}/exe")).ok()? == bytes).then_some(pid)
        })
    };
    let state = |what: &str, wanted: &dyn Fn(&Value) -> bool| {
        until(what, || {
            let text = fs::read(here(".web.handover/state.json")).ok()?;
            serde_json::from_slice(&text).ok().filter(|state| wanted(state))
        })
    };
    let one = [&own[..], b"1"].concat();
    put(&one);
    let second = runs(&one, first);
    state("the outcome", &|state| state["pending"].is_null() && state["previous"][0] == sha256(&own));
    // Not this service.
    let bad = program("another one");
    put(&bad);
    state("what is bad", &|state| state["pending"].is_null() && state["bad"][0]["sha256"] == sha256(&bad));
    assert!(ask(address).unwrap() == second && fs::read(here("web")).unwrap() == one);
    let two = [&own[..], b"2"].concat();
    put(&two);
    let third = runs(&two, second);
    state("the outcome", &|state| state["pending"].is_null() && state["previous"][0] == sha256(&one));
    assert!(third != second && fs::read(here("web")).unwrap() == two);
    load.lost_nothing();
    for pid in processes::of_service(DIRECTORY, directory.path()).into_keys() {
        processes::signal(pid, Signal::SIGKILL);
    }
}
