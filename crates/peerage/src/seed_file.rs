//! A file of seeds: one address a line.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use peerage_identity::DialAddress;
use tokio::io::AsyncReadExt;

/// The longest file, in bytes.
pub(crate) const MAX_BYTES: u64 = 1 << 20;
/// Bad lines that are reported one by one.
pub(crate) const MAX_REPORTED: usize = 20;

/// Why a file of seeds cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedFileError {
    /// It cannot be read.
    #[error("the seeds in {} cannot be read: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is too long.
    #[error("{} has more than {most} bytes: split it, or name fewer seeds", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        most: u64,
    },
}

/// A line that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: {detail}")]
pub struct BadLine {
    /// Its number, from 1 on.
    pub number: usize,
    /// What is wrong, with the remedy.
    pub detail: String,
}

/// Reads the seeds of a file. Bad lines are reported and passed over.
pub(crate) async fn read(path: &Path) -> Result<Vec<DialAddress>, SeedFileError> {
    let io = |source| SeedFileError::Io { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(io)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).await.map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(SeedFileError::TooLong { path: path.to_owned(), most: MAX_BYTES });
    }
    let (seeds, bad) = parse(&String::from_utf8_lossy(&bytes));
    let (one_by_one, together) = bad.split_at(bad.len().min(MAX_REPORTED));
    for line in one_by_one {
        tracing::warn!(path = %path.display(), %line, "a seed is passed over");
    }
    if !together.is_empty() {
        tracing::warn!(path = %path.display(), lines = together.len(), "more seeds are passed over");
    }
    if seeds.is_empty() {
        tracing::warn!(path = %path.display(), "the file names no seed");
    }
    Ok(seeds)
}

/// The seeds of a text, and the lines that are none.
pub(crate) fn parse(text: &str) -> (Vec<DialAddress>, Vec<BadLine>) {
    let (mut seeds, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match DialAddress::from_str(line) {
            Ok(address) => seeds.push(address),
            Err(error) => bad.push(BadLine { number: index + 1, detail: error.to_string() }),
        }
    }
    (seeds, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_passed_over_and_bad_lines_are_named() {
        let text = "# ours\n\n/ip4/192.0.2.1/udp/1/quic-v1 # the first\n  /dnsaddr/seeds.example\r\n192.0.2.1:4400\n/ip4/1.2.3.4/tcp/1\n";
        let (seeds, bad) = parse(text);
        let seeds: Vec<_> = seeds.iter().map(ToString::to_string).collect();
        assert_eq!(seeds, ["/ip4/192.0.2.1/udp/1/quic-v1", "/dnsaddr/seeds.example"]);
        assert_eq!(bad.iter().map(|line| line.number).collect::<Vec<_>>(), [5, 6]);
        assert!(bad.iter().all(|line| !line.detail.is_empty()));
    }

    #[tokio::test]
    async fn a_file_that_is_missing_or_too_long_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seeds");
        assert!(read(&path).await.unwrap_err().to_string().contains("seeds"));
        std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert!(matches!(read(&path).await, Err(SeedFileError::TooLong { .. })));
    }

    #[test]
    fn of_bad_lines_twenty_are_reported_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seeds");
        std::fs::write(&path, "bad\n".repeat(33)).unwrap();
        let log = folder.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(file).finish();
        tracing::subscriber::with_default(subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert!(runtime.block_on(read(&path)).unwrap().is_empty());
        });
        let log = std::fs::read_to_string(log).unwrap();
        let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        assert_eq!((lines("a seed is passed over"), lines("more seeds are passed over")), (20, 1), "{log}");
        assert!(log.contains("lines=13"), "{log}");
    }
}
