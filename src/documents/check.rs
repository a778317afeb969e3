//! Whether a document may come in, by its content.

mod jpeg;
mod p7m;
mod pdf;
mod png;

use super::{DisplayName, MAX_BYTES};
use crate::media::DocumentKind;

/// Pixels that a picture may have. A picture of 3 MB can hold more of them than a viewer can hold in memory.
const MOST_PIXELS: u64 = 50_000_000;

/// Pixels that a picture may be wide or high.
const LONGEST_SIDE: u32 = 20_000;

/// How deep signed files may lie in each other: signed, signed again, and once more.
const MOST_LAYERS: usize = 3;

/// Why a document does not come in. Its text is for people who speak English; pages have their own words for each
/// [`Unfit::slug`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is nothing in it.
    #[error("the document is empty")]
    Empty,
    /// It is larger than [`MAX_BYTES`].
    #[error("the document is larger than 3 MB")]
    TooLarge,
    /// It is none of the four kinds.
    #[error("the document is neither PDF, P7M, JPEG nor PNG")]
    UnknownType,
    /// Its name ends like another kind's.
    #[error("the document's name ends like another type than its content")]
    NameAndContentDiffer,
    /// It does not begin at its first byte, or does not end at its last.
    #[error("there is something before or behind the document")]
    TrailingData,
    /// It is two things at once.
    #[error("the document can be read as two types at once")]
    Polyglot,
    /// It acts by itself, or carries other files.
    #[error("the document holds actions, scripts or other files: {0}")]
    ActiveContent(&'static str),
    /// It is encrypted: nobody can tell what is in it.
    #[error("the document is encrypted")]
    Encrypted,
    /// It has more pixels than are taken.
    #[error("the picture has too many pixels")]
    TooManyPixels,
    /// It is an animation: it does not show one thing.
    #[error("the picture is animated")]
    Animated,
    /// Unpacked it is larger, or it has more parts, than is taken.
    #[error("the document has too much in it once it is unpacked")]
    TooMuchInside,
    /// It is nested deeper than is taken.
    #[error("the document is nested too deeply")]
    TooDeep,
    /// A signed file without what was signed.
    #[error("the signed file does not hold what was signed")]
    Detached,
    /// A signed file in a text form (PEM, Base64).
    #[error("the signed file is in a text form: it must be binary")]
    NotBinary,
    /// What was signed is none of the four kinds.
    #[error("what was signed is neither PDF, JPEG nor PNG")]
    UnknownTypeInside,
    /// Its form is broken.
    #[error("the document is broken: {0}")]
    Malformed(&'static str),
}

impl Unfit {
    /// Whether it is none of the kinds that are taken (415), or one of them that is not fit (422).
    pub const fn is_other_type(self) -> bool {
        matches!(self, Self::UnknownType)
    }

    /// One stable word for the reason.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge => "too-large",
            Self::UnknownType => "unknown-type",
            Self::NameAndContentDiffer => "name-and-content-differ",
            Self::TrailingData => "trailing-data",
            Self::Polyglot => "polyglot",
            Self::ActiveContent(_) => "active-content",
            Self::Encrypted => "encrypted",
            Self::TooManyPixels => "too-many-pixels",
            Self::Animated => "animated",
            Self::TooMuchInside => "too-much-inside",
            Self::TooDeep => "too-deep",
            Self::Detached => "detached",
            Self::NotBinary => "not-binary",
            Self::UnknownTypeInside => "unknown-type-inside",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// Says what a document is, or why it does not come in. Blocking: at worst about a second, and some hundred megabytes
/// for one picture at a time.
///
/// # Errors
/// The first reason found.
pub fn check(name: &DisplayName, bytes: &[u8]) -> Result<DocumentKind, Unfit> {
    if bytes.len() > MAX_BYTES {
        return Err(Unfit::TooLarge);
    }
    let kind = check_content(bytes, 0)?;
    if is_named_like_another(name, kind) { Err(Unfit::NameAndContentDiffer) } else { Ok(kind) }
}

fn check_content(bytes: &[u8], layer: usize) -> Result<DocumentKind, Unfit> {
    if bytes.is_empty() {
        return Err(Unfit::Empty);
    }
    let kind = recognise(bytes)?;
    if kind != DocumentKind::P7m && ends_as_zip(bytes) {
        return Err(Unfit::Polyglot);
    }
    match kind {
        DocumentKind::Pdf => pdf::check(bytes)?,
        DocumentKind::P7m => p7m::check(bytes, layer)?,
        DocumentKind::Jpeg => jpeg::check(bytes)?,
        DocumentKind::Png => png::check(bytes)?,
    }
    if matches!(kind, DocumentKind::Jpeg | DocumentKind::Png) && finds_pdf(bytes) {
        return Err(Unfit::Polyglot);
    }
    Ok(kind)
}

fn recognise(bytes: &[u8]) -> Result<DocumentKind, Unfit> {
    if bytes.starts_with(b"%PDF-") {
        Ok(DocumentKind::Pdf)
    } else if bytes.starts_with(&png::SIGNATURE) {
        Ok(DocumentKind::Png)
    } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        Ok(DocumentKind::Jpeg)
    } else if p7m::is_one(bytes) {
        Ok(DocumentKind::P7m)
    } else if p7m::is_text_form(bytes) {
        Err(Unfit::NotBinary)
    } else if finds_pdf(bytes) {
        // Readers take such a file for a PDF (ISO 32000-1, implementation note 13), and others for what it begins with.
        Err(Unfit::TrailingData)
    } else {
        Err(Unfit::UnknownType)
    }
}

/// Whether a PDF reader would find its header: it looks in the first 1024 bytes.
fn finds_pdf(bytes: &[u8]) -> bool {
    bytes.get(..1024).unwrap_or(bytes).windows(5).any(|window| window == b"%PDF-")
}

/// Whether a ZIP reader would open it: its last record, with a comment to the end of the file (APPNOTE 4.3.16).
fn ends_as_zip(bytes: &[u8]) -> bool {
    const RECORD: usize = 22;
    let begin = bytes.len().saturating_sub(RECORD + usize::from(u16::MAX));
    let tail = bytes.get(begin..).unwrap_or_default();
    tail.windows(RECORD).enumerate().any(|(at, record)| {
        let comment = record.last_chunk::<2>().map_or(0, |length| usize::from(u16::from_le_bytes(*length)));
        record.starts_with(b"PK\x05\x06") && at + RECORD + comment == tail.len()
    })
}

/// Whether its ending is that of another kind, or of something that people open as a program. A name without an ending,
/// or with one that says nothing, contradicts nothing.
fn is_named_like_another(name: &DisplayName, kind: DocumentKind) -> bool {
    let Some(ending) = name.ending() else { return false };
    let own: &[&str] = match kind {
        DocumentKind::Pdf => &["pdf"],
        DocumentKind::P7m => &["p7m"],
        DocumentKind::Jpeg => &["jpg", "jpeg", "jpe", "jfif"],
        DocumentKind::Png => &["png"],
    };
    if own.contains(&ending.as_str()) {
        return false;
    }
    // «Delega di A. Rossi» ends with no type; «foto.pdf» and «delega.exe» do.
    OTHERS.contains(&ending.as_str())
}

/// Endings that say what a file is.
const OTHERS: &[&str] = &[
    "pdf",
    "p7m",
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "png",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "webp",
    "heic",
    "svg",
    "zip",
    "rar",
    "7z",
    "gz",
    "tar",
    "iso",
    "img",
    "jar",
    "doc",
    "docx",
    "docm",
    "dot",
    "dotm",
    "xls",
    "xlsx",
    "xlsm",
    "ppt",
    "pptx",
    "pptm",
    "rtf",
    "odt",
    "ods",
    "odp",
    "txt",
    "csv",
    "xml",
    "htm",
    "html",
    "xht",
    "xhtml",
    "mht",
    "shtml",
    "eml",
    "msg",
    "p7s",
    "p7c",
    "p7b",
    "p12",
    "pfx",
    "pem",
    "cer",
    "crt",
    "tsd",
    "tsr",
    "m7m",
    "exe",
    "dll",
    "com",
    "bat",
    "cmd",
    "msi",
    "scr",
    "pif",
    "cpl",
    "js",
    "jse",
    "vbs",
    "vbe",
    "wsf",
    "wsh",
    "hta",
    "ps1",
    "psm1",
    "lnk",
    "url",
    "reg",
    "sh",
    "py",
    "pl",
    "php",
    "phtml",
    "asp",
    "aspx",
    "jsp",
    "app",
    "apk",
    "dmg",
    "deb",
    "rpm",
    "command",
    "desktop",
    "mp3",
    "mp4",
    "avi",
    "mov",
    "webm",
    "mkv",
    "wav",
    "ogg",
    "swf",
    "ps",
    "eps",
    "ai",
    "psd",
    "dwg",
    "json",
    "svgz",
    "chm",
    "application",
    "gadget",
];
