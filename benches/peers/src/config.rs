//! The configurations of the servers that have one.

use std::path::Path;

use crate::peer::Idle;

/// How long an old process of theirs waits for its connections, in seconds: as the others'.
const DRAIN: u64 = peers::DRAIN.as_secs();

/// Slow requests go on to the port `slow`.
pub(crate) fn nginx(here: &Path, port: u16, slow: u16, idle: Option<Idle>) -> String {
    let here = here.display();
    let (wait, min) = match idle {
        Some(Idle::Close) => (format!("worker_shutdown_timeout {DRAIN}s;"), String::new()),
        Some(Idle::Keep) => (format!("worker_shutdown_timeout {DRAIN}s;"), format!("keepalive_min_timeout {DRAIN}s;")),
        None => Default::default(),
    };
    format!(
        "daemon off; worker_processes 1; worker_rlimit_nofile 60000; pid {here}/pid; error_log {here}/error.log; {wait}\n\
         events {{ worker_connections 30000; }}\n\
         http {{ access_log off; keepalive_timeout 75s; keepalive_requests 1000000; {min}\n\
         client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f;\n\
         uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
         server {{ listen 127.0.0.1:{port}; location = / {{ return 200 \"pid 1\\n\"; }}\n\
         location /sleep {{ proxy_pass http://127.0.0.1:{slow}; }} }} }}\n"
    )
}

/// Slow requests go on to the port `slow`.
pub(crate) fn haproxy(here: &Path, port: u16, slow: u16, idle: Option<Idle>) -> String {
    let (threads, option) = match idle {
        Some(Idle::Close) => ("  nbthread 1\n", "  no option idle-close-on-response\n"),
        Some(Idle::Keep) => ("  nbthread 1\n", "  option idle-close-on-response\n"),
        None => ("", ""),
    };
    format!(
        "global\n  maxconn 30000\n  no strict-limits\n{threads}  stats socket {}/stats mode 600 expose-fd listeners\n  \
         hard-stop-after {DRAIN}s\n\
         defaults\n  mode http\n  timeout client 75s\n  timeout server 30s\n  timeout connect 5s\n\
         frontend web\n  bind 127.0.0.1:{port}\n{option}  http-request return status 200 content-type text/plain \
         lf-string \"pid 1\\n\" if {{ path / }}\n  default_backend slow\n\
         backend slow\n  server slow 127.0.0.1:{slow}\n",
        here.display()
    )
}
