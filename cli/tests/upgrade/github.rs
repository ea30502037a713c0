//! A server with the API of GitHub's releases: what is at
//! `https://api.github.com/repos/OWNER/REPO/releases/latest`.

use handover::upgrade::{Done, GitHub};
use serde_json::json;

use crate::parts::{Place, Signer, block_on, not_fetched, program, refused, run, sha256, up_to_date, upgraded};
use crate::serve::{Answer, Server};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![latest, a_tag, assets_that_do_not_fit, a_digest_that_is_wrong];

/// A release, as the API tells of it, with its assets at a storage elsewhere.
pub(crate) fn release(api: &Server, path: &str, etag: &'static str, tag: &str, files: &[(&str, Vec<u8>)], wrong: bool) {
    let assets = files.iter().enumerate().map(|(n, (name, bytes))| {
        let id = format!("{tag}{n}");
        api.put(
            &format!("/repos/acme/web/releases/assets/{id}"),
            Answer::Redirect(format!("/storage/{id}?signature=x")),
        );
        api.put(&format!("/storage/{id}?signature=x"), Answer::file(bytes.clone()));
        json!({
            "id": id,
            "name": name,
            "url": api.url(&format!("/repos/acme/web/releases/assets/{id}")),
            "browser_download_url": "https://github.invalid/",
            "updated_at": "2026-01-01T00:00:00Z",
            "size": bytes.len(),
            "digest": format!("sha256:{}", if wrong { "0".repeat(64) } else { sha256(bytes) }),
        })
    });
    let text = json!({"tag_name": tag, "draft": false, "assets": assets.collect::<Vec<_>>()}).to_string();
    api.put(&format!("/repos/acme/web/releases/{path}"), Answer::File(text.into_bytes(), Some(etag), None));
}

pub(crate) fn files(signer: &Signer, version: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = program(version);
    let sums = format!("{}  web-1-x86_64\n", sha256(&bytes)).into_bytes();
    vec![
        ("web-1-x86_64.minisig", signer.sign(&bytes)),
        ("web-1-x86_64", bytes),
        ("web-1-aarch64", b"other".to_vec()),
        ("SHA256SUMS", sums),
    ]
}

fn latest() {
    let (place, signer) = (Place::new(), Signer::new());
    let api = Server::tls(&place.path("ca.pem"));
    release(&api, "latest", "\"a\"", "v1", &files(&signer, "1"), false);
    let github = GitHub::new("acme/web", "web-*-x86_64").api(api.url("/")).token("hush");
    let builder = place.builder(github, signer.trust()).ca_file(place.path("ca.pem")).sha256_in("SHA256SUMS");
    let upgrade = place.taken(builder);
    upgraded(&run(&upgrade));
    place.is("1");
    let asked = api.asked();
    assert!(
        asked.iter().filter(|a| a.path.starts_with("/repos/")).all(|a| a.headers["authorization"] == "Bearer hush")
    );
    assert_eq!(asked[0].headers["accept"], "application/vnd.github+json");
    assert!(asked.iter().any(|a| a.path.contains("/assets/") && a.headers["accept"] == "application/octet-stream"));
    up_to_date(&run(&upgrade));
    assert_eq!(
        api.asked().iter().map(|a| a.status).collect::<Vec<_>>(),
        [304],
        "one request, which counts against no limit"
    );
    // Another text about the same release.
    release(&api, "latest", "\"b\"", "v1", &files(&signer, "1"), false);
    up_to_date(&run(&upgrade));
    assert_eq!(api.asked().len(), 1, "the asset is the one that was seen");
    release(&api, "latest", "\"c\"", "v2", &files(&signer, "2"), false);
    upgraded(&run(&upgrade));
    place.is("2");
}

fn a_tag() {
    let (place, signer) = (Place::new(), Signer::new());
    let api = Server::tls(&place.path("ca.pem"));
    release(&api, "latest", "\"a\"", "v2", &files(&signer, "2"), false);
    release(&api, "tags/v1", "\"b\"", "v1", &files(&signer, "1"), false);
    let github = |tag: &str| GitHub::new("acme/web", "web-?-x86_64").api(api.url("")).tag(tag);
    let build = |tag: &str| place.taken(place.builder(github(tag), signer.trust()).ca_file(place.path("ca.pem")));
    upgraded(&run(&build("v1")));
    place.is("1");
    assert!(api.asked().iter().all(|a| !a.headers.contains_key("authorization")));
    not_fetched(run(&build("v9")), "404");
}

fn assets_that_do_not_fit() {
    let (place, signer) = (Place::new(), Signer::new());
    let api = Server::tls(&place.path("ca.pem"));
    let mut without = files(&signer, "1");
    without.remove(0);
    release(&api, "latest", "\"a\"", "v1", &without, false);
    let github = |asset: &str| GitHub::new("acme/web", asset).api(api.url(""));
    let look = |asset: &str| {
        let builder = place.builder(github(asset), signer.trust()).ca_file(place.path("ca.pem"));
        block_on(place.taken(builder).look())
    };
    not_fetched(look("nothing-*"), "no asset is called \"nothing-*\": web-1-x86_64");
    not_fetched(look("web-1-*"), "several assets");
    not_fetched(look("web-1-x86_64"), "no asset web-1-x86_64.minisig");
    api.put("/repos/acme/web/releases/latest", Answer::file("<html>"));
    not_fetched(look("web-1-x86_64"), "no JSON");
    api.put("/repos/acme/web/releases/latest", Answer::Status(403));
    not_fetched(look("web-1-x86_64"), "credentials");
    place.is_untouched();
}

fn a_digest_that_is_wrong() {
    let (place, signer) = (Place::new(), Signer::new());
    let api = Server::tls(&place.path("ca.pem"));
    release(&api, "latest", "\"a\"", "v1", &files(&signer, "1"), true);
    let github = GitHub::new("acme/web", "web-*-x86_64").api(api.url(""));
    refused(
        run(&place.taken(place.builder(github.clone(), signer.trust()).ca_file(place.path("ca.pem")))),
        "not the one that the release",
    );
    release(&api, "latest", "\"b\"", "v1", &files(&signer, "1"), false);
    let done = block_on(place.taken(place.builder(github, signer.trust()).ca_file(place.path("ca.pem"))).look());
    assert!(matches!(done, Ok(Done::Available { .. })), "{done:?}");
    place.is_untouched();
}
