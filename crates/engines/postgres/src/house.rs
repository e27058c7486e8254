//! Sweeping: what has expired is deleted a while later, a bounded number of rows at a time.

use crate::{core::Core, error::Trouble, shard::Shard};
use holon_ports::StoreError;
use std::sync::Arc;

/// Sweeps a shard until the engine stops; without a pause while there is much.
pub(crate) async fn keep(core: Arc<Core>, shard: Arc<Shard>) {
    let mut stop = core.stop.subscribe();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(core.options.housekeeping) => {}
        }
        if shard.is_retired() {
            return;
        }
        loop {
            match sweep(&core, &shard).await {
                Ok(swept) if swept >= u64::from(core.options.sweep_rows) && !core.is_closed() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(shard = shard.name, %error, "expired rows were not swept");
                    break;
                }
            }
        }
    }
}

pub(crate) async fn sweep(core: &Core, shard: &Shard) -> Result<u64, StoreError> {
    let (now, most) = (core.clock().now().millis(), core.options.sweep_rows as i32);
    let sql = "SELECT holon.sweep($1, $2)";
    let rows = shard.primary.read(core.deadline(), sql, &[&now, &most]).await;
    let rows = rows.map_err(Trouble::of_read)?;
    let swept: Option<i64> = rows.first().and_then(|row| row.try_get(0).ok());
    Ok(swept.and_then(|swept| u64::try_from(swept).ok()).unwrap_or(0))
}
