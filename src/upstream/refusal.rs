//! `Refusal`: why no backend takes a request.

use crate::observe::UpstreamStats;

/// Why no backend takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The upstream has none.
    NoBackend,
    /// None of them is well.
    NoHealthyBackend,
    /// All that could take it were tried already.
    AllTried,
    /// The upstream, or all servers that could take it, have as many requests as they may, and there is no queue.
    Full,
    /// As many wait already as may.
    QueueFull,
    /// It has waited for as long as it may.
    QueueTimeout,
    /// The upstream has failed so often that it is left alone for a while.
    CircuitOpen,
}

impl Refusal {
    /// All of them, in the order of [`UpstreamStats::REASONS`].
    #[cfg(test)]
    const ALL: [Self; UpstreamStats::REASONS.len()] = [
        Self::NoBackend,
        Self::NoHealthyBackend,
        Self::AllTried,
        Self::Full,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::CircuitOpen,
    ];

    /// As one word for logs and metrics.
    pub const fn word(self) -> &'static str {
        UpstreamStats::REASONS[self as usize]
    }

    /// Counts a request that no backend took.
    pub fn count(self, stats: &UpstreamStats) {
        stats.refused[self as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_word_and_its_counter() {
        let stats = UpstreamStats::default();
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            refusal.count(&stats);
            assert_eq!(stats.refused[index].get(), 1, "{refusal:?}");
        }
        let words = Refusal::ALL.map(Refusal::word).join(" ");
        assert_eq!(words, "no_backend no_healthy_backend all_tried limit queue_full queue_timeout circuit_open");
    }
}
