//! What a node does in the DHT.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use peerage_dht::record::{Authority, RecordsConfig, Validator};
use peerage_dht::{Invalid, Judged, Mode};
use peerage_machine::Now;

/// What a node does in the DHT, for [`NodeBuilder::dht`](crate::NodeBuilder::dht).
#[derive(Clone)]
#[non_exhaustive]
pub struct DhtConfig {
    /// Whether the node answers others and stands in their tables. Default: a node that listens at its start serves, any other one only asks.
    pub mode: Option<Mode>,
    /// Whether nodes of libp2p's DHT, `/ipfs/kad/1.0.0`, are asked and answered too. Default: no.
    pub libp2p: bool,
    /// Events of the DHT that a slow watcher may fall behind before it misses some. Default: 256.
    pub max_events_behind: usize,
    /// Zero bits of work that this node does at most for a message to a stranger: each doubles the work, of which a processor does some millions a second. Default: 22.
    pub most_mail_work_bits: u32,
    /// The machine's limits and times.
    pub limits: peerage_dht::DhtConfig,
    /// The limits of records. All nodes of a network must agree on them.
    pub records: RecordsConfig,
    pub(super) validators: Vec<(String, Arc<dyn Validator>)>,
    pub(super) authority: Option<Arc<dyn Authority>>,
}

impl DhtConfig {
    /// Takes values under `/<namespace>/…`, as libp2p's nodes store them, when `validator` finds them good. Without one, values of other namespaces than the
    /// network's own kinds are refused.
    #[must_use]
    pub fn validator(mut self, namespace: impl Into<String>, validator: impl Validator + 'static) -> Self {
        self.validators.push((namespace.into(), Arc::new(validator)));
        self
    }

    /// Checks that each limit leaves room for anything.
    ///
    /// # Errors
    /// A sentence that names the limit.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=1 << 20).contains(&self.max_events_behind) {
            let many = self.max_events_behind;
            return Err(format!("the limit max_events_behind of the DHT is {many}: give 1 to {}", 1 << 20));
        }
        if self.most_mail_work_bits > 40 {
            let bits = self.most_mail_work_bits;
            return Err(format!("the limit most_mail_work_bits of the DHT is {bits}: give 0 to 40"));
        }
        self.limits.validate()?;
        self.records.validate()
    }

    /// Lets `authority` say which publishers are allowed, beyond the rule that nobody publishes under another peer's name: this node neither keeps what others
    /// publish nor believes what it finds. Without one everybody is.
    #[must_use]
    pub fn authority(mut self, authority: impl Authority + 'static) -> Self {
        self.authority = Some(Arc::new(authority));
        self
    }

    /// Takes any value under `/<namespace>/…`; of several the greatest by its bytes is the best. Whoever can ask can overwrite: for networks whose nodes
    /// trust each other.
    #[must_use]
    pub fn any_value(self, namespace: impl Into<String>) -> Self {
        self.validator(namespace, AnyValue)
    }
}

impl Default for DhtConfig {
    fn default() -> Self {
        Self {
            mode: None,
            libp2p: false,
            max_events_behind: 256,
            most_mail_work_bits: 22,
            limits: peerage_dht::DhtConfig::default(),
            records: RecordsConfig::default(),
            validators: Vec::new(),
            authority: None,
        }
    }
}

impl fmt::Debug for DhtConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let validators: Vec<_> = self.validators.iter().map(|(namespace, _)| namespace).collect();
        f.debug_struct("DhtConfig")
            .field("mode", &self.mode)
            .field("libp2p", &self.libp2p)
            .field("max_events_behind", &self.max_events_behind)
            .field("most_mail_work_bits", &self.most_mail_work_bits)
            .field("limits", &self.limits)
            .field("records", &self.records)
            .field("validators", &validators)
            .field("authority", &self.authority.is_some())
            .finish()
    }
}

/// Every value is good.
struct AnyValue;

impl Validator for AnyValue {
    fn validate(&self, _: Now, _: &[u8], value: &Bytes) -> Result<Judged, Invalid> {
        Ok(Judged { slot: Bytes::new(), rank: value.clone(), is_final: false })
    }
}
