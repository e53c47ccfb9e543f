//! The page: SVG plots in one file, for light and dark.

use std::fmt::Write;

use firecrest::sparse::{ReportPoint, SparsityReport};

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b1f24;--back:#fff;--soft:#8b949e;--a:#0969da;--b:#bc4c00;--c:#1a7f37}\
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--back:#0d1117;--soft:#7d8590;--a:#58a6ff;--b:#f0883e;--c:#3fb950}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:72em;margin:2em auto;padding:0 1em}\
svg{display:block;max-width:100%;height:auto}text{fill:var(--text);font:11px system-ui,sans-serif}text.axis{fill:var(--soft)}\
h1{overflow-wrap:anywhere;line-height:1.2}figure h2{margin:.5em 0 0;font-size:1.1em}\
.frame{fill:none;stroke:var(--soft)}.grid{stroke:var(--soft);stroke-opacity:.25}\
.a{stroke:var(--a)}.b{stroke:var(--b)}path.a,path.b{fill:none;stroke-width:1.6}\
.dense{fill:none;stroke:var(--soft);stroke-dasharray:5 4}circle{fill:var(--a)}circle.level{fill:var(--c);stroke:var(--back)}\
.plots{display:grid;gap:1em;grid-template-columns:repeat(auto-fill,minmax(min(100%,31em),1fr))}\
.layers{display:grid;gap:1em;grid-template-columns:repeat(auto-fill,minmax(15em,1fr))}figure{margin:0}\
b.a{color:var(--a)}b.b{color:var(--b)}.level b{color:var(--c)}.scroll{overflow-x:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2em 0 .2em 1.5em;text-align:right;white-space:nowrap}\
td:first-child,th:first-child{padding-left:0;text-align:left}tr.level td:first-child{color:var(--c)}\
th{border-bottom:1px solid var(--soft)}";

/// Pixels between the edge of a plot and its frame: left, top, right, bottom.
const MARGINS: [f64; 4] = [44.0, 22.0, 20.0, 34.0];

/// About how wide a letter is, and how high a line, in pixels.
const LETTER: [f64; 2] = [6.6, 12.0];

/// An axis from one round number to another.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// The axis that holds these values, with about `ticks` steps.
    fn over(values: impl IntoIterator<Item = f64>, ticks: f64) -> Self {
        let finite = values.into_iter().filter(|x| x.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        let (low, high) = match high - low {
            size if size > 0.0 => (low, high),
            _ if low.is_finite() => (low, low + 1.0),
            _ => (0.0, 1.0),
        };
        let rough = (high - low) / ticks;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].into_iter().find(|&part| part * power >= rough).unwrap_or(10.0) * power;
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (low, step) = (self.low, self.step);
        let count = ((self.high - low) / step).round() as u32;
        (0..=count).map(move |i| low + f64::from(i) * step)
    }

    /// A tick with as many decimals as the ticks differ in.
    fn label(&self, tick: f64) -> String {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{tick:.decimals$}")
    }

    /// How far along the axis a value stands, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// Where points go. The horizontal axis is a share, written in per cent.
struct Plot {
    size: [f64; 2],
    x: Axis,
    y: Axis,
    svg: String,
    /// Where names stand already: left, right, and the line they stand on.
    names: Vec<[f64; 3]>,
}

impl Plot {
    fn new(title: &str, size: [f64; 2], [x, y]: [Axis; 2], labels: [&str; 2]) -> Self {
        let mut plot = Self { size, x, y, svg: String::new(), names: Vec::new() };
        let [width, height] = size;
        let _ = write!(
            plot.svg,
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\"><title>{}</title>",
            escape(title)
        );
        let [left, top] = plot.place([plot.x.low, plot.y.high]);
        let [right, bottom] = plot.place([plot.x.high, plot.y.low]);
        for tick in plot.x.ticks() {
            let [x, _] = plot.place([tick, plot.y.low]);
            let _ = write!(
                plot.svg,
                "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>\
                 <text class=\"axis\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0} %</text>",
                bottom + 16.0,
                100.0 * tick
            );
        }
        for tick in plot.y.ticks() {
            let [_, y] = plot.place([plot.x.low, tick]);
            let _ = write!(
                plot.svg,
                "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>\
                 <text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 5.0,
                y + 4.0,
                plot.y.label(tick)
            );
        }
        let _ = write!(
            plot.svg,
            "<rect class=\"frame\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\
             <text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
            right - left,
            bottom - top,
            height - 5.0,
            escape(labels[0]),
            top - 7.0,
            escape(labels[1])
        );
        plot
    }

    fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [left, top, right, bottom] = MARGINS;
        let [width, height] = [self.size[0] - left - right, self.size[1] - top - bottom];
        [left + self.x.part(x) * width, top + (1.0 - self.y.part(y)) * height]
    }

    fn line(&mut self, class: &str, points: impl IntoIterator<Item = [f64; 2]>) {
        let mut path = String::new();
        for point in points.into_iter().filter(|point| point.iter().all(|x| x.is_finite())) {
            let [x, y] = self.place(point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
        }
        let _ = write!(self.svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    fn dot(&mut self, class: &str, radius: f64, point: [f64; 2]) {
        if point.iter().all(|x| x.is_finite()) {
            let [x, y] = self.place(point);
            let _ =
                write!(self.svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>");
        }
    }

    /// Writes a name beside a point, on the nearest line that no other name is on.
    fn name(&mut self, point: [f64; 2], name: &str) {
        let [left, top, right, bottom] = MARGINS;
        let [letter, line] = LETTER;
        let [x, y] = self.place(point);
        let width = letter * name.chars().count() as f64;
        let start = (x + 8.0).min(self.size[0] - right - width - 2.0).max(left);
        let is_free = |y: f64, names: &[[f64; 3]]| {
            let inside = (top + line..self.size[1] - bottom - 3.0).contains(&y);
            inside
                && names
                    .iter()
                    .all(|&[l, r, other]| start + width < l || start > r || (y - other).abs() >= line)
        };
        let above_and_below =
            (0..8).flat_map(|i| [y - 5.0 - line * f64::from(i), y + line + 2.0 + line * f64::from(i)]);
        let Some(y) = above_and_below.into_iter().find(|&y| is_free(y, &self.names)) else { return };
        self.names.push([start, start + width, y]);
        let _ = write!(self.svg, "<text x=\"{start:.1}\" y=\"{y:.1}\">{}</text>", escape(name));
    }

    fn finish(self) -> String {
        self.svg + "</svg>"
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A measure over the share of neurons left out.
fn curve(report: &SparsityReport, title: &str, unit: &str, measure: fn(&ReportPoint) -> f64) -> String {
    let points = || [&report.dense].into_iter().chain(&report.points);
    let place = |point: &ReportPoint| [point.neurons_skipped, measure(point)];
    let all = || points().chain(&report.levels).map(place);
    let axes = [
        Axis::over([0.0].into_iter().chain(all().map(|[x, _]| x)), 6.0),
        Axis::over(all().map(|[_, y]| y), 6.0),
    ];
    let end = axes[0].high;
    let mut plot = Plot::new(title, [520.0, 300.0], axes, ["neurons left out", unit]);
    let dense = measure(&report.dense);
    plot.line("dense", [[0.0, dense], [end, dense]]);
    plot.line("a", points().map(place));
    points().for_each(|point| plot.dot("point", 2.5, place(point)));
    report.levels.iter().for_each(|level| plot.dot("level", 5.0, place(level)));
    report.levels.iter().for_each(|level| plot.name(place(level), &level.name));
    plot.name([end, dense], &report.dense.name);
    format!("<figure><h2>{}</h2>{}</figure>", escape(title), plot.finish())
}

/// The page of a report.
pub(super) fn render(name: &str, report: &SparsityReport) -> String {
    let name = escape(name);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Sparsity of {name}</title><style>{STYLE}</style>\
         <h1>Sparsity of {name}</h1><p>Neurons were watched over {} tokens; perplexity and divergence were measured \
         on {} others. The curve leaves out the same share of energy in each layer, and no logits. <span \
         class=\"level\"><b>Levels</b></span> are those of the model's sparsity file, whose vocabulary screen counts \
         too. Dashed: the whole model.</p>",
        report.tokens[0], report.tokens[1]
    );
    page += "<div class=\"scroll\"><table><tr><th><th>neurons left out<th>perplexity<th>divergence, nats<th>tokens/s</tr>";
    let rows = |class: &'static str, points: &'_ [ReportPoint]| -> String {
        points.iter().fold(String::new(), |mut rows, point| {
            let _ = write!(
                rows,
                "<tr class=\"{class}\"><td>{}<td>{:.1} %<td>{:.3}<td>{:.4}<td>{:.1}</tr>",
                escape(if point.name.is_empty() { "curve" } else { &point.name }),
                100.0 * point.neurons_skipped,
                point.perplexity,
                point.divergence,
                1e3 / point.token_ms
            );
            rows
        })
    };
    page += &rows("dense", std::slice::from_ref(&report.dense));
    page += &rows("level", &report.levels);
    page += &rows("point", &report.points);
    page += "</table></div><div class=\"plots\">";
    page += &curve(report, "Perplexity", "perplexity", |point| point.perplexity);
    page += &curve(report, "Divergence from the whole model", "nats", |point| point.divergence);
    page += &curve(report, "Speed of decoding", "tokens/s", |point| 1e3 / point.token_ms);
    page += "</div><h2>Layers</h2><p><b class=\"a\">How often neurons fire</b>: the share of tokens for which a neuron \
             adds more than a tenth of the average, the most active neurons first. <b class=\"b\">Share of what is \
             added</b> by the strongest neurons of a token.</p><div class=\"layers\">";
    for layer in &report.layers {
        let title = format!("layer {}", layer.layer);
        let axis = || Axis { low: 0.0, high: 1.0, step: 0.2 };
        let mut plot = Plot::new(&title, [260.0, 190.0], [axis(), axis()], ["neurons", &title]);
        for (class, curve) in [("a", &layer.frequency), ("b", &layer.mass)] {
            let last = curve.len().saturating_sub(1).max(1) as f64;
            plot.line(class, curve.iter().enumerate().map(|(i, &y)| [i as f64 / last, y]));
        }
        let _ = write!(page, "<figure>{}</figure>", plot.finish());
    }
    page + "</div></html>\n"
}
