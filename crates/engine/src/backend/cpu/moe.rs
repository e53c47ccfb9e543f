//! Mixtures of experts: which tokens go to which, and the products of those alone.

use firecrest_kernels::ops::{self, MatrixMut, QuantizedChunk, chunks};

use super::{Activation, Buffer, Cpu, Input, Matrix, Product, Rounding};

/// How an expert's score becomes its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gating {
    /// The softmax over all experts.
    Softmax,
    /// The logistic function of its own score.
    Sigmoid,
}

/// How the router's scores lead to a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Routing {
    /// Experts for each token.
    pub(crate) used: usize,
    pub(crate) gating: Gating,
    /// Whether the weights of the chosen add up to one.
    pub(crate) normalise: bool,
    /// Factor of the weights.
    pub(crate) scale: f32,
}

/// A token that goes to an expert.
#[derive(Clone, Copy, Debug)]
struct Choice {
    expert: usize,
    token: usize,
    weight: f32,
}

/// Which tokens go to which experts, and the memory that this takes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// In order of experts, then tokens.
    choices: Vec<Choice>,
    tokens: usize,
    /// Where in `choices` each chosen expert begins, and the end.
    bounds: Vec<usize>,
    /// Weights of the experts for one token, and what they are chosen by.
    scores: Vec<(f32, f32)>,
    /// The input of each choice.
    rows: Vec<f32>,
    chunks: Vec<QuantizedChunk>,
    hidden: Buffer,
    out: Buffer,
}

impl Routes {
    /// How many experts have any token.
    pub(crate) fn experts(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Decides by the scores `[tokens, experts]`. `bias` is added to weights for the choice alone.
    ///
    /// Of equal experts the first is chosen.
    pub(crate) fn decide(&mut self, scores: &Buffer, routing: Routing, bias: Option<&[f32]>) {
        self.tokens = scores.tokens();
        self.choices.clear();
        for (token, scores) in scores.read().chunks_exact(scores.columns().max(1)).enumerate() {
            self.decide_one(token, scores, routing, bias);
        }
        self.choices.sort_unstable_by_key(|choice| (choice.expert, choice.token));
        self.bounds.clear();
        let begins = |i: &usize| *i == 0 || self.choices[*i].expert != self.choices[*i - 1].expert;
        self.bounds.extend((0..self.choices.len()).filter(begins));
        self.bounds.push(self.choices.len());
    }

    fn decide_one(&mut self, token: usize, scores: &[f32], routing: Routing, bias: Option<&[f32]>) {
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = scores.iter().map(|s| (s - largest).exp()).sum();
        let weight = |score: f32| match routing.gating {
            Gating::Softmax => (score - largest).exp() / total,
            Gating::Sigmoid => 1.0 / (1.0 + (-score).exp()),
        };
        self.scores.clear();
        self.scores.extend(scores.iter().enumerate().map(|(expert, &score)| {
            let weight = weight(score);
            // Above the score of what is chosen already, whatever the file holds.
            (weight, (weight + bias.map_or(0.0, |bias| bias[expert])).max(f32::MIN))
        }));
        let first = self.choices.len();
        for _ in 0..routing.used.min(scores.len()) {
            let mut best = 0;
            for (expert, (_, score)) in self.scores.iter().enumerate() {
                if *score > self.scores[best].1 {
                    best = expert;
                }
            }
            self.choices.push(Choice { expert: best, token, weight: self.scores[best].0 });
            self.scores[best].1 = f32::NEG_INFINITY;
        }
        let chosen = &mut self.choices[first..];
        if routing.normalise {
            // A sum that vanishes would divide to infinity; llama.cpp stops at the same least normal f16.
            let sum = chosen.iter().map(|choice| choice.weight).sum::<f32>().max(6.103_515_6e-5);
            chosen.iter_mut().for_each(|choice| choice.weight /= sum);
        }
        chosen.iter_mut().for_each(|choice| choice.weight *= routing.scale);
    }

    /// The experts that have tokens, each with its choices.
    fn segments(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        self.bounds.windows(2).map(|bound| (self.choices[bound[0]].expert, bound[0]..bound[1]))
    }
}

/// The matrices of gated experts, by expert: `[hidden, dim]` twice, and `[dim, hidden]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Experts<'a> {
    pub(crate) gate: &'a [Matrix],
    pub(crate) up: &'a [Matrix],
    pub(crate) down: &'a [Matrix],
    pub(crate) activation: Activation,
}

impl Cpu {
    /// `out[t] = Σ weight · down(activation(gate x[t]) * up x[t])` over the experts that `routes` has chosen for `t`.
    /// The weights of others are not read.
    pub(crate) fn experts(
        &mut self,
        input: Input<'_>,
        experts: Experts<'_>,
        routes: &mut Routes,
        out: &mut Buffer,
    ) {
        let (tokens, dim, threads) = (input.x.tokens(), input.x.columns(), self.threads());
        assert_eq!(tokens, routes.tokens, "routed tokens");
        let Some((gate, down)) = experts.gate.first().zip(experts.down.first()) else { return };
        let quantized = self.prepare(input, [gate].into_iter().chain(experts.up.first()));

        // Each expert's tokens, side by side.
        let x = if input.norm.is_some() { &self.forms.normed[..] } else { input.x.read() };
        let stride = chunks(dim);
        routes.rows.clear();
        routes.chunks.clear();
        for choice in &routes.choices {
            routes.rows.extend_from_slice(&x[choice.token * dim..][..dim]);
            if quantized {
                routes.chunks.extend_from_slice(&self.forms.q8[choice.token * stride..][..stride]);
            }
        }
        // Not in 16 bits: no encoder has experts.
        let (isa, rounding) = (self.isa, Rounding { fixed: false, ..self.rounding });
        let mut hidden = std::mem::take(&mut routes.hidden);
        hidden.reshape(routes.choices.len(), gate.rows());
        let product = |x, q8| Product { isa, rounding, x, q8, i16: &[] };
        let segments: Vec<_> = routes.segments().collect();
        let mut views = segment_views(&segments, &mut hidden);
        let inputs: Vec<_> = segments
            .iter()
            .map(|(_, choices)| {
                let rows = &routes.rows[choices.start * dim..choices.end * dim];
                let chunks = if quantized { choices.start * stride..choices.end * stride } else { 0..0 };
                product(rows, &routes.chunks[chunks])
            })
            .collect();
        let segment_list = &segments;
        let grain = |i: usize| gate.grain(gate.rows(), segment_list[i].1.len(), threads);
        self.pool.for_columns(&mut views, grain, &mut self.workers, |worker, i, rows, mut out| {
            let expert = segment_list[i].0;
            inputs[i].compute(&experts.gate[expert], rows.clone(), out.reborrow(), &mut worker.panels);
            worker.columns.resize(out.rows() * rows.len(), 0.0);
            let up = MatrixMut::new(&mut worker.columns, rows.len());
            inputs[i].compute(&experts.up[expert], rows.clone(), up, &mut worker.panels);
            for (t, up) in worker.columns.chunks_exact(rows.len()).enumerate() {
                ops::activate_gated(inputs[i].isa, experts.activation, out.row_mut(t), up);
            }
        });
        drop(views);

        let quantized = self.prepare(Input { x: &hidden, norm: None }, [down]);
        let stride = chunks(hidden.columns());
        let mut parts = std::mem::take(&mut routes.out);
        parts.reshape(routes.choices.len(), down.rows());
        let mut views = segment_views(&segments, &mut parts);
        let inputs: Vec<_> = segments
            .iter()
            .map(|(_, choices)| {
                let columns = hidden.columns();
                let rows = &hidden.read()[choices.start * columns..choices.end * columns];
                let chunks = if quantized { choices.start * stride..choices.end * stride } else { 0..0 };
                product(rows, &self.forms.q8[chunks])
            })
            .collect();
        let grain = |i: usize| down.grain(down.rows(), segment_list[i].1.len(), threads);
        self.pool.for_columns(&mut views, grain, &mut self.workers, |worker, i, rows, out| {
            inputs[i].compute(&experts.down[segment_list[i].0], rows, out, &mut worker.panels);
        });
        drop(views);

        out.reshape(tokens, dim);
        out.data_mut().fill(0.0);
        for (choice, part) in routes.choices.iter().zip(parts.read().chunks_exact(dim)) {
            let sum = &mut out.data_mut()[choice.token * dim..][..dim];
            sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += choice.weight * x);
        }
        routes.hidden = hidden;
        routes.out = parts;
    }

    /// `x[t] *= sigmoid(gate[t])`, with one gate a token.
    pub(crate) fn scale_by_sigmoid(&mut self, x: &mut Buffer, gate: &Buffer) {
        let columns = x.columns().max(1);
        for (row, gate) in x.data_mut().chunks_exact_mut(columns).zip(gate.read()) {
            let factor = 1.0 / (1.0 + (-gate).exp());
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

/// A view for each expert of the rows of its choices.
fn segment_views<'a>(
    segments: &[(usize, std::ops::Range<usize>)],
    buffer: &'a mut Buffer,
) -> Vec<MatrixMut<'a>> {
    let columns = buffer.columns();
    let mut rest = MatrixMut::new(buffer.data_mut(), columns);
    let mut views = Vec::with_capacity(segments.len());
    for (_, choices) in segments {
        let (view, below) = rest.split_rows(choices.len());
        views.push(view);
        rest = below;
    }
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTING: Routing = Routing { used: 2, gating: Gating::Softmax, normalise: true, scale: 1.0 };

    fn decide(tokens: &[&[f32]], routing: Routing, bias: Option<&[f32]>) -> Vec<(usize, usize, f32)> {
        let mut scores = Buffer::default();
        scores.reshape(tokens.len(), tokens[0].len());
        scores.data_mut().copy_from_slice(&tokens.concat());
        let mut routes = Routes::default();
        routes.decide(&scores, routing, bias);
        assert_eq!(routes.segments().map(|(_, choices)| choices.len()).sum::<usize>(), routes.choices.len());
        assert_eq!(routes.segments().count(), routes.experts());
        routes.choices.iter().map(|choice| (choice.expert, choice.token, choice.weight)).collect()
    }

    #[test]
    fn the_largest_are_chosen_by_expert_then_token() {
        let chosen = decide(&[&[0.0, 3.0, 1.0], &[5.0, 0.0, 5.0]], ROUTING, None);
        let order: Vec<_> = chosen.iter().map(|&(expert, token, _)| (expert, token)).collect();
        assert_eq!(order, [(0, 1), (1, 0), (2, 0), (2, 1)]);
        let near = |got: f32, want: f32| assert!((got - want).abs() < 1e-6, "{got} {want}");
        near(chosen[0].2, 0.5);
        near(chosen[1].2, 1.0 / (1.0 + (-2.0f32).exp()));
        let all = decide(&[&[0.0, 0.0, 0.0]], Routing { normalise: false, scale: 6.0, ..ROUTING }, None);
        assert_eq!(all.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1]);
        near(all[0].2, 2.0);
    }

    #[test]
    fn a_bias_changes_the_choice_but_not_the_weights() {
        let routing = Routing { used: 1, gating: Gating::Sigmoid, normalise: false, ..ROUTING };
        let chosen = decide(&[&[0.0, 2.0]], routing, Some(&[1.0, 0.0]));
        assert_eq!(chosen, [(0, 0, 0.5)]);
    }

    #[test]
    fn scores_that_are_no_numbers_still_choose_different_experts() {
        for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let chosen = decide(&[&[score; 3]], ROUTING, None);
            assert_eq!(chosen.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1], "{score}");
        }
    }
}
