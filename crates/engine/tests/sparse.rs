//! The laws of sparse layers and predictors.

use std::num::NonZero;

use firecrest::gguf::Format;
use firecrest::memory::QuantizedWeights;
use firecrest::sparse::*;
use firecrest_testkit::Random;

const INPUT: usize = 96;
const HIDDEN: usize = 608;
const OUTPUT: usize = 70;

fn ffn(format: Format, gated: bool, activation: ActivationType) -> SparseFfn {
    let mut random = Random::new(5);
    let mut matrix = |rows, columns| {
        WeightMatrix::quantize(format, &random.floats(rows * columns), rows, columns).unwrap()
    };
    let gate = gated.then(|| matrix(HIDDEN, INPUT));
    let (first, second) = (matrix(HIDDEN, INPUT), matrix(OUTPUT, HIDDEN));
    SparseFfn::from_weights(gate, first, second, activation).unwrap()
}

fn cases() -> impl Iterator<Item = (SparseFfn, String)> {
    let formats =
        [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q5_1];
    formats.into_iter().flat_map(|format| {
        [ActivationType::Relu, ActivationType::Silu, ActivationType::Gelu].into_iter().flat_map(
            move |activation| {
                [false, true]
                    .map(|gated| (ffn(format, gated, activation), format!("{format} {activation:?} {gated}")))
            },
        )
    })
}

#[test]
fn all_neurons_are_dense_bit_for_bit() {
    let input = Random::new(1).floats(INPUT);
    let all: Vec<usize> = (0..HIDDEN).collect();
    for (ffn, case) in cases() {
        let dense = ffn.forward_dense(&input).unwrap();
        assert_eq!(ffn.forward_sparse(&input, &all).unwrap(), dense, "{case}");
        let ffn = ffn.with_threads(NonZero::new(3).unwrap()).unwrap();
        assert_eq!(ffn.forward_sparse(&input, &all).unwrap(), dense, "{case} on threads");
    }
}

#[test]
fn neurons_that_do_not_fire_are_nothing() {
    let input = Random::new(2).floats(INPUT);
    for (ffn, case) in cases() {
        let hidden = ffn.activations(&input).unwrap();
        let fires: Vec<usize> = (0..HIDDEN).filter(|&n| hidden[n] != 0.0).collect();
        assert_eq!(ffn.forward_sparse(&input, &fires).unwrap(), ffn.forward_dense(&input).unwrap(), "{case}");
        if ffn.activation() == ActivationType::Relu {
            assert!(fires.len() < HIDDEN * 2 / 3, "{case}");
        }
    }
}

#[test]
fn a_layer_is_what_its_formula_says() {
    let mut random = Random::new(3);
    let (gate, first, second) =
        (random.floats(HIDDEN * INPUT), random.floats(HIDDEN * INPUT), random.floats(OUTPUT * HIDDEN));
    let (bias, out_bias, input) = (random.floats(HIDDEN), random.floats(OUTPUT), random.floats(INPUT));
    let dot = |row: &[f32]| row.iter().zip(&input).map(|(w, x)| f64::from(w * x)).sum::<f64>();
    let hidden: Vec<f64> = (0..HIDDEN)
        .map(|n| {
            let row = |m: &[f32]| dot(&m[n * INPUT..][..INPUT]);
            let g = row(&gate);
            g / (1.0 + (-g).exp()) * (row(&first) + f64::from(bias[n]))
        })
        .collect();
    let active: Vec<usize> = (0..HIDDEN).filter(|n| n % 3 != 0).collect();
    let matrix = |values: &[f32], rows, columns| WeightMatrix::from_f32(values, rows, columns).unwrap();
    let ffn = SparseFfn::from_weights(
        Some(matrix(&gate, HIDDEN, INPUT)),
        matrix(&first, HIDDEN, INPUT),
        matrix(&second, OUTPUT, HIDDEN),
        ActivationType::Swish,
    );
    let ffn = ffn.unwrap().with_biases(Some(bias), Some(out_bias.clone())).unwrap();
    let out = ffn.forward_sparse(&input, &active).unwrap();
    for r in 0..OUTPUT {
        let want = f64::from(out_bias[r])
            + active.iter().map(|&n| hidden[n] * f64::from(second[r * HIDDEN + n])).sum::<f64>();
        assert!((f64::from(out[r]) - want).abs() < 1e-3, "{r}: {} not {want}", out[r]);
    }
    // The same with the second matrix by neuron.
    let transposed: Vec<f32> =
        (0..HIDDEN * OUTPUT).map(|i| second[i % OUTPUT * HIDDEN + i / OUTPUT]).collect();
    let by_neuron = SparseFfn::from_weights_by_neuron(
        None,
        matrix(&first, HIDDEN, INPUT),
        matrix(&transposed, HIDDEN, OUTPUT),
        ActivationType::Relu,
    );
    let plain = SparseFfn::from_weights(
        None,
        matrix(&first, HIDDEN, INPUT),
        matrix(&second, OUTPUT, HIDDEN),
        ActivationType::Relu,
    );
    assert_eq!(
        by_neuron.unwrap().forward_dense(&input).unwrap(),
        plain.unwrap().forward_dense(&input).unwrap()
    );
}

#[test]
fn what_does_not_fit_is_an_error() {
    let ffn = ffn(Format::Q8_0, true, ActivationType::Silu);
    let input = vec![0.5; INPUT];
    assert!(matches!(
        ffn.forward_dense(&input[1..]),
        Err(SparseError::Shape { expected: INPUT, found: 95, .. })
    ));
    let mut broken = input.clone();
    broken[7] = f32::NAN;
    assert!(matches!(ffn.forward_sparse(&broken, &[0]), Err(SparseError::NotFinite { index: 7, .. })));
    for active in [vec![HIDDEN], vec![3, 3], vec![4, 3]] {
        assert!(matches!(ffn.forward_sparse(&input, &active), Err(SparseError::Neuron { .. })), "{active:?}");
    }
    assert!(ffn.forward_sparse(&input, &[]).unwrap().iter().all(|&x| x == 0.0));
    assert!(SparseFfn::new(0, 4, 4, ActivationType::Relu).is_err());
    assert!(SparseFfn::new(1 << 24, 1 << 24, 4, ActivationType::Relu).is_err());
    let matrix = |rows, columns| WeightMatrix::from_f32(&vec![0.0; rows * columns], rows, columns).unwrap();
    assert!(SparseFfn::from_weights(None, matrix(4, 3), matrix(3, 5), ActivationType::Relu).is_err());
    assert!(
        SparseFfn::from_weights(Some(matrix(4, 2)), matrix(4, 3), matrix(3, 4), ActivationType::Relu)
            .is_err()
    );
    assert!(WeightMatrix::from_f32(&[0.0; 5], 2, 3).is_err());
    assert!(WeightMatrix::from_f32(&[f32::INFINITY], 1, 1).is_err());
    assert!(WeightMatrix::quantize(Format::Q8_0, &[0.0; 31], 1, 31).is_err());
    assert!(WeightMatrix::quantize(Format::Q4_K, &[0.0; 256], 1, 256).is_err());
    let quantized = QuantizedWeights::quantize_int8(&[1.0, -1.0, 0.5, 0.0]);
    assert_eq!(WeightMatrix::from_quantized(&quantized, 2).unwrap().rows(), 2);
    assert!(WeightMatrix::from_quantized(&quantized, 3).is_err());
}

/// Inputs, and what neurons do that look at `rank` directions of them.
fn samples(rank: usize, count: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut random = Random::new(8);
    let directions = random.floats(rank * 32);
    let mixes = random.floats(100 * rank);
    let inputs: Vec<Vec<f32>> = (0..count).map(|_| random.floats(32)).collect();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let activations = inputs.iter().map(|x| {
        let middle: Vec<f32> = directions.chunks(32).map(|row| dot(row, x)).collect();
        mixes.chunks(rank).enumerate().map(|(n, row)| dot(row, &middle) + n as f32 / 50.0 - 1.0).collect()
    });
    let activations = activations.collect();
    (inputs, activations)
}

#[test]
fn calibration_finds_what_is_there() {
    let (inputs, activations) = samples(3, 300);
    let mut predictor = LowRankPredictor::new(32, 100, 3, SparsityConfig::with_top_k(20)).unwrap();
    predictor.calibrate(&inputs, &activations).unwrap();
    let mut scores = vec![0.0; 100];
    for (x, want) in inputs.iter().zip(&activations) {
        predictor.score(x, &mut scores);
        assert!(scores.iter().zip(want).all(|(a, b)| (a - b).abs() < 0.02), "{scores:?} {want:?}");
        assert_eq!(predictor.predict(x).unwrap().len(), 20);
    }
    // Too low a rank does worse, but better than chance, which is a fifth.
    let mut low = LowRankPredictor::new(32, 100, 1, SparsityConfig::with_top_k(20)).unwrap();
    let (low, high) =
        (low.calibrate(&inputs, &activations).unwrap(), predictor.evaluate(&inputs, &activations).unwrap());
    assert!(low.recall > 0.3 && low.recall < high.recall, "{low:?} {high:?}");
    assert_eq!(high.selected, 0.2);
    assert!((high.cost - 3.0 * 132.0 / 3200.0).abs() < 1e-9);
}

#[test]
fn calibration_refuses_what_it_cannot_use() {
    let (inputs, activations) = samples(3, 4);
    let mut predictor = LowRankPredictor::new(32, 100, 3, SparsityConfig::with_threshold(0.0)).unwrap();
    let before = predictor.clone();
    assert!(matches!(predictor.calibrate(&[], &[]), Err(SparseError::NoSamples)));
    assert!(predictor.calibrate(&inputs, &activations[1..]).is_err());
    let mut broken = inputs.clone();
    broken[2][5] = f32::NAN;
    assert!(matches!(predictor.calibrate(&broken, &activations), Err(SparseError::NotFinite { .. })));
    broken[2].pop();
    assert!(matches!(predictor.calibrate(&broken, &activations), Err(SparseError::Shape { .. })));
    assert_eq!(predictor, before);
    assert!(predictor.predict(&[f32::NAN; 32]).is_err());
    assert!(predictor.predict(&[0.0; 31]).is_err());
    // Fewer samples than inputs, and samples that are all alike, still give finite scores.
    predictor.calibrate(&inputs, &activations).unwrap();
    predictor.calibrate(&vec![vec![0.0; 32]; 3], &activations[..3]).unwrap();
    assert!(predictor.predict(&inputs[0]).is_ok());
    for rank in [0, 33] {
        assert!(LowRankPredictor::new(32, 100, rank, SparsityConfig::with_top_k(1)).is_err());
    }
    assert!(LowRankPredictor::new(32, 100, 3, SparsityConfig::with_top_k(101)).is_err());
}

#[test]
fn a_predictor_survives_its_file() {
    let (inputs, activations) = samples(3, 50);
    for config in [
        SparsityConfig::with_top_k(7),
        SparsityConfig::with_threshold(0.25),
        SparsityConfig::with_target_sparsity(0.9),
    ] {
        let mut predictor = LowRankPredictor::new(32, 100, 3, config).unwrap();
        predictor.calibrate(&inputs, &activations).unwrap();
        let path = std::env::temp_dir().join(format!("firecrest-predictor-{}", std::process::id()));
        predictor.save(&path).unwrap();
        assert_eq!(LowRankPredictor::load(&path).unwrap(), predictor);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(LowRankPredictor::load(&path), Err(SparseError::Io { .. })));

        let bytes = predictor.to_bytes();
        for cut in 0..bytes.len().min(200) {
            assert!(LowRankPredictor::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len().min(200) {
            let mut broken = bytes.clone();
            broken[at] ^= 0x40;
            assert!(LowRankPredictor::from_bytes(&broken).is_err(), "{at}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(LowRankPredictor::from_bytes(&longer).is_err());
    }
}

#[test]
fn predictors_share_a_trait() {
    let ffn = std::sync::Arc::new(ffn(Format::F32, true, ActivationType::Silu));
    let mut random = Random::new(9);
    let inputs: Vec<Vec<f32>> = (0..20).map(|_| random.floats(INPUT)).collect();
    let hidden: Vec<Vec<f32>> = inputs.iter().map(|x| ffn.activations(x).unwrap()).collect();
    let config = SparsityConfig::with_target_sparsity(0.5);
    let gate = random.floats(HIDDEN * INPUT);
    let predictors: [Box<dyn NeuronPredictor>; 2] = [
        Box::new(GateThresholdPredictor::new(ffn, config).unwrap()),
        Box::new(SignBitPredictor::new(INPUT, HIDDEN, &gate, config).unwrap()),
    ];
    let [by_gate, by_sign] = predictors.map(|predictor| predictor.evaluate(&inputs, &hidden).unwrap());
    // The gate knows much; signs of another matrix know nothing.
    assert!(by_gate.recall > 0.7 && (by_gate.cost - 1.0).abs() < 1e-9, "{by_gate:?}");
    assert!((by_sign.recall - 0.5).abs() < 0.1 && by_sign.cost < 0.05, "{by_sign:?}");
}

#[test]
fn an_engine_counts_what_it_does() {
    let engine = SparseInferenceEngine::new_sparse(32, 200, 0.9).unwrap();
    assert_eq!(engine.sparsity_stats().average_active_ratio, 1.0);
    let input = Random::new(4).floats(32);
    let sparse = engine.infer(&input).unwrap();
    let dense = engine.ffn().forward_dense(&input).unwrap();
    assert_ne!(sparse, dense);
    let stats = engine.sparsity_stats();
    assert_eq!((stats.inferences, stats.min_active, stats.max_active, stats.neurons), (1, 20, 20, 200));
    assert_eq!(stats.bytes_skipped, 180 * (32 + 32) * 4);
    assert!(SparseInferenceEngine::new_sparse(32, 200, 1.5).is_err());
    assert!(SparseInferenceEngine::new_sparse(32, 200, f32::NAN).is_err());
    let mut engine = engine;
    assert!(matches!(engine.calibrate(&[]), Err(SparseError::NoSamples)));
    assert!(engine.set_sparsity(-0.1).is_err());
}
