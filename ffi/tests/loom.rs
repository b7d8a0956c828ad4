//! The hand-overs of a shutdown, in every order of the threads' steps: who uses an appliance against who takes it
//! away, who completes a call against who ends the thread that tells of it.
#![allow(
    dead_code,
    unsafe_code,
    reason = "the modules under test are taken in as they are"
)]
#![expect(
    clippy::unsafe_removed_from_name,
    clippy::arc_with_non_send_sync,
    reason = "loom's threads ask for neither"
)]

/// In place of the library's module of this name.
mod sync {
    pub use loom::cell::UnsafeCell as Cell;
    pub use loom::sync::atomic::{AtomicUsize, Ordering};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[path = "../src/gate.rs"]
mod gate;
#[path = "../src/queue.rs"]
mod queue;

use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use gate::Gate;
use queue::Queue;

/// loom tells when it is looked at and changed at the same time.
type Value = UnsafeCell<u32>;

fn look(value: &Value) -> u32 {
    // SAFETY: loom checks that nobody changes it meanwhile.
    value.with(|v| unsafe { *v })
}

/// Waits as long as it takes.
fn patient() -> Duration {
    Duration::from_secs(1)
}

#[test]
fn nobody_is_inside_when_the_value_is_taken_and_nobody_comes_in_behind() {
    // All orders of three threads would take a minute; mistakes show with few switches.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let gate = Arc::new(Gate::new(Value::new(1)));
        let users: Vec<_> = (0..2)
            .map(|number| {
                let gate = gate.clone();
                thread::spawn(move || {
                    if number == 0 {
                        if let Some(inside) = gate.enter() {
                            assert_eq!(look(&inside), 1);
                        }
                    } else if let Some(inside) = gate.enter_for_long() {
                        drop(gate);
                        assert_eq!(look(&inside), 1);
                    }
                })
            })
            .collect();
        assert!(gate.close());
        let value = gate.take(patient).unwrap();
        // SAFETY: loom checks that nobody looks at it meanwhile.
        value.with_mut(|v| unsafe { *v = 2 });
        assert!(gate.enter().is_none());
        for user in users {
            user.join().unwrap();
        }
    });
}

#[test]
fn of_two_that_end_it_one_gets_the_value() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(Value::new(1)));
        let other = gate.clone();
        let other = thread::spawn(move || {
            let first = other.close();
            (first, other.take(patient).is_some())
        });
        let first = gate.close();
        let taken = gate.take(patient).is_some();
        let (other_first, other_taken) = other.join().unwrap();
        assert!(first != other_first);
        assert!(taken != other_taken);
    });
}

#[test]
fn each_call_is_completed_once_though_the_thread_for_it_ends() {
    loom::model(|| {
        let queue = Arc::new(Queue::new());
        let completed = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let complete = |completed: &[AtomicUsize; 2], call: usize| {
            completed[call].fetch_add(1, Ordering::SeqCst);
        };
        let worker = {
            let (queue, completed) = (queue.clone(), completed.clone());
            thread::spawn(move || {
                while let Some(call) = queue.pop() {
                    complete(&completed, call);
                }
            })
        };
        let task = {
            let (queue, completed) = (queue.clone(), completed.clone());
            thread::spawn(move || {
                for call in 0..2 {
                    if let Err(call) = queue.push(call) {
                        complete(&completed, call);
                    }
                }
            })
        };
        queue.end();
        worker.join().unwrap();
        task.join().unwrap();
        for calls in completed.iter() {
            assert_eq!(calls.load(Ordering::SeqCst), 1);
        }
    });
}
