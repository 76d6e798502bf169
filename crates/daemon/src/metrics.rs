//! What is counted, one name per line, in the OpenMetrics text format.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use api::sandbox::SandboxState;
use http::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Upper bounds of the latency histogram in seconds: from a file read (0.1 ms) over a create
/// (10 ms) to long commands.
const LATENCY_SECONDS: [f64; 14] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: String,
    /// The route's pattern, never the path: the number of series is bounded by the table.
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    method: String,
    route: String,
    /// `2xx`, `4xx`, ..., or `gone` when the caller left before an answer.
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// What happened to a sandbox, as the daemon asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// `POST /v1/sandboxes`.
    Create,
    /// Found, created or started for a request to it.
    Activate,
    /// `POST /v1/sandboxes/{id}/freeze`.
    Freeze,
    /// `POST /v1/sandboxes/{id}/thaw`.
    Thaw,
    /// `POST /v1/sandboxes/{id}/stop`.
    Stop,
    /// `POST /v1/sandboxes/{id}/start`.
    Start,
    /// `POST /v1/sandboxes/{id}/checkpoints`.
    Checkpoint,
    /// `POST /v1/sandboxes/{id}/restore`.
    Restore,
    /// `POST /v1/sandboxes/{id}/fork`.
    Fork,
    /// `DELETE /v1/sandboxes/{id}`.
    Destroy,
}

/// The counters of the daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    latency: Family<Route, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    sandboxes: Family<State, Gauge>,
    ahead: Gauge,
    remains: Counter,
    networks: Counter,
    lifecycle: Family<Operation, Counter>,
    forwarded: Family<Direction, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_SECONDS)),
            in_flight: Gauge::default(),
            sandboxes: Family::default(),
            ahead: Gauge::default(),
            remains: Counter::default(),
            networks: Counter::default(),
            lifecycle: Family::default(),
            forwarded: Family::default(),
        };
        metrics.registered()
    }

    #[rustfmt::skip]
    fn registered(mut self) -> Self {
        let r = self.registry.sub_registry_with_prefix("sandbar");
        r.register("http_requests", "Requests ended, by route and status class", self.requests.clone());
        r.register_with_unit("http_request_duration", "Time from the request's head to the response's head", Unit::Seconds, self.latency.clone());
        r.register("http_requests_in_flight", "Requests not yet ended, streams included", self.in_flight.clone());
        r.register("sandboxes", "Sandboxes that exist, by state", self.sandboxes.clone());
        r.register("sandboxes_ahead", "Sandboxes made ahead, which are nobody's yet", self.ahead.clone());
        r.register("remains_found", "Things found that were nobody's, and removed", self.remains.clone());
        r.register("network_restored", "Times that firewall rules were missing, and loaded", self.networks.clone());
        r.register("sandbox_operations", "What sandboxes were asked to become, by result", self.lifecycle.clone());
        r.register_with_unit("forwarded", "Body bytes passed on to and from agents", Unit::Bytes, self.forwarded.clone());
        self
    }

    pub(crate) fn begin(&self) {
        self.in_flight.inc();
    }

    /// The response's head goes out after `took`.
    pub(crate) fn answered(&self, method: &str, route: &str, took: Duration) {
        let route = Route { method: method.to_owned(), route: route.to_owned() };
        self.latency.get_or_create(&route).observe(took.as_secs_f64());
    }

    /// A request ended, with `status` unless the caller left before there was one.
    pub(crate) fn end(&self, method: &str, route: &str, status: Option<StatusCode>) {
        self.in_flight.dec();
        let status = match status.map(|status| status.as_u16() / 100) {
            Some(1) => "1xx",
            Some(2) => "2xx",
            Some(3) => "3xx",
            Some(4) => "4xx",
            Some(_) => "5xx",
            None => "gone",
        };
        let outcome = Outcome { method: method.to_owned(), route: route.to_owned(), status };
        self.requests.get_or_create(&outcome).inc();
    }

    pub(crate) fn lifecycle(&self, operation: Lifecycle, succeeded: bool) {
        let operation = match operation {
            Lifecycle::Create => "create",
            Lifecycle::Activate => "activate",
            Lifecycle::Freeze => "freeze",
            Lifecycle::Thaw => "thaw",
            Lifecycle::Stop => "stop",
            Lifecycle::Start => "start",
            Lifecycle::Checkpoint => "checkpoint",
            Lifecycle::Restore => "restore",
            Lifecycle::Fork => "fork",
            Lifecycle::Destroy => "destroy",
        };
        let result = if succeeded { "success" } else { "failure" };
        self.lifecycle.get_or_create(&Operation { operation, result }).inc();
    }

    /// A counter of bytes sent to agents; asked for once per request, not per chunk.
    pub(crate) fn bytes_to_agents(&self) -> Counter {
        self.forwarded.get_or_create_owned(&Direction { direction: "to_agent" })
    }

    /// A counter of bytes received from agents.
    pub(crate) fn bytes_from_agents(&self) -> Counter {
        self.forwarded.get_or_create_owned(&Direction { direction: "from_agent" })
    }

    /// Everything in the OpenMetrics text format; `sandboxes`, by state, those made `ahead` and the
    /// `remains` that were found are counted by the caller, because the engine, not the daemon, knows
    /// them.
    pub(crate) fn render(
        &self,
        sandboxes: &BTreeMap<&'static str, i64>,
        ahead: usize,
        (remains, networks): (u64, u64),
    ) -> String {
        self.ahead.set(i64::try_from(ahead).unwrap_or(i64::MAX));
        self.remains.inner().store(remains, Ordering::Relaxed);
        self.networks.inner().store(networks, Ordering::Relaxed);
        for state in STATES {
            let count = sandboxes.get(state).copied().unwrap_or(0);
            self.sandboxes.get_or_create(&State { state }).set(count);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

const STATES: [&str; 5] = ["creating", "running", "frozen", "stopped", "failed"];

/// The state's name, as on the wire.
pub(crate) fn state_name(state: SandboxState) -> &'static str {
    match state {
        SandboxState::Creating => "creating",
        SandboxState::Running => "running",
        SandboxState::Frozen => "frozen",
        SandboxState::Stopped => "stopped",
        SandboxState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_printed_with_its_unit() {
        let metrics = Metrics::new();
        metrics.begin();
        metrics.begin();
        metrics.answered("GET", "/healthz", Duration::from_millis(3));
        metrics.end("GET", "/healthz", Some(StatusCode::OK));
        metrics.lifecycle(Lifecycle::Create, true);
        metrics.lifecycle(Lifecycle::Activate, true);
        metrics.lifecycle(Lifecycle::Destroy, false);
        metrics.bytes_to_agents().inc_by(5);
        metrics.bytes_from_agents().inc_by(6);

        let text = metrics.render(&BTreeMap::from([("running", 2)]), 3, (4, 5));

        for line in [
            "sandbar_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"2xx\"} 1",
            "sandbar_http_request_duration_seconds_count{method=\"GET\",route=\"/healthz\"} 1",
            "sandbar_http_requests_in_flight 1",
            "sandbar_sandboxes{state=\"running\"} 2",
            "sandbar_sandboxes{state=\"failed\"} 0",
            "sandbar_sandboxes_ahead 3",
            "sandbar_remains_found_total 4",
            "sandbar_network_restored_total 5",
            "sandbar_sandbox_operations_total{operation=\"create\",result=\"success\"} 1",
            "sandbar_sandbox_operations_total{operation=\"activate\",result=\"success\"} 1",
            "sandbar_sandbox_operations_total{operation=\"destroy\",result=\"failure\"} 1",
            "sandbar_forwarded_bytes_total{direction=\"to_agent\"} 5",
            "sandbar_forwarded_bytes_total{direction=\"from_agent\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
