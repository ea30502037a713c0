//! One process per connection, as inetd did it: for a .socket unit with `Accept=yes`.
//!
//! ```sh
//! systemd-socket-activate --accept -l 7013 ./inetd
//! socat - TCP:127.0.0.1:7013
//! ```

use std::error::Error;

use handover::Service;
use handover::drain::Connection;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    handover::logging::init()?;
    let service = Service::builder().start()?;
    service.serve_connection("connection", |connection| async move {
        let Connection { stream, peer, .. } = connection;
        let mut stream = BufReader::new(stream);
        stream.write_all(format!("pid {} serves {peer}\n", std::process::id()).as_bytes()).await?;
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).await? > 0 {
            stream.write_all(&line).await?;
            line.clear();
        }
        stream.shutdown().await
    })?;
    service.run().await?; // until the connection is closed
    Ok(())
}
