//! Load over kept connections, and what it measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use mws_egress::{AgentClient, AgentRequest, Trust};
use mws_runtime::tasks::Spawner;
use tokio::time::{MissedTickBehavior, interval};
use url::Url;

/// One kind of request.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a run measured.
pub(crate) struct Measured {
    latencies: Vec<Duration>,
    errors: usize,
    took: Duration,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency that a share of the requests stayed below, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let at = (self.latencies.len() as f64 * share) as usize;
        self.latencies
            .get(at.min(self.latencies.len().saturating_sub(1)))
            .map_or(0.0, |l| l.as_secs_f64() * 1000.0)
    }

    pub(crate) fn line(&self, name: &str) -> String {
        format!(
            "{name:<28} {:>9.0}/s   p50 {:>7.3} ms   p99 {:>7.3} ms   errors {}",
            self.rate(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.errors
        )
    }
}

/// As many requests as `connections` workers get through in `duration`, or `rate` per second in all.
pub(crate) async fn run(
    client: &AgentClient,
    spawner: &Spawner,
    target: &Target,
    connections: usize,
    rate: Option<u32>,
    duration: Duration,
) -> Measured {
    let started = Instant::now();
    let target = Arc::new(target.clone());
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let worker = work(client.clone(), target.clone(), started + duration, pause(rate, connections));
            spawner.spawn("bench-worker", worker)
        })
        .collect();
    let (mut latencies, mut errors) = (Vec::new(), 0);
    for worker in workers {
        if let Ok((mut own, failed)) = worker.await {
            latencies.append(&mut own);
            errors += failed;
        }
    }
    let took = started.elapsed();
    latencies.sort_unstable();
    Measured { latencies, errors, took }
}

fn pause(rate: Option<u32>, connections: usize) -> Option<Duration> {
    let workers = u32::try_from(connections).unwrap_or(1);
    rate.map(|rate| Duration::from_secs(1) * workers / rate.max(1))
}

async fn work(
    client: AgentClient,
    target: Arc<Target>,
    until: Instant,
    pause: Option<Duration>,
) -> (Vec<Duration>, usize) {
    let mut ticks = pause.map(|pause| {
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let (mut latencies, mut errors) = (Vec::new(), 0);
    while Instant::now() < until {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let sent = Instant::now();
        let request = AgentRequest {
            url: &target.url,
            trust: Trust::PlatformProvisioned,
            headers: target.headers.clone(),
            body: target.body.clone(),
        };
        let complete = match client.post(request).await {
            Ok(answer) if answer.status.is_success() => answer.body.collect(1 << 20).await.is_ok(),
            _ => false,
        };
        if complete {
            latencies.push(sent.elapsed());
        } else {
            errors += 1;
        }
    }
    (latencies, errors)
}
