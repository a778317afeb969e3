//! How many rooms flow, and how long voice took while all did: joins cost a server more than media, and would blur it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::delay::{DelayFigures, Delays};

/// The rooms of a run.
#[derive(Debug)]
pub(crate) struct Flows {
    /// So many are to come.
    wanted: u32,
    flowing: AtomicU32,
    delays: Arc<Delays>,
    /// What was counted when the last had come.
    full: OnceLock<Vec<u64>>,
    /// What was counted when the first went from then on.
    over: OnceLock<Vec<u64>>,
}

/// A room that flows as long as this is there.
pub(crate) struct Flow<'a>(&'a Flows);

impl Flows {
    pub(crate) fn new(wanted: u32, delays: Arc<Delays>) -> Self {
        Self { wanted, flowing: AtomicU32::new(0), delays, full: OnceLock::new(), over: OnceLock::new() }
    }

    /// A room flows.
    pub(crate) fn begin(&self) -> Flow<'_> {
        if self.flowing.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted {
            self.full.get_or_init(|| self.delays.counts());
        }
        Flow(self)
    }

    /// Rooms that flow now.
    pub(crate) fn count(&self) -> u32 {
        self.flowing.load(Ordering::Relaxed)
    }

    /// How long voice took while all rooms flowed. `None`: they never did at the same time.
    pub(crate) fn delays(&self) -> Option<DelayFigures> {
        let (full, over) = (self.full.get()?, self.over.get()?);
        Some(DelayFigures::of(over.iter().zip(full).map(|(over, full)| over.saturating_sub(*full))))
    }
}

impl Drop for Flow<'_> {
    fn drop(&mut self) {
        if self.0.flowing.fetch_sub(1, Ordering::Relaxed) == self.0.wanted {
            self.0.over.get_or_init(|| self.0.delays.counts());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_passes_while_all_rooms_flow_counts() {
        let delays = Arc::<Delays>::default();
        let flows = Flows::new(2, Arc::clone(&delays));
        let pass = |ms| delays.add(Duration::from_millis(ms));
        pass(900);
        let first = flows.begin();
        pass(800);
        let second = flows.begin();
        assert_eq!((flows.count(), flows.delays().is_none()), (2, true));
        (0..10).for_each(|_| pass(5));
        drop(first);
        pass(700);
        drop((second, flows.begin()));
        let figures = flows.delays().unwrap();
        assert_eq!((figures.count, delays.figures().count), (10, 13));
        assert!(figures.max_ms < 6.0, "{figures:?}");
        assert!(Flows::new(2, delays).delays().is_none());
    }
}
