//! One generation gives to the other one, in one process.

use std::net::SocketAddr;

use super::*;
use crate::drain::{Connection, StreamOptions, serve_stream};
use crate::systemd::activation::Listener;
use crate::transit::channel::Arrival;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);
const NAME: &str = "lines";

/// The end that gives, and the one of the next generation.
fn channel() -> (Channel, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap())
}

/// A service that sends each byte back, and moves between two.
fn serve(options: StreamOptions) -> (Drain, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    let handler = |connection: Connection| async move {
        let Connection { mut stream, mut mover, .. } = connection;
        loop {
            tokio::select! {
                Some(pass) = mover.ready() => return pass.give(stream, b"", &()),
                byte = stream.read_u8() => match byte {
                    Ok(byte) => stream.write_u8(byte).await?,
                    Err(_) => return Ok(()),
                }
            }
        }
    };
    serve_stream(&drain, NAME, vec![Listener::Tcp(listener)], options.migrate(true), handler).unwrap();
    drain.accept(true);
    (drain, address)
}

async fn ask(client: &mut TcpStream) {
    client.write_u8(7).await.unwrap();
    assert_eq!(timeout(LONG, client.read_u8()).await.unwrap().unwrap(), 7);
}

async fn client(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    ask(&mut client).await;
    client
}

fn takes() -> BTreeSet<String> {
    BTreeSet::from([NAME.to_owned()])
}

#[tokio::test]
async fn a_handover_that_failed_at_its_last_step_leaves_the_way_to_the_next_one() {
    let (drain, address) = serve(StreamOptions::new());
    let client = client(address).await;
    let (failed, gone) = channel();
    drain.move_to(failed, takes(), Duration::ZERO);
    drop(gone);
    let (ours, next) = channel();
    drain.move_to(ours, takes(), Duration::ZERO);
    drain.begin(LONG);
    let arrivals = timeout(LONG, next.parcels()).await.unwrap().unwrap().unwrap();
    let [Arrival::Whole(parcel)] = &arrivals[..] else { panic!("{arrivals:?}") };
    assert_eq!(parcel.record().listener, NAME);
    next.answer(vec![parcel.record().id], Vec::new()).await.unwrap();
    timeout(LONG, drain.drained()).await.unwrap();
    assert_eq!(drain.moved().map(|moved| (moved.moved, moved.stayed())), Some((1, 0)));
    drop(client);
}

/// Of two the next generation takes one, and has no place for the other one.
#[cfg(feature = "metrics")]
#[tokio::test]
async fn a_connection_is_counted_once_over_its_moves() {
    use crate::metrics::{ADOPTED, CONNECTIONS, MOVED, STAYED};

    let (old, address) = serve(StreamOptions::new());
    let mut clients = [client(address).await, client(address).await];
    let (new, _) = serve(StreamOptions::new().max_connections(1));
    let (ours, theirs) = channel();
    let taking = tokio::spawn({
        let new = new.clone();
        async move { new.take_from(theirs).await }
    });
    old.move_to(ours, takes(), Duration::ZERO);
    old.begin(LONG);
    timeout(LONG, old.all_moved()).await.unwrap();
    for client in &mut clients {
        ask(client).await;
    }
    assert_eq!((old.active(), new.active()), (1, 1));

    let counts = |drain: &Drain| {
        let told = serde_json::to_value(drain.metrics().take(100)).unwrap();
        let parts = told.as_array().unwrap().iter().flat_map(|part| part["counts"].as_array().unwrap().clone());
        let named = parts.map(|count| {
            let labels = count["labels"].as_array().unwrap().iter();
            let values: Vec<_> = labels.map(|pair| pair[1].as_str().unwrap().to_owned()).collect();
            (format!("{} {}", count["name"].as_str().unwrap(), values.join(" ")), count["by"].as_u64().unwrap())
        });
        named.collect::<BTreeMap<_, _>>()
    };
    let counted = |name: &str, labels: &str, by: u64| (format!("{name} {NAME} stream{labels}"), by);
    let of_old = [counted(CONNECTIONS, "", 2), counted(MOVED, "", 1), counted(STAYED, " full", 1)];
    assert_eq!(counts(&old), BTreeMap::from(of_old));
    assert_eq!(counts(&new), BTreeMap::from([counted(ADOPTED, "", 1)]));

    // The other one ends where it stayed, which is no move.
    drop(clients);
    timeout(LONG, old.drained()).await.unwrap();
    timeout(LONG, taking).await.unwrap().unwrap();
    assert!(!counts(&old).contains_key(&counted(MOVED, "", 1).0));
}

/// Whose turn had not come is told apart from who has drained without a reason.
#[tokio::test]
async fn whoever_is_left_when_moving_ends_has_stayed() {
    let (drain, address) = serve(StreamOptions::new());
    let mut clients = [client(address).await, client(address).await, client(address).await];
    let (ours, theirs) = channel();
    drain.move_to(ours, takes(), Duration::ZERO);
    drop(theirs);
    drain.begin(LONG);
    timeout(LONG, drain.all_moved()).await.unwrap();
    let moved = drain.moved().unwrap();
    assert_eq!((moved.moved, moved.stayed), (0, BTreeMap::from([("gone", clients.len())])));
    for client in &mut clients {
        ask(client).await;
    }
}
