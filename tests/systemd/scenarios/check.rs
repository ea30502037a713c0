//! What `handover check` says of units is what systemd does with them: of hand-written faults, of
//! every setting, and of the units of some 270 packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::directives;
use super::web::{Setup, UNIT, Web};
use crate::TOP;
use crate::lab::{Container, Outcome, Scenario, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("check_knows_what_is_not_loaded", faults).system_only(),
    Scenario::new("check_knows_every_setting", settings).system_only(),
    Scenario::new("check_knows_every_value", values).system_only(),
    Scenario::new("check_agrees_on_a_corpus", corpus).system_only(),
    Scenario::new("check_finds_templates_by_name", templates).system_only(),
    Scenario::new("check_asks_the_service_that_runs", |lab| running(lab, "RuntimeDirectory=web\n")).system_only(),
    Scenario::new("check_reads_what_the_service_has_logged", |lab| running(lab, "")).system_only(),
];

/// For hundreds of units at once, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);
/// The kinds of faults that systemd answers with another LoadState than `loaded`, and their nearest
/// neighbours.
const FAULTS: &[(&str, &str, &str)] = &[
    ("plain.service", "[Service]\nExecStart=/bin/true\n", "loaded"),
    ("no-start.service", "[Service]\nType=notify\n", "bad-setting"),
    ("no-start-simple.service", "[Service]\nType=simple\nExecStop=/bin/true\n", "bad-setting"),
    ("nothing.service", "[Unit]\nDescription=nothing\n", "bad-setting"),
    ("only-stop.service", "[Service]\nExecStop=/bin/true\nRemainAfterExit=yes\n", "loaded"),
    ("only-stop-gone.service", "[Service]\nExecStop=/bin/true\n", "bad-setting"),
    ("success.service", "[Unit]\nSuccessAction=exit\n[Service]\nType=oneshot\n", "loaded"),
    ("two.service", "[Service]\nType=notify\nExecStart=/bin/true\nExecStart=/bin/false\n", "bad-setting"),
    ("two-in-one.service", "[Service]\nExecStart=/bin/true ; /bin/false\n", "bad-setting"),
    ("two-after-reset.service", "[Service]\nExecStart=/bin/true\nExecStart=\nExecStart=/bin/false\n", "loaded"),
    ("two-jobs.service", "[Service]\nType=oneshot\nExecStart=/bin/true\nExecStart=/bin/false\n", "loaded"),
    ("oneshot-always.service", "[Service]\nType=oneshot\nExecStart=/bin/true\nRestart=always\n", "bad-setting"),
    ("oneshot-failure.service", "[Service]\nType=oneshot\nExecStart=/bin/true\nRestart=on-failure\n", "loaded"),
    ("oneshot-cgroup.service", "[Service]\nType=oneshot\nExitType=cgroup\nExecStart=/bin/true\n", "bad-setting"),
    ("dbus.service", "[Service]\nType=dbus\nExecStart=/bin/true\n", "bad-setting"),
    ("dbus-named.service", "[Service]\nBusName=org.example.x\nExecStart=/bin/true\n", "loaded"),
    ("pam.service", "[Service]\nPAMName=login\nKillMode=process\nExecStart=/bin/true\n", "bad-setting"),
    ("header.service", "[Service]\nExecStart=/bin/true\n[Install\nWantedBy=multi-user.target\n", "error"),
    ("first-header.service", "[Service\nExecStart=/bin/true\n", "error"),
    ("latin.service", "[Service]\nExecStart=/bin/true\n# K\nSyslogIdentifier=B\u{0}\u{e4}r\n", "loaded"),
    ("quote.service", "[Service]\nExecStart=/bin/sh -c 'true\n", "bad-setting"),
    ("quote-heedless.service", "[Service]\nExecStart=/bin/true\nExecReload=-/bin/sh -c 'true\n", "loaded"),
    ("quote-reload.service", "[Service]\nExecStart=/bin/true\nExecReload=/bin/sh -c 'true\n", "bad-setting"),
    ("relative.service", "[Service]\nExecStart=bin/true\n", "bad-setting"),
    ("bare.service", "[Service]\nExecStart=true\n", "loaded"),
    ("slash.service", "[Service]\nExecStart=/bin/\n", "bad-setting"),
    ("relative-pre.service", "[Service]\nExecStartPre=./x\nExecStart=/bin/true\n", "bad-setting"),
    ("dynamic.service", "[Service]\nExecStart=/bin/true\nDynamicUser=perhaps\n", "bad-setting"),
    ("dynamic-empty.service", "[Service]\nExecStart=/bin/true\nDynamicUser=\n", "bad-setting"),
    ("root.service", "[Service]\nExecStart=/bin/true\nRootDirectory=srv\n", "bad-setting"),
    ("directory.service", "[Service]\nExecStart=/bin/true\nWorkingDirectory=srv\n", "bad-setting"),
    ("directory-heedless.service", "[Service]\nExecStart=/bin/true\nWorkingDirectory=-srv\n", "loaded"),
    ("directory-home.service", "[Service]\nExecStart=/bin/true\nWorkingDirectory=~\n", "loaded"),
    ("value.service", "[Service]\nExecStart=/bin/true\nType=nonsense\nRestart=perhaps\n", "loaded"),
    ("hex.service", "[Service]\nExecStart=/bin/true\nFileDescriptorStoreMax=0x40\n", "loaded"),
    ("octal.service", "[Service]\nExecStart=/bin/true\nFileDescriptorStoreMax=010\n", "loaded"),
    ("line.service", "[Service]\nExecStart=/bin/true\nnonsense\n=x\n", "loaded"),
    ("section.service", "[Service]\nExecStart=/bin/true\n[Servce]\nType=notify\n[Socket]\nAccept=yes\n", "loaded"),
    ("no-listen.socket", "[Socket]\nAccept=no\n", "bad-setting"),
    ("accept-service.socket", "[Socket]\nListenStream=1\nAccept=yes\nService=plain.service\n", "bad-setting"),
    ("accept-datagram.socket", "[Socket]\nListenDatagram=2\nAccept=yes\n", "bad-setting"),
    ("plain.socket", "[Socket]\nListenStream=3\n", "loaded"),
];

/// What the tool says of one unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// `loaded`, `bad-setting`, `error`.
    state: String,
    /// Lines whose settings systemd does not know, as `FILE:LINE`.
    unknown: BTreeSet<String>,
}

fn faults(lab: &Container) -> Outcome {
    let directory = lab.host_dir().join("faults");
    fs::create_dir_all(&directory)?;
    for (name, text, _) in FAULTS {
        fs::write(directory.join(name), text)?;
    }
    fs::write(directory.join("bytes.service"), b"[Service]\nExecStart=/bin/true\nSyslogIdentifier=B\xe4r\n")?;
    fs::write(
        directory.join("long.service"),
        format!("[Service]\nExecStart=/bin/true\nEnvironment=A={}\n", "x".repeat(1 << 20)),
    )?;
    fs::write(directory.join("plain@.service"), "[Service]\nExecStart=/bin/true %i\n")?;
    let states = compared(lab, &directory)?;
    let wrong: Vec<_> = FAULTS.iter().filter(|(name, _, state)| states[*name] != *state).collect();
    assert!(wrong.is_empty(), "systemd itself sees these otherwise: {wrong:?} {states:#?}");
    assert_eq!(
        (states["long.service"].as_str(), lab.show("hex.service", "FileDescriptorStoreMax")?.as_str()),
        ("error", "64")
    );
    assert_eq!(lab.show("octal.service", "FileDescriptorStoreMax")?, "8");
    Ok(())
}

/// A service and a socket with every setting of the table, and some that nobody knows.
fn settings(lab: &Container) -> Outcome {
    directives::compare(lab)?;
    let sections = directives::table()?;
    let directory = lab.host_dir().join("settings");
    fs::create_dir_all(&directory)?;
    // All keys in all sections: where they do not belong, systemd does not know them. Of one kind
    // of finding the tool names a hundred in a unit.
    let mut keys: Vec<_> = sections.values().flat_map(BTreeMap::keys).collect();
    keys.sort_unstable();
    keys.dedup();
    for (number, some) in keys.chunks(30).enumerate() {
        for (kind, own) in [("service", "Service"), ("socket", "Socket")] {
            let mut text = String::new();
            for section in ["Unit", own, "Install"] {
                text.push_str(&format!("[{section}]\nX-Ours=\nx-theirs=\nNobodyKnows=\n"));
                // Of this one alone an empty value is a reason not to load the unit.
                let value = |key: &str| if key == "DynamicUser" { "no" } else { "" };
                some.iter().for_each(|key| text.push_str(&format!("{key}={}\n", value(key))));
            }
            text.push_str(&format!("[{own}]\nExecStart=/bin/true\nListenStream=1\n"));
            fs::write(directory.join(format!("all{number}.{kind}")), text)?;
        }
    }
    compared(lab, &directory)?;
    Ok(())
}

/// Each value that the table has of a setting of a service, and one that nobody has: what systemd
/// cannot read, the tool says, and nothing else.
fn values(lab: &Container) -> Outcome {
    let directory = lab.host_dir().join("values");
    fs::create_dir_all(&directory)?;
    for (key, said) in directives::table()?.remove("Service").unwrap_or_default() {
        let Some(all) = said.split(' ').find(|word| word.contains('|')) else { continue };
        // It knows no such setting at all: another scenario has that.
        if directives::since(&said) > lab.version() {
            continue;
        }
        let values = all.split('|').filter_map(|value| value.split('@').next());
        let values = values.map(|value| if value == "boolean" { "Yes" } else { value });
        for (number, value) in values.chain(["nonsense"]).enumerate() {
            let text = format!("[Service]\nExecStart=/bin/true\n{key}={value}\n");
            fs::write(directory.join(format!("{}-{number}.service", key.to_lowercase())), text)?;
        }
    }
    let (_, text) = tool(&directory, &["--format", "json", "--level", "info", "."], lab.version())?;
    let report: Value = serde_json::from_str(&text)?;
    let unread = report["findings"].as_array().into_iter().flatten().filter(|finding| {
        // Of notify-reload HO102 has more to say.
        finding["id"] == "HO003" || finding["id"] == "HO102"
    });
    let ours: BTreeSet<_> = unread.filter_map(|finding| finding["unit"].as_str()).map(str::to_owned).collect();
    lab.sh_ok(&format!(
        "cp -r {}/. /etc/systemd/system/; systemctl daemon-reload",
        lab.dir().join("values").display()
    ))?;
    lab.sh_within(PATIENCE, "cd /etc/systemd/system && systemctl show -p LoadState -- *-[0-9]*.service")?;
    lab.sh_ok("journalctl --sync")?;
    let journal = lab.sh_within(PATIENCE, "journalctl -q -b -o cat _PID=1")?.stdout;
    let refused = journal.lines().filter(|line| line.contains("ailed to parse") || line.contains("nvalid "));
    let theirs: BTreeSet<_> = refused
        .filter_map(|line| Some(line.strip_prefix("/etc/systemd/system/")?.split_once(':')?.0.to_owned()))
        .collect();
    let differ: Vec<_> = ours.symmetric_difference(&theirs).collect();
    assert!(differ.is_empty() && theirs.len() > 5, "one of the two reads {differ:?}; systemd does not read {theirs:?}");
    Ok(())
}

fn corpus(lab: &Container) -> Outcome {
    let cached = Command::new(Path::new(TOP).join("tests/lab/units")).output()?;
    let said = String::from_utf8_lossy(&cached.stderr).into_owned();
    assert!(cached.status.success(), "tests/lab/units: {said}");
    let directory = lab.host_dir().join("corpus");
    fs::create_dir_all(&directory)?;
    let mut count = 0;
    for package in fs::read_dir(String::from_utf8_lossy(&cached.stdout).trim())?.flatten().filter(|e| e.path().is_dir())
    {
        for unit in fs::read_dir(package.path())?.flatten() {
            // Of two packages with the same unit one is enough; and the container's own journal is
            // to live.
            let name = unit.file_name().to_string_lossy().into_owned();
            if !name.starts_with("systemd-") && !directory.join(&name).exists() {
                fs::copy(unit.path(), directory.join(&name))?;
                count += 1;
            }
        }
    }
    assert!(count >= 300, "only {count} units");
    let states = compared(lab, &directory)?;
    let loaded: Vec<_> = states.iter().filter(|(_, state)| *state == "loaded").map(|(name, _)| name.clone()).collect();
    assert!(loaded.len() >= 290, "{states:?}");

    // Whatever --fix writes for them: they are still loaded, nothing in it is ignored, and there is
    // nothing more to write.
    for assumed in [&[][..], &["--assume-handover"]] {
        let fix = |directory: &Path| -> Outcome<String> {
            let (code, text) = tool(directory, &[&["--fix", "--level", "info", "."], assumed].concat(), lab.version())?;
            assert!(matches!(code, Some(0 | 1)), "check --fix: {code:?}");
            Ok(text)
        };
        let text = fix(&directory)?;
        assert!(
            !text.lines().any(|line| line.starts_with("Type=notify")),
            "of none is it known that it speaks sd_notify"
        );
        let drop_ins: Vec<_> =
            text.split("# /etc/systemd/system/").skip(1).filter_map(|part| part.split_once('\n')).collect();
        assert!(drop_ins.len() > 200 || assumed.is_empty(), "{}", drop_ins.len());
        for (path, text) in &drop_ins {
            fs::create_dir_all(directory.join(Path::new(path).parent().unwrap_or(Path::new(""))))?;
            fs::write(directory.join(path), text)?;
        }
        let after = compared(lab, &directory)?;
        let broken: Vec<_> = loaded.iter().filter(|name| after[*name] != "loaded").collect();
        assert!(broken.is_empty(), "check --fix {assumed:?} broke {broken:?}");
        let again = fix(&directory)?;
        let left: Vec<_> = again.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '['])).collect();
        assert!(left.is_empty(), "the second check --fix {assumed:?} writes {left:?}");
    }
    Ok(())
}

/// Puts the units of a directory into the container, and compares what systemd makes of them with
/// what the tool says. Returns the units' LoadState.
fn compared(lab: &Container, directory: &Path) -> Outcome<BTreeMap<String, String>> {
    let ours = verdicts(lab, directory)?;
    let below = directory.strip_prefix(lab.host_dir()).map_err(|e| e.to_string())?;
    let from = lab.dir().join(below);
    lab.sh_ok(&format!(
        "cp -r {}/. /etc/systemd/system/ && journalctl --rotate && journalctl -q --vacuum-time=1us; systemctl daemon-reload",
        from.display()
    ))?;
    // A template is loaded as one of its instances.
    let shown: BTreeMap<String, &String> = ours.keys().map(|name| (name.replace("@.", "@x."), name)).collect();
    let names: Vec<_> = shown.keys().map(|name| format!("'{name}'")).collect();
    let text = lab.sh_within(PATIENCE, &format!("systemctl show -p Id,Names,LoadState -- {}", names.join(" ")))?.stdout;
    let mut states = BTreeMap::new();
    for block in text.split("\n\n") {
        let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let (Some(id), Some(state)) = (value("Id"), value("LoadState")) else { continue };
        for name in value("Names").unwrap_or(id).split(' ').chain([id]) {
            if let Some(name) = shown.get(name) {
                states.insert((*name).clone(), state.to_owned());
            }
        }
    }
    let mut unknown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    lab.sh_ok("journalctl --sync")?;
    let journal = lab.sh_within(PATIENCE, "journalctl -q -b -o cat _PID=1")?.stdout;
    for line in journal.lines() {
        // As `/etc/systemd/system/web.service:7: Unknown key 'x' in section [Service], ignoring.`,
        // also of a drop-in.
        let Some((place, message)) = line.strip_prefix("/etc/systemd/system/").and_then(|line| line.split_once(": "))
        else {
            continue;
        };
        let not_minded = message.starts_with("Unknown key")
            || message.starts_with("Support for option") && message.contains("removed and it is ignored");
        if not_minded {
            let first = place.split('/').next().unwrap_or_default();
            let unit = first.strip_suffix(".d").or_else(|| Some(first.rsplit_once(':')?.0)).unwrap_or(first);
            unknown.entry(unit.to_owned()).or_default().insert(place.to_owned());
        }
    }
    let mut differ = Vec::new();
    for (name, verdict) in &ours {
        let state = states.get(name).ok_or_else(|| format!("systemctl show says nothing of {name}"))?;
        let theirs = unknown.remove(name).unwrap_or_default();
        if *state != verdict.state {
            let reason: Vec<_> = journal.lines().filter(|line| line.contains(&name.replace("@.", "@x."))).collect();
            differ.push(format!("{name}: systemd says {state}, check says {}: {reason:?}", verdict.state));
        }
        // Of a unit that is not loaded it reads no further.
        if theirs != verdict.unknown && state == "loaded" {
            let one: Vec<_> = theirs.symmetric_difference(&verdict.unknown).collect();
            differ.push(format!("{name}: one of the two does not know {one:?}"));
        }
    }
    assert!(differ.is_empty(), "{} differences:\n{}", differ.len(), differ.join("\n"));
    Ok(states)
}

fn verdicts(lab: &Container, directory: &Path) -> Outcome<BTreeMap<String, Verdict>> {
    let (code, text) = tool(directory, &["--format", "json", "--level", "info", "."], lab.version())?;
    assert!(matches!(code, Some(0 | 1)), "check: {code:?}");
    let report: Value = serde_json::from_str(&text)?;
    let of = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let names = report["pairs"].as_array().into_iter().flatten().flat_map(|pair| pair["units"].as_array()).flatten();
    let mut verdicts: BTreeMap<String, Verdict> = BTreeMap::new();
    for name in names {
        let verdict = Verdict { state: "loaded".to_owned(), ..Verdict::default() };
        verdicts.insert(name.as_str().unwrap_or_default().to_owned(), verdict);
    }
    for finding in report["findings"].as_array().into_iter().flatten() {
        let verdict = verdicts.get_mut(&of(finding, "unit")).ok_or("a finding of no unit")?;
        match of(finding, "id").as_str() {
            "HO005" => verdict.state = of(finding, "message").split(':').next().unwrap_or_default().to_owned(),
            "HO002" | "HO004" | "HO223" => {
                let file = of(finding, "file");
                verdict.unknown.insert(format!("{}:{}", file.strip_prefix("./").unwrap_or(&file), finding["line"]));
            }
            _ => {}
        }
    }
    Ok(verdicts)
}

fn tool(directory: &Path, arguments: &[&str], version: u32) -> Outcome<(Option<i32>, String)> {
    let mut command = Command::new(handover());
    command.args(["check", "--target-version", &version.to_string()]).args(arguments);
    let output = command.current_dir(directory).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.is_empty(), "handover check {arguments:?}: {said}");
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

/// `systemctl show` refuses a template; what belongs to it is found all the same.
fn templates(lab: &Container) -> Outcome {
    let tool = lab.install(handover(), "handover")?;
    lab.write_unit("web@.socket", "[Socket]\nListenStream=/run/web-%i\nFileDescriptorName=http\n")?;
    lab.write_unit("web@.service", "[Service]\nType=notify\nExecStart=/bin/true\nKillMode=none\n[X-Handover]\n")?;
    lab.daemon_reload()?;
    for name in ["web@.service", "web@", "web@.socket", "web@blue.service"] {
        let output = lab.sh(&format!("{tool} check --format json {name}"))?;
        let report: Value = serde_json::from_str(&output.stdout)
            .map_err(|e| format!("check {name}: {e}: {}{}", output.stdout, output.stderr))?;
        let units = report["pairs"][0]["units"].as_array().map_or(0, Vec::len);
        let known = report["findings"].as_array().into_iter().flatten().any(|f| f["id"] == "HO104");
        assert!(known && (units == 2 || name.contains("blue")), "check {name}: {report:#}");
    }
    Ok(())
}

/// The unit says that the service reloads on SIGUSR1, and it does not. One with a control interface
/// tells so, any other has logged it.
fn running(lab: &Container, lines: &str) -> Outcome {
    let tool = lab.install(handover(), "handover")?;
    let web = Web::start(lab, Setup { lines, ..Setup::default() })?;
    let controlled = lines.contains("RuntimeDirectory=");
    assert_eq!(lab.sh("test -S /run/web/handover.sock")?.success(), controlled);
    if controlled {
        lab.sh_ok("journalctl --rotate && journalctl -q --vacuum-time=1us")?;
    }
    let check = |signal: &str| -> Outcome<(Option<i32>, Vec<String>)> {
        let unit = format!(
            "[Service]\nExecReload=\nExecReload=/bin/kill -{signal} $MAINPID\n[X-Handover]\nReloadSignal=SIGUSR1\n"
        );
        lab.write_file(&format!("/etc/systemd/system/{UNIT}.d/reload.conf"), &unit)?;
        lab.daemon_reload()?;
        let output = lab.sh(&format!("{tool} check --format json {UNIT}"))?;
        let report: Value =
            serde_json::from_str(&output.stdout).map_err(|e| format!("{e}: {}{}", output.stdout, output.stderr))?;
        let findings = report["findings"].as_array().into_iter().flatten().filter(|finding| finding["id"] == "HO133");
        let said = |finding: &Value| format!("{}: {}", finding["severity"], finding["message"]).replace('"', "");
        Ok((output.status.code(), findings.map(said).collect()))
    };
    let wrong = "error: ExecReload=/bin/kill -USR1 $MAINPID; the service that runs reloads on SIGHUP";
    assert_eq!(check("USR1")?, (Some(1), vec![wrong.to_owned()]));
    assert_eq!(check("HUP")?, (Some(0), vec![]));
    let main = web.reload()?;
    assert_eq!(web.pid()?, main);
    // What the next generation tells counts from then on.
    assert_eq!(check("USR1")?, (Some(1), vec![wrong.to_owned()]));
    Ok(())
}
