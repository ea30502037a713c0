//! The command line.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use handover_load::Kind;

/// Drives an HTTP server through reloads and says what its clients lost, and what each reload cost.
///
/// The server may be anything that speaks HTTP: a unit, nginx, a program of yours. The clients
/// follow their protocol and repeat nothing: what the server announced (Connection: close, GOAWAY,
/// a WebSocket's close frame) is no loss, a request that gets no whole answer is.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    /// The server: http://HOST:PORT/PATH, https://HOST:PORT/PATH or unix:/PATH/OF/SOCKET
    #[arg(long, value_name = "URL")]
    pub(super) url: String,
    /// The path of short requests, instead of that in the URL
    #[arg(long, value_name = "PATH")]
    pub(super) path: Option<String>,
    /// Reload by `systemctl reload UNIT`
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["reload", "signal"], help_heading = "Reload")]
    pub(super) unit: Option<String>,
    /// The unit is one of your own `systemctl --user`
    #[arg(long, requires = "unit", help_heading = "Reload")]
    pub(super) user: bool,
    /// Reload by this shell command; it is over when the command is
    #[arg(long, value_name = "COMMAND", conflicts_with = "signal", help_heading = "Reload")]
    pub(super) reload: Option<String>,
    /// Reload by this signal, to --pid or --pidfile
    #[arg(long, value_name = "NAME", help_heading = "Reload")]
    pub(super) signal: Option<String>,
    /// The server's main process, or what supervises it. Where it is the one that answers, its
    /// successor gets the next signal
    #[arg(long, value_name = "N", conflicts_with_all = ["unit", "pidfile"], help_heading = "Reload")]
    pub(super) pid: Option<u32>,
    /// A file with the pid of the main process, read before each signal
    #[arg(long, value_name = "FILE", conflicts_with = "unit", help_heading = "Reload")]
    pub(super) pidfile: Option<PathBuf>,

    /// Clients with one connection that ask at the --cadence [default: 50 if no kind is given]
    #[arg(long, value_name = "N", help_heading = "Clients")]
    keep_alive: Option<usize>,
    /// With a connection for each request [default: 4 if no kind is given]
    #[arg(long, value_name = "N", help_heading = "Clients")]
    fresh: Option<usize>,
    /// With a slow request always in flight (--slow-path)
    #[arg(long, value_name = "N", help_heading = "Clients")]
    slow: Option<usize>,
    /// That upload, in pieces, all the time (--upload-path)
    #[arg(long, value_name = "N", help_heading = "Clients")]
    upload: Option<usize>,
    /// That send four requests in one write
    #[arg(long, value_name = "N", help_heading = "Clients")]
    pipelined: Option<usize>,
    /// That connect, and send only after the next reload has begun
    #[arg(long, value_name = "N", help_heading = "Clients")]
    late: Option<usize>,
    /// That send a part of the head, and the rest only after the next reload has begun
    #[arg(long, value_name = "N", help_heading = "Clients")]
    half_head: Option<usize>,
    /// That read a slow answer all the time (--download-path)
    #[arg(long, value_name = "N", help_heading = "Clients")]
    download: Option<usize>,
    /// That send texts over a WebSocket and wait for each to come back (--websocket-path)
    #[arg(long, value_name = "N", help_heading = "Clients")]
    websocket: Option<usize>,
    /// Connections that ask once and then stay open and silent; one that the server closes is
    /// opened again
    #[arg(long, value_name = "N", help_heading = "Clients")]
    idle: Option<usize>,

    /// Between two requests of a keep-alive, pipelined or WebSocket client: one time, or a range,
    /// such as 40ms-20s, in which it is another one each time
    #[arg(long, value_name = "TIME", default_value = "40ms-80ms", value_parser = cadence, help_heading = "Clients")]
    pub(super) cadence: Range<Duration>,
    /// Between two requests of a client that connects for each
    #[arg(long, value_name = "TIME", default_value = "20ms-40ms", value_parser = cadence, help_heading = "Clients")]
    pub(super) fresh_cadence: Range<Duration>,
    /// {ms} stands for the milliseconds that it shall take
    #[arg(long, value_name = "PATH", default_value = "/sleep?duration={ms}ms", help_heading = "Clients")]
    pub(super) slow_path: String,
    /// How long slow requests take
    #[arg(long, value_name = "TIME", default_value = "1s-3s", value_parser = cadence, help_heading = "Clients")]
    pub(super) slow_time: Range<Duration>,
    /// Where a POST is answered with its body, the body's SHA-256, or always the same
    #[arg(long, value_name = "PATH", default_value = "/upload", help_heading = "Clients")]
    pub(super) upload_path: String,
    /// Something that is always the same and takes its time
    #[arg(long, value_name = "PATH", default_value = "/stream?chunks=40&interval=25ms", help_heading = "Clients")]
    pub(super) download_path: String,
    /// How long that takes
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration, help_heading = "Clients")]
    pub(super) download_time: Duration,
    /// Where texts come back
    #[arg(long, value_name = "PATH", default_value = "/ws", help_heading = "Clients")]
    pub(super) websocket_path: String,

    /// HTTP/2: by ALPN over TLS, else with prior knowledge
    #[arg(long)]
    pub(super) http2: bool,
    /// Accept any certificate
    #[arg(long, conflicts_with = "cacert")]
    pub(super) insecure: bool,
    /// Certificates of the authorities that the server's is checked against (PEM)
    #[arg(long, value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,
    /// Load a host that is not this machine. Do it to your own only
    #[arg(long)]
    pub(super) i_own_this_host: bool,

    /// How many reloads; 0 for a load without any
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Run")]
    pub(super) reloads: u32,
    /// Between the beginnings of two reloads, at least
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration, help_heading = "Run")]
    pub(super) every: Duration,
    /// How long the load lasts, at least [default: until one more --every after the last reload]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Run")]
    pub(super) duration: Option<Duration>,
    /// What is looked at before and after a reload begins; at most half of --every
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = humantime::parse_duration, help_heading = "Run")]
    pub(super) window: Duration,
    /// How long a reload may take until a new process answers; of a reload that starts none, less
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, help_heading = "Run")]
    pub(super) reload_timeout: Duration,
    /// How long an answer may take, beyond what it takes by its nature
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration, help_heading = "Run")]
    pub(super) timeout: Duration,
    /// Between two probes, each of which is a new connection; 0s: back to back, which finds out
    /// more and costs a processor
    #[arg(long, value_name = "TIME", default_value = "2ms", value_parser = humantime::parse_duration, help_heading = "Run")]
    pub(super) probe_every: Duration,
    /// Seed of the load's randomness
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Run")]
    pub(super) seed: u64,

    /// What each short answer must be: {} stands for any part of a line, {generation} for one that
    /// tells who answers [default: the first answer, but for its numbers]
    #[arg(long, value_name = "TEXT", help_heading = "Answers", conflicts_with = "any_body")]
    pub(super) expect_body: Option<String>,
    /// Do not look at what is in a body
    #[arg(long, help_heading = "Answers")]
    pub(super) any_body: bool,
    /// A response header that tells who answers [default: the process that holds the connection, on
    /// this machine]
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    pub(super) generation_header: Option<String>,

    /// Print the result as JSON and nothing else to stdout
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,
    /// Write a page with plots and all numbers
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) html: Option<PathBuf>,
}

impl Options {
    pub(super) fn counts(&self) -> Vec<(Kind, usize)> {
        let mut counts = vec![
            (Kind::KeepAlive, self.keep_alive),
            (Kind::Fresh, self.fresh),
            (Kind::Slow, self.slow),
            (Kind::Upload, self.upload),
            (Kind::Stream, self.download),
            (Kind::Pipelined, self.pipelined),
            (Kind::Late, self.late),
            (Kind::HalfHead, self.half_head),
            (Kind::WebSocket, self.websocket),
            (Kind::Idle, self.idle),
        ];
        if counts.iter().all(|(_, count)| count.is_none()) {
            (counts[0].1, counts[1].1) = (Some(50), Some(4));
        }
        counts.into_iter().filter_map(|(kind, count)| Some((kind, count.filter(|n| *n > 0)?))).collect()
    }
}

/// `40ms` or `40ms-80ms`.
fn cadence(text: &str) -> Result<Range<Duration>, String> {
    let time = |text: &str| humantime::parse_duration(text.trim()).map_err(|e| format!("{text:?}: {e}"));
    let (from, to) = match text.split_once('-') {
        Some((from, to)) => (time(from)?, time(to)?),
        None => (time(text)?, time(text)?),
    };
    if from > to { Err("the range ends before it begins".into()) } else { Ok(from..to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cadences() {
        let ms = Duration::from_millis;
        assert_eq!(cadence("40ms-80ms"), Ok(ms(40)..ms(80)));
        assert_eq!(cadence("1s"), Ok(ms(1000)..ms(1000)));
        assert!(cadence("80ms-40ms").is_err() && cadence("x").is_err());
    }
}
