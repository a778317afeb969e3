//! Decrypting: single segments, or a whole file as plain bytes.

use std::io::{self, Read, Seek, SeekFrom};

use zeroize::Zeroizing;

use super::key::SessionKey;
use super::stream::{Cipher, HEADER_BYTES, Header, LARGEST_SEGMENT, LENGTH_BYTES, OVERHEAD, OpenError, TAG_BYTES};

/// Whether a file that begins with these bytes is an encrypted one, of whatever version.
pub fn is_encrypted(head: &[u8]) -> bool {
    !matches!(Header::parse(head), Err(OpenError::NotEncrypted))
}

/// Decrypts single segments of a file whose places somebody else knows: a chain, say.
#[derive(Debug)]
pub struct FileOpener {
    cipher: Cipher,
    header: Header,
}

impl FileOpener {
    /// From the file's first [`HEADER_BYTES`] (more may follow them), the session's key and the file's base name.
    ///
    /// # Errors
    /// [`OpenError::NotEncrypted`] or [`OpenError::Version`]. A wrong key or name shows at the first segment.
    pub fn new(key: &SessionKey, name: &str, header: &[u8]) -> Result<Self, OpenError> {
        let header = Header::parse(header)?;
        let cipher = Cipher::new(key, name, &header).map_err(|_| OpenError::NotEncrypted)?;
        Ok(Self { cipher, header })
    }

    /// The plain bytes of the segment with this number: `stored` is its length, ciphertext and tag, and nothing else.
    ///
    /// # Errors
    /// [`OpenError::Length`] or [`OpenError::Segment`].
    pub fn open(&self, number: u64, last: bool, stored: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (length, sealed) = stored.split_first_chunk().ok_or(OpenError::Length(number))?;
        if usize::try_from(u32::from_be_bytes(*length)) != Ok(sealed.len()) {
            return Err(OpenError::Length(number));
        }
        let mut bytes = sealed.to_vec();
        self.open_in_place(number, last, &mut bytes)?;
        Ok(bytes)
    }

    fn open_in_place(&self, number: u64, last: bool, sealed: &mut Vec<u8>) -> Result<(), OpenError> {
        let position = u32::try_from(number).map_err(|_| OpenError::Length(number))?;
        self.cipher.open(position, last, sealed)
    }
}

/// The segments of a file, from its stored bytes alone: no key is needed to count them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    places: Places,
    /// Plain bytes in all of them.
    plain: u64,
    /// Stored bytes after the last whole segment.
    torn: u64,
}

/// Where the segments are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    /// By arithmetic: plain bytes per segment, and how many segments.
    Fixed { segment: u64, count: u64 },
    /// Plain offset and stored offset of each, in order.
    Listed(Vec<(u64, u64)>),
}

/// One segment: its number, where it is, and how long it is.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    plain_offset: u64,
    plain_length: u64,
    stored_offset: u64,
}

const HEADER: u64 = HEADER_BYTES as u64;
const EXTRA: u64 = OVERHEAD as u64;

impl Segments {
    /// Finds the segments of a file: by its length if they are fixed, else by walking from one to the next.
    ///
    /// # Errors
    /// [`OpenError::NotEncrypted`], [`OpenError::Version`] or [`OpenError::Io`].
    pub fn find<R: Read + Seek>(stored: &mut R) -> Result<Self, OpenError> {
        let (header, length) = read_header(stored)?;
        match u64::from(header.segment) {
            0 => Self::walk(stored, length),
            segment => Ok(Self::count(segment, length)),
        }
    }

    /// How many there are, the last one and half ones counted as they stand.
    pub fn number(&self) -> u64 {
        match &self.places {
            Places::Fixed { count, .. } => *count,
            Places::Listed(list) => u64::try_from(list.len()).unwrap_or(0),
        }
    }

    /// Plain bytes in the whole segments.
    pub fn plain_length(&self) -> u64 {
        self.plain
    }

    /// Stored bytes after the last whole segment: a write that was not finished, or what nobody can read.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    fn count(segment: u64, length: u64) -> Self {
        let body = length.saturating_sub(HEADER);
        let stored = segment + EXTRA;
        let (whole, rest) = (body / stored, body % stored);
        // The last one may be short, and is empty only if there is no other.
        let short = rest > EXTRA || (rest == EXTRA && whole == 0);
        let count = whole + u64::from(short);
        let plain = whole * segment + if short { rest - EXTRA } else { 0 };
        Self { places: Places::Fixed { segment, count }, plain, torn: if short { 0 } else { rest } }
    }

    fn walk<R: Read + Seek>(stored: &mut R, length: u64) -> Result<Self, OpenError> {
        let (mut list, mut plain, mut offset) = (Vec::new(), 0, HEADER);
        stored.seek(SeekFrom::Start(HEADER))?;
        while offset + EXTRA <= length {
            let mut prefix = [0; LENGTH_BYTES];
            stored.read_exact(&mut prefix)?;
            let sealed = u64::from(u32::from_be_bytes(prefix));
            // What cannot be a length belongs to no segment, and nor does anything after it.
            let text = sealed.checked_sub(TAG_BYTES as u64).filter(|text| *text <= LARGEST_SEGMENT as u64);
            let Some(text) = text else { break };
            let next = offset + text + EXTRA;
            if next > length {
                break;
            }
            list.push((plain, offset));
            plain += text;
            offset = next;
            stored.seek(SeekFrom::Start(offset))?;
        }
        Ok(Self { places: Places::Listed(list), plain, torn: length.saturating_sub(offset) })
    }

    /// The segment that holds a plain byte.
    fn holding(&self, plain_offset: u64) -> Option<Place> {
        if plain_offset >= self.plain {
            return None;
        }
        match &self.places {
            Places::Fixed { segment, .. } => self.place(plain_offset / segment),
            Places::Listed(list) => {
                // Of those that begin at one place, all but the last are empty.
                let after = list.partition_point(|(begin, _)| *begin <= plain_offset);
                self.place(u64::try_from(after.checked_sub(1)?).ok()?)
            }
        }
    }

    fn place(&self, number: u64) -> Option<Place> {
        match &self.places {
            Places::Fixed { segment, count } => (number < *count).then(|| {
                let plain_offset = number * segment;
                let plain_length = (self.plain - plain_offset).min(*segment);
                Place { number, plain_offset, plain_length, stored_offset: HEADER + number * (segment + EXTRA) }
            }),
            Places::Listed(list) => {
                let index = usize::try_from(number).ok()?;
                let (plain_offset, stored_offset) = *list.get(index)?;
                let end = list.get(index + 1).map_or(self.plain, |(begin, _)| *begin);
                Some(Place { number, plain_offset, plain_length: end - plain_offset, stored_offset })
            }
        }
    }
}

/// An encrypted file as plain bytes: `Read + Seek`, one segment in memory. A segment that does not authenticate is an
/// error of the kind `InvalidData` around an [`OpenError`], and none of its bytes come out.
#[derive(Debug)]
pub struct EncryptedReader<R> {
    stored: R,
    opener: FileOpener,
    segments: Segments,
    end: End,
    /// Plain offset of the next byte to read.
    position: u64,
    /// The segment decrypted last.
    open: Option<(u64, u64, Zeroizing<Vec<u8>>)>,
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With its last segment.
    Whole,
    /// With a segment that others were to follow.
    Cut,
    /// With a segment, of this number, that does not authenticate.
    Broken(u64),
}

impl<R: Read + Seek> EncryptedReader<R> {
    /// Opens a file by the session's key and the file's base name.
    ///
    /// # Errors
    /// As [`Segments::find`]; and [`OpenError::Segment`] with number 0 if key or name are not the file's.
    pub fn open(mut stored: R, key: &SessionKey, name: &str) -> Result<Self, OpenError> {
        let segments = Segments::find(&mut stored)?;
        let (header, _) = read_header(&mut stored)?;
        let cipher = Cipher::new(key, name, &header).map_err(|_| OpenError::NotEncrypted)?;
        let opener = FileOpener { cipher, header };
        let mut reader = Self { stored, opener, segments, end: End::Cut, position: 0, open: None };
        reader.end = reader.find_end()?;
        if reader.segments.number() > 0 {
            reader.load(0)?;
        }
        Ok(reader)
    }

    /// Whether the file ends with its last segment; otherwise it was cut, in a crash say, and more was to come.
    pub fn is_finished(&self) -> bool {
        self.end == End::Whole && self.segments.torn == 0
    }

    /// Plain bytes in it.
    pub fn plain_length(&self) -> u64 {
        self.segments.plain
    }

    /// Its segments.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Plain bytes per segment; `None`: they vary.
    pub fn segment_size(&self) -> Option<u32> {
        Some(self.opener.header.segment).filter(|segment| *segment > 0)
    }

    /// Decrypts a whole segment by its number; `None` behind the last one.
    ///
    /// # Errors
    /// [`OpenError::Segment`] or [`OpenError::Io`].
    pub fn segment(&mut self, number: u64) -> Result<Option<&[u8]>, OpenError> {
        if number >= self.segments.number() {
            return Ok(None);
        }
        self.load(number)?;
        Ok(self.open.as_ref().map(|(_, _, bytes)| bytes.as_slice()))
    }

    fn find_end(&mut self) -> Result<End, OpenError> {
        let Some(place) = self.segments.number().checked_sub(1).and_then(|last| self.segments.place(last)) else {
            return Ok(End::Cut);
        };
        for (last, end) in [(true, End::Whole), (false, End::Cut)] {
            let sealed = self.fetch(place);
            match sealed.and_then(|mut sealed| self.opener.open_in_place(place.number, last, &mut sealed)) {
                Ok(()) => return Ok(end),
                Err(OpenError::Segment(_) | OpenError::Length(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(End::Broken(place.number))
    }

    fn load(&mut self, number: u64) -> Result<(), OpenError> {
        if self.open.as_ref().is_some_and(|(open, ..)| *open == number) {
            return Ok(());
        }
        let place = self.segments.place(number).ok_or(OpenError::Length(number))?;
        let mut bytes = self.fetch(place)?;
        let last = self.end == End::Whole && number + 1 == self.segments.number();
        self.open = None;
        self.opener.open_in_place(number, last, &mut bytes)?;
        self.open = Some((number, place.plain_offset, bytes));
        Ok(())
    }

    /// Ciphertext and tag of a segment.
    fn fetch(&mut self, place: Place) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.stored.seek(SeekFrom::Start(place.stored_offset))?;
        let mut prefix = [0; LENGTH_BYTES];
        self.stored.read_exact(&mut prefix)?;
        let sealed = place.plain_length + TAG_BYTES as u64;
        if u64::from(u32::from_be_bytes(prefix)) != sealed {
            return Err(OpenError::Length(place.number));
        }
        let length = usize::try_from(sealed).map_err(|_| OpenError::Length(place.number))?;
        let mut bytes = Zeroizing::new(vec![0; length]);
        self.stored.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: Read + Seek> Read for EncryptedReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let position = self.position;
        let Some(place) = self.segments.holding(position) else {
            // An empty last segment is read like the others.
            return if let End::Broken(number) = self.end { Err(OpenError::Segment(number).into()) } else { Ok(0) };
        };
        self.load(place.number)?;
        let Some((_, begin, bytes)) = &self.open else {
            return Ok(0);
        };
        let skip = usize::try_from(position - begin).unwrap_or(usize::MAX);
        let rest = bytes.get(skip..).unwrap_or_default();
        let taken = rest.len().min(into.len());
        for (to, from) in into.iter_mut().zip(rest) {
            *to = *from;
        }
        self.position += u64::try_from(taken).unwrap_or(0);
        Ok(taken)
    }
}

impl<R: Read + Seek> Seek for EncryptedReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.segments.plain.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the file's beginning");
        self.position = target.ok_or_else(before)?;
        Ok(self.position)
    }
}

/// The header, and the length of the stored bytes.
fn read_header<R: Read + Seek>(stored: &mut R) -> Result<(Header, u64), OpenError> {
    let length = stored.seek(SeekFrom::End(0))?;
    if length < HEADER {
        return Err(OpenError::NotEncrypted);
    }
    stored.seek(SeekFrom::Start(0))?;
    let mut bytes = [0; HEADER_BYTES];
    stored.read_exact(&mut bytes)?;
    Ok((Header::parse(&bytes)?, length))
}
