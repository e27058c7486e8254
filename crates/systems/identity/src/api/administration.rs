//! What administrators do.

use super::{NO_STORE, State, after, client, next, types::*};
use crate::{model::AuditEntry, roles::Role};
use axum::response::IntoResponse;
use holon_base::{Id, Tenant};
use holon_web::{ApiError, Caller, Json, ListQuery, Page, Path, Query};
use serde::Deserialize;
use std::time::Duration;

/// Mint a token for an account
///
/// Short-lived, audited, and seen by the account's owner among the sessions. Nobody gets more from it than they
/// may do themselves.
#[utoipa::path(post, path = "/v1/identity/accounts/{handle}/tokens", operation_id = "mintToken", tag = "identity",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$")),
    request_body = MintRequest,
    responses(
        (status = 200, description = "The token.", body = MintedToken),
        (status = 403, description = "The permission is missing, or the account may do what the caller may not."),
    ))]
pub async fn mint_token(
    identity: State,
    caller: Caller,
    Path(handle): Path<String>,
    client::From(from): client::From,
    Json(request): Json<MintRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let expires_in = request.expires_in.unwrap_or(900);
    if !(1..=3_600).contains(&expires_in) {
        return Err(ApiError::invalid(
            "/expiresIn",
            "a minted token lives 1 to 3600 seconds",
        ));
    }
    let life = Duration::from_secs(expires_in);
    let access_token = identity.mint_token(&caller, &handle, life, &from).await?;
    Ok((
        NO_STORE,
        Json(MintedToken {
            access_token,
            expires_in,
        }),
    ))
}

/// Set an account's roles
#[utoipa::path(put, path = "/v1/identity/accounts/{handle}/roles", operation_id = "assignRoles", tag = "identity",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$")),
    request_body = AssignedRoles,
    responses(
        (status = 200, description = "The roles, in force.", body = AssignedRoles),
        (status = 409, description = "An administrator cannot take the role from itself."),
    ))]
pub async fn assign_roles(
    identity: State,
    caller: Caller,
    Path(handle): Path<String>,
    client::From(from): client::From,
    Json(assigned): Json<AssignedRoles>,
) -> Result<Json<AssignedRoles>, ApiError> {
    let roles = identity
        .assign_roles(&caller, &handle, assigned.roles, &from)
        .await?;
    Ok(Json(AssignedRoles {
        roles: roles.into_iter().collect(),
    }))
}

/// List roles
#[utoipa::path(get, path = "/v1/identity/roles", operation_id = "listRoles", tag = "identity",
    responses((status = 200, description = "By name.", body = Roles)))]
pub async fn list_roles(identity: State, caller: Caller) -> Result<Json<Roles>, ApiError> {
    Ok(Json(Roles {
        items: identity.roles(&caller).await?,
    }))
}

/// Define a role
///
/// In force at once for everybody who has it. Nobody defines a role that permits more than they may do themselves.
#[utoipa::path(put, path = "/v1/identity/roles/{name}", operation_id = "defineRole", tag = "identity",
    params(("name" = String, Path, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    request_body = Permissions,
    responses(
        (status = 200, description = "The role.", body = Role),
        (status = 409, description = "The role is built in, or there are as many as there may be."),
    ))]
pub async fn define_role(
    identity: State,
    caller: Caller,
    Path(name): Path<String>,
    client::From(from): client::From,
    Json(Permissions { permissions }): Json<Permissions>,
) -> Result<Json<Role>, ApiError> {
    let role = identity
        .define_role(&caller, Role { name, permissions }, &from)
        .await?;
    Ok(Json(role))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only what this account did or had done to it.
    account: Option<Id>,
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[param(max_length = 2048)]
    cursor: Option<String>,
}

/// Read the audit log
///
/// Newest first; an entry appears a moment after what it tells of.
#[utoipa::path(get, path = "/v1/identity/audit", operation_id = "listAudit", tag = "identity",
    params(AuditQuery),
    responses((status = 200, description = "A page of entries.", body = Page<AuditEntry>)))]
pub async fn list_audit(
    identity: State,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    let list = ListQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let name = query
        .account
        .map_or_else(|| "audit".to_owned(), |account| format!("audit-of-{account}"));
    let after = after(&identity.ctx, &caller, &list, &name)?;
    let (items, last) = identity
        .audit_log(&caller, query.account, after, list.limit()?)
        .await?;
    Ok(Json(Page {
        items,
        next: next(&identity.ctx, &caller, last, &name),
    }))
}

/// Make a tenant
///
/// Only from the tenant `main`. A tenant has its own accounts and an administrator of its own, whose key is in the
/// answer when the tenant is made and never again. Making one that is there changes nothing.
#[utoipa::path(put, path = "/v1/identity/tenants/{name}", operation_id = "createTenant", tag = "identity",
    params(("name" = String, Path, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "The tenant is there.", body = TenantInfo)))]
pub async fn create_tenant(
    identity: State,
    caller: Caller,
    Path(name): Path<String>,
    client::From(from): client::From,
) -> Result<impl IntoResponse, ApiError> {
    let name = Tenant::new(&name).map_err(|error| ApiError::invalid("name", error.to_string()))?;
    let (record, token) = identity.create_tenant(&caller, &name, &from).await?;
    let info = TenantInfo {
        name: record.name.to_string(),
        created: record.created,
        administrator_token: token.map(|token| token.token),
    };
    Ok((NO_STORE, Json(info)))
}

/// Look inside
#[utoipa::path(get, path = "/v1/identity/inspect", operation_id = "inspectIdentity", tag = "identity",
    responses((status = 200, description = "What goes on.", body = IdentityInside)))]
pub async fn inspect(identity: State, caller: Caller) -> Result<Json<IdentityInside>, ApiError> {
    let inside = identity.inspect(&caller).await?;
    let keys = inside.keys.into_iter().map(|(key, active)| SigningKey {
        kid: key.kid,
        created: key.created,
        active_from: key.active_from,
        active,
    });
    let lockouts = inside.lockouts.into_iter().map(|slowed| LockedOut {
        kind: slowed.kind.to_owned(),
        network: slowed.network.map(|network| network.to_string()),
        failures: slowed.failures,
        until: slowed.until,
    });
    Ok(Json(IdentityInside {
        accounts: inside.accounts,
        sessions: inside.sessions,
        passwords_in_hand: inside.passwords_in_hand,
        keys: keys.collect(),
        lockouts: lockouts.collect(),
    }))
}
