//! `bench --busy`: processors that others use.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::failure::{OrFail, Outcome};

/// Threads that do nothing, all the time, until this is dropped.
pub(super) struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    pub(super) fn start(threads: usize) -> Outcome<Self> {
        let mut busy = Self { stop: Arc::default(), threads: Vec::new() };
        for _ in 0..threads {
            let stop = Arc::clone(&busy.stop);
            let work = move || {
                while !stop.load(Ordering::Relaxed) {
                    spin_loop();
                }
            };
            let started = thread::Builder::new().name("busy".into()).spawn(work);
            busy.threads.push(started.or_fail(|| format!("can't start {threads} threads"))?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot have panicked.
            let _ = thread.join();
        }
    }
}
