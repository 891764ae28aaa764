//! Placeholder head, replaced with the room's own.
