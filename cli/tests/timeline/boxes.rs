//! The page in a real browser: it fits windows from 400 to 1,600 pixels, and nothing covers
//! anything. Optional: without a browser it is not checked, and says so.

use std::path::Path;
use std::process::{Command, Stdio};

use handover::service::events;
use serde_json::Value;

use crate::fleet;
use crate::journal::{Journal, PROCESS_EXIT, STARTED, Times};
use crate::tool::timeline;

const WIDTHS: [u32; 8] = [400, 480, 600, 800, 801, 1000, 1280, 1600];

/// Compares the boxes of each frame, whose width is that of a window, and leaves what it finds in
/// the page.
const SCRIPT: &str = r#"
window.onload = () => {
  const found = [];
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, width = Number(frame.width), at = message => found.push(width + ": " + message);
    const root = page.documentElement;
    if (root.scrollWidth > width) at("the page is " + root.scrollWidth + " wide");
    for (const row of page.querySelectorAll("tr")) {
      if (row.getBoundingClientRect().height > 160) at("a row is " + row.getBoundingClientRect().height + " high: " + row.textContent);
    }
    const pictures = [...page.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width > 0);
    if (pictures.length != 1) at(pictures.length + " pictures are seen");
    for (const svg of pictures) {
      const whole = svg.getBoundingClientRect();
      if (whole.left < 0 || whole.right > width) at("the picture goes from " + whole.left + " to " + whole.right);
      const scale = whole.width / svg.viewBox.baseVal.width;
      if (scale * 12 < 9) at("letters are " + scale * 12 + " pixels high");
      const named = [...svg.querySelectorAll("text, rect[rx]")].map(e => [e.textContent || "a sample of the legend", e.getBoundingClientRect()]);
      for (const [index, [words, box]] of named.entries()) {
        if (box.left < whole.left - 1 || box.right > whole.right + 1 || box.bottom > whole.bottom + 1) at("outside: " + words);
        for (const [others, other] of named.slice(index + 1)) {
          const wide = Math.min(box.right, other.right) - Math.max(box.left, other.left);
          const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
          // The boxes of letters have air above and below.
          if (wide > 0.5 && high > 4 * scale) at("overlap: " + words + " | " + others);
        }
      }
    }
  }
  document.querySelector("pre").textContent = JSON.stringify({ found, frames: document.querySelectorAll("iframe").length });
};
"#;

fn browser() -> Option<&'static str> {
    let is_there = |name: &&str| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(is_there)
}

fn chromium(browser: &str, directory: &Path, arguments: &[&str]) -> String {
    let profile = tempfile::tempdir_in(directory).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every kind of row and mark, large numbers and long words.
fn rich() -> String {
    let mut journal = Journal::new();
    journal.unit = "a-service-with-quite-a-long-name-as-they-are-in-larger-places@instance-17.service".to_owned();
    journal.systemd(STARTED, &[]);
    for generation in 99_997..100_004 {
        let late = generation % 7 * 31;
        journal.wait_ms(8_000).reload(
            generation,
            Times { spawn: 6, ready: 700 + late, switch: 910 + late, handover: 999 + late, drain: 59_000 + late },
        );
        journal.moved(generation, (9_998, 2), 1_900 + late);
    }
    journal.wait_ms(40_000_000).rolled_back(100_004, 30_001, "was not ready within 30s, and wrote to stderr: the configuration /etc/web/web.toml cannot be read: line 17 has a key that is not known, did you mean `listen`?");
    let message =
        "Main process exited, code=killed, status=9/KILL, which is a message of some length that has to be broken";
    journal.wait_ms(3_000).systemd(PROCESS_EXIT, &[("COMMAND", "ExecStart"), ("MESSAGE", message)]);
    journal.wait_ms(1_000).job(7, "timeout", |j| {
        j.wait_ms(90_000);
    });
    let in_place = [("HANDOVER_ID", "ff"), ("GENERATION", "1"), ("RELOAD_MS", "77")];
    journal.wait_ms(9_000).service(77, events::RELOADED_IN_PLACE, &in_place);
    let killed = [("HANDOVER_ID", "ee"), ("GENERATION", "1"), ("OLD_PID", "7"), ("NEW_PID", "8")];
    journal.wait_ms(9_000).service(70, events::HANDED_OVER, &[&killed[..], &[("HANDOVER_MS", "70")]].concat());
    journal.service(30_070, events::HAMMERED, &[&killed[..], &[("DRAIN_MS", "30000"), ("CUT", "12")]].concat());
    journal.sorted().text
}

fn by_systemd() -> String {
    let mut journal = Journal::new();
    for number in 1..5 {
        journal.wait_ms(9_000).job(number, if number == 2 { "failed" } else { "done" }, |j| {
            j.wait_ms(240 * number);
        });
    }
    journal.text
}

#[test]
fn pages_fit_windows_and_nothing_covers_anything() {
    let Some(browser) = browser() else {
        #[expect(clippy::print_stderr, reason = "what cannot be checked here is said")]
        {
            eprintln!("note: optional: pages are not looked at, as no browser is here: apt-get install chromium");
        }
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    for (name, journal) in
        [("twenty", Journal::twenty().text), ("rich", rich()), ("by-systemd", by_systemd()), ("fleet", fleet::all())]
    {
        let page = timeline(&["--html", "-"], &journal);
        assert_eq!(page.code, Some(0), "{page:?}");
        let quoted = page.stdout.replace('&', "&amp;").replace('"', "&quot;");
        let frames: String = WIDTHS
            .iter()
            .map(|width| {
                format!("<iframe width=\"{width}\" height=\"900\" frameborder=\"0\" srcdoc=\"{quoted}\"></iframe>\n")
            })
            .collect();
        let file = directory.path().join(format!("{name}.html"));
        let whole = format!("<!DOCTYPE html><meta charset=utf-8><script>{SCRIPT}</script>{frames}<pre></pre>");
        std::fs::write(&file, whole).unwrap();
        let dom = chromium(browser, directory.path(), &["--dump-dom", &format!("file://{}", file.display())]);
        let told = dom
            .rsplit_once("<pre>")
            .and_then(|(_, rest)| rest.split_once("</pre>"))
            .unwrap_or_else(|| panic!("{dom}"))
            .0;
        let told: Value = serde_json::from_str(&told.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
            .unwrap_or_else(|e| panic!("{e}: {told}"));
        assert_eq!(told["frames"], WIDTHS.len());
        assert_eq!(told["found"], Value::Array(Vec::new()), "{name}: {told:#}");
        // To look at: HANDOVER_TIMELINE_DIR=/some/where
        if let Some(keep) = std::env::var_os("HANDOVER_TIMELINE_DIR") {
            let alone = directory.path().join("alone.html");
            std::fs::write(&alone, &page.stdout).unwrap();
            for width in [500, 1000, 1600] {
                let picture = Path::new(&keep).join(format!("{name}-{width}.png"));
                let arguments = [format!("--screenshot={}", picture.display()), format!("--window-size={width},1200")];
                chromium(
                    browser,
                    directory.path(),
                    &[&arguments[0], &arguments[1], &format!("file://{}", alone.display())],
                );
            }
        }
    }
}
