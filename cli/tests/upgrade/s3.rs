//! S3-compatible storage: the server of the crates `s3s` and `s3s-fs`, which checks signatures.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use handover::upgrade::S3;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::host::SingleDomain;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::parts::{Place, Signer, not_fetched, program, run, up_to_date, upgraded};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![by_path, by_host_name, bad_credentials];

pub(crate) struct Storage {
    pub(crate) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// The buckets are directories in there.
pub(crate) fn storage(root: &Path) -> Storage {
    let files = FileSystem::new(root).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (bound, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut builder = S3ServiceBuilder::new(files);
            builder.set_auth(SimpleAuth::from_single("me", "hush"));
            builder.set_host(SingleDomain::new(&format!("s3.test:{}", address.port())).unwrap());
            let service = builder.build();
            bound.send(address).unwrap();
            let serving = async {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let serving = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service.clone());
                    tokio::spawn(serving);
                }
            };
            tokio::select! {
                _ = stopped => {}
                () = serving => {}
            }
        });
    });
    Storage { address: address.recv().unwrap(), _stop: stop }
}

/// Beside the program, with a bucket `releases`.
pub(crate) fn put(place: &Place, signer: &Signer, version: &str) -> std::path::PathBuf {
    let folder = place.path("s3/releases/web/stable");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("web"), program(version)).unwrap();
    fs::write(folder.join("web.minisig"), signer.sign(&program(version))).unwrap();
    place.path("s3")
}

fn by_path() {
    let (place, signer) = (Place::new(), Signer::new());
    let storage = storage(&put(&place, &signer, "1"));
    let s3 = S3::new("releases", "web/stable/web").endpoint(format!("http://{}", storage.address));
    let s3 = s3.region("eu-central-1").credentials("me", "hush", None);
    let upgrade = place.taken(place.builder(s3, signer.trust()));
    upgraded(&run(&upgrade));
    place.is("1");
    up_to_date(&run(&upgrade));
    put(&place, &signer, "2");
    upgraded(&run(&upgrade));
    place.is("2");
}

fn by_host_name() {
    let (place, signer) = (Place::new(), Signer::new());
    let storage = storage(&put(&place, &signer, "1"));
    let s3 = S3::new("releases", "web/stable/web").endpoint(format!("http://s3.test:{}", storage.address.port()));
    let s3 = s3.path_style(false).credentials("me", "hush", None);
    let builder = place.builder(s3, signer.trust()).resolve("releases.s3.test", storage.address);
    upgraded(&run(&place.taken(builder)));
    place.is("1");
}

fn bad_credentials() {
    let (place, signer) = (Place::new(), Signer::new());
    let storage = storage(&put(&place, &signer, "1"));
    let s3 = |key: &str| S3::new("releases", key).endpoint(format!("http://{}", storage.address));
    let look = |s3: S3| run(&place.taken(place.builder(s3, signer.trust())));
    not_fetched(look(s3("web/stable/web").credentials("me", "wrong", None)), "403");
    not_fetched(look(s3("web/stable/web")), "403");
    not_fetched(look(s3("web/none").credentials("me", "hush", None)), "404");
    place.is_untouched();
}
