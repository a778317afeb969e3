//! A light client of Janus: a connection that publishes, offered by us, and one that subscribes to all others, offered by
//! Janus once they publish.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::Light;
use super::connection::{Connection, Offer, Player, Standing, count};
use crate::call::{Seen, millis};
use crate::client::{ClientError, Going, Guest, Orders};
use crate::janus::Visit;
use crate::report::ClientReport;
use crate::sdp;

/// A light client from the answer to what it publishes on. Dropped, it falls silent.
pub(crate) struct Seat {
    light: Light,
    visit: Visit,
    publishing: Connection,
    player: Player,
    guest: Guest,
    posted: Instant,
    seen: watch::Sender<Seen>,
}

impl Seat {
    /// Enters the room and publishes.
    pub(crate) async fn take(light: Light, guest: Guest, seen: watch::Sender<Seen>) -> Result<Self, ClientError> {
        let player = Player {
            film: guest.film.clone(),
            voice: guest.voice.clone(),
            delays: guest.delays.clone(),
            record: None,
            meters: Arc::clone(&guest.meters),
            standing: Standing::new(2, seen.clone()),
        };
        let visit = Visit::begin(&guest.door).await?;
        let offer = Offer::make(&light, sdp::publish);
        let posted = offer.posted;
        let answer = visit.publish(&guest.role, offer.sdp.clone()).await?;
        let publishing = offer.answered(&answer, player.clone()).await?;
        visit.trickle(&sdp::host(publishing.local())?.to_sdp_string()).await?;
        Ok(Self { light, visit, publishing, player, guest, posted, seen })
    }

    /// Subscribes, and holds both connections until it is told to leave.
    pub(crate) async fn hold(self, orders: watch::Receiver<Orders>) -> Result<ClientReport, ClientError> {
        let Self { light, visit, mut publishing, player, guest, posted, seen } = self;
        let mut leave = orders.clone();
        let subscribing = async {
            let feeds = tokio::select! {
                feeds = visit.others(guest.others) => feeds?,
                _ = leave.wait_for(|orders| orders.going != Going::Stays) => return Ok(None),
            };
            let subscription = visit.subscribe(&feeds).await?;
            let (mut connection, answer) = Connection::answer(&light, &subscription.offer, player).await?;
            visit.start(subscription.handle(), answer).await?;
            seen.send_modify(|seen| seen.slots = subscription.slots);
            connection.hold(orders.clone()).await?;
            Ok(Some(connection))
        };
        let (subscribing, ()) = tokio::try_join!(subscribing, publishing.hold(orders.clone()))?;
        visit.end().await?;

        let mut report = ClientReport {
            role: guest.role,
            posted_ms: millis(posted.saturating_duration_since(guest.began)),
            ..ClientReport::default()
        };
        let (published, tally) = publishing.finish().await?;
        count(&mut report, &tally, posted, &seen.borrow().slots);
        if let Some(subscribing) = subscribing {
            let (subscribed, tally) = subscribing.finish().await?;
            // Each from its own offer: the longer one.
            report.join_ms = published.zip(subscribed).map(|(published, subscribed)| published.max(subscribed));
            count(&mut report, &tally, posted, &seen.borrow().slots);
        }
        Ok(report)
    }
}
