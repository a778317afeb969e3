//! How often one address may ask: for join links and codes, and with wrong or missing tokens.
//!
//! What protects a code is its five attempts, which are counted per person wherever they come from; what protects a
//! key is its length. The limits here keep one address from taking the node's time away from everybody else. They
//! count in memory, per node, by the generic cell rate algorithm: a check is a look-up and an atomic exchange, and
//! waits for nothing.
//!
//! An IPv4 address is counted by itself, an IPv6 address by its /64: that is what one subscriber is given, and may
//! change at will.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dashmap::DashMap;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::Api;
use super::problem::{Kind, Problem};
use crate::clock::Clock;

/// Addresses that are counted one by one, per limit; about 10 MB of each hundred thousand. Those that come when the
/// table is full share allowances, so lowering this lets fewer attackers crowd out honest newcomers.
const MOST_ADDRESSES: usize = 100_000;
/// Allowances that those share. More: an attacker with many addresses has that many allowances. Fewer: an honest newcomer
/// more likely shares one with an attacker.
const SHARED: u64 = 4_096;
/// Time between two sweeps of addresses that have their whole allowance again. Longer: a flood fills the table for
/// longer. Shorter: walking through the table costs more than it frees.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Header in which proxies say for whom they ask.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// How often, and whose word on the address counts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Requests for join links and codes.
    pub joins: Rate,
    /// Requests that were answered with 401.
    pub wrong_tokens: Rate,
}

/// An allowance: so many at once, and so many a minute for ever after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a minute in the long run.
    pub per_minute: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

/// A network, or a single address, as it is written in the configuration: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
}

/// The text is neither an IP address nor a network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither an IP address nor a network like 10.0.0.0/8")]
pub struct NoNetwork;

impl Network {
    /// Whether the address lies in this network. IPv4 addresses are the same whether written in IPv6 or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        (mapped(address) & self.mask) == self.address
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(bits), str::parse::<u32>).map_err(|_| NoNetwork)?;
        if length > bits {
            return Err(NoNetwork);
        }
        let mask = u128::MAX.checked_shl(bits - length).unwrap_or(0);
        Ok(Self { address: mapped(address) & mask, mask })
    }
}

/// Every address as an IPv6 one (RFC 4291, section 2.5.5.2).
fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// What is counted as one: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(u128);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(v6.to_bits() & (u128::MAX << 64)),
            v4 @ IpAddr::V4(_) => Self(mapped(v4)),
        }
    }
}

impl fmt::Debug for Source {
    /// Not in the clear: where people are is nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source(…)")
    }
}

/// Whom a request comes from: the peer, or behind trusted proxies the last address that none of them vouches for.
///
/// `None`: not over the network at all.
fn source(trusted: &[Network], extensions: &Extensions, headers: &HeaderMap) -> Option<Source> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut found = peer.ip();
    // Each proxy appends whom it was asked by, so from the right: what an untrusted hop wrote further left may be
    // made up.
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    for hop in lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')) {
        if !is_trusted(found) {
            break;
        }
        let Some(address) = hop_address(hop.trim()) else { break };
        found = address;
    }
    Some(found.into())
}

/// Some proxies write the port as well: `192.0.2.1:5060`, `[2001:db8::1]:5060`.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bracketed = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bracketed.parse().or_else(|_| hop.parse().map(|with_port: SocketAddr| with_port.ip())).ok()
}

/// The node's limits. Clones count together.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    trusted_proxies: Vec<Network>,
    joins: Limit<Ticks>,
    wrong_tokens: Limit<Ticks>,
}

impl Limits {
    /// Limits that count from now.
    pub fn new(settings: &Settings, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            trusted_proxies: settings.trusted_proxies.clone(),
            joins: Limit::new("join", settings.joins, MOST_ADDRESSES, Ticks(clock)),
            wrong_tokens: Limit::new("token", settings.wrong_tokens, MOST_ADDRESSES, Ticks(clock)),
        }))
    }

    /// Forgets addresses that have been quiet, for as long as it runs.
    pub async fn upkeep(self) {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        loop {
            tick.tick().await;
            self.0.joins.sweep();
            self.0.wrong_tokens.sweep();
        }
    }

    fn source(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<Source> {
        source(&self.0.trusted_proxies, extensions, headers)
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

/// The request may ask for a join link: its address has not done so too often.
#[derive(Clone, Copy, Debug)]
pub struct MayJoin;

impl FromRequestParts<Api> for MayJoin {
    type Rejection = TooMany;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, TooMany> {
        match api.limits.source(&parts.extensions, &parts.headers) {
            Some(source) => api.limits.0.joins.check(source).map(|()| Self),
            None => Ok(Self),
        }
    }
}

/// Counts every 401 against its address; past the limit it becomes a 429. A valid token never meets this: whether one is
/// valid shows only when it has been looked up, so the work is done, and what is saved is the guesser's knowledge.
pub(super) async fn limit_wrong_tokens(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let source = limits.source(request.extensions(), request.headers());
    let response = next.run(request).await;
    let is_wrong = response.status() == StatusCode::UNAUTHORIZED || response.extensions().get::<WrongToken>().is_some();
    let Some(source) = source.filter(|_| is_wrong) else { return response };
    let Err(too_many) = limits.0.wrong_tokens.check(source) else { return response };
    let mut refused = too_many.into_response();
    // Scripts of other origins could not read the refusal without these.
    let cors = response.headers().iter().filter(|(name, _)| name.as_str().starts_with("access-control-"));
    refused.headers_mut().extend(cors.map(|(name, value)| (name.clone(), value.clone())));
    refused
}

/// Marks an answer to a wrong token that is no 401, for [`limit_wrong_tokens`].
#[derive(Clone, Copy, Debug)]
pub(super) struct WrongToken;

/// The refusal: 429 with `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// When the next request is allowed, from now.
    pub retry_after: Duration,
}

impl IntoResponse for TooMany {
    fn into_response(self) -> Response {
        // RFC 9110, section 10.2.3: whole seconds; rounded up, so that whoever obeys is let in.
        let seconds = self.retry_after.as_millis().div_ceil(1000).max(1);
        let detail = format!("too many requests from this address; try again in {seconds} s");
        let mut response = Problem::new(Kind::TOO_MANY_REQUESTS).detail(detail).into_response();
        if let Ok(value) = HeaderValue::try_from(seconds.to_string()) {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}

/// One allowance per address.
struct Limit<C: GovernorClock> {
    name: &'static str,
    limiter: RateLimiter<Source, Table, C, NoOpMiddleware<C::Instant>>,
}

impl<C: GovernorClock> Limit<C> {
    fn new(name: &'static str, rate: Rate, most_addresses: usize, clock: C) -> Self {
        let quota = Quota::per_minute(rate.per_minute).allow_burst(rate.burst);
        Self { name, limiter: RateLimiter::new(quota, Table::new(most_addresses), clock) }
    }

    fn check(&self, source: Source) -> Result<(), TooMany> {
        self.limiter.check_key(&source).map_err(|until| {
            metrics::counter!("sportello_http_limited_total", "limit" => self.name).increment(1);
            TooMany { retry_after: until.wait_time_from(self.limiter.clock().now()) }
        })
    }

    fn sweep(&self) {
        let before = self.limiter.len();
        self.limiter.retain_recent();
        if before >= MOST_ADDRESSES {
            tracing::warn!(limit = self.name, "so many addresses asked at once that newcomers shared one allowance");
        }
    }
}

/// The node's monotonic clock as governor reads it.
struct Ticks(Clock);

impl GovernorClock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.mono().as_nanos())
    }
}

/// What is remembered of addresses: of a bounded number of them each by itself, of the rest in groups.
struct Table {
    each: DashMap<Source, InMemoryState>,
    /// Entries of `each`: counting them takes every shard's lock. After a sweep it may be off by the few that came
    /// meanwhile, until the next one.
    count: AtomicUsize,
    /// Allowances that several addresses share when the table is full.
    rest: DashMap<u64, InMemoryState>,
    hasher: RandomState,
    most: usize,
}

impl Table {
    fn new(most: usize) -> Self {
        Self {
            each: DashMap::new(),
            count: AtomicUsize::new(0),
            rest: DashMap::new(),
            hasher: RandomState::new(),
            most,
        }
    }
}

impl StateStore for Table {
    type Key = Source;

    fn measure_and_replace<T, F, E>(&self, source: &Source, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(state) = self.each.get(source) {
            return state.measure_and_replace(&NotKeyed::NonKey, measure);
        }
        if self.count.load(Ordering::Relaxed) >= self.most {
            // Who shares with whom cannot be chosen from outside.
            let shared = self.rest.entry(self.hasher.hash_one(source) % SHARED).or_default();
            return shared.measure_and_replace(&NotKeyed::NonKey, measure);
        }
        let state = self.each.entry(*source).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            InMemoryState::default()
        });
        state.measure_and_replace(&NotKeyed::NonKey, measure)
    }
}

impl ShrinkableKeyedStateStore<Source> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        ShrinkableKeyedStateStore::retain_recent(&self.each, drop_below);
        self.count.store(self.each.len(), Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rate(per_minute: u32, burst: u32) -> Rate {
        Rate { per_minute: NonZeroU32::new(per_minute).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    fn limit(rate: Rate, most: usize) -> (Limit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limit::new("test", rate, most, clock.clone()), clock)
    }

    fn from(address: &str) -> Source {
        address.parse::<IpAddr>().unwrap().into()
    }

    fn seen(trusted: &[&str], peer: &str, forwarded: &[&str]) -> Source {
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4711)));
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        source(&trusted, &extensions, &headers).unwrap()
    }

    #[test]
    fn after_its_burst_an_address_waits_and_others_do_not() {
        let (limit, clock) = limit(rate(60, 5), 100);
        let (one, other) = (from("192.0.2.1"), from("192.0.2.2"));
        for _ in 0..5 {
            assert_eq!(limit.check(one), Ok(()));
        }
        assert_eq!(limit.check(one), Err(TooMany { retry_after: Duration::from_secs(1) }));
        assert_eq!(limit.check(other), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!(limit.check(one), Ok(()), "sixty a minute are one a second");
        assert!(limit.check(one).is_err());
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address_and_ipv4_in_ipv6_is_ipv4() {
        assert_eq!(from("2001:db8:1:2::1"), from("2001:db8:1:2:ffff::9"));
        assert_ne!(from("2001:db8:1:2::1"), from("2001:db8:1:3::1"));
        assert_eq!(from("::ffff:192.0.2.1"), from("192.0.2.1"));
        assert_ne!(from("192.0.2.1"), from("192.0.2.2"));
    }

    #[test]
    fn a_full_table_lets_newcomers_share_allowances_until_it_is_swept() {
        let (limit, clock) = limit(rate(60, 2), 3);
        for last in 1..=3 {
            assert_eq!(limit.check(from(&format!("192.0.2.{last}"))), Ok(()));
        }
        assert_eq!(limit.check(from("198.51.100.1")), Ok(()));
        assert_eq!(limit.check(from("198.51.100.1")), Ok(()));
        assert!(limit.check(from("198.51.100.1")).is_err(), "the third of two");
        let newcomers = (0..20_000_u32).map(|number| from(&format!("10.0.{}.{}", number / 256, number % 256)));
        let refused = newcomers.filter(|source| limit.check(*source).is_err()).count();
        assert!(refused > 11_000, "{refused} of 20,000, who share 4,096 times two");
        assert_eq!(limit.check(from("192.0.2.1")), Ok(()), "who is known has an allowance of their own");
        assert_eq!(limit.limiter.len(), 3);
        clock.advance(Duration::from_mins(1));
        limit.sweep();
        assert_eq!(limit.limiter.len(), 0, "after a minute all have their whole allowance again");
        assert_eq!(limit.check(from("198.51.100.1")), Ok(()));
    }

    #[test]
    fn a_check_costs_less_than_five_microseconds() {
        let limit = Limit::new("test", rate(60, 10), MOST_ADDRESSES, Ticks(Clock::new()));
        let round = |first: u32| {
            let started = std::time::Instant::now();
            for address in first..first + 5000 {
                let _counted = limit.check(Source(address.into()));
            }
            started.elapsed() / 5000
        };
        // Ten rounds, as other tests run beside: what counts is what it costs when nobody interrupts.
        let best = (0..10).map(|number| round(number * 2500)).min().unwrap();
        assert!(best < Duration::from_micros(5), "{best:?}");
    }

    #[test]
    fn a_sweep_keeps_whoever_used_up_their_allowance() {
        let (limit, clock) = limit(rate(60, 10), 100);
        let greedy = from("192.0.2.1");
        while limit.check(greedy).is_ok() {}
        clock.advance(Duration::from_millis(500));
        limit.sweep();
        assert!(limit.check(greedy).is_err());
    }

    #[test]
    fn forwarded_for_counts_only_from_trusted_proxies() {
        let client = from("203.0.113.9");
        assert_eq!(seen(&["10.0.0.0/8"], "10.1.2.3", &["203.0.113.9"]), client);
        assert_eq!(seen(&[], "10.1.2.3", &["203.0.113.9"]), from("10.1.2.3"));
        assert_eq!(seen(&["10.0.0.0/8"], "192.0.2.1", &["203.0.113.9"]), from("192.0.2.1"));
        assert_eq!(seen(&["10.0.0.0/8"], "::ffff:10.1.2.3", &["203.0.113.9"]), client);
        assert_eq!(seen(&["10.0.0.0/8"], "10.1.2.3", &[]), from("10.1.2.3"), "the proxy asks for itself");
    }

    #[test]
    fn the_rightmost_hop_that_is_not_a_trusted_proxy_is_the_client() {
        let trusted = ["10.0.0.0/8", "2001:db8:aa::/48"];
        let made_up = "198.51.100.1, 203.0.113.9, 10.9.9.9";
        assert_eq!(seen(&trusted, "10.1.2.3", &[made_up]), from("203.0.113.9"));
        assert_eq!(seen(&trusted, "2001:db8:aa::1", &["198.51.100.1", "203.0.113.9,10.9.9.9"]), from("203.0.113.9"));
        assert_eq!(seen(&trusted, "10.1.2.3", &["203.0.113.9:5060"]), from("203.0.113.9"));
        assert_eq!(seen(&trusted, "10.1.2.3", &["[2001:db8:1::9]:5060"]), from("2001:db8:1::9"));
        assert_eq!(seen(&trusted, "10.1.2.3", &["198.51.100.1, unknown"]), from("10.1.2.3"), "nobody knows further");
        assert_eq!(seen(&trusted, "10.1.2.3", &["10.2.2.2, 10.3.3.3"]), from("10.2.2.2"), "all are proxies");
    }

    #[test]
    fn a_network_is_an_address_with_or_without_a_length() {
        for text in ["127.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32", "0.0.0.0/0", "::/0"] {
            assert!(text.parse::<Network>().is_ok(), "{text}");
        }
        for text in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8"] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
        let every_v4: Network = "0.0.0.0/0".parse().unwrap();
        assert!(every_v4.contains("192.0.2.1".parse().unwrap()));
        assert!(!every_v4.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_request_that_did_not_come_over_the_network_has_no_source() {
        assert!(source(&[], &Extensions::new(), &HeaderMap::new()).is_none());
    }

    #[test]
    fn the_refusal_says_when_to_come_back_in_whole_seconds() {
        let response = TooMany { retry_after: Duration::from_millis(1200) }.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
