//! The limits of a node that belong to no other part, and all those that are no setting of a node: what an application says in code where it
//! declares a channel or asks, and what is fixed by a protocol or once for all.

use std::time::Duration;

use crate::channel::{self, ChannelConfig};
use crate::request::{self, CallConfig};

/// The limits of a node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeLimits {
    /// How long a connection may take from TLS to admission. Default: 5 s.
    pub hello_timeout: Duration,
    /// How long what runs on a connection may take to finish when a newer one takes its place. Default: 30 s.
    pub replaced_timeout: Duration,
    /// How long [`crate::Node::close`] waits for queued messages to be sent. Default: 2 s.
    pub drain_timeout: Duration,
    /// How long a peer may take to echo a ping. Default: 10 s.
    pub ping_timeout: Duration,
    /// How often a node that listens at a wildcard address looks whether the machine's addresses have changed; at least 100 ms. Default: 5 s.
    pub interface_interval: Duration,
    /// Addresses that the node listens at. Default: 16.
    pub max_listen: usize,
    /// Raw streams of one protocol that wait for the application; more wait at their peers. Default: 256.
    pub max_waiting_streams: usize,
    /// Events that a slow watcher may fall behind before it misses some. Default: 1,024.
    pub max_events_behind: usize,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(5),
            replaced_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(10),
            interface_interval: Duration::from_secs(5),
            max_listen: 16,
            max_waiting_streams: 256,
            max_events_behind: 1024,
        }
    }
}

impl NodeLimits {
    /// Checks that each limit leaves room for anything.
    ///
    /// # Errors
    /// A sentence that names the limit.
    pub fn validate(&self) -> Result<(), String> {
        let times = [
            ("hello_timeout", self.hello_timeout),
            ("replaced_timeout", self.replaced_timeout),
            ("drain_timeout", self.drain_timeout),
            ("ping_timeout", self.ping_timeout),
            ("interface_interval", self.interface_interval),
        ];
        for (name, time) in times {
            // Zero drains nothing, which can be meant.
            let least = if name == "drain_timeout" { Duration::ZERO } else { Duration::from_millis(100) };
            if time < least || time > LONGEST {
                return Err(format!("the limit {name} is {time:?}: give {least:?} to {LONGEST:?}"));
            }
        }
        let counts = [
            ("max_listen", self.max_listen, 1024),
            ("max_waiting_streams", self.max_waiting_streams, 65_536),
            ("max_events_behind", self.max_events_behind, 1 << 20),
        ];
        for (name, count, most) in counts {
            if !(1..=most).contains(&count) {
                return Err(format!("the limit {name} is {count}: give 1 to {most}"));
            }
        }
        Ok(())
    }
}

/// No time that a node waits is longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// A limit that is no setting of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// Its name. One of a config struct has the field's.
    pub name: &'static str,
    /// Its value, or its default, for people.
    pub value: String,
    /// What it bounds, in one sentence.
    pub meaning: &'static str,
    /// Where it is said.
    pub place: LimitPlace,
}

/// Where a limit is said that is no setting of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitPlace {
    /// In the application's code.
    Code,
    /// Nowhere: it is fixed.
    Fixed,
}

/// Every limit that is no setting of a node, with its value.
pub fn limits() -> Vec<Limit> {
    in_code().into_iter().chain(fixed()).collect()
}

macro_rules! limits {
    ($place:ident: $($name:literal = $value:expr, $meaning:literal;)*) => {
        vec![$(Limit { name: $name, value: $value, meaning: $meaning, place: LimitPlace::$place }),*]
    };
}

fn in_code() -> Vec<Limit> {
    let [new, control, bulk, latest] =
        [ChannelConfig::new, ChannelConfig::control, ChannelConfig::bulk, ChannelConfig::latest]
            .map(|preset| preset("/x"));
    let each = |show: fn(&ChannelConfig) -> String| {
        let of = [("control", show(&control)), ("bulk", show(&bulk)), ("latest", show(&latest))];
        let others = of.iter().filter(|(_, value)| *value != show(&new));
        others.fold(show(&new), |all, (name, value)| format!("{all}; {name}: {value}"))
    };
    let optional = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let call = CallConfig::default();
    limits! { Code:
        "ChannelConfig::max_message_bytes" = each(|c| bytes(c.max_message_bytes)), "The longest message of a channel";
        "ChannelConfig::send_queue_bytes" = each(|c| bytes(c.send_queue_bytes)), "Bytes that wait to be sent to one peer";
        "ChannelConfig::send_queue_messages" = each(|c| c.send_queue_messages.to_string()), "Messages that wait to be sent to one peer";
        "ChannelConfig::receive_queue_bytes" = each(|c| bytes(c.receive_queue_bytes)), "Bytes of one peer that wait for the application";
        "ChannelConfig::receive_queue_messages" = each(|c| c.receive_queue_messages.to_string()), "Messages of one peer that wait for the application";
        "ChannelConfig::memory_bytes" = each(|c| bytes(c.memory_bytes)), "What the channel holds for all peers; of the last three eighths a peer gets the less the less is left";
        "ChannelConfig::rate.bytes_per_second" = each(|c| c.rate.bytes_per_second.map_or("none".to_owned(), |rate| rate.to_string())), "Bytes a second to and from one peer";
        "ChannelConfig::rate.messages_per_second" = each(|c| c.rate.messages_per_second.map_or("none".to_owned(), |rate| rate.to_string())), "Messages a second to and from one peer";
        "ChannelConfig::overflow" = each(overflow), "What a full queue to a peer does";
        "ChannelConfig::linger" = each(|c| time(c.linger)), "How long what is queued is sent after the last handle was dropped";
        "DhtConfig::max_events_behind" = crate::DhtConfig::default().max_events_behind.to_string(), "Events of the DHT that a slow watcher may fall behind before it misses some";
        "DhtConfig::most_mail_work_bits" = crate::DhtConfig::default().most_mail_work_bits.to_string(), "Zero bits of work that is done for a message to a stranger; where more is asked for it is not sent";
        "CallConfig::deadline" = optional(call.deadline.map(time)) + "; a stream of answers: none", "How long a request of ours may take";
        "CallConfig::max_request_bytes" = bytes(call.max_request_bytes), "The largest request that is sent";
        "CallConfig::max_answer_bytes" = bytes(call.max_answer_bytes), "The largest answer, or item of a stream of answers, that is taken";
    }
}

fn fixed() -> Vec<Limit> {
    use crate::protocols::{exchange, identify, perf, ping};
    use crate::{
        bench, book, builder, dht, hello, listening, metrics, registry, resolve, secret, seed_file, session,
        store,
    };
    use peerage_peers::limits as peers;
    let n = |count: usize| count.to_string();
    limits! { Fixed:
        "hello.max_bytes" = bytes(hello::MAX_HELLO_BYTES), "A hello; channels that find no room in it are told with their streams";
        "hello.max_answer_bytes" = bytes(hello::MAX_ANSWER_BYTES), "The answer to a hello";
        "hello.max_channels" = n(hello::MAX_CHANNELS), "Channels of a peer that are known with their limits";
        "hello.max_text_bytes" = bytes(hello::MAX_TEXT), "A peer's moniker, agent and words; what is longer is cut";
        "about.max_shared" = n(crate::about::MAX_SHARED), "Programs, and addresses at which peers see this node, that are kept once for all peers that tell them; of more, each peer keeps its own";
        "hello.max_sealed_bytes" = bytes(secret::MAX_SEALED_BYTES), "A hello in a network with a secret, one for each secret";
        "hello.max_kept_records" = n(hello::MAX_KEPT_RECORDS), "Peers whose last signed record is kept, so that the same one needs no second check";
        "hello.max_kept_record_bytes" = bytes(hello::MAX_KEPT_RECORD_BYTES), "The longest record that is kept for that";
        "secret.max_secrets" = n(peerage_identity::MAX_NETWORK_SECRETS), "Network secrets that are taken at once";
        "secret.max_bytes" = bytes(*peerage_identity::NETWORK_SECRET_BYTES.end()), "One secret; it has at least 16 bytes";
        "secret.max_file_bytes" = bytes(peerage_identity::MAX_SECRET_FILE_BYTES), "The file with the secrets";
        "session.max_orders" = n(crate::orders::MAX_ORDERS), "Orders of the driver that wait for a connection's task";
        "session.quiet_before_close" = time(session::DRAIN_QUIET), "Nothing has run on a replaced connection for so long before it is closed";
        "session.probe_timeout" = time(session::DRAIN_PROBE), "How long a replaced connection may take to answer a ping";
        "shutdown.end_timeout" = time(crate::node::END_DEADLINE), "How long a stopping node waits for its peers, its store and its tasks, each";
        "driver.queue" = n(builder::DRIVER_QUEUE), "Messages that wait for the peer manager's task; senders wait";
        "moniker.max_bytes" = bytes(builder::MAX_MONIKER), "A node's name for people";
        "announced.max_addresses" = n(listening::MAX_ANNOUNCED), "Addresses that a node announces";
        "protocol.max_name_bytes" = bytes(registry::MAX_NAME), "A protocol's or channel's name";
        "channel.first_credit_bytes" = bytes(channel::FIRST_CREDIT as usize), "What may be sent on a channel's stream before the peer's first account";
        "channel.least_share_bytes" = bytes(crate::memory::LEAST_SHARE), "What a stream, or a queue to a peer, may hold however much other peers do, while any of `memory.node_bytes` and the channel's memory is free";
        "channel.opening_grace" = time(crate::peer::OPENING_GRACE), "How much longer than `transport.negotiation_timeout` a sender waits to hear whether the peer has the channel";
        "channel.max_memory_pause" = time(channel::MAX_MEMORY_PAUSE), "A sender that waits for memory tries again after a pause, which doubles from a millisecond to this";
        "channel.min_shared_bytes" = bytes(channel::MIN_SHARED), "A broadcast's payload that is held once for all its peers; smaller ones are copied";
        "channel.max_block_bytes" = bytes(channel::MAX_BLOCK), "Broadcast messages below 8 KiB that are framed together, once for all their peers";
        "channel.lent_to_each" = n(crate::shift::LENT_TO_EACH), "Readers and writers of a channel that are left to each receiver that waits, when the connection wakes them";
        "channel.lent_patience" = time(crate::shift::PATIENCE), "How long they are left to it, twice at most, when it does not look";
        "channel.max_streams" = n(channel::MAX_STREAMS), "Streams of one channel from one peer that keeps to credit";
        "channel.max_views" = n(channel::MAX_VIEWS), "Runs of messages that wait for applications as views of the packets that brought them, each of which keeps 64 KiB at most; more are copied";
        "channel.max_stream_views" = n(channel::MAX_STREAM_VIEWS), "The same of one stream";
        "channel.max_foreign_streams" = n(channel::MAX_FOREIGN_STREAMS), "The same from another peer";
        "channel.memory_patience" = time(channel::MEMORY_PATIENCE), "How long a message waits for memory at the receiver before its stream is refused";
        "channel.max_account_bytes" = bytes(channel::MAX_ACCOUNT_BYTES), "An account of what was accepted";
        "channel.max_rates" = n(channel::MAX_PACES), "Peers of which one channel remembers what they sent at its rate when they are gone";
        "channel.max_remembered" = n(channel::MAX_REMEMBERED), "Payloads of a peer that are remembered, so that they are not sent back, on one channel";
        "channel.remembered_for" = time(channel::REMEMBERED), "How long at most";
        "request.window_bytes" = bytes(request::WINDOW_BYTES as usize), "Answers of one stream that are under way unread, and one item";
        "request.max_error_bytes" = bytes(request::MAX_ERROR_TEXT), "An error's words";
        "request.max_options_bytes" = bytes(request::MAX_OPTIONS_BYTES), "What a caller says about its request";
        "metrics.max_channels" = n(metrics::MAX_COUNTED_CHANNELS), "Names of channels that are counted by themselves";
        "metrics.max_protocols" = n(peerage_transport::MAX_COUNTED_PROTOCOLS), "Names of protocols whose bytes are counted by themselves";
        "ping.max_streams" = n(crate::peer::MAX_PING_STREAMS), "Inbound ping streams of one peer";
        "ping.idle_timeout" = time(ping::IDLE), "How long one of them may be silent";
        "perf.idle_timeout" = time(perf::IDLE), "How long an exchange of `/perf/1.0.0` may stand still, on either side";
        "bench.max_late_bytes" = bytes(bench::MAX_LATE_BYTES as usize), "What a peer may send on the channels of `peerage bench` after its run has ended; beyond it is penalised";
        "bench.max_echo_bytes" = bytes(bench::MAX_ECHO_BYTES), "The longest request, and message, that is sent back to a peer that measures";
        "bench.count_patience" = time(bench::COUNT_PATIENCE), "How long a peer that measures waits for a count that is not reached";
        "identify.max_sent_bytes" = bytes(identify::MAX_SENT_BYTES), "A message of identify that is sent";
        "identify.max_read_bytes" = bytes(identify::MAX_READ_BYTES), "A message of identify that is read";
        "identify.max_messages" = n(identify::MAX_MESSAGES), "Messages of identify that are merged";
        "identify.timeout" = time(identify::DEADLINE), "How long a peer may take to say who it is";
        "exchange.max_answer_bytes" = bytes(exchange::MAX_ANSWER_BYTES), "An answer to whom a peer knows";
        "exchange.timeout" = time(exchange::DEADLINE), "How long a peer may take for that";
        "resolve.timeout" = time(resolve::DEADLINE), "How long a name may take to be looked up";
        "resolve.max_addresses" = n(resolve::MAX_ADDRESSES), "Addresses of a name that are tried";
        "resolve.max_hearsay_addresses" = n(resolve::MAX_HEARSAY_ADDRESSES), "The same of a name that nobody has proved";
        "resolve.max_records" = n(resolve::MAX_RECORDS), "TXT records of a name that are read";
        "resolve.max_depth" = n(resolve::MAX_DEPTH), "Names behind one another in dnsaddr";
        "book.max_import_bytes" = bytes(book::MAX_BOOK_BYTES), "An address book that is imported";
        "book.max_stored_addresses" = n(peers::MAX_STORED_ADDRESSES), "Addresses that are read of a stored entry";
        "store.retry" = time(store::RETRY), "The first pause before changes that could not be stored are tried again; it doubles";
        "store.max_retry" = time(store::MAX_RETRY), "The longest such pause";
        "store.max_unsynced_bytes" = bytes(store::MAX_UNSYNCED_BYTES), "Changes of the DHT's rows that wait to be made durable; beyond it they are at once";
        "store.max_removals" = n(store::MAX_REMOVALS), "Removals that wait for the store";
        "seed_file.max_bytes" = bytes(seed_file::MAX_BYTES as usize), "A file of seeds";
        "seed_file.max_reported" = n(seed_file::MAX_REPORTED), "Bad lines of it that are reported one by one";
        "record.max_bytes" = bytes(peerage_identity::MAX_RECORD_BYTES), "A signed peer record";
        "record.max_addresses" = n(peerage_identity::MAX_RECORD_ADDRESSES), "Addresses in one";
        "negotiation.max_line_bytes" = bytes(peerage_transport::MAX_LINE), "A line of multistream-select";
        "negotiation.max_proposals" = n(peerage_transport::MAX_PROPOSALS), "Protocols that a peer may propose on one stream";
        "transport.max_passed_certificates" = n(peerage_transport::MAX_PASSED_CERTIFICATES), "Certificates whose own signature is not verified again when they come back; all other checks are made each time";
        "transport.max_stream_window_bytes" = bytes(peerage_transport::MAX_STREAM_WINDOW as usize), "The largest `transport.stream_window_bytes`";
        "hello.max_services" = n(hello::MAX_SERVICES), "Protocols that a peer is known to serve of those that its hello names";
        "dht.queue" = n(dht::QUEUE), "Messages that wait for the DHT's task; senders wait";
        "dht.contact_patience" = time(dht::CONTACT_PATIENCE), "How long an operation of a node that knows nobody waits for somebody";
        "dht.max_streams_per_peer" = n(dht::MAX_STREAMS_PER_PEER), "Streams on which one peer asks the DHT";
        "dht.stream_idle" = time(dht::IDLE), "A stream on which a peer asks nothing for so long is ended";
        "dht.write_timeout" = time(dht::WRITE_TIMEOUT), "How long a peer may take to read an answer of the DHT";
        "dht.max_kept_streams" = n(dht::MAX_IDLE), "Streams to one peer that are kept for the next question";
        "dht.kept_for" = time(dht::IDLE_FOR), "How long one is kept";
        "dht.end_within" = time(dht::END_WITHIN), "How long a peer may take to end a stream after a question that has no answer";
        "dht.max_question_bytes" = bytes(dht::codec::MAX_QUESTION_BYTES), "A question to the DHT";
        "dht.max_read_answer_bytes" = bytes(dht::codec::MAX_ANSWER_BYTES), "An answer of another's DHT";
        "dht.max_late" = n(dht::MAX_LATE), "Questions that nobody waits for any more and whose answers are listened to for a while";
        "dht.max_steps_behind" = n(dht::MAX_STEPS_BEHIND), "Steps of a lookup that a watcher may be behind before it misses some";
        "dht.max_key_bytes" = bytes(peerage_dht::MAX_TARGET_BYTES), "A key in the DHT, before it is hashed";
        "dht.max_provider_key_bytes" = bytes(dht::codec::MAX_PROVIDER_KEY_BYTES), "The key of a provider record";
        "dht.max_contact_address_bytes" = bytes(peerage_dht::MAX_CONTACT_ADDRESS_BYTES), "Bytes of a peer's addresses";
        "dht.max_contact_addresses" = n(peerage_dht::MAX_CONTACT_ADDRESSES), "Addresses of a peer that an answer names";
        "dht.max_closer" = n(peerage_dht::MAX_CLOSER), "Peers of an answer that are read";
        "dht.max_providers" = n(peerage_dht::MAX_PROVIDERS), "Providers of an answer that are read";
        "dht.max_values" = n(peerage_dht::MAX_VALUES), "Values of an answer that are read";
        "dht.max_value_bytes" = bytes(peerage_dht::MAX_VALUE_BYTES), "A value, with its envelope";
        "dht.max_cursor_bytes" = bytes(peerage_dht::MAX_CURSOR_BYTES), "What names the next page of an answer";
        "dht.max_silent" = n(peerage_dht::MAX_SILENT), "Peers that one message says to be silent";
        "dht.max_repair_bytes" = bytes(peerage_dht::MAX_REPAIR_BYTES), "What two holders of records tell each other in one message";
        "dht.max_held_shown" = n(dht::MAX_HELD_SHOWN), "Records held for others that one question to the node itself shows";
        "dht.max_vain_escapes" = peerage_dht::MAX_VAIN_ESCAPES.to_string(), "Lookups in a row that go on from a sparse place and come to no denser one, before none does for a while";
        "dht.escape_pause" = time(peerage_dht::ESCAPE_PAUSE), "For how long";
        "dht.topic_shards_at_once" = n(dht::SHARDS_AT_ONCE), "Shards of a topic that one reader visits at once";
        "dht.topic_shard_depth" = peerage_dht::topic::MAX_SHARD_DEPTH.to_string(), "Forks between the first shard of a topic and the last ones, which are 2 to the power of this";
        "peers.max_dial_targets" = n(peers::MAX_DIAL_TARGETS), "Addresses and subnets whose dials are remembered";
        "peers.name_dial_every" = time(peers::NAME_DIAL_EVERY), "The long-run pause between dials to names that nobody has proved; `peers.address_dial_burst` at once";
        "peers.longest_dial_pause" = time(peers::LONGEST_DIAL_PAUSE), "The longest pause between dials to an address where nobody was ever found";
        "peers.max_failed_visits" = n(peers::MAX_FAILED_VISITS), "Addresses given with visits at which nobody was found, and that are remembered for their backoff";
        "peers.visit_patience" = time(peers::VISIT_PATIENCE), "How long a visit waits for dials under way near its addresses";
        "peers.max_addresses_per_dial" = n(peers::MAX_ROUTES), "Addresses of a peer that one dial tries";
        "peers.max_explicit_connects" = n(peers::MAX_EXPLICIT_WAITING), "Explicit connects that wait for a dial slot";
        "peers.max_askers" = n(peers::MAX_ASKERS), "Peers whose questions are counted";
        "peers.max_scores" = n(peers::MAX_SCORES), "Peers whose misbehaviour is remembered; half of it is forgotten in 10 min";
        "peers.max_votes" = n(peers::MAX_VOTES), "Votes on where others see this node";
        "peers.vote_lasts" = time(peers::VOTE_LASTS), "How long a vote counts";
        "peers.max_starts" = n(peers::MAX_STARTS), "Peers whose starts are remembered";
        "peers.max_alternatives_per_subnet" = n(peers::MAX_PER_SUBNET), "Alternatives in a refusal of one subnet";
        "peers.max_detail_bytes" = bytes(peers::MAX_DETAIL), "The detail of an entry of the journal";
        "peers.max_ban_reason_bytes" = bytes(peers::MAX_BAN_REASON), "The reason of a ban";
        "peers.rotation_patience" = time(peers::ROTATION_PATIENCE), "How long a round of rotation may take to find replacements";
    }
}

fn overflow(config: &ChannelConfig) -> String {
    match config.overflow {
        channel::Overflow::Wait(patience) => format!("the sender waits, for {} at most", time(patience)),
        channel::Overflow::Refuse => "refuses".to_owned(),
        channel::Overflow::DropOldest => "the oldest messages go".to_owned(),
    }
}

fn bytes(bytes: usize) -> String {
    for (unit, size) in [("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{} {unit}", bytes / size);
        }
    }
    format!("{bytes} bytes")
}

fn time(time: Duration) -> String {
    let millis = time.as_millis();
    for (unit, size) in [("h", 3_600_000), ("min", 60_000), ("s", 1000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{} {unit}", millis / size);
        }
    }
    format!("{millis} ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_limit_has_a_name_of_its_own_a_value_and_a_meaning() {
        let all = limits();
        let names: BTreeSet<_> = all.iter().map(|limit| limit.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|limit| !limit.value.is_empty() && limit.meaning.len() > 8));
        let value = |name: &str| all.iter().find(|limit| limit.name == name).unwrap().value.clone();
        assert_eq!(
            value("ChannelConfig::max_message_bytes"),
            "1 MiB; control: 64 KiB; bulk: 4 MiB; latest: 64 KiB"
        );
        assert_eq!(value("ChannelConfig::linger"), "30 s");
        assert_eq!((value("hello.max_bytes"), value("resolve.timeout")), ("16 KiB".into(), "5 s".into()));
    }

    #[test]
    fn limits_that_leave_no_room_are_refused_by_name() {
        NodeLimits::default().validate().unwrap();
        let none = NodeLimits { max_listen: 0, ..NodeLimits::default() };
        assert!(none.validate().unwrap_err().contains("max_listen is 0"));
        let none = NodeLimits { hello_timeout: Duration::ZERO, ..NodeLimits::default() };
        assert!(none.validate().unwrap_err().contains("hello_timeout"));
        let at_once = NodeLimits { drain_timeout: Duration::ZERO, ..NodeLimits::default() };
        at_once.validate().unwrap();
    }
}
