//! Waiting for what will happen, instead of sleeping and hoping.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How long the waits last. Far beyond what anything takes: it is only spent by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The first pause between two looks; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Looks until it is so, for [`PATIENCE`].
///
/// # Panics
/// With `what` when it does not become so.
pub async fn wait_until(what: &str, probe: impl AsyncFnMut() -> bool) {
    wait_until_within(PATIENCE, what, probe).await;
}

/// Looks until it is so, for as long as is said.
///
/// # Panics
/// With `what` when it does not become so.
pub async fn wait_until_within(patience: Duration, what: &str, mut probe: impl AsyncFnMut() -> bool) {
    wait(patience, what, async || probe().await.then_some(())).await;
}

/// Looks until there is something, for [`PATIENCE`]; what it found.
///
/// # Panics
/// With `what` when nothing comes.
pub async fn wait_for<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    wait(PATIENCE, what, probe).await
}

async fn wait<T>(patience: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    // A look that hangs is cut off too.
    while let Ok(found) = timeout_at(give_up, probe()).await {
        if let Some(found) = found {
            return found;
        }
        if Instant::now() + pause >= give_up {
            break;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    panic!("waited {patience:?} in vain: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_looks_until_it_is_so() {
        let mut looks = 0;
        wait_until("ten looks", async || {
            looks += 1;
            looks == 10
        })
        .await;
        assert_eq!(looks, 10);
        assert_eq!(wait_for("a value", async || Some(7)).await, 7);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited 5s in vain: the impossible")]
    async fn it_gives_up_with_a_message() {
        wait_until_within(Duration::from_secs(5), "the impossible", async || false).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "in vain: an answer")]
    async fn a_look_that_hangs_is_cut_off() {
        wait_until("an answer", std::future::pending::<bool>).await;
    }
}
