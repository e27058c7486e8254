//! The routes: thin. What a request says is taken apart here, what it means is in [`crate::service`].

mod accounts;
mod administration;
mod client;
mod sessions;
pub mod types;

use crate::service::{
    Identity,
    accounts::LIST_PERMISSION,
    administration::{
        ASSIGN_PERMISSION, CREATE_TENANTS_PERMISSION, DEFINE_PERMISSION, MINT_PERMISSION,
        READ_AUDIT_PERMISSION, READ_ROLES_PERMISSION,
    },
};
use axum::{Router, http::HeaderName, http::header::CACHE_CONTROL};
use holon_base::Id;
use holon_web::{ApiError, Caller, Context, ListQuery, Routes};
use std::sync::Arc;
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

type State = axum::extract::State<Arc<Identity>>;

/// What holds a secret is kept by nobody on the way.
const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

pub(crate) fn routes(identity: Arc<Identity>) -> (Router, OpenApi) {
    Routes::new()
        .public(routes!(accounts::create_account))
        .permitted(LIST_PERMISSION, routes!(accounts::list_accounts))
        .public(routes!(accounts::get_account))
        .signed_in(routes!(accounts::get_me))
        .signed_in(routes!(accounts::update_me))
        .signed_in(routes!(accounts::erase_me))
        .signed_in(routes!(accounts::export_me))
        .public(routes!(sessions::login))
        .public(routes!(sessions::refresh_tokens))
        .signed_in(routes!(sessions::logout))
        .signed_in(routes!(sessions::logout_everywhere))
        .signed_in(routes!(sessions::list_sessions))
        .signed_in(routes!(sessions::end_session))
        .signed_in(routes!(sessions::change_password))
        .signed_in(routes!(sessions::list_keys))
        .signed_in(routes!(sessions::create_key))
        .signed_in(routes!(sessions::delete_key))
        .public(routes!(sessions::key_set))
        .permitted(MINT_PERMISSION, routes!(administration::mint_token))
        .permitted(ASSIGN_PERMISSION, routes!(administration::assign_roles))
        .permitted(READ_ROLES_PERMISSION, routes!(administration::list_roles))
        .permitted(DEFINE_PERMISSION, routes!(administration::define_role))
        .permitted(READ_AUDIT_PERMISSION, routes!(administration::list_audit))
        .permitted(CREATE_TENANTS_PERMISSION, routes!(administration::create_tenant))
        .permitted("admin.inspect", routes!(administration::inspect))
        .finish(identity)
}

/// The id that a list goes on after.
fn after(ctx: &Context, caller: &Caller, query: &ListQuery, list: &str) -> Result<Option<Id>, ApiError> {
    let Some(position) = query.position(&ctx.cursors, &scope(caller, list))? else {
        return Ok(None);
    };
    let raw: [u8; 8] = position.try_into().map_err(|_| {
        ApiError::invalid(
            "cursor",
            "this cursor is of an older version; start again without it",
        )
    })?;
    Ok(Some(Id::from_u64(u64::from_be_bytes(raw))))
}

fn next(ctx: &Context, caller: &Caller, next: Option<Id>, list: &str) -> Option<String> {
    next.map(|id| ctx.cursors.seal(&scope(caller, list), &id.as_u64().to_be_bytes()))
}

fn scope(caller: &Caller, list: &str) -> String {
    format!("identity.{list}:{}", caller.tenant)
}
