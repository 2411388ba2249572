//! `Closing`: hears that a listener, or the whole process, wants its connections to end.

use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::sync::watch;

type Heard = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection's ear for the word that it shall end. Asking costs one load; waiting registers once per connection, not
/// once per request.
pub(super) struct Closing {
    word: watch::Receiver<bool>,
    heard: Option<(Heard, Waker)>,
}

impl Closing {
    pub(super) fn new(word: watch::Receiver<bool>) -> Self {
        Self { word, heard: None }
    }

    /// Whether the word has come. When not, the task of `cx` is woken when it comes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if is_said(&self.word) {
            return true;
        }
        let heard = match self.heard.take() {
            Some((heard, waker)) if waker.will_wake(cx.waker()) => {
                self.heard = Some((heard, waker));
                return false;
            }
            Some((heard, _)) => heard,
            None => self.hear(),
        };
        self.listen(heard, cx)
    }

    fn hear(&self) -> Heard {
        let mut word = self.word.clone();
        // An error means that the speaker is gone, which says the same.
        Box::pin(async move { drop(word.changed().await) })
    }

    fn listen(&mut self, mut heard: Heard, cx: &mut Context<'_>) -> bool {
        let said = heard.as_mut().poll(cx).is_ready();
        if !said {
            self.heard = Some((heard, cx.waker().clone()));
        }
        said
    }
}

/// Whether the word has come. The receiver's clones must never be marked as seen.
pub(super) fn is_said(word: &watch::Receiver<bool>) -> bool {
    word.has_changed().unwrap_or(true)
}
