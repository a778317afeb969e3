//! P7M: a document within its signature, CMS `SignedData` (RFC 5652 §5). Programs for qualified signatures write it in
//! BER as often as in DER, with lengths that are not known beforehand and content in pieces (X.690 §8.1.3.6, §8.7.3): so
//! it is brought to DER first. Whether the signature holds is not judged: no law asks that of a counter's server, and
//! whoever registers the document needs its bytes as they are.

use cms::signed_data::SignerInfo;
use der::Decode as _;

use super::{MOST_LAYERS, Unfit, check_content};

/// `id-signedData`, 1.2.840.113549.1.7.2 (RFC 5652 §5.1), as DER writes it.
const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// Elements within elements. Certificates within signatures with timestamps stay below twenty, two pieces of content
/// within each other included.
const DEEPEST: usize = 40;

/// Elements in all. Content comes in pieces of a kilobyte or so, and revocation lists have some ten thousand.
const MOST_ELEMENTS: usize = 400_000;

/// Members of one set. Sorting them takes time by the square of their number.
const MOST_MEMBERS: usize = 500;

/// People who sign side by side.
const MOST_SIGNERS: usize = 100;

const OCTET_STRING: u8 = 0x04;
const PIECES: u8 = 0x24;
const OBJECT_IDENTIFIER: u8 = 0x06;
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;

const MALFORMED: Unfit = Unfit::Malformed("the signature's form is not right");

/// Whether bytes begin as a signed file does.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    let head = bytes.get(..24).unwrap_or(bytes);
    head.first() == Some(&SEQUENCE)
        && (2..=6).any(|at| head.get(at..).is_some_and(|rest| rest.starts_with(SIGNED_DATA)))
}

/// Whether bytes begin as a signed file does that was turned into text (RFC 7468 §2, RFC 4648 §4).
pub(super) fn is_text_form(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    let labels: [&[u8]; 3] = [b"-----BEGIN PKCS7", b"-----BEGIN CMS", b"-----BEGIN PKCS #7"];
    // The identifier's first bytes behind a head of two, four or three bytes: each falls otherwise into Base64's threes.
    let identifier: [&[u8]; 3] = [b"CSqGSIb3", b"KoZIhvcN", b"hkiG9w0B"];
    let head = text.get(..64).unwrap_or_default();
    labels.iter().any(|label| text.starts_with(label))
        || head.starts_with(b"MI") && head.windows(8).any(|eight| identifier.contains(&eight))
}

/// Checks a signed file, and the document in it; `layer` signatures are around it already.
pub(super) fn check(bytes: &[u8], layer: usize) -> Result<(), Unfit> {
    if layer >= MOST_LAYERS {
        return Err(Unfit::TooDeep);
    }
    let content = signed_content(bytes)?;
    match check_content(&content, layer + 1) {
        Ok(_) => Ok(()),
        Err(Unfit::UnknownType | Unfit::Empty | Unfit::NotBinary) => Err(Unfit::UnknownTypeInside),
        Err(unfit) => Err(unfit),
    }
}

/// The document that was signed.
fn signed_content(bytes: &[u8]) -> Result<Vec<u8>, Unfit> {
    let mut reader = Reader { bytes, at: 0, elements: 0 };
    let mut der = Vec::new();
    reader.element(0, &mut der)?;
    if reader.at != bytes.len() {
        return Err(Unfit::TrailingData);
    }
    // ContentInfo (RFC 5652 §3).
    let [content_type, content] = exactly(within(&der, SEQUENCE)?)?;
    if content_type.whole != SIGNED_DATA || content.tag != CONTEXT_0 {
        return Err(MALFORMED);
    }
    let [signed_data] = exactly(content.inner)?;
    // SignedData (§5.1).
    let mut parts = elements(within(signed_data.whole, SEQUENCE)?)?.into_iter().peekable();
    let mut part = |tag| parts.next().filter(|part| part.tag == tag).ok_or(MALFORMED);
    part(INTEGER)?;
    part(SET)?;
    let encapsulated = part(SEQUENCE)?;
    for tag in [CONTEXT_0, CONTEXT_1] {
        parts.next_if(|part| part.tag == tag);
    }
    let signers = parts.next().filter(|part| part.tag == SET).ok_or(MALFORMED)?;
    if parts.next().is_some() {
        return Err(MALFORMED);
    }
    let signers = elements(signers.inner)?;
    if signers.is_empty() || signers.len() > MOST_SIGNERS {
        return Err(MALFORMED);
    }
    for signer in signers {
        SignerInfo::from_der(signer.whole).map_err(|_| MALFORMED)?;
    }
    // EncapsulatedContentInfo (§5.2).
    let mut parts = elements(encapsulated.inner)?.into_iter();
    parts.next().filter(|part| part.tag == OBJECT_IDENTIFIER).ok_or(MALFORMED)?;
    let content = parts.next().ok_or(Unfit::Detached)?;
    if content.tag != CONTEXT_0 || parts.next().is_some() {
        return Err(MALFORMED);
    }
    let [content] = exactly(content.inner)?;
    if content.tag != OCTET_STRING {
        return Err(MALFORMED);
    }
    Ok(content.inner.to_vec())
}

/// Reads BER and writes the same as DER, as far as lengths and octet strings in pieces go (X.690 §10.1, §10.2).
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    elements: usize,
}

impl Reader<'_> {
    /// Appends the next element to `out`.
    fn element(&mut self, depth: usize, out: &mut Vec<u8>) -> Result<(), Unfit> {
        if depth > DEEPEST {
            return Err(Unfit::TooDeep);
        }
        self.elements += 1;
        if self.elements > MOST_ELEMENTS {
            return Err(MALFORMED);
        }
        let tag = self.byte()?;
        // Tags of more than one byte are in no signature.
        if tag & 0x1f == 0x1f || tag == 0 {
            return Err(MALFORMED);
        }
        let constructed = tag & 0x20 != 0;
        let length = self.length()?;
        if !constructed {
            let content = length.and_then(|length| self.bytes.get(self.at..self.at.checked_add(length)?));
            let content = content.ok_or(MALFORMED)?;
            self.at += content.len();
            put(tag, content, out);
            return Ok(());
        }
        let end = match length {
            Some(length) => Some(self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(MALFORMED)?),
            None => None,
        };
        let mut content = Vec::new();
        let mut members = 0_usize;
        while !self.ends(end)? {
            let from = content.len();
            self.element(depth + 1, &mut content)?;
            if tag == PIECES {
                // Each piece is an octet string by now; only what is in it counts.
                let piece = within(content.get(from..).unwrap_or_default(), OCTET_STRING)?.to_vec();
                content.truncate(from);
                content.extend(piece);
            }
            members += 1;
            if members > MOST_MEMBERS && tag != SEQUENCE && tag != PIECES {
                return Err(MALFORMED);
            }
        }
        put(if tag == PIECES { OCTET_STRING } else { tag }, &content, out);
        Ok(())
    }

    /// Whether the element that is open ends here; of one without a length, the two zeros are read (§8.1.5).
    fn ends(&mut self, end: Option<usize>) -> Result<bool, Unfit> {
        match end {
            Some(end) if self.at > end => Err(MALFORMED),
            Some(end) => Ok(self.at == end),
            None => {
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                let ends = rest.starts_with(&[0, 0]);
                self.at += if ends { 2 } else { 0 };
                Ok(ends)
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Unfit> {
        let byte = self.bytes.get(self.at).ok_or(MALFORMED)?;
        self.at += 1;
        Ok(*byte)
    }

    /// A length (§8.1.3); `None`: up to two zeros.
    fn length(&mut self) -> Result<Option<usize>, Unfit> {
        let first = self.byte()?;
        if first == 0x80 {
            return Ok(None);
        }
        if first < 0x80 {
            return Ok(Some(usize::from(first)));
        }
        let digits = first & 0x7f;
        // No file here needs more; §8.1.3.5 allows zeros in front.
        if digits > 8 {
            return Err(MALFORMED);
        }
        let mut length = 0_usize;
        for _ in 0..digits {
            length = length.checked_mul(256).ok_or(MALFORMED)? | usize::from(self.byte()?);
        }
        Ok(Some(length))
    }
}

/// Appends an element with the shortest length (X.690 §10.1).
fn put(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let length = content.len();
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out.push(short);
    } else {
        let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        out.push(0x80 | u8::try_from(digits.len()).unwrap_or(0x7f));
        out.extend(digits);
    }
    out.extend_from_slice(content);
}

/// One element of DER.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    inner: &'a [u8],
}

/// The elements that follow each other in bytes that [`put`] wrote.
fn elements(der: &[u8]) -> Result<Vec<Element<'_>>, Unfit> {
    let mut reader = Reader { bytes: der, at: 0, elements: 0 };
    let mut found = Vec::new();
    while reader.at < der.len() {
        let begin = reader.at;
        let tag = reader.byte()?;
        let length = reader.length()?.ok_or(MALFORMED)?;
        let end = reader.at.checked_add(length).ok_or(MALFORMED)?;
        let inner = der.get(reader.at..end).ok_or(MALFORMED)?;
        found.push(Element { tag, whole: der.get(begin..end).unwrap_or_default(), inner });
        reader.at = end;
    }
    Ok(found)
}

fn exactly<const N: usize>(der: &[u8]) -> Result<[Element<'_>; N], Unfit> {
    elements(der)?.try_into().map_err(|_| MALFORMED)
}

/// What is in the only element.
fn within(der: &[u8], tag: u8) -> Result<&[u8], Unfit> {
    let [element] = exactly(der)?;
    if element.tag == tag { Ok(element.inner) } else { Err(MALFORMED) }
}
