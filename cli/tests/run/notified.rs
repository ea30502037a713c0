//! What the program says by sd_notify(3), and what systemd hears of it.

use crate::world::{Setup, World, is_alive};
use handover_testing::processes::until;

#[test]
fn the_status_is_passed_on_and_nothing_can_be_smuggled_in_with_it() {
    let world = World::start(Setup::default());
    world
        .manager
        .wait("the program's own words", |d| d.field("STATUS") == Some("generation 1 serves: at your service"));
    let mark = world.manager.mark();
    // Other fields than those that are known go nowhere.
    world.ask("notify STATUS=fine\\nMAINPID=1\\nX_FIELD=1\\nNOTIFYACCESS=all\\nRELOADING=1\\nERRNO=5");
    let told = world.manager.wait_from(mark, "the new words", |d| d.text.contains("fine"));
    assert_eq!(told.text, "STATUS=generation 1 serves: fine");
    world.ask("notify EXTEND_TIMEOUT_USEC=7000000");
    world.manager.wait("a longer timeout", |d| d.text == "EXTEND_TIMEOUT_USEC=7000000");
    world.stop();
}

#[test]
fn only_the_program_itself_may_speak_unless_its_children_may_too() {
    let world = World::start(Setup::default());
    world.ask("child STATUS=of a child");
    until("it is refused", || world.log().contains("may not send any").then_some(()));
    assert!(!world.manager.all().iter().any(|d| d.text.contains("of a child")));
    world.stop();

    let world = World::start(Setup { options: &["--notify-access", "all"], ..Setup::default() });
    world.ask("notify STATUS=of itself");
    world.manager.wait("its own word", |d| d.text.contains("of itself"));
    world.stop();
}

#[test]
fn what_is_stored_goes_to_systemd_and_to_the_next_generation() {
    let world = World::start(Setup::default());
    world.ask("store queue");
    world
        .manager
        .wait("what is stored", |d| d.has("FDSTORE=1") && d.field("FDNAME") == Some("queue") && d.has("FDPOLL=0"));
    world.reloaded();
    until("the new one answers", || (world.who().1 == 2).then_some(()));
    assert_eq!(world.ask("stored queue"), "kept");
    assert_eq!(world.status()["store"][0]["name"], "queue");
    world.ask("notify FDSTOREREMOVE=1\\nFDNAME=queue");
    world.manager.wait("that it goes", |d| d.has("FDSTOREREMOVE=1") && d.field("FDNAME") == Some("queue"));
    assert_eq!(world.ask("barrier"), "b''", "a barrier ends when all before it is read");
    world.reloaded();
    until("the new one answers", || (world.who().1 == 3).then_some(()));
    assert_eq!(world.ask("stored queue"), "-");
    world.stop();
}

#[test]
fn systemd_is_pinged_by_the_supervisor_and_a_program_that_pings_is_watched() {
    let world = World::start(Setup { env: &[("WATCHDOG_USEC", "2000000")], ..Setup::default() });
    let (pid, _) = world.who();
    assert_eq!(world.ask("env WATCHDOG_USEC"), "2000000");
    assert_eq!(world.ask("env WATCHDOG_PID"), pid.to_string());
    world.manager.wait("a ping", |d| d.has("WATCHDOG=1"));
    // From its first ping on it must send more.
    world.ask("notify WATCHDOG=1");
    until("it is ended", || (!is_alive(pid)).then_some(()));
    let status = world.until_status("another one serves", |s| s["state"] == "serving" && s["pid"] != pid);
    assert_eq!(status["supervisor"]["crashes"], 1);
    assert!(world.log().contains("sent no WATCHDOG=1 in time"), "{}", world.log());
    world.ask("notify WATCHDOG=trigger");
    world.until_status("another one serves", |s| s["state"] == "serving" && s["supervisor"]["crashes"] == 2);
    world.stop();
}
