//! A certificate and its key as credentials of the unit, renewed by a reload.

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{Service, UNIT, certs, load};
use crate::lab::{Container, Outcome};
use crate::scenarios::web::DEADLINE;

/// systemd puts credentials into place when it starts a service, and from 260 on at a reload that
/// it is asked for itself, where the unit says so.
pub(super) fn renewed_by_a_reload(lab: &Container) -> Outcome {
    for lines in ["", "RefreshOnReload=credentials\n"] {
        let [first, second, third] = [(); 3].map(|()| certs::pair());
        // Looked at in an hour: it is the reload that reads it.
        let service = Service::with_credentials(lab, &first, "1h", lines)?;
        let shown = || Ok(service.one(&load::new_client())?.1) as Outcome<CertificateDer<'static>>;
        assert_eq!(shown()?, first.der);
        service.version("second", &second)?;
        service.reload()?;
        let refreshed = lab.version() >= 260 && !lines.is_empty();
        assert_eq!(shown()?, if refreshed { &second } else { &first }.der, "{lines:?}");

        // A signal is no reload of systemd's, and refreshes nothing.
        service.version("third", &third)?;
        let main = lab.main_pid(UNIT)?;
        lab.signal(main, "HUP")?;
        lab.wait_until(DEADLINE, "another main process", || {
            Ok(lab.main_pid(UNIT).is_ok_and(|new| new != main).then_some(()))
        })?;
        assert_eq!(shown()?, if refreshed { &second } else { &first }.der, "after a signal, {lines:?}");
        lab.systemctl_ok(&["restart", UNIT])?;
        assert_eq!(shown()?, third.der, "after a restart, {lines:?}");
        lab.systemctl_ok(&["stop", "tls.socket", UNIT])?;
    }
    Ok(())
}
