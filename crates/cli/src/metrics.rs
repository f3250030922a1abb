//! A node's metrics as text for Prometheus, in its own format or in that of OpenMetrics, and over HTTP on loopback.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use peerage::{Metric, MetricKind, Node};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections that are served at once; more wait.
pub(crate) const MAX_CONNECTIONS: usize = 16;
/// How long a connection may take for a request and for reading the answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// What the text of Prometheus is called.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// What that of OpenMetrics is called, without its parameters.
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text";
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The text in the format of Prometheus, version 0.0.4.
pub(crate) async fn text_of(node: &Node) -> String {
    prometheus(&open_metrics(node).await)
}

/// From OpenMetrics to the older format: a counter is described under the name of its samples, and no mark stands at the end.
fn prometheus(open_metrics: &str) -> String {
    let counter = |line: &str| {
        line.strip_prefix("# TYPE ").and_then(|line| line.strip_suffix(" counter")).map(str::to_owned)
    };
    let counters: BTreeSet<String> = open_metrics.lines().filter_map(counter).collect();
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                out.extend(["# ", what, " ", name, "_total ", rest]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The text in the format of OpenMetrics.
async fn open_metrics(node: &Node) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Counted(node.metrics().await)));
    let mut out = String::new();
    // Writing to a string fails only when a metric does, and these are plain numbers.
    let _ = text::encode(&mut out, &registry);
    out
}

/// What a node has counted.
#[derive(Debug)]
struct Counted(Vec<Metric>);

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            let kind = match metric.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for sample in &metric.samples {
                let family = encoder.encode_family(&sample.labels)?;
                match metric.kind {
                    MetricKind::Counter => ConstCounter::new(sample.value).encode(family)?,
                    MetricKind::Gauge => ConstGauge::new(sample.value).encode(family)?,
                }
            }
        }
        Ok(())
    }
}

/// Opens the place where metrics are served.
///
/// # Errors
/// A sentence: the address is not on loopback, or can't be had.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    if !address.ip().is_loopback() {
        return Err(format!(
            "metrics are served on loopback only: {address} is not there; use 127.0.0.1 or [::1]"
        ));
    }
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("metrics cannot be served at {address}: {error}"))
}

/// Serves `GET /metrics` until it is dropped.
pub(crate) async fn serve(listener: TcpListener, node: Node) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                connections.spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, node)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(stream: TcpStream, node: Node) {
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(respond(&request, &node).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "metrics could not be sent");
    }
}

async fn respond(request: &Request<Incoming>, node: &Node) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") if takes_open_metrics(request) => {
            (StatusCode::OK, OPEN_METRICS, open_metrics(node).await)
        }
        (&Method::GET, "/metrics") => (StatusCode::OK, PROMETHEUS, text_of(node).await),
        (&Method::GET, _) => {
            (StatusCode::NOT_FOUND, HeaderValue::from_static("text/plain"), "see /metrics\n".to_owned())
        }
        _ => {
            (StatusCode::METHOD_NOT_ALLOWED, HeaderValue::from_static("text/plain"), "only GET\n".to_owned())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn takes_open_metrics(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get_all(ACCEPT).iter();
    accepted.filter_map(|value| value.to_str().ok()).any(|value| value.contains(OPEN_METRICS_TYPE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_bears_one_name_in_the_older_format() {
        let text = "# HELP a Some of a.\n# TYPE a counter\na_total{b=\"# x\"} 3\n\
                    # HELP g Some g.\n# TYPE g gauge\ng 1\n# EOF\n";
        let older = "# HELP a_total Some of a.\n# TYPE a_total counter\na_total{b=\"# x\"} 3\n\
                     # HELP g Some g.\n# TYPE g gauge\ng 1\n";
        assert_eq!(prometheus(text), older);
    }
}
