//! A pool of threads that spin, then sleep.
//!
//! Decoding a small model forks and joins hundreds of times a token, so a join must cost about a microsecond: the
//! helpers spin for the next job a while before they park. Tasks are claimed one by one from ranges that start out
//! equal; who has finished his own takes from the back of another's, so that a thread which the system has preempted
//! holds up the rest by one task at the most, and one that never woke up by none.
//!
//! Where others use the processors too, that one task may wait for milliseconds, in each job anew. So a caller that has
//! waited for longer than it would have taken to do all by itself then works alone for a multiple of what it lost, while
//! the helpers sleep and leave it a processor. What a pool of two can lose to one thread is bounded by that.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use web_time::{Duration, Instant};

use firecrest_kernels::ops::MatrixMut;

use super::spawn::{self, Helper};

/// Rounds of spinning in some microseconds: processors have an instruction that takes its time for that, which
/// WebAssembly lacks.
const ROUNDS: u32 = if cfg!(target_family = "wasm") { 2_000 } else { 200 };

/// Rounds of spinning before a helper sleeps: some hundred microseconds.
const SPINS: u32 = 100 * ROUNDS;

/// Rounds of spinning before the caller suspects that a helper was preempted.
const PATIENCE: u32 = 10 * ROUNDS;

/// What a job may lose to helpers before that counts as preemption, which takes longer. Clocks of browsers tick in steps
/// of 5 microseconds, or of 100.
const GRACE: Duration = Duration::from_micros(100);

/// How many times as long as two threads have lost the caller then works alone: they keep 1 - 1 / (1 + 4) of its speed.
const ALONE: u32 = 4;

/// Set in [`Shared::state`] while a job accepts helpers.
const OPEN: u64 = 1 << 31;

/// A job: called with the number of a worker and of a task.
type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Threads that share the tasks of one job at a time.
pub(super) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<Helper>,
    /// Until when the caller works alone.
    alone: Option<Instant>,
}

struct Shared {
    /// Number of the job in the high half, [`OPEN`], and in the low bits how many helpers are inside the job.
    state: AtomicU64,
    /// The current job. Written while no helper can be inside, read by helpers that counted themselves into `state`.
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// For each worker the tasks that are left of its share: next in the low half, end in the high half.
    shares: Box<[Share]>,
    panicked: AtomicBool,
    sleepers: AtomicU32,
    stop: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// On a cache line of its own.
#[repr(align(128))]
struct Share(AtomicU64);

// SAFETY: `job` is the only field that is not `Sync` and `Send` by itself; its protocol is described there.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is used only while the caller of `run` keeps the job alive.
unsafe impl Send for Shared {}

impl Shared {
    fn take(&self, worker: usize) -> Option<usize> {
        let count = self.shares.len();
        for i in 0..count {
            let share = &self.shares[(worker + i) % count].0;
            let mut left = share.load(Ordering::Relaxed);
            loop {
                let (next, end) = (left as u32, (left >> 32) as u32);
                if next >= end {
                    break;
                }
                // The owner goes forward, so that it streams through memory; others take from the far end.
                let (task, new) = if i == 0 { (next, left + 1) } else { (end - 1, left - (1 << 32)) };
                match share.compare_exchange_weak(left, new, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return Some(task as usize),
                    Err(now) => left = now,
                }
            }
        }
        None
    }

    fn work(&self, worker: usize, job: &Job<'_>) {
        while let Some(task) = self.take(worker) {
            job(worker, task);
        }
    }

    /// What a helper does until the pool is dropped.
    fn help(&self, worker: usize) {
        let mut seen = 0;
        let mut spins = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN == 0 || state >> 32 == seen {
                spins += 1;
                if spins < SPINS {
                    std::hint::spin_loop();
                } else {
                    self.doze(seen);
                    spins = 0;
                }
                continue;
            }
            if self.state.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            seen = state >> 32;
            spins = 0;
            // SAFETY: this helper is counted in `state`, so `run` has published the job and waits before it returns.
            let job = unsafe { (*self.job.get()).map(|job| &*job) };
            if let Some(job) = job {
                let outcome =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work(worker, job)));
                if outcome.is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Sleeps until there is a job other than `seen`.
    fn doze(&self, seen: u64) {
        let mut guard = self.sleep.lock().unwrap_or_else(|e| e.into_inner());
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if self.stop.load(Ordering::Relaxed) || (state & OPEN != 0 && state >> 32 != seen) {
                break;
            }
            guard = self.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.sleep.lock().unwrap_or_else(|e| e.into_inner());
            self.wake.notify_all();
        }
    }
}

impl Pool {
    /// A pool of `threads` workers, the caller of [`Pool::run`] among them; fewer where threads cannot be started.
    pub(super) fn new(threads: usize) -> Self {
        let threads = spawn::most_threads(threads.max(1));
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            shares: (0..threads).map(|_| Share(AtomicU64::new(0))).collect(),
            panicked: AtomicBool::new(false),
            sleepers: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let helpers = (1..threads).map_while(|worker| {
            let shared = Arc::clone(&shared);
            let name = format!("firecrest-{worker}");
            spawn::spawn(name, move || shared.help(worker))
        });
        let helpers = helpers.collect();
        Self { shared, helpers, alone: None }
    }

    /// Number of workers.
    pub(super) fn threads(&self) -> usize {
        self.shared.shares.len()
    }

    /// Calls `f(worker memory, task)` for each task below `tasks`, on all workers or on some, and returns when all are done.
    ///
    /// Panics if `memory` has fewer entries than there are workers, or if a task panicked.
    pub(super) fn run<T: Send>(&mut self, tasks: usize, memory: &mut [T], f: impl Fn(&mut T, usize) + Sync) {
        assert!(memory.len() >= self.threads());
        if self.helpers.is_empty() || tasks <= 1 || self.is_alone() {
            for task in 0..tasks {
                f(&mut memory[0], task);
            }
            return;
        }
        let memory = SendPtr(memory.as_mut_ptr());
        let job = move |worker: usize, task: usize| {
            let memory = memory;
            // SAFETY: each worker has a number of its own below `memory.len()`, and runs one task at a time.
            f(unsafe { &mut *memory.0.add(worker) }, task);
        };
        self.fork(tasks, &job);
    }

    fn is_alone(&mut self) -> bool {
        self.alone = self.alone.filter(|&end| Instant::now() < end);
        self.alone.is_some()
    }

    fn fork(&mut self, tasks: usize, job: &Job<'_>) {
        let started = Instant::now();
        let shared = &*self.shared;
        let count = shared.shares.len();
        for (i, share) in shared.shares.iter().enumerate() {
            let (start, end) = (tasks * i / count, tasks * (i + 1) / count);
            share.0.store(start as u64 | (end as u64) << 32, Ordering::Relaxed);
        }
        // SAFETY: no job is open, and no helper is inside one: the last `fork` waited for that. The pointer is used only
        // until this function returns, which outlives nothing that `job` borrows.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job));
        }
        let number = (shared.state.load(Ordering::Relaxed) >> 32) + 1;
        shared.state.store(number << 32 | OPEN, Ordering::SeqCst);
        shared.wake_sleepers();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.work(0, job)));
        shared.state.fetch_and(!OPEN, Ordering::Relaxed);
        let mut spins = 0;
        let mut worked = None;
        while shared.state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            spins += 1;
            if spins == PATIENCE {
                worked = Some(started.elapsed());
            }
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                // A helper was preempted inside a task: leave it the processor.
                spawn::give_way();
            }
        }
        if let Some(worked) = worked {
            // What the helpers did would have taken the caller as long again for each.
            let helpers = self.helpers.len() as u32;
            let lost = started.elapsed().saturating_sub(worked * (helpers + 1));
            if lost > GRACE {
                self.alone = Some(Instant::now() + lost * ALONE / helpers);
            }
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a worker thread panicked");
    }

    /// As [`Pool::run`], over consecutive pieces of `items`, `size` long (the last may be shorter).
    pub(super) fn for_pieces<T: Send, U: Send>(
        &mut self,
        items: &mut [U],
        size: usize,
        memory: &mut [T],
        f: impl Fn(&mut T, usize, &mut [U]) + Sync,
    ) {
        let len = items.len();
        let pointer = SendPtr(items.as_mut_ptr());
        self.run(len.div_ceil(size), memory, move |memory, task| {
            let pointer = pointer;
            let start = task * size;
            // SAFETY: every task is run once, and pieces of different tasks do not overlap.
            let piece =
                unsafe { std::slice::from_raw_parts_mut(pointer.0.add(start), size.min(len - start)) };
            f(memory, task, piece);
        });
    }

    /// As [`Pool::run`], over groups of `grain(output)` columns of each of `outputs`: `f(memory, output, columns, view)`. The
    /// tasks that a worker begins with are its part of each output.
    pub(super) fn for_columns<T: Send>(
        &mut self,
        outputs: &mut [MatrixMut<'_>],
        grain: impl Fn(usize) -> usize + Sync,
        memory: &mut [T],
        f: impl Fn(&mut T, usize, std::ops::Range<usize>, MatrixMut<'_>) + Sync,
    ) {
        let tasks = outputs.iter().enumerate().map(|(i, out)| out.columns().div_ceil(grain(i))).sum();
        let threads = self.threads();
        let outputs = SyncRef(outputs);
        self.run(tasks, memory, move |memory, mut task| {
            let outputs = outputs;
            for worker in 0..threads {
                for (i, out) in outputs.0.iter().enumerate() {
                    let grain = grain(i);
                    let parts = out.columns().div_ceil(grain);
                    let (first, end) = (parts * worker / threads, parts * (worker + 1) / threads);
                    if task < end - first {
                        let start = (first + task) * grain;
                        let columns = start..(start + grain).min(out.columns());
                        // SAFETY: every task is run once, and the columns of different tasks do not overlap; the views that
                        // `outputs` holds are not used meanwhile.
                        let view = unsafe { out.columns_unchecked(columns.clone()) };
                        return f(memory, i, columns, view);
                    }
                    task -= end - first;
                }
            }
        });
    }
}

/// Lets a pointer into the caller's memory travel to the workers.
struct SendPtr<T>(*mut T);

impl<T> Clone for SendPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SendPtr<T> {}
// SAFETY: see the uses; each worker reaches elements of its own, and they are `Send`.
unsafe impl<T: Send> Send for SendPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SendPtr<T> {}

/// Lets the views be shared: workers only split them.
#[derive(Clone, Copy)]
struct SyncRef<'a, 'b>(&'a [MatrixMut<'b>]);
// SAFETY: workers read the shape and split off columns of their own, nothing else.
unsafe impl Send for SyncRef<'_, '_> {}
// SAFETY: as above.
unsafe impl Sync for SyncRef<'_, '_> {}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _guard = self.shared.sleep.lock().unwrap_or_else(|e| e.into_inner());
            self.shared.stop.store(true, Ordering::SeqCst);
            self.shared.wake.notify_all();
        }
        for helper in self.helpers.drain(..) {
            helper.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_task_runs_once() {
        let mut pool = Pool::new(4);
        for tasks in [0, 1, 2, 3, 7, 100, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            let mut memory = [0; 4];
            pool.run(tasks, &mut memory, |mine: &mut usize, task| {
                *mine += 1;
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            assert_eq!(memory.iter().sum::<usize>(), tasks);
        }
    }

    /// Runs `f` on both workers of a pool of two at a time: each task waits until the other runs too, so that neither
    /// worker can take both.
    fn run_on_both(pool: &mut Pool, f: impl Fn(usize) + Sync) {
        while pool.is_alone() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let running = AtomicUsize::new(0);
        pool.run(2, &mut [0, 1], |worker, _| {
            running.fetch_add(1, Ordering::SeqCst);
            while running.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            f(*worker);
        });
    }

    #[test]
    fn sleeping_helpers_wake_up() {
        let mut pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(30));
            let ran = [AtomicBool::new(false), AtomicBool::new(false)];
            run_on_both(&mut pool, |worker| ran[worker].store(true, Ordering::Relaxed));
            assert!(ran.iter().all(|ran| ran.load(Ordering::Relaxed)));
        }
    }

    #[test]
    fn a_caller_that_was_held_up_works_alone_for_a_while() {
        let mut pool = Pool::new(2);
        run_on_both(&mut pool, |worker| {
            if worker == 1 {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let mut tasks = [0; 2];
        pool.run(1000, &mut tasks, |tasks, _| *tasks += 1);
        assert_eq!(tasks, [1000, 0]);
        // In the end the helper is asked again.
        run_on_both(&mut pool, |_| {});
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let mut pool = Pool::new(2);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(10, &mut [(), ()], |(), task| assert_ne!(task, 9));
        }));
        assert!(result.is_err());
        let done = AtomicUsize::new(0);
        pool.run(10, &mut [(), ()], |(), _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn pieces_and_columns_are_disjoint_and_complete() {
        let mut pool = Pool::new(3);
        let mut memory = [(); 3];
        let mut items = vec![0; 25];
        pool.for_pieces(&mut items, 4, &mut memory, |(), i, piece| {
            piece.iter_mut().for_each(|x| *x += i + 1)
        });
        assert!(items.iter().enumerate().all(|(i, &x)| x == i / 4 + 1));

        let (mut a, mut b) = (vec![0.0; 3 * 10], vec![0.0; 3 * 5]);
        let mut outputs = [MatrixMut::new(&mut a, 10), MatrixMut::new(&mut b, 5)];
        pool.for_columns(
            &mut outputs,
            |i| 4 - i,
            &mut memory,
            |(), output, columns, mut view| {
                for row in 0..view.rows() {
                    for (x, column) in view.row_mut(row).iter_mut().zip(columns.clone()) {
                        *x += (100 * output + 10 * row + column) as f32;
                    }
                }
            },
        );
        assert!((0..30).all(|i| a[i] == (10 * (i / 10) + i % 10) as f32));
        assert!((0..15).all(|i| b[i] == (100 + 10 * (i / 5) + i % 5) as f32));
    }
}
