//! The report as one page that needs nothing else: no script, no font, no address.

use std::fmt::Write as _;

use crate::report::{Report, RoomReport};
use crate::server::ServerFigures;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#17324d}\
    h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
    td,th{padding:.3rem .6rem;border-bottom:1px solid #d9dadb;text-align:right;font-variant-numeric:tabular-nums}\
    td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto;background:#f5f7fa}\
    rect{fill:#06c}polyline{fill:none;stroke:#06c;stroke-width:2}text{font-size:11px;fill:#455b71}\
    .missed{color:#a80000}";

/// Size of a plot, and the room for its words.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 200.0;
const BELOW: f64 = 24.0;

impl Report {
    /// The report as a page. It names rooms by their number only.
    pub fn html(&self) -> String {
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>Load test</title><style>{STYLE}</style><h1>Load test</h1>"
        );
        self.write_summary(&mut page);
        self.write_rest(&mut page);
        page.push_str("<h2>Delay of voice</h2>");
        let bars: Vec<(String, f64)> =
            self.delays.histogram.iter().map(|(ms, count)| (format!("{ms:.2} ms"), to_float(*count))).collect();
        write_bars(&mut page, "Packets of voice by their delay", &bars);
        if let Some(server) = &self.server {
            write_server(&mut page, server);
        }
        write_rooms(&mut page, &self.rooms);
        let faults = self.failures.iter().chain(self.verify.iter().flat_map(|verify| &verify.faults));
        if faults.clone().next().is_some() {
            page.push_str("<h2>Failed</h2><ul class=\"missed\">");
            for failure in faults {
                let _ = write!(page, "<li>{}", escaped(failure));
            }
            page.push_str("</ul>");
        }
        page.push_str("</html>\n");
        page
    }

    fn write_summary(&self, page: &mut String) {
        let (summary, delays) = (&self.summary, &self.delays);
        let times = |times: &crate::timing::Figures| {
            format!("p50 {:.0} ms, p95 {:.0} ms, longest {:.0} ms", times.p50_ms, times.p95_ms, times.max_ms)
        };
        let run = &self.run;
        let asked = format!(
            "{} of profile {}, {:.0} s each, begun over {:.1} s{}",
            run.rooms,
            run.profile.name(),
            run.duration_s,
            run.ramp_s,
            if run.light { ", light clients" } else { "" }
        );
        let mut rows = vec![
            ("Server", self.target.name().to_owned()),
            ("Rooms asked for", asked),
            ("Rooms held, failed", format!("{}, {}", summary.rooms, summary.failed)),
            ("Offer to connection", times(&summary.join)),
            ("Last offer to everyone's media", times(&summary.first_media)),
            ("Packets sent, received", format!("{}, {}", summary.sent, summary.received)),
            ("Packets missing", format!("{:.3} %", summary.loss * 100.0)),
            (
                "Delay of voice",
                format!(
                    "p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
                    delays.p50_ms, delays.p95_ms, delays.p99_ms, delays.max_ms
                ),
            ),
        ];
        if let Some(server) = &self.server {
            let ServerFigures { cores, memory_mib, memory_mib_per_room: room, .. } = server;
            rows.push(("Its load", format!("{cores:.2} cores, {memory_mib:.0} MiB at most ({room:.2} a room)")));
            rows.push((
                "Packets sent on",
                format!("{:.0} a second, {:.2} us of CPU each", server.packets_per_second, server.cpu_us_per_packet),
            ));
        }
        let tool = &self.tool;
        let cost = format!("{:.2} cores, {:.2} us of CPU for each packet", tool.cores, tool.cpu_us_per_packet);
        rows.push(("This tool itself", cost));
        page.push_str("<table>");
        for (what, figure) in rows {
            let _ = write!(page, "<tr><td>{what}<td>{figure}");
        }
        page.push_str("</table>");
    }
}

impl Report {
    /// What not every run has.
    fn write_rest(&self, page: &mut String) {
        let rest = self.figures_of_the_rest();
        if rest.is_empty() {
            return;
        }
        page.push_str("<h2>Comings and goings, API and recordings</h2><table>");
        for (what, figures) in rest {
            let name = match what {
                "away" => "People away",
                "lost" => "Lost on purpose",
                "crowd" => "Around the rooms",
                "api" => "API",
                _ => "Recordings",
            };
            let _ = write!(page, "<tr><td>{name}<td>{}", escaped(&figures));
        }
        page.push_str("</table>");
    }
}

fn write_server(page: &mut String, server: &ServerFigures) {
    let pairs = || server.looks.iter().zip(server.looks.iter().skip(1));
    let cores: Vec<(f64, f64)> = pairs()
        .filter(|(before, after)| after.at > before.at)
        .map(|(before, after)| (after.at, (after.cpu - before.cpu) / (after.at - before.at)))
        .collect();
    let memory: Vec<(f64, f64)> =
        server.looks.iter().map(|look| (look.at, look.memory / f64::from(1_u32 << 20))).collect();
    let packets: Vec<(f64, f64)> = pairs()
        .filter(|(before, after)| after.at > before.at)
        .map(|(before, after)| (after.at, (after.forwarded - before.forwarded) / (after.at - before.at)))
        .collect();
    page.push_str("<h2>Packets that the server sent on</h2>");
    write_line(page, "packets/s", &packets);
    page.push_str("<h2>CPU of the server</h2>");
    write_line(page, "cores", &cores);
    page.push_str("<h2>Memory of the server</h2>");
    write_line(page, "MiB", &memory);
}

fn write_rooms(page: &mut String, rooms: &[RoomReport]) {
    page.push_str(
        "<h2>Rooms</h2><table><tr><th>Room<th>Join ms<th>First media ms<th>Sources<th>Sent<th>Received<th>Missing",
    );
    let show = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
    for room in rooms {
        let clients = &room.clients;
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}/{}<td>{}<td>{}<td>{:.2} %",
            room.number,
            show(room.join_ms()),
            show(room.first_media_ms()),
            clients.iter().map(|client| client.sources).sum::<usize>(),
            clients.iter().map(|client| client.sources_expected).sum::<usize>(),
            clients.iter().map(|client| client.sent).sum::<u64>(),
            clients.iter().map(|client| client.received).sum::<u64>(),
            room.loss() * 100.0,
        );
    }
    page.push_str("</table>");
}

/// Bars beside each other, each with its own word on a pointer's rest.
fn write_bars(page: &mut String, title: &str, bars: &[(String, f64)]) {
    let most = bars.iter().map(|(_, height)| *height).fold(1.0, f64::max);
    let step = WIDTH / to_float(u64::try_from(bars.len().max(1)).unwrap_or(1));
    begin_plot(page, title);
    let mut left = 0.0;
    for (word, height) in bars {
        let tall = height / most * (HEIGHT - BELOW);
        let _ = write!(
            page,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"><title>{word}: {height}</title></rect>",
            HEIGHT - BELOW - tall,
            (step - 1.0).max(1.0),
        );
        left += step;
    }
    if let (Some((first, _)), Some((last, _))) = (bars.first(), bars.last()) {
        let y = HEIGHT - 8.0;
        let _ = write!(page, "<text x=\"4\" y=\"{y}\">{first}</text>");
        let _ = write!(page, "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{last}</text>", WIDTH - 4.0);
    }
    page.push_str("</svg>");
}

/// A line over the seconds of the run.
fn write_line(page: &mut String, unit: &str, points: &[(f64, f64)]) {
    let end = points.iter().map(|(at, _)| *at).fold(1.0, f64::max);
    let most = points.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    begin_plot(page, unit);
    page.push_str("<polyline points=\"");
    for (at, value) in points {
        let _ = write!(page, "{:.1},{:.1} ", at / end * WIDTH, HEIGHT - BELOW - value / most * (HEIGHT - 2.0 * BELOW));
    }
    let _ = write!(
        page,
        "\"/><text x=\"4\" y=\"14\">{most:.2} {unit}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{end:.0} s</text></svg>",
        WIDTH - 4.0,
        HEIGHT - 8.0,
    );
}

fn begin_plot(page: &mut String, title: &str) {
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[expect(clippy::cast_precision_loss, reason = "a plot's heights")]
fn to_float(n: u64) -> f64 {
    n as f64
}
