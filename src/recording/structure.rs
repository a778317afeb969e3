//! Whether bytes have the structure of our originals: a header, or one whole cluster.

const EBML: u32 = 0x1a45_dfa3;
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TRACKS: u32 = 0x1654_ae6b;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;

pub(super) fn check_header(bytes: &[u8]) -> Result<(), &'static str> {
    let (id, _, rest) = whole_element(bytes)?;
    if id != EBML {
        return Err("no EBML header at its start");
    }
    let (id, size, rest) = element_head(rest)?;
    if id != SEGMENT || size.is_some() {
        return Err("no segment of unknown size after the EBML header");
    }
    let (info, _, rest) = whole_element(rest)?;
    let (tracks, _, rest) = whole_element(rest)?;
    if (info, tracks) != (INFO, TRACKS) || !rest.is_empty() {
        return Err("the segment does not begin with Info and Tracks alone");
    }
    Ok(())
}

pub(super) fn check_cluster(bytes: &[u8]) -> Result<(), &'static str> {
    let (id, body, rest) = whole_element(bytes)?;
    if id != CLUSTER || !rest.is_empty() {
        return Err("not one whole cluster");
    }
    let (id, _, mut rest) = whole_element(body)?;
    if id != TIMESTAMP {
        return Err("the cluster does not begin with its time");
    }
    while !rest.is_empty() {
        let (id, block, after) = whole_element(rest)?;
        if id != SIMPLE_BLOCK || block.len() < 4 {
            return Err("something other than a block in the cluster");
        }
        rest = after;
    }
    Ok(())
}

/// The element at the head of `bytes`: its id, its body, and what follows it.
fn whole_element(bytes: &[u8]) -> Result<(u32, &[u8], &[u8]), &'static str> {
    let (id, size, rest) = element_head(bytes)?;
    let size = size.and_then(|size| usize::try_from(size).ok()).ok_or("an element of unknown size")?;
    let (body, after) = rest.split_at_checked(size).ok_or("an element longer than what holds it")?;
    Ok((id, body, after))
}

/// Id and size (RFC 8794 §4, §5); the size is `None` if it is unknown.
fn element_head(bytes: &[u8]) -> Result<(u32, Option<u64>, &[u8]), &'static str> {
    let short = "an element's head is cut short";
    let id_length = usize::try_from(bytes.first().ok_or(short)?.leading_zeros()).unwrap_or(8) + 1;
    if id_length > 4 {
        return Err("an element id that is none");
    }
    let (id, rest) = bytes.split_at_checked(id_length).ok_or(short)?;
    let id = id.iter().fold(0, |id, byte| (id << 8) | u32::from(*byte));
    let size_length = usize::try_from(rest.first().ok_or(short)?.leading_zeros()).unwrap_or(8) + 1;
    if size_length > 8 {
        return Err("an element size that is none");
    }
    let (size, rest) = rest.split_at_checked(size_length).ok_or(short)?;
    let mask = (1_u64 << (7 * size_length)) - 1;
    let size = size.iter().fold(0, |size, byte| (size << 8) | u64::from(*byte)) & mask;
    Ok((id, (size != mask).then_some(size), rest))
}
