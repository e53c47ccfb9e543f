//! Products with some rows, and with some neurons of a transposed matrix, against the products with all of them.

use firecrest_kernels::format::Format;
use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops::*;
use firecrest_testkit::Random;

/// Random blocks whose weights are finite and of moderate size.
fn random_matrix(random: &mut Random, format: Format, rows: usize, columns: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut values = vec![0.0; format.block_len()];
    while bytes.len() < rows * format.row_bytes(columns).unwrap() {
        let mut block = random.bytes(format.block_bytes());
        if matches!(format, Format::I16 | Format::I32 | Format::I64) {
            block[1..].fill(0);
        }
        format.dequantize(&block, &mut values);
        if values.iter().all(|v| v.is_finite() && v.abs() < 1e4) {
            bytes.extend(block);
        }
    }
    bytes
}

fn quantized(isa: IsaKind, x: &[f32]) -> Vec<QuantizedChunk> {
    let mut out = vec![QuantizedChunk::ZERO; chunks(x.len())];
    quantize(isa, x, &mut out);
    out
}

#[test]
fn some_rows_are_bit_for_bit_those_of_all() {
    let mut random = Random::new(1);
    for &format in Format::ALL {
        for columns in [
            format.block_len().max(64),
            256 + format.block_len().max(32),
            320usize.next_multiple_of(format.block_len()),
            768,
        ] {
            if columns % format.block_len() != 0 {
                continue;
            }
            let bytes = random_matrix(&mut random, format, 40, columns);
            let weights = Weights::new(format, &bytes, 40, columns).unwrap();
            let x = random.floats(columns);
            for isa in IsaKind::available() {
                let mut all = vec![0.0; 40];
                let panels = &mut [FloatPanel::ZERO; FLOAT_PANELS];
                matmul_f32(isa, weights, &x, MatrixMut::new(&mut all, 40), panels);
                let mut codes_all = vec![0.0; 40];
                let codes = quantized(isa, &x);
                if format.is_quantized() {
                    let mut panel = vec![PanelRun::ZERO; panel_runs(columns)];
                    matmul(isa, weights, &codes, MatrixMut::new(&mut codes_all, 40), &mut panel);
                }
                for rows in [vec![], vec![39], vec![0, 1, 2, 3, 4, 30, 31], (0..40).collect()] {
                    let mut some = vec![f32::NAN; rows.len()];
                    matmul_rows_f32(isa, weights, &rows, &x, &mut some);
                    let want: Vec<f32> = rows.iter().map(|&r: &u32| all[r as usize]).collect();
                    assert_eq!(some, want, "{isa} {format} {columns} {rows:?}");
                    if format.is_quantized() {
                        matmul_rows(isa, weights, &rows, &codes, &mut some);
                        let want: Vec<f32> = rows.iter().map(|&r| codes_all[r as usize]).collect();
                        assert_eq!(some, want, "{isa} {format} {columns} {rows:?}");
                    }
                }
            }
        }
    }
}

/// What the neurons add.
fn by_neuron(
    isa: IsaKind,
    layout: &NeuronLayout,
    packed: &[u8],
    active: impl Iterator<Item = usize>,
    h: &[QuantizedChunk],
) -> Vec<f32> {
    let mut out = vec![0.0; layout.padded_outputs()];
    let active: Vec<u32> = active.map(|n| n as u32).collect();
    add_neurons(isa, layout, packed, &active, h, &mut out);
    out
}

#[test]
fn by_neuron_nothing_is_rounded() {
    let mut random = Random::new(2);
    for &format in Format::ALL.iter().filter(|format| format.is_quantized()) {
        for (outputs, neurons) in
            [(5, format.block_len()), (70, 256 + format.block_len()), (64, 512), (140, format.block_len())]
        {
            let bytes = random_matrix(&mut random, format, outputs, neurons);
            let weights = Weights::new(format, &bytes, outputs, neurons).unwrap();
            let layout = NeuronLayout::new(format, outputs, neurons).unwrap();
            let mut packed = vec![1; layout.bytes().unwrap()];
            for (s, section) in packed.chunks_mut(layout.section_bytes()).enumerate() {
                layout.pack(weights, s, section);
            }
            let mut h = random.floats(neurons);
            for i in 0..neurons {
                if random.below(3) == 0 {
                    h[i] = 0.0;
                }
            }
            for isa in IsaKind::available() {
                let codes = quantized(isa, &h);
                let mut kept = vec![0.0; neurons];
                dequantize(&codes, &mut kept);
                let all = by_neuron(isa, &layout, &packed, 0..neurons, &codes);
                let firing = (0..neurons).filter(|&n| h[n] != 0.0);
                let some = by_neuron(isa, &layout, &packed, firing, &codes);
                assert_eq!(all, some, "{isa} {format}");
                let mut row = vec![0.0; neurons];
                for r in 0..outputs {
                    weights.dequantize_row(r, &mut row);
                    let products = row.iter().zip(&kept).map(|(&w, &h)| f64::from(w) * f64::from(h));
                    let (want, size) = (products.clone().sum::<f64>(), products.map(f64::abs).sum::<f64>());
                    let error = (f64::from(all[r]) - want).abs();
                    assert!(error <= 1e-6 * size, "{isa} {format} {r}: {} not {want}", all[r]);
                }
                assert!(all[outputs..].iter().all(|&x| x == 0.0));
            }
        }
    }
}

#[test]
fn rows_of_any_format_add_up() {
    let mut random = Random::new(3);
    for &format in Format::ALL {
        let columns = 256 + format.block_len().max(8);
        if columns % format.block_len() != 0 {
            continue;
        }
        let bytes = random_matrix(&mut random, format, 12, columns);
        let weights = Weights::new(format, &bytes, 12, columns).unwrap();
        let active = [0, 1, 3, 7, 8, 11];
        let h = random.floats(active.len());
        for isa in IsaKind::available() {
            let mut out = vec![1.0; columns];
            add_neurons_f32(isa, weights, &active, &h, &mut out);
            let mut want = vec![1.0f64; columns];
            let mut size = vec![1.0f64; columns];
            let mut row = vec![0.0; columns];
            for (&n, &h) in active.iter().zip(&h) {
                weights.dequantize_row(n as usize, &mut row);
                let largest = row.iter().fold(0.0, |largest: f32, w| largest.max(w.abs()));
                for (i, w) in row.iter().enumerate() {
                    want[i] += f64::from(w * h);
                    // Codes and what stands for zero are multiplied apart.
                    size[i] += f64::from(largest * h.abs());
                }
            }
            for i in 0..columns {
                let error = (f64::from(out[i]) - want[i]).abs();
                assert!(error < 1e-6 * size[i], "{isa} {format} {i}: off by {error} of {}", size[i]);
            }
        }
    }
}
