//! The harness itself as a service with an fd store: one command a line, one answer a line, one
//! connection each.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;

use handover::state::{State, States};
use handover::systemd::activation::Activation;
use handover::systemd::environment::Environment;
use handover::systemd::fdstore::{FdStore, Names};
use handover::systemd::notify::{Message, Notifier};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Its presence, with the port, makes the harness the service.
pub(crate) const PORT: &str = "HANDOVER_LAB_STORE";

type Failed = Box<dyn std::error::Error>;

pub(crate) fn main(port: &str) -> ExitCode {
    match serve(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &str) -> Result<(), Failed> {
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).finish();
    tracing::subscriber::set_global_default(subscriber)?;
    let environment = Environment::capture();
    let notifier = Notifier::from_env(&environment)?;
    let mut activation = Activation::from_env(&environment)?;
    let store = FdStore::open(&environment, &notifier, &mut activation, &Names::new().prefix("app."))?;
    let state = States::new(store.clone()).state::<u64>("counter");
    println!("rejected {:?} unclaimed {:?}", store.rejected(), store.discard_unclaimed(&mut activation)?);
    // A listener that outlives us, as this is about stored sockets.
    let listener = match store.get("app.port")?.pop() {
        Some(fd) => TcpListener::from(fd),
        None => TcpListener::bind(format!("127.0.0.1:{port}"))?,
    };
    store.put("app.port", &[&listener])?;
    println!("sync {:?}", store.sync());
    notifier.send(&Message::new().ready())?;
    for connection in listener.incoming() {
        // A client that was killed, or hung up: the next one.
        let Ok(connection) = connection else { continue };
        let mut line = String::new();
        if BufReader::new(&connection).read_line(&mut line).is_err() {
            continue;
        }
        let answer = answer(&store, &state, line.trim_end()).unwrap_or_else(|e| format!("error {e}"));
        let _ = writeln!(&connection, "{answer}");
    }
    Ok(())
}

fn answer(store: &FdStore, state: &State<u64>, line: &str) -> Result<String, Failed> {
    let words: Vec<_> = line.split(' ').collect();
    Ok(match words[..] {
        ["put", name, count] => {
            let fds: Vec<_> = (0..count.parse()?).map(|n: u32| memory(&n.to_string())).collect::<Result<_, _>>()?;
            format!("{:?}", store.put(name, &fds)?)
        }
        ["unpolled", name] => format!("{:?}", store.put_unpolled(name, &[nix::unistd::pipe()?.1])?),
        ["hangup", name] => format!("{:?}", store.put(name, &[nix::unistd::pipe()?.1])?),
        ["replace", name, text] => format!("{:?}", store.replace(name, &[memory(text)?])?),
        ["read", name] => {
            let file = File::from(store.get(name)?.pop().ok_or("nothing there")?);
            let mut text = vec![0; usize::try_from(file.metadata()?.len())?];
            file.read_exact_at(&mut text, 0)?;
            String::from_utf8(text)?
        }
        ["take", name] => store.take(name)?.len().to_string(),
        ["list"] => store.list().iter().map(|e| format!("{}={} ", e.name, e.fds)).collect::<String>(),
        ["sync"] => format!("{:?}", store.sync()?),
        ["save", number] => format!("{:?}", state.blocking_save(&number.parse()?)?),
        ["max", number] => {
            let number: u64 = number.parse()?;
            format!("{:?}", state.blocking_update(|there| *there = number.max(*there))?.kept)
        }
        ["load"] => state.blocking_load()?.value().map_or("none".to_owned(), |n| n.to_string()),
        _ => format!("error no command {line:?}"),
    })
}

fn memory(text: &str) -> Result<OwnedFd, Failed> {
    let mut file = File::from(memfd_create(c"lab", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file.into())
}
