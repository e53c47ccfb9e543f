//! The linear algebra of calibration, in f64. Matrices are row after row.

/// A dense matrix.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) data: Vec<f64>,
}

impl Dense {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, data: vec![0.0; rows * columns] }
    }

    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.columns..][..self.columns]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.data[row * self.columns..][..self.columns]
    }

    /// `self += aᵀ b` for one row of each.
    pub(crate) fn add_outer(&mut self, a: &[f64], b: &[f64]) {
        for (row, &a) in self.data.chunks_exact_mut(self.columns).zip(a) {
            if a != 0.0 {
                row.iter_mut().zip(b).for_each(|(x, b)| *x += a * b);
            }
        }
    }

    /// `self · otherᵀ`.
    pub(crate) fn times_transposed(&self, other: &Dense) -> Dense {
        let mut out = Dense::zeros(self.rows, other.rows);
        for i in 0..self.rows {
            for j in 0..other.rows {
                out.data[i * other.rows + j] = dot(self.row(i), other.row(j));
            }
        }
        out
    }

    /// `self · other`.
    pub(crate) fn times(&self, other: &Dense) -> Dense {
        let mut out = Dense::zeros(self.rows, other.columns);
        for i in 0..self.rows {
            let target = &mut out.data[i * other.columns..][..other.columns];
            for (k, &a) in self.row(i).iter().enumerate() {
                target.iter_mut().zip(other.row(k)).for_each(|(x, b)| *x += a * b);
            }
        }
        out
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four sums, so that additions need not wait for each other.
    let mut sums = [0.0; 4];
    let (a_lines, a_rest) = a.as_chunks::<4>();
    let (b_lines, b_rest) = b.as_chunks::<4>();
    for (a, b) in a_lines.iter().zip(b_lines) {
        for i in 0..4 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// The lower triangle `L` of `L Lᵀ = a` for a symmetric positive definite `a`; `None` where it is not.
pub(crate) fn cholesky(a: &Dense) -> Option<Dense> {
    let n = a.rows;
    let mut l = Dense::zeros(n, n);
    for i in 0..n {
        for j in 0..=i {
            let (above, row) = l.data.split_at(i * n);
            let sum = if i == j { dot(&row[..j], &row[..j]) } else { dot(&row[..j], &above[j * n..][..j]) };
            let rest = a.row(i)[j] - sum;
            l.data[i * n + j] = if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / l.data[j * n + j]
            };
        }
    }
    Some(l)
}

/// `L⁻¹ b`, for the columns of `b`.
pub(crate) fn solve_lower(l: &Dense, b: &Dense) -> Dense {
    let mut x = b.clone();
    for i in 0..l.rows {
        let (done, rest) = x.data.split_at_mut(i * b.columns);
        let row = &mut rest[..b.columns];
        for (k, solved) in done.chunks_exact(b.columns).enumerate() {
            let factor = l.row(i)[k];
            row.iter_mut().zip(solved).for_each(|(x, s)| *x -= factor * s);
        }
        row.iter_mut().for_each(|x| *x /= l.row(i)[i]);
    }
    x
}

/// `L⁻ᵀ b`, for the columns of `b`.
pub(crate) fn solve_lower_transposed(l: &Dense, b: &Dense) -> Dense {
    let mut x = b.clone();
    for i in (0..l.rows).rev() {
        let (head, solved) = x.data.split_at_mut((i + 1) * b.columns);
        let row = &mut head[i * b.columns..];
        for (k, solved) in solved.chunks_exact(b.columns).enumerate() {
            let factor = l.row(i + 1 + k)[i];
            row.iter_mut().zip(solved).for_each(|(x, s)| *x -= factor * s);
        }
        row.iter_mut().for_each(|x| *x /= l.row(i)[i]);
    }
    x
}

/// Steps of the iteration: the subspace needs to hold most of what varies, not to be exact.
const ITERATIONS: usize = 20;

/// The `rank` leading eigenvectors of a symmetric matrix without negative eigenvalues, as rows, largest first, by
/// iterating a subspace that is a little larger. Starts are fixed numbers: equal input gives equal output.
pub(crate) fn leading_eigenvectors(a: &Dense, rank: usize) -> Dense {
    let n = a.rows;
    let rank = rank.min(n);
    let width = (rank + 8).min(n);
    let mut basis = Dense::zeros(width, n);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for x in &mut basis.data {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *x = (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
    }
    orthonormalize(&mut basis, 0);
    for _ in 0..ITERATIONS {
        // `a` is symmetric, so its rows are its columns.
        basis = basis.times_transposed(a);
        orthonormalize(&mut basis, 0);
    }
    // Within the subspace: the eigenvectors of the small projected matrix.
    let projected = basis.times_transposed(a).times_transposed(&basis);
    let (values, vectors) = jacobi(projected);
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    let mut chosen = Dense::zeros(rank, width);
    for (k, &i) in order.iter().take(rank).enumerate() {
        for j in 0..width {
            chosen.row_mut(k)[j] = vectors.row(j)[i];
        }
    }
    chosen.times(&basis)
}

/// Makes the rows from `first` on orthonormal to each other and to those before, which are so already (Gram and Schmidt,
/// twice, for accuracy); rows that depend on others become zero.
pub(crate) fn orthonormalize(rows: &mut Dense, first: usize) {
    for i in first..rows.rows {
        let (before, rest) = rows.data.split_at_mut(i * rows.columns);
        let row = &mut rest[..rows.columns];
        let size = dot(row, row).sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(rows.columns) {
                let along = dot(row, other);
                row.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
            }
        }
        let left = dot(row, row).sqrt();
        let factor = if left > 1e-12 * size { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Eigenvalues and eigenvectors (columns) of a small symmetric matrix, by Jacobi rotations.
fn jacobi(mut a: Dense) -> (Vec<f64>, Dense) {
    let n = a.rows;
    let mut vectors = Dense::zeros(n, n);
    (0..n).for_each(|i| vectors.data[i * n + i] = 1.0);
    for _ in 0..30 {
        let diagonal: f64 = (0..n).map(|i| a.row(i)[i].powi(2)).sum();
        let off: f64 = dot(&a.data, &a.data) - diagonal;
        if off <= 1e-22 * diagonal {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a.row(p)[q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a.row(q)[q] - a.row(p)[p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a.data[k * n + p], a.data[k * n + q]);
                    (a.data[k * n + p], a.data[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a.data[p * n + k], a.data[q * n + k]);
                    (a.data[p * n + k], a.data[q * n + k]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (vectors.data[k * n + p], vectors.data[k * n + q]);
                    (vectors.data[k * n + p], vectors.data[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    ((0..n).map(|i| a.row(i)[i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use firecrest_testkit::Random;

    fn random(rows: usize, columns: usize, seed: u64) -> Dense {
        let mut random = Random::new(seed);
        Dense { rows, columns, data: random.floats(rows * columns).into_iter().map(f64::from).collect() }
    }

    #[test]
    fn triangles_solve() {
        let x = random(9, 20, 1);
        let a = x.times_transposed(&x);
        let l = cholesky(&a).unwrap();
        let b = random(9, 3, 2);
        let y = solve_lower_transposed(&l, &solve_lower(&l, &b));
        let back = a.times(&y);
        assert!(back.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() < 1e-9));
        let mut indefinite = a;
        indefinite.data[0] = -1.0;
        assert!(cholesky(&indefinite).is_none());
    }

    #[test]
    fn eigenvectors_lead() {
        let factors = random(3, 40, 3);
        let mut a = Dense::zeros(40, 40);
        for (i, weight) in [9.0, 4.0, 1.0].into_iter().enumerate() {
            let row: Vec<f64> = factors.row(i).iter().map(|x| x * weight).collect();
            a.add_outer(&row, &row);
        }
        let vectors = leading_eigenvectors(&a, 3);
        // They span all of `a`: projecting it changes nothing.
        let projected = a.times_transposed(&vectors).times(&vectors);
        assert!(projected.data.iter().zip(&a.data).all(|(p, a)| (p - a).abs() < 1e-8));
        let sizes: Vec<f64> = (0..3)
            .map(|i| {
                let v = Dense { rows: 1, columns: 40, data: vectors.row(i).to_vec() };
                v.times(&a).times_transposed(&v).data[0]
            })
            .collect();
        assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
    }
}
