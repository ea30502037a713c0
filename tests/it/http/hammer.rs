//! What is left at the end is cut and named.

use crate::support::{LINGER, Reply, Server, within};

#[tokio::test]
async fn it_names_who_was_doing_what_and_ends_it() {
    let mut server = Server::ours();
    let mut idle = server.client().await;
    let mut half = server.client().await;
    half.send("GET / HTTP/1.1\r\nHo").await;
    let mut busy = server.client().await;
    busy.get("/hold?a=%0a").await;
    server.arrived("/hold").await;
    let mut streaming = server.client().await;
    streaming.get("/stream").await;
    streaming.head().await.unwrap();
    let mut big = server.client().await;
    big.get("/big").await;
    big.head().await.unwrap(); // and no more: the service has done its part, the client has a part of it
    let mut upgraded = server.client().await;
    upgraded.send("GET /upgrade HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n").await;
    upgraded.head().await.unwrap();
    upgraded.send("ping").await;
    assert_eq!(upgraded.take(4).await.unwrap(), b"ping");
    let mut last = server.client().await;
    server.begin(LINGER).await;
    last.get("/last").await;
    assert_eq!(last.reply().await, Some(Reply::last("/last")));
    last.closed().await; // half-closed by us; it does not close

    let mut cuts: Vec<_> = server.drain().hammer().iter().map(ToString::to_string).collect();
    let mut named = |client: &crate::support::Client, what: &str| {
        let start = format!("http: {} (", client.stream.local_addr().unwrap());
        let at = cuts.iter().position(|cut| cut.starts_with(&start)).unwrap_or_else(|| panic!("{start} in {cuts:?}"));
        let cut = cuts.remove(at);
        assert!(cut.contains(what), "{what:?} in {cut:?}");
    };
    named(&idle, "), idle");
    named(&half, "), half a request head");
    named(&busy, "), GET /hold?a=%0a for ");
    named(&streaming, "), GET /stream for ");
    named(&big, ", the answer is not sent yet");
    named(&upgraded, "(upgraded, open for ");
    assert_eq!(cuts, [""; 0], "one that has had its last reply loses nothing");

    within("drained", server.drain().drained()).await;
    for client in [&mut idle, &mut half, &mut busy, &mut streaming, &mut upgraded] {
        client.closed().await;
    }
    assert!(server.drain().hammer().is_empty());
}

#[tokio::test]
async fn it_reaches_an_upgraded_stream_that_waits() {
    let server = Server::ours();
    let mut client = server.client().await;
    client.send("GET /upgrade HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n").await;
    client.head().await.unwrap();
    client.send("ping").await;
    assert_eq!(client.take(4).await.unwrap(), b"ping");
    let cuts = server.drain().hammer();
    assert!(cuts[0].to_string().contains("GET /upgrade for "), "{cuts:?}");
    client.closed().await;
    server.drained().await;
}
