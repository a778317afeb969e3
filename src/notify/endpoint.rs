//! Addresses that the node sends to.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

/// Where messages are sent: `https://`, or `http://` where the configuration allows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// What [`Endpoint::parse`] takes, as a problem's text says it.
    pub const ALLOWED: &str = "https://host[:port][/path], without user, password and #fragment; http:// only to this \
                               machine itself, or with allow_plain_http = true";

    /// An address. Messages carry personal data and codes, so plain HTTP is only for receivers on this machine, unless
    /// `allow_plain_http` says that the way to the receiver is protected otherwise.
    pub fn parse(text: &str, allow_plain_http: bool) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return None,
        };
        let allowed = !plain || allow_plain_http || is_loopback(url.host_str()?);
        let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        (allowed && bare).then_some(Self(url))
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    /// Whether the far end is known by a certificate.
    pub(super) fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Debug for Endpoint {
    /// Without path and query: receivers and gateways put keys there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}://{}…)", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_or_by_permission() {
        for text in
            ["https://booking.example.it/hooks?k=1", "http://127.0.0.1:9/", "http://[::1]:9/x", "http://localhost/"]
        {
            assert!(Endpoint::parse(text, false).is_some(), "{text}");
        }
        for text in ["http://booking.example.it/", "http://10.0.0.1/", "http://localhost.example.it/"] {
            assert!(Endpoint::parse(text, false).is_none(), "{text}");
            assert!(Endpoint::parse(text, true).is_some(), "{text}");
        }
    }

    #[test]
    fn addresses_with_users_fragments_or_other_schemes_are_refused() {
        for text in ["", "booking.example.it", "https://me:pw@b.example/", "https://b.example/#x", "ftp://b.example/"] {
            assert!(Endpoint::parse(text, true).is_none(), "{text}");
        }
    }

    #[test]
    fn an_address_is_printed_without_path_and_query() {
        let endpoint = Endpoint::parse("https://b.example/key-1?token=2", false).unwrap();
        assert_eq!(format!("{endpoint:?}"), "Endpoint(https://b.example…)");
    }
}
