//! Where SRTP's keys come from: DTLS agrees on them inside `str0m`, and they are taken out there.
//!
//! A provider wraps `str0m`'s own and hands everything on but the keying material, which goes into a mailbox of the one
//! session. `str0m` never sees it, so that it can seal nothing: two that seal with the same keys would use the same
//! index twice, which gives AES-GCM's key away.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use str0m::config::{CryptoProvider, DtlsCert};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial, ProtocolVersion, SrtpProfile,
};

/// Keying material of one DTLS session (RFC 5764, section 4.2).
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) profile: SrtpProfile,
    pub(super) material: KeyingMaterial,
    /// We sent the `ClientHello`.
    pub(super) we_are_client: bool,
}

/// Where a session's keys appear once its handshake is done.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox(Arc<Mutex<Option<Agreed>>>);

impl Mailbox {
    /// Takes the keys, once.
    pub(super) fn take(&self) -> Option<Agreed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, agreed: Agreed) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreed);
    }
}

thread_local! {
    /// Providers are shared by all sessions, so a new session's mailbox is handed over on the thread that makes it.
    static NEWEST: RefCell<Option<Mailbox>> = const { RefCell::new(None) };
}

/// `str0m`'s cryptography with the wrapped DTLS.
pub(super) fn provider() -> CryptoProvider {
    static OWN: OnceLock<Tapping> = OnceLock::new();
    let crypto = str0m::crypto::from_feature_flags();
    CryptoProvider { dtls_provider: OWN.get_or_init(|| Tapping(crypto.dtls_provider)), ..crypto }
}

/// Makes a session with [`provider`] and returns it with its mailbox.
pub(super) fn with_mailbox<T>(make: impl FnOnce() -> T) -> (T, Mailbox) {
    NEWEST.take();
    let session = make();
    (session, NEWEST.take().unwrap_or_default())
}

#[derive(Debug)]
struct Tapping(&'static dyn DtlsProvider);

impl DtlsProvider for Tapping {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.0.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = self.0.new_dtls(cert, now, version, mtu)?;
        let mailbox = Mailbox::default();
        NEWEST.set(Some(mailbox.clone()));
        Ok(Box::new(Tapped { inner, mailbox, now }))
    }
}

#[derive(Debug)]
struct Tapped {
    inner: Box<dyn DtlsInstance>,
    mailbox: Mailbox,
    /// The time that it was told last.
    now: Instant,
}

impl DtlsInstance for Tapped {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let we_are_client = self.inner.is_active();
        match self.inner.poll_output(buf) {
            DtlsOutput::KeyingMaterial(material, profile) => {
                self.mailbox.put(Agreed { profile, material, we_are_client });
                // A timeout that is due already makes `str0m` ask for what comes after.
                DtlsOutput::Timeout(self.now)
            }
            other => other,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}
