//! What must hold for texts that come from a peer, or speak of what it sent, and end on a terminal or in a log.

/// Panics when `text` is longer than `most` bytes, or could move a cursor.
pub fn assert_plain(text: &str, most: usize) {
    assert!(text.len() <= most, "{} bytes where {most} are the most: {text:?}", text.len());
    assert!(!text.contains(char::is_control), "control characters: {text:?}");
}

/// The same for the words of an error.
pub fn assert_plain_error(error: &dyn std::error::Error) {
    assert_plain(&error.to_string(), MAX_ERROR);
}

/// An error shows a little of what was sent, twice at most, and says what to do about it.
const MAX_ERROR: usize = 2048;
