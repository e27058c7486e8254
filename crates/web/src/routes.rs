//! Routes with their access and their place in the OpenAPI document, declared together.

use crate::{
    access::{Access, AuthError},
    caller::{Authentication, Caller, CallerKind},
    problem::ApiError,
};
use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::future::{Either, Ready, ready};
use std::{
    convert::Infallible,
    task::{Context, Poll},
};
use tower::{Layer, Service};
use utoipa::openapi::{OpenApi, PathItem, path::Operation, security::SecurityRequirement};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

/// The OpenAPI extension that says who may use an operation: `public`, `signed-in` or `permission:<name>`.
pub const ACCESS: &str = "x-holon-access";
/// The OpenAPI extension of operations that stay open.
pub const LIVE: &str = "x-holon-live";

/// The operations of a path, whatever their method.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
        &mut item.head,
        &mut item.options,
        &mut item.trace,
    ]
    .into_iter()
    .filter_map(Option::as_mut)
}

/// The routes of one system: each with who may use it.
pub struct Routes<S: Clone + Send + Sync + 'static> {
    router: OpenApiRouter<S>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub fn new() -> Self {
        Self {
            router: OpenApiRouter::new(),
        }
    }

    /// Routes for anybody. Takes what `utoipa_axum::routes!` makes.
    #[must_use]
    pub fn public(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.with(Access::Public, routes)
    }

    /// Routes for whoever is signed in.
    #[must_use]
    pub fn signed_in(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.with(Access::SignedIn, routes)
    }

    /// Routes for whoever has a permission.
    #[must_use]
    pub fn permitted(self, permission: &'static str, routes: UtoipaMethodRouter<S>) -> Self {
        self.with(Access::Permission(permission), routes)
    }

    /// Routes that stay open: WebSocket and server-sent events. They have no deadline, and since a browser cannot set
    /// a header there, they alone take the access token as `?access_token=`.
    #[must_use]
    pub fn live(self, access: Access, (schemas, mut paths, methods): UtoipaMethodRouter<S>) -> Self {
        for item in paths.paths.values_mut() {
            for operation in operations(item) {
                operation
                    .extensions
                    .get_or_insert_default()
                    .insert(LIVE.into(), true.into());
            }
        }
        self.with(access, (schemas, paths, methods))
    }

    fn with(mut self, access: Access, (schemas, mut paths, methods): UtoipaMethodRouter<S>) -> Self {
        let declared = match access {
            Access::Public => "public".to_owned(),
            Access::SignedIn => "signed-in".to_owned(),
            Access::Permission(permission) => format!("permission:{permission}"),
        };
        for item in paths.paths.values_mut() {
            for operation in operations(item) {
                if access != Access::Public {
                    operation.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
                }
                operation
                    .extensions
                    .get_or_insert_default()
                    .insert(ACCESS.into(), declared.clone().into());
            }
        }
        let methods = if access == Access::Public {
            methods
        } else {
            methods.layer(AccessLayer(access))
        };
        self.router = self.router.routes((schemas, paths, methods));
        self
    }

    /// Ties the routes to their state.
    pub fn finish(self, state: S) -> (Router, OpenApi) {
        let (router, document) = self.router.split_for_parts();
        (router.with_state(state), document)
    }
}

/// Lets through to a route only who may use it.
#[derive(Clone, Copy)]
struct AccessLayer(Access);

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> AccessService<S> {
        AccessService {
            access: self.0,
            inner,
        }
    }
}

#[derive(Clone)]
struct AccessService<S> {
    access: Access,
    inner: S,
}

impl<S> Service<Request> for AccessService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match decide(self.access, &request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Ok(error.into_response()))),
        }
    }
}

fn decide(access: Access, request: &Request) -> Result<(), ApiError> {
    let caller = match request.extensions().get::<Authentication>() {
        Some(Authentication(Ok(Some(caller)))) => caller,
        Some(Authentication(Err(error))) => return Err(error.clone().into()),
        _ => return Err(AuthError::Missing.into()),
    };
    match access {
        Access::Permission(permission) => caller.require(permission),
        Access::SignedIn => require_scope(caller, request.uri().path()),
        Access::Public => Ok(()),
    }
}

/// What anybody signed in may do, an API key may do only in the systems that its scopes name.
fn require_scope(caller: &Caller, path: &str) -> Result<(), ApiError> {
    if !matches!(caller.kind, CallerKind::ApiKey { .. }) {
        return Ok(());
    }
    let system = path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next());
    caller.require(system.unwrap_or("*"))
}
