//! The address book as a file that users give away or take in.

use peerage_peers::{BookEntry, Input, StoredPeer};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::driver::Message;
use crate::peers::Peers;

/// The longest book that is imported, in bytes.
pub const MAX_BOOK_BYTES: usize = 64 << 20;
/// The version of an exported book.
const VERSION: u64 = 1;
/// The longest words on what is wrong with a book, in characters.
const MAX_WORDS: usize = 300;

/// Why a book cannot be imported or exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// It is too long.
    #[error("the address book has {length} bytes: at most {MAX_BOOK_BYTES} are read")]
    TooLong {
        /// Bytes.
        length: usize,
    },
    /// Not an exported book.
    #[error("this is no exported address book: {detail}")]
    Malformed {
        /// What is wrong, and where.
        detail: String,
    },
    /// A later version of Peerage wrote it.
    #[error(
        "the address book has version {found}, and this program reads up to {VERSION}: use a later Peerage"
    )]
    Newer {
        /// Its version.
        found: u64,
    },
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Closed,
}

#[derive(Serialize, Deserialize)]
struct Exported {
    version: u64,
    peers: Vec<BookEntry>,
}

impl Peers {
    /// The address book as JSON, without private peers: each peer's addresses, with their statistics, and its signed record.
    ///
    /// # Errors
    /// [`BookError::Closed`].
    pub async fn export_book(&self) -> Result<String, BookError> {
        let (reply, answer) = oneshot::channel();
        self.shared.to_driver.send(Message::Export { reply }).await.map_err(|_| BookError::Closed)?;
        let peers = answer.await.map_err(|_| BookError::Closed)?;
        let book = Exported { version: VERSION, peers };
        serde_json::to_string_pretty(&book)
            .map_err(|error| BookError::Malformed { detail: error.to_string() })
    }

    /// Takes in an exported address book: the peers that are not known yet, as far as there is room. Returns how many entries were good;
    /// entries that name no peer or hold nothing of use are passed over.
    ///
    /// # Errors
    /// [`BookError`] when the text is no exported book.
    pub async fn import_book(&self, json: &str) -> Result<usize, BookError> {
        let mut peers = Vec::new();
        for (index, entry) in read(json)?.iter().enumerate() {
            match StoredPeer::read(entry) {
                Ok(peer) => peers.push(peer),
                Err(error) => tracing::warn!(%error, "an entry of the imported address book is passed over"),
            }
            // Signatures take time: others on this thread get their turn.
            if index % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
        let good = peers.len();
        let import = Message::Input(Input::Import { peers });
        self.shared.to_driver.send(import).await.map_err(|_| BookError::Closed)?;
        Ok(good)
    }
}

/// The entries of an exported book, not yet checked one by one.
pub(crate) fn read(json: &str) -> Result<Vec<BookEntry>, BookError> {
    if json.len() > MAX_BOOK_BYTES {
        return Err(BookError::TooLong { length: json.len() });
    }
    let book: Exported =
        serde_json::from_str(json).map_err(|error| BookError::Malformed { detail: words(&error) })?;
    if book.version > VERSION {
        return Err(BookError::Newer { found: book.version });
    }
    Ok(book.peers)
}

/// What is wrong with a text, which may be quoted in it: cut, and without what would move a cursor.
fn words(error: &serde_json::Error) -> String {
    let mut words: String =
        error.to_string().chars().filter(|c| !c.is_control()).take(MAX_WORDS + 1).collect();
    if words.chars().nth(MAX_WORDS).is_some() {
        words.pop();
        words += &format!("… at line {} column {}", error.line(), error.column());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_that_is_none_is_refused_in_short_and_plain_words() {
        let book = |source: &str| {
            let entry = format!(r#"{{"peer":"x","addresses":[{{"address":"a","source":"{source}"}}]}}"#);
            read(&format!(r#"{{"version":1,"peers":[{entry}]}}"#)).unwrap_err().to_string()
        };
        let escaped = book(r"a\u001b[2Jb");
        assert!(escaped.contains("a[2Jb") && !escaped.contains(char::is_control), "{escaped}");
        let long = book(&"x".repeat(10_000));
        assert!(long.len() < 400 && long.contains("… at line 1 column "), "{long}");
        assert!(matches!(read(r#"{"version":2,"peers":[]}"#), Err(BookError::Newer { found: 2 })));
        assert!(read(r#"{"version":1,"peers":[]}"#).unwrap().is_empty());
    }

    #[test]
    fn a_book_of_more_bytes_than_the_bound_is_not_read() {
        let mut book = r#"{"version":1,"peers":[]}"#.to_owned();
        book.push_str(&" ".repeat(MAX_BOOK_BYTES - book.len()));
        assert!(read(&book).unwrap().is_empty());
        book.push(' ');
        assert!(matches!(read(&book), Err(BookError::TooLong { .. })));
    }
}
