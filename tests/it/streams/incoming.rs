//! Accept loops of others: in turn, counted, cut.

use std::io::ErrorKind;
use std::time::Duration;

use handover::drain::{Drain, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{never, tcp, until, within};

/// As a framework does it: whatever comes is answered, again and again.
fn framework(drain: &Drain, generation: &'static str) -> std::net::SocketAddr {
    let (mut listeners, address) = tcp();
    serve(Incoming::new(drain, "other", listeners.remove(0)), generation);
    address
}

fn serve(mut incoming: Incoming, generation: &'static str) {
    tokio::spawn(async move {
        loop {
            let (mut stream, peer) = incoming.accept().await;
            assert_eq!(stream.peer(), peer);
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(1..) => stream.write_all(generation.as_bytes()).await.unwrap(),
                        Ok(0) => return,
                        Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionAborted),
                    }
                }
            });
        }
    });
}

async fn ask(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(b"?").await.unwrap();
    let mut buffer = [0; 64];
    match within("an answer", stream.read(&mut buffer)).await {
        Ok(n @ 1..) => Some(String::from_utf8_lossy(&buffer[..n]).into_owned()),
        _ => None,
    }
}

#[tokio::test]
async fn it_accepts_while_it_is_its_turn_and_counts() {
    let drain = Drain::new();
    let address = framework(&drain, "1");
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"?").await.unwrap();
    let mut buffer = [0; 64];
    never("an answer before its turn", client.read(&mut buffer)).await;
    assert_eq!(drain.active(), 0);
    drain.accept(true);
    assert_eq!(within("an answer", client.read(&mut buffer)).await.unwrap(), 1);
    assert_eq!(drain.active(), 1);
    drain.begin(Duration::from_secs(60));
    assert_eq!(ask(&mut client).await.as_deref(), Some("1"), "what was taken is served");
    drop(client);
    within("drained", drain.drained()).await;
}

/// Two generations on one socket: what comes after the switch is the new one's.
#[tokio::test]
async fn after_the_switch_the_old_one_takes_nothing() {
    let (mut listeners, address) = tcp();
    let listener = listeners.remove(0);
    let (old, new) = (Drain::new(), Drain::new());
    serve(Incoming::new(&new, "other", listener.try_clone().unwrap()), "2");
    serve(Incoming::new(&old, "other", listener), "1");
    old.accept(true);
    let mut first = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut first).await.as_deref(), Some("1"));
    old.accept(false);
    new.accept(true);
    old.begin(Duration::from_secs(60));
    for _ in 0..20 {
        let mut later = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut later).await.as_deref(), Some("2"));
    }
    assert_eq!(ask(&mut first).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn the_hammer_names_and_ends_it() {
    let drain = Drain::new();
    let address = framework(&drain, "1");
    drain.accept(true);
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut client).await.as_deref(), Some("1"));
    let cuts: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
    let name = format!("other: {}, open for ", client.local_addr().unwrap());
    assert!(cuts.len() == 1 && cuts[0].starts_with(&name), "{cuts:?}");
    assert_eq!(ask(&mut client).await, None);
    until("gone", || drain.active() == 0).await;
}
