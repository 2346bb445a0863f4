//! The signature pool: transactions' signatures, checked in batches on a fixed set of OS threads.
//!
//! A batch is cut at [`BATCH_MIN`] signatures or after [`BATCH_DELAY`], and grows to [`BATCH_MAX`] under backlog: the cost of
//! a signature falls by a half up to there and no further. Workers run at a lower priority than the consensus thread, since on
//! a kernel without preemption a busy worker would delay a vote by a scheduler tick.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use replica::Verifiable;
use types::{SignedTransaction, verify_batch};

/// A batch smaller than this waits for more, up to [`BATCH_DELAY`].
pub const BATCH_MIN: usize = 256;
/// A worker takes no further job once it has this many signatures.
pub const BATCH_MAX: usize = 512;
/// How long a signature may wait for company.
pub const BATCH_DELAY: Duration = Duration::from_millis(2);
/// Most signatures waiting; above it [`Pool::submit`] refuses.
pub const QUEUE_SIGNATURES_MAX: usize = 64 * 1024;
/// Niceness of the workers, relative to the process.
const NICE: libc::c_int = 5;

/// What a job's verdicts are handed to, on a worker's thread.
pub type Done = Box<dyn FnOnce(Vec<bool>) + Send>;

struct Job {
    transactions: Verifiable,
    done: Done,
    since: Instant,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    signatures: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    verified: AtomicU64,
    refused: AtomicU64,
    batches: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere leaves the queue whole: every change to it is complete before the lock is given back.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the pool has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Signatures found good.
    pub verified: u64,
    /// Signatures found bad.
    pub refused: u64,
    /// Batches they were checked in.
    pub batches: u64,
}

/// The pool's handle; workers end when it is dropped, after the jobs that are queued.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// The queue is full: try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature queue is full")]
pub struct PoolFull;

impl Pool {
    /// Starts `threads` workers (at least one).
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared::default());
        let mut workers = Vec::new();
        for i in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            workers.push(std::thread::Builder::new().name(format!("verify-{i}")).spawn(move || work(&shared))?);
        }
        Ok(Pool { shared, workers })
    }

    /// Queues transactions; `done` gets one verdict for each, in order.
    ///
    /// # Errors
    /// [`PoolFull`] above [`QUEUE_SIGNATURES_MAX`]; `done` is dropped then.
    pub fn submit(&self, transactions: Verifiable, done: Done) -> Result<(), PoolFull> {
        let count = transactions.transactions().len();
        let mut queue = self.shared.lock();
        if queue.signatures + count > QUEUE_SIGNATURES_MAX && queue.signatures > 0 {
            return Err(PoolFull);
        }
        queue.signatures += count;
        queue.jobs.push_back(Job { transactions, done, since: Instant::now() });
        drop(queue);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Totals since the start.
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            verified: self.shared.verified.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            batches: self.shared.batches.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// Waits for a batch worth checking; `None` once the pool is closed and drained.
fn take(shared: &Shared) -> Option<Vec<Job>> {
    let mut queue = shared.lock();
    loop {
        let Some(first) = queue.jobs.front() else {
            if queue.closed {
                return None;
            }
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let age = first.since.elapsed();
        if queue.signatures >= BATCH_MIN || age >= BATCH_DELAY || queue.closed {
            break;
        }
        let wait = BATCH_DELAY - age;
        queue = shared.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
    }
    let (mut jobs, mut signatures) = (Vec::new(), 0);
    while let Some(job) = queue.jobs.front() {
        if signatures > 0 && signatures + job.transactions.transactions().len() > BATCH_MAX {
            break;
        }
        signatures += job.transactions.transactions().len();
        jobs.extend(queue.jobs.pop_front());
    }
    queue.signatures -= signatures;
    Some(jobs)
}

fn work(shared: &Shared) {
    // SAFETY: plain system calls; a refusal only costs the lower priority.
    #[allow(unsafe_code)]
    unsafe {
        let thread = libc::syscall(libc::SYS_gettid);
        libc::setpriority(libc::PRIO_PROCESS, thread as libc::id_t, NICE);
    }
    let mut rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
    while let Some(jobs) = take(shared) {
        let items: Vec<_> =
            jobs.iter().flat_map(|job| job.transactions.transactions()).map(SignedTransaction::batch_item).collect();
        let good = verify_batch(&items, &mut rng);
        let refused = good.iter().filter(|good| !**good).count() as u64;
        shared.refused.fetch_add(refused, Ordering::Relaxed);
        shared.verified.fetch_add(good.len() as u64 - refused, Ordering::Relaxed);
        shared.batches.fetch_add(1, Ordering::Relaxed);
        let mut verdicts = good.into_iter();
        for job in jobs {
            let count = job.transactions.transactions().len();
            (job.done)(verdicts.by_ref().take(count).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use types::{AccountKey, Action, Address, Amount, ChainId, Height, Nonce, Transaction};

    fn transactions(seed: u32, count: usize, bad: &[usize]) -> Verifiable {
        let key = AccountKey::development(seed);
        let make = |i: usize| {
            let action = Action::Transfer { to: Address::default(), amount: Amount(1), memo: Vec::new() };
            let body =
                Transaction { chain: ChainId::default(), sender: key.public(), nonce: Nonce(i as u64), expiry: Height(9), action };
            let mut signed = body.sign(&key);
            if bad.contains(&i) {
                signed.signature.0[0] ^= 1;
            }
            signed
        };
        Verifiable::List(Arc::new((0..count).map(make).collect()))
    }

    #[test]
    fn every_job_gets_its_own_verdicts() {
        let pool = Pool::start(2).unwrap();
        let (sender, receiver) = mpsc::channel();
        let jobs: [(usize, &[usize]); 5] = [(1, &[]), (300, &[7, 299]), (3, &[0]), (600, &[599]), (2, &[0, 1])];
        for (token, (count, bad)) in jobs.iter().enumerate() {
            let sender = sender.clone();
            let done = Box::new(move |good| sender.send((token, good)).unwrap());
            pool.submit(transactions(token as u32, *count, bad), done).unwrap();
        }
        for _ in 0..jobs.len() {
            let (token, good): (usize, Vec<bool>) = receiver.recv().unwrap();
            let (count, bad) = jobs[token];
            let expect: Vec<bool> = (0..count).map(|i| !bad.contains(&i)).collect();
            assert_eq!(good, expect, "job {token}");
        }
        let stats = pool.stats();
        assert_eq!((stats.verified, stats.refused), (900, 6));
    }

    #[test]
    fn a_full_queue_refuses() {
        let pool = Pool { shared: Arc::new(Shared::default()), workers: Vec::new() };
        let one = transactions(1, 1, &[]);
        pool.shared.lock().signatures = QUEUE_SIGNATURES_MAX;
        assert_eq!(pool.submit(one, Box::new(|_| ())), Err(PoolFull));
    }
}
