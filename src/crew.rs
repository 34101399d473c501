//! Several threads at one list of jobs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Does `work` for each number below `count`, up to `threads` at the same time and one of them in
/// the calling thread; the results in the order of the numbers. After a failure, and as soon as
/// `stop` is set, nothing new is begun; the first failure is told, and sets `stop`.
pub(crate) fn each<T: Send>(
    threads: usize,
    count: usize,
    stop: &AtomicBool,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, T)>> = Mutex::default();
    let failed: Mutex<Option<Error>> = Mutex::default();
    let run = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            match work(number) {
                Ok(value) => lock(&done).push((number, value)),
                Err(error) => {
                    lock(&failed).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        for _ in 1..threads.min(count) {
            let thread = std::thread::Builder::new().name("casemate-layer".to_owned());
            thread.spawn_scoped(scope, run).map_err(|error| {
                // Those that run would go on to the last job before it is told.
                stop.store(true, Ordering::Relaxed);
                Error::os("start", "a thread", error)
            })?;
        }
        run();
        Ok(())
    })?;
    if let Some(error) = lock(&failed).take() {
        return Err(error);
    }
    let mut done = std::mem::take(&mut *lock(&done));
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, value)| value).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only whole values are put in under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_done_in_order_or_the_first_failure_is_told() {
        let stop = AtomicBool::new(false);
        assert_eq!(
            each(3, 100, &stop, |n| Ok(n * 2)).unwrap(),
            Vec::from_iter((0..200).step_by(2))
        );
        assert!(each(3, 0, &stop, Ok).unwrap().is_empty());
        let begun = AtomicUsize::new(0);
        let error = each(2, 1000, &stop, |n| {
            begun.fetch_add(1, Ordering::Relaxed);
            if n == 5 { Err(Error::new("five")) } else { Ok(()) }
        });
        assert_eq!(error.unwrap_err().to_string(), "five");
        assert!(begun.load(Ordering::Relaxed) < 1000);
        assert!(stop.load(Ordering::Relaxed));
    }
}
