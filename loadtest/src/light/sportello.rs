//! A light client of our own server: one connection for both ways, offered by us; whose media an m-line carries is told by
//! events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::Light;
use super::connection::{Connection, Offer, Player, Standing, count};
use crate::call::{Seen, millis};
use crate::client::{ClientError, Going, Orders, Part};
use crate::events::Slot;
use crate::report::ClientReport;
use crate::sdp;

/// A light client from its answer on. Dropped, it falls silent.
pub(crate) struct Seat {
    connection: Connection,
    part: Part,
    location: String,
    posted: Instant,
    seen: watch::Sender<Seen>,
}

impl Seat {
    /// Posts the offer, and gets ready for the answer's server.
    pub(crate) async fn take(light: Light, part: Part, seen: watch::Sender<Seen>) -> Result<Self, ClientError> {
        let player = Player {
            film: part.film.clone(),
            voice: part.voice.clone(),
            delays: part.habits.delays.clone(),
            record: part.habits.record.clone(),
            meters: Arc::clone(&part.habits.meters),
            standing: Standing::new(1, seen.clone()),
        };
        let offer = Offer::make(&light, sdp::offer);
        let posted = offer.posted;
        let (answer, location) = part.api.offer(&part.session, offer.sdp.clone()).await?;
        let connection = offer.answered(&answer, player).await?;
        Ok(Self { connection, part, location, posted, seen })
    }

    /// Holds the connection until it is told to leave.
    pub(crate) async fn hold(
        self,
        orders: watch::Receiver<Orders>,
        mut news: mpsc::Receiver<HashMap<String, Slot>>,
    ) -> Result<ClientReport, ClientError> {
        let Self { mut connection, part, location, posted, seen } = self;
        let follow = async {
            while let Some(slots) = news.recv().await {
                seen.send_modify(|seen| seen.slots = slots);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            held = connection.hold(orders.clone()) => held?,
            () = follow => {}
        }
        if orders.borrow().going == Going::HangsUp {
            part.api.hang_up(&part.session, &location).await?;
        }
        let (join_ms, tally) = connection.finish().await?;
        let mut report = ClientReport {
            role: part.role.clone(),
            posted_ms: millis(posted.saturating_duration_since(part.began)),
            join_ms,
            ..ClientReport::default()
        };
        count(&mut report, &tally, posted, &seen.borrow().slots);
        Ok(report)
    }
}
