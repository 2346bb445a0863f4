//! Seats at the socket: a few, and some of them for those who may change something, whoever else sits there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections at one time.
pub const SEATS_MAX: usize = 32;
/// Connections at one time of those who may only read.
pub const GUESTS_MAX: usize = 24;

/// Seats that are taken.
#[derive(Default)]
pub struct Seats(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    guests: usize,
}

/// A seat; dropped, it is free again.
pub struct Seat {
    seats: Arc<Seats>,
    guest: bool,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat, a guest's for whoever may only read; `None`: all of them are taken.
    pub fn take(self: &Arc<Seats>, guest: bool) -> Option<Seat> {
        let mut taken = self.taken();
        if taken.all >= SEATS_MAX || guest && taken.guests >= GUESTS_MAX {
            return None;
        }
        taken.all += 1;
        taken.guests += usize::from(guest);
        Some(Seat { seats: self.clone(), guest })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        taken.guests -= usize::from(self.guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_leave_some_seats_and_find_no_more_than_there_are() {
        let seats = Arc::new(Seats::default());
        let take = |guest| -> Vec<Seat> { std::iter::from_fn(|| seats.take(guest)).collect() };
        let guests = take(true);
        assert_eq!(guests.len(), GUESTS_MAX);
        let mut others = take(false);
        assert_eq!(others.len(), SEATS_MAX - GUESTS_MAX);
        drop(guests);
        assert_eq!(take(true).len(), GUESTS_MAX, "a seat that was given back is taken again");
        others.extend(take(false));
        assert_eq!((others.len(), take(true).len()), (SEATS_MAX, 0));
    }
}
