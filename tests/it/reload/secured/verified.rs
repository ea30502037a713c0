//! Clients with certificates, and generations that trust others.

use super::{Client, Secured, extra, run, start};
use handover_testing::certs::{self, Pair, SUITES, VERSIONS};

/// A client that was let in with a certificate, or none; whether it moves to a generation that is
/// otherwise.
pub(super) fn verified(identity: Option<&Pair>, first: &Secured, then: &Secured, moves: Result<(), &str>) {
    for version in VERSIONS {
        let (mut world, _, address) = start(first);
        run(async {
            let config = certs::client_as(&[version], &SUITES, &["http/1.1"], identity);
            let mut client = Client::connect(address, &config).await;
            assert_eq!(client.ask("/n/1").await, "1");
            world.configure(|config| config.extra = extra(then));
            world.reload_to(2);
            match moves {
                Ok(()) => world.wait_for_log("moved 1 connections"),
                Err(why) => world.wait_for_log(&format!("1 stayed ({why}: 1)")),
            }
            assert_eq!(client.stays_after_reply().await, moves.is_ok());
        });
        world.stop();
    }
}

pub(super) fn a_client_that_is_no_longer_trusted_is_not_taken() {
    let (identity, other) = (certs::pair(), certs::pair());
    let first = Secured { trusted: identity.chain.clone(), ..Secured::new() };
    verified(Some(&identity), &first, &Secured { trusted: other.chain, ..first.clone() }, Err("client"));
}

pub(super) fn a_client_that_is_trusted_again_is_taken() {
    let (identity, other) = (certs::pair(), certs::pair());
    let first = Secured { trusted: identity.chain.clone(), ..Secured::new() };
    let both = [identity.chain.as_str(), &other.chain].concat();
    verified(Some(&identity), &first, &Secured { trusted: both, ..first.clone() }, Ok(()));
    verified(Some(&identity), &first, &Secured { trusted: String::new(), ..first.clone() }, Ok(()));
}

pub(super) fn by_setting_nobody_is_verified_again() {
    let (identity, other) = (certs::pair(), certs::pair());
    let first = Secured { trusted: identity.chain.clone(), ..Secured::new() };
    let then = Secured { trusted: other.chain, moved: Some("take".into()), ..first.clone() };
    verified(Some(&identity), &first, &then, Ok(()));
}

pub(super) fn by_setting_each_client_is_verified_by_a_handshake() {
    let identity = certs::pair();
    let first = Secured { trusted: identity.chain.clone(), moved: Some("leave".into()), ..Secured::new() };
    verified(Some(&identity), &first, &first, Err("client"));
}

pub(super) fn a_client_without_a_certificate_is_not_taken_where_one_must_be_shown() {
    let first = Secured::new();
    let optional = Secured { trusted: certs::pair().chain, optional: true, ..first.clone() };
    verified(None, &first, &optional, Ok(()));
    verified(None, &optional, &Secured { optional: false, ..optional.clone() }, Err("client"));
}
