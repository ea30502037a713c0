//! What a program writes.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::info;

/// How much of each of stdout and stderr is kept by default, in bytes.
pub const OUTPUT_LIMIT: usize = 64 * 1024;
/// A longer line is logged in pieces of so many bytes.
pub const LINE_LIMIT: usize = 4096;
/// How long, after a program has ended, its output is still read: something that it left behind may
/// keep the pipe open.
pub const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// Where a program's stdout and stderr go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// The last so many bytes of each are in the report. All is read, so the program never blocks
    /// on a full pipe.
    Capture(usize),
    /// Each line becomes a log event with the job's name, as it comes; nothing is in the report.
    Log,
    /// Where this process's own go: under systemd the journal.
    Inherit,
    /// As the [`Command`](tokio::process::Command) was set up, with files or `null`. Pipes are not
    /// read: they are closed.
    AsGiven,
}

impl Default for Output {
    /// Captures [`OUTPUT_LIMIT`] of the output.
    fn default() -> Self {
        Self::Capture(OUTPUT_LIMIT)
    }
}

/// The end of what a program wrote to one of its outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Captured {
    /// The last bytes, as many as were asked for.
    pub bytes: Vec<u8>,
    /// How many came before them, and are not kept.
    pub omitted: u64,
}

impl Captured {
    /// Returns it as text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

/// Reads one output until its end.
#[derive(Debug)]
pub(super) struct Reader {
    kept: Arc<Mutex<Tail>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    omitted: u64,
}

impl Reader {
    pub(super) fn capture(from: impl AsyncRead + Send + Unpin + 'static, limit: usize) -> Self {
        let kept = Arc::new(Mutex::new(Tail::default()));
        let tail = Arc::clone(&kept);
        let task = tokio::spawn(pump(from, move |piece| {
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.bytes.extend(piece);
            let over = tail.bytes.len().saturating_sub(limit);
            tail.bytes.drain(..over);
            tail.omitted += u64::try_from(over).unwrap_or(u64::MAX);
        }));
        Self { kept, task }
    }

    pub(super) fn log(from: impl AsyncRead + Send + Unpin + 'static, job: Arc<str>, stream: &'static str) -> Self {
        let mut lines = Lines::default();
        let task = tokio::spawn(pump(from, move |piece| {
            for line in lines.take(piece) {
                info!(job = &*job, stream, "{}", String::from_utf8_lossy(&line));
            }
        }));
        Self { kept: Arc::default(), task }
    }

    /// Returns what there is by then.
    pub(super) async fn end(mut self, until: Instant) -> Captured {
        if timeout_at(until, &mut self.task).await.is_err() {
            self.task.abort();
        }
        let mut tail = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Captured { bytes: std::mem::take(&mut tail.bytes).into(), omitted: tail.omitted }
    }
}

/// Reads to the end, and passes each piece on. An empty piece is the end.
async fn pump(mut from: impl AsyncRead + Unpin, mut take: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match from.read(&mut buffer).await {
            // an error is the end, too: there is nobody who could do better
            Ok(0) | Err(_) => return take(&[]),
            Ok(n) => take(&buffer[..n]),
        }
    }
}

#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        if piece.is_empty() && !self.begun.is_empty() {
            lines.push(std::mem::take(&mut self.begun));
        }
        for byte in piece {
            if *byte != b'\n' {
                self.begun.push(*byte);
            }
            if *byte == b'\n' || self.begun.len() == LINE_LIMIT {
                lines.push(std::mem::take(&mut self.begun));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_the_last_one_too() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"a\nb"), [b"a".to_vec()]);
        assert_eq!(lines.take(b"c\n\nd"), [b"bc".to_vec(), Vec::new()]);
        assert_eq!(lines.take(&[]), [b"d".to_vec()]);
        assert!(lines.take(&[]).is_empty());
        assert_eq!(lines.take(&[b'x'; LINE_LIMIT + 1]), [vec![b'x'; LINE_LIMIT]]);
    }

    #[tokio::test]
    async fn the_last_bytes_are_kept() {
        let reader = Reader::capture(&b"0123456789"[..], 4);
        let captured = reader.end(Instant::now() + Duration::from_secs(5)).await;
        assert_eq!((captured.text().as_ref(), captured.omitted), ("6789", 6));
    }
}
