//! An echo over everything that is not HTTP: TCP, Unix streams, sequential packets, UDP, Unix
//! datagrams. No reload loses a byte.
//!
//! ```sh
//! cargo run --example echo --features journald
//! socat - TCP:127.0.0.1:7007
//! pkill -HUP --exact echo       # a new generation accepts; the conversation goes on in the old one
//! ```
//!
//! A line is echoed, except `who`, which is answered by the generation, and `wait`, which is
//! answered when that generation drains.

use std::error::Error;
use std::io;
use std::time::Duration;

use handover::Service;
use handover::drain::{Connection, Seqpacket};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    handover::logging::init()?;
    // The names in the .socket units; the addresses are for without one.
    let address = |variable: &str, default: &str| std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let service = Service::builder()
        .listen("echo", address("ECHO", "127.0.0.1:7007"))
        .listen_seqpacket("echo-packets", address("ECHO_PACKETS", "@handover-echo-packets"))
        .listen_datagram("echo-datagrams", address("ECHO_DATAGRAMS", "127.0.0.1:7007"))
        .drain_timeout(Duration::from_secs(20))
        .start()?;

    let generation = service.generation();
    service.serve_stream("echo", move |connection| converse(connection, generation))?;
    service.serve_seqpacket("echo-packets", packets)?;
    service.serve_datagrams("echo-datagrams", |datagram| async move { datagram.reply(datagram.bytes()).await })?;
    service.run().await?; // ready, watchdog, SIGHUP → reload, SIGTERM → stop
    Ok(())
}

async fn converse(connection: Connection, generation: u64) -> io::Result<()> {
    let Connection { stream, drain, .. } = connection;
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 {
        match line.as_slice() {
            b"who\n" => line = format!("generation {generation}\n").into_bytes(),
            b"wait\n" => {
                stream.write_all(b"waiting\n").await?;
                drain.await;
                let goodbye = format!("goodbye from generation {generation}\n");
                stream.write_all(goodbye.as_bytes()).await?;
                return stream.shutdown().await;
            }
            _ => {}
        }
        stream.write_all(&line).await?;
        line.clear();
    }
    stream.shutdown().await
}

async fn packets(connection: Connection<Seqpacket>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match connection.stream.recv(&mut buffer).await? {
            0 => return Ok(()),
            n => connection.stream.send(&buffer[..n]).await?,
        }
    }
}
