//! What a candidate must be, before anything is changed for it.

use std::fs;
use std::time::Duration;

use handover::upgrade::{Done, ProgramSource, Trust, Verdict};

use crate::parts::{Place, Signer, not_fetched, program, refused, run, sha256, succeeds, upgraded};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    signatures,
    a_signature_is_of_one_file_and_time,
    checksums,
    formats,
    checks,
    refusals_are_remembered,
    silence_is_not_remembered,
    somebody_else
];

fn signatures() {
    let (place, signer, other) = (Place::new(), Signer::new(), Signer::new());
    let from = place.write("new", &program("1"));
    let signed = |bytes: &[u8]| drop(place.write("new.minisig", bytes));
    let try_it = |trust: Trust| run(&place.taken(place.builder(ProgramSource::file(&from), trust)));
    not_fetched(try_it(signer.trust()), "new.minisig");
    signed(&other.sign(&program("1")));
    refused(try_it(signer.trust()), "another key");
    signed(&signer.sign(&program("2")));
    refused(try_it(signer.trust()), "not of this file");
    let good = signer.sign(&program("1"));
    for bad in [&b""[..], b"nonsense", &good[..good.len() / 2], &[0xff; 100]] {
        signed(bad);
        refused(try_it(signer.trust()), "is not good");
    }
    // The comment is signed, too.
    signed(String::from_utf8(good.clone()).unwrap().replace("1700000000", "1800000000").as_bytes());
    refused(try_it(signer.trust()), "is not good");
    place.is_untouched();
    signed(&good);
    upgraded(&try_it(other.trust().and(signer.trust())));
    place.is("1");
}

fn a_signature_is_of_one_file_and_time() {
    let (place, signer) = (Place::new(), Signer::new());
    let from = place.write("new", &program("1"));
    let builder = || place.builder(ProgramSource::file(&from), signer.trust());
    let put = |version: &str, comment: &str| {
        place.write("new", &program(version));
        place.write("new.minisig", &signer.sign_with(&program(version), comment));
    };
    for comment in ["timestamp:100\tfile:worker\thashed", "a comment", "timestamp:100"] {
        put("1", comment);
        refused(run(&place.taken(builder())), "--any-name");
    }
    place.is_untouched();
    put("1", "timestamp:100\tfile:worker\thashed");
    upgraded(&run(&place.taken(builder().any_name())));
    // Its name there will do, as that of an asset that has the version in it.
    put("2", "timestamp:200\tfile:new\thashed");
    upgraded(&run(&place.taken(builder())));
    // An older one, which is signed and good, and was never refused.
    for comment in ["timestamp:199\tfile:web\thashed", "file:web"] {
        put("3", comment);
        refused(run(&place.taken(builder())), "--allow-older");
        place.is("2");
    }
    put("3", "timestamp:200\tfile:web\thashed");
    upgraded(&run(&place.taken(builder())));
    // One that was not taken is no measure.
    put("4", "timestamp:900\tfile:web\thashed");
    let refusing = builder().reload_with(|| async { Verdict::Refused("bad".into()) }).unwrap();
    assert!(run(&refusing).unwrap_err().is_generation());
    put("5", "timestamp:201\tfile:web\thashed");
    upgraded(&run(&place.taken(builder())));
    put("1", "timestamp:100\tfile:web\thashed");
    refused(run(&place.taken(builder())), "--allow-older");
    upgraded(&run(&place.taken(builder().allow_older())));
    place.is("1");
    put("6", "timestamp:150\tfile:web\thashed");
    refused(run(&place.taken(builder())), "--allow-older");
}

fn checksums() {
    let place = Place::new();
    let from = place.write("new", &program("1"));
    let builder = || place.unsigned(ProgramSource::file(&from));
    refused(run(&place.taken(builder().sha256(&sha256(&program("2"))).unwrap())), "its SHA-256 is");
    not_fetched(run(&place.taken(builder().sha256_in("SUMS"))), "SUMS");
    place.write("SUMS", format!("{}  other\n", sha256(&program("1"))).as_bytes());
    refused(run(&place.taken(builder().sha256_in("SUMS"))), "no SHA-256 of new");
    place.write("SUMS", format!("{}  new\n", sha256(&program("2"))).as_bytes());
    refused(run(&place.taken(builder().sha256_in("SUMS"))), "its SHA-256 is");
    place.is_untouched();
    upgraded(&run(&place.taken(builder().sha256(&sha256(&program("1")).to_uppercase()).unwrap())));
    // Nobody could tell who is at the other end.
    let plain = || place.unsigned(ProgramSource::url("http://127.0.0.1:1/web").unwrap());
    assert!(plain().install_only().unwrap_err().is_invalid());
    assert!(plain().sha256(&"0".repeat(64)).unwrap().install_only().is_ok());
}

fn formats() {
    let place = Place::new();
    let from = place.path("new");
    let good = program("1");
    let mut foreign = good.clone();
    foreign[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    let builder = || place.unsigned(ProgramSource::file(&from));
    for (bytes, why) in [
        (&good[..good.len() / 2], "cut off"),
        (&foreign, "another architecture"),
        (b"#!/bin/sh\n", "script"),
        (b"", "empty"),
        (b"<html>404</html>", "text"),
    ] {
        fs::write(&from, bytes).unwrap();
        refused(run(&place.taken(builder())), why);
        place.is_untouched();
    }
    fs::write(&from, "#!/bin/sh\nexit 0\n").unwrap();
    upgraded(&run(&place.taken(builder().any_format())));
    assert!(succeeds(&place.program));
}

fn checks() {
    let place = Place::new();
    let from = place.write("new", &program("1"));
    let builder = || place.unsigned(ProgramSource::file(&from));
    refused(run(&place.taken(builder().check("{} && exit 9"))), "exit status: 9");
    refused(run(&place.taken(builder().check("kill -9 $$"))), "signal: 9");
    refused(
        run(&place.taken(builder().check("sleep 1000").check_timeout(Duration::from_millis(200)))),
        "not over within",
    );
    place.is_untouched();
    let told = place.path("told");
    upgraded(&run(&place.taken(builder().check(format!("env >{}", told.display())))));
    let told = fs::read_to_string(told).unwrap();
    for line in told.lines() {
        let name = line.split('=').next().unwrap();
        assert!(!name.starts_with("CARGO") && !name.starts_with("RUST"), "{line}");
    }
    assert!(told.contains("CANDIDATE=") && told.contains("PATH="), "{told}");
    place.write("new", &program("2"));
    let seen = place.path("seen");
    upgraded(&run(&place.taken(builder().check(format!("{{}} && stat -c %a {{}} >{}", seen.display())))));
    assert_eq!(fs::read_to_string(seen).unwrap(), "755\n", "as it will be run");
}

fn refusals_are_remembered() {
    let place = Place::new();
    let from = place.write("new", &program("bad"));
    let upgrade = |verdict: fn() -> Verdict, retry: bool| {
        let builder = place.unsigned(ProgramSource::file(&from));
        let builder = if retry { builder.retry() } else { builder };
        builder.reload_with(move || async move { verdict() }).unwrap()
    };
    let refusing = || Verdict::Refused("it exits with status 7".into());
    let error = run(&upgrade(refusing, false)).unwrap_err();
    assert!(error.is_generation() && error.to_string().contains("status 7; the program of before is back"), "{error}");
    place.is("old");
    assert_eq!(place.kept(), [sha256(&program("old"))], "the bad one is gone");
    for _ in 0..2 {
        let known = run(&upgrade(|| Verdict::Taken, false)).unwrap();
        assert_eq!(known, Done::KnownBad { sha256: sha256(&program("bad")), reason: "it exits with status 7".into() });
    }
    // From elsewhere it is the same.
    let copy = place.write("copy", &program("bad"));
    assert!(matches!(run(&place.taken(place.unsigned(ProgramSource::file(copy)))), Ok(Done::KnownBad { .. })));
    fs::write(&from, program("good")).unwrap();
    upgraded(&run(&upgrade(|| Verdict::Taken, false)));
    place.is("good");
    fs::write(&from, program("bad")).unwrap();
    assert!(run(&upgrade(refusing, true)).unwrap_err().is_generation());
    place.is("good");
    upgraded(&run(&upgrade(|| Verdict::Taken, true)));
    place.is("bad");
    let upgrade = upgrade(|| Verdict::Taken, false);
    crate::parts::up_to_date(&run(&upgrade));
}

fn silence_is_not_remembered() {
    let place = Place::new();
    let from = place.write("new", &program("1"));
    let silent = place
        .unsigned(ProgramSource::file(&from))
        .reload_with(|| async { Verdict::Unknown("nobody answers".into()) })
        .unwrap();
    for _ in 0..2 {
        let error = run(&silent).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("nobody answers"), "{error}");
        place.is("old");
    }
    upgraded(&run(&place.taken(place.unsigned(ProgramSource::file(&from)))));
}

/// A package manager, or a person, in between.
fn somebody_else() {
    let place = Place::new();
    let from = place.write("new", &program("1"));
    let (program_path, other) = (place.program.clone(), place.write("other", &program("theirs")));
    fs::set_permissions(&other, fs::metadata(&program_path).unwrap().permissions()).unwrap();
    let upgrade =
        place.unsigned(ProgramSource::file(&from)).check(format!("mv {} {}", other.display(), program_path.display()));
    let error = run(&place.taken(upgrade)).unwrap_err();
    assert!(error.is_state() && error.to_string().contains("somebody else"), "{error}");
    place.is("theirs");
    // While the reload runs: what they put there stays.
    let (to, their) = (program_path.clone(), place.path("again"));
    fs::write(&their, program("theirs again")).unwrap();
    fs::set_permissions(&their, fs::metadata(&program_path).unwrap().permissions()).unwrap();
    let upgrade = place.unsigned(ProgramSource::file(&from)).reload_with(move || {
        fs::rename(&their, &to).unwrap();
        async { Verdict::Refused("bad".into()) }
    });
    let error = run(&upgrade.unwrap()).unwrap_err();
    assert!(error.to_string().contains("somebody else has replaced it"), "{error}");
    place.is("theirs again");
}
