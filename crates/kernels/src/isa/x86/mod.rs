//! x86-64: SSE4.1, AVX2 with FMA and F16C, AVX-512 with and without VNNI.
#![allow(unsafe_code)]

mod avx2;
mod avx512;
mod sse41;

pub use avx2::Avx2;
pub use avx512::{Avx512, Avx512Vnni};
pub use sse41::Sse41;

#[cfg(feature = "std")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_x86_feature_detected!($feature)
    };
}
#[cfg(not(feature = "std"))]
macro_rules! detected {
    ($feature:tt) => {
        cfg!(target_feature = $feature)
    };
}
use detected;

/// Declares an instruction set by its CPU features: detection and entry derive from this one line.
macro_rules! isa {
    ($(#[$doc:meta])* $name:ident $(with the floats of $floats:ident)?: $($feature:tt)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// A value, if this processor has the features.
            #[inline]
            pub fn detect() -> Option<Self> {
                (true $(&& $crate::isa::x86::detected!($feature))+).then_some(Self(()))
            }

            /// Runs an operation, compiled with the features.
            #[inline]
            pub fn run<O: $crate::isa::Op>(self, op: O) -> O::Output {
                $(if const { !O::DOTS } {
                    return $floats(()).run(op);
                })?
                $(#[target_feature(enable = $feature)])+
                #[inline(never)]
                fn enter<O: $crate::isa::Op>(isa: $name, op: O) -> O::Output {
                    op.eval(isa)
                }
                // SAFETY: a value of this type exists only where every feature was detected.
                unsafe { enter(self, op) }
            }
        }
    };
}
use isa;

/// Vector steps as methods. The one promise behind all of them: `self` proves that the instructions exist, and
/// memory is reached only through references to arrays of the full width.
macro_rules! steps {
    ($($(#[$meta:meta])* fn $name:ident $(<$(const $param:ident: $ty:ty),+>)? ($self:ident $(, $arg:ident: $in:ty)*) $(-> $out:ty)? = $body:expr;)+) => {$(
        $(#[$meta])*
        #[inline(always)]
        fn $name $(<$(const $param: $ty),+>)? ($self $(, $arg: $in)*) $(-> $out)? {
            // SAFETY: as said on the macro.
            unsafe { $body }
        }
    )+};
}
use steps;

/// [`Isa::interleave4`](crate::isa::Isa::interleave4) of one register, whose 16-byte lanes are interleaved each for itself;
/// with words in place of bytes, and double words in place of words, transposes them.
macro_rules! interleave {
    ($rows:ident, $low_bytes:ident, $high_bytes:ident, $low_words:ident, $high_words:ident) => {{
        let [a, b, c, d] = $rows;
        let (low, high) = ([$low_bytes(a, b), $low_bytes(c, d)], [$high_bytes(a, b), $high_bytes(c, d)]);
        [
            $low_words(low[0], low[1]),
            $high_words(low[0], low[1]),
            $low_words(high[0], high[1]),
            $high_words(high[0], high[1]),
        ]
    }};
}
use interleave;

/// A pointer for a prefetch, which may point anywhere. The line goes to the second level of the cache, which waits for more
/// lines at once than the first.
#[inline(always)]
fn prefetch<T>(items: &[T], at: usize) {
    use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch never faults, and SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(items.as_ptr().wrapping_byte_add(at).cast()) }
}
