//! Uploads that must not come in, each with its reason.

use std::time::Duration;

use super::super::MAX_BYTES;
use super::check_unnamed;
use super::made::{
    chunk, deflate, jpeg, jpeg_of, jpeg_with, object_stream, openssl, packed_pdf, pdf, pdf_and_stream, pdf_of,
    pdf_with, png, png_of, png_with, sign, signer, stream,
};
use crate::clock::{Clock, MonoTime};

const SCRIPT: &str = "<</S/JavaScript/JS(app.alert\\(1\\))>>";

/// An empty ZIP with a comment of this length.
fn zip_end(comment: u16) -> Vec<u8> {
    [b"PK\x05\x06".as_slice(), &[0; 16], &comment.to_le_bytes()].concat()
}

fn pdfs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let active = "active-content";
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = deflate(&vec![b' '; 200 << 20]);
    let plain = format!("10 0 {SCRIPT}");
    let hidden_in_stream = stream("", format!("9 0 obj\n{SCRIPT}\nendobj").as_bytes());
    let comment = b"<<>>\nendobj\n% (\r9 0 obj <</S/Launch/F(c:\\\\x.exe)>>".to_vec();
    let base: [&[u8]; 3] = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
    ];
    let mut zipped = pdf();
    zipped.truncate(zipped.len() - 6);
    zipped.extend([&b"%"[..], &zip_end(7), b"\n%%EOF\n"].concat());
    let mut revised = pdf_with("/OpenAction 4 0 R", &[SCRIPT]);
    revised.extend(b"1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n4 0 obj null endobj\nstartxref\n9\n%%EOF\n");
    vec![
        ("a script at opening", pdf_with("/OpenAction 4 0 R", &[SCRIPT]), active),
        ("a script written out", pdf_with("/OpenAction<</S/JavaScript/JS(x)>>", &[]), active),
        ("a script that nothing refers to", pdf_with("", &[SCRIPT]), active),
        ("an escaped script", pdf_with("", &["<</S/J#61vaScr#69pt/#4aS(x)>>"]), active),
        ("an escaped script with a NUL", pdf_with("", &["<</S/JavaScript#00x>>"]), active),
        ("scripts by name", pdf_with("/Names<</JavaScript<</Names[(a) 4 0 R]>>>>", &[]), active),
        ("a script in an object stream", packed_pdf(SCRIPT), active),
        ("a script in an object stream without its type", pdf_and_stream(&object_stream("", &["1", SCRIPT])), active),
        ("a script in a stream of another type", pdf_and_stream(&object_stream("/Type/Outlines", &[SCRIPT])), active),
        (
            "a script in an object stream that is not packed",
            pdf_and_stream(&stream("/Type/ObjStm/N 1/First 5", plain.as_bytes())),
            active,
        ),
        ("a script within another stream", pdf_and_stream(&hidden_in_stream), active),
        ("a script behind a comment", pdf_and_stream(&comment), active),
        ("a script in an earlier revision", revised, active),
        ("a program to launch", pdf_with("", &["<</S/Launch/F(cmd.exe)>>"]), active),
        ("more actions of a page", pdf_with("/AA<</O 4 0 R>>", &["<</S/URI/URI(x)>>"]), active),
        ("a form that sends itself", pdf_with("", &["<</S/SubmitForm/F(http://x)>>"]), active),
        ("a form that reads a file", pdf_with("", &["<</S/ImportData/F(x)>>"]), active),
        ("an XFA form", pdf_with("/AcroForm<</XFA[]>>", &[]), active),
        ("rich media", pdf_with("", &["<</Type/Annot/Subtype/RichMedia>>"]), active),
        ("a film", pdf_with("", &["<</S/Rendition/OP 0>>"]), active),
        ("files in it", pdf_with("/Names<</EmbeddedFiles<</Names[]>>>>", &[]), active),
        ("a file at a page", pdf_with("", &["<</Type/Annot/Subtype/FileAttachment>>"]), active),
        ("a file in a stream", pdf_and_stream(&stream("/Type/EmbeddedFile", b"MZ")), active),
        ("another file at opening", pdf_with("/OpenAction 4 0 R", &["<</S/GoToR/F(x.pdf)/D[0/Fit]>>"]), active),
        ("a link at opening", pdf_with("/OpenAction<</S/URI/URI(http://x)>>", &[]), active),
        ("a page, then a link", pdf_with("/OpenAction 4 0 R", &["<</S/GoTo/D[3 0 R]/Next 5 0 R>>"]), active),
        ("no kind of action at opening", pdf_with("/OpenAction 4 0 R", &["<</D[3 0 R]>>"]), active),
        ("an encrypted one", pdf_of(&base, "/Encrypt 9 0 R"), "encrypted"),
        ("an escaped encryption", pdf_of(&base, "/Encr#79pt<</Filter/Standard>>"), "encrypted"),
        ("HTML behind it", [pdf(), b"<script>alert(1)</script>".to_vec()].concat(), "trailing-data"),
        ("a ZIP behind it", [pdf(), zip_end(0)].concat(), "polyglot"),
        ("a ZIP in its last comment", zipped, "polyglot"),
        ("GIF before it", [b"GIF89a".to_vec(), pdf()].concat(), "trailing-data"),
        ("a line before it", [b"\n".to_vec(), pdf()].concat(), "trailing-data"),
        ("cut", pdf()[..pdf().len() - 12].to_vec(), "malformed"),
        ("without pages", pdf_of(&[b"<</Type/Catalog/Pages 2 0 R>>"], ""), "malformed"),
        ("nothing but its header", b"%PDF-1.7\n%%EOF".to_vec(), "malformed"),
        ("another version", [b"%PDF-x".to_vec(), pdf()].concat(), "malformed"),
        ("a string that does not end", pdf_with("", &["<</A(>>"]), "malformed"),
        ("arrays within arrays", pdf_with("", &[&deep]), "too-deep"),
        (
            "an object stream of 200 MB",
            pdf_and_stream(&stream("/Type/ObjStm/N 1/First 5/Filter/FlateDecode", &wide)),
            "too-much-inside",
        ),
        (
            "an object stream packed otherwise",
            pdf_and_stream(&stream("/Type/ObjStm/N 1/First 5/Filter/LZWDecode", b"xxxx")),
            "malformed",
        ),
        (
            "an object stream packed twice",
            pdf_and_stream(&stream(
                "/Type/ObjStm/N 1/First 5/Filter[/FlateDecode/FlateDecode]",
                &deflate(&deflate(b"1")),
            )),
            "malformed",
        ),
        (
            "an object stream with two filters by name",
            pdf_and_stream(&stream("/Type/ObjStm/N 1/First 5/Filter null/Filter/FlateDecode", &deflate(b"10 0 1"))),
            "malformed",
        ),
        (
            "an object stream that a predictor changes",
            pdf_and_stream(&object_stream("/Type/ObjStm/DecodeParms<</Predictor 12>>", &["1"])),
            "malformed",
        ),
        (
            "an object stream that breaks off",
            pdf_and_stream(&stream("/Type/ObjStm/N 1/First 5/Filter/FlateDecode", &deflate(SCRIPT.as_bytes())[..9])),
            "malformed",
        ),
    ]
}

fn pictures() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let (zeros, pixels) = (deflate(&vec![0; 9 << 20]), "too-many-pixels");
    let text = [b"Comment\0\0".as_slice(), &zeros].concat();
    let international = [b"Comment\0\x01\0it\0Nota\0".as_slice(), &zeros].concat();
    let scan = jpeg().windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    let (head, coded) = (&jpeg()[..jpeg().len() - 2], &jpeg()[scan..jpeg().len() - 2]);
    let scans = [head, &coded.repeat(100), &[0xff, 0xd9]].concat();
    let frame = jpeg().windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let frames = [&jpeg()[..frame], &jpeg()[frame..frame + 19], &jpeg()[frame..]].concat();
    let mut spoilt = png().to_vec();
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 0xff;
    let end = chunk(*b"IEND", &[]);
    vec![
        ("something behind a JPEG", [jpeg(), b"<?php"].concat(), "trailing-data"),
        ("a second JPEG behind a JPEG", [jpeg(), jpeg()].concat(), "trailing-data"),
        ("a ZIP behind a JPEG", [jpeg(), &zip_end(0)].concat(), "polyglot"),
        ("a PDF in a JPEG", jpeg_with(0xfe, b"%PDF-1.7"), "polyglot"),
        ("a JPEG of 65535 × 65535", jpeg_of(65_535, 65_535), pixels),
        ("a JPEG of 20001 × 8", jpeg_of(20_001, 8), pixels),
        ("a JPEG of 7100 × 7100", jpeg_of(7_100, 7_100), pixels),
        ("a JPEG without a height", jpeg_of(96, 0), "malformed"),
        ("a JPEG with a hundred scans", scans, "too-much-inside"),
        ("a JPEG with two frames", frames, "malformed"),
        ("a cut JPEG", jpeg()[..jpeg().len() / 2].to_vec(), "malformed"),
        ("a JPEG without a picture", vec![0xff, 0xd8, 0xff, 0xd9], "malformed"),
        ("a JPEG's first bytes", vec![0xff, 0xd8, 0xff], "malformed"),
        ("a JPEG segment without length", vec![0xff, 0xd8, 0xff, 0xe0, 0, 0], "malformed"),
        ("something behind a PNG", [png(), b"MZ"].concat(), "trailing-data"),
        ("a ZIP behind a PNG", [png(), &zip_end(0)].concat(), "polyglot"),
        ("a PDF in a PNG", png_with(*b"tEXt", b"a\0%PDF-1.4"), "polyglot"),
        ("a PNG of 20001 × 1", png_of(20_001, 1, &deflate(&[0; 2502])), pixels),
        ("a PNG of 20000 × 20000", png_of(20_000, 20_000, &zeros), pixels),
        ("a PNG of four thousand million", png_of(u32::MAX, u32::MAX, &zeros), pixels),
        ("a PNG without width", png_of(0, 9, &zeros), "malformed"),
        ("a PNG with too little in it", png_of(96, 64, &deflate(&[0; 40])), "malformed"),
        ("a PNG with a text of 9 MB", png_with(*b"zTXt", &text), "too-much-inside"),
        ("a PNG with a translated text of 9 MB", png_with(*b"iTXt", &international), "too-much-inside"),
        ("a PNG with a profile of 9 MB", png_with(*b"iCCP", &text), "too-much-inside"),
        ("an animated PNG", png_with(*b"acTL", &[0, 0, 0, 9, 0, 0, 0, 0]), "animated"),
        ("a spoilt PNG", spoilt, "malformed"),
        ("a cut PNG", png()[..png().len() - 12].to_vec(), "malformed"),
        ("a PNG without its header", [&png()[..8], &end].concat(), "malformed"),
        ("a PNG without a picture", [&png()[..33], &end].concat(), "malformed"),
    ]
}

fn signed() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = sign(&pdf(), &[]);
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("in"), pdf()).unwrap();
    let detached = "cms -sign -binary -outform DER -signer cert.pem -inkey key.pem".split(' ').collect::<Vec<_>>();
    let detached = openssl(signer(), &detached, work.path());
    let text =
        "cms -sign -binary -nodetach -outform PEM -signer cert.pem -inkey key.pem".split(' ').collect::<Vec<_>>();
    let text = openssl(signer(), &text, work.path());
    let unwrapped: String =
        String::from_utf8(text.clone()).unwrap().lines().filter(|line| !line.starts_with('-')).collect();
    let around = "cms -data_create -outform DER".split(' ').collect::<Vec<_>>();
    let data_only = openssl(signer(), &around, work.path());
    let nobody = work.path().join("nobody");
    let made = std::process::Command::new("openssl")
        .current_dir(signer())
        .args("crl2pkcs7 -nocrl -certfile cert.pem -outform DER -out".split(' '))
        .arg(&nobody)
        .status();
    assert!(made.unwrap().success());
    let four = sign(&sign(&sign(&good, &[]), &[]), &[]);
    let head = hex::decode("308006092a864886f70d010702a080").unwrap();
    let deep = [&head[..], &[0x30, 0x80].repeat(100_000)].concat();
    let many = [&head[..], &[0x30, 0x80], &[0x05, 0x00].repeat(1_000_000)].concat();
    let endless = [&head[..], &[0x30, 0x88], &[0xff; 8]].concat();
    let wrapping = [&head[..], &[0x04, 0x88], &[0xff; 8]].concat();
    vec![
        ("a signature without its document", detached, "detached"),
        ("a signature by nobody", std::fs::read(nobody).unwrap(), "malformed"),
        ("CMS that is not signed, around a PDF", data_only, "trailing-data"),
        ("a signature in PEM", text, "not-binary"),
        ("a signature in Base64", unwrapped.into_bytes(), "not-binary"),
        ("a signed program", sign(b"MZ\x90\0", &[]), "unknown-type-inside"),
        ("signed nothing", sign(b"", &[]), "unknown-type-inside"),
        ("a signed page of HTML", sign(b"<html>", &["-stream"]), "unknown-type-inside"),
        ("a signed script", sign(&pdf_with("", &[SCRIPT]), &[]), "active-content"),
        ("a signed script in BER", sign(&packed_pdf(SCRIPT), &["-stream"]), "active-content"),
        ("a signed picture with something behind it", sign(&[png(), b"x"].concat(), &[]), "trailing-data"),
        ("signed four times", four, "too-deep"),
        ("something behind a signature", [&good[..], b"<html>"].concat(), "trailing-data"),
        ("a cut signature", good[..good.len() / 2].to_vec(), "malformed"),
        ("sequences within sequences", deep, "too-deep"),
        ("a million nothings", many, "malformed"),
        ("a length past the end", endless, "malformed"),
        ("a string's length past the end", wrapping, "malformed"),
    ]
}

fn others() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let unknown = "unknown-type";
    vec![
        ("nothing", Vec::new(), "empty"),
        ("one byte", vec![b'%'], unknown),
        ("zeros", vec![0; 4096], unknown),
        ("a page of HTML", b"<!DOCTYPE html><script>alert(1)</script>".to_vec(), unknown),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>".to_vec(), unknown),
        ("a Windows program", b"MZ\x90\0\x03".to_vec(), unknown),
        ("a Linux program", b"\x7fELF\x02\x01\x01".to_vec(), unknown),
        ("a ZIP", [b"PK\x03\x04".to_vec(), zip_end(0)].concat(), unknown),
        ("a GIF", b"GIF89a\x01\0\x01\0".to_vec(), unknown),
        ("a shell script", b"#!/bin/sh\nrm -rf /\n".to_vec(), unknown),
        ("a byte too many", [pdf(), vec![b' '; MAX_BYTES + 1]].concat()[..=MAX_BYTES].to_vec(), "too-large"),
    ]
}

fn refuse(uploads: Vec<(&str, Vec<u8>, &str)>) {
    let mut wrong = Vec::new();
    for (name, bytes, slug) in uploads {
        let (clock, begin) = began();
        match check_unnamed(&bytes) {
            Err(unfit) if unfit.slug() == slug => {}
            other => wrong.push(format!("{name}: {other:?}, not {slug}")),
        }
        // Unoptimised and beside other tests; what hangs takes far longer.
        assert!(clock.mono().since(begin) < Duration::from_secs(20), "{name}: {:?}", clock.mono().since(begin));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hostile_pdfs_are_refused_with_their_reason() {
    refuse(pdfs());
}

#[test]
fn hostile_pictures_are_refused_with_their_reason() {
    refuse(pictures());
}

#[test]
fn hostile_signatures_are_refused_with_their_reason() {
    refuse(signed());
}

#[test]
fn everything_else_is_refused_with_its_reason() {
    refuse(others());
}

#[test]
fn files_made_to_take_long_do_not() {
    for (name, piece) in [
        ("objects within each other", "1 0 obj["),
        ("objects in strings", "1 0 obj("),
        ("dictionaries", "1 0 obj<</A"),
        ("words", "obj "),
        ("trailers", "trailer<<"),
        ("numbers", "1 "),
        ("comments", "1 0 obj%"),
        ("hexadecimal", "1 0 obj<"),
    ] {
        let body = piece.repeat((MAX_BYTES - 100) / piece.len());
        let bytes = format!("%PDF-1.7\n{body}\nstartxref\n%%EOF").into_bytes();
        let (clock, begin) = began();
        assert!(check_unnamed(&bytes).is_err(), "{name}");
        assert!(clock.mono().since(begin) < Duration::from_secs(20), "{name}: {:?}", clock.mono().since(begin));
    }
}

fn began() -> (Clock, MonoTime) {
    let clock = Clock::new();
    (clock, clock.mono())
}
