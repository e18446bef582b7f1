//! Chance from a seed (SplitMix64): the same seed gives the same run. Each part forks its own, so that one part's draws do not shift another's.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

#[derive(Clone)]
pub struct Random(Arc<Mutex<u64>>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// Another source, which follows from this one's seed and the name.
    pub fn fork(&self, name: &str) -> Self {
        Self::new(name.bytes().fold(self.next(), |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `limit`, exclusive.
    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn between(&self, from: u64, to_inclusive: u64) -> u64 {
        from + self.below(to_inclusive - from + 1)
    }

    /// True once in `odds` times; never for 0.
    pub fn once_in(&self, odds: u32) -> bool {
        odds > 0 && self.below(u64::from(odds)) == 0
    }

    pub fn millis(&self, from: u64, to_inclusive: u64) -> Duration {
        Duration::from_millis(self.between(from, to_inclusive))
    }

    pub fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }

    pub fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
