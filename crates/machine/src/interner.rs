//! What many hold alike, kept once.

use std::sync::{Arc, Weak};

/// Finds for a value the equal one that is held already, so that all who say the same share one copy.
///
/// It keeps nothing alive: a value lives as long as somebody holds it. It knows a bounded number of values; while all of them are held, a further one
/// is not shared, and each who says it keeps a copy.
#[derive(Debug)]
pub struct Interner<T: ?Sized> {
    known: Vec<Weak<T>>,
    most: usize,
}

impl<T: Eq + ?Sized> Interner<T> {
    /// For so many values at a time.
    pub fn new(most: usize) -> Self {
        Self { known: Vec::new(), most }
    }

    /// The one that is held, where there is an equal one; otherwise `value`, which the next ones share. It compares with each value that is known.
    pub fn share(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.iter().filter_map(Weak::upgrade).find(|known| *known == value) {
            return known;
        }
        if self.known.len() >= self.most {
            self.known.retain(|known| known.strong_count() > 0);
        }
        if self.known.len() < self.most {
            self.known.push(Arc::downgrade(&value));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_for_as_long_as_somebody_holds_it() {
        let mut names = Interner::<str>::new(4);
        let first = names.share("a".into());
        let second = names.share("a".into());
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &names.share("b".into())));
        drop((first, second));
        assert!(names.known[0].upgrade().is_none());
    }

    #[test]
    fn values_beyond_the_bound_are_not_shared_until_others_are_gone() {
        let mut numbers = Interner::new(2);
        let mut held: Vec<_> = (0..3).map(|number| numbers.share(Arc::new(number))).collect();
        assert!(!Arc::ptr_eq(&held[2], &numbers.share(Arc::new(2))));
        assert_eq!(numbers.known.len(), 2);
        held.remove(0);
        let third = numbers.share(held[1].clone());
        assert!(Arc::ptr_eq(&third, &numbers.share(Arc::new(2))));
        for number in 3..100 {
            numbers.share(Arc::new(number));
        }
        assert_eq!(numbers.known.len(), 2);
    }
}
