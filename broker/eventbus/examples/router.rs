//! What the router seam costs: `cargo run --release -p edgebus-eventbus --example router`.
//!
//! Prints throughput and latency of fan-out 1→100 and 10→10, latency at 1,000 messages/s, and
//! the memory per link, filter and topic, from this process's own RSS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edgebus_eventbus::codec::QoS;
use edgebus_eventbus::router::{Config, Link, Message, OnFull, Queue, Router};
use tokio::task::JoinSet;

fn queue() -> Queue {
    Queue {
        messages: 1 << 20,
        bytes: 1 << 30,
        on_full: OnFull::Close,
    }
}

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

fn cpu() -> Duration {
    // User and system time in clock ticks of 10 ms.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |i: usize| {
        fields
            .get(i)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// `publishers` send `each` messages on topics of their own; `subscribers` all take all.
/// At most `window` messages of a publisher are on their way (closed loop), or one per `pace`.
async fn fan_out(
    name: &str,
    publishers: usize,
    subscribers: usize,
    each: usize,
    window: usize,
    pace: Option<Duration>,
) {
    let router = Router::start(Config::default());
    let total = publishers * each;
    let mut tasks: JoinSet<Vec<u32>> = JoinSet::new();
    let credit: Vec<_> = (0..publishers)
        .map(|_| Arc::new(tokio::sync::Semaphore::new(window)))
        .collect();
    for n in 0..subscribers {
        let mut link: Link = router.link(queue()).await.expect("a link");
        router
            .subscribe(link.id(), "bench/#")
            .await
            .expect("a subscription");
        let credit = credit.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(total);
            for _ in 0..total {
                let delivery = link.recv().await.expect("a delivery");
                let took = delivery.message.received.elapsed();
                latencies.push(took.as_micros() as u32);
                // The first subscriber gives the publisher its credit back.
                if n == 0 {
                    let from = usize::from(delivery.message.payload[0]);
                    credit[from].add_permits(1);
                }
            }
            latencies
        });
    }
    let (start, cpu_start) = (Instant::now(), cpu());
    for (p, credit) in credit.into_iter().enumerate() {
        let router = router.clone();
        tasks.spawn(async move {
            let topic: Arc<str> = format!("bench/{p}/value").into();
            let payload = bytes::Bytes::from(vec![p as u8; 128]);
            let mut tick = tokio::time::interval(pace.unwrap_or(Duration::from_secs(1)));
            for _ in 0..each {
                if pace.is_some() {
                    tick.tick().await;
                }
                credit.acquire().await.expect("an open semaphore").forget();
                let mut message = Message::new(topic.clone(), payload.clone());
                message.qos = QoS::AtLeastOnce;
                router
                    .publish(Arc::new(message))
                    .await
                    .expect("a running router");
            }
            Vec::new()
        });
    }
    let mut latencies: Vec<u32> = tasks.join_all().await.into_iter().flatten().collect();
    let (took, used) = (start.elapsed(), cpu() - cpu_start);
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!(
        "{name}: {:.0} messages/s in, {:.0} deliveries/s, p50 {} us, p99 {} us, p99.9 {} us, CPU {:.2} us per delivery",
        total as f64 / took.as_secs_f64(),
        latencies.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        used.as_secs_f64() * 1e6 / latencies.len() as f64,
    );
}

async fn memory() {
    let router = Router::start(Config::default());
    let first = router.link(queue()).await.expect("a link");
    router
        .subscribe(first.id(), "warm")
        .await
        .expect("a subscription");
    let idle = rss_kb();
    println!("router started: RSS {idle} KB");
    let mut links = Vec::new();
    let start = Instant::now();
    for _ in 0..5_000 {
        let link = router.link(Queue::default()).await.expect("a link");
        router
            .subscribe(link.id(), "all/#")
            .await
            .expect("a subscription");
        links.push(link);
    }
    let with_links = rss_kb();
    println!(
        "5,000 links with one shared filter: {:.2} KB each, {:.0} us to link and subscribe",
        (with_links - idle) as f64 / 5_000.0,
        start.elapsed().as_micros() as f64 / 5_000.0
    );
    let start = Instant::now();
    for (n, link) in links.iter().take(2_000).enumerate() {
        let filter = format!("dev/{n}/#");
        router
            .subscribe(link.id(), &filter)
            .await
            .expect("a subscription");
    }
    let with_filters = rss_kb();
    println!(
        "2,000 filters of their own: {:.2} KB each, {:.0} us to subscribe",
        (with_filters - with_links) as f64 / 2_000.0,
        start.elapsed().as_micros() as f64 / 2_000.0
    );
    for round in 0..20 {
        for n in 0..2_000 {
            let topic = format!("dev/{n}/{round}");
            let message = Arc::new(Message::new(topic, "x"));
            router.publish(message).await.expect("a running router");
        }
        router.fence().await.expect("a running router");
        for link in &mut links {
            while link.try_recv().is_some() {}
        }
    }
    println!(
        "40,000 messages on as many topics later: RSS {} KB, {:?}",
        rss_kb(),
        router.stats()
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    memory().await;
    fan_out("1 -> 100, closed loop", 1, 100, 20_000, 100, None).await;
    fan_out("10 -> 10, closed loop", 10, 10, 20_000, 100, None).await;
    let second = Duration::from_secs(1);
    fan_out("1 -> 1, 1,000/s", 1, 1, 5_000, 100, Some(second / 1_000)).await;
    fan_out("10 -> 10, 1,000/s", 10, 10, 500, 100, Some(second / 100)).await;
    fan_out("1 -> 100, 10/s", 1, 100, 50, 100, Some(second / 10)).await;
}
