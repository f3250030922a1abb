//! What `drive` prints: one JSON object on one line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Latency, Negotiated, Unit, Work};

/// The result of one work, done once on a fresh connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The program's name, such as `rust-libp2p`.
    pub peer: String,
    /// In which form it ran.
    pub form: String,
    /// What was done.
    pub work: Work,
    /// Whether small messages were joined into writes of 32 KiB by the caller.
    pub joined: bool,
    /// What came out, or why there is nothing.
    #[serde(flatten)]
    pub ended: Ended,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Ended {
    /// The library has nothing by which the work could be done.
    DoesNotApply {
        /// What is missing.
        why: String,
    },
    /// It ended wrongly. A program says so with its exit code; the driver notes it so.
    Failed {
        /// In which step, and how.
        why: String,
    },
    /// It was done.
    Done(Box<Done>),
}

/// Figures of a work that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// How much was done, in `unit`s.
    pub amount: u64,
    /// What `amount` counts.
    pub unit: Unit,
    /// How long it took.
    pub seconds: f64,
    /// Of `amount`, how many never arrived.
    pub lost: u64,
    /// Processor seconds of the client over these seconds.
    pub client_cpu: Option<f64>,
    /// Processor seconds of the server over these seconds.
    pub server_cpu: Option<f64>,
    /// Processors that everything else on the machine kept busy meanwhile, on average.
    pub elsewhere: Option<f64>,
    /// The times of single requests or connections, where they were measured.
    pub latency: Option<Latency>,
    /// The same in each state of the connection: `idle`, `busy`, and `equal` when all have the same priority.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phases: BTreeMap<String, Latency>,
    /// What a connection added to resident memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// What TLS agreed on, where the library tells.
    #[serde(flatten)]
    pub negotiated: Negotiated,
}

/// Bytes of resident memory that each idle connection added.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// On the side that dialled, where all were dialled from one endpoint or node.
    pub client_bytes: Option<f64>,
    /// On the side that was dialled, where one endpoint or node took them all.
    pub server_bytes: Option<f64>,
}

impl Report {
    /// The figures, if the work was done.
    pub fn done(&self) -> Option<&Done> {
        match &self.ended {
            Ended::Done(done) => Some(done),
            Ended::DoesNotApply { .. } | Ended::Failed { .. } => None,
        }
    }
}

impl Done {
    /// Units a second, without those that were lost.
    pub fn rate(&self) -> f64 {
        self.amount.saturating_sub(self.lost) as f64 / self.seconds.max(1e-9)
    }

    /// Processor seconds of both sides.
    pub fn cpu(&self) -> Option<f64> {
        Some(self.client_cpu? + self.server_cpu?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> Done {
        Done {
            amount: 1000,
            unit: Unit::Messages,
            seconds: 0.5,
            lost: 100,
            client_cpu: Some(0.25),
            server_cpu: Some(0.5),
            elsewhere: Some(0.0),
            latency: Latency::of(vec![std::time::Duration::from_micros(70)]),
            phases: BTreeMap::new(),
            memory: None,
            negotiated: Negotiated { suite: Some("TLS13_AES_128_GCM_SHA256".to_owned()), group: None },
        }
    }

    #[test]
    fn a_report_is_one_line_of_json_and_comes_back() {
        let ends =
            [Ended::Done(Box::new(done())), Ended::DoesNotApply { why: "there are no streams".to_owned() }];
        for ended in ends {
            let report = Report {
                peer: "raw-quinn".to_owned(),
                form: "tuned".to_owned(),
                work: Work::Streams,
                joined: false,
                ended,
            };
            let line = serde_json::to_string(&report).unwrap_or_default();
            assert!(!line.contains('\n') && line.contains("\"work\":\"streams\""), "{line}");
            let back = serde_json::from_str::<Report>(&line).map_err(|error| error.to_string());
            assert_eq!(back, Ok(report));
        }
    }

    #[test]
    fn what_was_lost_counts_for_no_rate() {
        assert!((done().rate() - 1800.0).abs() < 1e-9);
        assert_eq!(done().cpu(), Some(0.75));
    }
}
