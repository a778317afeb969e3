//! The recorder's pure parts for benches to measure: the cluster of a second, and its line in the chain.

use super::chain::Chain;
use super::webm::{SimpleBlock, cluster};

/// Frames and packets of voice of one second, in the order of their time.
#[derive(Debug)]
pub struct Second {
    blocks: Vec<(i16, u8, Vec<u8>)>,
}

impl Second {
    /// So many frames and packets of voice of such lengths, evenly spaced.
    pub fn new(frames: usize, frame: usize, voices: usize, voice: usize) -> Self {
        let evenly = |count: usize, track: u8, length: usize| {
            (0..count).map(move |n| (i16::try_from(n * 1_000 / count.max(1)).unwrap_or(0), track, vec![7; length]))
        };
        let mut blocks: Vec<_> = evenly(frames, 1, frame).chain(evenly(voices, 2, voice)).collect();
        blocks.sort_by_key(|(offset, track, _)| (*offset, *track));
        Self { blocks }
    }

    /// The second as a cluster. `None`: it cannot be written, which would be a mistake of the writer's.
    pub fn cluster(&self) -> Option<Vec<u8>> {
        let blocks: Vec<SimpleBlock<'_>> = self
            .blocks
            .iter()
            .map(|(offset, track, data)| SimpleBlock { track: *track, offset: *offset, keyframe: *offset == 0, data })
            .collect();
        cluster(1_000, &blocks).ok()
    }
}

/// A chain of pieces.
#[derive(Debug, Default)]
pub struct Pieces(Chain);

impl Pieces {
    /// Adds a piece; gives the length of its line. `None`: it cannot be written, which would be a mistake of ours.
    pub fn add(&mut self, piece: &[u8]) -> Option<usize> {
        self.0.add(piece, None).ok().map(|line| line.len())
    }
}
