//! Drawing the order of queues by weight.

use executr_api::QueueWeight;
use executr_spec::QueueName;

use crate::lock::Lock;

/// A source of draws. Not for secrets. (SplitMix64, G. Steele, D. Lea, C. Flood: "Fast splittable pseudorandom number
/// generators", 2014.)
#[derive(Debug)]
pub(crate) struct Draw(Lock<u64>);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Lock::new(seed))
    }

    fn next(&self) -> u64 {
        let mut state = self.0.hold();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The queues, each first with the probability of its share of the weights, the rest likewise: sorted by
    /// `-ln(u) / weight` with `u` uniform in (0, 1] (Efraimidis and Spirakis, "Weighted random sampling with a
    /// reservoir", 2006).
    pub(crate) fn order(&self, queues: &[QueueWeight]) -> Vec<QueueName> {
        if let [only] = queues {
            return vec![only.queue.clone()];
        }
        let mut keyed: Vec<(f64, &QueueName)> = queues
            .iter()
            .map(|queue| {
                // 53 bits fill a double's mantissa exactly; adding 1 keeps 0 out.
                let u = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
                (-u.ln() / f64::from(queue.weight.max(1)), &queue.queue)
            })
            .collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        keyed.into_iter().map(|(_, queue)| queue.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str, weight: u32) -> QueueWeight {
        QueueWeight { queue: name.parse().expect("a name"), weight }
    }

    #[test]
    fn each_queue_comes_first_as_often_as_its_weight_says() {
        let draw = Draw::new(7);
        let queues = [queue("a", 1), queue("b", 2), queue("c", 5)];
        let mut first = std::collections::BTreeMap::<String, u32>::new();
        for _ in 0..8_000 {
            let order = draw.order(&queues);
            assert_eq!(order.len(), 3);
            *first.entry(order[0].to_string()).or_default() += 1;
        }
        // Four standard deviations of a binomial distribution with n = 8,000 are at most 179.
        for (name, expected) in [("a", 1_000), ("b", 2_000), ("c", 5_000)] {
            assert!(first[name].abs_diff(expected) < 179, "{name}: {} of {expected}", first[name]);
        }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let queues = [queue("a", 1), queue("b", 1), queue("c", 1)];
        let (one, other) = (Draw::new(3), Draw::new(3));
        for _ in 0..20 {
            assert_eq!(one.order(&queues), other.order(&queues));
        }
    }
}
