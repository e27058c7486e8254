//! Signing in and out, sessions, passwords, API keys, and the public keys.

use super::{NO_STORE, State, client, types::*};
use crate::{api_keys, service::Identity};
use axum::{
    http::{StatusCode, header},
    response::IntoResponse,
};
use holon_base::Id;
use holon_web::{ApiError, Caller, Created, Json, Path, TenantName};

/// Sign in
///
/// Answers the same, in the same time, for a wrong password and for an unknown handle. Too many wrong ones slow down
/// the network they come from, never a device that has signed in before: it shows so by the cookie or the
/// `X-Device` header that a login gave.
#[utoipa::path(post, path = "/v1/identity/login", operation_id = "login", tag = "identity",
    params(
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$"),
        ("X-Device" = Option<String>, Header, description = "What an earlier login on this device answered.",
            max_length = 256),
    ),
    request_body = Login,
    responses(
        (status = 200, description = "Signed in.", body = Tokens,
            headers(("X-Device" = String), ("Set-Cookie" = String))),
        (status = 401, description = "Handle or password is wrong."),
    ))]
pub async fn login(
    identity: State,
    TenantName(tenant): TenantName,
    client::From(from): client::From,
    Json(login): Json<Login>,
) -> Result<impl IntoResponse, ApiError> {
    let signed_in = identity
        .login(&tenant, &login.handle, &login.password, &from)
        .await?;
    let device = signed_in.device.clone().unwrap_or_default();
    let headers = client::known_device(&device, identity.options.secure_cookies);
    Ok((headers, Json(Tokens::from(signed_in))))
}

/// Refresh tokens
///
/// Each refresh token is good once. One that comes back later ends its session, since it or its successor was
/// stolen; one that comes back within ten seconds gets the same successor again, since the answer may have been lost.
#[utoipa::path(post, path = "/v1/identity/tokens/refresh", operation_id = "refreshTokens", tag = "identity",
    request_body = RefreshRequest,
    responses(
        (status = 200, description = "The next tokens.", body = Tokens),
        (status = 401, description = "The token is not good, or no longer."),
    ))]
pub async fn refresh_tokens(
    identity: State,
    client::From(from): client::From,
    Json(request): Json<RefreshRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let signed_in = identity.refresh(&request.refresh_token, &from).await?;
    Ok((NO_STORE, Json(Tokens::from(signed_in))))
}

/// Sign out
///
/// Ends the session of this token, everywhere and at once. An API key has none and stays.
#[utoipa::path(post, path = "/v1/identity/logout", operation_id = "logout", tag = "identity",
    responses((status = 204, description = "The session has ended.")))]
pub async fn logout(
    identity: State,
    caller: Caller,
    client::From(from): client::From,
) -> Result<StatusCode, ApiError> {
    identity
        .logout(&caller, Identity::current_session(&caller), &from)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign out everywhere
///
/// Ends all sessions of the account. API keys stay.
#[utoipa::path(post, path = "/v1/identity/logout/all", operation_id = "logoutEverywhere", tag = "identity",
    responses((status = 204, description = "No session is left.")))]
pub async fn logout_everywhere(
    identity: State,
    caller: Caller,
    client::From(from): client::From,
) -> Result<StatusCode, ApiError> {
    identity.logout_everywhere(&caller, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List my sessions
#[utoipa::path(get, path = "/v1/identity/me/sessions", operation_id = "listSessions", tag = "identity",
    responses((status = 200, description = "Newest first.", body = Sessions)))]
pub async fn list_sessions(identity: State, caller: Caller) -> Result<Json<Sessions>, ApiError> {
    let current = Identity::current_session(&caller);
    let sessions = identity.own_sessions(&caller).await?;
    let items = sessions
        .into_iter()
        .map(|session| Session::new(session, current))
        .collect();
    Ok(Json(Sessions { items }))
}

/// End one of my sessions
#[utoipa::path(delete, path = "/v1/identity/me/sessions/{id}", operation_id = "endSession", tag = "identity",
    params(("id" = Id, Path)),
    responses((status = 204, description = "It has ended.")))]
pub async fn end_session(
    identity: State,
    caller: Caller,
    Path(id): Path<Id>,
    client::From(from): client::From,
) -> Result<StatusCode, ApiError> {
    identity.end_session(&caller, id, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change my password
///
/// Ends all other sessions. API keys stay.
#[utoipa::path(put, path = "/v1/identity/me/password", operation_id = "changePassword", tag = "identity",
    request_body = PasswordChange,
    responses(
        (status = 204, description = "The new one holds."),
        (status = 403, description = "The present one is wrong, or the credential is not enough."),
        (status = 422, description = "The new one is among the common ones, or says the handle or name."),
    ))]
pub async fn change_password(
    identity: State,
    caller: Caller,
    client::From(from): client::From,
    Json(change): Json<PasswordChange>,
) -> Result<StatusCode, ApiError> {
    let current = Identity::current_session(&caller);
    identity
        .change_password(&caller, current, change.current.as_deref(), &change.new, &from)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List my API keys
#[utoipa::path(get, path = "/v1/identity/me/keys", operation_id = "listApiKeys", tag = "identity",
    responses((status = 200, description = "Newest first.", body = ApiKeys)))]
pub async fn list_keys(identity: State, caller: Caller) -> Result<Json<ApiKeys>, ApiError> {
    let keys = identity.own_keys(&caller).await?;
    let items = keys
        .into_iter()
        .map(|key| {
            let prefix = api_keys::prefix(&caller.tenant, caller.account, key.id);
            ApiKey::new(key, prefix)
        })
        .collect();
    Ok(Json(ApiKeys { items }))
}

/// Make an API key
///
/// The answer is the one time that the key is shown.
#[utoipa::path(post, path = "/v1/identity/me/keys", operation_id = "createApiKey", tag = "identity",
    request_body = NewApiKey,
    responses(
        (status = 201, description = "The key.", body = CreatedApiKey, headers(("Location" = String))),
        (status = 403, description = "A scope is not the caller's, or the credential is not enough."),
        (status = 409, description = "The account has as many keys as it may."),
    ))]
pub async fn create_key(
    identity: State,
    caller: Caller,
    client::From(from): client::From,
    Json(new): Json<NewApiKey>,
) -> Result<impl IntoResponse, ApiError> {
    let (record, key) = identity.create_key(&caller, &new.name, new.scopes, &from).await?;
    let prefix = api_keys::prefix(&caller.tenant, caller.account, record.id);
    let location = format!("/v1/identity/me/keys/{}", record.id);
    let version = record.id.as_u64();
    let body = CreatedApiKey {
        info: ApiKey::new(record, prefix),
        key,
    };
    Ok((
        NO_STORE,
        Created {
            location,
            version,
            body,
        },
    ))
}

/// Delete one of my API keys
#[utoipa::path(delete, path = "/v1/identity/me/keys/{id}", operation_id = "deleteApiKey", tag = "identity",
    params(("id" = Id, Path)),
    responses((status = 204, description = "It opens nothing any more.")))]
pub async fn delete_key(
    identity: State,
    caller: Caller,
    Path(id): Path<Id>,
    client::From(from): client::From,
) -> Result<StatusCode, ApiError> {
    identity.delete_key(&caller, id, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The public keys of access tokens
///
/// A key is here an hour before it signs, so that this may be cached.
#[utoipa::path(get, path = "/.well-known/jwks.json", operation_id = "getKeySet", tag = "identity",
    responses((status = 200, description = "The keys.", body = KeySet)))]
pub async fn key_set(identity: State) -> Result<impl IntoResponse, ApiError> {
    let ring = identity.key_ring().await?;
    let headers = [(header::CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, Json(KeySet { keys: ring.jwks() })))
}
