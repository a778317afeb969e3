//! Who of a room goes when, how, and for how long: drawn from a seed, so that a run can be repeated.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::network::Dice;
use crate::plan::duration;

/// People who go and come back.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "People who go and come back")]
pub struct Script {
    /// In each room one person, drawn by lot, hangs up about so often (a quarter earlier or later) and is back 2 to 6
    /// seconds later.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub churn: Option<Duration>,
    /// In each room the second person's network is gone so long after everyone was there, without a goodbye; they come
    /// back after LENGTH, 3s if it is left out: within the grace of the profiles, which is 10 seconds.
    #[arg(long, value_name = "AFTER[,LENGTH]", value_parser = reconnect)]
    pub reconnect: Option<Away>,
    /// In each room the second person hangs up so long after everyone was there, and is back after LENGTH, 15s if it is
    /// left out: longer than the grace, so that the room is suspended until then.
    #[arg(long, value_name = "AFTER[,LENGTH]", value_parser = absence)]
    pub absence: Option<Away>,
    /// Where the dice of churn and of bad networks begin: the same seed, the same run.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Once away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// From when everyone was connected.
    pub after: Duration,
    /// Until they begin to come back.
    pub length: Duration,
}

/// Why someone is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// They hung up for some seconds.
    Churn,
    /// Their network was gone.
    Reconnect,
    /// They hung up for longer than the grace.
    Absence,
}

/// One person's going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) cause: Cause,
    /// Whose, in the booking's order.
    pub(crate) seat: usize,
    pub(crate) away: Away,
}

/// Who is away for churn is back after so long at the earliest, and three times as long at the latest: within the usual
/// grace.
const CHURN_AWAY: Duration = Duration::from_secs(2);
/// Between someone's coming back and the next one's going, and the room's end: long enough for media to flow again. One
/// is away at a time, so that each return is seen by itself.
pub(crate) const SETTLE: Duration = Duration::from_secs(3);

impl Script {
    /// Whether anyone is to go before the end.
    pub(crate) fn is_any(&self) -> bool {
        self.churn.is_some() || self.reconnect.is_some() || self.absence.is_some()
    }

    /// Everyone's goings of one room, one after the other.
    ///
    /// # Errors
    /// In words: what was asked for by its time does not fit into the duration.
    pub(crate) fn departures(&self, room: u32, people: usize, lasts: Duration) -> Result<Vec<Departure>, String> {
        let second = |cause| move |away| Departure { cause, seat: 1, away };
        let asked = [self.reconnect.map(second(Cause::Reconnect)), self.absence.map(second(Cause::Absence))];
        let mut fixed: Vec<Departure> = asked.into_iter().flatten().collect();
        fixed.sort_by_key(|departure| departure.away.after);
        if let Some(late) = fixed.iter().find(|departure| departure.end() >= lasts) {
            return Err(format!("who goes after {:?} is not back before the end at {lasts:?}", late.away.after));
        }
        if fixed.windows(2).any(|pair| matches!(pair, [one, next] if one.end() + SETTLE > next.away.after)) {
            return Err(format!("--reconnect and --absence need {SETTLE:?} between the one's end and the other"));
        }
        let first_churn_ends = |step: Duration| step.mul_f64(1.25) + 3 * CHURN_AWAY + SETTLE;
        if let Some(step) = self.churn.filter(|step| first_churn_ends(*step) > lasts) {
            let needed = first_churn_ends(step);
            return Err(format!(
                "--churn {step:?} needs a --duration of {needed:?}, for someone to be back before the end"
            ));
        }
        let mut all = fixed.clone();
        all.extend(self.churned(room, people, lasts, &fixed));
        all.sort_by_key(|departure| departure.away.after);
        Ok(all)
    }

    fn churned(&self, room: u32, people: usize, lasts: Duration, fixed: &[Departure]) -> Vec<Departure> {
        // A step of nothing would draw for ever.
        let Some(step) = self.churn.filter(|step| !step.is_zero()) else { return Vec::new() };
        let mut dice = Dice::new(self.seed ^ (u64::from(room) << 32));
        let (mut drawn, mut free_from, mut nominal) = (Vec::<Departure>::new(), Duration::ZERO, Duration::ZERO);
        while nominal < lasts {
            let after = step.mul_f64(0.75 + dice.roll() / 2.0) + nominal;
            let length = CHURN_AWAY.mul_f64(1.0 + 2.0 * dice.roll());
            let mut away = Away { after: after.max(free_from), length };
            for other in fixed {
                if away.after < other.end() + SETTLE && other.away.after < away.after + length + SETTLE {
                    away.after = other.end() + SETTLE;
                }
            }
            let departure = Departure { cause: Cause::Churn, seat: dice.below(people), away };
            if departure.end() + SETTLE > lasts {
                break;
            }
            free_from = departure.end() + SETTLE;
            drawn.push(departure);
            nominal += step;
        }
        drawn
    }
}

impl Departure {
    /// When they begin to come back.
    pub(crate) fn end(&self) -> Duration {
        self.away.after + self.away.length
    }
}

fn reconnect(text: &str) -> Result<Away, String> {
    away(text, Duration::from_secs(3))
}

fn absence(text: &str) -> Result<Away, String> {
    away(text, Duration::from_secs(15))
}

fn away(text: &str, usual: Duration) -> Result<Away, String> {
    Ok(match text.split_once(',') {
        Some((after, length)) => Away { after: duration(after)?, length: duration(length)? },
        None => Away { after: duration(text)?, length: usual },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_absence_is_a_time_and_a_length_that_may_be_left_out() {
        assert_eq!(absence("20s"), Ok(Away { after: 20 * SECOND, length: 15 * SECOND }));
        assert_eq!(reconnect("20s"), Ok(Away { after: 20 * SECOND, length: 3 * SECOND }));
        assert_eq!(absence("5s,1m"), Ok(Away { after: 5 * SECOND, length: 60 * SECOND }));
        assert!(absence("5s,").is_err() && absence("").is_err());
    }

    #[test]
    fn one_is_away_at_a_time_and_back_before_the_end() {
        let lasts = 300 * SECOND;
        let script = Script {
            churn: Some(10 * SECOND),
            reconnect: Some(Away { after: 40 * SECOND, length: 3 * SECOND }),
            absence: Some(Away { after: 100 * SECOND, length: 15 * SECOND }),
            seed: 7,
        };
        for room in 0..20 {
            let departures = script.departures(room, 3, lasts).unwrap();
            assert!(departures.len() > 15, "{}", departures.len());
            assert!(departures.iter().all(|departure| departure.seat < 3 && departure.end() < lasts));
            assert!(departures.windows(2).all(|pair| pair[0].end() + SETTLE <= pair[1].away.after), "{departures:?}");
            assert_eq!(departures.iter().filter(|departure| departure.cause != Cause::Churn).count(), 2);
            assert_eq!(departures, script.departures(room, 3, lasts).unwrap());
        }
        assert_ne!(script.departures(0, 3, lasts), script.departures(1, 3, lasts));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_churn_that_fits_happens_in_every_room() {
        let away = |after| Some(Away { after: after * SECOND, length: 10 * SECOND });
        let late = Script { absence: away(12), ..Script::default() };
        assert!(late.departures(0, 3, 20 * SECOND).is_err());
        let both = Script { absence: away(3), reconnect: away(14), ..Script::default() };
        assert!(both.departures(0, 3, 60 * SECOND).is_err());
        let churn = Script { churn: Some(4 * SECOND), ..Script::default() };
        assert!(churn.departures(0, 2, 13 * SECOND).is_err());
        assert!((0..100).all(|room| !churn.departures(room, 2, 14 * SECOND).unwrap().is_empty()));
        let never = Script { churn: Some(Duration::ZERO), ..Script::default() };
        assert_eq!(never.departures(0, 2, 10 * SECOND), Ok(Vec::new()));
    }
}
