//! PDF (ISO 32000-1): every object of the file is read, wherever it stands and whether or not anything refers to it, and
//! nothing in it may act. The cross-reference table is not followed: readers repair broken ones each in its own way, so
//! whatever one of them could take for an object is looked at, also inside of streams, strings and comments.
//!
//! Own lexer, because the libraries read what the table names, and unpack without bounds while they load.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::bufread::ZlibDecoder;

use super::Unfit;

/// Bytes read by the lexer, counting those that are read again. Files of the largest size need a tenth of it.
const MOST_LEXED: usize = 128 * 1024 * 1024;

/// Bytes unpacked from all object streams. Files of the largest size rarely hold a quarter of it.
const MOST_UNPACKED: usize = 32 * 1024 * 1024;

/// Values within values. Page trees are references, so even large files stay below ten.
const DEEPEST: usize = 64;

/// Keys that give a dictionary something to do (ISO 32000-1 §12.6.3, §12.6.4.16, §12.7.8; 3D's script §13.6.4).
const ACTIVE_KEYS: &[&[u8]] = &[b"AA", b"JS", b"JavaScript", b"XFA", b"RichMediaContent", b"OnInstantiate"];

/// Names of actions and annotations that act (§12.6.4, §12.5.6), wherever they stand: their place can be hidden behind
/// a reference.
const ACTIVE_NAMES: &[&[u8]] = &[
    b"JavaScript",
    b"Launch",
    b"SubmitForm",
    b"ImportData",
    b"RichMedia",
    b"RichMediaExecute",
    b"Rendition",
    b"GoToE",
    b"Movie",
    b"Sound",
    b"3D",
];

/// Keys and names of files within the file (§7.11.4).
const FILE_KEYS: &[&[u8]] = &[b"EF", b"EmbeddedFiles", b"Collection"];
const FILE_NAMES: &[&[u8]] = &[b"EmbeddedFile", b"FileAttachment"];

/// What no reader could read, or each of them in its own way.
const MALFORMED: Unfit = Unfit::Malformed("the PDF's form is not right");

/// Checks a file that begins with `%PDF-`.
pub(super) fn check(bytes: &[u8]) -> Result<(), Unfit> {
    let version = bytes.get(5..8).unwrap_or_default();
    if !matches!(version, [b'1' | b'2', b'.', b'0'..=b'9']) {
        return Err(MALFORMED);
    }
    let end = find_last(bytes, b"%%EOF").ok_or(MALFORMED)?;
    if bytes.get(end + 5..).unwrap_or_default().iter().any(|b| !is_space(*b)) {
        return Err(Unfit::TrailingData);
    }
    if find_last(bytes, b"startxref").is_none() {
        return Err(MALFORMED);
    }
    let mut found = Findings::default();
    let mut budget = Budget { lexed: MOST_LEXED, unpacked: MOST_UNPACKED };
    for at in occurrences(bytes, b"trailer") {
        // The word alone, in a text say, is none.
        if let Ok(value @ Value::Dict(_)) = Lexer::new(bytes, at + 7, &mut budget).value(0) {
            found.take(None, &value);
        }
        budget.check()?;
    }
    for at in occurrences(bytes, b"obj") {
        let Some(number) = object_number(bytes.get(..at).unwrap_or_default()) else {
            continue;
        };
        object(bytes, at + 3, number.number(), &mut found, &mut budget)?;
    }
    found.verdict()
}

/// The object whose value begins at `at`. Its number is not known if a comment stands between.
fn object(
    bytes: &[u8],
    at: usize,
    number: Option<u32>,
    found: &mut Findings,
    budget: &mut Budget,
) -> Result<(), Unfit> {
    let mut lexer = Lexer::new(bytes, at, budget);
    let value = match lexer.value(0) {
        Ok(value) => value,
        // A word in a text. Were it an object, no reader could read it either.
        Err(unfit) if number.is_none() && unfit == MALFORMED => return lexer.budget.check(),
        Err(unfit) => return Err(unfit),
    };
    found.take(number, &value);
    if let Value::Dict(entries) = &value
        && is_object_stream(entries)
        && let Ok(Token::Word(word)) = lexer.token()
        && word.starts_with(b"stream")
    {
        let begin = lexer.at - word.len() + 6;
        let unpacked = unpack(bytes.get(begin..).unwrap_or_default(), entries, budget)?;
        compressed_objects(&unpacked, entries, found, budget)?;
    }
    Ok(())
}

/// Readers tell an object stream by the table or by its type; these two keys are what they need in it (§7.5.7).
fn is_object_stream(entries: &[(Vec<u8>, Value)]) -> bool {
    entries.iter().any(|(key, value)| key == b"First" || (key == b"Type" && value.is_name(b"ObjStm")))
}

fn unpack(data: &[u8], entries: &[(Vec<u8>, Value)], budget: &mut Budget) -> Result<Vec<u8>, Unfit> {
    // §7.3.8.1: a CR LF or LF after the word.
    let data = data.strip_prefix(b"\r\n").or_else(|| data.strip_prefix(b"\n")).or_else(|| data.strip_prefix(b"\r"));
    let data = data.ok_or(MALFORMED)?;
    let one = |name: &[u8]| {
        let mut values = entries.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(MALFORMED),
        }
    };
    let parameters = match one(b"DecodeParms")? {
        None | Some(Value::Null) => true,
        Some(Value::Dict(entries)) => {
            entries.iter().all(|(key, value)| key != b"Predictor" || matches!(value, Value::Int(1)))
        }
        Some(_) => false,
    };
    if !parameters || one(b"F")?.is_some() || one(b"DP")?.is_some() {
        return Err(MALFORMED);
    }
    let filter = match one(b"Filter")? {
        Some(Value::Array(filters)) if filters.is_empty() => None,
        Some(Value::Array(filters)) if filters.len() == 1 => filters.first(),
        other => other,
    };
    match filter {
        None | Some(Value::Null) => {
            let Some(Value::Int(length)) = one(b"Length")? else { return Err(MALFORMED) };
            let length = usize::try_from(*length).map_err(|_| MALFORMED)?;
            let plain = data.get(..length).ok_or(MALFORMED)?;
            let after = data.get(length..).unwrap_or_default().trim_ascii_start();
            if after.starts_with(b"endstream") { Ok(plain.to_vec()) } else { Err(MALFORMED) }
        }
        Some(filter) if filter.is_name(b"FlateDecode") || filter.is_name(b"Fl") => {
            let mut unpacked = Vec::new();
            let most = u64::try_from(budget.unpacked).unwrap_or(0).saturating_add(1);
            // A stream that breaks off is read as far as it goes by some readers: not here.
            ZlibDecoder::new(data).take(most).read_to_end(&mut unpacked).map_err(|_| MALFORMED)?;
            budget.unpacked = budget.unpacked.checked_sub(unpacked.len()).ok_or(Unfit::TooMuchInside)?;
            Ok(unpacked)
        }
        // Writers know no other filter for object streams; whoever uses one has something to hide.
        Some(_) => Err(MALFORMED),
    }
}

/// The objects of an object stream (§7.5.7): by the offsets at its beginning, and as they follow each other.
fn compressed_objects(
    data: &[u8],
    entries: &[(Vec<u8>, Value)],
    found: &mut Findings,
    budget: &mut Budget,
) -> Result<(), Unfit> {
    let number_of = |name: &[u8]| {
        let value = entries.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let Some(Value::Int(number)) = value else { return Err(MALFORMED) };
        usize::try_from(*number).map_err(|_| MALFORMED)
    };
    let (count, first) = (number_of(b"N")?, number_of(b"First")?);
    if count > data.len() || first > data.len() {
        return Err(MALFORMED);
    }
    let mut places = Vec::new();
    let mut head = Lexer::new(data, 0, budget);
    for _ in 0..count {
        let (Token::Int(number), Token::Int(offset)) = (head.token()?, head.token()?) else {
            return Err(MALFORMED);
        };
        let number = u32::try_from(number).map_err(|_| MALFORMED)?;
        let offset = usize::try_from(offset).map_err(|_| MALFORMED)?;
        places.push((number, first.saturating_add(offset)));
    }
    for (number, at) in places {
        let value = Lexer::new(data, at, budget).value(0)?;
        found.take(Some(number), &value);
    }
    let mut following = Lexer::new(data, first, budget);
    while let Ok(value) = following.value(0) {
        found.take(None, &value);
    }
    budget.check()
}

/// What stands before the word `obj`.
enum Before {
    /// An object's number and generation.
    Number(u32),
    /// Nothing that is one, e.g. a comment.
    Nothing,
}

impl Before {
    fn number(self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(number),
            Self::Nothing => None,
        }
    }
}

/// The number before the word `obj`; `None` if the word is another's end or stands in a text.
fn object_number(before: &[u8]) -> Option<Before> {
    let last = *before.last()?;
    if !last.is_ascii_digit() && !is_space(last) {
        return None;
    }
    let (before, generation) = trailing_number(before);
    let (before, number) = trailing_number(before);
    let separate = before.last().is_none_or(|b| !b.is_ascii_alphabetic());
    let number = number.filter(|_| generation.is_some() && separate);
    Some(number.map_or(Before::Nothing, Before::Number))
}

/// Digits at the end, white space behind them apart, and what stands before them.
fn trailing_number(text: &[u8]) -> (&[u8], Option<u32>) {
    let spaces = text.iter().rev().take_while(|b| is_space(**b)).count();
    let text = text.get(..text.len() - spaces).unwrap_or_default();
    // Larger numbers than these are none (Annex C).
    let digits = text.iter().rev().take(11).take_while(|b| b.is_ascii_digit()).count();
    let (before, digits) = text.split_at_checked(text.len() - digits).unwrap_or_default();
    (before, std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()))
}

/// What was met so far.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a finding of its own")]
struct Findings {
    encrypted: bool,
    active: bool,
    files: bool,
    catalog: bool,
    pages: bool,
    root: bool,
    /// An action at opening that is written out and does more than go to a page.
    opening_acts: bool,
    /// Objects that say what happens at opening.
    opening: Vec<u32>,
    /// For every object's number, whether all objects of that number only lead to a page.
    leads: BTreeMap<u32, bool>,
}

impl Findings {
    /// Takes note of an object, or of a trailer.
    fn take(&mut self, number: Option<u32>, value: &Value) {
        if let Some(number) = number {
            *self.leads.entry(number).or_insert(true) &= leads_to_page(value);
        }
        self.look(value);
    }

    fn look(&mut self, value: &Value) {
        match value {
            Value::Name(name) => self.name(name),
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            Value::Dict(entries) => {
                let typed = |name: &[u8]| entries.iter().any(|(key, value)| key == b"Type" && value.is_name(name));
                self.catalog |= typed(b"Catalog") && entries.iter().any(|(key, _)| key == b"Pages");
                self.pages |= typed(b"Page");
                for (key, value) in entries {
                    self.key(key, value);
                    self.look(value);
                }
            }
            Value::Ref(_) | Value::Int(_) | Value::Null | Value::Other => {}
        }
    }

    fn key(&mut self, key: &[u8], value: &Value) {
        let key = until_nul(key);
        self.active |= ACTIVE_KEYS.contains(&key);
        self.files |= FILE_KEYS.contains(&key);
        self.encrypted |= key == b"Encrypt" && !matches!(value, Value::Null);
        self.root |= key == b"Root" && matches!(value, Value::Ref(_));
        if key == b"OpenAction" {
            match value {
                Value::Ref(number) => self.opening.push(*number),
                value => self.opening_acts |= !leads_to_page(value),
            }
        }
    }

    fn name(&mut self, name: &[u8]) {
        let name = until_nul(name);
        self.active |= ACTIVE_NAMES.contains(&name);
        self.files |= FILE_NAMES.contains(&name);
        self.encrypted |= name == b"Crypt";
    }

    fn verdict(&self) -> Result<(), Unfit> {
        let opening = self.opening.iter().any(|number| self.leads.get(number) == Some(&false));
        if self.encrypted {
            Err(Unfit::Encrypted)
        } else if self.active || self.opening_acts || opening {
            Err(Unfit::ActiveContent("actions or scripts"))
        } else if self.files {
            Err(Unfit::ActiveContent("other files"))
        } else if self.catalog && self.pages && self.root {
            Ok(())
        } else {
            Err(MALFORMED)
        }
    }
}

/// Whether a value at opening only leads to a page: a destination, or the action `GoTo` with nothing after it
/// (§12.3.2, §12.6.4.2).
fn leads_to_page(value: &Value) -> bool {
    match value {
        Value::Array(_) | Value::Name(_) | Value::Other | Value::Null => true,
        Value::Dict(entries) => {
            let goes = entries.iter().filter(|(key, _)| key == b"S").all(|(_, value)| value.is_name(b"GoTo"));
            goes && entries.iter().any(|(key, _)| key == b"S") && entries.iter().all(|(key, _)| key != b"Next")
        }
        Value::Ref(_) | Value::Int(_) => false,
    }
}

/// Readers in C end a name there.
fn until_nul(name: &[u8]) -> &[u8] {
    name.split(|b| *b == 0).next().unwrap_or_default()
}

/// A value, as far as it matters here (§7.3).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Null,
    Int(i64),
    Name(Vec<u8>),
    Array(Vec<Self>),
    Dict(Vec<(Vec<u8>, Self)>),
    Ref(u32),
    /// A string, a real number, a truth value.
    Other,
}

impl Value {
    fn is_name(&self, name: &[u8]) -> bool {
        matches!(self, Self::Name(own) if own == name)
    }
}

/// A token (§7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Int(i64),
    Name(Vec<u8>),
    Text,
    ArrayBegin,
    ArrayEnd,
    DictBegin,
    DictEnd,
    /// Regular characters that are no whole number.
    Word(&'a [u8]),
    End,
}

/// What may still be spent on a file.
struct Budget {
    lexed: usize,
    unpacked: usize,
}

impl Budget {
    fn check(&self) -> Result<(), Unfit> {
        // Files in which the same bytes are many objects' are made for this.
        if self.lexed == 0 { Err(Unfit::TooMuchInside) } else { Ok(()) }
    }
}

struct Lexer<'a, 'b> {
    bytes: &'a [u8],
    at: usize,
    budget: &'b mut Budget,
}

impl<'a, 'b> Lexer<'a, 'b> {
    fn new(bytes: &'a [u8], at: usize, budget: &'b mut Budget) -> Self {
        Self { bytes, at, budget }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Unfit> {
        let token = self.token()?;
        self.value_of(token, depth)
    }

    fn value_of(&mut self, token: Token<'a>, depth: usize) -> Result<Value, Unfit> {
        if depth > DEEPEST {
            return Err(Unfit::TooDeep);
        }
        match token {
            Token::Int(number) => Ok(self.reference(number).unwrap_or(Value::Int(number))),
            Token::Name(name) => Ok(Value::Name(name)),
            Token::Word(b"null") => Ok(Value::Null),
            Token::Text | Token::Word(b"true" | b"false") => Ok(Value::Other),
            Token::Word(word) if is_real(word) => Ok(Value::Other),
            Token::ArrayBegin => {
                let mut values = Vec::new();
                loop {
                    match self.token()? {
                        Token::ArrayEnd => return Ok(Value::Array(values)),
                        token => values.push(self.value_of(token, depth + 1)?),
                    }
                }
            }
            Token::DictBegin => {
                let mut entries = Vec::new();
                loop {
                    match self.token()? {
                        Token::DictEnd => return Ok(Value::Dict(entries)),
                        Token::Name(key) => entries.push((key, self.value(depth + 1)?)),
                        _ => return Err(MALFORMED),
                    }
                }
            }
            Token::ArrayEnd | Token::DictEnd | Token::Word(_) | Token::End => Err(MALFORMED),
        }
    }

    /// `12 0 R`, its first number read already.
    fn reference(&mut self, number: i64) -> Option<Value> {
        let number = u32::try_from(number).ok()?;
        let back = self.at;
        if let Ok(Token::Int(_)) = self.token()
            && let Ok(Token::Word(b"R")) = self.token()
        {
            return Some(Value::Ref(number));
        }
        self.at = back;
        None
    }

    fn token(&mut self) -> Result<Token<'a>, Unfit> {
        let begin = self.at;
        let token = self.next_token();
        let spent = self.at.saturating_sub(begin) + 1;
        self.budget.lexed = self.budget.lexed.saturating_sub(spent);
        self.budget.check()?;
        token
    }

    fn next_token(&mut self) -> Result<Token<'a>, Unfit> {
        self.skip_space();
        let Some(first) = self.peek() else { return Ok(Token::End) };
        self.at += 1;
        match first {
            b'[' => Ok(Token::ArrayBegin),
            b']' => Ok(Token::ArrayEnd),
            b'(' => self.literal(),
            b'/' => Ok(Token::Name(self.name())),
            b'<' if self.peek() == Some(b'<') => {
                self.at += 1;
                Ok(Token::DictBegin)
            }
            b'<' => self.hexadecimal(),
            b'>' if self.peek() == Some(b'>') => {
                self.at += 1;
                Ok(Token::DictEnd)
            }
            b'>' | b')' | b'{' | b'}' => Err(MALFORMED),
            _ => {
                self.at -= 1;
                let word = self.regular();
                Ok(whole_number(word).map_or(Token::Word(word), Token::Int))
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'%' {
                while self.peek().is_some_and(|byte| byte != b'\n' && byte != b'\r') {
                    self.at += 1;
                }
            } else if is_space(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    fn regular(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().take_while(|b| !is_space(**b) && !is_delimiter(**b)).count();
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// §7.3.5: `#` and two hexadecimal digits are one byte of the name.
    fn name(&mut self) -> Vec<u8> {
        let mut rest = self.regular();
        let mut name = Vec::with_capacity(rest.len());
        while let Some((first, after)) = rest.split_first() {
            let escaped = if *first == b'#' { after.split_first_chunk::<2>() } else { None };
            let byte = escaped.and_then(|([high, low], after)| Some((hex_pair(*high, *low)?, after)));
            let (byte, after) = byte.unwrap_or((*first, after));
            name.push(byte);
            rest = after;
        }
        name
    }

    fn literal(&mut self) -> Result<Token<'a>, Unfit> {
        let mut open = 1_usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'(' => open += 1,
                b')' => open -= 1,
                _ => {}
            }
            if open == 0 {
                return Ok(Token::Text);
            }
        }
        Err(MALFORMED)
    }

    fn hexadecimal(&mut self) -> Result<Token<'a>, Unfit> {
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'>' => return Ok(Token::Text),
                byte if byte.is_ascii_hexdigit() || is_space(byte) => {}
                _ => return Err(MALFORMED),
            }
        }
        Err(MALFORMED)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\0' | b'\t' | b'\n' | b'\x0c' | b'\r' | b' ')
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%')
}

fn whole_number(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// A number with a point, or one that some writer thought was one.
fn is_real(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn occurrences<'a>(bytes: &'a [u8], word: &'static [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(word.len()).enumerate().filter(move |(_, window)| *window == word).map(|(at, _)| at)
}

fn find_last(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).rposition(|window| window == word)
}
