//! Ctrl-C.

use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firecrest::generate::CancelToken;

use crate::failure::{OrFail, Outcome};

/// What Ctrl-C does: it stops the work that is [armed](Interrupt::arm), or ends the program where there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<Mutex<Option<CancelToken>>>);

impl Interrupt {
    /// Catches Ctrl-C from now on.
    pub(crate) fn install() -> Outcome<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || match handler.armed().take() {
            Some(work) => work.cancel(),
            None => process::exit(130),
        })
        .or_fail(|| "can't catch Ctrl-C".into())?;
        Ok(interrupt)
    }

    /// Lets the next Ctrl-C raise the token that this returns; one more ends the program.
    pub(crate) fn arm(&self) -> CancelToken {
        let work = CancelToken::new();
        *self.armed() = Some(work.clone());
        work
    }

    /// Lets Ctrl-C end the program again.
    pub(crate) fn disarm(&self) {
        *self.armed() = None;
    }

    fn armed(&self) -> MutexGuard<'_, Option<CancelToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
