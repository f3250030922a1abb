//! What runs: which peers, in which forms, for which works.

use std::fmt;

use clap::ValueEnum;
use peerage_bench_peer::Work;

/// A library that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum PeerName {
    /// Peerage.
    Ours,
    /// quinn and nothing above it.
    RawQuinn,
    /// rust-libp2p over QUIC.
    #[value(name = "rust-libp2p")]
    RustLibp2p,
    /// iroh without relays.
    Iroh,
    /// TLS over TCP.
    TcpTls,
}

impl PeerName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            PeerName::Ours => "ours",
            PeerName::RawQuinn => "raw-quinn",
            PeerName::RustLibp2p => "rust-libp2p",
            PeerName::Iroh => "iroh",
            PeerName::TcpTls => "tcp-tls",
        }
    }

    /// It is part of this program.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, PeerName::Ours | PeerName::RawQuinn)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One row's program, form and work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry {
    pub(crate) work: Work,
    pub(crate) peer: PeerName,
    pub(crate) form: &'static str,
    /// The caller joins small messages into writes of 32 KiB.
    pub(crate) joined: bool,
}

impl Entry {
    fn new(work: Work, peer: PeerName, form: &'static str) -> Self {
        Self { work, peer, form, joined: false }
    }

    /// Its name in the table. Forms that only make peers alike, such as certificates of the same key type, are not named.
    pub(crate) fn label(&self) -> String {
        let joined = if self.joined { ", joined" } else { "" };
        match self.form {
            "default" | "newcomers" | "p256" => format!("{}{joined}", self.peer),
            form => format!("{}-{form}{joined}", self.peer),
        }
    }

    /// The row that its ratio is to.
    pub(crate) fn base(&self) -> &'static str {
        match (self.work, self.label().as_str()) {
            (Work::Bulk1 | Work::Bulk8, "ours") => "raw-quinn-jumbo",
            (Work::Bulk1 | Work::Bulk8 | Work::Messages64k, "ours-1452") => "raw-quinn-tuned",
            (Work::Messages64k, "ours") => "raw-quinn-tuned",
            (Work::Messages64, "ours" | "ours-1452") => "raw-quinn, joined",
            _ => "raw-quinn",
        }
    }
}

/// The forms in which a peer does a work.
pub(crate) fn entries(work: Work, peer: PeerName, quick: bool) -> Vec<Entry> {
    let forms: &[&'static str] = match (peer, work) {
        (PeerName::Ours, Work::Bulk1 | Work::Bulk8) => &["1452", "default"],
        (PeerName::Ours, Work::Messages64 | Work::Messages1k | Work::Messages64k) => &["1452", "default"],
        (PeerName::Ours, Work::Handshake1 | Work::Handshake32 | Work::Memory) => &["newcomers"],
        (PeerName::RawQuinn, Work::Bulk1 | Work::Bulk8) if quick => &["default", "tuned", "jumbo"],
        (PeerName::RawQuinn, Work::Bulk1 | Work::Bulk8) => {
            &["default", "tuned", "jumbo", "chacha", "tuned-chacha"]
        }
        (PeerName::RawQuinn, Work::Messages64k) => &["default", "tuned"],
        (PeerName::RawQuinn, Work::Handshake1 | Work::Handshake32 | Work::Memory | Work::Start) => &["p256"],
        _ => &["default"],
    };
    let mut entries: Vec<_> = forms.iter().map(|form| Entry::new(work, peer, form)).collect();
    if peer == PeerName::RawQuinn && matches!(work, Work::Messages64 | Work::Messages1k) {
        entries.push(Entry { joined: true, ..Entry::new(work, peer, "default") });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_ours_has_the_row_that_its_ratio_is_to() {
        for work in Work::all().iter().filter(|work| **work != Work::Fanout) {
            for quick in [false, true] {
                let raw: Vec<_> =
                    entries(*work, PeerName::RawQuinn, quick).iter().map(Entry::label).collect();
                for entry in entries(*work, PeerName::Ours, quick) {
                    assert!(
                        raw.iter().any(|label| label == entry.base()),
                        "{work}: {raw:?}, {}",
                        entry.base()
                    );
                }
            }
        }
    }

    #[test]
    fn rows_of_one_work_have_different_names() {
        for work in Work::all() {
            let all = PeerName::value_variants().iter().flat_map(|peer| entries(*work, *peer, false));
            let mut labels: Vec<_> = all.map(|entry| entry.label()).collect();
            let count = labels.len();
            labels.sort();
            labels.dedup();
            assert_eq!(labels.len(), count, "{work}: {labels:?}");
        }
    }
}
