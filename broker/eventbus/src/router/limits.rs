//! When the engine has collected too much: an estimate of what rumqttd keeps and never frees. It
//! decides when to replace the engine; it bounds no resident memory, for what a replaced engine
//! frees goes back to the allocator, which may keep it.

use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::table::FilterId;

/// One segment of a filter's log in bytes, as rumqttd counts them.
pub(super) const SEGMENT_BYTES: usize = 8 * 1024;
/// How many segments rumqttd keeps of each log. A batch fits one segment and may begin in a
/// full one, so that three always hold a whole batch.
pub(super) const SEGMENTS: usize = 3;
/// What rumqttd counts for an entry besides its topic: 4 and the 8 bytes of our reference.
pub(super) const ENTRY_COUNTED: usize = 12;

/// Estimate: what an entry of a log takes in memory, without its topic.
const ENTRY_BYTES: usize = 240;
/// Estimate: an empty log with its waiters, meters and index entries.
const FILTER_BYTES: usize = 5 * 1024;
/// Estimate: a topic in the cache, without its text.
const TOPIC_BYTES: usize = 120;

/// Bounds of one engine; passing one replaces it between two batches.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages in one batch.
    pub batch: usize,
    /// A batch that needs at most so many comparisons (messages times filters) is matched in
    /// place instead of crossing two threads; 0 = never. At 1,000 messages/s a message then
    /// costs a third of the CPU and an eighth of the time.
    pub direct: usize,
    /// Distinct topics that matched.
    pub topics: usize,
    /// Filters that nobody holds any more, beyond as many as are in use.
    pub dead_filters: usize,
    /// Estimated bytes in logs and caches, beyond what the filters in use take when empty. Not a
    /// bound of the process's memory.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 256,
            direct: 0,
            topics: 20_000,
            dead_filters: 200,
            bytes: 16 << 20,
        }
    }
}

/// What one engine has collected.
#[derive(Default)]
pub(super) struct Load {
    hasher: RandomState,
    topics: HashSet<u64>,
    topic_bytes: usize,
    logs: HashMap<FilterId, Log>,
    log_bytes: usize,
    dead: usize,
}

#[derive(Default)]
struct Log {
    counted: usize,
}

impl Load {
    /// A message matched a filter.
    pub(super) fn hit(&mut self, topic: &str, filter: FilterId) {
        if self.topics.insert(self.hasher.hash_one(topic)) {
            self.topic_bytes += TOPIC_BYTES + topic.len();
        }
        let log = self.logs.entry(filter).or_default();
        // A full log drops as much as it takes.
        if log.counted < SEGMENT_BYTES * SEGMENTS {
            log.counted += ENTRY_COUNTED + topic.len();
            self.log_bytes += ENTRY_BYTES + topic.len();
        }
    }

    /// The last link left a filter; rumqttd keeps its log.
    pub(super) fn died(&mut self) {
        self.dead += 1;
    }

    pub(super) fn bytes(&self, live_filters: usize) -> usize {
        self.topic_bytes + self.log_bytes + (self.dead + live_filters) * FILTER_BYTES
    }

    pub(super) fn passes(&self, limits: &Limits, live_filters: usize) -> bool {
        self.topics.len() > limits.topics
            || self.dead > limits.dead_filters.max(live_filters)
            || self.bytes(0) > limits.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            batch: 1,
            direct: 0,
            topics: 10,
            dead_filters: 5,
            bytes: 1 << 20,
        }
    }

    #[test]
    fn many_topics_pass_the_limit_and_one_topic_does_not() {
        let mut load = Load::default();
        for _ in 0..100_000 {
            load.hit("a", FilterId(1));
        }
        assert!(!load.passes(&limits(), 1));
        for i in 0..10 {
            load.hit(&format!("a/{i}"), FilterId(1));
        }
        assert!(load.passes(&limits(), 1));
    }

    #[test]
    fn dead_filters_count_beyond_the_live_ones() {
        let mut load = Load::default();
        for _ in 0..8 {
            load.died();
        }
        assert!(!load.passes(&limits(), 8));
        assert!(load.passes(&limits(), 7));
    }

    #[test]
    fn busy_logs_pass_the_limit_of_bytes() {
        let mut load = Load::default();
        let mut filters = 0;
        while !load.passes(&limits(), 1000) {
            filters += 1;
            assert!(filters < 100, "the limit of bytes is never passed");
            for _ in 0..1000 {
                load.hit("some/topic/of/middling/length", FilterId(filters));
            }
        }
        assert!(filters > 1);
    }
}
