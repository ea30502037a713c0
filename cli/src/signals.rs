//! Signals by name or number, as units and people write them.

pub(crate) use handover::supervise::signal_name as name;
