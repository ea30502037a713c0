//! The web example, as a process of its own.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// It ends whatever it has started.
pub(crate) struct Web {
    child: Child,
    pub(crate) address: String,
    pub(crate) url: String,
}

impl Web {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::run(env!("CARGO_BIN_EXE_handover"), &[&["web"], arguments].concat(), "--listen").await
    }

    /// Runs a copy of the tool with the address of a free port as the option's value, and waits
    /// until that accepts.
    pub(crate) async fn run(program: &str, words: &[&str], option: &str) -> Self {
        let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
        let address = format!("127.0.0.1:{port}");
        let place = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let value = if option == "--socket" { format!("http={address}") } else { address.clone() };
        let mut command = Command::new(program);
        command.args(&words[..place]).args([option, &value]).args(&words[place..]);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let web = Self { child: command.spawn().unwrap(), url: format!("http://{address}/"), address };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(&web.address).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        web
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // All generations are in the group of the first; what handover run starts dies with it.
        let _ = killpg(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
