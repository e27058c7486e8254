//! Metrics: rate, errors and duration of every route (Tom Wilkie's RED method), and the lag of every consumer.
//!
//! A route's figures are atomics that are found once, when the route is built; recording a request is three atomic
//! additions. Durations go into buckets of a geometric series (four to each doubling), so a quantile read from them
//! is off by at most 19 %. Figures over the last minute come from six slices of ten seconds.

use parking_lot::{Mutex, RwLock};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Buckets of a duration histogram: upper bounds are 50 us * 2^(i/4), up to about 3 minutes, then one for the rest.
const BUCKETS: usize = 88;
const FIRST_BOUND_US: f64 = 50.0;
/// Each slice of the sliding minute, and how many there are.
pub const SLICE: Duration = Duration::from_secs(10);
const SLICES: usize = 6;

fn bound_us(bucket: usize) -> f64 {
    FIRST_BOUND_US * 2_f64.powf(bucket as f64 / 4.0)
}

fn bucket_of(duration: Duration) -> usize {
    let us = duration.as_secs_f64() * 1e6;
    if us <= FIRST_BOUND_US {
        return 0;
    }
    // Rounding may put an exact bound one too high; that is within the stated error.
    ((us / FIRST_BOUND_US).log2() * 4.0)
        .ceil()
        .min((BUCKETS - 1) as f64) as usize
}

/// A histogram of durations made of atomics.
#[derive(Debug)]
pub struct DurationHistogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_us: AtomicU64::new(0),
        }
    }
}

impl DurationHistogram {
    pub fn record(&self, duration: Duration) {
        self.buckets[bucket_of(duration)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(duration.as_micros() as u64, Relaxed);
    }

    fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|i| self.buckets[i].load(Relaxed))
    }
}

/// The duration below which a share of all lies, from bucket counts; `None` when there are none.
fn quantile(counts: &[u64; BUCKETS], share: f64) -> Option<Duration> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = (total as f64 * share).ceil().max(1.0) as u64;
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    Some(Duration::from_secs_f64(bound_us(bucket) / 1e6))
}

/// The figures of one route since start.
#[derive(Debug)]
pub struct RouteMetrics {
    pub system: &'static str,
    pub method: String,
    /// As declared: `/v1/feed/posts/{id}`.
    pub path: String,
    /// By first digit of the status: 1xx to 5xx.
    statuses: [AtomicU64; 5],
    durations: DurationHistogram,
    in_flight: AtomicU64,
}

impl RouteMetrics {
    /// States that a request began; pair it with [`RouteMetrics::end`].
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub fn end(&self, status: u16, duration: Duration) {
        self.in_flight.fetch_sub(1, Relaxed);
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.statuses[class].fetch_add(1, Relaxed);
        self.durations.record(duration);
    }

    fn requests(&self) -> u64 {
        self.statuses.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn errors(&self) -> u64 {
        self.statuses[4].load(Relaxed)
    }
}

/// How one system did over the last minute (or since start, if that is less).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SystemRates {
    pub requests_per_second: f64,
    /// Share of answers that were 5xx, 0 to 1.
    pub error_rate: f64,
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Totals {
    requests: u64,
    errors: u64,
    durations: [u64; BUCKETS],
}

/// How far a consumer is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConsumerFigures {
    pub lag: u64,
    pub oldest_seconds: f64,
    pub dead_letters: u64,
}

/// A figure that is read when it is asked for.
type Probe = Box<dyn Fn() -> f64 + Send + Sync>;

/// All metrics of the process.
#[derive(Default)]
pub struct Metrics {
    routes: RwLock<Vec<Arc<RouteMetrics>>>,
    consumers: Mutex<BTreeMap<(String, String), ConsumerFigures>>,
    gauges: RwLock<Vec<(String, String, Probe)>>,
    // Totals by system at the end of each of the last slices, oldest first.
    history: Mutex<Vec<(std::time::Instant, BTreeMap<&'static str, Totals>)>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({} routes)", self.routes.read().len())
    }
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The figures of a route, made when first asked for. Ask once, when the route is built.
    pub fn route(&self, system: &'static str, method: &str, path: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.write();
        if let Some(known) = routes
            .iter()
            .find(|route| route.method == method && route.path == path)
        {
            return Arc::clone(known);
        }
        let route = Arc::new(RouteMetrics {
            system,
            method: method.to_owned(),
            path: path.to_owned(),
            statuses: Default::default(),
            durations: DurationHistogram::default(),
            in_flight: AtomicU64::new(0),
        });
        routes.push(Arc::clone(&route));
        route
    }

    /// Adds a figure that is read at each scrape: `holon_<name>`, with one sentence of help.
    pub fn gauge(&self, name: &str, help: &str, probe: impl Fn() -> f64 + Send + Sync + 'static) {
        self.gauges
            .write()
            .push((format!("holon_{name}"), help.to_owned(), Box::new(probe)));
    }

    /// Takes in how far a consumer is.
    pub fn set_consumer(&self, group: &str, topic: &str, figures: ConsumerFigures) {
        self.consumers
            .lock()
            .insert((group.to_owned(), topic.to_owned()), figures);
    }

    /// (group, topic) and how far each is.
    pub fn consumers(&self) -> Vec<((String, String), ConsumerFigures)> {
        self.consumers
            .lock()
            .iter()
            .map(|(name, figures)| (name.clone(), figures.clone()))
            .collect()
    }

    fn totals(&self) -> BTreeMap<&'static str, Totals> {
        let mut totals: BTreeMap<&'static str, Totals> = BTreeMap::new();
        for route in self.routes.read().iter() {
            let sum = totals.entry(route.system).or_insert_with(|| Totals {
                requests: 0,
                errors: 0,
                durations: [0; BUCKETS],
            });
            sum.requests += route.requests();
            sum.errors += route.errors();
            for (into, count) in sum.durations.iter_mut().zip(route.durations.counts()) {
                *into += count;
            }
        }
        totals
    }

    /// Ends a slice of the sliding minute. Call it every [`SLICE`].
    pub fn tick(&self) {
        let mut history = self.history.lock();
        history.push((std::time::Instant::now(), self.totals()));
        if history.len() > SLICES {
            history.remove(0);
        }
    }

    /// How each system did over the last minute.
    pub fn rates(&self) -> BTreeMap<&'static str, SystemRates> {
        let history = self.history.lock();
        let now = self.totals();
        let Some((since, before)) = history.first() else {
            return now
                .into_keys()
                .map(|system| (system, SystemRates::default()))
                .collect();
        };
        let seconds = since.elapsed().as_secs_f64().max(1e-3);
        now.into_iter()
            .map(|(system, totals)| {
                let old = before.get(system);
                let requests = totals.requests - old.map_or(0, |old| old.requests);
                let errors = totals.errors - old.map_or(0, |old| old.errors);
                let durations: [u64; BUCKETS] =
                    std::array::from_fn(|i| totals.durations[i] - old.map_or(0, |old| old.durations[i]));
                let rates = SystemRates {
                    requests_per_second: requests as f64 / seconds,
                    error_rate: if requests == 0 {
                        0.0
                    } else {
                        errors as f64 / requests as f64
                    },
                    p50: quantile(&durations, 0.5),
                    p99: quantile(&durations, 0.99),
                };
                (system, rates)
            })
            .collect()
    }

    /// Everything as OpenMetrics text, which Prometheus reads.
    pub fn render(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Everything(Arc::clone(self))));
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}

#[derive(Debug)]
struct Everything(Arc<Metrics>);

struct CounterValue(u64);

impl EncodeMetric for CounterValue {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, f64>(&self.0, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

struct HistogramValue<'a>(&'a DurationHistogram);

impl EncodeMetric for HistogramValue<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let counts = self.0.counts();
        // Every fourth bound, so that a route has 22 lines and not 88.
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(BUCKETS / 4 + 1);
        let mut pending = 0;
        for (i, count) in counts[..BUCKETS - 1].iter().enumerate() {
            pending += count;
            if i % 4 == 0 {
                buckets.push((bound_us(i) / 1e6, pending));
                pending = 0;
            }
        }
        buckets.push((f64::MAX, pending + counts[BUCKETS - 1]));
        let total = counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(
            self.0.sum_us.load(Relaxed) as f64 / 1e6,
            total,
            &buckets,
            None,
        )
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let routes = self.0.routes.read();
        {
            let mut family = encoder.encode_descriptor(
                "holon_http_requests",
                "Requests answered",
                None,
                MetricType::Counter,
            )?;
            for route in routes.iter() {
                for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"]
                    .into_iter()
                    .zip(&route.statuses)
                {
                    let count = count.load(Relaxed);
                    if count == 0 {
                        continue;
                    }
                    let labels = [
                        ("system", route.system),
                        ("method", route.method.as_str()),
                        ("route", route.path.as_str()),
                        ("status", class),
                    ];
                    CounterValue(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        {
            let mut family = encoder.encode_descriptor(
                "holon_http_request_duration_seconds",
                "Time from the request's head to the answer's",
                None,
                MetricType::Histogram,
            )?;
            for route in routes.iter().filter(|route| route.requests() > 0) {
                let labels = [
                    ("system", route.system),
                    ("method", route.method.as_str()),
                    ("route", route.path.as_str()),
                ];
                HistogramValue(&route.durations).encode(family.encode_family(&labels)?)?;
            }
        }
        {
            let mut family = encoder.encode_descriptor(
                "holon_http_requests_in_flight",
                "Requests being served",
                None,
                MetricType::Gauge,
            )?;
            let in_flight: u64 = routes.iter().map(|route| route.in_flight.load(Relaxed)).sum();
            ConstGauge::new(in_flight as f64).encode(family.encode_family(&[("scope", "process")])?)?;
        }
        let consumers = self.0.consumers();
        type Figure = (&'static str, &'static str, fn(&ConsumerFigures) -> f64);
        let figures: [Figure; 3] = [
            (
                "holon_consumer_lag_events",
                "Events that a consumer group has not handled",
                |c| c.lag as f64,
            ),
            (
                "holon_consumer_lag_seconds",
                "Age of the oldest event that waits",
                |c| c.oldest_seconds,
            ),
            (
                "holon_consumer_dead_letters",
                "Events that a consumer group gave up on",
                |c| c.dead_letters as f64,
            ),
        ];
        for (name, help, read) in figures {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for ((group, topic), figures) in &consumers {
                let labels = [("group", group.as_str()), ("topic", topic.as_str())];
                ConstGauge::new(read(figures)).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, probe) in self.0.gauges.read().iter() {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(probe()).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_off_by_at_most_a_fifth() {
        let histogram = DurationHistogram::default();
        for ms in 1..=1_000 {
            histogram.record(Duration::from_millis(ms));
        }
        for (share, exact_ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = quantile(&histogram.counts(), share).unwrap().as_secs_f64() * 1e3;
            assert!(
                found >= exact_ms * 0.99 && found <= exact_ms * 1.2,
                "{share}: {found} for {exact_ms}"
            );
        }
        assert_eq!(quantile(&DurationHistogram::default().counts(), 0.5), None);
    }

    #[test]
    fn the_text_names_every_route_and_consumer() {
        let metrics = Metrics::new();
        let route = metrics.route("feed", "GET", "/v1/feed/home");
        for status in [200, 200, 404, 503] {
            route.begin();
            route.end(status, Duration::from_millis(3));
        }
        let figures = ConsumerFigures {
            lag: 7,
            oldest_seconds: 1.5,
            dead_letters: 2,
        };
        metrics.set_consumer("feed.fanout", "feed.posts", figures);
        metrics.gauge("store_disk_bytes", "Bytes on disk", || 42.0);
        let text = metrics.render();
        for line in [
            r#"holon_http_requests_total{system="feed",method="GET",route="/v1/feed/home",status="2xx"} 2"#,
            r#"holon_http_requests_total{system="feed",method="GET",route="/v1/feed/home",status="5xx"} 1"#,
            r#"holon_http_request_duration_seconds_count{system="feed",method="GET",route="/v1/feed/home"} 4"#,
            r#"holon_consumer_lag_events{group="feed.fanout",topic="feed.posts"} 7.0"#,
            "holon_store_disk_bytes 42.0",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert!(Arc::ptr_eq(
            &route,
            &metrics.route("feed", "GET", "/v1/feed/home")
        ));
    }

    #[test]
    fn rates_are_those_since_the_oldest_slice() {
        let metrics = Metrics::new();
        let route = metrics.route("feed", "GET", "/x");
        route.begin();
        route.end(500, Duration::from_millis(1));
        metrics.tick();
        for status in [200, 200, 200, 500] {
            route.begin();
            route.end(status, Duration::from_millis(1));
        }
        let rates = metrics.rates()["feed"];
        assert_eq!(rates.error_rate, 0.25);
        assert!(rates.requests_per_second > 0.0 && rates.p50.is_some());
    }
}
