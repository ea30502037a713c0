//! What can be served: tower's services as they are, and hyper's in a wrapper.

use crate::error::BoxError;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;

/// A service that answers HTTP requests: any tower service of `Request<Incoming>` that can be
/// cloned, as axum's `Router` and tonic's `Routes` are, or one of hyper's own in a
/// [`HyperService`].
///
/// There is nothing to implement: it is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not serve HTTP",
    note = "it must be `Clone + Send + 'static` and a `tower_service::Service<http::Request<hyper::body::Incoming>>` with a \
            `Send` future, whose response has a body; a service of hyper's own goes into `handover::http::HyperService`"
)]
pub trait HttpService: sealed::IntoHyper {}

/// A service of hyper's own kind, for example of `hyper::service::service_fn`, as an
/// [`HttpService`].
///
/// ```no_run
/// use handover::http::HyperService;
/// use http::{Request, Response};
/// use std::convert::Infallible;
///
/// # fn example(service: &handover::Service) -> handover::Result<()> {
/// let hello = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
///     Ok::<_, Infallible>(Response::new("hello\n".to_owned()))
/// });
/// service.serve_http("http", HyperService(hello))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HyperService<S>(pub S);

/// In a module that nobody else sees.
pub(super) mod sealed {
    use crate::error::BoxError;
    use http::{Request, Response};
    use http_body::Body;
    use hyper::body::Incoming;

    pub trait IntoHyper {
        type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
        type Hyper: hyper::service::Service<
                Request<Incoming>,
                Response = Response<Self::Body>,
                Error: Into<BoxError>,
                Future: Send + 'static,
            > + Clone
            + Send
            + 'static;

        fn into_hyper(self) -> Self::Hyper;
    }
}

impl<S, B> HttpService for S
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
}

impl<S, B> sealed::IntoHyper for S
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Body = B;
    type Hyper = TowerToHyperService<S>;

    fn into_hyper(self) -> Self::Hyper {
        TowerToHyperService::new(self)
    }
}

impl<S, B> HttpService for HyperService<S>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
}

impl<S, B> sealed::IntoHyper for HyperService<S>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Body = B;
    type Hyper = S;

    fn into_hyper(self) -> S {
        self.0
    }
}
