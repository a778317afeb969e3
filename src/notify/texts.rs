//! The texts of text messages, in the alphabet that fits 160 characters into one.

use jiff::tz::TimeZone;

use super::Language;
use super::sms::CodeText;
use crate::store::Secret;

/// Characters of one message in the GSM 7-bit alphabet (3GPP TS 23.038 §4). A second one doubles the price, and some
/// telephones show them apart.
const LONGEST: usize = 160;

/// The GSM 7-bit default alphabet (3GPP TS 23.038 §6.2.1), line ends aside. The characters of its extension table are
/// left out: each counts twice.
const ALPHABET: &str = "@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§\
                        ¿abcdefghijklmnopqrstuvwxyzäöñüà";

/// What stands in the place of the end of an office's name that is too long.
const CUT: &str = "...";

/// See [`super::sms::text`].
pub(super) fn code(language: Language, code: &CodeText<'_>) -> Secret {
    let bare = sentence(language, code, "");
    // Two brackets and a space come with the name.
    let place = LONGEST.saturating_sub(bare.chars().count() + 3);
    let office = shortened(&in_alphabet(code.office), place);
    let office = if office.is_empty() { office } else { format!(" ({office})") };
    Secret::new(sentence(language, code, &office))
}

fn sentence(language: Language, CodeText { code, start, .. }: &CodeText<'_>, office: &str) -> String {
    let code = code.expose();
    let local = start.to_zoned(italian_time());
    match language {
        Language::It => {
            let when = local.strftime("%d/%m/%Y ore %H:%M");
            format!("Il Suo codice per l'appuntamento online del {when}{office}: {code}. Non lo comunichi a nessuno.")
        }
        Language::De => {
            let when = local.strftime("%d.%m.%Y um %H:%M Uhr");
            format!("Ihr Code für den Online-Termin am {when}{office}: {code}. Bitte teilen Sie ihn niemandem mit.")
        }
        Language::En => {
            let when = local.strftime("%-d %B %Y at %H:%M");
            format!("Your code for the online appointment on {when}{office}: {code}. Please do not tell anybody.")
        }
    }
}

/// The time that Italian clocks show. Without a time zone database: the rule that the European Union follows since
/// 1996.
fn italian_time() -> TimeZone {
    let known = TimeZone::get("Europe/Rome").or_else(|_| TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3"));
    known.unwrap_or(TimeZone::UTC)
}

fn shortened(name: &str, place: usize) -> String {
    if name.chars().count() <= place {
        return name.to_owned();
    }
    let kept: String = name.chars().take(place.saturating_sub(CUT.len())).collect();
    let kept = kept.trim_end();
    if kept.is_empty() { String::new() } else { format!("{kept}{CUT}") }
}

/// A name in the alphabet: one character outside of it would make the whole message one of 70. Accents that it does
/// not have are dropped, typographic marks become plain ones, what has no likeness is left out.
fn in_alphabet(name: &str) -> String {
    let mut written = String::with_capacity(name.len());
    for character in name.chars() {
        if ALPHABET.contains(character) {
            written.push(character);
        } else {
            written.push_str(alike(character));
        }
    }
    written.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn alike(character: char) -> &'static str {
    match character {
        'á' | 'â' | 'ã' | 'ā' | 'ă' | 'ą' | 'ª' => "a",
        'À' | 'Á' | 'Â' | 'Ã' | 'Ā' | 'Ă' | 'Ą' => "A",
        'ç' | 'ć' | 'č' => "c",
        'Ć' | 'Č' => "C",
        'ď' | 'đ' => "d",
        'Ď' | 'Đ' => "D",
        'ê' | 'ë' | 'ē' | 'ę' | 'ě' => "e",
        'È' | 'Ê' | 'Ë' | 'Ē' | 'Ę' | 'Ě' => "E",
        'í' | 'î' | 'ï' | 'ī' => "i",
        'Ì' | 'Í' | 'Î' | 'Ï' | 'Ī' => "I",
        'ł' => "l",
        'Ł' => "L",
        'ń' | 'ň' => "n",
        'Ń' | 'Ň' => "N",
        'ó' | 'ô' | 'õ' | 'ō' | 'ő' | 'º' | '°' | '˚' => "o",
        'Ò' | 'Ó' | 'Ô' | 'Õ' | 'Ō' | 'Ő' => "O",
        'ř' => "r",
        'Ř' => "R",
        'ś' | 'š' | 'ş' => "s",
        'Ś' | 'Š' | 'Ş' => "S",
        'ú' | 'û' | 'ū' | 'ů' | 'ű' => "u",
        'Ù' | 'Ú' | 'Û' | 'Ū' | 'Ů' | 'Ű' => "U",
        'ý' | 'ÿ' => "y",
        'Ý' => "Y",
        'ź' | 'ż' | 'ž' => "z",
        'Ź' | 'Ż' | 'Ž' => "Z",
        'œ' => "oe",
        'Œ' => "OE",
        '€' => "EUR",
        '’' | '‘' | '`' | '´' | '′' => "'",
        '“' | '”' | '„' | '«' | '»' => "\"",
        '–' | '—' | '‐' | '‑' | '~' | '•' | '·' => "-",
        '…' => "...",
        '[' | '{' => "(",
        ']' | '}' => ")",
        '|' | '\\' => "/",
        character if character.is_whitespace() => " ",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const WINTER: &str = "2026-01-13T09:00:00Z";

    fn written(language: Language, code_text: &str, office: &str, start: &str) -> String {
        let secret = Secret::new(code_text.into());
        let text = CodeText { code: &secret, office, start: start.parse::<Timestamp>().unwrap() };
        code(language, &text).expose().to_owned()
    }

    #[test]
    fn each_language_says_what_it_is_for_when_where_and_to_keep_it() {
        let texts = Language::ALL.map(|language| written(language, "402913", "Roma Eur", WINTER));
        assert_eq!(
            texts,
            [
                "Il Suo codice per l'appuntamento online del 13/01/2026 ore 10:00 (Roma Eur): 402913. Non lo comunichi a \
                 nessuno.",
                "Ihr Code für den Online-Termin am 13.01.2026 um 10:00 Uhr (Roma Eur): 402913. Bitte teilen Sie ihn \
                 niemandem mit.",
                "Your code for the online appointment on 13 January 2026 at 10:00 (Roma Eur): 402913. Please do not tell \
                 anybody.",
            ]
        );
    }

    #[test]
    fn every_text_fits_one_message_whatever_the_office_is_called() {
        let names = [
            "",
            "Roma",
            "Bolzano/Bozen – Außenstelle «Süd»",
            "Łódź 東京 {1}",
            "東京",
            &"Ufficio molto lontano ".repeat(9),
        ];
        for language in Language::ALL {
            for name in names {
                for code in ["4029", "4029131234"] {
                    // The longest month of the English text.
                    let text = written(language, code, name, "2026-09-30T09:00:00Z");
                    assert!(text.chars().count() <= LONGEST, "{} characters: {text}", text.chars().count());
                    assert!(text.chars().all(|character| ALPHABET.contains(character)), "{text}");
                    assert!(text.contains(&format!(": {code}. ")), "{text}");
                    assert!(!text.contains("()"), "{text}");
                }
            }
        }
    }

    #[test]
    fn an_office_keeps_at_least_thirty_characters() {
        for language in Language::ALL {
            let text = written(language, "4029131234", &"x".repeat(200), "2026-09-30T09:00:00Z");
            assert!(text.contains(&format!("({}", "x".repeat(27))) && text.contains("x...)"), "{text}");
            assert_eq!(text.chars().count(), LONGEST);
        }
    }

    #[test]
    fn names_are_written_in_the_alphabet_of_text_messages() {
        assert_eq!(in_alphabet("Forlì, via dell’Appennino"), "Forlì, via dell'Appennino");
        assert_eq!(in_alphabet("Bolzano/Bozen – Außenstelle «Süd»"), "Bolzano/Bozen - Außenstelle \"Süd\"");
        assert_eq!(in_alphabet("Łódź\u{a0}[3°]"), "Lodz (3o)");
        assert_eq!(in_alphabet("東京 1"), "1");
    }

    #[test]
    fn times_are_those_of_italian_clocks_in_summer_and_winter() {
        assert!(written(Language::It, "1234", "Roma", "2026-07-14T09:00:00Z").contains("14/07/2026 ore 11:00"));
        assert!(written(Language::It, "1234", "Roma", "2026-03-29T00:59:00Z").contains("29/03/2026 ore 01:59"));
        assert!(written(Language::It, "1234", "Roma", "2026-03-29T01:00:00Z").contains("29/03/2026 ore 03:00"));
        assert!(written(Language::It, "1234", "Roma", "2026-12-31T23:30:00Z").contains("01/01/2027 ore 00:30"));
    }

    #[test]
    fn without_a_database_the_rule_shows_the_same_times() {
        let (known, rule) =
            (TimeZone::get("Europe/Rome").unwrap(), TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for hour in 0..24 * 365 * 3 {
            let at = begin + jiff::SignedDuration::from_hours(hour);
            assert_eq!(known.to_offset(at), rule.to_offset(at), "{at}");
        }
    }
}
