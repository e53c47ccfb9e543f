//! Which charts a record makes.

use super::models::MODELS;
use super::plot::{Chart, Panel, Point, XAxis, YAxis, short};
use super::record::{Case, Row, Test};

/// A kind of chart: where its points come from.
struct Kind {
    /// The last part of the file's name.
    name: &'static str,
    title: &'static str,
    x_label: &'static str,
    x: fn(&Case) -> X,
    y: YAxis,
    /// Which rows are in it.
    keep: fn(&Case, &Usual) -> bool,
    /// Rows with one title are one panel.
    panel: fn(&Case) -> String,
}

/// A place on the horizontal axis.
enum X {
    Linear(usize),
    Log(f64),
    Name(String),
}

/// What is kept where something else changes: most threads, the usual prompt, an empty context, one sequence.
struct Usual {
    threads: usize,
    prompt: usize,
}

impl Usual {
    fn of(rows: &[Row]) -> Self {
        let prompts = rows.iter().filter(|row| row.case.test == Test::Prefill).map(|row| row.case.tokens);
        Self {
            threads: rows.iter().map(|row| row.case.threads).max().unwrap_or(1),
            prompt: prompts.min_by_key(|tokens| tokens.abs_diff(512)).unwrap_or(512),
        }
    }

    fn tokens(&self, case: &Case) -> bool {
        match case.test {
            Test::Prefill => case.tokens == self.prompt,
            Test::Decode => case.depth == 0 && case.batch == 1,
        }
    }
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "prompt",
        title: "Reading a prompt",
        x_label: "tokens of the prompt",
        x: |case| X::Log(case.tokens as f64),
        y: YAxis::Linear,
        keep: |case, usual| case.test == Test::Prefill && case.threads == usual.threads,
        panel: |case| format!("{} {}", case.model, case.format),
    },
    Kind {
        name: "context",
        title: "Generating in a long context",
        x_label: "tokens in the context",
        x: |case| X::Linear(case.depth),
        y: YAxis::Linear,
        keep: |case, usual| case.test == Test::Decode && case.batch == 1 && case.threads == usual.threads,
        panel: |case| format!("{} {}", case.model, case.format),
    },
    Kind {
        name: "batch",
        title: "Generating many sequences together",
        x_label: "sequences",
        x: |case| X::Log(case.batch as f64),
        y: YAxis::Linear,
        keep: |case, usual| case.test == Test::Decode && case.depth == 0 && case.threads == usual.threads,
        panel: |case| format!("{} {}", case.model, case.format),
    },
    Kind {
        name: "threads",
        title: "Threads",
        x_label: "threads",
        x: |case| X::Linear(case.threads),
        y: YAxis::Linear,
        keep: |case, usual| usual.tokens(case),
        panel: |case| format!("{} {}, {}", case.model, case.format, case.test.name()),
    },
    Kind {
        name: "formats",
        title: "Formats",
        x_label: "format",
        x: |case| X::Name(case.format.clone()),
        y: YAxis::Linear,
        keep: |case, usual| usual.tokens(case),
        panel: |case| {
            let plural = if case.threads == 1 { "" } else { "s" };
            format!("{}, {}, {} thread{plural}", case.model, case.test.name(), case.threads)
        },
    },
    Kind {
        name: "models",
        title: "Size of the model",
        x_label: "parameters",
        x: |case| {
            let model = MODELS.iter().find(|model| model.name == case.model);
            X::Log(model.map_or(f64::NAN, |model| model.parameters))
        },
        y: YAxis::Log,
        keep: |case, usual| case.threads == usual.threads && usual.tokens(case),
        // The mixture of a real model stands beside the one format of a model with random weights.
        panel: |case| format!("{}, {}", case.format.trim_end_matches("_M"), case.test.name()),
    },
];

/// The charts of those things of which there are several, with the last part of their files' names.
pub(super) fn charts(rows: &[Row]) -> Vec<(&'static str, Chart)> {
    let usual = Usual::of(rows);
    KINDS.iter().filter_map(|kind| Some((kind.name, kind.chart(rows, &usual)?))).collect()
}

/// All that a file's name may end in.
pub(super) fn names() -> [&'static str; 6] {
    KINDS.map(|kind| kind.name)
}

impl Kind {
    fn chart(&self, rows: &[Row], usual: &Usual) -> Option<Chart> {
        let mut panels: Vec<Panel> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let mut axis = XAxis::Linear(short);
        for row in rows.iter().filter(|row| (self.keep)(&row.case, usual)) {
            let x = match (self.x)(&row.case) {
                X::Linear(x) => x as f64,
                X::Log(x) => {
                    axis = XAxis::Log(short);
                    x
                }
                X::Name(name) => {
                    let known = names.iter().position(|known| *known == name);
                    let index = known.unwrap_or_else(|| {
                        names.push(name);
                        names.len() - 1
                    });
                    index as f64
                }
            };
            if !x.is_finite() {
                continue;
            }
            let title = (self.panel)(&row.case);
            let index = panels.iter().position(|panel| panel.title == title).unwrap_or_else(|| {
                panels.push(Panel { title, series: [vec![], vec![]] });
                panels.len() - 1
            });
            for (series, y) in panels[index].series.iter_mut().zip([row.firecrest, row.peer]) {
                let after = series.partition_point(|point| point.x < x);
                series.insert(after, Point { x, y });
            }
        }
        panels.retain(|panel| panel.xs().len() > 1);
        if panels.is_empty() {
            return None;
        }
        let threads = match self.name {
            "threads" | "formats" => String::new(),
            _ => format!(", {} thread{}", usual.threads, if usual.threads == 1 { "" } else { "s" }),
        };
        Some(Chart {
            title: format!("{}{threads}", self.title),
            x: if names.is_empty() { axis } else { XAxis::Names(names) },
            x_label: self.x_label,
            y: self.y,
            y_label: "tokens/s",
            names: ["Firecrest", "llama.cpp"],
            panels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Spread;
    use super::*;

    fn row(model: &str, test: Test, threads: usize, depth: usize, speed: f64) -> Row {
        let tokens = if test == Test::Prefill { 512 } else { 128 };
        let spread = |speed| Spread { median: speed, min: 0.9 * speed, max: speed };
        let case =
            Case { model: model.into(), format: "Q4_0".into(), threads, test, tokens, depth, batch: 1 };
        Row { case, firecrest: spread(speed), peer: spread(speed / 2.0) }
    }

    #[test]
    fn what_does_not_change_is_no_chart() {
        let decode = |threads, depth| row("smollm2-135m", Test::Decode, threads, depth, 100.0);
        let names = |rows: &[Row]| charts(rows).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&[decode(1, 0)]), [""; 0]);
        assert_eq!(names(&[decode(1, 0), decode(2, 0)]), ["threads"]);
        assert_eq!(names(&[decode(2, 1024), decode(2, 0)]), ["context"]);
        let large = row("llama-2-7b", Test::Decode, 2, 0, 5.0);
        assert_eq!(names(&[decode(2, 0), large]), ["models"]);
    }

    #[test]
    fn points_are_in_order() {
        let rows = [1024, 0, 4096].map(|depth| row("smollm2-135m", Test::Decode, 2, depth, 9.0));
        let charts = charts(&rows);
        let [(_, chart)] = &charts[..] else { panic!("one chart") };
        assert_eq!(chart.panels[0].xs(), [0.0, 1024.0, 4096.0]);
        let svg = chart.svg();
        assert!(svg.contains(">4096<") && svg.contains(">Firecrest<") && !svg.contains("NaN"));
    }
}
