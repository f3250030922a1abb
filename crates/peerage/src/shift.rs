//! Work of a task that somebody else may do in its stead.
//!
//! To wake a task costs as much as a part of a round trip on loopback, and a runtime runs only a few in a row before it hands the next to another
//! thread. In talk to and fro a message is therefore written by whoever sends it and read by whoever waits for it: the reader and the writer of a
//! channel's stream are [`Shift`]s. When the connection wakes one, a receiver that waits does its work; without one its task does.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::bell::Bell;

/// How long work that was lent may lie, twice at most, before its task does it: whoever waits for a message may be busy with something else, and not look.
pub(crate) const PATIENCE: Duration = Duration::from_millis(20);
/// Shifts that are lent to each of those who wait: a peer's reader and its writer.
pub(crate) const LENT_TO_EACH: usize = 2;

/// [`Shift::state`]: somebody is at it.
const RUNNING: u8 = 1;
/// Something has happened since whoever is at it began.
const WOKEN: u8 = 2;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The work, its task, and who may do it beside the task.
pub(crate) struct Shift {
    state: AtomicU8,
    /// Locked by whoever is at it, and when the task is dropped.
    work: Mutex<Option<Work>>,
    task: AtomicWaker,
    lending: Arc<Lending>,
    stand_ins: Arc<dyn AsRef<StandIns> + Send + Sync>,
}

impl Shift {
    /// The work, and the task that is to be spawned for it.
    pub(crate) fn new(
        lending: &Arc<Lending>,
        stand_ins: Arc<dyn AsRef<StandIns> + Send + Sync>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> (Arc<Self>, Task) {
        let shift = Arc::new(Self {
            state: AtomicU8::new(0),
            work: Mutex::new(Some(Box::pin(work))),
            task: AtomicWaker::new(),
            lending: lending.clone(),
            stand_ins,
        });
        (shift.clone(), Task(shift))
    }

    /// For a stand-in, on whatever executor: does what can be done now, or leaves it to whoever is at it.
    pub(crate) fn run(self: &Arc<Self>) {
        let _entered = self.lending.runtime.enter();
        self.go_on();
    }

    /// Does what can be done now. Whether all is done.
    fn go_on(self: &Arc<Self>) -> bool {
        if self.state.fetch_or(RUNNING, Ordering::AcqRel) & RUNNING != 0 {
            // Whoever is at it has the task go on, unless it has just left.
            if self.state.fetch_or(WOKEN, Ordering::AcqRel) & RUNNING == 0 {
                self.task.wake();
            }
            return false;
        }
        self.state.fetch_and(!WOKEN, Ordering::AcqRel);
        let mut running = Running { shift: self, done: true };
        let waker = Waker::from(self.clone());
        let mut work = self.lock();
        if let Some(doing) = &mut *work {
            running.done = doing.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        }
        drop(work);
        running.done
    }

    /// Has the task go on, and nobody else.
    pub(crate) fn call_task(&self) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) & RUNNING == 0 {
            self.task.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Somebody is at a shift, until it is dropped.
struct Running<'a> {
    shift: &'a Shift,
    /// There is nothing left to do: of work that panics too.
    done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.done {
            let finished = self.shift.lock().take();
            drop(finished);
        }
        let woken = self.shift.state.fetch_and(!RUNNING, Ordering::AcqRel) & WOKEN != 0;
        // Not at once: what comes in between is done together with it.
        if woken || self.done {
            self.shift.task.wake();
        }
    }
}

impl Wake for Shift {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) & RUNNING != 0 {
            return;
        }
        if (*self.stand_ins).as_ref().lend(self) {
            self.lending.watch();
        } else {
            self.task.wake();
        }
    }
}

impl fmt::Debug for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shift")
    }
}

/// Runs to the end of the work. When it is dropped, so is the work.
pub(crate) struct Task(Arc<Shift>);

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.task.register(cx.waker());
        if self.0.go_on() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let work = self.0.lock().take();
        drop(work);
    }
}

/// Those who wait for news, and the shifts that one of them is to run first.
#[derive(Debug, Default)]
pub(crate) struct StandIns {
    waiting: AtomicUsize,
    due: Mutex<VecDeque<Due>>,
    news: Notify,
    /// Nothing is lent: those who wait don't look, or none will come any more.
    shut: AtomicBool,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Due {
    shift: Arc<Shift>,
    /// It lay here when [`StandIns::hand_back`] last looked.
    lay: bool,
}

impl StandIns {
    /// Whether somebody waits.
    pub(crate) fn any(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Wakes one who waits, or the next who will.
    pub(crate) fn tell_one(&self) {
        self.news.notify_one();
    }

    /// Waits for news, from the call on, and runs what is lent meanwhile.
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + '_ {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting { stand_ins: self, woken: false };
        let news = self.news.notified();
        async move {
            news.await;
            waiting.wake();
        }
    }

    /// Has one who waits run the shift. False when none waits who has nothing to run yet.
    fn lend(&self, shift: &Arc<Shift>) -> bool {
        let mut due = self.lock();
        if due.iter().any(|due| Arc::ptr_eq(&due.shift, shift)) {
            return true;
        }
        let waiting = self.waiting.load(Ordering::SeqCst);
        if due.len() >= LENT_TO_EACH * waiting || self.shut.load(Ordering::SeqCst) {
            return false;
        }
        due.push_back(Due { shift: shift.clone(), lay: false });
        let tells = due.len() <= waiting;
        drop(due);
        if tells {
            self.news.notify_one();
        }
        true
    }

    /// Lends nothing any more; the tasks do what is lent.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.shut.store(true, Ordering::SeqCst);
        self.give_up();
    }

    fn give_up(&self) {
        while let Some(shift) = self.next() {
            shift.task.wake();
        }
    }

    /// Leaves to their tasks the shifts that have lain here since the last call, and all that follow until whoever waits has looked. Whether some are
    /// left.
    pub(crate) fn hand_back(&self) -> bool {
        let mut due = self.lock();
        let fresh = due.iter().position(|due| !due.lay).unwrap_or(due.len());
        let overdue: Vec<_> = due.drain(..fresh).collect();
        due.iter_mut().for_each(|due| due.lay = true);
        let some = !due.is_empty();
        if !overdue.is_empty() {
            self.shut.store(true, Ordering::SeqCst);
        }
        drop(due);
        overdue.iter().for_each(|due| due.shift.task.wake());
        some
    }

    fn next(&self) -> Option<Arc<Shift>> {
        let mut due = self.lock();
        let next = due.pop_front().map(|due| due.shift);
        if due.is_empty() {
            // Mostly there is one channel's reader in it, and the channel is quiet for long.
            due.shrink_to(4);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Due>> {
        self.due.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Counts one who waits, until it is woken or gives up.
struct Waiting<'a> {
    stand_ins: &'a StandIns,
    woken: bool,
}

impl Waiting<'_> {
    /// Runs what is lent to one.
    fn wake(mut self) {
        self.woken = true;
        let stand_ins = self.stand_ins;
        drop(self);
        for shift in std::iter::from_fn(|| stand_ins.next()).take(LENT_TO_EACH) {
            shift.run();
        }
        if stand_ins.lock().is_empty() {
            return;
        }
        // It was lent to others, who may have been told of it or not.
        if stand_ins.any() { stand_ins.tell_one() } else { stand_ins.give_up() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.stand_ins.waiting.fetch_sub(1, Ordering::SeqCst);
        // Whoever waits looks again.
        self.stand_ins.shut.store(self.stand_ins.closed.load(Ordering::SeqCst), Ordering::SeqCst);
        if !self.woken {
            // Whoever gives up was perhaps the only one told of what is lent.
            self.stand_ins.give_up();
        }
    }
}

/// Watches over a node's lent shifts.
#[derive(Debug)]
pub(crate) struct Lending {
    /// Where the tasks run, and their timers.
    runtime: Handle,
    /// Something was lent since the last look.
    lent: AtomicBool,
    /// There will be a look.
    watched: AtomicBool,
    bell: Bell,
}

impl Lending {
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        let (lent, watched, bell) = (AtomicBool::new(false), AtomicBool::new(false), Bell::default());
        Arc::new(Self { runtime, lent, watched, bell })
    }

    fn watch(&self) {
        self.lent.store(true, Ordering::SeqCst);
        if !self.watched.swap(true, Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    /// Has all that is lent handed back from time to time, as long as something is: `hand_back` calls [`StandIns::hand_back`] of each.
    pub(crate) async fn run(&self, hand_back: impl Fn() -> bool) {
        loop {
            poll_fn(|cx| self.bell.poll(cx)).await;
            while self.watched.load(Ordering::SeqCst) {
                tokio::time::sleep(PATIENCE).await;
                let lent = self.lent.swap(false, Ordering::SeqCst);
                if hand_back() || lent {
                    continue;
                }
                self.watched.store(false, Ordering::SeqCst);
                if self.lent.load(Ordering::SeqCst) {
                    self.watched.store(true, Ordering::SeqCst);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    struct Hall(StandIns);

    impl AsRef<StandIns> for Hall {
        fn as_ref(&self) -> &StandIns {
            &self.0
        }
    }

    /// Work that counts how often it was done, and where.
    struct Bench {
        hall: Arc<Hall>,
        lending: Arc<Lending>,
        /// Wakes the work.
        bell: Arc<Bell>,
        done: Arc<AtomicUsize>,
        by_task: Arc<AtomicUsize>,
    }

    impl Bench {
        /// With the work's task, which is not spawned yet.
        fn new() -> (Self, Task) {
            let hall = Arc::new(Hall(StandIns::default()));
            let lending = Lending::new(Handle::current());
            let (bell, done, by_task): (Arc<Bell>, Arc<AtomicUsize>, _) = Default::default();
            let (ringing, counting) = (bell.clone(), done.clone());
            let work = poll_fn(move |cx| -> Poll<()> {
                while ringing.poll(cx).is_ready() {
                    counting.fetch_add(1, Ordering::SeqCst);
                }
                Poll::Pending
            });
            let (_, task) = Shift::new(&lending, hall.clone(), work);
            (Self { hall, lending, bell, done, by_task }, task)
        }

        fn spawn(&self, mut task: Task) -> tokio::task::JoinHandle<()> {
            let by_task = self.by_task.clone();
            tokio::spawn(poll_fn(move |cx| {
                by_task.fetch_add(1, Ordering::SeqCst);
                Pin::new(&mut task).poll(cx)
            }))
        }

        /// How often the work was done, and how often its task ran.
        fn counts(&self) -> (usize, usize) {
            (self.done.load(Ordering::SeqCst), self.by_task.load(Ordering::SeqCst))
        }
    }

    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_waits_does_the_work_and_without_one_its_task() {
        let (bench, task) = Bench::new();
        bench.spawn(task);
        settle().await;
        assert_eq!(bench.counts(), (0, 1));
        bench.bell.ring();
        settle().await;
        assert_eq!(bench.counts(), (1, 2), "nobody waits");
        let hall = bench.hall.clone();
        let waiting = tokio::spawn(async move { hall.0.wait().await });
        settle().await;
        bench.bell.ring();
        waiting.await.unwrap();
        settle().await;
        assert_eq!(bench.counts(), (2, 2), "the one who waits");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_lent_to_one_who_gives_up_or_does_not_look_is_done_by_the_task() {
        let (bench, task) = Bench::new();
        bench.spawn(task);
        let lending = bench.lending.clone();
        let hall = bench.hall.clone();
        let watch = tokio::spawn(async move { lending.run(|| hall.0.hand_back()).await });
        settle().await;
        let gives_up = bench.hall.0.wait();
        bench.bell.ring();
        settle().await;
        assert_eq!(bench.counts(), (0, 1), "it is lent");
        drop(gives_up);
        settle().await;
        assert_eq!(bench.counts(), (1, 2));
        // The news went on to whoever comes next.
        bench.hall.0.wait().await;
        let mut busy = Box::pin(bench.hall.0.wait());
        assert!(futures_util::poll!(&mut busy).is_pending());
        bench.bell.ring();
        tokio::time::sleep(3 * PATIENCE).await;
        assert_eq!(bench.counts(), (2, 3));
        bench.bell.ring();
        settle().await;
        assert_eq!(bench.counts(), (3, 4), "to one who does not look nothing more is lent");
        busy.await;
        assert_eq!(bench.counts(), (3, 4), "nothing is left to do");
        settle().await;
        assert!(!bench.lending.lent.load(Ordering::SeqCst));
        watch.abort();
    }

    #[tokio::test]
    async fn to_each_who_waits_two_are_lent_and_after_the_close_none() {
        let benches: Vec<_> = (0..LENT_TO_EACH + 1).map(|_| Bench::new()).collect();
        let hall = benches[0].0.hall.clone();
        let mut waiting = Box::pin(hall.0.wait());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let shifts: Vec<_> = benches.iter().map(|(_, task)| task.0.clone()).collect();
        let lent: Vec<_> = shifts.iter().map(|shift| hall.0.lend(shift)).collect();
        assert_eq!(lent, [true, true, false]);
        assert!(hall.0.lend(&shifts[0]), "it is lent already");
        hall.0.close();
        assert!(hall.0.lock().is_empty() && !hall.0.lend(&shifts[0]));
    }

    #[tokio::test]
    async fn work_that_panics_is_over_and_its_task_ends() {
        let lending = Lending::new(Handle::current());
        let hall = Arc::new(Hall(StandIns::default()));
        let mut calls = 0;
        let work = poll_fn(move |_| -> Poll<()> {
            calls += 1;
            if calls > 1 { panic!("the second time") } else { Poll::Pending }
        });
        let (shift, task) = Shift::new(&lending, hall, work);
        let task = tokio::spawn(task);
        settle().await;
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shift.run()));
        assert!(run.is_err(), "whoever ran it hears of it");
        task.await.unwrap();
        shift.run();
    }

    #[tokio::test]
    async fn the_work_goes_with_its_task_and_a_wake_up_after_that_does_nothing() {
        let (bench, task) = Bench::new();
        let spawned = bench.spawn(task);
        settle().await;
        let held = Arc::strong_count(&bench.done);
        spawned.abort();
        settle().await;
        assert_eq!(Arc::strong_count(&bench.done), held - 1, "the work is dropped");
        bench.bell.ring();
        settle().await;
        assert_eq!(bench.counts().0, 0);
    }

    /// Every wake-up is heard, whoever runs the work and however these fall together.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_wake_up_is_lost_between_threads() {
        const RINGS: usize = 20_000;
        let hall = Arc::new(Hall(StandIns::default()));
        let lending = Lending::new(Handle::current());
        let (heard, wanted): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let bell = Arc::new(Bell::default());
        let (ringing, hearing, wanting) = (bell.clone(), heard.clone(), wanted.clone());
        let work = poll_fn(move |cx| {
            while ringing.poll(cx).is_ready() {
                hearing.store(wanting.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            if hearing.load(Ordering::SeqCst) == RINGS { Poll::Ready(()) } else { Poll::Pending }
        });
        let (shift, task) = Shift::new(&lending, hall.clone(), work);
        let task = tokio::spawn(task);
        let minder = tokio::spawn({
            let (hall, lending) = (hall.clone(), lending.clone());
            async move { lending.run(|| hall.0.hand_back()).await }
        });
        let waiters = [(); 2].map(|()| {
            let hall = hall.clone();
            tokio::spawn(async move {
                loop {
                    hall.0.wait().await;
                }
            })
        });
        let pusher = tokio::spawn(async move {
            loop {
                shift.run();
                tokio::task::yield_now().await;
            }
        });
        for ring in 1..=RINGS {
            wanted.store(ring, Ordering::SeqCst);
            bell.ring();
            if ring % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        task.await.unwrap();
        assert_eq!(heard.load(Ordering::SeqCst), RINGS);
        waiters.iter().for_each(|waiter| waiter.abort());
        pusher.abort();
        minder.abort();
    }
}
