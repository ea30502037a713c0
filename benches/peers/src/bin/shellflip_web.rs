//! SIGUSR1: a restart. The socket is inherited, as from systemd. Set up as in its own example, with
//! a socket to ask for restarts.

use hyper_util::server::graceful::GracefulShutdown;
use shellflip::RestartConfig;
use std::pin::pin;

fn main() {
    let listener = peers::inherited();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let config = RestartConfig {
            enabled: true,
            coordination_socket_path: peers::directory().join("restart"),
            ..RestartConfig::default()
        };
        let mut restarted = pin!(config.try_into_restart_task().unwrap());
        let graceful = GracefulShutdown::new();
        loop {
            tokio::select! {
                result = &mut restarted => {
                    if let Err(error) = result {
                        eprintln!("{error}");
                    }
                    break;
                }
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    peers::serve(stream, &graceful);
                }
            }
        }
        drop(listener);
        peers::drain(graceful).await;
    });
}
