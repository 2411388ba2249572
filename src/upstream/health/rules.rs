//! The rules by which probes and failed requests count: the settings of `health`, ready to use.

use crate::units::Percent;
use crate::upstream::clock::Micros;

/// How probes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveRules {
    /// So many successes in a row make a backend well.
    pub rise: u32,
    /// So many failures in a row make it down.
    pub fall: u32,
}

/// How failed requests count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveRules {
    /// So many failures in a row ask for an ejection.
    pub errors: u32,
    /// In this time; also the window of `error_rate`.
    pub within: Micros,
    /// Whether each status from 500 on is a failure, or only those of gateways.
    pub counts_all_5xx: bool,
    /// From this share of failures on an ejection is asked for, too.
    pub error_rate: Option<Percent>,
    /// From so many requests in the window on.
    pub min_requests: u32,
    /// How long the first ejection lasts.
    pub eject: Micros,
    /// How long any may last.
    pub max_eject: Micros,
    /// The share of the backends that may be ejected at the same time.
    pub max_ejected: Percent,
}

impl PassiveRules {
    /// How long an ejection lasts that so many others came shortly before.
    pub fn length(&self, before: u32) -> Micros {
        let doubled = if before < u64::BITS { self.eject.saturating_mul(1 << before) } else { Micros::MAX };
        doubled.min(self.max_eject)
    }

    /// How many of so many backends may be ejected at the same time: the share, at least one of two, never all.
    pub fn most_ejected(&self, backends: usize) -> usize {
        if self.max_ejected.is_zero() || backends == 0 {
            return 0;
        }
        let share = self.max_ejected.of(backends as u64);
        usize::try_from(share).unwrap_or(usize::MAX).max(1).min(backends - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(max_ejected: u16) -> PassiveRules {
        PassiveRules {
            errors: 5,
            within: 10,
            counts_all_5xx: false,
            error_rate: None,
            min_requests: 20,
            eject: 10,
            max_eject: 300,
            max_ejected: Percent::new(max_ejected),
        }
    }

    #[test]
    fn ejections_double_up_to_the_longest() {
        let lengths = [0, 1, 2, 3, 4, 5, 31, 63, 64, u32::MAX].map(|before| rules(50).length(before));
        assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300, 300, 300, 300]);
    }

    #[test]
    fn some_may_be_ejected_and_never_all() {
        for (share, backends, most) in [
            (50, 0, 0),
            (50, 1, 0),
            (50, 2, 1),
            (50, 3, 1),
            (50, 4, 2),
            (50, 5, 2),
            (10, 3, 1),
            (10, 1000, 100),
            (0, 10, 0),
            (100, 1, 0),
            (100, 3, 2),
        ] {
            assert_eq!(rules(share).most_ejected(backends), most, "{share}% of {backends}");
        }
    }
}
