//! What `systemctl restart` does to a service with a .socket unit, without the time that PID 1
//! takes for itself: it holds the socket, and at SIGHUP ends the server and then starts it again.

use std::process::{Child, Command};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

fn start() -> Child {
    Command::new(std::env::current_exe().unwrap().with_file_name("bare_web")).spawn().unwrap()
}

fn terminate(mut server: Child) {
    let _ = kill(Pid::from_raw(server.id().cast_signed()), Signal::SIGTERM);
    let _ = server.wait();
}

fn main() {
    let _held = peers::inherited();
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGHUP);
    signals.add(Signal::SIGTERM);
    let mut server = start(); // before they are blocked: that is inherited
    signals.thread_block().unwrap();
    loop {
        let signal = signals.wait().unwrap();
        terminate(server);
        if signal == Signal::SIGTERM {
            return;
        }
        signals.thread_unblock().unwrap();
        server = start();
        signals.thread_block().unwrap();
    }
}
