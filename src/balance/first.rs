//! The first slot, in the order of the file, that can be taken: the next one gets requests only while those before it cannot.

use super::Slots;

/// The first of so many slots that is not skipped.
pub(super) fn pick(slots: usize, of: &impl Slots) -> Option<usize> {
    (0..slots).find(|index| !of.skips(*index))
}
