//! Documents made by real programs, and by hand.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::media::DocumentKind;

/// Good documents: what they are, their bytes and their kind.
pub(super) fn good() -> &'static [(&'static str, Vec<u8>, DocumentKind)] {
    static GOOD: OnceLock<Vec<(&str, Vec<u8>, DocumentKind)>> = OnceLock::new();
    GOOD.get_or_init(|| {
        use DocumentKind::{Jpeg, P7m, Pdf, Png};
        let signed = sign(&pdf(), &[]);
        vec![
            ("a PDF", pdf(), Pdf),
            ("a PDF with object streams", packed_pdf("<</Producer(x)>>"), Pdf),
            ("a PDF that opens at a page", pdf_with("/OpenAction[3 0 R/Fit]", &[]), Pdf),
            ("a PDF that goes to a page", pdf_with("/OpenAction 4 0 R", &["<</S/GoTo/D[3 0 R/Fit]>>"]), Pdf),
            (
                "a PDF that was added to",
                [pdf(), b"4 0 obj\n<</A 1>>\nendobj\nstartxref\n9\n%%EOF\r\n".to_vec()].concat(),
                Pdf,
            ),
            (
                "a PDF with a form and a link",
                pdf_with("/AcroForm<</Fields[]>>", &["<</S/URI/URI(https://example.org)>>"]),
                Pdf,
            ),
            ("a PDF that talks of scripts", pdf_with("/Title(no /JS here, nor /Launch \\) )", &[]), Pdf),
            ("a JPEG", jpeg().to_vec(), Jpeg),
            ("a grey JPEG", ffmpeg(&["-pix_fmt", "gray"], "jpg"), Jpeg),
            ("a JPEG 4:4:4", ffmpeg(&["-pix_fmt", "yuvj444p"], "jpg"), Jpeg),
            ("a PNG", png().to_vec(), Png),
            ("a PNG of one bit", ffmpeg(&["-pix_fmt", "monob"], "png"), Png),
            ("a PNG of 16 bits", ffmpeg(&["-pix_fmt", "rgba64be"], "png"), Png),
            ("a PNG with a palette", ffmpeg(&["-pix_fmt", "pal8"], "png"), Png),
            ("an interlaced PNG", ffmpeg(&["-pix_fmt", "gray", "-pred", "mixed"], "png"), Png),
            ("a signed PDF", signed.clone(), P7m),
            ("a signed PDF in BER", sign(&pdf(), &["-stream"]), P7m),
            ("a signed PNG", sign(png(), &[]), P7m),
            ("a PDF signed twice", sign(&signed, &[]), P7m),
            ("a PDF signed three times", sign(&sign(&signed, &["-stream"]), &[]), P7m),
        ]
    })
}

pub(super) fn jpeg() -> &'static [u8] {
    static JPEG: OnceLock<Vec<u8>> = OnceLock::new();
    JPEG.get_or_init(|| ffmpeg(&[], "jpg"))
}

pub(super) fn png() -> &'static [u8] {
    static PNG: OnceLock<Vec<u8>> = OnceLock::new();
    PNG.get_or_init(|| ffmpeg(&["-pix_fmt", "rgb24"], "png"))
}

fn ffmpeg(options: &[&str], ending: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("out.{ending}"));
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=96x64:rate=1", "-frames:v", "1"]);
    assert!(command.args(options).arg(&file).status().unwrap().success());
    fs::read(file).unwrap()
}

/// Signs with a certificate that is made for it: CMS with the content in it, as DER (or, streamed, BER).
pub(super) fn sign(content: &[u8], options: &[&str]) -> Vec<u8> {
    let folder = signer();
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("in"), content).unwrap();
    let mut command = vec!["cms", "-sign", "-binary", "-nodetach", "-outform", "DER"];
    command.extend(options);
    openssl(folder, &[&command[..], &["-signer", "cert.pem", "-inkey", "key.pem"]].concat(), work.path())
}

/// Runs openssl in the signer's folder, from `in` to `out` of `work`.
pub(super) fn openssl(folder: &Path, arguments: &[&str], work: &Path) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(arguments).arg("-in").arg(work.join("in")).arg("-out").arg(work.join("out"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(work.join("out")).unwrap()
}

pub(super) fn signer() -> &'static Path {
    static SIGNER: OnceLock<tempfile::TempDir> = OnceLock::new();
    SIGNER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = Command::new("openssl");
            command.current_dir(folder.path()).args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj".split(' '));
            command.args(["/CN=Anna Rossi/C=IT", "-keyout", "key.pem", "-out", "cert.pem"]);
            assert!(command.output().unwrap().status.success());
            folder
        })
        .path()
}

/// A page with a line of text.
pub(super) fn pdf() -> Vec<u8> {
    pdf_with("", &[])
}

/// The same, with more in its catalog, and more objects from number 4.
pub(super) fn pdf_with(catalog: &str, objects: &[&str]) -> Vec<u8> {
    let catalog = format!("<</Type/Catalog/Pages 2 0 R {catalog}>>");
    let mut all = vec![
        catalog.as_bytes(),
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Resources<<>>>>",
    ];
    all.extend(objects.iter().map(|object| object.as_bytes()));
    pdf_of(&all, "")
}

/// A file of these objects, from number 1.
pub(super) fn pdf_of(objects: &[&[u8]], trailer: &str) -> Vec<u8> {
    let mut file = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (number, object) in (1..).zip(objects) {
        writeln!(table, "{:010} 00000 n ", file.len()).unwrap();
        file.extend(format!("{number} 0 obj\n").bytes());
        file.extend(*object);
        file.extend(b"\nendobj\n");
    }
    let begin = file.len();
    let count = objects.len() + 1;
    file.extend(format!("{table}trailer\n<</Size {count}/Root 1 0 R{trailer}>>\nstartxref\n{begin}\n%%EOF\n").bytes());
    file
}

/// A stream object.
pub(super) fn stream(keys: &str, data: &[u8]) -> Vec<u8> {
    let head = format!("<<{keys}/Length {}>>\nstream\n", data.len());
    [head.as_bytes(), data, b"\nendstream"].concat()
}

/// Objects as an object stream, numbered from 10.
pub(super) fn object_stream(keys: &str, objects: &[&str]) -> Vec<u8> {
    let (mut head, mut body) = (String::new(), String::new());
    for (number, object) in (10..).zip(objects) {
        write!(head, "{number} {} ", body.len()).unwrap();
        write!(body, "{object} ").unwrap();
    }
    let keys = format!("{keys}/N {}/First {}/Filter/FlateDecode", objects.len(), head.len());
    stream(&keys, &deflate(format!("{head}{body}").as_bytes()))
}

/// A PDF with one object in an object stream.
pub(super) fn packed_pdf(object: &str) -> Vec<u8> {
    pdf_and_stream(&object_stream("/Type/ObjStm", &[object]))
}

pub(super) fn pdf_and_stream(stream: &[u8]) -> Vec<u8> {
    let objects: [&[u8]; 4] = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Resources<<>>>>",
        stream,
    ];
    pdf_of(&objects, "")
}

pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A PNG with a chunk before its image data.
pub(super) fn png_with(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let (head, rest) = png().split_at(8 + 25);
    [head, &chunk(kind, data), rest].concat()
}

pub(super) fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&kind);
    crc.update(data);
    let length = u32::try_from(data.len()).unwrap();
    [&length.to_be_bytes()[..], &kind, data, &crc.sum().to_be_bytes()].concat()
}

/// A PNG of this size, with this image data.
pub(super) fn png_of(width: u32, height: u32, packed: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    let end = chunk(*b"IEND", &[]);
    [&png()[..8], &chunk(*b"IHDR", &header), &chunk(*b"IDAT", packed), &end].concat()
}

/// A JPEG with a segment after its start.
pub(super) fn jpeg_with(marker: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 2).unwrap();
    [&[0xff, 0xd8, 0xff, marker][..], &length.to_be_bytes(), data, &jpeg()[2..]].concat()
}

/// A JPEG that says it has this size.
pub(super) fn jpeg_of(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = jpeg().to_vec();
    let frame = bytes.windows(2).position(|pair| matches!(pair, [0xff, 0xc0 | 0xc2])).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}
