//! Why there can be no next generation, whatever program it would run.

use tracing::warn;

use crate::error::{Error, Kind, Result};
use crate::service::own::OwnGeneration;
use crate::service::sockets::lock;

/// A service manager is there, and knows its predecessor only.
const UNTOLD: &str = "systemd started this process (SYSTEMD_EXEC_PID names it) and cannot be told of another main process \
                      (NOTIFY_SOCKET is not set), so the exit of this one would end the service: write Type=notify in the \
                      [Service] section of the unit, then systemctl daemon-reload and restart; where the unit has that, \
                      the program must not unset NOTIFY_SOCKET before it starts the service";

/// An init of a container is the parent, and takes this process for all that the container is for.
fn ends_with_us(init: &str) -> String {
    format!(
        "PID 1 of this container ({init}) started this process and ends, and the container with it, when this process \
         ends; it cannot be told of another one: let `handover run -- PROGRAM` be PID 1 instead of it, or reload in place \
         (Builder::on_reload_in_place)"
    )
}

impl OwnGeneration {
    /// Fails if the end of this process would be that of the service.
    pub(super) fn check_handover(&self) -> Result<()> {
        if self.pid == 1 {
            return Err(Error::new(
                Kind::Generation,
                "this process is PID 1 (PrivatePIDs=yes, or a container): when it ends, all end; turn PrivatePIDs= off, \
                 let `handover run -- PROGRAM` be PID 1 of the container, or reload in place \
                 (Builder::on_reload_in_place)",
            ));
        }
        if let Some(init) = &self.ending_init {
            return Err(Error::new(Kind::State, ends_with_us(init)));
        }
        if self.untold {
            return Err(Error::new(Kind::State, UNTOLD));
        }
        Ok(())
    }

    /// Says at the start what else only the first reload would.
    pub(super) fn warn_of_oddities(&self) {
        if let Some(init) = self.ending_init.as_ref().filter(|_| !self.narrator.hooks().is_in_place()) {
            warn!(generation = self.number, "reloads are refused: {}", ends_with_us(init));
        }
        let sockets = lock(&self.sockets);
        sockets.warn_of_lost_paths();
        if self.untold && sockets.check_reload().is_ok() {
            warn!(generation = self.number, "reloads are refused: {UNTOLD}");
        }
    }
}
