//! The plot: time against requests for each policy, and time and hops against the number of nodes. Legible on light and on dark ground.

use std::fmt::Write;

use super::figures::Figures;
use super::lookups::figures;
use super::network::Faults;
use super::policy::{Goal, Kind};
use super::queue::Trace;
use super::report::{Report, Row};
use super::still::{Plan, Still};
use super::walk::Reach;

/// The colour of each policy: on light ground, and on dark.
const COLOURS: &[(&str, &str, &str)] = &[
    ("ours", "#0b62c4", "#58a6ff"),
    ("p1", "#c4520b", "#f0883e"),
    ("p2", "#2b7d3c", "#56d364"),
    ("p3", "#8250df", "#bc8cff"),
    ("p4", "#57606a", "#b1bac4"),
];

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 400.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 350.0;

/// What lookups come to in a network of so many nodes.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Growth {
    /// Number of nodes.
    pub nodes: usize,
    /// Getting a value.
    pub get: Figures,
    /// Finding the closest peers.
    pub closest: Figures,
}

/// What lookups come to as the network grows, and what it followed from.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Grown {
    /// The seed.
    pub seed: u64,
    /// Lookups of each kind, at each size.
    pub lookups: u64,
    /// The trace's hash: the same seed gives the same.
    pub hash: String,
    /// Size by size.
    pub sizes: Vec<Growth>,
}

/// Our lookups in quiet networks of 100, 1,000 and 10,000 nodes.
pub fn growth(seed: u64, lookups: u64) -> Grown {
    let mut trace = Trace::default();
    let of = |nodes| {
        let world = Still::new(Plan::new(nodes, seed, Faults::default()));
        let mut run = |goal| figures(&world, Kind::Ours, goal, Reach::WARM, lookups, &mut trace);
        Growth { nodes, get: run(Goal::Value), closest: run(Goal::Closest) }
    };
    let sizes = [100, 1_000, 10_000].into_iter().map(of).collect();
    Grown { seed, lookups, hash: format!("{:016x}", trace.hash()), sizes }
}

/// The growth as a table, with what it followed from.
pub fn table(grown: &Grown) -> String {
    let mut text = String::from(
        "| nodes | get p50 ms | p95 | requests | hops | closest p50 ms | p95 | requests | hops |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for Growth { nodes, get, closest } in &grown.sizes {
        let _ = writeln!(
            text,
            "| {nodes} | {:.0} | {:.0} | {:.1} | {:.2} | {:.0} | {:.0} | {:.1} | {:.2} |",
            get.p50_ms,
            get.p95_ms,
            get.requests,
            get.hops,
            closest.p50_ms,
            closest.p95_ms,
            closest.requests,
            closest.hops
        );
    }
    let Grown { seed, lookups, hash, .. } = grown;
    let _ = writeln!(text, "\nSeed {seed}, lookups of each kind at each size: {lookups}, hash `{hash}`");
    text
}

/// An axis with a logarithmic scale.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        self.from + (self.to - self.from) * share.min(1.0)
    }
}

/// Draws a comparison's rows with warm contacts, and the growth.
pub fn svg(report: &Report, growth: &[Growth]) -> String {
    let mut svg = head();
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"60\" y=\"22\">{}: time (p50 to p95) against requests</text>\n\
         <text class=\"title\" x=\"560\" y=\"22\">quiet network: against N</text>",
        report.title.replace('&', "&amp;")
    );
    compare(&mut svg, &report.rows);
    grow(&mut svg, growth);
    svg.push_str("</svg>\n");
    svg
}

fn compare(svg: &mut String, rows: &[Row]) {
    let x = Axis { low: 4.0, high: 256.0, from: 60.0, to: 500.0 };
    let y = Axis { low: 100.0, high: 32_000.0, from: BOTTOM, to: TOP };
    for requests in [4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0] {
        grid(svg, (x.at(requests), TOP), (x.at(requests), BOTTOM));
        label(svg, x.at(requests), BOTTOM + 16.0, "middle", &format!("{requests}"));
    }
    for (millis, name) in [
        (100.0, "0.1 s"),
        (300.0, "0.3"),
        (1_000.0, "1"),
        (3_000.0, "3"),
        (10_000.0, "10"),
        (30_000.0, "30 s"),
    ] {
        grid(svg, (x.from, y.at(millis)), (x.to, y.at(millis)));
        label(svg, x.from - 6.0, y.at(millis) + 4.0, "end", name);
    }
    label(
        svg,
        x.from,
        BOTTOM + 34.0,
        "start",
        "requests of a lookup; circles: a value, squares: the 20 closest",
    );
    for row in rows.iter().filter(|row| row.reach == "warm") {
        let (at, figures) = (x.at(row.figures.requests), &row.figures);
        let (median, tail) = (y.at(figures.p50_ms), y.at(figures.p95_ms));
        let class = row.policy;
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{at:.1}\" y1=\"{median:.1}\" x2=\"{at:.1}\" y2=\"{tail:.1}\"/>"
        );
        let _ = match row.goal {
            "get" => writeln!(svg, "<circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{median:.1}\" r=\"5\"/>"),
            _ => writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"/>",
                at - 4.5,
                median - 4.5
            ),
        };
        label(svg, at + 8.0, tail + 4.0, "start", class);
    }
}

fn grow(svg: &mut String, growth: &[Growth]) {
    let x = Axis { low: 80.0, high: 12_500.0, from: 580.0, to: 820.0 };
    let y = Axis { low: 50.0, high: 1_600.0, from: BOTTOM, to: TOP };
    for millis in [50.0, 100.0, 200.0, 400.0, 800.0, 1_600.0] {
        grid(svg, (x.from, y.at(millis)), (x.to, y.at(millis)));
        label(svg, x.from - 6.0, y.at(millis) + 4.0, "end", &format!("{millis} ms"));
    }
    for (line, of) in [("", true), (" dashed", false)] {
        let class = "ours";
        let pick = |one: &Growth| if of { one.get.clone() } else { one.closest.clone() };
        let points: Vec<String> = growth
            .iter()
            .map(|one| format!("{:.1},{:.1}", x.at(one.nodes as f64), y.at(pick(one).p50_ms)))
            .collect();
        let _ = writeln!(svg, "<polyline class=\"{class} open{line}\" points=\"{}\"/>", points.join(" "));
        for one in growth {
            let figures = pick(one);
            let (at, height) = (x.at(one.nodes as f64), y.at(figures.p50_ms));
            let _ = writeln!(svg, "<circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"4\"/>");
            label(svg, at, height - 9.0, "middle", &format!("{:.2} hops", figures.hops));
        }
    }
    for one in growth {
        label(svg, x.at(one.nodes as f64), BOTTOM + 16.0, "middle", &one.nodes.to_string());
    }
    label(svg, x.from, BOTTOM + 34.0, "start", "p50: a value below, the 20 closest above");
}

fn grid(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ =
        writeln!(svg, "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn head() -> String {
    let mut light = String::new();
    let mut dark = String::new();
    for (class, on_light, on_dark) in COLOURS {
        let _ = write!(light, ".{class}{{fill:{on_light};stroke:{on_light}}}");
        let _ = write!(dark, ".{class}{{fill:{on_dark};stroke:{on_dark}}}");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <style>text{{fill:#24292f}}.title{{font-size:13px;font-weight:bold}}.grid{{stroke:#d0d7de;stroke-width:1}}line{{stroke-width:2}}\
         .open{{fill:none!important;stroke-width:2}}.dashed{{stroke-dasharray:6 4}}{light}\
         @media (prefers-color-scheme:dark){{text{{fill:#e6edf3}}.grid{{stroke:#30363d}}{dark}}}</style>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_each_row_and_each_size() {
        let row = |kind, goal| {
            Row::new(
                kind,
                goal,
                "warm",
                Figures { p50_ms: 200.0, p95_ms: 400.0, requests: 10.0, ..Figures::default() },
            )
        };
        let report = Report {
            scenario: 2,
            title: "a & b",
            nodes: 10,
            seed: 1,
            hash: String::new(),
            rows: vec![row(Kind::Ours, Goal::Value), row(Kind::P1, Goal::Closest)],
            measures: Vec::new(),
        };
        let growth = vec![Growth { nodes: 100, get: Figures::default(), closest: Figures::default() }];
        let svg = svg(&report, &growth);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("a &amp; b") && svg.contains(">p1</text>") && svg.contains(">100</text>"));
    }

    #[test]
    fn hops_grow_with_the_logarithm_of_the_size() {
        let hops: Vec<f64> = growth(7, 150).sizes.iter().map(|one| one.get.hops).collect();
        assert!(hops[0] < hops[1] && hops[1] < hops[2], "{hops:?}");
        // A tenfold network costs about as much each time, not ten times as much.
        assert!(hops[2] - hops[1] < 1.5 * (hops[1] - hops[0]).max(0.5), "{hops:?}");
    }

    #[test]
    fn the_table_of_growth_says_what_it_followed_from() {
        let (one, again, other) = (growth(7, 5), growth(7, 5), growth(8, 5));
        assert!(one.hash == again.hash && one.hash != other.hash);
        let text = table(&one);
        let last = format!("\n\nSeed 7, lookups of each kind at each size: 5, hash `{}`\n", one.hash);
        assert!(text.ends_with(&last), "{text}");
    }
}
