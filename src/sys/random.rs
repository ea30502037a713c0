//! Random numbers of the kernel.

use std::fs::File;
use std::io::Read as _;

use tracing::warn;

/// 128 random bits in hexadecimal, as systemd writes its own ids.
pub(crate) fn id() -> String {
    let mut bytes = [0_u8; 16];
    if let Err(error) = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
        warn!(%error, "no random id");
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
