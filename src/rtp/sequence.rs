//! Sequence numbers without their rollovers, and which of them were seen: the receiver's window of RFC 3711 §3.3.

/// Numbers below the highest that a window remembers. A repair that comes later than so many packets is refused;
/// more takes memory for every stream.
pub const WINDOW: u64 = 512;

const WORDS: usize = 8;

/// The numbers of one stream: the highest so far, and which of the last [`WINDOW`] were seen.
#[derive(Clone, Debug, Default)]
pub struct Window {
    highest: Option<u64>,
    seen: [u64; WORDS],
}

impl Window {
    /// The extended number that `sequence` stands for: the one nearest to the highest so far (RFC 3711 §3.3.1). `None`:
    /// it would lie before the stream's first rollover period.
    pub fn extend(&self, sequence: u16) -> Option<u64> {
        let Some(highest) = self.highest else { return Some(u64::from(sequence)) };
        let period = highest & !0xffff;
        #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are what is compared")]
        let ahead = sequence.wrapping_sub(highest as u16);
        let near = period | u64::from(sequence);
        if ahead < 0x8000 {
            // Ahead, over the rollover if the number is lower.
            Some(if near < highest { near + 0x1_0000 } else { near })
        } else if near <= highest {
            Some(near)
        } else {
            near.checked_sub(0x1_0000)
        }
    }

    /// Whether this number was not seen yet and is not too old to tell.
    pub fn is_new(&self, index: u64) -> bool {
        match self.highest {
            None => true,
            Some(highest) if index > highest => true,
            Some(highest) => highest - index < WINDOW && !self.bit(index),
        }
    }

    /// Notes a number as seen.
    pub fn accept(&mut self, index: u64) {
        match self.highest {
            Some(highest) if index <= highest => {
                if highest - index >= WINDOW {
                    return;
                }
            }
            Some(highest) => {
                if index - highest >= WINDOW {
                    self.seen = [0; WORDS];
                } else {
                    for skipped in highest + 1..index {
                        self.set(skipped, false);
                    }
                }
                self.highest = Some(index);
            }
            None => self.highest = Some(index),
        }
        self.set(index, true);
    }

    /// The highest number seen.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    fn bit(&self, index: u64) -> bool {
        let (word, mask) = place(index);
        self.seen.get(word).is_some_and(|bits| bits & mask != 0)
    }

    fn set(&mut self, index: u64, seen: bool) {
        let (word, mask) = place(index);
        if let Some(bits) = self.seen.get_mut(word) {
            if seen { *bits |= mask } else { *bits &= !mask }
        }
    }
}

fn place(index: u64) -> (usize, u64) {
    let at = index % WINDOW;
    (usize::try_from(at / 64).unwrap_or_default(), 1 << (at % 64))
}

/// A 32-bit counter without its rollovers: the value nearest to the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper {
    last: Option<u64>,
}

impl Unwrapper {
    /// The extended value that `value` stands for. Starts one period up, so that what comes before the first has a
    /// value too.
    pub fn extend(&mut self, value: u32) -> u64 {
        let extended = match self.last {
            None => (1 << 32) | u64::from(value),
            Some(last) => {
                #[expect(clippy::cast_possible_truncation, reason = "the lower 32 bits are what is compared")]
                let step = value.wrapping_sub(last as u32).cast_signed();
                last.saturating_add_signed(i64::from(step))
            }
        };
        self.last = Some(self.last.map_or(extended, |last| last.max(extended)));
        extended
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_go_on_over_the_rollover_and_back() {
        let mut window = Window::default();
        window.accept(65_534);
        assert_eq!(window.extend(65_535), Some(65_535));
        assert_eq!(window.extend(3), Some(65_539));
        window.accept(65_539);
        assert_eq!(window.extend(65_533), Some(65_533), "late, from before the rollover");
        assert_eq!(Window::default().extend(7), Some(7));
        let mut early = Window::default();
        early.accept(3);
        assert_eq!(early.extend(65_530), None, "before the first number of all");
    }

    #[test]
    fn timestamps_go_on_over_the_rollover_and_back() {
        let mut unwrapper = Unwrapper::default();
        let first = unwrapper.extend(u32::MAX - 10);
        let second = unwrapper.extend(5);
        assert_eq!(second - first, 16);
        assert_eq!(unwrapper.extend(u32::MAX - 10), first);
        assert_eq!(unwrapper.extend(6) - second, 1);
    }

    proptest! {
        #[test]
        fn a_window_says_new_exactly_once_for_every_number_within_it(steps in prop::collection::vec(-600_i64..600, 1..400)) {
            let mut window = Window::default();
            let mut seen = HashSet::new();
            let mut at = 100_000_i64;
            let mut highest = 0;
            for step in steps {
                at = (at + step).max(0);
                let index = u64::try_from(at).unwrap();
                let old = highest >= index + WINDOW;
                prop_assert_eq!(window.is_new(index), !old && !seen.contains(&index), "{} of {}", index, highest);
                if window.is_new(index) {
                    window.accept(index);
                    seen.insert(index);
                    highest = highest.max(index);
                }
                prop_assert_eq!(window.highest(), Some(highest));
                // What is in reach of half a period is found again by its lower bits.
                #[expect(clippy::cast_possible_truncation)]
                let wire = index as u16;
                prop_assert_eq!(window.extend(wire), Some(index));
            }
        }
    }
}
