//! The main process is killed, and its connections are insured: those that are between two requests
//! go on.
//!
//! `HANDOVER_INSURED_CLIENTS` and `HANDOVER_INSURED_KILLS` say how many of each there are.

use std::time::Duration;

use super::restart::{Asks, Seen, number, under};
use super::web::{DEADLINE, InFlight, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("crash_keeps_connections", |lab| keeps_connections(lab, "")).system_only(),
    Scenario::new("crash_keeps_connections_of_a_user", |lab| keeps_connections(lab, "User=www-data\n")).system_only(),
    Scenario::new("crash_after_a_reload_keeps_connections", crash_after_reload).system_only(),
];

/// The pause before a start stays as short as it is after the first kill.
const INSURED: &str = "Environment=HANDOVER_MIGRATE=crash\nRestart=always\nRestartSec=20ms\nRestartSteps=0\n";
/// More than go into the mailbox that is in the store before any connection comes.
const CLIENTS: usize = 600;
const KILLS: usize = 5;
/// So many replies are on their way at each kill.
const IN_THE_MIDDLE: usize = 2;
/// Each client asks so often.
const PAUSE: Duration = Duration::from_secs(1);
/// Two mailboxes, two spare ones, and a few more that are just being replaced; and the others' own.
const MOST_ENTRIES: u32 = 10;

fn kill(web: &Web<'_>, seen: &Seen) -> Outcome {
    let (lab, restarts) = (web.lab, web.state()?.restarts);
    let replies =
        (0..IN_THE_MIDDLE).map(|_| web.in_flight(1000, Duration::from_secs(1))).collect::<Outcome<Vec<_>>>()?;
    lab.signal(lab.main_pid(UNIT)?, "KILL")?;
    web.until("restarted", |state| state.is_running() && state.restarts > restarts)?;
    assert!(replies.into_iter().all(InFlight::ended_cut), "a reply goes on");
    let answered = seen.answered();
    lab.wait_until(DEADLINE, "clients are answered", || Ok((seen.answered() > answered + 100).then_some(())))
}

fn entries(web: &Web<'_>) -> Outcome<u32> {
    Ok(web.lab.show(UNIT, "NFileDescriptorStore")?.parse()?)
}

/// How many the journal says were closed, as they were in the middle of a request.
fn middle(web: &Web<'_>) -> Outcome<u64> {
    let mut all = 0;
    for entry in web.lab.journal_and_lost(UNIT)? {
        let message = entry.message();
        let Some((_, after)) = message.split_once("middle: ") else { continue };
        let number: String = after.chars().take_while(char::is_ascii_digit).collect();
        all += number.parse::<u64>()?;
    }
    Ok(all)
}

fn keeps_connections(lab: &Container, lines: &str) -> Outcome {
    let (clients, kills) = (number("HANDOVER_INSURED_CLIENTS", CLIENTS), number("HANDOVER_INSURED_KILLS", KILLS));
    let web = Web::start(lab, Setup { lines: &format!("{INSURED}{lines}"), ..Setup::default() })?;
    let seen = under(lab, &[web.clients(Asks::Kept(PAUSE), clients)], |seen| {
        for _ in 0..kills {
            kill(&web, seen)?;
            assert!(entries(&web)? <= MOST_ENTRIES, "{} entries in the fd store", entries(&web)?);
        }
        Ok(())
    })?;
    let middle = middle(&web)?;
    println!(
        "{kills} kills, {clients} connections: {} answered, {} lost, {middle} in the middle",
        seen.answered(),
        seen.lost()
    );
    let closed = seen.lost() + u64::try_from(kills * IN_THE_MIDDLE)?;
    assert_eq!(closed, middle, "only those are closed that were in the middle of a request");
    assert!(seen.lost() <= u64::try_from(clients / 10)?, "{} lost", seen.lost());
    assert_eq!(web.count_logged("connections that a process left that ended")?, kills);
    Ok(())
}

/// What has moved is insured where it is.
fn crash_after_reload(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { lines: INSURED, ..Setup::default() })?;
    let seen = under(lab, &[web.clients(Asks::Kept(PAUSE), 100)], |seen| {
        for _ in 0..3 {
            let main = web.reload()?;
            web.until_only(&[main])?;
            kill(&web, seen)?;
        }
        Ok(())
    })?;
    let middle = middle(&web)?;
    println!("3 reloads and kills: {} answered, {} lost, {middle} in the middle", seen.answered(), seen.lost());
    assert_eq!(seen.lost() + 3 * IN_THE_MIDDLE as u64, middle);
    assert!(entries(&web)? <= MOST_ENTRIES, "{} entries in the fd store", entries(&web)?);
    Ok(())
}
