//! TLS by rustls: a certificate that is replaced in place, and sessions that outlive a generation.
//!
//! ```no_run
//! # fn example() -> handover::Result<()> {
//! use handover::tls::Tls;
//!
//! let tls = Tls::from_files("/etc/ssl/example/fullchain.pem", "/etc/ssl/example/privkey.pem")?;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `http`, `Service::serve_https` serves with it; for other protocols see
//! [`Tls::accept`]. A pair that cannot serve is refused before a client sees it: one of the two
//! files missing, unreadable or half written, a key that is not the certificate's, a certificate
//! out of its time. At the start that is an error. So the first generation does not start with an
//! expired certificate either ([unless told to](TlsOptions::ignore_validity)): clients would refuse
//! it, and a service that says that it is up would hide it.
//!
//! # The certificate is replaced in place
//!
//! The files are [looked at](TlsOptions::poll) every 10 s: a rename over them, another target of a
//! symlink (as certbot and Kubernetes do it) and a plain write are all seen, and used once they
//! have not changed for a second. From then on handshakes get the new pair, and nothing else
//! changes. A bad pair is refused with its reason in the log, once for each change of the files;
//! the pair before serves on. [`Tls::reload`] does it at once. SIGHUP starts a new generation, as
//! ever, which reads the files; if they are bad, that reload fails and the old generation serves on
//! with the pair that it has.
//!
//! # Sessions
//!
//! Clients resume with tickets, in TLS 1.2 and 1.3. Their keys are random, are used for [6
//! h](TlsOptions::ticket_rotation), and known for 12 h. [`Tls::share_tickets`], which `serve_https`
//! does by itself, keeps them where the next generation finds them, and after a crash the restarted
//! one: in memory that only the service's processes and the service manager have. Sessions of
//! clients whose certificates are [verified](TlsOptions::client_verifier) are an exception.
//!
//! # In a drain
//!
//! A connection counts from accept(2) on. A handshake that has begun is finished, within its
//! [timeout](TlsOptions::handshake_timeout); after it, the connection is a fresh one, and lingers.
//! Half a record is half a request. Each close is TLS's own (close_notify), so that no client takes
//! it for an attack; only what the hammer cuts in the middle of an answer ends without it, and that
//! is to be seen. There is more in the chapter [TLS](crate::docs::tls).

mod accept;
#[cfg(feature = "http")]
mod adopt;
mod handle;
mod info;
mod inner;
mod options;
mod pair;
#[cfg(feature = "http")]
mod record;
mod records;
mod stream;
mod tickets;
mod watch;

pub use tokio_rustls::rustls;

pub use self::handle::Tls;
pub use self::info::TlsInfo;
pub use self::options::{MovedClients, TlsOptions};
pub use self::stream::TlsStream;
pub use self::tickets::TicketKeys;
