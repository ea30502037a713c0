//! Whether this machine itself stood still: deadlines are of the clock on the wall, and a virtual
//! machine that its host stops for seconds proves nothing about what runs in it.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked at.
const TICK: Duration = Duration::from_millis(100);
/// A thread that has nothing to do wakes some ms late on a machine that is only busy.
const STILL: Duration = Duration::from_secs(1);

/// Watches until this process ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    stops: Arc<Mutex<Vec<(Instant, Duration)>>>,
}

impl Machine {
    pub(crate) fn watch() -> Self {
        let machine = Self::default();
        let stops = Arc::clone(&machine.stops);
        thread::spawn(move || {
            loop {
                let slept = Instant::now();
                thread::sleep(TICK);
                let late = slept.elapsed().saturating_sub(TICK);
                if late >= STILL {
                    stops.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), late));
                }
            }
        });
        machine
    }

    /// For how long it stood still, all stops of at least a second together.
    pub(crate) fn stood_still(&self, since: Instant) -> Duration {
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.iter().filter(|(end, _)| *end >= since).map(|(_, late)| *late).sum()
    }

    /// For the reader of a failure in which it stood still for so long.
    pub(crate) fn report(still: Duration) -> String {
        let mut report = format!("--- this machine\nstood still for {still:?}\n");
        for file in ["/proc/loadavg", "/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io"] {
            let text = fs::read_to_string(file).unwrap_or_else(|e| e.to_string());
            report.push_str(&format!("{file}: {}\n", text.trim_end().replace('\n', "; ")));
        }
        report
    }
}
