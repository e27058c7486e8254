//! Collecting what nothing refers to. See the module above for why the order of the four steps is safe.

use super::*;

/// Rows and objects looked at in one go.
const PAGE: usize = 256;

impl ObjectBlobs {
    pub(crate) async fn collect_garbage(&self, grace: Duration) -> Result<Collected, BlobError> {
        let before = self.clock.now().minus(grace);
        let mut collected = Collected {
            blobs: self.collect_manifests(before).await?,
            ..Collected::default()
        };
        self.collect_chunks(before, &mut collected).await?;
        self.collect_objects(grace, &mut collected).await?;
        Ok(collected)
    }

    /// When the thing in a partition was last touched, with the row's version; `None` if that is too recent.
    async fn idle_since(
        &self,
        partition: &Partition,
        before: Timestamp,
    ) -> Result<Option<Condition>, BlobError> {
        let key = RowKey::new(TOUCHED, partition.clone(), ONLY);
        let Some(row) = self.get(&key).await? else {
            return Ok(Some(Condition::Absent));
        };
        let touched: Touched = row.json().map_err(store_error)?;
        Ok((touched.at <= before).then_some(Condition::Version(row.version)))
    }

    async fn has_rows(&self, table: Table, partition: &Partition) -> Result<bool, BlobError> {
        let scan = holon_ports::Scan::all(table, partition.clone(), 1);
        let page = self.store.scan(&scan).await.map_err(store_error)?;
        Ok(!page.rows.is_empty())
    }

    /// Manifests that nothing holds; their links are found in the next step.
    async fn collect_manifests(&self, before: Timestamp) -> Result<u64, BlobError> {
        let mut collected = 0;
        let mut cursor = None;
        loop {
            let walked = self.store.walk(MANIFESTS, cursor, PAGE).await;
            let (rows, next) = walked.map_err(store_error)?;
            for (partition, _) in rows {
                let Some(untouched) = self.idle_since(&partition, before).await? else {
                    continue;
                };
                if self.has_rows(HOLDS, &partition).await? {
                    continue;
                }
                let batch = Batch::new().delete_if(TOUCHED, ONLY, untouched).delete_if(
                    MANIFESTS,
                    ONLY,
                    Condition::Present,
                );
                collected += u64::from(self.commit(&partition, batch).await?);
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(collected),
            }
        }
    }

    /// Chunks that are part of no blob.
    async fn collect_chunks(&self, before: Timestamp, collected: &mut Collected) -> Result<(), BlobError> {
        let mut cursor = None;
        loop {
            let walked = self.store.walk(CHUNKS, cursor, PAGE).await;
            let (rows, next) = walked.map_err(store_error)?;
            for (partition, row) in rows {
                let Some(untouched) = self.idle_since(&partition, before).await? else {
                    continue;
                };
                if self.is_linked(&partition, untouched).await? {
                    continue;
                }
                let batch = Batch::new().delete_if(TOUCHED, ONLY, untouched).delete_if(
                    CHUNKS,
                    ONLY,
                    Condition::Version(row.version),
                );
                if !self.commit(&partition, batch).await? {
                    continue;
                }
                let record: ChunkRecord = row.json().map_err(store_error)?;
                let hash = partition.entity.strip_prefix("chunk:").unwrap_or_default();
                let hash: BlobId = hash.parse()?;
                collected.chunks += 1;
                collected.bytes += u64::from(record.size);
                self.delete_object(&self.object_path(&hash.0, record.writing))
                    .await?;
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Whether a chunk that was not put lately is part of a blob; takes out links to blobs that are gone.
    async fn is_linked(&self, chunk: &Partition, untouched: Condition) -> Result<bool, BlobError> {
        let mut scan = holon_ports::Scan::all(LINKS, chunk.clone(), PAGE);
        loop {
            let page = self.store.scan(&scan).await.map_err(store_error)?;
            let mut gone = Batch::new().check(TOUCHED, ONLY, untouched);
            for row in &page.rows {
                let Some((tenant, id)) = parse_link_sort(&row.sort) else {
                    return Err(BlobError::Corrupt(format!(
                        "a link of {} names no blob",
                        chunk.entity
                    )));
                };
                let manifest = RowKey::new(MANIFESTS, blob_partition(&tenant, &id), ONLY);
                if self.get(&manifest).await?.is_some() {
                    return Ok(true);
                }
                gone = gone.delete(LINKS, row.sort.clone());
            }
            // If the chunk was put meanwhile, its links may be those of a blob whose manifest is about to be written.
            if !page.rows.is_empty() && !self.commit(chunk, gone).await? {
                return Ok(true);
            }
            match page.rows.last() {
                Some(last) if page.more => scan = scan.after(last.sort.clone()),
                _ => return Ok(false),
            }
        }
    }

    /// Objects that no chunk's row names: what an upload left that was cut off.
    async fn collect_objects(&self, grace: Duration, collected: &mut Collected) -> Result<(), BlobError> {
        // Ages of objects are by the object store's clock, which no test drives.
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let now_ms = holon_base::SystemClock.now().millis();
        let mut objects = self
            .objects
            .list(Some(&ObjectPath::from(format!("{}chunks", self.root))));
        while let Some(object) = objects.try_next().await.map_err(object_error)? {
            let age_ms = now_ms.saturating_sub(object.last_modified.timestamp_millis());
            let Some((hash, writing)) = self.parse_object_path(&object.location) else {
                continue;
            };
            if age_ms < grace_ms {
                continue;
            }
            let key = RowKey::new(CHUNKS, chunk_partition(&hash), ONLY);
            let record: Option<ChunkRecord> = match self.get(&key).await? {
                Some(row) => Some(row.json().map_err(store_error)?),
                None => None,
            };
            if record.is_none_or(|record| record.writing != writing) {
                collected.bytes += object.size;
                self.delete_object(&object.location).await?;
            }
        }
        Ok(())
    }

    async fn delete_object(&self, object: &ObjectPath) -> Result<(), BlobError> {
        match self.objects.delete(object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(object_error(error)),
        }
    }
}

fn parse_link_sort(sort: &[u8]) -> Option<(Tenant, BlobId)> {
    let (tenant, id) = std::str::from_utf8(sort).ok()?.split_once('/')?;
    Some((Tenant::new(tenant).ok()?, id.parse().ok()?))
}
