//! The chain beside each original: one JSON line per appended piece, each holding the hash of the line before it, so
//! that no piece can be changed, dropped or moved without every later line saying so.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// One line of `<file>.chain.jsonl`. Line 0 covers the file's header, line n its n-th cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainEntry {
    /// Number of the cluster, from 1; 0 is the header.
    pub n: u64,
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Its length, bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// SHA-256 of the line before this one, without its line feed, hex; empty in line 0.
    pub previous: String,
}

/// A chain that grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    next: u64,
    offset: u64,
    head: String,
}

impl Chain {
    /// Adds a piece, and gives its line with the line feed.
    pub(super) fn add(&mut self, piece: &[u8]) -> Result<String, serde_json::Error> {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let entry = ChainEntry {
            n: self.next,
            offset: self.offset,
            length,
            sha256: sha256_hex(piece),
            previous: self.head.clone(),
        };
        let mut line = serde_json::to_string(&entry)?;
        self.head = sha256_hex(line.as_bytes());
        self.next += 1;
        self.offset += length;
        line.push('\n');
        Ok(line)
    }

    /// SHA-256 of the last line, hex.
    pub(super) fn head(&self) -> &str {
        &self.head
    }

    /// Bytes covered.
    pub(super) fn bytes(&self) -> u64 {
        self.offset
    }

    /// Clusters covered.
    pub(super) fn clusters(&self) -> u64 {
        self.next.saturating_sub(1)
    }
}

/// SHA-256 in hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_holds_the_hash_of_the_line_before() {
        let mut chain = Chain::default();
        let first = chain.add(b"header").unwrap();
        let second = chain.add(b"cluster").unwrap();
        let entry: ChainEntry = serde_json::from_str(&second).unwrap();
        assert_eq!((entry.n, entry.offset, entry.length), (1, 6, 7));
        assert_eq!(entry.previous, sha256_hex(first.trim_end().as_bytes()));
        assert_eq!(entry.sha256, sha256_hex(b"cluster"));
        assert_eq!(chain.head(), sha256_hex(second.trim_end().as_bytes()));
        assert_eq!((chain.bytes(), chain.clusters()), (13, 1));
    }
}
