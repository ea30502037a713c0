//! systemd's rules for one `Type=notify` service, as data: what a message may change, and nothing
//! else.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Started, not ready yet.
    Starting,
    Running,
    /// Between `RELOADING=1` and `READY=1`.
    Reloading,
    /// Asked to stop, or it said so itself.
    Stopping,
    /// The main process is gone; the rest of its processes must go before it is started again.
    Ending,
    Stopped,
}

/// A process of the service that has ended.
#[derive(Debug, Clone)]
pub(super) struct Exit {
    pub(super) pid: u32,
    pub(super) at: Instant,
    /// None when it ended with 0.
    pub(super) failure: Option<String>,
    /// As it should: systemd does not start it again.
    pub(super) clean: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) state: State,
    pub(super) main: u32,
    pub(super) main_since: Instant,
    /// Every main process so far, in order.
    pub(super) mains: Vec<u32>,
    pub(super) status_text: String,
    /// Reloads that were reported as begun and ended, well or not.
    pub(super) reloads: u64,
    pub(super) reload_ended: Instant,
    pub(super) exits: Vec<Exit>,
    /// What systemd would have warned of.
    pub(super) warnings: Vec<String>,
    /// It is to be started again.
    pub(super) restart: bool,
}

impl Unit {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Stopped,
            main: 0,
            main_since: now,
            mains: Vec::new(),
            status_text: String::new(),
            reloads: 0,
            reload_ended: now,
            exits: Vec::new(),
            warnings: Vec::new(),
            restart: true,
        }
    }

    pub(super) fn started(&mut self, pid: u32, now: Instant) {
        self.state = State::Starting;
        self.status_text.clear();
        self.became_main(pid, now);
    }

    fn became_main(&mut self, pid: u32, now: Instant) {
        self.main = pid;
        self.main_since = now;
        self.mains.push(pid);
    }

    pub(super) fn stop(&mut self) {
        self.restart = false;
        if matches!(self.state, State::Starting | State::Running | State::Reloading) {
            self.state = State::Stopping;
        }
    }

    /// A process of the service is gone. True where it was the main one: the others are to end.
    pub(super) fn ended(&mut self, exit: Exit) -> bool {
        let is_main = exit.pid == self.main && !matches!(self.state, State::Ending | State::Stopped);
        if is_main {
            self.restart &= !exit.clean && self.state != State::Stopping;
            self.state = State::Ending;
        }
        self.exits.push(exit);
        is_main
    }

    /// `NotifyAccess=main`: only the main process is heard. `MAINPID=` counts before the rest of
    /// its datagram does, and only for a living process of the service (`alive`).
    pub(super) fn notified(&mut self, sender: u32, text: &str, now: Instant, alive: impl Fn(u32) -> bool) {
        // Answered to anybody, by closing its fd once the messages before it were processed.
        if text.trim_end() == "BARRIER=1" {
            return;
        }
        if sender != self.main || matches!(self.state, State::Ending | State::Stopped) {
            self.warnings.push(format!(
                "message from {sender}, which is not the main process {}: {}",
                self.main,
                text.escape_debug()
            ));
            return;
        }
        // The last of several counts.
        let field = |name: &str| {
            text.lines()
                .rev()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let is_set = |name| field(name) == Some("1");

        if let Some(pid) = field("MAINPID") {
            match pid.parse() {
                Ok(pid) if pid == self.main => {}
                Ok(pid) if alive(pid) => self.became_main(pid, now),
                _ => self.warnings.push(format!("MAINPID={} is no living process of the service", pid.escape_debug())),
            }
        }
        match self.state {
            State::Starting if is_set("READY") => self.state = State::Running,
            State::Reloading if is_set("READY") => {
                self.state = State::Running;
                self.reloads += 1;
                self.reload_ended = now;
            }
            State::Running if is_set("RELOADING") => self.state = State::Reloading,
            State::Running | State::Reloading if is_set("STOPPING") => self.state = State::Stopping,
            _ => {}
        }
        if let Some(status) = field("STATUS") {
            status.clone_into(&mut self.status_text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> (Unit, Instant) {
        let now = Instant::now();
        let mut unit = Unit::new(now);
        unit.started(10, now);
        assert_eq!(unit.state, State::Starting);
        unit.notified(10, "READY=1\nSTATUS=serving", now, |_| false);
        assert_eq!((unit.state, unit.status_text.as_str()), (State::Running, "serving"));
        (unit, now)
    }

    type Said<'a> = &'a [(u32, &'a str)];

    #[test]
    fn what_each_message_changes() {
        use State::{Reloading, Running};
        // What is said and by whom, and the state, the main process, the reloads that have ended
        // and the warnings afterwards. 11 is alive.
        let cases: [(&str, Said<'_>, State, u32, u64, usize); 5] = [
            ("a reload begins", &[(10, "RELOADING=1\nMONOTONIC_USEC=1")], Reloading, 10, 0, 0),
            (
                "the new main is named before it is ready, and the old one is not heard any more",
                &[(10, "RELOADING=1"), (10, "MAINPID=11\nREADY=1"), (10, "BARRIER=1"), (10, "STOPPING=1")],
                Running,
                11,
                1,
                1,
            ),
            ("the child itself is not heard", &[(10, "RELOADING=1"), (11, "MAINPID=11\nREADY=1")], Reloading, 10, 0, 1),
            ("a dead process does not become main", &[(10, "MAINPID=12\nREADY=1")], Running, 10, 0, 1),
            ("a failed reload", &[(10, "RELOADING=1"), (10, "READY=1\nSTATUS=it exited with 3")], Running, 10, 1, 0),
        ];
        for (what, said, state, main, reloads, warnings) in cases {
            let (mut unit, now) = running();
            said.iter().for_each(|(sender, text)| unit.notified(*sender, text, now, |pid| pid == 11));
            assert_eq!((unit.state, unit.main, unit.reloads), (state, main, reloads), "{what}");
            assert_eq!((unit.warnings.len(), unit.mains.last()), (warnings, Some(&main)), "{what}");
            let status = if what == "a failed reload" { "it exited with 3" } else { "serving" };
            assert_eq!(unit.status_text, status, "{what}");
        }
    }

    #[test]
    fn who_was_killed_is_started_again_and_who_is_stopped_is_not() {
        let exit = |pid, now| Exit { pid, at: now, failure: Some("killed by SIGKILL".into()), clean: false };
        let (mut unit, now) = running();
        assert!(!unit.ended(exit(9, now)), "an older generation");
        assert!(unit.ended(exit(10, now)) && unit.restart);
        assert_eq!(unit.state, State::Ending);
        assert!(!unit.ended(exit(10, now)), "once");
        let (mut unit, now) = running();
        unit.stop();
        assert!(unit.ended(exit(10, now)) && !unit.restart);
        let (mut unit, now) = running();
        assert!(unit.ended(Exit { clean: true, ..exit(10, now) }) && !unit.restart);
    }
}
