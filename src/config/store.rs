//! Values that are expensive to make while a file is read: compiled patterns, parsed paths, certificates. Each is made
//! once however often the file has it, and a file may have a bounded number of different ones, because a few bytes of
//! text can take much memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::values::tls::Certificates;
use crate::model::policy::{JsonPath, LinePattern, Pattern};

/// Different patterns in one file; each may take several times the 256 KiB of its program.
const PATTERNS_MAX: usize = 100;
/// Bytes of different JSONPaths in one file; parsed they take about a hundred times that.
const PATH_BYTES_MAX: usize = 256 << 10;
/// Bytes of certificates in different files.
const CERTIFICATE_BYTES_MAX: usize = 16 << 20;

/// The values made for one file so far.
#[derive(Debug)]
pub struct Store {
    /// By their text.
    pub patterns: Bounded<Pattern>,
    /// By their text: those of steps.
    pub line_patterns: Bounded<LinePattern>,
    /// By their text.
    pub paths: Bounded<JsonPath>,
    /// By the path of their file.
    pub certificates: Bounded<Certificates>,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            patterns: Bounded::new(PATTERNS_MAX, "this file has more than 100 different patterns"),
            line_patterns: Bounded::new(PATTERNS_MAX, "this file has more than 100 different patterns"),
            paths: Bounded::new(PATH_BYTES_MAX, "this file has more than 256 KiB of different JSONPaths"),
            certificates: Bounded::new(
                CERTIFICATE_BYTES_MAX,
                "exceeds a limit: this configuration has more than 16 MiB of certificates",
            ),
        }
    }
}

/// Values by their text, up to a total cost.
#[derive(Debug)]
pub struct Bounded<T> {
    known: HashMap<String, T>,
    left: usize,
    full: &'static str,
}

impl<T: Clone> Bounded<T> {
    fn new(max: usize, full: &'static str) -> Bounded<T> {
        Bounded { known: HashMap::new(), left: max, full }
    }

    /// The value of `text`, made by `make` if it is new; `cost` is what it takes of the bound.
    ///
    /// # Errors
    /// The error of `make`, or `too_many` of a sentence if the bound is exceeded.
    pub fn get_or_make<E>(
        &mut self,
        text: &str,
        cost: impl FnOnce(&T) -> usize,
        make: impl FnOnce() -> Result<T, E>,
        too_many: impl FnOnce(&'static str) -> E,
    ) -> Result<T, E> {
        match self.known.entry(text.to_owned()) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(_) if self.left == 0 => Err(too_many(self.full)),
            Entry::Vacant(place) => {
                let value = make()?;
                match self.left.checked_sub(cost(&value)) {
                    None => {
                        self.left = 0;
                        Err(too_many(self.full))
                    }
                    Some(left) => {
                        self.left = left;
                        Ok(place.insert(value).clone())
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_and_there_is_a_bound() {
        let mut store: Bounded<usize> = Bounded::new(5, "full");
        let mut get = |text: &str, made: Option<usize>| {
            store.get_or_make(text, |value| *value, || made.ok_or("not made"), |full| full)
        };
        assert_eq!(get("a", Some(2)), Ok(2));
        assert_eq!(get("a", None), Ok(2));
        assert_eq!(get("b", None), Err("not made"));
        assert_eq!(get("b", Some(3)), Ok(3));
        assert_eq!(get("c", Some(1)), Err("full"));
        assert_eq!((get("b", None), get("d", None)), (Ok(3), Err("full")));
    }
}
