//! The seeds' tables, the clocks' changes, holidays, what is free, and what a file is refused for.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const PROFILES: [(&str, u16); 2] = [("delega", 30), ("videochiamata", 20)];

const SHIPPED: &str = include_str!("../../config/calendar.toml");

fn shipped() -> Calendar {
    Calendar::parse(SHIPPED, &PROFILES).unwrap()
}

fn calendar(text: &str) -> Calendar {
    Calendar::parse(text, &PROFILES).unwrap()
}

/// One counter in Roma for videochiamata on all days; `rest` are further keys of it.
fn one_counter(rest: &str) -> String {
    format!(
        "[[opening]]\noffice = \"Roma\"\ncounter = \"A\"\nprofile = \"videochiamata\"\nweekdays = [\"monday\", \
         \"tuesday\", \"wednesday\", \"thursday\", \"friday\", \"saturday\", \"sunday\"]\n{rest}\n"
    )
}

const NINE_TO_TEN: &str = "from = \"09:00\"\nto = \"10:00\"\n";

fn rome() -> TimeZone {
    TimeZone::get("Europe/Rome").unwrap()
}

/// A moment by Roma's clock, e.g. `2026-03-10T09:00`; of one shown twice the first.
fn at(local: &str) -> Timestamp {
    let local: jiff::civil::DateTime = local.parse().unwrap();
    local.to_zoned(rome()).unwrap().timestamp()
}

fn midnight(day: &str) -> Timestamp {
    at(&format!("{day}T00:00"))
}

/// All slots of a profile from the beginning of one day to that of another.
fn between<'c>(calendar: &'c Calendar, profile: &str, from: &str, to: &str) -> Vec<Slot<'c>> {
    let query = SlotQuery { profile, office: None, counter: None, from: midnight(from), to: midnight(to) };
    calendar.slots(&query).collect()
}

/// The same as `day beginning-end` by Roma's clock.
fn read(slots: &[Slot<'_>]) -> Vec<String> {
    let clock = |at: Timestamp| rome().to_datetime(at);
    slots
        .iter()
        .map(|s| format!("{}-{}", clock(s.start).strftime("%a %H:%M"), clock(s.end).strftime("%H:%M")))
        .collect()
}

#[test]
fn delega_is_offered_on_tuesday_and_thursday_from_nine_to_noon_in_half_hours() {
    let calendar = shipped();
    let week = between(&calendar, "delega", "2026-03-09", "2026-03-16");
    let expected: Vec<_> = ["Tue", "Thu"]
        .iter()
        .flat_map(|day| {
            ["09:00-09:30", "09:30-10:00", "10:00-10:30", "10:30-11:00", "11:00-11:30", "11:30-12:00"]
                .map(|hours| format!("{day} {hours}"))
        })
        .collect();
    assert_eq!(read(&week), expected);
}

/// The table of the second seed: office, counter, day.
const TABLE: &[(&str, &str, Weekday)] = {
    use Weekday::{Friday, Monday, Thursday, Tuesday, Wednesday};
    const INSURANCE: &str = "conto assicurativo-pensioni-prestazioni pubbliche-inv. civ.";
    const SUPPORT: &str = "indennità e ammortizzatori sociali";
    const MILANO: &str = "Filiale Metropolitana Milano (4900) e Agenzia complessa Milano Nord (4902) - Unico Front end";
    const CODOGNO: &str = "conto assicurativo-pensioni-indennità-ammortizzatori sociali";
    &[
        ("Direzione Provinciale Cremona", INSURANCE, Thursday),
        ("Direzione Provinciale Cremona", SUPPORT, Thursday),
        ("Agenzia territoriale di Crema", "conto assicurativo e pensioni", Wednesday),
        ("Agenzia territoriale di Crema", SUPPORT, Wednesday),
        ("Direzione Provinciale Lodi", INSURANCE, Tuesday),
        ("Direzione Provinciale Lodi", SUPPORT, Tuesday),
        ("Agenzia territoriale di Codogno", CODOGNO, Tuesday),
        (MILANO, INSURANCE, Thursday),
        (MILANO, SUPPORT, Wednesday),
        ("Agenzia complessa di Milano Est", INSURANCE, Wednesday),
        ("Agenzia complessa di Milano Est", SUPPORT, Wednesday),
        ("Direzione Provinciale Genova", "conto assicurativo", Monday),
        ("Direzione Provinciale Genova", "pensioni", Monday),
        ("Direzione Provinciale Genova", SUPPORT, Tuesday),
        ("Agenzia complessa di Sestri Levante", "multiservizi", Monday),
        ("Agenzia complessa di Sestri Ponente", INSURANCE, Monday),
        ("Agenzia complessa di Sestri Ponente", SUPPORT, Tuesday),
        ("Direzione Provinciale Reggio Calabria", INSURANCE, Monday),
        ("Direzione Provinciale Reggio Calabria", SUPPORT, Wednesday),
        ("Direzione Provinciale Cosenza", INSURANCE, Wednesday),
        ("Direzione Provinciale Cosenza", SUPPORT, Friday),
    ]
};

#[test]
fn videochiamata_is_offered_in_twenty_minutes_by_every_row_of_the_table_and_by_no_other() {
    let calendar = shipped();
    let week = between(&calendar, "videochiamata", "2026-03-09", "2026-03-16");
    let day_of = |slot: &Slot<'_>| rome().to_datetime(slot.start).date().weekday().to_monday_zero_offset();
    let offered: BTreeSet<_> = week.iter().map(|slot| (slot.office, slot.counter, day_of(slot))).collect();
    let table: BTreeSet<_> =
        TABLE.iter().map(|(office, counter, day)| (*office, *counter, day.to_monday_zero_offset())).collect();
    assert_eq!(offered, table);
    assert!(week.iter().all(|slot| slot.start.duration_until(slot.end) == SignedDuration::from_mins(20)));
}

#[test]
fn the_videochiamata_trial_begins_on_the_first_of_july_2025() {
    let calendar = shipped();
    assert_eq!(between(&calendar, "videochiamata", "2025-06-01", "2025-07-01"), []);
    let first_day = between(&calendar, "videochiamata", "2025-07-01", "2025-07-02");
    assert!(first_day.iter().any(|slot| slot.office == "Direzione Provinciale Lodi"), "a Tuesday");
}

#[test]
fn an_opening_without_a_slot_length_takes_its_profiles_and_leaves_what_is_too_short() {
    let calendar = calendar(&one_counter("from = \"09:00\"\nto = \"09:50\""));
    assert_eq!(
        read(&between(&calendar, "videochiamata", "2026-03-10", "2026-03-11")),
        ["Tue 09:00-09:20", "Tue 09:20-09:40"]
    );
}

#[test]
fn a_counter_may_be_open_until_midnight_and_from_midnight_on() {
    let late = one_counter("from = \"23:20\"\nto = \"24:00\"") + &one_counter("from = \"00:00\"\nto = \"00:20\"");
    assert_eq!(
        read(&between(&calendar(&late), "videochiamata", "2026-03-10", "2026-03-11")),
        ["Tue 00:00-00:20", "Tue 23:20-23:40", "Tue 23:40-00:00"]
    );
}

#[test]
fn easter_is_where_the_church_put_it() {
    for easter in [
        "1818-03-22",
        "1943-04-25",
        "2000-04-23",
        "2008-03-23",
        "2011-04-24",
        "2024-03-31",
        "2025-04-20",
        "2026-04-05",
        "2027-03-28",
        "2028-04-16",
        "2029-04-01",
        "2030-04-21",
        "2038-04-25",
        "2100-03-28",
    ] {
        let sunday: Date = easter.parse().unwrap();
        assert_eq!(holidays::easter_sunday(sunday.year()), Some(sunday));
    }
}

#[test]
fn easter_is_a_sunday_between_the_22nd_of_march_and_the_25th_of_april_in_any_year() {
    for year in 1583..=9999 {
        let easter = holidays::easter_sunday(year).unwrap();
        assert_eq!(easter.weekday(), Weekday::Sunday, "{easter}");
        assert!(((3, 22)..=(4, 25)).contains(&(easter.month(), easter.day())), "{easter}");
    }
}

fn holidays_of(year: i16) -> Vec<String> {
    let first = Date::constant(year, 1, 1);
    let days = first.series(1.day()).take_while(|day| day.year() == year);
    days.filter(|day| holidays::is_italian_holiday(*day)).map(|day| day.strftime("%m-%d").to_string()).collect()
}

#[test]
fn italys_holidays_of_2026_are_the_fixed_ones_easter_and_for_the_first_time_san_francesco() {
    assert_eq!(
        holidays_of(2026),
        [
            "01-01", "01-06", "04-05", "04-06", "04-25", "05-01", "06-02", "08-15", "10-04", "11-01", "12-08", "12-25",
            "12-26",
        ]
    );
    assert!(!holidays_of(2025).contains(&"10-04".into()));
    assert!(holidays_of(2027).contains(&"10-04".into()), "a Monday");
}

#[test]
fn nothing_opens_on_a_holiday_unless_holidays_are_switched_off() {
    let open = one_counter(NINE_TO_TEN);
    for holiday in [("2026-04-05", "2026-04-07"), ("2026-12-25", "2026-12-27"), ("2027-10-04", "2027-10-05")] {
        assert_eq!(between(&calendar(&open), "videochiamata", holiday.0, holiday.1), []);
    }
    let always = calendar(&format!("italian_holidays = false\n{open}"));
    assert_eq!(between(&always, "videochiamata", "2026-04-05", "2026-04-07").len(), 6);
}

#[test]
fn closed_days_hold_once_or_every_year_alone_or_in_a_row() {
    let open = one_counter("from = \"09:00\"\nto = \"09:20\"");
    let text = "closed = [\"2026-03-10\", \"2026-08-10/2026-08-14\", \"11-13\", \"12-30/01-03\"]\n".to_owned() + &open;
    let calendar = calendar(&text);
    let is_open = |day: &str| {
        let next = day.parse::<Date>().unwrap().tomorrow().unwrap().to_string();
        !between(&calendar, "videochiamata", day, &next).is_empty()
    };
    for closed in [
        "2026-03-10",
        "2026-08-10",
        "2026-08-12",
        "2026-08-14",
        "2026-11-13",
        "2031-11-13",
        "2026-12-30",
        "2027-01-02",
        "2027-01-03",
    ] {
        assert!(!is_open(closed), "{closed}");
    }
    for open in ["2027-03-10", "2026-08-09", "2027-08-12", "2026-11-14", "2026-12-29", "2027-01-04"] {
        assert!(is_open(open), "{open}");
    }
}

#[test]
fn the_patron_saints_day_closes_only_its_own_office() {
    let calendar = shipped();
    // Sant'Ambrogio 2028 is a Thursday, as are the openings of Milano and Cremona.
    let day = between(&calendar, "videochiamata", "2028-12-07", "2028-12-08");
    let offices: BTreeSet<_> = day.iter().map(|slot| slot.office).collect();
    assert_eq!(offices.into_iter().collect::<Vec<_>>(), ["Direzione Provinciale Cremona"]);
}

#[test]
fn nine_is_nine_by_the_clock_on_the_wall_on_both_sides_of_a_change() {
    let calendar = calendar(&format!("italian_holidays = false\n{}", one_counter(NINE_TO_TEN)));
    for (from, to, utc) in [
        ("2026-03-28", "2026-03-30", ["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z"]),
        ("2026-10-24", "2026-10-26", ["2026-10-24T07:00:00Z", "2026-10-25T08:00:00Z"]),
        ("2027-03-27", "2027-03-29", ["2027-03-27T08:00:00Z", "2027-03-28T07:00:00Z"]),
        ("2027-10-30", "2027-11-01", ["2027-10-30T07:00:00Z", "2027-10-31T08:00:00Z"]),
    ] {
        let slots = between(&calendar, "videochiamata", from, to);
        let of_nine = slots.iter().filter(|slot| rome().to_datetime(slot.start).time().hour() == 9).step_by(3);
        assert_eq!(of_nine.map(|slot| slot.start.to_string()).collect::<Vec<_>>(), utc);
        assert_eq!(slots.len(), 6);
    }
}

#[test]
fn at_night_a_skipped_time_offers_nothing_and_a_repeated_one_offers_once() {
    let night = one_counter("from = \"01:30\"\nto = \"04:00\"\nslot_minutes = 30");
    let calendar = calendar(&format!("italian_holidays = false\n{night}"));
    for (spring, monday) in [("2026-03-29", "2026-03-30"), ("2027-03-28", "2027-03-29")] {
        let slots = between(&calendar, "videochiamata", spring, monday);
        // The first ends at the moment at which 2:00 becomes 3:00.
        assert_eq!(read(&slots), ["Sun 01:30-03:00", "Sun 03:00-03:30", "Sun 03:30-04:00"]);
        assert!(slots.iter().all(|slot| slot.start.duration_until(slot.end) == SignedDuration::from_mins(30)));
    }
    for (autumn, monday, utc) in
        [("2026-10-25", "2026-10-26", "2026-10-25T00:30:00Z"), ("2027-10-31", "2027-11-01", "2027-10-31T00:30:00Z")]
    {
        let slots = between(&calendar, "videochiamata", autumn, monday);
        let starts: Vec<_> = slots.iter().map(|slot| rome().to_datetime(slot.start).time().to_string()).collect();
        assert_eq!(starts, ["01:30:00", "02:00:00", "02:30:00", "03:00:00", "03:30:00"]);
        assert_eq!(slots[2].start.to_string(), utc, "the first time that the clock shows 2:30");
        assert!(slots.iter().all(|slot| slot.start.duration_until(slot.end) == SignedDuration::from_mins(30)));
    }
}

#[test]
fn a_slot_that_the_change_of_the_clocks_cuts_through_is_not_offered_and_one_that_fits_the_second_time_is() {
    let calendar = calendar(&one_counter("from = \"01:30\"\nto = \"04:30\"\nslot_minutes = 60"));
    // 1:30–2:30 and 2:30–3:30 are not on the clock.
    assert_eq!(read(&between(&calendar, "videochiamata", "2026-03-29", "2026-03-30")), ["Sun 03:30-04:30"]);
    let autumn = between(&calendar, "videochiamata", "2026-10-25", "2026-10-26");
    assert_eq!(read(&autumn), ["Sun 01:30-02:30", "Sun 02:30-03:30", "Sun 03:30-04:30"]);
    assert_eq!(autumn[1].start.to_string(), "2026-10-25T01:30:00Z", "the second time that the clock shows 2:30");
}

#[test]
fn a_slot_is_found_by_its_exact_times_and_by_no_others() {
    let calendar = shipped();
    let slot = |profile, office, start, end| calendar.slot_at(profile, office, "Deleghe", at(start), at(end));
    let found = slot("delega", "Roma", "2026-03-10T09:30", "2026-03-10T10:00").unwrap();
    assert_eq!((found.start, found.end, found.parallel), (at("2026-03-10T09:30"), at("2026-03-10T10:00"), 1));
    for (profile, office, start, end) in [
        ("delega", "Roma", "2026-03-10T09:35", "2026-03-10T10:05"),
        ("delega", "Roma", "2026-03-10T09:30", "2026-03-10T10:30"),
        ("delega", "Roma", "2026-03-10T11:45", "2026-03-10T12:15"),
        ("delega", "Roma", "2026-03-11T09:30", "2026-03-11T10:00"),
        ("delega", "Roma", "2026-06-02T09:30", "2026-06-02T10:00"),
        ("delega", "roma", "2026-03-10T09:30", "2026-03-10T10:00"),
        ("videochiamata", "Roma", "2026-03-10T09:30", "2026-03-10T10:00"),
    ] {
        assert_eq!(slot(profile, office, start, end), None, "{profile} {office} {start} {end}");
    }
    assert_eq!(calendar.slot_at("delega", "Roma", "Deleghe", Timestamp::MAX, Timestamp::MIN), None);
}

#[test]
fn a_query_takes_slots_that_begin_in_it_and_ends_after_366_days() {
    let calendar = calendar(&format!("italian_holidays = false\n{}", one_counter(NINE_TO_TEN)));
    let query = |from, to| SlotQuery { profile: "videochiamata", office: Some("Roma"), counter: Some("A"), from, to };
    let some = query(at("2026-03-10T09:20"), at("2026-03-11T09:20"));
    assert_eq!(
        read(&calendar.slots(&some).collect::<Vec<_>>()),
        ["Tue 09:20-09:40", "Tue 09:40-10:00", "Wed 09:00-09:20"]
    );
    assert_eq!(calendar.slots(&query(midnight("2026-03-10"), Timestamp::MAX)).count(), 366 * 3);
    assert_eq!(calendar.slots(&query(midnight("2026-03-11"), midnight("2026-03-10"))).count(), 0);
    // Ends of time do not panic.
    assert!(calendar.slots(&query(Timestamp::MIN, Timestamp::MAX)).count() > 365);
    assert!(calendar.slots(&query(Timestamp::MAX, Timestamp::MAX)).count() == 0);
}

fn taken(counter: &'static str, from: &str, to: &str) -> Taken<'static> {
    let of_day = |time: &str| at(&format!("2026-03-10T{time}"));
    Taken { office: "Roma", counter, start: of_day(from), end: of_day(to) }
}

/// The one slot from 9:00 to 10:00 of a counter that takes `parallel` rooms.
fn places(parallel: u16, capacity: Option<u32>, booked: &[Taken<'_>]) -> u32 {
    let calendar = calendar(&one_counter(&format!("{NINE_TO_TEN}slot_minutes = 60\nparallel = {parallel}")));
    let slot = calendar.slot_at("videochiamata", "Roma", "A", at("2026-03-10T09:00"), at("2026-03-10T10:00")).unwrap();
    Occupancy::new(booked.iter().copied(), capacity).places(&slot)
}

#[test]
fn what_is_left_of_a_slot_is_counted_at_its_fullest_moment() {
    assert_eq!(places(3, None, &[]), 3);
    let one_after_the_other =
        [taken("A", "09:00", "09:20"), taken("A", "09:20", "09:40"), taken("A", "09:40", "10:00")];
    assert_eq!(places(3, None, &one_after_the_other), 2, "never more than one at once");
    let across = [taken("A", "08:30", "09:10"), taken("A", "09:05", "09:30"), taken("A", "09:30", "11:00")];
    assert_eq!(places(3, None, &across), 1, "two from 9:05 to 9:10");
    let full = [taken("A", "08:00", "11:00"), taken("A", "09:59", "10:30"), taken("A", "09:00", "10:00")];
    assert_eq!(places(3, None, &full), 0);
    assert_eq!(places(1, None, &full), 0, "more than the counter takes is not less than none");
}

#[test]
fn rooms_before_after_and_at_other_counters_take_no_place() {
    let others = [
        taken("A", "08:00", "09:00"),
        taken("A", "10:00", "11:00"),
        taken("B", "09:00", "10:00"),
        taken("A", "09:30", "09:30"),
        Taken { office: "Milano", ..taken("A", "09:00", "10:00") },
    ];
    assert_eq!(places(1, None, &others), 1);
}

#[test]
fn the_nodes_capacity_counts_the_rooms_of_all_counters() {
    let booked = [taken("B", "09:00", "09:30"), taken("C", "09:20", "10:00"), taken("A", "09:40", "10:00")];
    assert_eq!(places(9, Some(5), &booked), 3, "two at once on the node");
    assert_eq!(places(9, Some(2), &booked), 0);
    assert_eq!(places(2, Some(100), &booked), 1, "then the counter is the narrower");
    let occupancy = Occupancy::new(booked, Some(3));
    assert_eq!(occupancy.places_on_node(at("2026-03-10T09:20"), at("2026-03-10T09:25")), 1);
    assert_eq!(occupancy.places_on_node(at("2026-03-10T10:00"), at("2026-03-10T11:00")), 3);
    assert_eq!(Occupancy::default().places_on_node(Timestamp::MIN, Timestamp::MAX), u32::MAX);
}

#[test]
fn the_next_free_slots_are_the_first_with_a_place_left_in_order_of_time() {
    let calendar = shipped();
    let full_tuesday = Taken { counter: "Deleghe", ..taken("", "09:00", "11:30") };
    let occupancy = Occupancy::new([full_tuesday], None);
    let query = SlotQuery {
        profile: "delega",
        office: Some("Roma"),
        counter: None,
        from: at("2026-03-10T09:10"),
        to: Timestamp::MAX,
    };
    let next: Vec<_> = calendar.free(&query, &occupancy).take(3).collect();
    assert!(next.iter().all(|free| free.places == 1));
    let next: Vec<_> = next.into_iter().map(|free| free.slot).collect();
    assert_eq!(read(&next), ["Tue 11:30-12:00", "Thu 09:00-09:30", "Thu 09:30-10:00"]);
}

/// What a text is refused with.
fn refusal(text: &str) -> String {
    Calendar::parse(text, &PROFILES).map_or_else(|error| error.to_string(), |_| "nothing".into())
}

#[test]
fn what_is_wrong_is_named_with_its_key_and_what_is_allowed() {
    let with = |wrong: &str, right: &str| one_counter(NINE_TO_TEN).replacen(right, wrong, 1);
    let and = |more: &str| one_counter(NINE_TO_TEN) + more;
    for (text, expected) in [
        ("closed = [".into(), &["a TOML file like config/calendar.toml"][..]),
        (String::new(), &["opening = 0: allowed: 1 to 5000 entries"]),
        (format!("zone = 3\n{}", and("")), &["zone: allowed: one of time_zone, italian_holidays, closed"]),
        (format!("time_zone = \"Roma\"\n{}", and("")), &["time_zone = \"Roma\"", "IANA", "Europe/Rome"]),
        (format!("italian_holidays = \"si\"\n{}", and("")), &["italian_holidays = string \"si\"", "a boolean"]),
        (format!("closed = [\"12-24\", \"30-02\"]\n{}", and("")), &["closed[1] = \"30-02\"", "\"2026-12-24\""]),
        (format!("closed = [\"2026-08-21/2026-08-10\"]\n{}", and("")), &["closed[0]", "the first and the last"]),
        (format!("closed = [\"2026-08-21/12-24\"]\n{}", and("")), &["closed[0]", "the first and the last"]),
        (and("[[office]]\nname = \"Rom\""), &["office[0].name = \"Rom\"", "the office of an opening"]),
        (and("[[office]]\nname = \"Roma\"\nclosed = [\"x\"]"), &["office[0].closed[0] = \"x\""]),
        (and("[[office]]\nname = \"Roma\"\n[[office]]\nname = \"Roma\""), &["office[1].name", "each once"]),
        (with("\"A \"", "\"A\""), &["opening[0].counter = \"A \"", "1 to 200 characters"]),
        (with("\"\"", "\"Roma\""), &["opening[0].office = \"\""]),
        (with("\"delga\"", "\"videochiamata\""), &["opening[0].profile = \"delga\"", "one of delega, videochiamata"]),
        (with("\"lunedì\"", "\"monday\""), &["opening[0].weekdays[0] = \"lunedì\"", "one of monday, tuesday"]),
        (with("\"monday\"", "\"tuesday\""), &["opening[0].weekdays", "each once"]),
        (with("\"9:00\"", "\"09:00\""), &["opening[0].from = \"9:00\"", "\"00:00\" to \"24:00\""]),
        (with("\"24:01\"", "\"10:00\""), &["opening[0].to = \"24:01\"", "\"00:00\" to \"24:00\""]),
        (with("\"+1:00\"", "\"10:00\""), &["opening[0].to = \"+1:00\""]),
        (with("\"09:10\"", "\"10:00\""), &["opening[0].to = \"09:10\"", "a slot (20 minutes) after 09:00"]),
        (and("slot_minutes = 0"), &["opening[0].slot_minutes = 0", "1 to 480"]),
        (and("parallel = 0"), &["opening[0].parallel = 0", "1 to 1000"]),
        (and("parallel = -1"), &["opening[0].parallel = -1: allowed: 1 to 1000"]),
        (and("valid_from = \"1 July\""), &["opening[0].valid_from = \"1 July\"", "a date in quotes"]),
        (and("valid_from = 2025-07-01"), &["opening[0].valid_from", "text in quotes"]),
        (and("valid_from = \"2026-02-01\"\nvalid_until = \"2026-01-31\""), &["opening[0].valid_until", "or later"]),
        (and("slots = 3"), &["opening[0].slots: allowed: one of office, counter"]),
        (with("", "from = \"09:00\"\n"), &["opening[0].from: allowed: the key must be there"]),
    ] {
        let refusal = refusal(&text);
        for part in expected {
            assert!(refusal.contains(part), "{part:?} is missing in {refusal:?}, for\n{text}");
        }
    }
}

#[test]
fn openings_of_one_counter_and_profile_must_not_meet() {
    let row = |rest: &str| one_counter(NINE_TO_TEN) + rest + "\n";
    let twice = row("") + &row("");
    let text = refusal(&twice);
    assert!(text.contains("opening[1] = \"Roma, A\"") && text.contains("those of opening[0]"), "{text}");
    for apart in [
        row("") + &row("").replace("\"A\"", "\"B\""),
        row("") + &row("").replace("videochiamata", "delega"),
        row("") + &row("").replace("10:00", "11:00").replace("09:00", "10:00"),
        row("valid_until = \"2026-06-30\"") + &row("valid_from = \"2026-07-01\""),
    ] {
        assert_eq!(refusal(&apart), "nothing", "{apart}");
    }
}

#[test]
fn absurd_sizes_are_refused() {
    let closed = format!("closed = [{}]\n{}", "\"12-24\",".repeat(101), one_counter(NINE_TO_TEN));
    assert!(refusal(&closed).contains("closed = 101: allowed: at most 100 entries"), "{}", refusal(&closed));
    let name = one_counter(NINE_TO_TEN).replace("Roma", &"R".repeat(201));
    assert!(refusal(&name).contains("1 to 200 characters"));
    let all_day = one_counter("from = \"00:00\"\nto = \"24:00\"\nslot_minutes = 1");
    let mut crowded = String::new();
    for counter in 0..70 {
        write!(crowded, "{}", all_day.replace("\"A\"", &format!("\"{counter}\""))).unwrap();
    }
    assert!(
        refusal(&crowded).contains("100800 slots on one weekday\": allowed: at most 100000"),
        "{}",
        refusal(&crowded)
    );
    let many = one_counter(NINE_TO_TEN).repeat(5_001);
    assert!(refusal(&many).contains("opening = 5001: allowed: 1 to 5000 entries"), "{}", refusal(&many));
}

/// A row as the property's own reckoning keeps it.
#[derive(Clone, Debug)]
struct Row {
    weekdays: BTreeSet<usize>,
    from: u16,
    to: u16,
    slot: u16,
}

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

fn any_row() -> impl Strategy<Value = Row> {
    // Half of them at night, where the clocks are changed.
    let from = prop_oneof![0_u16..240, 0_u16..1_380];
    (proptest::collection::btree_set(0_usize..7, 1..=7), from, 1_u16..=120, 1_u16..480).prop_map(
        |(weekdays, from, slot, length)| {
            let from = from.min(1_440 - slot);
            Row { weekdays, from, slot, to: (from + slot.max(length)).min(1_440) }
        },
    )
}

fn written(zone: &str, rows: &[Row]) -> String {
    let mut text = format!("time_zone = \"{zone}\"\n");
    for (index, row) in rows.iter().enumerate() {
        let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let days: Vec<_> = row.weekdays.iter().map(|day| DAYS[*day]).collect();
        write!(
            text,
            "[[opening]]\noffice = \"Roma\"\ncounter = \"{index}\"\nprofile = \"delega\"\nweekdays = {days:?}\n\
             from = \"{}\"\nto = \"{}\"\nslot_minutes = {}\n",
            time(row.from),
            time(row.to),
            row.slot
        )
        .unwrap();
    }
    text
}

fn seeded() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(20_260_329), cases: 128, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn slots_ascend_never_overlap_at_one_opening_and_lie_inside_its_local_hours(
        rows in proptest::collection::vec(any_row(), 1..4),
        // Changes of an hour, of half an hour, in the other half of the year, at midnight, and none.
        zone in prop::sample::select(
            vec!["Europe/Rome", "Australia/Lord_Howe", "America/Santiago", "America/New_York", "UTC"]),
        // Days of 2026 and 2027, mostly those of the changes, and a few days from there.
        first_day in prop_oneof![0_i64..730, 60_i64..95, 240_i64..305],
        minutes in 0_i64..1_440,
        days in 1_i64..15,
    ) {
        let calendar = Calendar::parse(&written(zone, &rows), &PROFILES).unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let from = midnight("2026-01-01") + SignedDuration::from_mins(first_day * 1_440 + minutes);
        let to = from + SignedDuration::from_hours(days * 24);
        let query = SlotQuery { profile: "delega", office: None, counter: None, from, to };
        let slots: Vec<_> = calendar.slots(&query).collect();
        prop_assert!(slots.is_sorted_by_key(|slot| slot.start));
        for (index, row) in rows.iter().enumerate() {
            let own: Vec<_> = slots.iter().filter(|slot| slot.counter == index.to_string()).collect();
            for pair in own.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start, "{pair:?}");
            }
            for slot in &own {
                prop_assert!(from <= slot.start && slot.start < to);
                prop_assert_eq!(slot.start.duration_until(slot.end), SignedDuration::from_mins(row.slot.into()));
                let first = zone.to_datetime(slot.start);
                let last = zone.to_datetime(slot.end - SignedDuration::from_nanos(1));
                prop_assert_eq!(first.date(), last.date());
                let minute_of = |at: jiff::civil::DateTime| {
                    u16::try_from(at.hour()).unwrap() * 60 + u16::try_from(at.minute()).unwrap()
                };
                prop_assert!(row.from <= minute_of(first) && minute_of(last) < row.to, "{slot:?}");
                prop_assert_eq!((minute_of(first) - row.from) % row.slot, 0);
                let day = usize::try_from(first.date().weekday().to_monday_zero_offset()).unwrap();
                prop_assert!(row.weekdays.contains(&day));
                prop_assert!(!holidays::is_italian_holiday(first.date()));
                prop_assert_eq!(
                    calendar.slot_at("delega", slot.office, slot.counter, slot.start, slot.end), Some(*slot.to_owned()));
            }
            // On days without a change of the clocks none is missing.
            let (first, last) = (zone.to_datetime(from).date().tomorrow().unwrap(), zone.to_datetime(to).date());
            for day in first.series(1.day()).take_while(|day| *day < last) {
                let ordinary = day.to_zoned(zone.clone()).unwrap();
                let whole = ordinary.timestamp().duration_until(ordinary.tomorrow().unwrap().timestamp());
                if whole != SignedDuration::from_hours(24) {
                    continue;
                }
                let weekday = usize::try_from(day.weekday().to_monday_zero_offset()).unwrap();
                let is_open = row.weekdays.contains(&weekday) && !holidays::is_italian_holiday(day);
                let expected = if is_open { (row.to - row.from) / row.slot } else { 0 };
                let there = own.iter().filter(|slot| zone.to_datetime(slot.start).date() == day).count();
                prop_assert_eq!(there, usize::from(expected), "{}", day);
            }
        }
    }

    #[test]
    fn the_fullest_moment_is_that_of_counting_minute_by_minute(
        booked in proptest::collection::vec((0_i64..120, 0_i64..60), 0..12),
        (from, length) in (0_i64..120, 1_i64..60),
    ) {
        let minute = |minute: i64| midnight("2026-03-10") + SignedDuration::from_mins(minute);
        let rooms = booked.iter().map(|(start, length)| Taken {
            office: "Roma", counter: "A", start: minute(*start), end: minute(start + length),
        });
        let at_once = |now: i64| booked.iter().filter(|(start, length)| (*start..start + length).contains(&now)).count();
        let fullest = (from..from + length).map(at_once).max().unwrap();
        let left = Occupancy::new(rooms, Some(100)).places_on_node(minute(from), minute(from + length));
        prop_assert_eq!(usize::try_from(100 - left).unwrap(), fullest);
    }
}
