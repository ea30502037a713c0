//! An endpoint to ask a running service for its status, a reload or a stop, over HTTP: off unless
//! it is served.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | 200 and [`Status`](crate::service::Status) as JSON |
//! | `POST /reload` | when it is over: 200 and how it ended; 409 and the reason, if the next generation failed; 500 otherwise |
//! | `POST /pause` | 200: nothing new is taken, for [10 minutes](crate::control::PAUSE_FOR) at most; `paused` of the status tells when nothing is in hand any more |
//! | `POST /resume` | 200: the pause is over |
//! | `POST /stop`, `POST /drain` | 202; the service finishes what it has accepted, and ends |
//!
//! Its socket is one of the service's own, declared with
//! [`Builder::listen`](crate::Builder::listen): it is handed over in a reload as the others are,
//! and its connections are counted and drained. On a Unix socket the kernel tells who asks: the
//! service's own user and root, and [others that are named](AdminOptions::uid), are let in. On TCP
//! it must be a loopback address, and a [token](AdminOptions::token) is needed; a browser's
//! requests are refused, whatever page sends them. Without a token a request must have been sent to
//! an IP address, to `localhost`, or to a [name that is given](AdminOptions::host): the name of a
//! page's own site may be made to point here. A request of HTTP/1.1 that has no `Host`, or several,
//! is refused.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> handover::Result<()> {
//! use handover::admin::AdminOptions;
//!
//! let service = handover::Service::builder().listen("admin", "/run/web/admin.sock").start()?;
//! service.serve_admin("admin", AdminOptions::new())?;
//! # service.run().await
//! # }
//! ```
//!
//! ```sh
//! curl --unix-socket /run/web/admin.sock -X POST http://web/reload
//! ```

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use ::http::uri::Authority;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use bytes::Bytes;
use http_body::Frame;
use serde_json::{Value, json};

use crate::control::{self, RELOAD_FAILED, Reply, Wish, perform};
use crate::error::{Error, Kind, Result};
use crate::http::{ConnectionInfo, HttpOptions, HyperService, Peer, serve};
use crate::service::{Handle, Service};
use crate::systemd::activation::Listener;

/// The shortest token that is one.
const SHORTEST_TOKEN: usize = 16;

/// How much of a foreign host is told.
const HOST_SHOWN: usize = 100;

/// Who may use the endpoint.
#[derive(Clone, Default)]
#[must_use]
pub struct AdminOptions {
    token: Option<String>,
    open: bool,
    uids: Vec<u32>,
    hosts: Vec<String>,
}

impl AdminOptions {
    /// On a Unix socket the service's own user and root; on TCP nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whoever connects over TCP says `Authorization: Bearer` and this: at least 16 characters,
    /// from a secret that the service was given. It is not asked for on a Unix socket.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Lets in everybody who can connect to the loopback address: every user of this machine, and
    /// of a container every process in it. They must ask for an IP address, for `localhost`, or for
    /// a name that [`host`](Self::host) has given.
    pub fn without_token(mut self) -> Self {
        self.open = true;
        self
    }

    /// Takes requests for this name, too, over TCP without a token: a name in `/etc/hosts` or of a
    /// proxy, without a port.
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// Lets in this user too, on a Unix socket.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uids.push(uid);
        self
    }

    fn check(&self, name: &str, listeners: &[Listener]) -> Result<()> {
        let invalid = |what: String| Err(Error::new(Kind::Invalid, format!("the admin endpoint {name:?} {what}")));
        if self.token.as_ref().is_some_and(|token| token.len() < SHORTEST_TOKEN) {
            return invalid(format!("has a token of less than {SHORTEST_TOKEN} characters, which can be guessed"));
        }
        for listener in listeners {
            let Listener::Tcp(tcp) = listener else { continue };
            let address = tcp.local_addr().map_err(|e| Error::os("a listener's address is not known", e))?;
            if !address.ip().is_loopback() {
                return invalid(format!("would listen on {address}, for other machines: give it a loopback address"));
            }
            if self.token.is_none() && !self.open {
                return invalid(format!(
                    "listens on {address}, where the kernel does not tell who asks: give it a Unix socket, a token \
                     (AdminOptions::token), or say AdminOptions::without_token"
                ));
            }
        }
        Ok(())
    }

    /// Returns whether the request was meant for this machine, and not for a site of another name
    /// that was made to point here (DNS rebinding): to the browser that would be the page's own
    /// site, and it would send no `Origin`.
    fn is_meant(&self, host: &[u8]) -> bool {
        let Ok(authority) = Authority::try_from(host) else { return false };
        let host = authority.host();
        let name = host.strip_suffix('.').unwrap_or(host);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        address.map_or_else(|| host.parse::<Ipv4Addr>().is_ok(), |host| host.parse::<Ipv6Addr>().is_ok())
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Returns whether the request may be answered; over HTTP/2 its host is the URI's.
    fn lets_in(&self, peer: Option<Peer>, uri: &Uri, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        // Only browsers send it, for a page that somebody else may have written.
        if headers.contains_key(ORIGIN) {
            return Err((StatusCode::FORBIDDEN, "not for browsers".into()));
        }
        match peer {
            Some(Peer::Unix { uid: Some(uid), .. }) if self.uids.contains(&uid) => Ok(()),
            Some(peer @ Peer::Unix { .. }) => control::lets_in(&peer).map_err(|why| (StatusCode::FORBIDDEN, why)),
            Some(Peer::Tcp(_)) if self.token.is_none() && self.open => {
                let hosts = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
                let mut hosts = hosts.chain(uri.authority().map(|authority| authority.as_str().as_bytes()));
                match hosts.find(|host| !self.is_meant(host)) {
                    None => Ok(()),
                    Some(host) => Err((
                        StatusCode::MISDIRECTED_REQUEST,
                        format!(
                            "not for the host {:?}: ask for an IP address or localhost (AdminOptions::host allows others)",
                            String::from_utf8_lossy(&host[..host.len().min(HOST_SHOWN)])
                        ),
                    )),
                }
            }
            Some(Peer::Tcp(_)) => {
                let given = headers.get(AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
                match (&self.token, given) {
                    (Some(token), Some(given)) if same(token.as_bytes(), given) => Ok(()),
                    _ => Err((StatusCode::UNAUTHORIZED, "needs the header Authorization: Bearer and the token".into())),
                }
            }
            _ => Err((StatusCode::FORBIDDEN, "the kernel does not tell who asks".into())),
        }
    }
}

/// A token does not belong into a log.
impl std::fmt::Debug for AdminOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token, open, uids, hosts } = self;
        f.debug_struct("AdminOptions")
            .field("token", &token.as_ref().map(|_| "…"))
            .field("open", open)
            .field("uids", uids)
            .field("hosts", hosts)
            .finish()
    }
}

impl Service {
    /// Serves the [admin endpoint](crate::admin) on the listeners of that name.
    ///
    /// # Errors
    /// As [`listeners`](Self::listeners). With [`Error::is_invalid`]: it would be open to other
    /// machines, or to other users of this one without that being said.
    pub fn serve_admin(&self, name: &str, options: AdminOptions) -> Result<()> {
        let listeners = self.listeners(name)?;
        options.check(name, &listeners)?;
        let shared = Arc::new((options, self.handle()));
        let answer = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(answer(&request, &shared.0, &shared.1).await) }
        });
        serve(self.drain(), name, listeners, HttpOptions::default().aside(), HyperService(answer))
    }
}

async fn answer(request: &Request<hyper::body::Incoming>, options: &AdminOptions, handle: &Handle) -> Response<Text> {
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1 {
        // RFC 9112, section 3.2. Without one nobody knows whom the request is meant for.
        return reply(StatusCode::BAD_REQUEST, &json!({ "error": "a request of HTTP/1.1 has one header Host" }));
    }
    let peer = request.extensions().get::<ConnectionInfo>().map(ConnectionInfo::peer);
    if let Err((status, why)) = options.lets_in(peer, request.uri(), request.headers()) {
        tracing::warn!(?peer, "admin: {} refused: {why}", request.uri().path());
        return reply(status, &json!({ "error": why }));
    }
    let (wish, method) = match request.uri().path() {
        "/status" => (Wish::Status { here: false }, Method::GET),
        "/reload" => (Wish::Reload, Method::POST),
        "/pause" => (Wish::Pause(control::PAUSE_FOR), Method::POST),
        "/resume" => (Wish::Resume, Method::POST),
        "/stop" | "/drain" => (Wish::Drain, Method::POST),
        _ => {
            return reply(
                StatusCode::NOT_FOUND,
                &json!({ "error": "there are /status, /reload, /pause, /resume, /stop and /drain" }),
            );
        }
    };
    if *request.method() != method && (method, request.method()) != (Method::GET, &Method::HEAD) {
        let allowed = if matches!(wish, Wish::Status { .. }) { "GET" } else { "POST" };
        let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": format!("only {allowed}") }));
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return refused;
    }
    let Reply { error, parameters, .. } = perform(handle, wish).await;
    let reason = &parameters["reason"];
    match (error.as_deref(), wish) {
        (None, Wish::Status { .. }) => reply(StatusCode::OK, &parameters["status"]),
        (None, Wish::Reload) => reply(StatusCode::OK, &parameters),
        (None, Wish::Pause(_)) => reply(StatusCode::OK, &json!({ "outcome": "paused" })),
        (None, Wish::Resume) => reply(StatusCode::OK, &json!({ "outcome": "resumed" })),
        (None, Wish::Drain) => reply(StatusCode::ACCEPTED, &json!({ "outcome": "stopping" })),
        (Some(RELOAD_FAILED), _) => reply(StatusCode::CONFLICT, &json!({ "outcome": "rolled_back", "error": reason })),
        (Some(_), _) => reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": reason })),
    }
}

fn reply(status: StatusCode, body: &Value) -> Response<Text> {
    let mut response = Response::new(Text(Some(format!("{body}\n").into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// In a time that does not tell where they differ; how long the token is, it may.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0_u8, |so_far, (a, b)| std::hint::black_box(so_far | (a ^ b)));
    a.len() == b.len() && differs == 0
}

/// A body of one piece.
struct Text(Option<Bytes>);

impl http_body::Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, |text| text.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderName;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"secret", b"secret"));
        for other in ["", "s", "secre", "secrets", "Secret", "secreT"] {
            assert!(!same(b"secret", other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn whom_nobody_vouches_for_stays_out() {
        let asked = |options: &AdminOptions, peer: Option<Peer>, headers: &[(&'static str, &str)]| {
            let value = |value: &str| HeaderValue::from_str(value).unwrap();
            let headers =
                headers.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect::<HeaderMap>();
            options.lets_in(peer, &Uri::from_static("/"), &headers).map_err(|(status, _)| status.as_u16())
        };
        let own = nix::unistd::geteuid().as_raw();
        let unix = |uid| Some(Peer::Unix { pid: None, uid, gid: None });
        let tcp = Some(Peer::Tcp(([127, 0, 0, 1], 1).into()));
        let (plain, token) = (AdminOptions::new(), AdminOptions::new().token("0123456789abcdef"));
        assert_eq!(asked(&plain, unix(Some(own)), &[]), Ok(()));
        assert_eq!(asked(&plain, unix(Some(0)), &[]), Ok(()));
        assert_eq!(asked(&plain, unix(Some(own + 77)), &[]), Err(403));
        assert_eq!(asked(&plain.clone().uid(own + 77), unix(Some(own + 77)), &[]), Ok(()));
        assert_eq!(asked(&plain, unix(None), &[]), Err(403));
        assert_eq!(asked(&plain, None, &[]), Err(403));
        assert_eq!(asked(&plain, tcp, &[]), Err(401));
        let origin = ("origin", "http://127.0.0.1");
        let open = plain.without_token();
        assert_eq!(asked(&open, tcp, &[]), Ok(()));
        assert_eq!(asked(&open, tcp, &[origin]), Err(403));
        for meant in ["127.0.0.1", "127.0.0.1:8081", "[::1]:8081", "localhost", "LOCALHOST:8081", "localhost."] {
            assert_eq!(asked(&open, tcp, &[("host", meant)]), Ok(()), "{meant}");
        }
        let rebound = ("host", "page.example:8081");
        for foreign in
            ["page.example", "page.example:8081", "127.0.0.1.page.example", "localhost.page.example", "::1", ""]
        {
            assert_eq!(asked(&open, tcp, &[("host", foreign)]), Err(421), "{foreign}");
        }
        assert_eq!(asked(&open, tcp, &[("host", "127.0.0.1"), rebound]), Err(421));
        assert_eq!(asked(&open.clone().host("Page.example"), tcp, &[rebound]), Ok(()));
        assert_eq!(asked(&token, tcp, &[rebound, ("authorization", "Bearer 0123456789abcdef")]), Ok(()));
        let over_http2 = Uri::from_static("http://page.example/status");
        assert!(open.lets_in(tcp, &over_http2, &HeaderMap::new()).is_err());
        let right = ("authorization", "Bearer 0123456789abcdef");
        assert_eq!(asked(&token, tcp, &[right]), Ok(()));
        assert_eq!(asked(&token, tcp, &[right, origin]), Err(403));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer ", "0123456789abcdef", "Basic 0123456789abcdef"] {
            assert_eq!(asked(&token, tcp, &[("authorization", wrong)]), Err(401), "{wrong}");
        }
        // With both, the token holds.
        assert_eq!(asked(&token.without_token(), tcp, &[]), Err(401));
    }
}
