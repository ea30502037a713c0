//! How programs are told of their sockets.

use crate::world::{Setup, World};

#[test]
fn any_program_finds_its_sockets_as_systemd_passes_them() {
    let world = World::start(Setup::default());
    let (pid, generation) = world.who();
    assert_eq!(generation, 1);
    assert_eq!(world.ask("env LISTEN_PID"), pid.to_string());
    assert_eq!(world.ask("env LISTEN_FDS"), "1");
    assert_eq!(world.ask("env LISTEN_FDNAMES"), "http");
    assert_ne!(world.ask("env NOTIFY_SOCKET"), world.path("notify").display().to_string(), "its own");
    world.stop();
}

#[test]
fn other_conventions_have_their_variables_and_no_listen_fds() {
    let world = World::start(Setup { options: &["--pass", "starter,einhorn"], ..Setup::default() });
    let path = world.path("http").display().to_string();
    assert_eq!(world.ask("env SERVER_STARTER_PORT"), format!("{path}=3"));
    assert_eq!(world.ask("env SERVER_STARTER_GENERATION"), "1");
    assert_eq!(world.ask("env EINHORN_FDS"), "3");
    assert_eq!(world.ask("env EINHORN_FD_0"), "3");
    assert_eq!(world.ask("env EINHORN_MASTER_PID"), world.pid().to_string());
    assert_eq!(world.ask("env LISTEN_FDS"), "-");
    world.stop();
}

#[test]
fn arguments_name_the_number_which_can_be_chosen() {
    let default = Setup::default();
    let program = [default.program, &["{fd:http}", "gen{generation}"]].concat();
    let world = World::start(Setup { options: &["--fd", "7"], program: &program, ..default });
    let args = world.ask("args");
    assert!(args.ends_with(" 7 gen1"), "{args}");
    assert_eq!(world.ask("env LISTEN_FDS"), "-", "its readers look from 3 on");
    world.reloaded();
    assert!(world.ask("args").ends_with(" 7 gen2"));
    world.stop();
}

#[test]
fn what_cannot_work_is_said_before_anything_starts() {
    for (options, code, what) in [
        (&["--fd", "1"][..], 2, "begin at 3"),
        (&["--ready", "accept:none"], 2, "no socket \"none\""),
        (&["--ready", "magic"], 2, "there are notify"),
        (&["--stop-signal", "NONE"], 2, "no signal"),
        (&["--socket", "more"], 3, "no socket named \"more\""),
        (&["--drain-timeout", "0s"], 2, "drain_timeout"),
    ] {
        let mut world = World::launch(Setup { options, ..Setup::default() });
        assert_eq!(world.ends().code(), Some(code), "{options:?}: {}", world.log());
        assert!(world.log().contains(what), "{options:?}: {}", world.log());
    }
}

/// A script's process is its interpreter: nobody wants that replaced.
#[test]
fn an_upgrade_asks_which_program_is_meant() {
    let world = World::start(Setup::default());
    let new = world.path("new");
    std::fs::write(&new, "print()\n").unwrap();
    let from = new.display().to_string();
    let output = world.handover(&["upgrade", "--dry-run", "--no-signature", "--any-format", "--from", &from]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("python3") && said.contains("--program PATH"), "{said}");
    world.stop();
}
