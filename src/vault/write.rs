//! Encrypting: segments as they come, or fixed ones.

use std::io::{self, Seek, SeekFrom, Write};

use zeroize::Zeroizing;

use super::key::SessionKey;
use super::stream::{Cipher, FIXED_SEGMENT, HEADER_BYTES, Header, OVERHEAD, SealError};

/// Encrypts a file of variable segments, piece by piece. Whoever fails to store a piece must give the file up: nothing
/// is ever encrypted a second time under the same nonce.
#[derive(Debug)]
pub struct FileSealer {
    cipher: Cipher,
    header: Option<Header>,
    position: u32,
}

impl FileSealer {
    /// A new file, for a session's key and the file's base name.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn new(key: &SessionKey, name: &str) -> Result<Self, SealError> {
        Self::with_header(key, name, Header::random(0)?)
    }

    pub(super) fn with_header(key: &SessionKey, name: &str, header: Header) -> Result<Self, SealError> {
        Ok(Self { cipher: Cipher::new(key, name, &header)?, header: Some(header), position: 0 })
    }

    /// Appends to `out` what is to be stored for the next piece; the first one brings the file's header along. `out` is
    /// grown once.
    ///
    /// # Errors
    /// [`SealError::TooLarge`] or [`SealError::Cipher`].
    pub fn seal(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        // The last position stays free for the last segment.
        let next = self.position.checked_add(1).ok_or(SealError::TooLarge)?;
        self.put(piece, false, out)?;
        self.position = next;
        Ok(())
    }

    /// Appends to `out` the empty segment that says that the file is whole.
    ///
    /// # Errors
    /// [`SealError::Cipher`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), SealError> {
        self.put(&[], true, out)
    }

    fn put(&mut self, piece: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), SealError> {
        let header = self.header.take();
        out.reserve(header.map_or(0, |_| HEADER_BYTES) + piece.len() + OVERHEAD);
        if let Some(header) = header {
            out.extend(header.bytes());
        }
        self.cipher.seal(self.position, last, piece, out)
    }
}

/// Encrypts a file of fixed segments that is written from beginning to end. Its first [`FIXED_SEGMENT`] bytes wait in
/// memory until [`FixedWriter::finish`] and can be changed until then; their place in the file holds zeros so long, so
/// that a file that was not finished does not open.
#[derive(Debug)]
pub struct FixedWriter<W> {
    out: W,
    /// Where the file begins in `out`.
    begin: u64,
    cipher: Cipher,
    header: Header,
    front: Zeroizing<Vec<u8>>,
    open: Zeroizing<Vec<u8>>,
    sealed: Vec<u8>,
    /// Number of the segment that is open.
    position: u32,
}

impl<W: Write + Seek> FixedWriter<W> {
    /// A new file at the current position of `out`, for a session's key and the file's base name.
    ///
    /// # Errors
    /// No random numbers, or what `out` says.
    pub fn new(out: W, key: &SessionKey, name: &str) -> io::Result<Self> {
        let header = Header::random(FIXED_SEGMENT).map_err(SealError::from)?;
        Self::with_header(out, key, name, header)
    }

    pub(super) fn with_header(mut out: W, key: &SessionKey, name: &str, header: Header) -> io::Result<Self> {
        let begin = out.stream_position()?;
        let cipher = Cipher::new(key, name, &header)?;
        let (front, open) = (Zeroizing::new(Vec::with_capacity(segment())), Zeroizing::new(Vec::new()));
        Ok(Self { out, begin, cipher, header, front, open, sealed: Vec::new(), position: 0 })
    }

    /// Overwrites plain bytes at an offset within the first [`FIXED_SEGMENT`], as far as they were written already.
    ///
    /// # Errors
    /// `InvalidInput` if they do not all lie there; then nothing is changed.
    pub fn patch(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let place = offset.checked_add(bytes.len()).and_then(|end| self.front.get_mut(offset..end));
        let place = place.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not in the first segment"))?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    /// Plain bytes written so far.
    pub fn length(&self) -> u64 {
        let whole = u64::from(self.position.saturating_sub(1)) * u64::from(FIXED_SEGMENT);
        let first = u64::try_from(self.front.len()).unwrap_or(0);
        if self.position == 0 { first } else { first + whole + u64::try_from(self.open.len()).unwrap_or(0) }
    }

    /// Writes the last segment and then the first, and gives back what was written to, at its end.
    ///
    /// # Errors
    /// What `out` says; the file is then of no use.
    pub fn finish(mut self) -> io::Result<W> {
        let single = self.position == 0;
        if !single {
            self.put_open(true)?;
        }
        let end = self.out.stream_position()?;
        self.sealed.clear();
        self.sealed.extend(self.header.bytes());
        self.cipher.seal(0, single, &self.front, &mut self.sealed)?;
        self.out.seek(SeekFrom::Start(self.begin))?;
        self.out.write_all(&self.sealed)?;
        if !single {
            self.out.seek(SeekFrom::Start(end))?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    /// The front is full and more comes: keeps its place free.
    fn leave_front(&mut self) -> io::Result<()> {
        self.out.write_all(&vec![0; HEADER_BYTES + segment() + OVERHEAD])?;
        self.open.reserve_exact(segment());
        self.position = 1;
        Ok(())
    }

    fn put_open(&mut self, last: bool) -> io::Result<()> {
        self.sealed.clear();
        let next = self.position.checked_add(1).ok_or(SealError::TooLarge)?;
        self.cipher.seal(self.position, last, &self.open, &mut self.sealed)?;
        self.position = next;
        self.open.clear();
        self.out.write_all(&self.sealed)
    }
}

impl<W: Write + Seek> Write for FixedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        // A full segment is written only when more comes: the last one carries a flag.
        if self.position == 0 && self.front.len() == segment() {
            self.leave_front()?;
        } else if self.position > 0 && self.open.len() == segment() {
            self.put_open(false)?;
        }
        let open = if self.position == 0 { &mut self.front } else { &mut self.open };
        let taken = bytes.len().min(segment() - open.len());
        open.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn segment() -> usize {
    usize::try_from(FIXED_SEGMENT).unwrap_or(usize::MAX)
}
