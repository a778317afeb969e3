//! JPEG (ITU-T T.81): its markers, and all of its pixels.

use std::io::Cursor;
use std::sync::{Mutex, PoisonError};

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{LONGEST_SIDE, MOST_PIXELS, Unfit};

/// Scans that a picture may have. Progressive ones have about ten; each goes over all pixels again.
const MOST_SCANS: usize = 64;

/// A progressive picture of 50 megapixels takes some 300 MB while it is decoded: one picture at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const BROKEN: Unfit = Unfit::Malformed("its markers are broken");

pub(super) fn check(bytes: &[u8]) -> Result<(), Unfit> {
    check_markers(bytes)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::try_from(LONGEST_SIDE).unwrap_or(0))
        .set_max_height(usize::try_from(LONGEST_SIDE).unwrap_or(0))
        .jpeg_set_max_scans(MOST_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::Luma);
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let decoded = JpegDecoder::new_with_options(Cursor::new(bytes), options).decode();
    decoded.map(drop).map_err(|_| Unfit::Malformed("the picture does not decode"))
}

/// Walks the markers from the picture's start to its end, before anything is decoded.
fn check_markers(bytes: &[u8]) -> Result<(), Unfit> {
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8]).ok_or(BROKEN)?;
    let (mut frames, mut scans) = (0, 0);
    loop {
        // A marker may have any number of fill bytes before it (T.81 B.1.1.2).
        let (fill, after) = rest.split_first().ok_or(BROKEN)?;
        if *fill != 0xff {
            return Err(BROKEN);
        }
        let (marker, after) = after.split_first().ok_or(BROKEN)?;
        match *marker {
            0xff => {
                rest = rest.get(1..).ok_or(BROKEN)?;
                continue;
            }
            // End of image.
            0xd9 if !after.is_empty() => return Err(Unfit::TrailingData),
            0xd9 if frames == 1 && scans > 0 => return Ok(()),
            // Nothing has a length here: restarts and a second start; or there is no such marker.
            0xd9 | 0x00..=0x01 | 0xd0..=0xd8 => return Err(BROKEN),
            _ => {}
        }
        let (length, _) = after.split_first_chunk::<2>().ok_or(BROKEN)?;
        let (segment, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(BROKEN)?;
        let data = segment.get(2..).ok_or(BROKEN)?;
        rest = after;
        match *marker {
            // Frames (T.81 table B.1): all of C0–CF but tables (C4, CC) and an extension (C8).
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                frames += 1;
                if frames > 1 {
                    return Err(BROKEN);
                }
                check_size(data)?;
            }
            // A scan: coded data up to the next marker that is neither stuffing nor a restart.
            0xda => {
                scans += 1;
                if scans > MOST_SCANS {
                    return Err(Unfit::TooMuchInside);
                }
                rest = after_coded(rest).ok_or(BROKEN)?;
            }
            // Hierarchical pictures and a height that is told later: no camera writes them.
            0xdc | 0xde | 0xdf => return Err(BROKEN),
            _ => {}
        }
    }
}

fn check_size(frame: &[u8]) -> Result<(), Unfit> {
    let size = frame.get(1..).and_then(|rest| rest.first_chunk::<4>()).ok_or(BROKEN)?;
    let [h1, h0, w1, w0] = *size;
    let (height, width) = (u32::from(u16::from_be_bytes([h1, h0])), u32::from(u16::from_be_bytes([w1, w0])));
    if width == 0 || height == 0 {
        return Err(BROKEN);
    }
    if width > LONGEST_SIDE || height > LONGEST_SIDE || u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(Unfit::TooManyPixels);
    }
    Ok(())
}

fn after_coded(coded: &[u8]) -> Option<&[u8]> {
    let is_marker = |pair: &[u8]| matches!(pair, [0xff, second] if !matches!(second, 0x00 | 0xd0..=0xd7 | 0xff));
    let at = coded.windows(2).position(is_marker)?;
    coded.get(at..)
}
