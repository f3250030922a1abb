//! Where received files go, and how many may come: slots and room are guards that give themselves back.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::name::PlainName;
use super::{Sum, store};

/// What an inbox takes.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes of all files in the inbox together, partial ones at their full size.
    pub(crate) max_bytes: u64,
    /// Files in the inbox, partial ones included.
    pub(crate) max_files: usize,
    /// Transfers at once.
    pub(crate) max_transfers: usize,
    /// Transfers at once from one peer.
    pub(crate) max_transfers_per_peer: usize,
    /// How long an offer waits for an earlier transfer of the same file to end: one whose stream broke may not know it yet.
    pub(crate) claim_wait: Duration,
    /// How long a sender may take for its offer, for each block of the file and to read our answers.
    pub(crate) idle: Duration,
    /// Partial files that nothing was added to for so long are removed when the inbox is opened.
    pub(crate) keep_partial: Duration,
}

impl Limits {
    /// 16 GiB.
    pub(crate) const DEFAULT_MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: Self::DEFAULT_MAX_BYTES,
            max_files: 10_000,
            max_transfers: 8,
            max_transfers_per_peer: 2,
            claim_wait: Duration::from_secs(2),
            idle: Duration::from_secs(30),
            keep_partial: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// A folder that takes files from peers.
#[derive(Debug)]
pub(crate) struct Inbox {
    folder: PathBuf,
    limits: Limits,
    running: Mutex<Running>,
    claim_ended: Condvar,
}

#[derive(Debug, Default)]
struct Running {
    /// Slots by peer.
    slots: HashMap<String, usize>,
    /// Room by partial file.
    claims: HashMap<PathBuf, u64>,
}

impl Inbox {
    /// Opens the folder, made if it is not there, and removes partial files that nobody came back for.
    ///
    /// # Errors
    /// One line that names the folder.
    pub(crate) fn open(folder: &Path, limits: Limits) -> Result<Arc<Self>, String> {
        let fail = |error: io::Error| {
            format!("the inbox {} can't be used: {error} (give another with --inbox)", folder.display())
        };
        fs::create_dir_all(folder).map_err(fail)?;
        let folder = folder.canonicalize().map_err(fail)?;
        let now = SystemTime::now();
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let Ok(entry) = entry else { continue };
            let age = entry.metadata().and_then(|meta| meta.modified()).ok();
            let age = age.and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default();
            if age > limits.keep_partial && store::is_partial(&entry.file_name()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Arc::new(Self { folder, limits, running: Mutex::default(), claim_ended: Condvar::new() }))
    }

    /// The folder, as an absolute path.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it takes.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A place for one transfer from `peer`.
    ///
    /// # Errors
    /// Why there is none, for the sender.
    pub(crate) fn slot(self: &Arc<Self>, peer: &str) -> Result<Slot, String> {
        let mut running = self.lock();
        let most = self.limits.max_transfers;
        if running.slots.values().sum::<usize>() >= most {
            return Err(format!("{most} files are being received already: try again later"));
        }
        let of_peer = running.slots.entry(peer.to_owned()).or_default();
        let most = self.limits.max_transfers_per_peer;
        if *of_peer >= most {
            return Err(format!("{most} files of yours are being received already: try again later"));
        }
        *of_peer += 1;
        Ok(Slot { inbox: self.clone(), peer: peer.to_owned() })
    }

    /// Room for one file, exclusively. Blocks: it looks through the folder, and waits when the file is being received.
    ///
    /// # Errors
    /// Why it is not taken, for the sender.
    pub(crate) fn claim(self: &Arc<Self>, name: &PlainName, sum: &Sum, size: u64) -> Result<Claim, String> {
        let partial = self.folder.join(store::partial_name(name, sum));
        let claim = self.claim_alone(partial, size)?;
        let (files, bytes) = self.used().map_err(|error| {
            tracing::warn!(inbox = %self.folder.display(), %error, "the inbox cannot be read");
            "the receiver can't read its inbox".to_owned()
        })?;
        let most = self.limits.max_bytes;
        if bytes > most {
            let left = most.saturating_sub(bytes - size);
            return Err(format!("the inbox has room for {left} bytes, the file has {size}"));
        }
        if files > self.limits.max_files {
            return Err(format!("the inbox has {} files, the most it takes", self.limits.max_files));
        }
        Ok(claim)
    }

    fn claim_alone(self: &Arc<Self>, partial: PathBuf, size: u64) -> Result<Claim, String> {
        let deadline = Instant::now() + self.limits.claim_wait;
        let mut running = self.lock();
        while running.claims.contains_key(&partial) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("this file is being received already: try again when that has ended".into());
            }
            let waited = self.claim_ended.wait_timeout(running, left);
            running = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        running.claims.insert(partial.clone(), size);
        Ok(Claim { inbox: self.clone(), partial })
    }

    /// Files and bytes in the folder, with each claimed partial file at its full size.
    fn used(&self) -> io::Result<(usize, u64)> {
        let claims = self.lock().claims.clone();
        let mut files = claims.len();
        let mut bytes = claims.values().fold(0u64, |sum, size| sum.saturating_add(*size));
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if claims.contains_key(&entry.path()) {
                continue;
            }
            files += 1;
            // A file that went away in the meantime takes no room.
            bytes = bytes.saturating_add(entry.metadata().map_or(0, |meta| meta.len()));
        }
        Ok((files, bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A place for one transfer; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    inbox: Arc<Inbox>,
    peer: String,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut running = self.inbox.lock();
        if let Some(count) = running.slots.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                running.slots.remove(&self.peer);
            }
        }
    }
}

/// Exclusive room for one file; free again when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    inbox: Arc<Inbox>,
    partial: PathBuf,
}

impl Claim {
    /// The partial file that the claim is for.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inbox.lock().claims.remove(&self.partial);
        self.inbox.claim_ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn sum(of: &str) -> Sum {
        Sum::of(Sha256::new_with_prefix(of))
    }

    fn name(name: &str) -> PlainName {
        PlainName::parse(name).unwrap()
    }

    #[test]
    fn slots_are_bounded_in_all_and_by_peer_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { max_transfers: 3, max_transfers_per_peer: 2, ..Limits::default() };
        let inbox = Inbox::open(folder.path(), limits).unwrap();
        let first = inbox.slot("a").unwrap();
        let _second = inbox.slot("a").unwrap();
        assert!(inbox.slot("a").unwrap_err().contains("of yours"));
        let _third = inbox.slot("b").unwrap();
        assert!(inbox.slot("b").unwrap_err().contains("3 files"));
        drop(first);
        let _fourth = inbox.slot("a").unwrap();
    }

    #[test]
    fn room_counts_what_is_there_and_what_is_coming() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("old"), [0; 400]).unwrap();
        let inbox = Inbox::open(folder.path(), Limits { max_bytes: 1000, ..Limits::default() }).unwrap();
        let coming = inbox.claim(&name("a"), &sum("a"), 500).unwrap();
        let refusal = inbox.claim(&name("b"), &sum("b"), 101).unwrap_err();
        assert!(refusal.contains("room for 100 bytes"), "{refusal}");
        drop(coming);
        inbox.claim(&name("b"), &sum("b"), 600).unwrap();
        assert!(inbox.claim(&name("c"), &sum("c"), u64::MAX).is_err());
    }

    #[test]
    fn the_same_file_is_claimed_once_and_files_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(
            folder.path(),
            Limits { max_files: 2, claim_wait: Duration::from_millis(1), ..Limits::default() },
        )
        .unwrap();
        let _first = inbox.claim(&name("a"), &sum("a"), 0).unwrap();
        assert!(inbox.claim(&name("a"), &sum("a"), 0).unwrap_err().contains("already"));
        let _second = inbox.claim(&name("a"), &sum("other"), 0).unwrap();
        assert!(inbox.claim(&name("b"), &sum("b"), 0).unwrap_err().contains("the most it takes"));
    }

    #[test]
    fn an_offer_waits_for_an_earlier_transfer_of_the_file_that_is_about_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(folder.path(), Limits::default()).unwrap();
        let first = inbox.claim(&name("a"), &sum("a"), 0).unwrap();
        let second = std::thread::spawn(move || inbox.claim(&name("a"), &sum("a"), 0).map(drop));
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn partial_files_that_nobody_came_back_for_are_removed_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
        let stale = store::partial_name(&name("a"), &sum("a"));
        let fresh = store::partial_name(&name("b"), &sum("b"));
        for (file, modified) in
            [(stale.as_str(), old), (&fresh, SystemTime::now()), ("a", old), (".part", old)]
        {
            fs::File::create(folder.path().join(file)).unwrap().set_modified(modified).unwrap();
        }
        Inbox::open(folder.path(), Limits::default()).unwrap();
        assert!(!folder.path().join(&stale).exists());
        assert!([fresh.as_str(), "a", ".part"].iter().all(|file| folder.path().join(file).exists()));
    }
}
