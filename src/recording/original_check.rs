//! One original against its chain: as it is stored, or as it was recorded, whichever it is here. Encrypted, it is checked
//! without any key; with the session's key also what is in it.

use std::io::{self, Read};

use super::chain::{ChainEntry, sha256_hex};
use super::read::{self, LARGEST_PIECE, Malformed};
use crate::vault::{FileOpener, HEADER_BYTES, OpenError, SessionKey, is_encrypted};

/// What differs between an original and its chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// The chain's line cannot be read.
    #[error("its line in the chain cannot be read: {0}")]
    Line(String),
    /// The lines are not numbered one after the other.
    #[error("its line in the chain says number {0}")]
    Number(u64),
    /// It does not begin where the one before ends.
    #[error("the chain puts it at byte {said}, the one before ends at {expected}")]
    Offset {
        /// What the chain says.
        said: u64,
        /// Where the piece before ends.
        expected: u64,
    },
    /// The line does not hold the hash of the line before it.
    #[error("its line does not follow from the line before: the chain was changed")]
    Previous,
    /// Another line comes after the one that says where the original ends.
    #[error("its line in the chain comes after the end")]
    AfterEnd,
    /// The file is encrypted, and the chain knows only of plain bytes.
    #[error("the file is encrypted, and its line in the chain does not say how it is stored")]
    NotStored,
    /// The file ends before it does.
    #[error("the file is cut short")]
    CutShort,
    /// Its bytes were changed.
    #[error("its bytes have SHA-256 {found}, the chain says {said}")]
    Hash {
        /// Of the bytes in the file.
        found: String,
        /// In the chain.
        said: String,
    },
    /// Its bytes are as written, but are not decrypted: the key is another recording's, or the file another one.
    #[error("cannot be decrypted: {0}")]
    Locked(String),
    /// The bytes are as written, but no WebM.
    #[error("not the structure of a WebM: {0}")]
    Structure(Malformed),
    /// The file goes on after the last line of the chain.
    #[error("{0} bytes follow that are not in the chain")]
    Tail(u64),
}

/// Why an original is not whole.
#[derive(Debug)]
pub(super) enum Fault {
    /// A piece differs: 0 is the header, n the n-th cluster; what ends the chain counts on.
    Broken { piece: u64, difference: Difference },
    /// The file cannot be read. The disk's fault.
    Unreadable(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// A chain whose lines follow from each other.
#[derive(Debug)]
pub(super) struct ReadChain {
    lines: Vec<ChainEntry>,
    head: String,
    finished: bool,
}

impl ReadChain {
    /// Its number of lines.
    pub(super) fn length(&self) -> u64 {
        u64::try_from(self.lines.len()).unwrap_or(u64::MAX)
    }
}

/// What a whole original is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Of the WebM as it was recorded.
    pub(super) bytes: u64,
    pub(super) clusters: u64,
    pub(super) chain_head: String,
    /// It ended regularly.
    pub(super) finished: bool,
    /// The file is encrypted here.
    pub(super) encrypted: bool,
}

/// The header, a cluster, or what ends it.
pub(super) fn piece_name(piece: u64) -> String {
    if piece == 0 { "header".into() } else { format!("cluster {piece}") }
}

/// Reads a chain and checks that each line follows from the one before.
pub(super) fn read_chain(bytes: &[u8]) -> Result<ReadChain, Fault> {
    let (mut lines, mut head, mut offset, mut stored_offset) = (Vec::new(), String::new(), 0, 0);
    let mut finished = false;
    for (piece, line) in (0..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let broken = |difference| Fault::Broken { piece, difference };
        let cut = || broken(Difference::Line("it is cut short".into()));
        let line = line.strip_suffix(b"\n").ok_or_else(cut)?;
        let entry: ChainEntry =
            serde_json::from_slice(line).map_err(|error| broken(Difference::Line(error.to_string())))?;
        if finished {
            return Err(broken(Difference::AfterEnd));
        }
        if entry.n != piece {
            return Err(broken(Difference::Number(entry.n)));
        }
        if entry.previous != head {
            return Err(broken(Difference::Previous));
        }
        if entry.end && (entry.length > 0 || entry.n == 0) {
            return Err(broken(Difference::Line("an end that is none".into())));
        }
        if entry.offset != offset {
            return Err(broken(Difference::Offset { said: entry.offset, expected: offset }));
        }
        offset = offset.saturating_add(entry.length);
        if let Some(stored) = &entry.stored {
            if stored.offset != stored_offset {
                return Err(broken(Difference::Offset { said: stored.offset, expected: stored_offset }));
            }
            stored_offset = stored_offset.saturating_add(stored.length);
        }
        head = sha256_hex(line);
        finished = entry.end;
        lines.push(entry);
    }
    if lines.is_empty() {
        return Err(Fault::Broken { piece: 0, difference: Difference::Line("the chain is empty".into()) });
    }
    Ok(ReadChain { lines, head, finished })
}

/// Compares a file with its chain, piece by piece. With the session's key, an encrypted one is also decrypted and
/// compared with what was recorded. `progress` is told the bytes of each piece.
pub(super) fn check_original(
    chain: &ReadChain,
    mut file: impl Read,
    name: &str,
    key: Option<&SessionKey>,
    mut progress: impl FnMut(u64),
) -> Result<Checked, Fault> {
    let (mut encrypted, mut opener, mut bytes, mut clusters) = (false, None, 0, 0);
    for (piece, line) in (0..).zip(&chain.lines) {
        let broken = |difference| Fault::Broken { piece, difference };
        let mut read = Vec::new();
        if piece == 0 {
            (&mut file).take(HEADER_BYTES as u64).read_to_end(&mut read)?;
            encrypted = is_encrypted(&read);
        }
        let (length, sha256) = match &line.stored {
            Some(stored) if encrypted => (stored.length, &stored.sha256),
            None if encrypted => return Err(broken(Difference::NotStored)),
            _ => (line.length, &line.sha256),
        };
        if length > LARGEST_PIECE {
            return Err(broken(Difference::CutShort));
        }
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let missing = u64::try_from(wanted.saturating_sub(read.len())).unwrap_or(0);
        (&mut file).take(missing).read_to_end(&mut read)?;
        if read.len() < wanted {
            return Err(broken(Difference::CutShort));
        }
        compare(&read, sha256).map_err(broken)?;
        let plain = match key {
            Some(key) if encrypted => {
                let closed = |error: OpenError| broken(Difference::Locked(error.to_string()));
                let skip = if piece == 0 { HEADER_BYTES } else { 0 };
                let stored = read.get(skip..).unwrap_or_default();
                if piece == 0 {
                    opener = Some(FileOpener::new(key, name, &read).map_err(closed)?);
                }
                let opened = opener.as_ref().map(|opener: &FileOpener| opener.open(piece, line.end, stored));
                let plain = opened.transpose().map_err(closed)?.unwrap_or_default();
                compare(&plain, &line.sha256).map_err(broken)?;
                Some(plain)
            }
            _ if encrypted => None,
            _ => Some(read),
        };
        if let Some(plain) = plain {
            let structure = match piece {
                _ if line.end && plain.is_empty() => Ok(()),
                0 => read::header(&plain).map(drop),
                _ => check_cluster(&plain),
            };
            structure.map_err(|what| broken(Difference::Structure(what)))?;
        }
        bytes += line.length;
        clusters += u64::from(piece > 0 && !line.end);
        progress(length);
    }
    match io::copy(&mut file, &mut io::sink())? {
        0 => Ok(Checked { bytes, clusters, chain_head: chain.head.clone(), finished: chain.finished, encrypted }),
        rest => Err(Fault::Broken { piece: clusters, difference: Difference::Tail(rest) }),
    }
}

fn check_cluster(piece: &[u8]) -> Result<(), Malformed> {
    read::cluster(piece)?.blocks().try_for_each(|block| block.map(drop))
}

fn compare(bytes: &[u8], said: &str) -> Result<(), Difference> {
    let found = sha256_hex(bytes);
    if found == said { Ok(()) } else { Err(Difference::Hash { found, said: said.to_owned() }) }
}
