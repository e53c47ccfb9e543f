//! A matrix view that several threads can fill.
#![allow(unsafe_code)]

use core::marker::PhantomData;

/// A mutable view of `rows` × `columns` floats, rows `stride` apart, that splits by columns as well as by rows.
///
/// A slice splits into row ranges alone; products whose threads each own some of the output columns need the other
/// direction too.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the view owns its elements as `&mut [f32]` does: no other view reaches them.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// Views a slice as rows of `columns` floats. Panics where the length is not a multiple of `columns`.
    pub fn new(data: &'a mut [f32], columns: usize) -> Self {
        assert!(columns > 0 && data.len().is_multiple_of(columns), "whole rows");
        Self {
            rows: data.len() / columns,
            columns,
            stride: columns,
            data: data.as_mut_ptr(),
            borrow: PhantomData,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    #[inline]
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: the row lies within the view, which `self` owns, and is borrowed with it.
        unsafe { core::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.columns) }
    }

    /// A view of the same elements for a shorter time.
    pub fn reborrow(&mut self) -> MatrixMut<'_> {
        MatrixMut { borrow: PhantomData, ..*self }
    }

    /// The columns before `at`, and those from it on.
    pub fn split_columns(self, at: usize) -> (Self, Self) {
        assert!(at <= self.columns);
        let right = MatrixMut {
            // The pointer may be one past the end of the last row, which is within or at the end of the allocation.
            data: self.data.wrapping_add(at),
            columns: self.columns - at,
            ..self
        };
        (MatrixMut { columns: at, ..self }, right)
    }

    /// Some of the columns, while `self` stays.
    ///
    /// # Safety
    ///
    /// As long as the result lives, nothing else may reach those columns: not `self`, and no other view of them.
    pub unsafe fn columns_unchecked(&self, columns: core::ops::Range<usize>) -> MatrixMut<'a> {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        MatrixMut { data: self.data.wrapping_add(columns.start), columns: columns.len(), ..*self }
    }

    /// The rows before `at`, and those from it on.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        assert!(at <= self.rows);
        let below =
            MatrixMut { data: self.data.wrapping_add(at * self.stride), rows: self.rows - at, ..self };
        (MatrixMut { rows: at, ..self }, below)
    }
}
