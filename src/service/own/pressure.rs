//! A drain that hurries, as the service manager tells that the machine is short of something.

use tracing::{info, warn};

use crate::lifecycle::Event;
use crate::reload::driver::Lifecycles;
use crate::reload::input::Input;
use crate::service::own::OwnGeneration;
use crate::systemd::pressure::Resource;

impl OwnGeneration {
    /// From now on this generation drains, and may be told to hurry.
    pub(super) fn watch_pressure(&mut self) {
        for source in std::mem::take(&mut self.pressure) {
            let (number, inputs) = (self.number, self.inputs.clone());
            self.tasks.spawn(async move {
                match source.pressed().await {
                    Ok(()) => _ = inputs.send(Input::Pressure(source.resource())),
                    Err(error) => warn!(generation = number, "{error}"),
                }
            });
        }
    }

    pub(super) fn on_pressure(&mut self, lives: &mut Lifecycles, resource: Resource) {
        let open = self.drain.active();
        info!(generation = self.number, "pressure on {resource}: the drain hurries, connections open: {open}");
        lives.push(self.number, Event::Hurry);
    }
}
