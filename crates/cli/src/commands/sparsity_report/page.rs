//! The page: SVG plots in one file, for light and dark.

use std::fmt::Write;

use firecrest::sparse::{ReportPoint, SparsityReport};

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b1f24;--back:#fff;--soft:#8b949e;--a:#0969da;--b:#bc4c00;--c:#1a7f37}\
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--back:#0d1117;--soft:#7d8590;--a:#58a6ff;--b:#f0883e;--c:#3fb950}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:72em;margin:2em auto;padding:0 1em}\
svg{max-width:100%;height:auto}text{fill:var(--text);font:11px system-ui,sans-serif}\
.frame{fill:none;stroke:var(--soft)}.grid{stroke:var(--soft);stroke-opacity:.25}\
.a{stroke:var(--a)}.b{stroke:var(--b)}path.a,path.b{fill:none;stroke-width:1.6}\
.dense{stroke:var(--soft);stroke-dasharray:5 4}circle{fill:var(--c)}circle.dot{fill:var(--a)}\
.layers{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}\
b.a{color:var(--a)}b.b{color:var(--b)}table{border-collapse:collapse}td,th{padding:.2em 1em .2em 0;text-align:right}\
td:first-child,th:first-child{text-align:left}";

/// Where points go.
struct Plot {
    width: f64,
    height: f64,
    margin: [f64; 2],
    x: [f64; 2],
    y: [f64; 2],
    svg: String,
}

impl Plot {
    fn new(title: &str, size: [f64; 2], x: [f64; 2], y: [f64; 2], labels: [&str; 2]) -> Self {
        let ([width, height], margin) = (size, [46.0, 32.0]);
        let mut plot = Self { width, height, margin, x, y, svg: String::new() };
        let _ = write!(
            plot.svg,
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\"><title>{}</title>",
            escape(title)
        );
        let [left, top] = plot.place([x[0], y[1]]);
        let [right, bottom] = plot.place([x[1], y[0]]);
        for i in 0..=4 {
            let part = f64::from(i) / 4.0;
            let [px, py] = [left + part * (right - left), bottom - part * (bottom - top)];
            let (tx, ty) = (x[0] + part * (x[1] - x[0]), y[0] + part * (y[1] - y[0]));
            let _ = write!(
                plot.svg,
                "<path class=\"grid\" d=\"M{px:.1} {top:.1}V{bottom:.1}M{left:.1} {py:.1}H{right:.1}\"/>\
                 <text x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0} %</text>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                bottom + 13.0,
                100.0 * tx,
                left - 4.0,
                py + 4.0,
                number(ty)
            );
        }
        let _ = write!(
            plot.svg,
            "<rect class=\"frame\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"2\" y=\"11\">{}</text>",
            right - left,
            bottom - top,
            right,
            height - 3.0,
            escape(labels[0]),
            escape(labels[1])
        );
        plot
    }

    fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let part = |value: f64, [low, high]: [f64; 2]| ((value - low) / (high - low)).clamp(0.0, 1.0);
        let (width, height) = (self.width - self.margin[0] - 12.0, self.height - self.margin[1] - 18.0);
        [self.margin[0] + part(x, self.x) * width, 18.0 + (1.0 - part(y, self.y)) * height]
    }

    fn line(&mut self, class: &str, points: impl IntoIterator<Item = [f64; 2]>) {
        let mut path = String::new();
        for point in points.into_iter().filter(|point| point.iter().all(|x| x.is_finite())) {
            let [x, y] = self.place(point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
        }
        let _ = write!(self.svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    fn dot(&mut self, class: &str, point: [f64; 2], name: &str) {
        if point.iter().all(|x| x.is_finite()) {
            let [x, y] = self.place(point);
            let _ = write!(
                self.svg,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 6.0,
                y - 5.0,
                escape(name)
            );
        }
    }

    fn finish(self) -> String {
        self.svg + "</svg>"
    }
}

/// A number short enough for an axis.
fn number(x: f64) -> String {
    match x.abs() {
        size if size >= 100.0 => format!("{x:.0}"),
        size if size >= 10.0 => format!("{x:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A measure over the share of neurons left out.
fn curve(report: &SparsityReport, title: &str, unit: &str, measure: fn(&ReportPoint) -> f64) -> String {
    let points = || [&report.dense].into_iter().chain(&report.points);
    let values = || points().chain(&report.levels).map(measure).filter(|x| x.is_finite());
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    let room = ((high - low) * 0.1).max(1e-3);
    let bounds = [(low - room).max(0.0), high + room];
    let mut plot = Plot::new(title, [640.0, 300.0], [0.0, 1.0], bounds, ["neurons left out", unit]);
    let dense = measure(&report.dense);
    plot.line("dense", [[0.0, dense], [1.0, dense]]);
    plot.line("a", points().map(|point| [point.neurons_skipped, measure(point)]));
    points().for_each(|point| plot.dot("dot", [point.neurons_skipped, measure(point)], &point.name));
    for level in &report.levels {
        plot.dot("level", [level.neurons_skipped, measure(level)], &level.name);
    }
    format!("<h2>{}</h2>{}", escape(title), plot.finish())
}

/// The page of a report.
pub(super) fn render(name: &str, report: &SparsityReport) -> String {
    let name = escape(name);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Sparsity of {name}</title><style>{STYLE}</style>\
         <h1>Sparsity of {name}</h1><p>Neurons were watched over {} tokens; perplexity and divergence were measured \
         on {} others. Dashed: the whole model. Large dots: the model's levels, whose vocabulary screen counts too; the \
         curve is without a screen and leaves out the same share of energy in each layer.</p>",
        report.tokens[0], report.tokens[1]
    );
    page += "<table><tr><th><th>neurons left out<th>perplexity<th>divergence, nats<th>tokens/s</tr>";
    for point in [&report.dense].into_iter().chain(&report.levels).chain(&report.points) {
        let _ = write!(
            page,
            "<tr><td>{}<td>{:.1} %<td>{:.3}<td>{:.4}<td>{:.1}</tr>",
            escape(&point.name),
            100.0 * point.neurons_skipped,
            point.perplexity,
            point.divergence,
            1e3 / point.token_ms
        );
    }
    page += "</table>";
    page += &curve(report, "Perplexity", "perplexity", |point| point.perplexity);
    page += &curve(report, "Divergence from the whole model", "nats", |point| point.divergence);
    page += &curve(report, "Speed of decoding", "tokens/s", |point| 1e3 / point.token_ms);
    page += "<h2>Layers</h2><p><b class=\"a\">How often neurons fire</b>: the share of tokens for which a neuron adds \
             more than a tenth of the average, the most active neurons first. <b class=\"b\">Share of what is added</b> \
             by the strongest neurons of a token.</p><div class=\"layers\">";
    for layer in &report.layers {
        let title = format!("layer {}", layer.layer);
        let mut plot = Plot::new(&title, [260.0, 190.0], [0.0, 1.0], [0.0, 1.0], ["neurons", &title]);
        for (class, curve) in [("a", &layer.frequency), ("b", &layer.mass)] {
            let last = curve.len().saturating_sub(1).max(1) as f64;
            plot.line(class, curve.iter().enumerate().map(|(i, &y)| [i as f64 / last, y]));
        }
        let _ = write!(page, "<figure>{}</figure>", plot.finish());
    }
    page + "</div></html>\n"
}
