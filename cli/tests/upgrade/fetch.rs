//! From a file, and from a static server that answers well and badly.

use std::time::{Duration, Instant};

use handover::upgrade::{Done, Http, ProgramSource, UpgradeStep};

use crate::parts::{Place, block_on, not_fetched, program, refused, run, sha256, up_to_date, upgraded};
use crate::serve::{Answer, Server};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    a_file,
    over_tls,
    etags_save_the_download,
    modification_times_do_too,
    what_is_missing_or_broken,
    cut_off,
    too_large,
    too_slow,
    redirects,
    an_unknown_certificate,
    secrets_stay_where_they_belong,
    looking_changes_nothing,
    one_at_a_time,
    polling,
];

fn source(server: &Server, path: &str) -> ProgramSource {
    ProgramSource::url(&server.url(path)).unwrap()
}

fn a_file() {
    let place = Place::new();
    let from = place.write("new", &program("1"));
    let upgrade = place.taken(place.unsigned(ProgramSource::file(&from)));
    upgraded(&run(&upgrade));
    place.is("1");
    up_to_date(&run(&upgrade));
    for version in ["2", "3", "4", "5"] {
        place.write("new", &program(version));
        upgraded(&run(&upgrade));
        place.is(version);
    }
    let mut kept: Vec<_> = ["2", "3", "4", "5"].iter().map(|version| sha256(&program(version))).collect();
    kept.sort();
    assert_eq!(place.kept(), kept, "it, and three before");
    std::fs::remove_file(&from).unwrap();
    not_fetched(run(&upgrade), "cannot be read");
    place.is("5");
    // And back, from what is kept; not to be taken again.
    place.write("new", &program("5"));
    upgraded(&block_on(upgrade.back()));
    place.is("4");
    assert!(matches!(run(&upgrade), Ok(Done::KnownBad { .. })));
    upgraded(&block_on(upgrade.back()));
    upgraded(&block_on(upgrade.back()));
    place.is("2");
    assert!(block_on(upgrade.back()).unwrap_err().is_state(), "there is no other");
}

fn over_tls() {
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    server.put("/dl/web?v=1%202", Answer::file(program("1")));
    server
        .put("/dl/SUMS?v=1%202", Answer::file(format!("{}  other\n{}  web\n", "0".repeat(64), sha256(&program("1")))));
    let builder = place.unsigned(source(&server, "/dl/web?v=1%202")).ca_file(place.path("ca.pem"));
    upgraded(&run(&place.taken(builder.sha256_in("SUMS"))));
    place.is("1");
}

fn etags_save_the_download() {
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    let put = |version, etag| {
        server.put("/web", Answer::File(program(version), Some(etag), Some("Mon, 01 Jan 2026 00:00:00 GMT")))
    };
    put("1", "\"one\"");
    let upgrade = place.taken(place.unsigned(source(&server, "/web")).ca_file(place.path("ca.pem")));
    upgraded(&run(&upgrade));
    for _ in 0..2 {
        up_to_date(&run(&upgrade));
    }
    let statuses = |server: &Server| server.asked().iter().map(|asked| asked.status).collect::<Vec<_>>();
    assert_eq!(statuses(&server), [200, 304, 304]);
    put("2", "\"two\"");
    upgraded(&run(&upgrade));
    up_to_date(&run(&upgrade));
    assert_eq!(statuses(&server), [200, 304]);
    // The file was replaced by hand: what the server has is wanted again, whole.
    std::fs::write(place.path("by-hand"), program("0")).unwrap();
    std::fs::set_permissions(place.path("by-hand"), std::fs::metadata(&place.program).unwrap().permissions()).unwrap();
    std::fs::rename(place.path("by-hand"), &place.program).unwrap();
    upgraded(&run(&upgrade));
    place.is("2");
    assert_eq!(statuses(&server), [200]);
    // Another version with the bytes of this one: downloaded once more, and remembered.
    put("2", "\"three\"");
    up_to_date(&run(&upgrade));
    up_to_date(&run(&upgrade));
    assert_eq!(statuses(&server), [200, 304]);
}

fn modification_times_do_too() {
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    server.put("/web", Answer::File(program("1"), None, Some("Mon, 01 Jan 2026 00:00:00 GMT")));
    let upgrade = place.taken(place.unsigned(source(&server, "/web")).ca_file(place.path("ca.pem")));
    upgraded(&run(&upgrade));
    up_to_date(&run(&upgrade));
    assert_eq!(server.asked().iter().map(|asked| asked.status).collect::<Vec<_>>(), [200, 304]);
}

/// Each answer, and what is said of it.
fn fails(answer: Answer, why: &str) {
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    server.put("/web", answer);
    let upgrade = place.taken(place.unsigned(source(&server, "/web")).ca_file(place.path("ca.pem")));
    not_fetched(run(&upgrade), why);
    place.is_untouched();
    server.put("/web", Answer::file(program("1")));
    upgraded(&run(&upgrade));
    place.is("1");
}

fn what_is_missing_or_broken() {
    fails(Answer::Status(404), "404");
    fails(Answer::Status(500), "500");
    fails(Answer::Status(503), "503");
    fails(Answer::Status(403), "credentials");
    fails(Answer::Status(204), "204");
    fails(Answer::Status(304), "304");
    fails(Answer::Encoded(program("1")), "encoding");
}

fn cut_off() {
    let bytes = program("1");
    fails(Answer::Length(bytes.clone(), bytes.len() + 1), "bytes");
    fails(Answer::Cut(bytes.clone()), "bytes");
    // Fewer are announced than are there: what came is short, and its headers tell.
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    server.put("/web", Answer::Length(bytes.clone(), bytes.len() / 2));
    let upgrade = place.taken(place.unsigned(source(&server, "/web")).ca_file(place.path("ca.pem")));
    refused(run(&upgrade), "cut off");
    place.is_untouched();
}

fn too_large() {
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    let build =
        || place.taken(place.unsigned(source(&server, "/web")).ca_file(place.path("ca.pem")).max_size(1_000_000));
    server.put("/web", Answer::Endless);
    refused(run(&build()), "more than 1000000 bytes");
    server.put("/web", Answer::Length(Vec::new(), 1_000_001));
    refused(run(&build()), "1000001 bytes");
    let from = place.write("new", &vec![0; 1_000_001]);
    refused(run(&place.taken(place.unsigned(ProgramSource::file(from)).max_size(1_000_000))), "1000001 bytes");
    place.is_untouched();
}

fn too_slow() {
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    server.put("/web", Answer::Stalls(program("1")));
    let builder = || place.unsigned(source(&server, "/web")).ca_file(place.path("ca.pem"));
    let began = Instant::now();
    not_fetched(run(&place.taken(builder().read_timeout(Duration::from_millis(300)))), "timed out");
    not_fetched(run(&place.taken(builder().fetch_timeout(Duration::from_millis(300)))), "not fetched within");
    assert!(began.elapsed() < crate::PATIENCE / 2, "and not by the defaults");
    place.is_untouched();
}

fn redirects() {
    let place = Place::new();
    let (server, plain) = (Server::tls(&place.path("ca.pem")), Server::plain());
    let builder = |path: &str| place.unsigned(source(&server, path)).ca_file(place.path("ca.pem"));
    server.put("/loop", Answer::Redirect("/loop".into()));
    not_fetched(run(&place.taken(builder("/loop"))), "more than 10 redirects");
    assert_eq!(server.asked().len(), 11);
    plain.put("/web", Answer::file(program("1")));
    server.put("/down", Answer::Redirect(plain.url("/web")));
    not_fetched(run(&place.taken(builder("/down"))), "from https to http");
    assert_eq!(plain.asked().len(), 0, "not even asked");
    place.is_untouched();
    for n in 0..10 {
        server.put(&format!("/{n}"), Answer::Redirect(format!("/{}", n + 1)));
    }
    server.put("/10", Answer::file(program("1")));
    upgraded(&run(&place.taken(builder("/0"))));
}

fn an_unknown_certificate() {
    let place = Place::new();
    let (server, _other) = (Server::tls(&place.path("ca.pem")), Server::tls(&place.path("other.pem")));
    server.put("/web", Answer::file(program("1")));
    not_fetched(
        run(&place.taken(place.unsigned(source(&server, "/web")).ca_file(place.path("other.pem")))),
        "certificate",
    );
    not_fetched(run(&place.taken(place.unsigned(source(&server, "/web")))), "certificate");
    assert!(
        place.unsigned(source(&server, "/web")).ca_file(place.path("none")).install_only().unwrap_err().is_invalid()
    );
    place.is_untouched();
}

fn secrets_stay_where_they_belong() {
    let place = Place::new();
    let (server, other) = (Server::tls(&place.path("ca.pem")), Server::plain());
    server.put("/web?key=hush", Answer::file(program("1")));
    server.put("/away", Answer::Status(500));
    let url = server.url("/web?key=hush").replace("://", "://me:hush@");
    let http = Http::new(&url).unwrap();
    upgraded(&run(&place.taken(place.unsigned(http).ca_file(place.path("ca.pem")))));
    assert!(server.asked()[0].headers["authorization"].starts_with("Basic "));
    // On to another host, the header does not go.
    let http = Http::new(&other.url("/away?key=hush")).unwrap().header("authorization", "Bearer hush").unwrap();
    other.put(
        "/away?key=hush",
        Answer::Redirect(format!("{}?key=hush", server.url("/web")).replace("127.0.0.1", "localhost")),
    );
    server.put("/web?key=hush", Answer::Status(500));
    let upgrade = place.unsigned(http).ca_file(place.path("ca.pem")).resolve("localhost", server.address);
    let upgrade = place.taken(upgrade.sha256(&"0".repeat(64)).unwrap());
    let error = run(&upgrade).unwrap_err();
    assert!(error.is_fetch() && !error.to_string().contains("hush"), "{error}");
    assert_eq!(other.asked()[0].headers["authorization"], "Bearer hush");
    let asked = server.asked();
    assert!(asked.len() == 1 && !asked[0].headers.contains_key("authorization"), "{asked:?}");
    let state = std::fs::read_to_string(place.path(".web.handover/state.json")).unwrap();
    assert!(!state.contains("hush") && !format!("{upgrade:?}").contains("hush"), "{state}");
}

fn looking_changes_nothing() {
    let place = Place::new();
    let from = place.write("new", &program("1"));
    let upgrade = place.taken(place.unsigned(ProgramSource::file(&from)).check("exit 0"));
    let found = block_on(upgrade.look()).unwrap();
    assert_eq!(found, Done::Available { sha256: sha256(&program("1")), current: sha256(&program("old")) });
    place.is_untouched();
    assert!(!place.path(".web.handover/state.json").exists());
}

fn one_at_a_time() {
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    server.put("/web", Answer::Stalls(program("1")));
    let slow = place.taken(place.unsigned(source(&server, "/web")).ca_file(place.path("ca.pem")));
    let other = place.taken(place.unsigned(ProgramSource::file(place.write("new", &program("1")))));
    block_on(async {
        let running = tokio::spawn(async move { slow.run().await });
        while !place.steps.lock().unwrap().contains(&UpgradeStep::Locked) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let busy = other.run().await.unwrap_err();
        assert!(busy.is_state() && busy.to_string().contains("another upgrade"), "{busy}");
        // Cancelled before the install: nothing is left, and the lock is free.
        running.abort();
        let _ = running.await;
    });
    place.is_untouched();
    upgraded(&run(&other));
}

fn polling() {
    let place = Place::new();
    let server = Server::tls(&place.path("ca.pem"));
    server.put("/web", Answer::File(program("1"), Some("\"1\""), None));
    let upgrade = place.taken(place.unsigned(source(&server, "/web")).ca_file(place.path("ca.pem")));
    let mut outcomes = 0;
    block_on(async {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let polling = upgrade.poll::<()>(Duration::from_secs(1), |outcome| {
            outcomes += 1;
            if outcomes == 2 {
                server.put("/web", Answer::File(program("2"), Some("\"2\""), None));
            }
            told.send(matches!(outcome, Ok(Done::Upgraded { .. }))).unwrap();
        });
        let wanted = async {
            for expected in [true, false, true, false] {
                assert_eq!(heard.recv().await, Some(expected));
            }
        };
        tokio::select! {
            () = polling => {}
            () = wanted => {}
        }
    });
    place.is("2");
    assert_eq!(server.asked().iter().map(|asked| asked.status).collect::<Vec<_>>(), [200, 304, 200, 304]);
}
