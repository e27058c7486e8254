//! Accounts: made, seen, changed, exported, erased.

use super::{NO_STORE, State, after, client, next, types::*};
use crate::service::{self, Identity};
use axum::{
    extract::rejection::BytesRejection,
    http::{HeaderName, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use holon_web::{
    ApiError, Caller, Created, IfMatch, Json, ListQuery, MaybeCaller, Page, Path, Query, Tagged, TenantName,
};

/// Make an account
///
/// Anybody signs up with a password. With the permission `identity.accounts.create` an account can be made
/// without one: nobody signs in to it until it gets one, by a minted token.
#[utoipa::path(post, path = "/v1/identity/accounts", operation_id = "createAccount", tag = "identity",
    params(("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    request_body = NewAccount,
    responses(
        (status = 201, description = "The account is there.", body = Account,
            headers(("Location" = String), ("ETag" = String))),
        (status = 409, description = "The handle is taken, or was by an erased account."),
        (status = 422, description = "The password is among the common ones, or says the handle or name."),
    ))]
pub async fn create_account(
    identity: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    client::From(from): client::From,
    Json(new): Json<NewAccount>,
) -> Result<Created<Account>, ApiError> {
    let tenant = caller.as_ref().map_or(named, |caller| caller.tenant.clone());
    let new = service::accounts::NewAccount {
        handle: new.handle,
        name: new.name,
        bio: new.bio,
        password: new.password,
    };
    let made = identity
        .create_account(caller.as_ref(), &tenant, new, &from)
        .await?;
    Ok(Created {
        location: format!("/v1/identity/accounts/{}", made.account.handle),
        version: made.version,
        body: made.account.into(),
    })
}

/// List accounts
///
/// Newest first. A new account appears a moment after it was made.
#[utoipa::path(get, path = "/v1/identity/accounts", operation_id = "listAccounts", tag = "identity",
    params(ListQuery),
    responses((status = 200, description = "A page of accounts.", body = Page<ListedAccount>)))]
pub async fn list_accounts(
    identity: State,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ListedAccount>>, ApiError> {
    let after = after(&identity.ctx, &caller, &query, "accounts")?;
    let (accounts, last) = identity.list_accounts(&caller, after, query.limit()?).await?;
    let items = accounts
        .into_iter()
        .map(|record| ListedAccount {
            roles: record.roles.clone(),
            account: record.into(),
        })
        .collect();
    Ok(Json(Page {
        items,
        next: next(&identity.ctx, &caller, last, "accounts"),
    }))
}

/// See an account
#[utoipa::path(get, path = "/v1/identity/accounts/{handle}", operation_id = "getAccount", tag = "identity",
    params(
        ("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$"),
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$"),
    ),
    responses((status = 200, description = "The account.", body = Account, headers(("ETag" = String)))))]
pub async fn get_account(
    identity: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(handle): Path<String>,
) -> Result<Tagged<Account>, ApiError> {
    let tenant = caller.map_or(named, |caller| caller.tenant);
    let found = identity.account(&tenant, &handle).await?;
    Ok(Tagged {
        version: found.version,
        body: found.account.into(),
    })
}

/// See my account
#[utoipa::path(get, path = "/v1/identity/me", operation_id = "getMe", tag = "identity",
    responses((status = 200, description = "The caller's account.", body = Me, headers(("ETag" = String)))))]
pub async fn get_me(identity: State, caller: Caller) -> Result<Tagged<Me>, ApiError> {
    let own = identity.own_account(&caller).await?;
    Ok(Tagged {
        version: own.version,
        body: Me {
            roles: own.account.roles.clone(),
            account: own.account.into(),
            permissions: caller.permissions.as_ref().clone(),
            tenant: caller.tenant.to_string(),
        },
    })
}

/// Change my name or bio
#[utoipa::path(patch, path = "/v1/identity/me", operation_id = "updateMe", tag = "identity",
    params(("If-Match" = Option<String>, Header, description = "The ETag of what was read.",
        pattern = "^(\\*|(W/)?\"[!#-~]*\")$")),
    request_body = AccountUpdate,
    responses((status = 200, description = "The account as it is now.", body = Account, headers(("ETag" = String)))))]
pub async fn update_me(
    identity: State,
    caller: Caller,
    IfMatch(version): IfMatch,
    Json(update): Json<AccountUpdate>,
) -> Result<Tagged<Account>, ApiError> {
    let (name, bio) = (update.name.as_deref(), update.bio.as_deref());
    let changed = identity.update_account(&caller, name, bio, version).await?;
    Ok(Tagged {
        version: changed.version,
        body: changed.account.into(),
    })
}

/// Erase my account
///
/// Takes the password if there is one. From the answer on nobody signs in as the account or finds it; every system
/// erases what it keeps behind it. Its handle is never given to another.
#[utoipa::path(delete, path = "/v1/identity/me", operation_id = "eraseMe", tag = "identity",
    request_body(content = Option<Erasure>),
    responses(
        (status = 202, description = "The erasure has begun."),
        (status = 403, description = "The password is wrong, or the credential is not enough."),
        (status = 409, description = "An administrator is not erased."),
    ))]
pub async fn erase_me(
    identity: State,
    caller: Caller,
    client::From(from): client::From,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let body = body.map_err(|_| ApiError::invalid("body", "the body broke off; send it again"))?;
    let erasure: Option<Erasure> = if body.is_empty() {
        None
    } else {
        let hint = "send nothing, or a JSON object with the password";
        serde_json::from_slice(&body).map_err(|_| ApiError::invalid("body", hint))?
    };
    let password = erasure.and_then(|erasure| erasure.password);
    identity
        .erase_account(&caller, password.as_deref(), &from)
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// Export my data
///
/// Everything that every system keeps of the caller, as one document.
#[utoipa::path(get, path = "/v1/identity/me/export", operation_id = "exportMe", tag = "identity",
    responses((status = 200, description = "The whole.", body = Export, headers(("Content-Disposition" = String)))))]
pub async fn export_me(
    identity: State,
    caller: Caller,
    client::From(from): client::From,
) -> Result<impl IntoResponse, ApiError> {
    let (account, systems) = Identity::export(&identity, &caller, &from).await?;
    let file = format!("attachment; filename=\"{}.json\"", account.handle);
    let headers: [(HeaderName, String); 1] = [(header::CONTENT_DISPOSITION, file)];
    Ok((
        NO_STORE,
        headers,
        Json(Export {
            account: account.into(),
            systems,
        }),
    ))
}
