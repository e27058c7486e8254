//! Routes with their access and their place in the OpenAPI document, declared together.

use crate::{access::Access, caller::Caller, problem::ApiError};
use axum::{
    Router,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use utoipa::openapi::{OpenApi, extensions::ExtensionsBuilder, security::SecurityRequirement};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

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

    fn with(mut self, access: Access, (schemas, mut paths, methods): UtoipaMethodRouter<S>) -> Self {
        let declared = match access {
            Access::Public => "public".to_owned(),
            Access::SignedIn => "signed-in".to_owned(),
            Access::Permission(permission) => format!("permission:{permission}"),
        };
        for item in paths.paths.values_mut() {
            for operation in [
                &mut item.get,
                &mut item.put,
                &mut item.post,
                &mut item.delete,
                &mut item.patch,
            ] {
                let Some(operation) = operation else { continue };
                if access != Access::Public {
                    operation.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
                }
                operation.extensions = Some(
                    ExtensionsBuilder::new()
                        .add("x-holon-access", serde_json::json!(declared))
                        .build(),
                );
            }
        }
        let methods = methods.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            check(access, request, next)
        }));
        self.router = self.router.routes((schemas, paths, methods));
        self
    }

    /// Ties the routes to their state.
    pub fn finish(self, state: S) -> (Router, OpenApi) {
        let (router, document) = self.router.split_for_parts();
        (router.with_state(state), document)
    }
}

async fn check(access: Access, request: Request, next: Next) -> Response {
    if access == Access::Public {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let caller = <Caller as axum::extract::FromRequestParts<()>>::from_request_parts(&mut parts, &()).await;
    let allowed = caller.and_then(|caller| match access {
        Access::Permission(permission) => caller.require(permission),
        _ => Ok::<(), ApiError>(()),
    });
    match allowed {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    }
}
