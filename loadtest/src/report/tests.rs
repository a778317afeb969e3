use super::*;
use crate::crowd::{ProbeReport, Request};

const LIMITS: Limits = Limits {
    join: Duration::from_secs(2),
    first_media: Duration::from_secs(3),
    loss: 0.01,
    delay_p99: None,
    comes_back: None,
    api_p99: None,
    cpu_per_packet: None,
};

fn client() -> ClientReport {
    ClientReport {
        role: "delegato".to_owned(),
        join_ms: Some(200),
        first_media_ms: Some(400),
        posted_ms: 100,
        sources: 4,
        sources_expected: 4,
        sent: 1_000,
        received: 2_000,
        expected: 2_000,
        keyframe_requests: 1,
        lost_on_purpose: 0,
    }
}

fn misses(client: ClientReport) -> Vec<String> {
    let mut report = Report::default();
    report.add(Ok(RoomReport { clients: vec![client], ..RoomReport::new(0) }));
    report.misses(&LIMITS)
}

#[test]
fn a_whole_room_misses_nothing() {
    assert_eq!(misses(client()), Vec::<String>::new());
}

#[test]
fn each_limit_is_missed_by_itself() {
    assert_eq!(misses(ClientReport { join_ms: Some(2_001), ..client() }).len(), 1);
    assert_eq!(misses(ClientReport { first_media_ms: Some(3_001), ..client() }).len(), 1);
    assert_eq!(misses(ClientReport { received: 1_979, ..client() }).len(), 1);
    assert_eq!(misses(ClientReport { sources: 3, ..client() }).len(), 1);
}

#[test]
fn a_run_without_rooms_is_not_a_good_run() {
    assert_eq!(Report::default().misses(&LIMITS).len(), 1);
}

#[test]
fn delay_and_cpu_are_limits_where_they_are_given() {
    let mut report = Report::default();
    report.add(Ok(RoomReport { clients: vec![client()], ..RoomReport::new(0) }));
    let server = ServerFigures { cpu_us_per_packet: 5.0, packets_per_second: 9.0, ..ServerFigures::default() };
    report.sum_up(DelayFigures { p99_ms: 8.0, ..DelayFigures::default() }, Some(server));
    assert_eq!(report.summary.join.count, 1);
    assert_eq!(report.misses(&LIMITS), Vec::<String>::new());
    let strict = Limits { delay_p99: Some(Duration::from_millis(7)), cpu_per_packet: Some(4.9), ..LIMITS };
    assert_eq!(report.misses(&strict).len(), 2);
    let page = report.html();
    assert!(page.contains("8.00 ms") && !page.contains("http://") && !page.contains("https://"), "self-contained");
    report.server = None;
    assert_eq!(report.misses(&strict).len(), 2, "without figures there is no verdict");
}

#[test]
fn who_does_not_come_back_or_late_is_told_of_with_the_reason() {
    let back = |cause, media_ms| ReturnReport {
        role: "citizen".to_owned(),
        cause,
        away_ms: 3_000,
        suspended: cause == Cause::Absence,
        join_ms: Some(100),
        media_ms,
    };
    let returns = vec![back(Cause::Churn, Some(300)), back(Cause::Churn, None), back(Cause::Absence, Some(900))];
    let mut report = Report::default();
    report.add(Ok(RoomReport { clients: vec![client()], returns, ..RoomReport::new(0) }));
    report.sum_up(DelayFigures::default(), None);
    let churn = &report.summary.returns[&Cause::Churn];
    assert_eq!((churn.times, churn.came_back, churn.suspended), (2, 1, 0));
    assert_eq!(report.summary.returns[&Cause::Absence].suspended, 1);
    assert_eq!(report.misses(&LIMITS).len(), 1);
    let strict = Limits { comes_back: Some(Duration::from_millis(500)), ..LIMITS };
    assert_eq!(report.misses(&strict).len(), 2);
    assert!(report.table().contains("absent 1 times, 1 came back, 1 rooms suspended"));
}

#[test]
fn a_slow_or_failing_api_a_lost_crowd_and_a_holed_recording_are_misses() {
    let mut report = Report::default();
    report.add(Ok(RoomReport { clients: vec![client()], ..RoomReport::new(0) }));
    let slow = Figures { count: 9, p99_ms: 51.0, ..Figures::default() };
    let kinds = BTreeMap::from([(Request::ReadRoom, slow), (Request::BookRoom, Figures::default())]);
    report.crowd.probe = Some(ProbeReport { kinds, ..ProbeReport::default() });
    assert_eq!(report.misses(&LIMITS), Vec::<String>::new(), "without a limit it may be slow");
    let strict = Limits { api_p99: Some(Duration::from_millis(50)), ..LIMITS };
    assert_eq!(report.misses(&strict), ["reading a room: p99 51.0 ms"]);
    report.crowd.probe = Some(ProbeReport::default());
    assert_eq!(report.misses(&LIMITS).len(), 1, "a probe that asked nothing says nothing");
    report.crowd = CrowdReport { waiting: 3, still_waiting: 2, ..CrowdReport::default() };
    report.verify = Some(VerifyReport { faults: vec!["a hole".to_owned()], ..VerifyReport::default() });
    assert_eq!(report.misses(&LIMITS).len(), 2);
    assert!(report.html().contains("a hole"));
}

#[test]
fn connections_of_one_person_are_summed_and_doubles_of_one_hide_no_loss_of_another() {
    let both = client().followed_by(&ClientReport { sources: 3, received: 9_000, join_ms: Some(9), ..client() });
    assert_eq!((both.received, both.expected, both.sources, both.join_ms), (4_000, 4_000, 3, Some(200)));
}

#[test]
fn packets_that_came_twice_do_not_hide_lost_ones() {
    let doubled = ClientReport { received: 4_000, ..client() };
    let starved = ClientReport { received: 0, ..client() };
    let room = RoomReport { clients: vec![doubled, starved], ..RoomReport::new(0) };
    assert!((room.loss() - 0.5).abs() < 1e-9);
}
