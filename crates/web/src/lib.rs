//! The conventions at the edge, written once: who calls, what they may do, how errors, lists, retries and
//! preconditions look. A system declares routes in [`Routes`]; everything else here happens to them.

pub mod access;
pub mod caller;
mod document;
pub mod edge;
pub mod extract;
pub mod idempotency;
pub mod limit;
pub mod list;
pub mod problem;
pub mod respond;
mod root;
pub mod routes;
pub mod serve;
mod server;
pub mod system;

pub use access::{Access, AuthError, Authenticator, Credential};
pub use caller::{Caller, CallerKind, MaybeCaller};
pub use edge::{ClientAddress, Origins};
pub use extract::{IdempotencyKey, IfMatch, Json, Path, Query, TenantName};
pub use limit::RateLimiter;
pub use list::{ListQuery, Page};
pub use problem::{ApiError, Problem};
pub use respond::{Created, JsonBytes, Tagged};
pub use routes::Routes;
pub use serve::{App, AppBuilder, AppOptions};
pub use system::{Context, Health, Job, Projection, System};
