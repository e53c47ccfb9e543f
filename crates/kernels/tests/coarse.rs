//! Products with a matrix of a few bits a weight.

use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops::*;
use firecrest_testkit::Random;

const ROWS: usize = 37;
const SHAPES: [(usize, usize); 5] = [(32, 32), (64, 512), (0, 64), (96, 0), (32, 320)];

/// The matrix, packed.
fn packed(layout: CoarseLayout, rows: &[f32], weights: &[f32]) -> Vec<u8> {
    let columns = layout.columns();
    let mut panels = vec![0xAA; layout.bytes(rows.len() / columns).unwrap()];
    for (rows, panel) in rows.chunks(16 * columns).zip(panels.chunks_exact_mut(layout.panel_bytes())) {
        layout.pack(rows, weights, panel);
    }
    panels
}

/// The product with `x`.
fn product(isa: IsaKind, layout: CoarseLayout, panels: &[u8], x: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut codes = vec![0; x.len()];
    let scales = layout.quantize(x, &mut codes);
    let mut out = vec![f32::NAN; bias.len()];
    coarse_product(isa, layout, panels, (&codes, scales), bias, &mut out);
    out
}

/// Numbers spread like a bell, of size 1.
fn bell(random: &mut Random, len: usize) -> Vec<f32> {
    let sums = (0..len).map(|_| random.floats(12).iter().sum::<f32>());
    let values: Vec<f32> = sums.collect();
    let size = (values.iter().map(|x| x * x).sum::<f32>() / len as f32).sqrt();
    values.into_iter().map(|x| x / size).collect()
}

#[test]
fn weights_that_a_code_stands_for_are_kept() {
    let mut random = Random::new(3);
    for (fine, rough) in SHAPES {
        let layout = CoarseLayout::new(fine, rough).unwrap();
        let columns = fine + rough;
        let levels = random.bytes(ROWS * columns);
        let row = |(r, codes): (usize, &[u8])| -> Vec<f32> {
            let scale = 0.25 * (1 + r % 3) as f32;
            // Both ends occur, so that no other scale fits as well.
            let level = |i: usize, code: u8| {
                let code = [0, 0xff, code][(i % 32).min(2)];
                if i < fine { f32::from(code % 16) - 7.5 } else { f32::from(code % 4) - 1.5 }
            };
            codes.iter().enumerate().map(|(i, &code)| scale * level(i, code)).collect()
        };
        let rows: Vec<f32> = levels.chunks_exact(columns).enumerate().flat_map(row).collect();
        let panels = packed(layout, &rows, &vec![1.0; columns]);
        let bias = random.floats(ROWS);
        // Whole numbers up to 127 in either kind, which 8 bits keep.
        let x: Vec<f32> =
            (0..columns).map(|i| if i % 32 == 5 { 127.0 } else { (i * 37 % 201) as f32 - 100.0 }).collect();
        let mut results = Vec::new();
        for isa in IsaKind::available() {
            let out = product(isa, layout, &panels, &x, &bias);
            for (r, &got) in out.iter().enumerate() {
                let row = &rows[r * columns..][..columns];
                let want: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(w * x)).sum();
                let want = want + f64::from(bias[r]);
                let size: f64 = row.iter().zip(&x).map(|(w, x)| f64::from((w * x).abs())).sum();
                assert!(
                    (f64::from(got) - want).abs() <= 1e-5 * size,
                    "{isa} {fine} {rough} {r}: {got} {want}"
                );
            }
            results.push(out);
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{fine} {rough}");
    }
}

#[test]
fn other_weights_are_kept_as_well_as_so_few_bits_can() {
    let mut random = Random::new(4);
    let isa = IsaKind::best();
    for (fine, rough, most) in [(512, 0, 0.014), (0, 512, 0.125)] {
        let layout = CoarseLayout::new(fine, rough).unwrap();
        let rows = bell(&mut random, ROWS * 512);
        let panels = packed(layout, &rows, &[1.0; 512]);
        // One column at a time.
        let (mut lost, mut all) = (0.0, 0.0);
        for column in 0..512 {
            let mut x = [0.0; 512];
            x[column] = 1.0;
            let out = product(isa, layout, &panels, &x, &[0.0; ROWS]);
            for (r, got) in out.iter().enumerate() {
                let want = rows[r * 512 + column];
                (lost, all) = (lost + (got - want) * (got - want), all + want * want);
            }
        }
        assert!(lost / all < most, "{fine} {rough}: {}", lost / all);
    }
}

#[test]
fn strange_rows_and_layouts_do_no_harm() {
    for (fine, rough) in [(0, 0), (16, 32), (32, 8), (usize::MAX - 31, 32)] {
        assert_eq!(CoarseLayout::new(fine, rough), None);
    }
    let layout = CoarseLayout::new(32, 32).unwrap();
    assert_eq!(layout.bytes(usize::MAX), None);
    for value in [0.0, f32::NAN, f32::INFINITY, 1e38, 1e-40] {
        let panels = packed(layout, &[value; 64], &[1.0; 64]);
        let out = product(IsaKind::best(), layout, &panels, &[1.0; 64], &[2.0]);
        assert!(value != 0.0 || out == [2.0]);
        product(IsaKind::best(), layout, &panels, &[value; 64], &[2.0]);
    }
}
