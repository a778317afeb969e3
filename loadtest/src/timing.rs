//! How long requests took.

use std::time::Duration;

use serde::Serialize;

/// Times of one kind of request.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

/// The usual figures of some times, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How many requests.
    pub count: usize,
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// All but five in a hundred took at most this long.
    pub p95_ms: f64,
    /// All but one in a hundred took at most this long.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Times {
    /// Takes in one.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Takes in others.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        // The nearest rank: the smallest time that so many of the hundred do not exceed.
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1));
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
        Figures {
            count: sorted.len(),
            p50_ms: ms(rank(50)),
            p95_ms: ms(rank(95)),
            p99_ms: ms(rank(99)),
            max_ms: ms(sorted.last()),
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, p50_ms, p99_ms, max_ms, .. } = self;
        write!(f, "{count} requests, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, longest {max_ms:.1} ms")
    }
}

impl Figures {
    /// Whether one in a hundred took longer than `limit`.
    pub fn exceed(&self, limit: Duration) -> bool {
        self.p99_ms > limit.as_secs_f64() * 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ms: impl IntoIterator<Item = u64>) -> Figures {
        let mut times = Times::default();
        ms.into_iter().for_each(|ms| times.add(Duration::from_millis(ms)));
        times.figures()
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let figures = times((1..=200).rev());
        assert_eq!((figures.p50_ms, figures.p99_ms, figures.max_ms), (100.0, 198.0, 200.0));
        assert!(figures.exceed(Duration::from_millis(197)) && !figures.exceed(Duration::from_millis(198)));
        assert_eq!(times([7]), Figures { count: 1, p50_ms: 7.0, p95_ms: 7.0, p99_ms: 7.0, max_ms: 7.0 });
        assert_eq!(times([]), Figures::default());
    }
}
