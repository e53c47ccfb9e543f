//! Where the pool's helpers come from: threads of the system, or on WebAssembly threads that the page has lent.

#[cfg(not(target_family = "wasm"))]
mod imp {
    use std::thread::{Builder, JoinHandle};

    /// A helper that runs.
    pub(in super::super) struct Helper(JoinHandle<()>);

    pub(in super::super) fn most_threads(wanted: usize) -> usize {
        wanted
    }

    pub(in super::super) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Option<Helper> {
        Builder::new().name(name).spawn(work).ok().map(Helper)
    }

    /// Leaves the processor to other threads.
    pub(in super::super) fn give_way() {
        std::thread::yield_now();
    }

    impl Helper {
        pub(in super::super) fn join(self) {
            // A helper catches the panics of its tasks, so it ends normally.
            let _ = self.0.join();
        }
    }
}

#[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
mod imp {
    /// There is none.
    pub(in super::super) enum Helper {}

    pub(in super::super) fn most_threads(_: usize) -> usize {
        1
    }

    pub(in super::super) fn spawn(_: String, _: impl FnOnce() + Send + 'static) -> Option<Helper> {
        None
    }

    pub(in super::super) fn give_way() {}

    impl Helper {
        pub(in super::super) fn join(self) {
            match self {}
        }
    }
}

#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
mod imp {
    use std::collections::VecDeque;
    use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    type Work = Box<dyn FnOnce() + Send>;

    /// Threads that wait for work, and work that waits for them; never more work than threads.
    struct Lent {
        idle: usize,
        work: VecDeque<Work>,
    }

    static LENT: Mutex<Lent> = Mutex::new(Lent { idle: 0, work: VecDeque::new() });
    static ARRIVED: Condvar = Condvar::new();

    fn lent() -> MutexGuard<'static, Lent> {
        LENT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends the calling thread to the pools of this module; it does not come back. Calls `arrived` as soon as a pool
    /// can have it.
    pub fn lend_thread(arrived: impl FnOnce()) -> ! {
        lent().idle += 1;
        arrived();
        loop {
            let mut lent = lent();
            let work = loop {
                match lent.work.pop_front() {
                    Some(work) => break work,
                    None => lent = ARRIVED.wait(lent).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(lent);
            work();
        }
    }

    /// A helper that runs, and whether it has ended.
    pub(in super::super) struct Helper(Arc<(Mutex<bool>, Condvar)>);

    pub(in super::super) fn most_threads(wanted: usize) -> usize {
        wanted.min(1 + lent().idle)
    }

    pub(in super::super) fn spawn(_: String, work: impl FnOnce() + Send + 'static) -> Option<Helper> {
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = Arc::clone(&ended);
        let mut lent = lent();
        lent.idle = lent.idle.checked_sub(1)?;
        lent.work.push_back(Box::new(move || {
            work();
            // Before whoever waits goes on, and starts another pool.
            self::lent().idle += 1;
            *theirs.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            theirs.1.notify_all();
        }));
        drop(lent);
        ARRIVED.notify_one();
        Some(Helper(ended))
    }

    /// WebAssembly cannot yield; a short sleep leaves the processor to others.
    pub(in super::super) fn give_way() {
        std::thread::sleep(Duration::from_micros(50));
    }

    impl Helper {
        pub(in super::super) fn join(self) {
            let mut ended = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*ended {
                ended = self.0.1.wait(ended).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub use imp::lend_thread;
pub(super) use imp::{Helper, give_way, most_threads, spawn};
