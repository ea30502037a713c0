//! What `handover init` writes boots and reloads, with the program of `--rust`, which is the
//! example `hello`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario, example, handover};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new("init_boots", init_boots)];

/// Where clients go.
enum Address {
    Port(u16),
    Path(&'static str),
}

fn init_boots(lab: &Container) -> Outcome {
    let program = lab.install(&example("hello")?, "hello")?;
    lab.install(handover(), "handover")?;
    let (first, second) = (lab.port(8080)?, lab.port(8081)?);
    let (tcp, template) = (format!("127.0.0.1:{first}"), "127.0.0.1:%i".to_owned());
    let run = |choice: &[&str], instance: &str, address: Address| -> Outcome {
        written_units_boot(lab, &[choice, &["--exec", &program]].concat(), instance, &address)
            .map_err(|e| format!("init {choice:?}: {}", e.message().unwrap_or_default()).into())
    };
    run(&["--tcp", &tcp], "", Address::Port(first))?;
    if lab.version() >= 253 {
        run(&["--tcp", &tcp, "--notify-reload"], "", Address::Port(first))?;
    }
    run(&["--template", "--tcp", &template], &format!("@{second}"), Address::Port(second))?;
    if is_system(lab) {
        run(&["--unix", "/run/hello/web.sock"], "", Address::Path("/run/hello/web.sock"))?;
    }
    Ok(())
}

/// `instance`: empty, or `@` and its name.
fn written_units_boot(lab: &Container, choice: &[&str], instance: &str, address: &Address) -> Outcome {
    let checker = lab.dir().join("handover");
    let checker = checker.display();
    let directory = lab.host_dir().join("units");
    let user: &[&str] = if is_system(lab) { &[] } else { &["--user"] };
    let (key, version) = ("--target-version", lab.version().to_string());
    tool(&directory, &[&["init", "hello", "--force", "--dir", ".", key, &version], choice, user].concat())?;
    tool(&directory, &["check", "--strict", key, &version, "."])?;
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        lab.write_unit(&name, &fs::read_to_string(&path)?)?;
    }
    fs::remove_dir_all(&directory)?;

    let (socket, service) = (format!("hello{instance}.socket"), format!("hello{instance}.service"));
    let verified = lab.sh(&format!("systemd-analyze {} verify --man=no {socket} {service} 2>&1", user.concat()))?;
    assert!(verified.success() && !verified.stdout.contains("hello"), "{}", verified.stdout);
    lab.daemon_reload()?;
    // As it says itself; but on somebody's own manager nothing is left behind.
    let start: &[&str] = if is_system(lab) { &["enable", "--now"] } else { &["start"] };
    lab.systemctl_ok(&[start, &[socket.as_str(), service.as_str()]].concat())?;
    // As loaded, by name: it is this manager that is asked, for its version too.
    let checked = lab.sh_ok(&format!("{checker} check {} --strict {service}", user.concat()))?;
    assert!(checked.starts_with("0 errors, 0 warnings in 2 units"), "{checked}");
    let old = lab.main_pid(&service)?;
    assert_eq!(greeting(lab, address)?, "hello\n");
    lab.systemctl_ok(&["reload", &service])?;
    lab.wait_until(DEADLINE, "another main process", || Ok(lab.main_pid(&service).ok().filter(|new| *new != old)))?;
    assert_eq!(greeting(lab, address)?, "hello\n");
    assert_eq!((lab.show(&service, "NRestarts")?, lab.show(&service, "ActiveState")?), ("0".into(), "active".into()));
    let stop: &[&str] = if is_system(lab) { &["disable", "--now"] } else { &["stop"] };
    lab.systemctl_ok(&[stop, &[socket.as_str(), service.as_str()]].concat())?;
    assert_eq!(lab.show(&service, "Result")?, "success");
    Ok(())
}

fn is_system(lab: &Container) -> bool {
    lab.manager_pid() == 1
}

/// The command-line tool, as a user runs it before anything is installed.
fn tool(directory: &Path, arguments: &[&str]) -> Outcome {
    fs::create_dir_all(directory)?;
    let output = Command::new(handover()).args(arguments).current_dir(directory).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "handover {}: {said}", arguments.join(" "));
    Ok(())
}

/// The body of `GET /`.
fn greeting(lab: &Container, address: &Address) -> Outcome<String> {
    let answer = match address {
        Address::Port(port) => {
            lab.in_netns(|| ask(TcpStream::connect(("127.0.0.1", *port))?, TcpStream::set_read_timeout))??
        }
        Address::Path(path) => ask(UnixStream::connect(lab.outside(path))?, UnixStream::set_read_timeout)?,
    };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer:?}"))?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(body.to_owned())
}

fn ask<S: Read + Write>(
    mut stream: S,
    patience: impl Fn(&S, Option<std::time::Duration>) -> std::io::Result<()>,
) -> std::io::Result<String> {
    patience(&stream, Some(DEADLINE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
