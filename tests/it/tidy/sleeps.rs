//! Tests wait for events with deadlines, and do not sleep to be right.

use std::collections::BTreeMap;

use crate::{read_all, report, tokens};

/// Each sleep that a test may have, by the reason: the files, and how many each has.
///
/// What must *not* happen is looked for behind a fence, or on a clock that does not wait: see
/// `moment`, `never` and `pass` in `tests/support/src/waiting.rs`, and `start_paused` of tokio's
/// tests.
const ALLOWED: &[(&str, &[(&str, usize)])] = &[
    (
        "it looks again for what has no event of its own, until a deadline",
        &[
            ("cli/src/commands/prove/usage.rs", 1),
            ("cli/tests/prove/web.rs", 1),
            ("cli/tests/run/world.rs", 1),
            ("cli/tests/upgrade/fetch.rs", 1),
            ("cli/tests/upgrade/service.rs", 1),
            ("load/src/tests.rs", 2),
            ("src/upgrade/check.rs", 2),
            ("tests/it/jobs/main.rs", 1),
            ("tests/it/metrics.rs", 2),
            ("tests/it/reload/moved.rs", 1),
            ("tests/it/service/extra.rs", 1),
            ("tests/support/src/processes.rs", 2),
            ("tests/support/src/service.rs", 2),
            ("tests/systemd/lab/machine.rs", 1),
            ("tests/systemd/lab/mod.rs", 1),
            ("tests/systemd/lab/nspawn.rs", 1),
            ("tests/systemd/scenarios/protocols.rs", 3),
            ("tests/systemd/scenarios/websocket.rs", 1),
        ],
    ),
    (
        "it is the pace of a load, or of a client that is slow",
        &[
            ("cli/tests/prove/bad.rs", 1),
            ("tests/systemd/scenarios/restart.rs", 3),
            ("tests/it/reload/http2/load.rs", 1),
            ("tests/it/reload/secured/client.rs", 1),
            ("tests/it/reload/talks.rs", 1),
            ("tests/it/tls/handshake.rs", 1),
            ("tests/support/src/client.rs", 1),
            ("tests/systemd/reloads.rs", 1),
            ("tests/systemd/scenarios/counter.rs", 1),
            ("tests/systemd/scenarios/http2.rs", 2),
            ("tests/systemd/scenarios/identity.rs", 1),
            ("tests/systemd/scenarios/idle.rs", 1),
            ("tests/systemd/scenarios/streams.rs", 3),
            ("tests/systemd/scenarios/tls/foreign.rs", 1),
            ("tests/systemd/scenarios/tls/load.rs", 4),
            ("tests/systemd/sink_service.rs", 1),
        ],
    ),
    (
        "it is a moment at random, at which something is killed",
        &[
            ("cli/tests/upgrade/crash.rs", 1),
            ("tests/it/reload/crashes.rs", 2),
            ("tests/systemd/scenarios/store.rs", 1),
            ("tests/systemd/scenarios/storm.rs", 1),
        ],
    ),
    (
        "time is simulated",
        &[
            ("src/drain/gate.rs", 3),
            ("src/drain/idleness.rs", 1),
            ("src/drain/moving/pace.rs", 1),
            ("src/drain/pause.rs", 1),
            ("src/drain/waking.rs", 1),
            ("tests/it/jobs/workers.rs", 3),
            ("tests/it/streams/idle.rs", 4),
            // `until` looks again, and one of its tests has a short sleep of the real clock.
            ("tests/support/src/waiting.rs", 5),
        ],
    ),
    (
        "the only thread of a runtime stands still until two of its timers are overdue (and in linger.rs, a client is slow)",
        &[("tests/it/http/linger.rs", 5), ("tests/it/tls/table.rs", 2)],
    ),
    (
        "it looks again, is the pace of a load, and lets a thread that goes by the wall clock look at files that have not \
         changed, which nobody can see",
        &[("tests/it/tls/reload.rs", 4)],
    ),
    (
        "for how long a client is silent is the subject; and it is a moment at random",
        &[("tests/it/reload/moves.rs", 7)],
    ),
    ("rustls asks the wall clock for the age of its tickets", &[("tests/it/tls/tickets.rs", 1)]),
    (
        "the service tells an adopted zombie from one of its own by the time that it has been one",
        &[("tests/it/service/reap.rs", 1)],
    ),
    ("the manager's stand-in closes late, as systemd may", &[("tests/it/store/manager.rs", 1)]),
    (
        "timers show that a runtime goes on; and a thread waits for longer than is said",
        &[("tests/it/store/waiting.rs", 2)],
    ),
    ("a timer shows that the runtime is well", &[("tests/it/systemd_api/child.rs", 1)]),
    ("another process has to have served for a time to be good", &[("cli/tests/run/crashes.rs", 1)]),
    (
        "a reset destroys what its receiver has not read, and nobody can see that it has",
        &[("cli/tests/prove/server.rs", 1)],
    ),
];

#[test]
fn tests_do_not_sleep() {
    let mut found = BTreeMap::new();
    for (name, text) in read_all(&["src", "cli", "load", "tests"]) {
        let is_test = ["tests/", "cli/tests/"].iter().any(|of_tests| name.starts_with(of_tests));
        let tokens = if is_test || name.ends_with("/tests.rs") { tokens::all(&text) } else { tokens::tests(&text) };
        let sleeps = sleeps(&tokens);
        if sleeps > 0 {
            found.insert(name, sleeps);
        }
    }
    let mut broken = Vec::new();
    for (_, files) in ALLOWED {
        for (name, allowed) in *files {
            match found.remove(*name).unwrap_or(0) {
                sleeps if sleeps == *allowed => {}
                sleeps => broken.push(format!("{name}: {sleeps} sleeps, ALLOWED says {allowed}")),
            }
        }
    }
    let new = |(name, sleeps)| {
        format!("{name}: {sleeps} sleeps: wait for an event, or behind a fence (`moment`, `never`, `pass`)")
    };
    broken.extend(found.into_iter().map(new));
    report(&broken);
}

/// How often it sleeps, or waits for a timeout to be over as a proof that nothing else was.
fn sleeps(tokens: &[&str]) -> usize {
    let called = |at: usize, name| tokens[at] == name && tokens.get(at + 1) == Some(&"(");
    let sleeps = |at: usize| {
        // A function of that name, without a time, is another one.
        let declared = at > 0 && tokens[at - 1] == "fn";
        (called(at, "sleep") || called(at, "sleep_until")) && !declared && tokens.get(at + 2) != Some(&")")
    };
    let times_out =
        |at: usize| called(at, "timeout") && after(&tokens[at..]).starts_with(&[".", "await", ".", "is_err"]);
    (0..tokens.len()).filter(|at| sleeps(*at) || times_out(*at)).count()
}

/// What follows the call that this begins with.
fn after<'a, 'b>(call: &'b [&'a str]) -> &'b [&'a str] {
    let mut depth = 0;
    let end = call.iter().position(|token| {
        depth += match *token {
            "(" => 1,
            ")" => -1,
            _ => return false,
        };
        depth == 0
    });
    end.map_or(&[], |end| &call[end + 1..])
}

#[test]
fn sleeps_are_seen() {
    for (code, expected) in [
        ("tokio::time::sleep(LONG).await; thread::sleep(a(b)); sleep(SHORT * 2)", 3),
        ("sleep_until(end).await", 1),
        ("fn sleep(time: Duration) {} sleep().arg(nul()) // sleep(1)", 0),
        ("command(\"sleep(1)\"); let sleep = 1;", 0),
        ("assert!(timeout(a(b), c.d()).await.is_err())", 1),
        ("timeout(a, b).await.unwrap()", 0),
        ("socket.timeout(a).is_err()", 0),
    ] {
        assert_eq!(sleeps(&tokens::all(code)), expected, "{code}");
    }
}
