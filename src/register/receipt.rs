//! The receipt that the sender of a registered document gets: one A4 page, PDF/A-2u, in Italian.

use std::fmt;
use std::sync::LazyLock;

use jiff::Timestamp;
use krilla::Document;
use krilla::SerializeSettings;
use krilla::configure::{Archival, ConfigurationBuilder};
use krilla::geom::{PathBuilder, Point};
use krilla::metadata::{DateTime, Metadata};
use krilla::page::PageSettings;
use krilla::paint::Stroke;
use krilla::surface::Surface;
use krilla::text::{Font, TextDirection};
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider as _};

use super::{Entry, rome};

/// `DejaVu` Sans 2.37: letters of every European language, with Cyrillic, Greek, Armenian and Georgian.
static REGULAR: &[u8] = include_bytes!("fonts/DejaVuSans.ttf");
static BOLD: &[u8] = include_bytes!("fonts/DejaVuSans-Bold.ttf");

/// Parsed once: a receipt embeds only the glyphs that it uses.
static FACES: LazyLock<Option<(Face, Face)>> = LazyLock::new(|| Some((Face::new(REGULAR)?, Face::new(BOLD)?)));

/// A4 in points.
const WIDTH: f32 = 595.28;
const HEIGHT: f32 = 841.89;
const MARGIN: f32 = 56.0;

/// Characters of a field that are printed. The register keeps all of them; more would not fit the page.
const LONGEST_FIELD: usize = 600;

/// Lines of a field that are printed.
const MOST_LINES: usize = 9;

/// What a receipt says.
#[derive(Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The entry in the register.
    pub entry: Entry,
    /// The office of the meeting.
    pub office: String,
    /// Its counter.
    pub counter: String,
    /// What the sender called the file.
    pub file_name: String,
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// Why there is no receipt. Ours: no input leads here.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The fonts in the program cannot be used.
    #[error("the receipt's fonts cannot be used")]
    Fonts,
    /// The page was not written.
    #[error("the receipt was not written: {0}")]
    Pdf(String),
}

/// Prints a receipt. The same receipt is the same bytes.
///
/// # Errors
/// Any [`ReceiptError`].
pub fn receipt(receipt: &Receipt) -> Result<Vec<u8>, ReceiptError> {
    let (regular, bold) = FACES.as_ref().ok_or(ReceiptError::Fonts)?;
    let failed = |what: &str| ReceiptError::Pdf(what.to_owned());
    let configuration = ConfigurationBuilder::new().with_archival_validator(Archival::A2_U).finish();
    let configuration = configuration.map_err(|_| failed("no such kind of PDF"))?;
    let mut document = Document::new_with(SerializeSettings { configuration, ..SerializeSettings::default() });
    let entry = &receipt.entry;
    document.set_metadata(
        Metadata::new()
            .title(format!("Ricevuta di protocollazione {}", entry.protocol()))
            .language("it".to_owned())
            .creator("Sportello".to_owned())
            .document_id(entry.document.to_string())
            .creation_date(date_time(entry.entered)),
    );
    let settings = PageSettings::from_wh(WIDTH, HEIGHT).ok_or_else(|| failed("no such page"))?;
    let mut page = document.start_page_with(settings);
    let mut surface = page.surface();
    let mut sheet = Sheet { surface: &mut surface, y: MARGIN };
    sheet.print(bold, 11.0, &receipt.office, 2);
    sheet.print(regular, 9.5, &receipt.counter, 2);
    sheet.space(26.0);
    sheet.print(bold, 18.0, "Ricevuta di protocollazione", 1);
    sheet.space(6.0);
    sheet.rule();
    sheet.space(12.0);
    for (label, value) in fields(receipt) {
        sheet.print(regular, 8.5, label, 1);
        sheet.print(bold, 11.0, &value, MOST_LINES);
        sheet.space(9.0);
    }
    sheet.rule();
    sheet.space(8.0);
    sheet.print(regular, 8.5, NOTE, 6);
    surface.finish();
    page.finish();
    document.finish().map_err(|error| ReceiptError::Pdf(kind_of(&error).to_owned()))
}

const NOTE: &str = "La data di protocollo è quella di presentazione del documento. L'impronta SHA-256 identifica il file \
                    presentato: chi ne possiede una copia può ricalcolarla e confrontarla con quella qui riportata. \
                    Registrazione ai sensi degli artt. 53 e 57 del D.P.R. 28 dicembre 2000, n. 445.";

fn fields(receipt: &Receipt) -> [(&'static str, String); 8] {
    let entry = &receipt.entry;
    [
        ("Numero di protocollo", format!("{:07}/{}", entry.number, entry.year)),
        ("Data di presentazione", moment(entry.handed_in)),
        ("Data di registrazione", moment(entry.entered)),
        ("Mittente", entry.sender.clone()),
        ("Oggetto", entry.subject.clone()),
        ("Nome del file", receipt.file_name.clone()),
        ("Impronta del file (SHA-256)", entry.sha256.clone()),
        ("Identificativo del documento", entry.document.to_string()),
    ]
}

/// A time as it is read in Italy: `25 novembre 2026, ore 10:30:00 (CET)`.
fn moment(at: Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "gennaio",
        "febbraio",
        "marzo",
        "aprile",
        "maggio",
        "giugno",
        "luglio",
        "agosto",
        "settembre",
        "ottobre",
        "novembre",
        "dicembre",
    ];
    let at = at.to_zoned(rome());
    let month = usize::try_from(at.month()).ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    format!("{} {} {}, ore {}", at.day(), month.unwrap_or(&""), at.year(), at.strftime("%H:%M:%S (%Z)"))
}

fn date_time(at: Timestamp) -> DateTime {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    let part = |value: i8| u8::try_from(value).unwrap_or(0);
    DateTime::new(u16::try_from(at.year()).unwrap_or(0))
        .month(part(at.month()))
        .day(part(at.day()))
        .hour(part(at.hour()))
        .minute(part(at.minute()))
        .second(part(at.second()))
        .utc_offset_hour(0)
        .utc_offset_minute(0)
}

/// A font for drawing and for measuring.
struct Face {
    font: Font,
    outlines: FontRef<'static>,
}

impl Face {
    fn new(bytes: &'static [u8]) -> Option<Self> {
        Some(Self { font: Font::new(bytes.to_vec().into(), 0)?, outlines: FontRef::new(bytes).ok()? })
    }

    fn width(&self, size: f32, text: &str) -> f32 {
        let metrics = self.outlines.glyph_metrics(Size::new(size), LocationRef::default());
        let charmap = self.outlines.charmap();
        text.chars().filter_map(|c| metrics.advance_width(charmap.map(c)?)).sum()
    }

    /// What can be printed of a text: PDF/A has no place for a character without a glyph.
    fn printable(&self, text: &str) -> String {
        let charmap = self.outlines.charmap();
        let shown = |c: char| match c {
            c if c.is_whitespace() => Some(' '),
            c if c.is_control() || is_unseen(c) => None,
            c => Some(if charmap.map(c).is_some_and(|glyph| glyph.to_u32() != 0) {
                c
            } else {
                char::REPLACEMENT_CHARACTER
            }),
        };
        text.chars().take(LONGEST_FIELD).filter_map(shown).collect()
    }

    /// The text in lines no wider than `width`; a word that is wider is broken.
    fn lines(&self, size: f32, text: &str, width: f32) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in self.printable(text).split_whitespace() {
            let Some(line) = lines.last_mut() else { break };
            let spaced = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if self.width(size, &spaced) <= width {
                *line = spaced;
                continue;
            }
            if !line.is_empty() {
                lines.push(String::new());
            }
            for letter in word.chars() {
                let Some(line) = lines.last_mut() else { break };
                line.push(letter);
                if self.width(size, line) > width {
                    line.pop();
                    lines.push(letter.to_string());
                }
            }
        }
        lines
    }
}

/// Marks of direction and joining: they would turn the text around them.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' | '\u{ad}')
}

/// The page, from top to bottom.
struct Sheet<'s, 'p> {
    surface: &'s mut Surface<'p>,
    y: f32,
}

impl Sheet<'_, '_> {
    fn print(&mut self, face: &Face, size: f32, text: &str, most: usize) {
        for line in face.lines(size, text, WIDTH - 2.0 * MARGIN).into_iter().take(most) {
            self.y += size * 1.35;
            if !line.is_empty() {
                let at = Point::from_xy(MARGIN, self.y);
                self.surface.draw_text(at, face.font.clone(), size, &line, false, TextDirection::Auto);
            }
        }
    }

    fn space(&mut self, height: f32) {
        self.y += height;
    }

    fn rule(&mut self) {
        let mut path = PathBuilder::new();
        path.move_to(MARGIN, self.y);
        path.line_to(WIDTH - MARGIN, self.y);
        if let Some(path) = path.finish() {
            self.surface.set_stroke(Some(Stroke::default()));
            self.surface.draw_path(&path);
            self.surface.set_stroke(None);
        }
    }
}

/// Errors of the library hold texts of the page: only their kind is told.
fn kind_of(error: &krilla::error::KrillaError) -> &'static str {
    use krilla::error::KrillaError as Error;
    match error {
        Error::Font(..) => "a font was not embedded",
        Error::Validation(..) => "it would not be PDF/A",
        Error::Limit(..) => "a limit of the form was passed",
        _ => "the library failed",
    }
}
