//! What people call a document.

use std::fmt;

/// Characters that a name may have. Longer ones break pages and receipts.
const LONGEST: usize = 120;

/// Characters of an ending that is kept when a name is cut, with its dot. What is longer is no ending.
const LONGEST_ENDING: usize = 12;

/// What a document without a usable name is called.
const NAMELESS: &str = "documento";

/// A document's name for people to read, and for nothing else: no file is ever opened by it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DisplayName(String);

impl DisplayName {
    /// Makes any text fit to be shown: its last path part, without control characters and marks that turn or hide text,
    /// trimmed, at most 120 characters with the ending kept. What is left of nothing is «documento».
    pub fn new(raw: &str) -> Self {
        let last = raw.rsplit(['/', '\\']).next().unwrap_or_default();
        // A space is a space, and no more than one stands between words: nothing can be pushed out of sight.
        let shown: String = last
            .chars()
            .map(|c| if c.is_whitespace() { ' ' } else { c })
            .filter(|c| !c.is_control() && !is_unseen(*c))
            .collect();
        let words = shown.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let name = cut(&words);
        if name.chars().all(|c| c == '.' || c == ' ') { Self(NAMELESS.to_owned()) } else { Self(name) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its ending in small letters, if it has one: what stands after the last dot.
    pub(super) fn ending(&self) -> Option<String> {
        let (stem, ending) = self.0.rsplit_once('.')?;
        let is_ending = !stem.is_empty() && !ending.is_empty() && ending.chars().all(|c| c.is_ascii_alphanumeric());
        is_ending.then(|| ending.to_ascii_lowercase())
    }
}

impl fmt::Debug for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // People put their names, and other people's, into the names of files.
        f.write_str("DisplayName(…)")
    }
}

fn cut(name: &str) -> String {
    let length = name.chars().count();
    if length <= LONGEST {
        return name.to_owned();
    }
    let ending = name.rfind('.').and_then(|dot| name.get(dot..)).unwrap_or_default();
    let kept = ending.chars().count();
    let ending = if kept <= LONGEST_ENDING { ending } else { "" };
    let stem: String = name.chars().take(LONGEST - ending.chars().count()).collect();
    format!("{}{ending}", stem.trim_end())
}

/// Marks that turn the direction of text (Unicode Bidirectional Algorithm, UAX #9 §2), that join or hide, or that no
/// reader sees: with them «fdp.exe» reads as «exe.pdf». Surrogates cannot be in a `str`.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
            | '\u{fffe}'
            | '\u{ffff}'
    )
}
