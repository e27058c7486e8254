//! Loads that are under way on this node: who asks for the same meanwhile waits for the answer of the first.
//!
//! So a stampede on what no cache has reaches the store once for each key. Whoever begins a load is let in by
//! [`Flights::join`] as the one who leads, does it, and [`Lead::land`]s it. If it lands nothing, because it failed, found
//! nothing, or its request was given up, those who waited look for themselves: what is not there may be there by now.

use parking_lot::Mutex;
use std::{collections::HashMap, hash::Hash, sync::Arc};
use tokio::sync::watch;

pub(crate) struct Flights<K, V>(Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

pub(crate) enum Flight<K: Eq + Hash, V> {
    Leads(Lead<K, V>),
    Follows(Follow<V>),
}

/// Who loads. Dropping it ends the flight with nothing.
pub(crate) struct Lead<K: Eq + Hash, V> {
    flights: Flights<K, V>,
    key: K,
    landed: watch::Sender<Option<V>>,
}

/// Who waits.
pub(crate) struct Follow<V>(watch::Receiver<Option<V>>);

impl<K: Eq + Hash + Clone, V: Clone> Flights<K, V> {
    pub fn join(&self, key: K) -> Flight<K, V> {
        let mut flights = self.0.lock();
        if let Some(landed) = flights.get(&key) {
            return Flight::Follows(Follow(landed.clone()));
        }
        let (landed, landing) = watch::channel(None);
        flights.insert(key.clone(), landing);
        Flight::Leads(Lead {
            flights: Self(Arc::clone(&self.0)),
            key,
            landed,
        })
    }
}

impl<K: Eq + Hash, V> Lead<K, V> {
    pub fn land(self, value: V) {
        self.landed.send_replace(Some(value));
    }
}

impl<K: Eq + Hash, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        // Before the sender goes: who comes now must not wait for what will not come.
        self.flights.0.lock().remove(&self.key);
    }
}

impl<V: Clone> Follow<V> {
    pub async fn landed(mut self) -> Option<V> {
        let landed = self.0.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }
}
