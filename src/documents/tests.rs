//! Good documents from real programs, and bad ones from whoever tries.

mod hostile;
mod kept;
mod made;
mod scanned;

use proptest::prelude::*;

use super::{DisplayName, Unfit, check};
use crate::media::DocumentKind;

fn check_unnamed(bytes: &[u8]) -> Result<DocumentKind, Unfit> {
    check(&DisplayName::new("documento"), bytes)
}

#[test]
fn what_real_programs_write_comes_in() {
    for (name, bytes, kind) in made::good() {
        assert_eq!(check_unnamed(bytes), Ok(*kind), "{name}");
        let named = DisplayName::new(&format!("Delega firmata.{}", kind.extension().to_uppercase()));
        assert_eq!(check(&named, bytes), Ok(*kind), "{name}");
    }
}

#[test]
fn names_are_for_people_only() {
    let shown = |raw: &str| DisplayName::new(raw).as_str().to_owned();
    for (raw, name) in [
        ("carta d'identità.pdf", "carta d'identità.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\x.pdf", "x.pdf"),
        ("C:\\Users\\Anna\\delega.p7m", "delega.p7m"),
        ("a\0b.pdf", "ab.pdf"),
        ("delega\u{202e}fdp.exe", "delegafdp.exe"),
        ("\u{2066}a\u{2069}.pdf", "a.pdf"),
        ("\u{feff}a\u{200b}b.png", "ab.png"),
        ("riga\r\nSet-Cookie: x.pdf", "riga Set-Cookie: x.pdf"),
        ("a\u{2003}\u{2003}   b.pdf", "a b.pdf"),
        ("  foto.jpg  ", "foto.jpg"),
        ("Łukasz Đorđević Ångström Ελένη Їжак.pdf", "Łukasz Đorđević Ångström Ελένη Їжак.pdf"),
        ("", "documento"),
        ("..", "documento"),
        (" . . ", "documento"),
        ("/", "documento"),
        ("\u{202e}\0\n", "documento"),
    ] {
        assert_eq!(shown(raw), name, "{raw:?}");
    }
}

#[test]
fn a_long_name_keeps_its_ending() {
    let long = DisplayName::new(&format!("{}.pdf", "à".repeat(4096)));
    assert_eq!(long.as_str().chars().count(), 120);
    assert!(long.as_str().ends_with("à.pdf"));
    let endless = DisplayName::new(&format!("a.{}", "b".repeat(4096)));
    assert_eq!(endless.as_str().chars().count(), 120);
}

#[test]
fn a_name_that_says_another_type_is_refused() {
    let pdf = made::pdf();
    for name in ["a.jpg", "a.p7m", "a.pdf.exe", "a.html", "a.PDF.JS", "\u{202e}fdp.exe", "a.docx"] {
        assert_eq!(check(&DisplayName::new(name), &pdf), Err(Unfit::NameAndContentDiffer), "{name}");
    }
    for name in ["a.pdf", "a.PDF", "a", "delega di A. Rossi", "v1.2", "", "a.jpg.pdf"] {
        assert_eq!(check(&DisplayName::new(name), &pdf), Ok(DocumentKind::Pdf), "{name}");
    }
    assert_eq!(Unfit::NameAndContentDiffer.slug(), "name-and-content-differ");
    assert!(!Unfit::NameAndContentDiffer.is_other_type());
}

#[test]
fn only_an_unknown_type_is_another_type() {
    assert!(Unfit::UnknownType.is_other_type());
    for unfit in [Unfit::Empty, Unfit::Polyglot, Unfit::NotBinary, Unfit::Malformed("x"), Unfit::UnknownTypeInside] {
        assert!(!unfit.is_other_type(), "{unfit}");
    }
}

/// Bytes that begin as a kind does.
fn begun() -> impl Strategy<Value = Vec<u8>> {
    let heads = vec![
        Vec::new(),
        b"%PDF-1.7\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\n".to_vec(),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(),
        vec![0xff, 0xd8, 0xff],
        hex::decode("308006092a864886f70d010702a080").unwrap(),
        hex::decode("30820400 06092a864886f70d010702 a082".replace(' ', "")).unwrap(),
    ];
    (proptest::sample::select(heads), proptest::collection::vec(any::<u8>(), 0..3000))
        .prop_map(|(head, tail)| [head, tail].concat())
}

/// Words of PDF in any order.
fn babble() -> impl Strategy<Value = Vec<u8>> {
    let words = vec![
        "<<",
        ">>",
        "[",
        "]",
        "(",
        ")",
        "<",
        ">",
        "/",
        "/JS",
        "/Length 9",
        "/First 3",
        "/N 1",
        "/Type/ObjStm",
        "1 0 obj",
        "2 0 obj",
        "endobj",
        "stream\n",
        "endstream",
        "trailer",
        "%",
        "\n",
        "9",
        "0 R",
        "/#4a#53",
        "%%EOF",
        "startxref",
        "/Filter/FlateDecode",
        "\\",
        "-1",
        "99999999999999999999",
        "null",
        "/OpenAction",
    ];
    proptest::collection::vec(proptest::sample::select(words), 0..400)
        .prop_map(|words| format!("%PDF-1.4\n{}\n%%EOF", words.join(" ")).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_are_a_panic(bytes in begun()) {
        let _verdict = check_unnamed(&bytes);
    }

    #[test]
    fn no_babble_is_a_panic(bytes in babble()) {
        let _verdict = check_unnamed(&bytes);
    }

    #[test]
    fn no_change_of_a_good_document_is_a_panic(
        which in any::<proptest::sample::Index>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4_u8), 1..12),
    ) {
        let good = made::good();
        let (_, mut bytes, _) = which.get(good).clone();
        for (at, byte, how) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        let _verdict = check_unnamed(&bytes);
    }

    #[test]
    fn every_name_is_short_and_shows_all_of_itself(raw in any::<String>()) {
        let name = DisplayName::new(&raw);
        let length = name.as_str().chars().count();
        prop_assert!((1..=120).contains(&length));
        let marks = ['\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2069}', '/', '\\'];
        let unseen = name.as_str().chars().any(|c| c.is_control() || marks.contains(&c));
        prop_assert!(!unseen);
        prop_assert_eq!(name.as_str().trim(), name.as_str());
        prop_assert_eq!(&DisplayName::new(name.as_str()), &name);
    }
}
