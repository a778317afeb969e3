//! The chain beside each original: one JSON line per appended piece, each holding the hash of the line before it, so
//! that no piece can be changed, dropped or moved without every later line saying so.
//!
//! A line speaks of the piece twice: as it was recorded (`offset`, `length`, `sha256`: the plain WebM), and, if the
//! original is encrypted, as it lies on the disk (`stored`). So one chain verifies an original without its key, with it,
//! and after it was exported as plain WebM. The last line of an original that ended regularly says `end`.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// One line of `<file>.chain.jsonl`. Line 0 covers the file's header, line n its n-th cluster, the last one its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainEntry {
    /// Number of the cluster, from 1; 0 is the header.
    pub n: u64,
    /// Where it begins in the WebM, bytes.
    pub offset: u64,
    /// Its length, bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// SHA-256 of the line before this one, without its line feed, hex; empty in line 0.
    pub previous: String,
    /// The same piece encrypted, as it is stored. Absent if the original is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<StoredPiece>,
    /// Present and true in the last line of an original that ended regularly; that line covers no bytes of the WebM.
    #[serde(default, skip_serializing_if = "is_false")]
    pub end: bool,
}

/// Where a piece lies in the encrypted file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredPiece {
    /// Where it begins in the file, bytes. Piece 0 begins at 0: the encrypted file's own header belongs to it.
    pub offset: u64,
    /// Its length, bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A chain that grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    next: u64,
    offset: u64,
    stored: u64,
    head: String,
}

impl Chain {
    /// Adds a piece, and gives its line with the line feed. `stored` are its bytes on the disk if they are others.
    pub(super) fn add(&mut self, piece: &[u8], stored: Option<&[u8]>) -> Result<String, serde_json::Error> {
        self.line(piece, stored, false)
    }

    /// Adds the end, for which an encrypted file has bytes too, and gives its line with the line feed.
    pub(super) fn end(&mut self, stored: Option<&[u8]>) -> Result<String, serde_json::Error> {
        self.line(&[], stored, true)
    }

    fn line(&mut self, piece: &[u8], stored: Option<&[u8]>, end: bool) -> Result<String, serde_json::Error> {
        let (length, stored_length) = (length(piece), stored.map_or(0, length));
        let entry = ChainEntry {
            n: self.next,
            offset: self.offset,
            length,
            sha256: sha256_hex(piece),
            previous: self.head.clone(),
            stored: stored.map(|bytes| StoredPiece {
                offset: self.stored,
                length: stored_length,
                sha256: sha256_hex(bytes),
            }),
            end,
        };
        let mut line = serde_json::to_string(&entry)?;
        self.head = sha256_hex(line.as_bytes());
        self.next += u64::from(!end);
        self.offset += length;
        self.stored += stored_length;
        line.push('\n');
        Ok(line)
    }

    /// SHA-256 of the last line, hex.
    pub(super) fn head(&self) -> &str {
        &self.head
    }

    /// Bytes of the WebM covered.
    pub(super) fn bytes(&self) -> u64 {
        self.offset
    }

    /// Clusters covered.
    pub(super) fn clusters(&self) -> u64 {
        self.next.saturating_sub(1)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
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
        let first = chain.add(b"header", None).unwrap();
        let second = chain.add(b"cluster", None).unwrap();
        let entry: ChainEntry = serde_json::from_str(&second).unwrap();
        assert_eq!((entry.n, entry.offset, entry.length), (1, 6, 7));
        assert_eq!(entry.previous, sha256_hex(first.trim_end().as_bytes()));
        assert_eq!(entry.sha256, sha256_hex(b"cluster"));
        assert_eq!(chain.head(), sha256_hex(second.trim_end().as_bytes()));
        assert_eq!((chain.bytes(), chain.clusters()), (13, 1));
    }

    #[test]
    fn lines_say_what_is_stored_and_where_the_end_is() {
        let mut chain = Chain::default();
        let empty = sha256_hex(b"");
        let first = chain.add(b"header", Some(b"HEADER and more")).unwrap();
        let wanted = format!(
            "{{\"n\":0,\"offset\":0,\"length\":6,\"sha256\":\"{}\",\"previous\":\"\",\
             \"stored\":{{\"offset\":0,\"length\":15,\"sha256\":\"{}\"}}}}\n",
            sha256_hex(b"header"),
            sha256_hex(b"HEADER and more"),
        );
        assert_eq!(first, wanted);
        chain.add(b"cluster", Some(b"CLUSTER")).unwrap();
        let previous = chain.head().to_owned();
        let end = chain.end(Some(b"the end")).unwrap();
        let wanted = format!(
            "{{\"n\":2,\"offset\":13,\"length\":0,\"sha256\":\"{empty}\",\"previous\":\"{previous}\",\
             \"stored\":{{\"offset\":22,\"length\":7,\"sha256\":\"{}\"}},\"end\":true}}\n",
            sha256_hex(b"the end"),
        );
        assert_eq!(end, wanted);
        assert_eq!((chain.bytes(), chain.clusters()), (13, 1));

        let mut plain = Chain::default();
        plain.add(b"header", None).unwrap();
        let previous = plain.head().to_owned();
        let wanted = format!(
            "{{\"n\":1,\"offset\":6,\"length\":0,\"sha256\":\"{empty}\",\"previous\":\"{previous}\",\"end\":true}}\n"
        );
        assert_eq!(plain.end(None).unwrap(), wanted);
    }
}
