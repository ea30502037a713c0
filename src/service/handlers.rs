//! The signal handlers of a service.

use crate::error::Result;
use crate::reload::arrivals::Arrivals;
use crate::settings::signals::{Response, Signal, SignalMap};

/// The handlers, from the moment the service starts.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) urgent: Arrivals<(Signal, Response)>,
    pub(crate) others: Arrivals<(Signal, Response)>,
    pub(crate) map: SignalMap,
}

impl Signals {
    pub(crate) fn install(map: SignalMap) -> Result<Self> {
        let map = map.checked()?;
        let (mut urgent, others): (Vec<_>, Vec<_>) = map.iter().partition(|(_, response)| response.is_urgent());
        // What cuts comes first.
        urgent.sort_by_key(|(_, response)| *response != Response::Hammer);
        let install = |all: Vec<(Signal, Response)>| Arrivals::of(all.into_iter().map(|on| (on.0.number(), on)));
        Ok(Self { urgent: install(urgent)?, others: install(others)?, map })
    }
}
