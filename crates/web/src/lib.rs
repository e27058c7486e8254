//! The conventions at the edge, written once: who calls, what they may do, how errors, lists, retries and
//! preconditions look. A system declares routes in [`Routes`]; everything else here happens to them.

pub mod access;
pub mod caller;
pub mod extract;
pub mod limit;
pub mod list;
pub mod problem;
pub mod respond;
pub mod routes;
pub mod system;

pub use access::{Access, AuthError, Authenticator, Credential};
pub use caller::{Caller, CallerKind, MaybeCaller};
pub use extract::{IdempotencyKey, IfMatch, Json, Path, Query, TenantName};
pub use limit::RateLimiter;
pub use list::{ListQuery, Page};
pub use problem::{ApiError, Problem};
pub use respond::{Created, JsonBytes, Tagged};
pub use routes::Routes;
pub use system::{Context, Health, Job, Projection, System};
