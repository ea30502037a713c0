//! What systemd passes in and wants to be told: sockets, notifications, the watchdog.
pub mod activation;
