//! A timestamp of somebody else's clock over a manifest's signature (RFC 3161): the request, and what is checked of the
//! answer. Asking is the caller's ([`ask`] does it over HTTP, RFC 3161 §3.4).
//!
//! Checked are the status, the imprint, at asking the nonce, the signature over the attributes and theirs over the
//! token (RFC 5652 §5.4), and, if certificates of an authority are configured, the path from the signer to one of them
//! at the token's time, with the purpose «time stamping» (RFC 3161 §2.3). Not checked: revocation, and the signer's
//! attribute that repeats which certificate is theirs (RFC 5816), because the path answers for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use cms::cert::x509::ext::Extensions;
use cms::cert::x509::ext::pkix::SubjectKeyIdentifier;
use cms::cert::x509::ext::pkix::name::GeneralName;
use cms::cert::x509::spki::AlgorithmIdentifier;
use cms::cert::{CertificateChoices, x509};
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{Int, ObjectIdentifier, OctetString};
use der::{Any, Decode, Encode, Sequence, Tag, Tagged as _};
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_tsp::{Accuracy, MessageImprint, TimeStampReq, TimeStampResp, TspVersion};

const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// `id-kp-timeStamping`, 1.3.6.1.5.5.7.3.8 (RFC 5280 §4.2.1.12), as DER writes its value.
const TIME_STAMPING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];

/// How long an authority may take. Longer holds up sealing; shorter gives up on an authority that is merely busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer is a few kilobytes; a longer one is none.
const LARGEST_ANSWER: usize = 256 << 10;

/// Whose timestamps are believed.
#[derive(Clone, Debug)]
pub struct Authority(Vec<CertificateDer<'static>>);

/// A request, and what its answer must hold.
#[derive(Clone, Debug)]
pub struct Request {
    der: Vec<u8>,
    nonce: Int,
    signed: Vec<u8>,
}

/// What a timestamp says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamped {
    /// When the authority saw the signature.
    pub at: Timestamp,
    /// The token's serial number at the authority, hex.
    pub serial: String,
    /// Whether the path to a configured authority was checked; otherwise anybody may have made it.
    pub trusted: bool,
}

/// Why there is no timestamp.
#[derive(Debug, thiserror::Error)]
pub enum TimestampError {
    /// The file of certificates cannot be used. The configuration's fault.
    #[error("{}: no certificates in PEM: {what}", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The operating system gave no random numbers.
    #[error("cannot make a nonce")]
    NoNonce,
    /// The authority does not answer, or not as RFC 3161 says.
    #[error("the timestamp authority does not answer: {0}")]
    NoAnswer(String),
    /// The authority refuses.
    #[error("the timestamp authority refused: status {status} {text}")]
    Refused {
        /// Its status (RFC 3161 §2.4.2).
        status: u8,
        /// Its words.
        text: String,
    },
    /// The answer is no timestamp.
    #[error("it is no timestamp: {0}")]
    Form(String),
    /// It is a timestamp of other bytes.
    #[error("it is the timestamp of something else")]
    OtherImprint,
    /// It answers another request.
    #[error("it does not answer this request: its nonce is another")]
    OtherNonce,
    /// Its signature does not hold.
    #[error("its signature does not hold: {0}")]
    Signature(&'static str),
    /// It was not signed by the configured authority.
    #[error("it was not signed by the configured authority: {0}")]
    Untrusted(String),
}

/// What the token holds (RFC 3161 §2.4.2); its time as it is written, since fractions of seconds are allowed.
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
struct TstInfo {
    version: TspVersion,
    policy: ObjectIdentifier,
    message_imprint: MessageImprint,
    serial_number: Int,
    gen_time: Any,
    #[asn1(optional = "true")]
    accuracy: Option<Accuracy>,
    #[asn1(default = "Default::default")]
    ordering: bool,
    #[asn1(optional = "true")]
    nonce: Option<Int>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    tsa: Option<GeneralName>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

impl Authority {
    /// Reads the certificates (PEM) of the authorities that are believed.
    ///
    /// # Errors
    /// [`TimestampError::Authority`].
    pub fn read(path: &Path) -> Result<Self, TimestampError> {
        let failed = |what: String| TimestampError::Authority { path: path.to_owned(), what };
        let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| failed(format!("{error:?}")))?;
        if certificates.is_empty() {
            return Err(failed("there are none in it".into()));
        }
        for certificate in &certificates {
            anchor_from_trusted_cert(certificate).map_err(|error| failed(error.to_string()))?;
        }
        Ok(Self(certificates))
    }
}

impl Request {
    /// A request for a timestamp of these bytes.
    ///
    /// # Errors
    /// The operating system gave no random numbers.
    pub fn new(signed: &[u8]) -> Result<Self, TimestampError> {
        let mut nonce = [0; 8];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| TimestampError::NoNonce)?;
        // A positive number of eight bytes, whatever came.
        let [first, ..] = &mut nonce;
        *first = (*first & 0x7f) | 0x40;
        let nonce = Int::new(&nonce).map_err(form)?;
        let request = TimeStampReq {
            version: TspVersion::V1,
            message_imprint: MessageImprint {
                hash_algorithm: AlgorithmIdentifier { oid: SHA_256, parameters: Some(Any::null()) },
                hashed_message: OctetString::new(digest::digest(&SHA256, signed).as_ref()).map_err(form)?,
            },
            req_policy: None,
            nonce: Some(nonce.clone()),
            cert_req: true,
            extensions: None,
        };
        Ok(Self { der: request.to_der().map_err(form)?, nonce, signed: signed.to_owned() })
    }

    /// What to send: `application/timestamp-query`.
    pub fn body(&self) -> &[u8] {
        &self.der
    }

    /// Checks the answer to this request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, answer: &[u8], authority: Option<&Authority>) -> Result<Timestamped, TimestampError> {
        let (info, timestamped) = check(&self.signed, answer, authority)?;
        if info.nonce.as_ref() != Some(&self.nonce) {
            return Err(TimestampError::OtherNonce);
        }
        Ok(timestamped)
    }
}

/// Checks a kept answer: that it is a timestamp of `signed`.
///
/// # Errors
/// What is wrong with it.
pub fn verify(signed: &[u8], answer: &[u8], authority: Option<&Authority>) -> Result<Timestamped, TimestampError> {
    check(signed, answer, authority).map(|(_, timestamped)| timestamped)
}

/// Asks an authority for a timestamp; gives its whole answer, to be kept, and what it says.
///
/// # Errors
/// It does not answer, or not rightly.
pub async fn ask(
    client: &reqwest::Client,
    url: &str,
    signed: &[u8],
    authority: Option<&Authority>,
) -> Result<(Vec<u8>, Timestamped), TimestampError> {
    let request = Request::new(signed)?;
    let silent = |error: reqwest::Error| TimestampError::NoAnswer(error.without_url().to_string());
    let response = client
        .post(url)
        .header("content-type", "application/timestamp-query")
        .header("accept", "application/timestamp-reply")
        .timeout(PATIENCE)
        .body(request.body().to_vec())
        .send()
        .await
        .and_then(reqwest::Response::error_for_status);
    let mut response = response.map_err(silent)?;
    let mut answer = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(silent)? {
        answer.extend_from_slice(&bytes);
        if answer.len() > LARGEST_ANSWER {
            return Err(TimestampError::NoAnswer("its answer does not end".into()));
        }
    }
    let timestamped = request.check(&answer, authority)?;
    Ok((answer, timestamped))
}

fn check(
    signed: &[u8],
    answer: &[u8],
    authority: Option<&Authority>,
) -> Result<(TstInfo, Timestamped), TimestampError> {
    let response = TimeStampResp::from_der(answer).map_err(form)?;
    let status = response.status.status as u8;
    // 0: granted, 1: granted with modifications (RFC 3161 §2.4.2).
    if status > 1 {
        let words = response.status.status_string.unwrap_or_default();
        let text = words.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ");
        return Err(TimestampError::Refused { status, text });
    }
    let token = response.time_stamp_token.ok_or_else(|| TimestampError::Form("there is no token in it".into()))?;
    if token.content_type != SIGNED_DATA {
        return Err(TimestampError::Form("its token is not signed".into()));
    }
    let data: SignedData = token.content.decode_as().map_err(form)?;
    let content = &data.encap_content_info;
    let encapsulated = content.econtent.as_ref().filter(|_| content.econtent_type == TST_INFO);
    let encapsulated = encapsulated.ok_or_else(|| TimestampError::Form("what is signed is no timestamp".into()))?;
    let content = encapsulated.decode_as::<OctetString>().map_err(form)?;
    let info = TstInfo::from_der(content.as_bytes()).map_err(form)?;
    let imprint = &info.message_imprint;
    if imprint.hash_algorithm.oid != SHA_256
        || imprint.hashed_message.as_bytes() != digest::digest(&SHA256, signed).as_ref()
    {
        return Err(TimestampError::OtherImprint);
    }
    let at = time_of(&info.gen_time)?;
    let [signer] = data.signer_infos.0.as_slice() else {
        return Err(TimestampError::Form("it does not have one signer".into()));
    };
    let certificates = certificates(&data)?;
    let certificate = signer_certificate(signer, &certificates)?;
    let others: Vec<_> = certificates.iter().map(|(_, der)| der.clone()).collect();
    let end_entity = EndEntityCert::try_from(certificate)
        .map_err(|_| TimestampError::Signature("the signer's certificate cannot be read"))?;
    check_signature(signer, content.as_bytes(), &end_entity)?;
    if let Some(Authority(roots)) = authority {
        let untrusted = |error: webpki::Error| TimestampError::Untrusted(error.to_string());
        let anchors: Vec<_> =
            roots.iter().map(anchor_from_trusted_cert).collect::<Result<_, _>>().map_err(untrusted)?;
        let seconds = u64::try_from(at.as_second()).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let usage = KeyUsage::required(TIME_STAMPING);
        end_entity
            .verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &others, time, usage, None, None)
            .map_err(untrusted)?;
    }
    let serial = hex::encode(info.serial_number.as_bytes());
    Ok((info, Timestamped { at, serial, trusted: authority.is_some() }))
}

/// The certificates in the token, read and as they are.
fn certificates(data: &SignedData) -> Result<Vec<(x509::Certificate, CertificateDer<'static>)>, TimestampError> {
    let mut certificates = Vec::new();
    for choice in data.certificates.iter().flat_map(|set| set.0.iter()) {
        if let CertificateChoices::Certificate(certificate) = choice {
            let der = certificate.to_der().map_err(form)?;
            certificates.push((certificate.clone(), der.into()));
        }
    }
    Ok(certificates)
}

fn signer_certificate<'a>(
    signer: &SignerInfo,
    certificates: &'a [(x509::Certificate, CertificateDer<'static>)],
) -> Result<&'a CertificateDer<'static>, TimestampError> {
    let is_meant = |certificate: &x509::Certificate| {
        let own = &certificate.tbs_certificate;
        match &signer.sid {
            SignerIdentifier::IssuerAndSerialNumber(named) => {
                named.issuer == own.issuer && named.serial_number == own.serial_number
            }
            SignerIdentifier::SubjectKeyIdentifier(named) => {
                matches!(own.get::<SubjectKeyIdentifier>(), Ok(Some((_, key))) if &key == named)
            }
        }
    };
    let found = certificates.iter().find(|(certificate, _)| is_meant(certificate));
    found.map(|(_, der)| der).ok_or(TimestampError::Signature("the signer's certificate is not in it"))
}

/// RFC 5652 §5.4: the signature is over the attributes, and they hold the content's digest and type.
fn check_signature(signer: &SignerInfo, content: &[u8], by: &EndEntityCert<'_>) -> Result<(), TimestampError> {
    let failed = TimestampError::Signature;
    let attributes = signer.signed_attrs.as_ref().ok_or(failed("it has no signed attributes"))?;
    let value = |oid| {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
        let (first, second) = (found.next()?, found.next());
        match (first.values.as_slice(), second) {
            ([value], None) => Some(value),
            _ => None,
        }
    };
    let kind = value(CONTENT_TYPE).and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
    if kind != Some(TST_INFO) {
        return Err(failed("its attributes do not speak of a timestamp"));
    }
    let algorithm = match signer.digest_alg.oid {
        SHA_256 => &SHA256,
        SHA_384 => &SHA384,
        SHA_512 => &SHA512,
        _ => return Err(failed("its digest is none of SHA-256, SHA-384 and SHA-512")),
    };
    let said = value(MESSAGE_DIGEST).and_then(|value| value.decode_as::<OctetString>().ok());
    if said.is_none_or(|said| said.as_bytes() != digest::digest(algorithm, content).as_ref()) {
        return Err(failed("its content was changed"));
    }
    // The encoding as a SET, not as the tagged field that they are (RFC 5652 §5.4).
    let message = attributes.to_der().map_err(form)?;
    // All of them are good algorithms. The one that the key is for, and that the signer used, is among them or is not.
    let holds = |algorithm| by.verify_signature(algorithm, &message, signer.signature.as_bytes()).is_ok();
    if ALL_VERIFICATION_ALGS.iter().any(|algorithm| holds(*algorithm)) {
        Ok(())
    } else {
        Err(failed("it was changed, or made with another key or an algorithm that is not known here"))
    }
}

/// `YYYYMMDDhhmmss[.f…]Z` (RFC 3161 §2.4.2, `genTime`).
fn time_of(written: &Any) -> Result<Timestamp, TimestampError> {
    let wrong = || TimestampError::Form("its time cannot be read".into());
    let text = std::str::from_utf8(written.value()).map_err(|_| wrong())?;
    let text = text.strip_suffix('Z').filter(|_| written.tag() == Tag::GeneralizedTime).ok_or_else(wrong)?;
    Timestamp::strptime("%Y%m%d%H%M%S%.f%z", format!("{text}+0000")).map_err(|_| wrong())
}

fn form(error: der::Error) -> TimestampError {
    TimestampError::Form(error.to_string())
}

#[cfg(test)]
pub(super) mod tests;
