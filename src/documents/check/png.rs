//! PNG (W3C PNG, third edition): every chunk, every row, and what is packed in texts and profiles.

use std::io::{Cursor, Read as _};

use flate2::read::ZlibDecoder;
use png::{DecodeOptions, Decoder, Limits, Transformations};

use super::{LONGEST_SIDE, MOST_PIXELS, Unfit};

/// What a PNG begins with.
pub(super) const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];

/// Chunks that a picture may have. Encoders write image data in pieces of 8 KB and more.
const MOST_CHUNKS: usize = 20_000;

/// Bytes that texts and profiles may have unpacked, all together. Colour profiles have up to 4 MB, texts a few thousand.
const MOST_UNPACKED: u64 = 8 << 20;

/// Memory that the decoder may take: a few rows of the widest picture.
const DECODER_BYTES: usize = 16 << 20;

pub(super) fn check(bytes: &[u8]) -> Result<(), Unfit> {
    check_chunks(bytes)?;
    let mut options = DecodeOptions::default();
    options.set_ignore_adler32(false);
    options.set_ignore_checksums(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits { bytes: DECODER_BYTES });
    decoder.set_transformations(Transformations::IDENTITY);
    let broken = |_| Unfit::Malformed("the picture does not decode");
    let mut reader = decoder.read_info().map_err(broken)?;
    while reader.next_row().map_err(broken)?.is_some() {}
    reader.finish().map_err(broken)
}

/// Walks the chunks before anything is decoded.
fn check_chunks(bytes: &[u8]) -> Result<(), Unfit> {
    let broken = Unfit::Malformed("its chunks are broken");
    let mut rest = bytes.get(SIGNATURE.len()..).ok_or(broken)?;
    let mut left = MOST_UNPACKED;
    for number in 0..MOST_CHUNKS {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(broken)?;
        let (kind, after) = after.split_first_chunk::<4>().ok_or(broken)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| broken)?;
        let (data, after) = after.split_at_checked(length).ok_or(broken)?;
        let (_checksum, after) = after.split_first_chunk::<4>().ok_or(broken)?;
        rest = after;
        match kind {
            b"IHDR" if number == 0 => check_size(data)?,
            _ if number == 0 => return Err(broken),
            b"IHDR" => return Err(broken),
            b"IEND" if rest.is_empty() => return Ok(()),
            b"IEND" => return Err(Unfit::TrailingData),
            b"acTL" | b"fcTL" | b"fdAT" => return Err(Unfit::Animated),
            // Name, NUL, method; then packed data.
            b"iCCP" | b"zTXt" => unpack(after_nul(data).and_then(|packed| packed.get(1..)), &mut left)?,
            b"iTXt" => check_international_text(data, &mut left)?,
            _ => {}
        }
    }
    Err(Unfit::TooMuchInside)
}

fn check_size(header: &[u8]) -> Result<(), Unfit> {
    let broken = Unfit::Malformed("its header is broken");
    let (width, rest) = header.split_first_chunk::<4>().ok_or(broken)?;
    let (height, _) = rest.split_first_chunk::<4>().ok_or(broken)?;
    let (width, height) = (u32::from_be_bytes(*width), u32::from_be_bytes(*height));
    if width == 0 || height == 0 {
        return Err(broken);
    }
    if width > LONGEST_SIDE || height > LONGEST_SIDE || u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(Unfit::TooManyPixels);
    }
    Ok(())
}

/// Keyword, NUL, whether packed, method, language, NUL, translated keyword, NUL; then the text.
fn check_international_text(data: &[u8], left: &mut u64) -> Result<(), Unfit> {
    let broken = Unfit::Malformed("a text in it is broken");
    let rest = after_nul(data).ok_or(broken)?;
    let (packed, rest) = rest.split_first_chunk::<2>().ok_or(broken)?;
    if packed[0] == 0 {
        return Ok(());
    }
    unpack(after_nul(rest).and_then(after_nul), left)
}

fn unpack(packed: Option<&[u8]>, left: &mut u64) -> Result<(), Unfit> {
    let broken = Unfit::Malformed("a text or profile in it is broken");
    let mut unpacked = ZlibDecoder::new(packed.ok_or(broken)?).take(*left + 1);
    let bytes = std::io::copy(&mut unpacked, &mut std::io::sink()).map_err(|_| broken)?;
    *left = left.checked_sub(bytes).ok_or(Unfit::TooMuchInside)?;
    Ok(())
}

fn after_nul(data: &[u8]) -> Option<&[u8]> {
    let nul = data.iter().position(|byte| *byte == 0)?;
    data.get(nul + 1..)
}
