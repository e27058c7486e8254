//! Lists: `?limit=&cursor=` in, `{items, next}` out.

use crate::problem::ApiError;
use holon_base::{CursorSigner, limits};
use serde::{Deserialize, Serialize};

/// The parameters that every list takes.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub struct ListQuery {
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[param(max_length = 2048)]
    pub cursor: Option<String>,
}

impl ListQuery {
    /// The limit, checked.
    ///
    /// # Errors
    /// 400 unless it is 1 to [`limits::PAGE_ITEMS`].
    pub fn limit(&self) -> Result<usize, ApiError> {
        match self.limit {
            None => Ok(limits::PAGE_ITEMS_DEFAULT),
            Some(limit) if (1..=limits::PAGE_ITEMS).contains(&limit) => Ok(limit),
            Some(_) => Err(ApiError::invalid(
                "limit",
                format!("limit is 1 to {}", limits::PAGE_ITEMS),
            )),
        }
    }

    /// The position that the cursor stands for, if there is one.
    ///
    /// # Errors
    /// 400 if this list did not give it out.
    pub fn position(&self, signer: &CursorSigner, scope: &str) -> Result<Option<Vec<u8>>, ApiError> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        signer
            .open(scope, cursor)
            .map(Some)
            .map_err(|error| ApiError::invalid("cursor", error.to_string()))
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Pass it as `cursor` to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}
