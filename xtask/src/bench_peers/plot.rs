//! Charts as SVG: small panels side by side, readable on light and on dark pages.

use std::fmt::Write;

use super::record::Spread;

const STYLE: &str = "\
.back{fill:#fff}.frame{stroke:#8b949e;fill:none}.grid{stroke:#8b949e;stroke-opacity:.25}\
text{font:11px system-ui,sans-serif;fill:#1b1f24}.soft{fill:#59636e}.title{font-size:14px;font-weight:600}\
.panel{font-weight:600}.middle{text-anchor:middle}.end{text-anchor:end}\
.a{stroke:#0969da}.b{stroke:#bc4c00}text.a,rect.a,circle.a{fill:#0969da}text.b,rect.b{fill:#bc4c00}circle.b{fill:#fff}\
path.a,path.b{fill:none;stroke-width:1.6}text.a,text.b,rect.a,rect.b{stroke:none}.whisker{stroke:#1b1f24;stroke-opacity:.6}\
@media(prefers-color-scheme:dark){.back{fill:#0d1117}text,.panel{fill:#e6edf3}.soft{fill:#9198a1}\
.a{stroke:#58a6ff}.b{stroke:#f0883e}text.a,rect.a,circle.a{fill:#58a6ff}text.b,rect.b{fill:#f0883e}circle.b{fill:#0d1117}\
.whisker{stroke:#e6edf3}}";

/// Sizes in pixels: of a panel's frame, of the room around it, and of the head of the chart.
const FRAME: [f64; 2] = [240.0, 140.0];
const LEFT: f64 = 46.0;
const RIGHT: f64 = 66.0;
const ABOVE: f64 = 38.0;
const BELOW: f64 = 36.0;
const HEAD: f64 = 28.0;
const COLUMNS: usize = 2;

/// What a chart is about.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: XAxis,
    pub(super) x_label: &'static str,
    pub(super) y: YAxis,
    pub(super) y_label: &'static str,
    /// Names of the things compared; two at most.
    pub(super) names: [&'static str; 2],
    pub(super) panels: Vec<Panel>,
}

/// What goes from left to right.
pub(super) enum XAxis {
    /// Numbers from 0 on, and how to write them.
    Linear(fn(f64) -> String),
    /// Numbers above 0, and how to write them.
    Log(fn(f64) -> String),
    /// Kinds of things: `x` is an index. Drawn as bars.
    Names(Vec<String>),
}

/// What goes up.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum YAxis {
    Linear,
    Log,
}

/// One of the small diagrams.
pub(super) struct Panel {
    pub(super) title: String,
    /// The points of each name of the chart, from left to right.
    pub(super) series: [Vec<Point>; 2],
}

pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: Spread,
}

impl Panel {
    fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flatten()
    }

    /// The values of `x` that there are, in order.
    pub(super) fn xs(&self) -> Vec<f64> {
        let mut xs: Vec<f64> = self.points().map(|point| point.x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        xs
    }
}

/// From values to a part of an axis, 0 to 1.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    fn part(&self, value: f64) -> f64 {
        let map = |x: f64| if self.log { x.max(f64::MIN_POSITIVE).ln() } else { x };
        let (low, high) = (map(self.low), map(self.high));
        if high > low { ((map(value) - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
    }
}

/// Round numbers from 0 to at least `max`, no more than six.
fn linear_ticks(max: f64) -> Vec<f64> {
    let max = if max.is_finite() && max > 0.0 { max } else { 1.0 };
    let unit = 10f64.powf((max / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * unit).into_iter().find(|step| max / step <= 5.0);
    let step = step.unwrap_or(10.0 * unit);
    (0..=(max / step).ceil() as usize).map(|i| i as f64 * step).collect()
}

/// 1, 2 and 5 times powers of ten, from at most `min` to at least `max`; powers of ten alone where those would be many.
fn log_ticks(min: f64, max: f64) -> Vec<f64> {
    let (low, high) = (min.max(1e-3).log10().floor() as i32, max.max(1e-3).log10().ceil() as i32);
    let steps: &[f64] = if high - low > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = (low..=high).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    let all: Vec<f64> = all.collect();
    let first = all.iter().rposition(|&tick| tick <= min).unwrap_or(0);
    let last = all.iter().position(|&tick| tick >= max).unwrap_or(all.len().saturating_sub(1));
    all.get(first..=last).unwrap_or_default().to_vec()
}

/// A number for an axis: 0.5, 20, 1500, 2M.
pub(super) fn short(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.1}B", v / 1e9),
        v if v >= 1e6 => format!("{:.0}M", v / 1e6),
        v if v >= 10.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Chart {
    /// The chart as a file of its own.
    pub(super) fn svg(&self) -> String {
        let columns = COLUMNS.min(self.panels.len()).max(1);
        let rows = self.panels.len().div_ceil(columns);
        let [width, height] = [LEFT + FRAME[0] + RIGHT, ABOVE + FRAME[1] + BELOW];
        let (all_width, all_height) = (columns as f64 * width, HEAD + rows as f64 * height);
        let title = escape(&self.title);
        // Writing to a string cannot fail, here and below.
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all_width} {all_height}\" width=\"{all_width}\" \
             height=\"{all_height}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n<text class=\"title\" x=\"10\" y=\"20\">{title}</text>\n"
        );
        for (i, panel) in self.panels.iter().enumerate() {
            let (x, y) = ((i % columns) as f64 * width + LEFT, HEAD + (i / columns) as f64 * height + ABOVE);
            let _ = writeln!(svg, "<g transform=\"translate({x:.0} {y:.0})\">");
            self.panel(&mut svg, panel);
            svg.push_str("</g>\n");
        }
        svg + "</svg>\n"
    }

    fn panel(&self, svg: &mut String, panel: &Panel) {
        let [width, height] = FRAME;
        let (min, max) = panel
            .points()
            .fold((f64::INFINITY, 0f64), |(min, max), point| (min.min(point.y.min), max.max(point.y.max)));
        let log = self.y == YAxis::Log;
        let ticks = if log { log_ticks(min, max) } else { linear_ticks(max) };
        let (&low, &high) = (ticks.first().unwrap_or(&0.0), ticks.last().unwrap_or(&1.0));
        let scale = Scale { low, high, log };
        let y = |value: f64| height * (1.0 - scale.part(value));
        let title = escape(&panel.title);
        let _ = write!(
            svg,
            "<text class=\"panel\" y=\"-22\">{title}</text><text class=\"soft\" x=\"-38\" y=\"-8\">{}</text>",
            self.y_label
        );
        for tick in ticks {
            let (at, text) = (y(tick), short(tick));
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M0 {at:.1}H{width}\"/><text class=\"end\" x=\"-5\" y=\"{:.1}\">{text}</text>",
                at + 4.0
            );
        }
        let _ = write!(
            svg,
            "<rect class=\"frame\" width=\"{width}\" height=\"{height}\"/>\
             <text class=\"soft middle\" x=\"{}\" y=\"{}\">{}</text>",
            width / 2.0,
            height + 29.0,
            self.x_label
        );
        match &self.x {
            XAxis::Names(names) => self.bars(svg, panel, names, y),
            XAxis::Linear(text) => self.lines(svg, panel, *text, false, y),
            XAxis::Log(text) => self.lines(svg, panel, *text, true, y),
        }
    }

    fn bars(&self, svg: &mut String, panel: &Panel, names: &[String], y: impl Fn(f64) -> f64) {
        let [width, height] = FRAME;
        let xs = panel.xs();
        let step = width / xs.len().max(1) as f64;
        for (i, x) in xs.iter().enumerate() {
            let name = names.get(*x as usize).map_or_else(String::new, |name| escape(name));
            let middle = (i as f64 + 0.5) * step;
            let _ =
                write!(svg, "<text class=\"middle\" x=\"{middle:.1}\" y=\"{}\">{name}</text>", height + 14.0);
            for (which, (series, class)) in panel.series.iter().zip(["a", "b"]).enumerate() {
                if let Some(point) = series.iter().find(|point| point.x == *x) {
                    let (left, top) = (middle + (which as f64 - 1.0) * step * 0.38, y(point.y.median));
                    let _ = write!(
                        svg,
                        "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                        step * 0.36,
                        height - top
                    );
                    whisker(svg, left + step * 0.18, point.y, &y);
                }
            }
        }
        for ((name, class), at) in self.names.iter().zip(["a", "b"]).zip([12.0, 26.0]) {
            let _ = write!(svg, "<text class=\"{class}\" x=\"{}\" y=\"{at}\">{name}</text>", width + 6.0);
        }
    }

    fn lines(
        &self,
        svg: &mut String,
        panel: &Panel,
        text: fn(f64) -> String,
        log: bool,
        y: impl Fn(f64) -> f64,
    ) {
        let [width, height] = FRAME;
        let xs = panel.xs();
        let (Some(&first), Some(&last)) = (xs.first(), xs.last()) else { return };
        let scale = Scale { low: if log { first } else { 0.0 }, high: last, log };
        // Points and what is written below them stay inside.
        let x = |value: f64| 10.0 + (width - 20.0) * scale.part(value);
        let mut free = f64::NEG_INFINITY;
        for &value in &xs {
            let text = text(value);
            let room = 4.0 + 3.5 * text.len() as f64;
            if x(value) - room >= free {
                let (at, below) = (x(value), height + 14.0);
                let _ = write!(
                    svg,
                    "<path class=\"grid\" d=\"M{at:.1} 0V{height}\"/>\
                     <text class=\"middle\" x=\"{at:.1}\" y=\"{below}\">{text}</text>"
                );
                free = at + room;
            }
        }
        for (series, class) in panel.series.iter().zip(["a", "b"]) {
            let mut path = String::new();
            for point in series {
                let move_or_line = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{move_or_line}{:.1} {:.1}", x(point.x), y(point.y.median));
                whisker(svg, x(point.x), point.y, &y);
            }
            let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
            for point in series {
                let (x, y) = (x(point.x), y(point.y.median));
                let _ = write!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
            }
        }
        // Names stand at the ends of their lines, not on each other.
        let [a, b] = panel.series.each_ref().map(|series| series.last().map(|point| y(point.y.median) + 4.0));
        let apart = match (a, b) {
            (Some(a), Some(b)) => ((13.0 - (a - b).abs()) / 2.0).max(0.0) * if a <= b { 1.0 } else { -1.0 },
            _ => 0.0,
        };
        for ((name, class), at) in
            self.names.iter().zip(["a", "b"]).zip([a.map(|a| a - apart), b.map(|b| b + apart)])
        {
            if let Some(at) = at {
                let _ =
                    write!(svg, "<text class=\"{class}\" x=\"{}\" y=\"{at:.1}\">{name}</text>", width + 6.0);
            }
        }
    }
}

/// From the slowest to the fastest.
fn whisker(svg: &mut String, x: f64, spread: Spread, y: impl Fn(f64) -> f64) {
    let (low, high) = (y(spread.min), y(spread.max));
    if low - high > 0.5 {
        let _ = write!(svg, "<path class=\"whisker\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        assert_eq!(linear_ticks(1234.0), [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!(linear_ticks(5.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(linear_ticks(f64::NAN), linear_ticks(1.0));
        assert_eq!(log_ticks(3.0, 90.0), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(log_ticks(2.0, 20_000.0), [1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0]);
        for max in [0.03, 0.9, 7.0, 99.0, 1e6] {
            let ticks = linear_ticks(max);
            assert!(ticks.len() <= 7 && ticks.last() >= Some(&max), "{max}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.5, 5.0, 1500.0, 135e6, 1.1e9].map(short),
            ["0", "0.5", "5", "1500", "135M", "1.1B"]
        );
    }

    #[test]
    fn names_at_the_ends_of_lines_do_not_overlap() {
        let point = |x, speed| Point { x, y: Spread { median: speed, min: speed, max: speed } };
        let chart = Chart {
            title: "a < b".to_owned(),
            x: XAxis::Linear(short),
            x_label: "threads",
            y: YAxis::Linear,
            y_label: "tokens/s",
            names: ["one", "two"],
            panels: vec![Panel {
                title: "Q4_0".to_owned(),
                series: [vec![point(1.0, 10.0), point(2.0, 20.0)], vec![point(1.0, 11.0), point(2.0, 20.5)]],
            }],
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"));
        let at = |name: &str| -> f64 {
            let before = svg.split(&format!("\">{name}</text>")).next().unwrap();
            before.rsplit("y=\"").next().unwrap().parse().unwrap()
        };
        assert!(at("one") - at("two") >= 12.9, "{} {}", at("one"), at("two"));
    }
}
