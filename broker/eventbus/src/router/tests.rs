//! The router as its users see it, rumqttd's deaths included.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::codec::QoS;

const PATIENCE: Duration = Duration::from_secs(30);

fn message(topic: &str, payload: String) -> Arc<Message> {
    Arc::new(Message::new(topic, payload))
}

fn reliable(topic: &str, payload: String) -> Arc<Message> {
    let mut message = Message::new(topic, payload);
    message.qos = QoS::AtLeastOnce;
    Arc::new(message)
}

fn big() -> Queue {
    Queue {
        messages: 1 << 20,
        bytes: 1 << 30,
        on_full: OnFull::Close,
    }
}

async fn next(link: &mut Link) -> Delivery {
    tokio::time::timeout(PATIENCE, link.recv())
        .await
        .expect("a delivery in time")
        .expect("an open link")
}

/// What is in the queue once all that was published has been routed.
async fn drained(router: &Router, link: &mut Link) -> Vec<Delivery> {
    router.fence().await.unwrap();
    std::iter::from_fn(|| link.try_recv()).collect()
}

fn topics(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|d| &*d.message.topic).collect()
}

#[tokio::test]
async fn a_link_gets_what_its_filters_match_and_nothing_else() {
    let router = Router::start(Config::default());
    let mut link = router.link(Queue::default()).await.unwrap();
    assert!(router.subscribe(link.id(), "a/+").await.unwrap());
    assert!(!router.subscribe(link.id(), "a/+").await.unwrap());
    for topic in ["a", "a/b", "a/b/c", "b/a", "a/"] {
        router.publish(message(topic, "x".into())).await.unwrap();
    }
    let got = drained(&router, &mut link).await;
    assert_eq!(topics(&got), ["a/b", "a/"]);
    assert_eq!(got[0].matched.iter().collect::<Vec<_>>(), ["a/+"]);
}

#[tokio::test]
async fn overlapping_filters_deliver_once_and_are_all_named() {
    let router = Router::start(Config::default());
    let mut link = router.link(Queue::default()).await.unwrap();
    for filter in ["a/#", "a/b", "+/b", "c"] {
        router.subscribe(link.id(), filter).await.unwrap();
    }
    router.publish(message("a/b", "x".into())).await.unwrap();
    let got = drained(&router, &mut link).await;
    assert_eq!(got.len(), 1);
    let mut matched: Vec<_> = got[0].matched.iter().collect();
    matched.sort_unstable();
    assert_eq!(matched, ["+/b", "a/#", "a/b"]);
}

#[tokio::test]
async fn dollar_topics_are_only_for_filters_that_name_them() {
    let router = Router::start(Config::default());
    let mut all = router.link(Queue::default()).await.unwrap();
    let mut hw = router.link(Queue::default()).await.unwrap();
    router.subscribe(all.id(), "#").await.unwrap();
    router.subscribe(all.id(), "+/x").await.unwrap();
    router.subscribe(hw.id(), "$hw/#").await.unwrap();
    for topic in ["$hw/x", "é/x", "x", "/", "f", "t/x"] {
        router.publish(message(topic, "1".into())).await.unwrap();
    }
    let got = drained(&router, &mut all).await;
    assert_eq!(topics(&got), ["é/x", "x", "/", "f", "t/x"]);
    assert_eq!(topics(&drained(&router, &mut hw).await), ["$hw/x"]);
    assert_eq!(router.stats().deaths, 0);
}

#[tokio::test]
async fn malformed_names_and_filters_never_reach_the_engine() {
    let router = Router::start(Config::default());
    let link = router.link(Queue::default()).await.unwrap();
    for filter in ["", "a#", "a/#/b", "$share/g/a"] {
        let refused = router.subscribe(link.id(), filter).await;
        assert_eq!(refused, Err(RouterError::Filter(filter.to_owned())));
    }
    for topic in ["", "a/+", "#"] {
        let refused = router.publish(message(topic, "x".into())).await;
        assert_eq!(refused, Err(RouterError::Topic(topic.to_owned())));
    }
}

#[tokio::test]
async fn after_unsubscribe_and_unlink_nothing_arrives() {
    let router = Router::start(Config::default());
    let mut one = router.link(Queue::default()).await.unwrap();
    let mut two = router.link(Queue::default()).await.unwrap();
    for link in [one.id(), two.id()] {
        router.subscribe(link, "a").await.unwrap();
        router.subscribe(link, "#").await.unwrap();
    }
    assert!(router.unsubscribe(one.id(), "a").await.unwrap());
    assert!(!router.unsubscribe(one.id(), "a").await.unwrap());
    assert!(router.unsubscribe(one.id(), "#").await.unwrap());
    router.publish(message("a", "1".into())).await.unwrap();
    assert_eq!(drained(&router, &mut one).await.len(), 0);
    assert_eq!(drained(&router, &mut two).await.len(), 1);

    router.unlink(two.id()).await.unwrap();
    router.publish(message("a", "2".into())).await.unwrap();
    router.fence().await.unwrap();
    assert!(two.recv().await.is_none());
    let refused = router.subscribe(two.id(), "a").await;
    assert_eq!(refused, Err(RouterError::UnknownLink(two.id())));

    router.subscribe(one.id(), "a").await.unwrap();
    router.publish(message("a", "3".into())).await.unwrap();
    assert_eq!(drained(&router, &mut one).await.len(), 1);
    assert_eq!(router.stats().links, 1);
    assert_eq!(router.stats().filters, 1);
}

#[tokio::test]
async fn a_subscription_matches_what_is_published_after_it_returned() {
    let router = Router::start(Config::default());
    let mut link = router.link(big()).await.unwrap();
    for i in 0..200 {
        let filter = format!("a/{i}");
        router
            .publish(message(&filter, "early".into()))
            .await
            .unwrap();
        router.subscribe(link.id(), &filter).await.unwrap();
        router
            .publish(message(&filter, "late".into()))
            .await
            .unwrap();
    }
    let got = drained(&router, &mut link).await;
    assert_eq!(got.len(), 200);
    assert!(got.iter().all(|d| d.message.payload == "late"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_publisher_keeps_its_order_across_topics_and_filters() {
    const EACH: usize = 2_000;
    let router = Router::start(Config::default());
    let mut links = Vec::new();
    for _ in 0..5 {
        let link = router.link(big()).await.unwrap();
        for filter in ["p/0/#", "p/1/+", "p/2/x", "p/+/y"] {
            router.subscribe(link.id(), filter).await.unwrap();
        }
        links.push(link);
    }
    publish_numbered(&router, 3, EACH).await;
    for link in &mut links {
        let got = drained(&router, link).await;
        assert_numbered(&got, 3, EACH);
    }
}

/// Publishers 0..n publish 0..each in order, on two topics in turn.
async fn publish_numbered(router: &Router, publishers: usize, each: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for p in 0..publishers {
        let router = router.clone();
        tasks.spawn(async move {
            for i in 0..each {
                let leaf = if i % 3 == 0 { 'x' } else { 'y' };
                let topic = format!("p/{p}/{leaf}");
                router
                    .publish(reliable(&topic, i.to_string()))
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
}

fn assert_numbered(got: &[Delivery], publishers: usize, each: usize) {
    assert!(
        got.windows(2).all(|w| w[0].seq < w[1].seq),
        "one order for all"
    );
    for p in 0..publishers {
        let prefix = format!("p/{p}/");
        let numbers: Vec<usize> = got
            .iter()
            .filter(|d| d.message.topic.starts_with(&prefix))
            .map(|d| std::str::from_utf8(&d.message.payload).unwrap())
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..each).collect::<Vec<_>>(), "publisher {p}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_engine_under_load_loses_and_doubles_nothing() {
    const EACH: usize = 5_000;
    let router = Router::start(Config::default());
    let mut links = Vec::new();
    for _ in 0..5 {
        let link = router.link(big()).await.unwrap();
        for filter in ["p/#", "p/+/y", "p/1/x"] {
            router.subscribe(link.id(), filter).await.unwrap();
        }
        links.push(link);
    }
    let killer = {
        let router = router.clone();
        tokio::spawn(async move {
            for _ in 0..30 {
                router.panic_for_test().await.unwrap();
                router.fence().await.unwrap();
            }
        })
    };
    publish_numbered(&router, 3, EACH).await;
    killer.await.unwrap();
    for link in &mut links {
        let got = drained(&router, link).await;
        assert_numbered(&got, 3, EACH);
    }
    let stats = router.stats();
    assert_eq!(stats.late, 0);
    assert_eq!(stats.deaths, 30);
    assert_eq!(stats.unaided, 0, "one new engine was enough each time");
}

#[tokio::test]
async fn the_engine_is_replaced_when_it_has_seen_too_many_topics_or_filters() {
    let limits = Limits {
        topics: 100,
        dead_filters: 20,
        ..Limits::default()
    };
    let router = Router::start(Config {
        limits,
        ..Config::default()
    });
    let mut link = router.link(big()).await.unwrap();
    router.subscribe(link.id(), "a/#").await.unwrap();
    for i in 0..1_000 {
        let topic = format!("a/{i}");
        router.publish(reliable(&topic, "x".into())).await.unwrap();
    }
    assert_eq!(drained(&router, &mut link).await.len(), 1_000);
    let by_topics = router.stats().replaced;
    assert!(by_topics >= 1, "replaced {by_topics} times");

    for i in 0..200 {
        let filter = format!("b/{i}");
        router.subscribe(link.id(), &filter).await.unwrap();
        router.publish(reliable("c", "x".into())).await.unwrap();
        router.unsubscribe(link.id(), &filter).await.unwrap();
    }
    assert!(router.stats().replaced > by_topics);
    router.publish(reliable("a/b", "x".into())).await.unwrap();
    router.publish(reliable("b/7", "x".into())).await.unwrap();
    assert_eq!(topics(&drained(&router, &mut link).await), ["a/b"]);
    assert_eq!(router.stats().deaths, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_engine_with_many_filters_is_complete_from_the_first_batch() {
    let limits = Limits {
        topics: 300,
        ..Limits::default()
    };
    let router = Router::start(Config {
        limits,
        ..Config::default()
    });
    let mut link = router.link(big()).await.unwrap();
    for i in 0..400 {
        let filter = format!("dev/{i}/#");
        router.subscribe(link.id(), &filter).await.unwrap();
    }
    for round in 0..10 {
        for i in 0..400 {
            let topic = format!("dev/{i}/{round}");
            router.publish(reliable(&topic, "1".into())).await.unwrap();
        }
    }
    assert_eq!(drained(&router, &mut link).await.len(), 4_000);
    let stats = router.stats();
    assert!(stats.replaced >= 5, "replaced {} times", stats.replaced);
    assert_eq!(stats.late, 0);
}

#[tokio::test]
async fn thousands_of_filters_each_get_their_own() {
    const FILTERS: usize = 1_500;
    let router = Router::start(Config::default());
    let mut links = Vec::new();
    for _ in 0..30 {
        links.push(router.link(big()).await.unwrap());
    }
    for i in 0..FILTERS {
        let filter = match i % 3 {
            0 => format!("dev/{i}/#"),
            1 => format!("dev/{i}/+"),
            _ => format!("dev/{i}/x"),
        };
        let link = links[i % 30].id();
        router.subscribe(link, &filter).await.unwrap();
    }
    router.panic_for_test().await.unwrap();
    for i in 0..FILTERS {
        let topic = format!("dev/{i}/x");
        router.publish(reliable(&topic, "1".into())).await.unwrap();
    }
    for (n, link) in links.iter_mut().enumerate() {
        let want: Vec<_> = (n..FILTERS)
            .step_by(30)
            .map(|i| format!("dev/{i}/x"))
            .collect();
        assert_eq!(topics(&drained(&router, link).await), want);
    }
    assert_eq!(router.stats().filters, FILTERS as u64);
    assert_eq!(router.stats().late, 0);
}

#[tokio::test]
async fn a_full_queue_drops_qos_0_and_closes_or_drops_at_qos_1_as_asked() {
    let router = Router::start(Config::default());
    let queue = |on_full| Queue {
        messages: 4,
        bytes: 1 << 20,
        on_full,
    };
    let mut drop = router.link(queue(OnFull::Drop)).await.unwrap();
    let mut close = router.link(queue(OnFull::Close)).await.unwrap();
    let mut quick = router.link(big()).await.unwrap();
    for link in [&drop, &close, &quick] {
        router.subscribe(link.id(), "a").await.unwrap();
    }
    for i in 0..6 {
        router.publish(message("a", i.to_string())).await.unwrap();
    }
    router.fence().await.unwrap();
    assert_eq!((drop.len(), close.len()), (4, 4));
    assert_eq!((drop.dropped(), close.dropped()), (2, 2));
    router.publish(reliable("a", "6".into())).await.unwrap();
    assert_eq!(drained(&router, &mut quick).await.len(), 7);
    assert_eq!(drop.dropped(), 3);
    for _ in 0..4 {
        next(&mut close).await;
        next(&mut drop).await;
    }
    assert!(close.recv().await.is_none(), "closed after what it holds");
    router.publish(reliable("a", "7".into())).await.unwrap();
    assert_eq!(next(&mut drop).await.message.payload, "7");
    let stats = router.stats();
    assert_eq!((stats.dropped, stats.closed, stats.links), (5, 1, 2));
}

#[tokio::test]
async fn a_queue_is_bounded_by_bytes_too() {
    let router = Router::start(Config::default());
    let mut link = router
        .link(Queue {
            messages: 100,
            bytes: 3_000,
            on_full: OnFull::Drop,
        })
        .await
        .unwrap();
    router.subscribe(link.id(), "a").await.unwrap();
    router
        .publish(message("a", "x".repeat(9_000)))
        .await
        .unwrap();
    for _ in 0..5 {
        router
            .publish(message("a", "y".repeat(1_000)))
            .await
            .unwrap();
    }
    let got = drained(&router, &mut link).await;
    assert_eq!(got.len(), 1, "a single large one is taken");
    for _ in 0..5 {
        router
            .publish(message("a", "y".repeat(1_000)))
            .await
            .unwrap();
    }
    assert_eq!(drained(&router, &mut link).await.len(), 2);
}

/// rumqttd stops after 199 notifications until it is told that they were taken; what stopped
/// there, be it the fence itself, is served again behind the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_fill_rumqttds_buffer_to_the_brim_are_whole() {
    let router = Router::start(Config::default());
    let mut link = router.link(big()).await.unwrap();
    let mut filters = 0;
    for filter in ["#", "+", "+/#", "0", "1", "2", "3"] {
        router.subscribe(link.id(), filter).await.unwrap();
        filters += 1;
    }
    assert_eq!(filters, 7);
    for round in 0..300 {
        for size in 45..55 {
            for i in 0..size {
                let topic = ((round + size + i / 25) % 4).to_string();
                router.publish(reliable(&topic, "x".into())).await.unwrap();
            }
        }
        let got = drained(&router, &mut link).await;
        assert_eq!(got.len(), (45..55).sum::<usize>());
        assert!(got.iter().all(|d| d.matched.iter().count() == 4));
    }
    assert_eq!(router.stats().late, 0);
}

#[tokio::test]
async fn large_topics_survive_the_small_logs_of_the_engine() {
    let router = Router::start(Config::default());
    let mut link = router.link(big()).await.unwrap();
    router.subscribe(link.id(), "#").await.unwrap();
    router.subscribe(link.id(), "a/#").await.unwrap();
    for i in 0..600 {
        let size = [5, 900, 65_000, 7_000][i % 4];
        let topic = format!("a/{}{i}", "b".repeat(size));
        router.publish(reliable(&topic, "x".into())).await.unwrap();
    }
    let got = drained(&router, &mut link).await;
    assert_eq!(got.len(), 600);
    assert!(got.iter().all(|d| d.matched.iter().count() == 2));
}

#[tokio::test]
async fn a_dropped_receiver_unlinks_itself_at_the_next_message() {
    let router = Router::start(Config::default());
    let link = router.link(Queue::default()).await.unwrap();
    router.subscribe(link.id(), "a").await.unwrap();
    drop(link);
    router.publish(message("a", "x".into())).await.unwrap();
    router.fence().await.unwrap();
    assert_eq!(router.stats().links, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The engine, fed at random with deaths in between, matches exactly as the specification
    /// says, in the order of publishing.
    #[test]
    fn the_engine_agrees_with_the_specification(
        filters in prop::collection::vec(("[$ab]{0,1}", "(/[ab+]{1})*", prop::bool::ANY), 1..12),
        direct in prop::sample::select(vec![0, 8, 1 << 20]),
        published in prop::collection::vec(("[$ab]{0,1}[ab]{0,1}(/[ab]{0,1}){0,3}", 0..60u8), 1..200),
    ) {
        let filters: Vec<String> = filters
            .into_iter()
            .map(|(head, levels, all)| format!("{head}{levels}{}", if all { "/#" } else { "" }))
            .filter(|filter| topic::valid_filter(filter))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let limits = Limits { direct, ..Limits::default() };
            let router = Router::start(Config { limits, ..Config::default() });
            let mut link = router.link(big()).await.unwrap();
            for filter in &filters {
                router.subscribe(link.id(), filter).await.unwrap();
            }
            let mut want = Vec::new();
            for (name, event) in published.iter().filter(|(name, _)| topic::valid_name(name)) {
                if *event == 0 {
                    router.panic_for_test().await.unwrap();
                }
                let seq = router.publish(reliable(name, String::new())).await.unwrap();
                let mut matching: Vec<_> = filters.iter().filter(|f| topic::matches(f, name)).cloned().collect();
                matching.sort();
                matching.dedup();
                if !matching.is_empty() {
                    want.push((seq, matching));
                }
            }
            let got: Vec<_> = drained(&router, &mut link)
                .await
                .iter()
                .map(|d| {
                    let mut matched: Vec<_> = d.matched.iter().map(str::to_owned).collect();
                    matched.sort();
                    (d.seq, matched)
                })
                .collect();
            assert_eq!(got, want);
        });
    }
}
