//! Clients that nobody here wrote, where the machine has them.

use crate::support::{LINGER, Server, within};
use handover::http::HttpOptions;
use handover::tls::Tls;
use handover_testing::certs::pair;
use std::process::Stdio;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

fn server() -> (Server, NamedTempFile) {
    let pair = pair();
    let ca = NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), &pair.chain).unwrap();
    let tls = Tls::from_pem(&pair.chain, &pair.key).unwrap();
    (Server::with(&tls, HttpOptions::new()), ca)
}

/// `None`: this machine does not have it.
fn curl(server: &Server, ca: &NamedTempFile, args: &[&str], paths: &[&str]) -> Option<Child> {
    let port = server.address.port();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "15", "--noproxy", "*", "--cacert"]).arg(ca.path());
    command.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]).args(args);
    command.args(paths.iter().map(|path| format!("https://localhost:{port}{path}")));
    match command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("curl: {error}"),
    }
}

async fn printed(curl: Child) -> String {
    let output = within("curl", curl.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn curl_with_both_versions_of_http_and_of_tls() {
    for (http, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        for tls in ["1.2", "1.3"] {
            let (server, ca) = server();
            let args = [http, &format!("--tlsv{tls}"), "--tls-max", tls, "--write-out", " %{http_version}\n"];
            let Some(curl) = curl(&server, &ca, &args, &["/a", "/b"]) else { return };
            assert_eq!(printed(curl).await, format!("/a {version}\n/b {version}\n"));
        }
    }
}

#[tokio::test]
async fn curl_in_flight_at_the_drain() {
    for http in ["--http2", "--http1.1"] {
        let (mut server, ca) = server();
        let Some(curl) = curl(&server, &ca, &[http], &["/hold"]) else { return };
        server.arrived("/hold").await;
        server.begin(LINGER).await;
        server.release();
        assert_eq!(printed(curl).await, "/hold");
        server.drained().await;
    }
}

/// It tells a truncation from an end: "read:errno" or "unexpected eof".
#[tokio::test]
async fn openssl_is_answered_in_a_drain_and_told_the_end() {
    for version in ["-tls1_2", "-tls1_3"] {
        let (server, ca) = server();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-ign_eof", version, "-servername", "localhost", "-connect"]);
        command.arg(server.address.to_string()).arg("-CAfile").arg(ca.path()).arg("-verify_return_error");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let Ok(mut client) = command.spawn() else { return };
        let (mut stdin, stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
        let mut lines = BufReader::new(stdout).lines();
        let request = b"GET /1 HTTP/1.1\r\nHost: test\r\n\r\n";
        stdin.write_all(request).await.unwrap();
        assert_eq!(within("a reply", lines.next_line()).await.unwrap().unwrap().trim(), "HTTP/1.1 200 OK");
        server.begin(LINGER).await;
        stdin.write_all(request).await.unwrap();
        let mut rest = String::new();
        within("the end", lines.into_inner().read_to_string(&mut rest)).await.unwrap();
        assert!(rest.contains("connection: close") && rest.ends_with("/1"), "{rest}");
        drop(stdin);
        let mut told = String::new();
        client.stderr.take().unwrap().read_to_string(&mut told).await.unwrap();
        assert!(!told.contains("eof") && !told.contains("errno"), "{told}");
        assert!(within("openssl", client.wait()).await.unwrap().success());
        server.drained().await;
    }
}
