//! Proxies in front of the example service, which keep their connections to it: over a reload they
//! open none anew, and have nothing to say.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load::{self, Kind};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("proxy_nginx", |lab| behind(lab, &NGINX)).with_apps(),
    Scenario::new("proxy_haproxy", |lab| behind(lab, &HAPROXY)).with_apps(),
];

/// As often, unless `HANDOVER_PROXY_RELOADS` says otherwise.
const RELOADS: usize = 10;
/// Where both proxies listen.
const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8090);
const CLIENTS: &load::Clients =
    &[(Kind::KeepAlive, 10), (Kind::Fresh, 3), (Kind::Slow, 2), (Kind::Upload, 2), (Kind::Stream, 1)];
/// At least as many as there are clients: no more are ever needed.
const CONNECTIONS: usize = 20;
/// The answers to their first requests take three times as long: all of them are under way at once.
const TOGETHER: Duration = Duration::from_millis(300);

struct Proxy {
    name: &'static str,
    config: &'static str,
    command: &'static str,
}

const NGINX: Proxy =
    Proxy { name: "nginx", config: include_str!("../../lab/apps/front.nginx"), command: "nginx -c /lab/front.nginx" };
const HAPROXY: Proxy = Proxy {
    name: "haproxy",
    config: include_str!("../../lab/apps/front.haproxy"),
    command: "haproxy -db -f /lab/front.haproxy",
};

fn behind(lab: &Container, proxy: &Proxy) -> Outcome {
    let reloads = std::env::var("HANDOVER_PROXY_RELOADS").ok().and_then(|n| n.parse().ok()).unwrap_or(RELOADS);
    let web = Web::start(lab, Setup::default())?;
    let unit = format!("front-{}.service", proxy.name);
    lab.write_file(&format!("{}/front.{}", lab.dir().display(), proxy.name), proxy.config)?;
    lab.write_unit(&unit, &format!("[Service]\nExecStart=/usr/sbin/chroot /apps {}\n", proxy.command))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", &unit])?;
    let front = Web { lab, address: FRONT };
    lab.wait_until(DEADLINE, "an answer through the proxy", || Ok(front.pid().ok()))?;

    // So many requests at once need as many connections, which are kept.
    thread::scope(|scope| {
        let ask = || front.in_flight(3, TOGETHER)?.finish().map(drop);
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let before = lab.clients_of(web.address)?;
    assert_eq!(before.len(), CONNECTIONS, "{before:?}");

    let ((), stats) = load::under(lab, FRONT, CLIENTS, |_| {
        for _ in 0..reloads {
            let new = web.reload()?;
            // Who is in the middle of a request goes after it.
            lab.wait_until(DEADLINE, "the old one is gone", || Ok((lab.pids(UNIT)? == [new]).then_some(())))?;
        }
        Ok(())
    })?;
    let summary = load::lost_nothing(&stats)?;
    let after = lab.clients_of(web.address)?;
    println!(
        "systemd {}: {reloads} reloads behind {} with {} connections: {} answered, 0 lost, {} opened anew, {} left",
        lab.version(),
        proxy.name,
        before.len(),
        summary.total.answered,
        after.difference(&before).count(),
        after.len()
    );
    // In a long run one that the proxy has not needed for the keep-alive timeout is closed, as
    // ever.
    assert!(after.is_subset(&before), "opened anew: {:?}", after.difference(&before));
    assert_eq!(web.count_logged(" stayed (")?, 0);
    // HAProxy names the backend and its server, and nginx the level.
    let wrong = ["[error]", "[warn]", "[crit]", "upstream", "service/"];
    for entry in lab.journal_json(&unit)? {
        let said = entry.message();
        assert!(!wrong.iter().any(|word| said.contains(word)), "{said}");
    }
    Ok(())
}
