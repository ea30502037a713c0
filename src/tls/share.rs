//! Where ticket keys outlive this process.

use crate::error::Result;
use crate::state::State;

use super::tickets::TicketKeys;

/// The name of the state.
pub(super) const STATE: &str = "tls-ticket-keys";

/// A place for ticket keys that other generations look at.
pub(super) trait Share: Send + Sync {
    fn load(&self) -> Result<Option<TicketKeys>>;
    fn save(&self, keys: &TicketKeys) -> Result<()>;
}

impl Share for State<TicketKeys> {
    fn load(&self) -> Result<Option<TicketKeys>> {
        State::load(self).map(|loaded| loaded.value())
    }

    fn save(&self, keys: &TicketKeys) -> Result<()> {
        State::save(self, keys).map(drop)
    }
}
