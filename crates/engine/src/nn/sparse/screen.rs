//! The vocabulary screen: finds the tokens whose logits are worth computing.
//!
//! The output matrix is kept once more in few bits: 4 for the directions along which the stream varies most, 2 for the
//! others. A guess of all logits reads less than a third of what the logits themselves do, and a level computes those of
//! the best guesses. To prove the largest logit, leading directions are read in 4 bits, then the others, and what the
//! first ones lost to 4 bits; what is still missing is bounded by Cauchy and Schwarz for each group of directions, and
//! logits are computed where that bound reaches the logit of the best guess.

use crate::backend::{Buffer, CoarseLayout, CoarseMatrix, Cpu, Input, Matrix, Output};
use crate::generate::likeliest;
use crate::gguf::Format;
use crate::nn::weights::DecoderWeights;
use crate::sparse::{PROOF_TERMS, ScreenProfile};
use crate::weights::Bytes;

/// One of how many logits are looked at to find where the candidates begin.
const STRIDE: usize = 32;

/// One of how many logits may be left undecided before all are computed.
const UNDECIDED: usize = 8;

/// The share of the sizes of both factors that rounding of floats may take from a product: some hundred times what it does.
const ROUNDING: f32 = 1e-5;

#[derive(Debug)]
pub(super) struct Screen {
    mean: Vec<f32>,
    /// Directions, as rows: those of the guess, and for a proof all others.
    basis: Matrix,
    /// How large the output matrix is in each direction of the guess.
    sizes: Vec<f32>,
    /// The output matrix in those directions.
    guess: CoarseMatrix,
    bias: Vec<f32>,
    proof: Option<Proof>,
}

#[derive(Debug)]
struct Proof {
    /// The output matrix in leading directions.
    rows: Matrix,
    /// The first of them, those that `rest` refines.
    lead: usize,
    /// What `rows` lost in the first directions, and the output matrix in those that `rows` does not have.
    rest: Matrix,
    /// For each token, by how much it exceeds the bound that `scales` make.
    slack: Vec<f32>,
    scales: [f32; PROOF_TERMS],
}

/// Memory that the screen works in.
#[derive(Debug, Default)]
pub(super) struct ScreenBuffers {
    normed: Buffer,
    low: Buffer,
    head: Buffer,
    tail: Buffer,
    rest: Buffer,
    rows: Vec<u32>,
    values: [Vec<f32>; 1],
}

/// How often the best were among the candidates.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScreenRecall {
    /// Tokens.
    pub(crate) count: u64,
    /// Of those, the ones whose largest logit was computed.
    pub(crate) largest: u64,
    /// Of the 40 largest logits of each, those that were computed.
    pub(crate) top_40: u64,
}

/// The logits that a sampler sees, as a rule.
pub(crate) const TOP: usize = 40;

impl Screen {
    /// `None` where the sizes are those of another model.
    pub(super) fn new(profile: &ScreenProfile, dim: usize, vocab: usize) -> Option<Self> {
        let (fine, rough) = (profile.fine as usize, profile.rough as usize);
        let layout = CoarseLayout::new(fine, rough).filter(|layout| layout.columns() <= dim)?;
        let directions = if profile.proof.is_some() { dim } else { layout.columns() };
        let matrix = |bytes: &[u8], format, rows, columns| {
            Matrix::new(Bytes::from(bytes.to_vec()), format, rows, columns)
        };
        let proof = match &profile.proof {
            None => None,
            Some(proof) => {
                let (rank, lead) = (proof.rank as usize, proof.lead as usize);
                let columns = (lead + dim).checked_sub(rank).filter(|_| lead <= rank)?;
                let rows = matrix(&proof.rows, Format::Q4_0, vocab, rank)?;
                let rest = matrix(&proof.rest, Format::Q4_0, vocab, columns)?;
                let slack = proof.slack.clone();
                (rank > 0 && rank <= dim && slack.len() == vocab).then_some(())?;
                Some(Proof { rows, lead, rest, slack, scales: proof.scales })
            }
        };
        let lengths = [profile.mean.len(), profile.sizes.len(), profile.bias.len()];
        (lengths == [dim, layout.columns(), vocab]).then_some(())?;
        Some(Self {
            mean: profile.mean.clone(),
            basis: matrix(&profile.basis, Format::F16, directions, dim)?,
            sizes: profile.sizes.clone(),
            guess: CoarseMatrix::new(layout, &profile.panels, vocab)?,
            bias: profile.bias.clone(),
            proof,
        })
    }

    pub(super) fn has_proof(&self) -> bool {
        self.proof.is_some()
    }

    /// Bytes that a guess of all logits reads, and those for a proof.
    pub(super) fn bytes(&self, proven: bool) -> usize {
        match self.proof.as_ref().filter(|_| proven) {
            Some(proof) => proof.rows.bytes() + proof.rest.bytes() + self.basis.bytes(),
            None => self.guess.bytes() + self.basis.slice(0..self.sizes.len()).bytes(),
        }
    }

    /// Guesses of the logits of each token in `x`, in `b.rest`.
    fn guess(&self, weights: &DecoderWeights, cpu: &mut Cpu, x: &Buffer, b: &mut ScreenBuffers) {
        b.normed.reshape(x.tokens(), x.columns());
        let rows = x.read().chunks_exact(x.columns()).zip(b.normed.data_mut().chunks_exact_mut(x.columns()));
        for (x, normed) in rows {
            weights.output_norm.apply(cpu.isa(), x, normed);
            normed.iter_mut().zip(&self.mean).for_each(|(x, m)| *x -= m);
        }
        let directions = self.basis.slice(0..self.sizes.len());
        let directions = Output { matrix: &directions, bias: None, out: &mut b.low };
        cpu.project(Input { x: &b.normed, norm: None }, &mut [directions]);
        for low in b.low.data_mut().chunks_exact_mut(self.sizes.len()) {
            low.iter_mut().zip(&self.sizes).for_each(|(x, size)| *x *= size);
        }
        cpu.guess(&self.guess, &b.low, &self.bias, &mut b.rest);
    }

    /// The guess from which on about so many are larger.
    fn bound(guesses: &[f32], candidates: usize) -> f32 {
        let mut sample: Vec<f32> = guesses.iter().copied().step_by(STRIDE).collect();
        let place = (candidates / STRIDE).clamp(1, sample.len()) - 1;
        let (_, &mut bound, _) = sample.select_nth_unstable_by(place, |a, b| b.total_cmp(a));
        bound
    }

    /// The logits of one token: exact for about so many candidates, guesses for the rest, which are below the guesses of
    /// the candidates. Returns how many were computed.
    pub(super) fn logits(
        &self,
        candidates: usize,
        weights: &DecoderWeights,
        cpu: &mut Cpu,
        x: &Buffer,
        logits: &mut Buffer,
        b: &mut ScreenBuffers,
    ) -> usize {
        self.guess(weights, cpu, x, b);
        std::mem::swap(logits, &mut b.rest);
        let bound = Self::bound(logits.read(), candidates);
        at_least(logits.read(), |_, guess| guess >= bound, &mut b.rows);
        compute(weights, cpu, x, b);
        let guesses = logits.data_mut();
        let pairs = b.rows.iter().zip(&b.values[0]);
        let missing = Self::missing(pairs.map(|(&id, &logit)| logit - guesses[id as usize]));
        guesses.iter_mut().for_each(|guess| *guess += missing);
        put(logits, b);
        b.rows.len()
    }

    /// What guesses lack for their probabilities to be right on average: half the variance of what the other directions add,
    /// as with the logarithm of a log-normal number.
    fn missing(errors: impl Iterator<Item = f32>) -> f32 {
        let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for error in errors.filter(|error| error.is_finite()).map(f64::from) {
            count += 1.0;
            sum += error;
            squares += error * error;
        }
        if count > 1.0 { ((squares - sum * sum / count).max(0.0) / (count - 1.0) / 2.0) as f32 } else { 0.0 }
    }

    /// The same for several tokens, whose logits are all at hand: puts guesses in the place of all but the candidates.
    pub(super) fn blur(
        &self,
        candidates: usize,
        weights: &DecoderWeights,
        cpu: &mut Cpu,
        x: &Buffer,
        logits: &mut Buffer,
        b: &mut ScreenBuffers,
        recall: &mut ScreenRecall,
    ) {
        self.guess(weights, cpu, x, b);
        let vocab = logits.columns();
        let mut order: Vec<u32> = Vec::new();
        for (logits, guesses) in
            logits.data_mut().chunks_exact_mut(vocab).zip(b.rest.read().chunks_exact(vocab))
        {
            let bound = Self::bound(guesses, candidates);
            order.clear();
            order.extend(0..vocab as u32);
            let top = TOP.min(vocab);
            order.select_nth_unstable_by(top - 1, |&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            let best =
                order[..top].iter().max_by(|&&a, &&b| logits[a as usize].total_cmp(&logits[b as usize]));
            let found = |id: u32| u64::from(guesses[id as usize] >= bound);
            recall.count += 1;
            recall.largest += best.map_or(0, |&id| found(id));
            recall.top_40 += order[..top].iter().map(|&id| found(id)).sum::<u64>();
            let candidates = logits.iter().zip(guesses).filter(|&(_, &guess)| guess >= bound);
            let missing = Self::missing(candidates.map(|(logit, guess)| logit - guess));
            for (logit, &guess) in logits.iter_mut().zip(guesses) {
                if guess < bound {
                    *logit = guess + missing;
                }
            }
        }
    }

    /// The logits of one token: exact for the largest and for all that might have been it, guesses for the rest, which are
    /// smaller. `None` where there is no proof, or where it leaves too many in question; else how many were computed.
    pub(super) fn largest(
        &self,
        weights: &DecoderWeights,
        cpu: &mut Cpu,
        x: &Buffer,
        logits: &mut Buffer,
        b: &mut ScreenBuffers,
    ) -> Option<usize> {
        let proof = self.proof.as_ref()?;
        let rank = proof.rows.columns();
        b.normed.reshape(1, x.columns());
        let normed = b.normed.data_mut();
        weights.output_norm.apply(cpu.isa(), x.read(), normed);
        // The logits are those of the rounded stream.
        cpu.round_for(&weights.output.matrix, normed);
        normed.iter_mut().zip(&self.mean).for_each(|(x, m)| *x -= m);
        let size = norm(normed) + norm(&self.mean);
        let basis = Output { matrix: &self.basis, bias: None, out: &mut b.low };
        cpu.project(Input { x: &b.normed, norm: None }, &mut [basis]);
        let low = b.low.read();
        b.head.reshape(1, rank);
        b.head.data_mut().copy_from_slice(&low[..rank]);
        b.tail.reshape(1, proof.rest.columns());
        let (refined, others) = b.tail.data_mut().split_at_mut(proof.lead);
        refined.copy_from_slice(&low[..proof.lead]);
        others.copy_from_slice(&low[rank..]);
        let terms: [f32; PROOF_TERMS] = [
            norm(&low[..proof.lead]),
            norm(&low[proof.lead..rank]),
            norm(&low[rank..]),
            cpu.rounding_of(&proof.rows, b.head.read()),
            cpu.rounding_of(&proof.rest, b.tail.read()),
            ROUNDING * size,
        ];
        let rows = Output { matrix: &proof.rows, bias: Some(&self.bias), out: logits };
        cpu.project(Input { x: &b.head, norm: None }, &mut [rows]);
        let rest = Output { matrix: &proof.rest, bias: None, out: &mut b.rest };
        cpu.project(Input { x: &b.tail, norm: None }, &mut [rest]);
        logits.data_mut().iter_mut().zip(b.rest.read()).for_each(|(x, y)| *x += y);

        let guesses = logits.read();
        let best = likeliest(guesses).ok()??;
        b.rows.clear();
        b.rows.push(best);
        let input = Input { x, norm: Some(&weights.output_norm) };
        cpu.project_rows(input, [&weights.output.matrix], &b.rows, &mut b.values);
        let least = b.values[0][0] + weights.output.bias.as_ref().map_or(0.0, |bias| bias[best as usize]);
        let missing: f32 = terms.iter().zip(&proof.scales).map(|(x, s)| x * s).sum();
        if !(missing.is_finite() && least.is_finite()) {
            return None;
        }
        at_least(guesses, |i, guess| guess + missing * proof.slack[i] >= least, &mut b.rows);
        if b.rows.len() > guesses.len() / UNDECIDED {
            return None;
        }
        compute(weights, cpu, x, b);
        put(logits, b);
        Some(b.rows.len())
    }
}

/// Computes the logits of `b.rows`.
fn compute(weights: &DecoderWeights, cpu: &mut Cpu, x: &Buffer, b: &mut ScreenBuffers) {
    let input = Input { x, norm: Some(&weights.output_norm) };
    cpu.project_rows(input, [&weights.output.matrix], &b.rows, &mut b.values);
    if let Some(bias) = &weights.output.bias {
        b.values[0].iter_mut().zip(&b.rows).for_each(|(value, &id)| *value += bias[id as usize]);
    }
}

/// Puts them where they belong.
fn put(logits: &mut Buffer, b: &ScreenBuffers) {
    let out = logits.data_mut();
    b.rows.iter().zip(&b.values[0]).for_each(|(&id, &value)| out[id as usize] = value);
}

/// The places of what `keep` says yes to. Few do, so that most runs of 16 are passed over at once.
fn at_least(values: &[f32], keep: impl Fn(usize, f32) -> bool, out: &mut Vec<u32>) {
    out.clear();
    let (runs, rest) = values.as_chunks::<16>();
    for (run, values) in runs.iter().enumerate() {
        let mut any = false;
        for (i, &x) in values.iter().enumerate() {
            any |= keep(16 * run + i, x);
        }
        if any {
            let kept = values.iter().enumerate().filter(|&(i, &x)| keep(16 * run + i, x));
            out.extend(kept.map(|(i, _)| (16 * run + i) as u32));
        }
    }
    let last = (values.len() - rest.len()..values.len()).zip(rest);
    out.extend(last.filter(|&(i, &x)| keep(i, x)).map(|(i, _)| i as u32));
}

fn norm(x: &[f32]) -> f32 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32
}
