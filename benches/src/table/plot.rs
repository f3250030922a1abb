//! The plot of the ratios: a few rectangles and texts, legible on light and on dark ground.

use std::fmt::Write;

use peerage_bench_peer::Work;

use super::print::{Row, digits};

/// Rows that are drawn, with the colour of each: on light ground, and on dark.
const PEERS: &[(&str, &str, &str)] = &[
    ("ours", "#0b62c4", "#58a6ff"),
    ("ours-1452", "#5b9fe3", "#2f6fb3"),
    ("raw-quinn-tuned", "#8c959f", "#8b949e"),
    ("raw-quinn-jumbo", "#57606a", "#b1bac4"),
    ("rust-libp2p", "#c4520b", "#f0883e"),
    ("iroh", "#2b7d3c", "#56d364"),
    ("tcp-tls", "#8250df", "#bc8cff"),
];
/// What all is compared with.
const BASE: &str = "raw-quinn";

const WIDTH: f64 = 860.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 76.0;
const BAR: f64 = 11.0;
const GAP: f64 = 12.0;
/// The ends of the logarithmic axis, as powers of two.
const LOWEST: f64 = -5.0;
const HIGHEST: f64 = 4.0;

/// One work, and how much better than raw quinn each peer was at it.
struct Group {
    name: String,
    bars: Vec<(usize, f64)>,
}

/// Draws the main figure of every work.
pub(crate) fn svg(rows: &[Row]) -> String {
    let groups = groups(rows);
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = TOP + bars as f64 * BAR + groups.len() as f64 * GAP + 16.0;
    let mut svg = head(height);
    axis(&mut svg, height);
    let mut y = TOP + GAP / 2.0;
    for group in &groups {
        let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{}\" y=\"{middle:.1}\">{}</text>",
            LEFT - 8.0,
            group.name
        );
        for (peer, ratio) in &group.bars {
            bar(&mut svg, y, *peer, *ratio);
            y += BAR;
        }
        y += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

fn groups(rows: &[Row]) -> Vec<Group> {
    let works = Work::all().iter().filter_map(|work| {
        let main = rows.iter().find(|row| row.work == *work)?.metric;
        let of =
            |peer: &str| rows.iter().find(|row| row.work == *work && row.metric == main && row.peer == peer);
        let base = of(BASE)?.median?;
        let bars = PEERS.iter().enumerate().filter_map(|(index, (peer, ..))| {
            let row = of(peer)?;
            let ratio = if row.more_is_better { row.median? / base } else { base / row.median? };
            (ratio.is_finite() && ratio > 0.0).then_some((index, ratio))
        });
        Some(Group { name: format!("{work}, {main}"), bars: bars.collect() })
    });
    works.filter(|group| !group.bars.is_empty()).collect()
}

fn x(ratio: f64) -> f64 {
    let place = (ratio.log2().clamp(LOWEST, HIGHEST) - LOWEST) / (HIGHEST - LOWEST);
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn head(height: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\n<title>Times as good as raw quinn</title>\n<style>\ntext {{ font: 11px sans-serif; fill: #24292f }}\n.title {{ font-weight: bold; font-size: 13px }}\n.name {{ text-anchor: end }}\n.tick {{ text-anchor: middle; fill: #57606a }}\nline {{ stroke: #d0d7de }}\n.one {{ stroke: #57606a }}\n"
    );
    for (index, (_, light, _)) in PEERS.iter().enumerate() {
        let _ = writeln!(svg, ".p{index} {{ fill: {light} }}");
    }
    svg.push_str("@media (prefers-color-scheme: dark) {\ntext { fill: #e6edf3 }\n.tick { fill: #9198a1 }\nline { stroke: #30363d }\n.one { stroke: #9198a1 }\n");
    for (index, (_, _, dark)) in PEERS.iter().enumerate() {
        let _ = writeln!(svg, ".p{index} {{ fill: {dark} }}");
    }
    svg.push_str("}\n</style>\n");
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"8\" y=\"18\">Times as good as raw quinn with its defaults, in the same run (right is better)</text>"
    );
    let mut left = 8.0;
    for (index, (peer, ..)) in PEERS.iter().enumerate() {
        let _ = writeln!(svg, "<rect class=\"p{index}\" x=\"{left}\" y=\"30\" width=\"10\" height=\"10\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"39\">{peer}</text>", left + 14.0);
        left += 30.0 + 6.6 * peer.len() as f64;
    }
    svg
}

fn axis(svg: &mut String, height: f64) {
    for power in LOWEST as i32..=HIGHEST as i32 {
        let (ratio, class) = (2f64.powi(power), if power == 0 { " class=\"one\"" } else { "" });
        let label = if power < 0 { format!("1/{}", 1 << -power) } else { (1 << power).to_string() };
        let at = x(ratio);
        let _ = writeln!(
            svg,
            "<line{class} x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\"/>",
            height - 10.0
        );
        let _ = writeln!(svg, "<text class=\"tick\" x=\"{at:.1}\" y=\"{}\">{label}</text>", TOP - 8.0);
    }
}

/// From 1 to the ratio, with the number at its end.
fn bar(svg: &mut String, y: f64, peer: usize, ratio: f64) {
    let (one, end) = (x(1.0), x(ratio));
    let (left, width) = (one.min(end), (one - end).abs().max(1.0));
    let _ = writeln!(
        svg,
        "<rect class=\"p{peer}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\"/>",
        BAR - 1.0
    );
    let (at, anchor) = if end < one { (end - 3.0, "end") } else { (end + 3.0, "start") };
    let _ = writeln!(
        svg,
        "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" style=\"font-size:9px\">{}</text>",
        y + BAR - 2.5,
        digits(ratio)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(work: Work, peer: &str, metric: &'static str, more_is_better: bool, median: f64) -> Row {
        Row {
            work,
            peer: peer.to_owned(),
            metric,
            unit: "",
            more_is_better,
            median: Some(median),
            min: None,
            max: None,
            base: BASE,
            ratio: None,
            cpu: None,
            cpu_unit: "",
            lost: 0,
            rounds: 1,
            disturbed: 0,
            suite: None,
            group: None,
            does_not_apply: None,
            failed: 0,
            failure: None,
        }
    }

    #[test]
    fn better_is_to_the_right_whether_more_or_less_is_better() {
        let rows = [
            row(Work::Bulk1, BASE, "rate", true, 100.0),
            row(Work::Bulk1, "ours", "rate", true, 200.0),
            row(Work::Rtt, BASE, "p50", false, 80.0),
            row(Work::Rtt, "ours", "p50", false, 40.0),
            row(Work::Rtt, "ours", "p99", false, 1.0),
            // Without raw quinn there is nothing to compare with.
            row(Work::Rpc1, "ours", "p50", false, 1.0),
        ];
        let groups = groups(&rows);
        let ratios: Vec<_> = groups.iter().map(|group| (group.name.as_str(), group.bars[0].1)).collect();
        assert_eq!(ratios, [("bulk-1, rate", 2.0), ("rtt, p50", 2.0)]);
        let svg = svg(&rows);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches(">2.00</text>").count(), 2);
        assert!(x(0.5) < x(1.0) && x(1.0) < x(2.0));
    }

    #[test]
    fn ratios_beyond_the_axis_end_at_it() {
        assert!((x(1e9) - (WIDTH - RIGHT)).abs() < 1e-9 && (x(1e-9) - LEFT).abs() < 1e-9);
    }
}
