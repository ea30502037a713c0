//! What people see.

use super::server::{Act, Server};
use super::terminal::{WIDTHS, assert_fits, lines, on_a_terminal};

const LOAD: [&str; 8] = ["--reloads", "1", "--every", "200ms", "--keep-alive", "3", "--idle", "3"];

#[tokio::test(flavor = "multi_thread")]
async fn every_line_fits_the_terminal() {
    for columns in WIDTHS {
        // A new one each time: the first answer is what the others are compared with.
        let server = Server::start(|n, _| if n % 40 == 20 { Act::WrongBody } else { Act::Answer }).await;
        let arguments = [
            &["prove", "--url", &server.url, "--reload", "echo a long reason for not doing it >&2; exit 3"],
            &LOAD[..],
        ];
        let arguments = arguments.concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
        let run = move || on_a_terminal(columns, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let (written, code) = tokio::task::spawn_blocking(run).await.unwrap();
        assert_eq!(code, Some(1), "{written}");
        assert_fits(&written, columns);
        let shown = lines(&written);
        let head = shown.iter().find(|line| line.starts_with("requests")).unwrap();
        // What matters is there at any width.
        assert!(head.contains("sent") && head.contains("lost") && head.contains("closed"), "{head}");
        let said = shown.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("connections: 0 closed by the server, 0 opened anew"), "{columns}: {said}");
        let gone = shown.iter().find(|line| line.starts_with("old process gone")).unwrap();
        assert!(gone.ends_with('-'), "it is not known: {gone}");
        assert_eq!(head.contains("unannounced"), columns >= 120, "{columns}: {head}");
        assert!(written.contains("\u{1b}[35mreload 1\u{1b}[0m"), "a reload has its colour: {written}");
    }
}
