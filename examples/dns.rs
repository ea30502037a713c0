//! A DNS server with one answer: which generation of it there is. Each query is answered, whatever
//! is reloaded meanwhile.
//!
//! ```sh
//! cargo run --example dns --features journald
//! dig @127.0.0.1 -p 5353 +short TXT generation.
//! pkill -HUP --exact dns
//! ```

use std::error::Error;

use handover::Service;
use handover::drain::Datagram;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    handover::logging::init()?;
    let service = Service::builder().listen_datagram("dns", "127.0.0.1:5353").start()?;
    let text = format!("generation {}", service.generation());
    service.serve_datagrams("dns", move |query: Datagram| {
        let answer = answer(query.bytes(), &text);
        async move {
            match answer {
                Some(answer) => query.reply(&answer).await,
                None => Ok(()), // not a query: no answer
            }
        }
    })?;
    service.run().await?;
    Ok(())
}

/// A TXT record for whatever is asked; see RFC 1035, 4.1.
fn answer(query: &[u8], text: &str) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let (id, flags, questions) = (query.get(..2)?, *query.get(2)?, query.get(4..6)?);
    if flags & 0x80 != 0 || questions != [0, 1] {
        return None;
    }
    // The question: labels, each after its length, up to an empty one; then type and class.
    let mut end = HEADER;
    loop {
        match *query.get(end)? {
            0 => break,
            length @ 1..=63 => end += 1 + usize::from(length),
            _ => return None,
        }
    }
    let question = query.get(HEADER..end + 5)?;
    let length = u8::try_from(text.len()).ok()?;
    let mut answer = Vec::from(id);
    answer.extend([0x84 | (flags & 1), 0]); // an answer, authoritative; recursion is as it was desired, and not available
    answer.extend([0, 1, 0, 1, 0, 0, 0, 0]); // one question, one answer
    answer.extend(question);
    answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, length + 1, length]); // its name, TXT, IN, TTL 0, the text's length
    answer.extend(text.as_bytes());
    Some(answer)
}
