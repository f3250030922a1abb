//! The table of settings: one line each.

use peerage::{CertificateKind, Congestion, ForeignPolicy};
use toml::de::DeValue;

use super::Settings;
use super::kinds::choice::Choice;
use super::kinds::{
    bytes, choice, choice_or_none, count, count_or_none, flag, number, often, rate, text, texts, time,
    time_or_none,
};
use crate::args::DhtMode;

/// One setting: its name in the file, what it means, and the way to its value.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) meaning: &'static str,
    /// The value as it stands in TOML; empty where there is none.
    pub(crate) show: fn(&Settings) -> String,
    pub(super) set: fn(&mut Settings, &DeValue<'_>) -> Result<(), String>,
}

/// What a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It says who the node is and what it does.
    Node,
    /// It bounds something.
    Limit,
}

macro_rules! settings {
    ($($of:ident $kind:ident $first:ident $(. $rest:ident)*: $meaning:literal)*) => {
        &[$(Setting {
            name: concat!(stringify!($first) $(, ".", stringify!($rest))*),
            kind: Kind::$of,
            meaning: $meaning,
            show: |settings| $kind::show(&settings.$first $(.$rest)*),
            set: |settings, value| {
                settings.$first $(.$rest)* = $kind::read(value)?;
                Ok(())
            },
        }),*]
    };
}

/// Every setting.
#[rustfmt::skip]
pub(crate) const TABLE: &[Setting] = settings! {
    Node text node.data: "Folder for the key and the address book"
    Node texts node.listen: "Where to listen"
    Node texts node.seed: "Contacts for the first dial"
    Node texts node.seeds: "Files of seeds, one address on a line"
    Node texts node.persistent: "Peers that are always wanted, with their peer IDs"
    Node texts node.private: "Peers that are never told to others, by their IDs"
    Node texts node.unconditional: "Peers that are admitted whatever the limits, by their IDs"
    Node text node.network: "The name of the overlay"
    Node text node.network_secret: "The file with the network's secrets, which makes the network private"
    Node texts node.allow: "The peers that are admitted and dialled; any are where none is named"
    Node text node.moniker: "A name for people"
    Node text node.inbox: "Take files from peers into this folder"
    Node flag node.serve_bench: "Let peers measure this node with `peerage bench`, within the limits of the section bench"
    Node choice node.dht: "What the node does in the network's DHT; auto: serves where it listens"
    Node flag node.dht_libp2p: "Take part in libp2p's /ipfs/kad/1.0.0 too"
    Node text node.log: "What to log"
    Node text node.metrics: "Where metrics are served over HTTP, on loopback"
    Limit count peers.max_inbound: "Connections that others may open to this node; persistent peers don't count"
    Limit count peers.max_inbound_per_address: "The same from one address, an IPv6 /64 being one; loopback is exempt"
    Limit count peers.max_inbound_per_subnet: "The same from one subnet, a /24 or an IPv6 /48; loopback is exempt"
    Limit count peers.max_inbound_greetings: "Inbound connections that have not said hello yet; the oldest of the most crowded subnet gives way"
    Limit count peers.max_outbound: "Connections that this node opens and keeps; persistent peers and explicit connects don't count"
    Limit count peers.max_parallel_dials: "Dials under way at once, of every kind but visits"
    Limit count peers.max_outbound_visits: "Visits of this node at once: connections for a while, to ask something, that the other limits don't count; for one more, the one used least lately ends"
    Limit count peers.max_inbound_visits: "Visits of others at once, beside the other inbound connections; for one more, the one idle for longest ends"
    Limit count peers.max_parallel_visits: "Dials for visits under way at once"
    Limit count peers.max_waiting_visits: "Visits that wait for their dial; more are refused"
    Limit number peers.visit_burst: "Dials for visits that may be begun at once"
    Limit often peers.visits_per_second: "Dials for visits that may be begun in the long run, a second"
    Limit time peers.visit_idle: "A visit of this node that nothing was asked over for so long, and that no message passed, ends"
    Limit time peers.visit_grace: "How long a visit of another has lasted at least before it ends for the next one"
    Limit count peers.max_known_peers: "Peers in the address book; hearsay gives way first"
    Limit count peers.max_addresses_per_peer: "Addresses kept for one peer"
    Limit count peers.max_hearsay_failures: "Failed dials after which an address that was only hearsay is forgotten"
    Limit time peers.backoff_base: "The first redial delay is drawn from zero to this, and a tenth of this is added; each failure doubles what is drawn from"
    Limit time peers.backoff_ceiling: "No redial delay is longer"
    Limit time peers.local_backoff_ceiling: "No redial delay is longer after a fault of this machine, such as a missing socket"
    Limit time peers.overload_pause: "The pause before a peer without room is dialled again, when it does not say; up to twice that. A full node that can name nobody else says so much"
    Limit time peers.seed_backoff_ceiling: "No delay before a seed is tried again is longer, while peers are few"
    Limit count peers.seed_target: "Seeds are dialled while fewer peers are connected"
    Limit number peers.dial_burst: "Dials that may be begun at once"
    Limit often peers.dials_per_second: "Dials that may be begun in the long run, a second"
    Limit number peers.address_dial_burst: "Dials at once to one address (an IPv6 /64) that nobody has proved, and that find nobody; not for loopback"
    Limit often peers.address_dials_per_second: "The same in the long run, a second"
    Limit number peers.subnet_dial_burst: "Dials at once to addresses of one subnet (/24, /48) that nobody has proved, and that find nobody; not for loopback"
    Limit often peers.subnet_dials_per_second: "The same in the long run, a second"
    Limit time peers.rotation_interval: "How often a few outbound peers are replaced, so that the overlay stays fresh; 0s for never"
    Limit count peers.rotation_drops: "Outbound peers that are replaced each time"
    Limit time peers.rotation_min_age: "Peers that were connected for less time are left alone by that"
    Limit count peers.max_journal_per_peer: "Entries that the journal behind `why` keeps of one peer"
    Limit count peers.max_journal_entries: "Entries that the journal keeps in all"
    Limit time peers.save_after: "How long a change of the address book may wait before it is stored"
    Limit time peers.useful_after: "A connection that lasted so long clears the failures before it"
    Limit count peers.max_exchange_records: "Records in one answer to a peer that asks whom this node knows"
    Limit time peers.exchange_pause: "The first pause before another peer is asked whom it knows; each fruitless round doubles it"
    Limit time peers.exchange_pause_ceiling: "The longest such pause"
    Limit number peers.exchange_burst: "How often one peer may ask at once"
    Limit often peers.exchange_per_second: "How often one peer may ask in the long run, a second"
    Limit count peers.max_alternatives: "Other peers named in a refusal because this node is full"
    Limit count peers.max_hearsay_per_peer: "Unproved entries of the address book that one peer may fill"
    Limit count peers.max_hearsay_per_subnet: "The same for all peers of one subnet together; loopback is exempt"
    Limit number peers.refusal_burst: "Refusals with other peers named at once; beyond them strangers are refused before TLS, unless places for visits are free"
    Limit often peers.refusals_per_second: "The same in the long run, a second"
    Limit number peers.plain_refusal_burst: "Refusals without other peers named beyond those, at once, while places for visits are free; beyond them strangers are refused before TLS"
    Limit often peers.plain_refusals_per_second: "The same in the long run, a second"
    Limit count peers.max_bans: "Bans that are kept"
    Limit time peers.ban_time: "How long an automatic ban lasts"
    Limit count peers.max_bans_per_address: "Peers banned automatically at one address that ban the address"
    Limit count peers.observed_quorum: "Address groups that must agree on where they see this node before it is announced"
    Limit time peers.clone_patience: "How long the later of two nodes with one key must be gone before the earlier one is admitted"
    Limit time peers.full_retry_after: "How long a peer that was refused because this node is full is told to stay away when others are named to it; up to twice that"
    Limit choice_or_none peers.foreign: "Whether nodes of other libp2p implementations are admitted; auto: yes, but not in a private network"
    Limit time transport.dial_timeout: "How long a dial may take, to the end of the TLS handshake"
    Limit time transport.handshake_timeout: "How long an inbound handshake may take"
    Limit time transport.idle_timeout: "After so long without a packet a connection is lost; the smaller value of the two sides holds"
    Limit time transport.keep_alive: "How often a quiet connection is kept alive; less than the idle timeout"
    Limit time transport.negotiation_timeout: "How long a peer may take to agree on a stream's protocol"
    Limit count transport.max_inbound_negotiations: "Streams of one connection whose protocols are being agreed on; more wait"
    Limit count transport.max_incoming: "First packets that wait for an answer, on each listen address; more are ignored"
    Limit count transport.stranger_streams: "Streams that a peer may have open before it is admitted"
    Limit bytes transport.stranger_window_bytes: "What a peer may have on the way to this node, unread, before it is admitted"
    Limit count transport.initial_peer_streams: "Streams that an admitted peer may have open at first; the number grows with use"
    Limit count transport.peer_streams: "Streams that an admitted peer may have open at most"
    Limit bytes transport.peer_window_bytes: "What an admitted peer may have on the way to this node, unread"
    Limit bytes transport.stream_window_bytes: "The same for one stream"
    Limit bytes transport.send_window_bytes: "What may be on the way to a peer, not yet acknowledged"
    Limit bytes transport.urgent_window_bytes: "The same over loopback while an urgent stream (of a priority above 0) is in use"
    Limit bytes transport.socket_buffer_bytes: "Kernel buffer of each UDP socket and direction; the kernel may give less"
    Limit count transport.max_datagram_bytes: "The largest UDP payload that is tried on a path, in bytes"
    Limit choice transport.congestion: "What decides how much is on the way at a time; bbr keeps queues short, and may push others aside"
    Limit choice transport.certificate: "The key type of the TLS certificate; not the node's own key"
    Limit count transport.admission.max_unvalidated_handshakes: "Handshakes at once with addresses that are not validated; beyond it, senders are told to retry"
    Limit count transport.admission.max_validated_handshakes: "Handshakes at once with validated addresses; beyond it, senders are refused"
    Limit rate transport.admission.unvalidated: "Handshakes begun with addresses that are not validated, in all"
    Limit rate transport.admission.validated: "Handshakes begun with validated addresses, in all"
    Limit rate transport.admission.per_address: "Handshakes begun with one address (an IPv6 /64); not for loopback"
    Limit rate transport.admission.per_subnet: "Handshakes begun with one subnet (/24, /48); not for loopback"
    Limit rate transport.admission.retries: "Retries sent; beyond it, packets are ignored"
    Limit rate transport.admission.refusals: "Refusals sent before TLS; beyond it, packets are ignored"
    Limit count transport.admission.max_tracked: "Addresses, and as many subnets, whose rates are remembered"
    Limit count requests.max_concurrent_per_peer: "Requests of this node to one peer that are under way at once"
    Limit count requests.max_waiting_per_peer: "Requests of this node to one peer that wait for that; more fail at once"
    Limit count requests_in_all.max_served: "Requests of peers that are worked on at once, over all protocols"
    Limit count requests_in_all.max_served_waiting: "Requests of peers that wait for that; more are refused"
    Limit count requests_in_all.max_asked: "Requests of this node to all peers that are under way at once"
    Limit count requests_in_all.max_asked_waiting: "Requests of this node that wait for that; more fail at once"
    Limit bytes memory.node_bytes: "What all channels may hold: messages that wait, are on their way, or were promised room; of the last three eighths a peer gets the less the less is left"
    Limit bytes memory.peer_bytes: "What they may hold of one peer"
    Limit bytes memory.window_reserve_bytes: "What channels leave free of each connection's windows"
    Limit bytes memory.request_bytes: "What all requests and answers may hold while they are read, worked on and written"
    Limit bytes memory.request_peer_bytes: "The same for one peer"
    Limit time node_limits.hello_timeout: "How long a connection may take from TLS to admission"
    Limit time node_limits.replaced_timeout: "How long what runs on a connection may take to finish when a newer one takes its place"
    Limit time node_limits.drain_timeout: "How long a stopping node goes on sending what is queued"
    Limit time node_limits.ping_timeout: "How long a peer may take to echo a ping"
    Limit time node_limits.interface_interval: "How often a node that listens at a wildcard looks for changes of the machine's addresses"
    Limit count node_limits.max_listen: "Addresses that the node listens at"
    Limit count node_limits.max_waiting_streams: "Raw streams of one protocol, such as transfers of files, that wait to be taken"
    Limit count node_limits.max_events_behind: "Events that a slow watcher of peers may fall behind before it misses some"
    Limit bytes serve.max_request_bytes: "The largest request that is taken, under each protocol"
    Limit bytes serve.max_answer_bytes: "The largest answer that is sent"
    Limit count serve.max_concurrent: "Requests under one protocol that are worked on at once"
    Limit count serve.max_concurrent_per_peer: "The same of one peer"
    Limit count serve.max_waiting: "Requests under one protocol that wait for that; more are refused"
    Limit count serve.max_waiting_per_peer: "The same of one peer"
    Limit time_or_none serve.retry_after: "When a caller that is refused because too many wait is told to come back; 0s to say nothing"
    Limit time serve.request_timeout: "How long a caller that has a place may take to send its request"
    Limit time serve.stall_timeout: "How long a caller may take nothing of an answer before it is given up"
    Limit bytes chat.send_queue_bytes: "Bytes on the chat channel that wait to be sent to one peer"
    Limit count chat.send_queue_messages: "Messages that do"
    Limit bytes chat.receive_queue_bytes: "Bytes of one peer on the chat channel that wait to be shown"
    Limit count chat.receive_queue_messages: "Messages that do"
    Limit bytes chat.memory_bytes: "What the chat channel holds for all peers"
    Limit count_or_none chat.bytes_per_second: "Bytes a second on the chat channel to and from one peer; 0 for any number"
    Limit count_or_none chat.messages_per_second: "Messages a second; 0 for any number"
    Limit time chat.wait: "How long a message waits for room in a full queue before it is refused"
    Limit time chat.linger: "How long what is queued is sent after the channel was closed"
    Limit count bench.max_runs: "Peers that measure this node at once, where it lets itself be measured; more are refused"
    Limit bytes bench.max_run_bytes: "What one of them may move, both ways; each message, stream and request counts as 256 bytes at least"
    Limit time bench.max_run_time: "How long one of them may take"
    Limit time bench.idle_timeout: "A run on which nothing moves for so long is over; a peer whose run was ended by a limit has a new one after as long"
    Limit bytes bench.bytes_per_hour: "What all of them may move in an hour"
    Limit bytes inbox.max_bytes: "What the inbox takes in all, partial files at their full size"
    Limit count inbox.max_files: "Files in the inbox, partial ones included"
    Limit count inbox.max_transfers: "Transfers at once"
    Limit count inbox.max_transfers_per_peer: "Transfers at once from one peer"
    Limit time inbox.claim_wait: "How long an offer waits for an earlier transfer of the same file to end"
    Limit time inbox.idle: "How long a sender may be silent"
    Limit time inbox.keep_partial: "Partial files that nothing was added to for so long are removed at the start"
    Limit count dht.table.k: "Entries of a bucket; also how many peers an answer names, and how many count as the closest"
    Limit count dht.table.siblings: "The nearest peers that are kept whatever their buckets hold: the sibling set"
    Limit count dht.table.replacements: "Peers that wait for a place in a bucket"
    Limit count dht.table.subnet_per_bucket: "Entries of one subnet (/24, /48) in a bucket. Loopback is exempt"
    Limit count dht.table.subnet_per_table: "Entries of one subnet in the table. Loopback is exempt"
    Limit count dht.table.replacements_per_table: "Peers that wait for a place in any bucket of the table: it bounds the memory that hearsay takes"
    Limit time dht.table.settled_after: "A peer that has stood in the table for so long, and answers, gives its place to no newcomer"
    Limit number dht.table.probe_when_dead: "A peer is probed when it is dead with this probability, by what is known of sessions"
    Limit number dht.table.lifetime_shape: "The shape of the Weibull distribution of sessions: below 1, so that old peers are likely to stay"
    Limit time dht.table.lifetime_scale: "The scale of that distribution; what the node sees corrects it"
    Limit time dht.table.quarantine_first: "The first quarantine of a peer that failed twice in a row; each further one in a row doubles it"
    Limit time dht.table.quarantine_most: "No quarantine is longer"
    Limit count dht.table.anchors: "Long-lived peers of distinct networks that are kept over a restart"
    Limit count dht.lookup.alpha: "The most requests that a lookup may have in flight, suspects not counted, whatever its class and options say"
    Limit number dht.lookup.stagger_share: "The stagger as a share of the median first hop of late"
    Limit time dht.lookup.usual_rtt: "What a first hop is taken to need before any was measured"
    Limit time dht.lookup.stagger_least: "The stagger is never shorter"
    Limit time dht.lookup.stagger_most: "What is measured makes the stagger never longer"
    Limit time_or_none dht.lookup.stagger: "A fixed stagger for all classes, in place of a measured one; 0s for the measured one"
    Limit time dht.lookup.soft_least: "A request is never suspect sooner"
    Limit time dht.lookup.soft_most: "A request that needs no handshake is always suspect after so long"
    Limit number dht.lookup.cold_round_trips: "Round trips that a peer without a connection costs before it is asked: the handshake, the hello, the negotiation. Zero where all are connected"
    Limit time dht.lookup.soft_unknown: "How long an answer may take before anything was measured"
    Limit time dht.lookup.hard: "A request is given up after so long"
    Limit number dht.lookup.overdue_grace: "The end of a lookup waits for a suspect close to the target for this share of the time after which it became one"
    Limit number dht.lookup.overdue_grace_frugal: "The same where nobody waits for the end: who is late is no less alive"
    Limit count dht.lookup.spare: "Candidates beyond the k closest that are asked rather than nobody"
    Limit count dht.lookup.max_candidates: "Candidates that a lookup remembers; the farthest give way"
    Limit count dht.lookup.max_requests: "Requests of a lookup in all"
    Limit count dht.lookup.max_values: "Values or providers that a lookup collects"
    Limit bytes dht.lookup.max_value_bytes: "Bytes of values that a lookup collects"
    Limit count dht.lookup.max_pages: "Further pages that one peer is asked for"
    Limit count dht.lookup.max_stale_pages: "Pages of one peer in a row that bring nothing that it has not said before; then it is asked for no further one"
    Limit count dht.lookup.subnet_per_lookup: "Candidates of one subnet (/24, /48) that are asked while others are there; who is silent doesn't count, nor who answered us before. Loopback is exempt"
    Limit number dht.lookup.implausible: "An answer that names a peer closer than the network's size makes likely is not believed; this is the chance that an honest one names one"
    Limit count dht.lookup.most_paths: "Disjoint paths of a lookup, whatever raises them"
    Limit number dht.lookup.crowded: "A place is crowded when the size of the network times the distance of the k-th peer named there is below this: then a get with the default quorum hears out all of the closest before it hands over what may be superseded. For k = 20 one honest place in twenty-three is below 13. Zero: none is"
    Limit number dht.lookup.dense: "A neighbourhood is dense when the size of the network times the distance of its k-th peer is below this: for k = 20 one honest lookup in ten thousand is below 7.5"
    Limit number dht.lookup.region: "The region that must be covered then, as a multiple of k peers' share of the keyspace; who lies in it keeps a record, whoever stands closer"
    Limit count dht.lookup.region_lookups: "Lookups of places in it that are made then; for a store they look for half as many again as an honest region has, together"
    Limit count dht.lookup.region_extra: "Peers of that region, beyond the replicas, at which a value is stored too; and half as many from around a place near the key"
    Limit number dht.lookup.sparse: "A place is sparse when the size of the network times the distance of the k-th peer that answered is above this: for k = 20 one honest lookup in ten million is above 50, and where half of all nodes have gone one in eight"
    Limit count dht.lookup.escapes: "A lookup that ends at such a place sets the closest aside and goes on with the others, so often"
    Limit count dht.lookup.max_operations: "Operations under way at once; further ones fail at once"
    Limit time dht.lookup.interactive_deadline: "How long an interactive operation may take"
    Limit time dht.lookup.background_deadline: "How long any other operation may take"
    Limit count dht.lookup.watch_holders: "Holders of a value that are asked at once to tell when it changes"
    Limit time dht.lookup.watch_poll: "Where no holder does, the value is looked up again after so long: half of it to one and a half"
    Limit time dht.lookup.watch_deadline: "How long an operation waits for a change, unless its caller says otherwise"
    Limit count dht.lookup.remembered_reads: "Values of which the newest version that was read here is remembered, so that no later read gives an older one back. 0: none"
    Limit bytes dht.lookup.remembered_read_bytes: "Bytes of what is remembered so; what was read longest ago is forgotten first"
    Limit bytes dht.serve.max_answer_bytes: "Bytes of an answer, at most"
    Limit number dht.serve.peer_burst: "Queries that one peer may ask at once"
    Limit often dht.serve.peer_per_second: "Queries that one peer may ask in a second, in the long run"
    Limit number dht.serve.peer_byte_burst: "Bytes of answers to one peer at once"
    Limit often dht.serve.peer_bytes_per_second: "Bytes of answers to one peer in a second, in the long run"
    Limit number dht.serve.node_burst: "Queries that all peers together may ask at once"
    Limit often dht.serve.node_per_second: "Queries that all peers together may ask in a second, in the long run"
    Limit number dht.serve.node_byte_burst: "Bytes of answers to all peers together at once"
    Limit often dht.serve.node_bytes_per_second: "Bytes of answers to all peers together in a second, in the long run"
    Limit count dht.serve.tracked_peers: "Peers whose queries are counted. While that many have asked within the last seconds, further ones are told that we are busy"
    Limit count dht.serve.watchers: "Questions that are kept until something changes; further ones are answered at once"
    Limit count dht.serve.watchers_per_peer: "The same of one peer"
    Limit time dht.serve.watch_most: "No question is kept for longer, whatever it asks for"
    Limit time dht.upkeep.refresh_every: "How often a place at random is looked up: it refreshes the table and measures the size of the network. Half of it to one and a half"
    Limit time dht.upkeep.settling_every: "The same while fewer lookups than dht.upkeep.settled_samples have measured the size"
    Limit count dht.upkeep.settled_samples: "So many measurements of the size are enough"
    Limit number dht.upkeep.neighbourhood_change: "When the neighbourhood is denser or sparser than it was by this factor, the size is measured anew, as after joining"
    Limit time dht.upkeep.early_every: "The same for the first lookups after joining, which fill the table"
    Limit count dht.upkeep.early_refreshes: "So many lookups count as the first ones"
    Limit time dht.upkeep.rejoin_first: "The pause before a node that reached nobody tries to join again; each further attempt doubles it"
    Limit time dht.upkeep.rejoin_most: "That pause is never longer"
    Limit count dht.upkeep.known_contacts: "Contacts to begin with that are remembered; the newest stay"
    Limit often dht.upkeep.probe_bytes_per_second: "Bytes a second that probes may cost, answers included"
    Limit time dht.upkeep.probe_savings: "What probes don't cost is saved for so long: it pays for a look at everybody when many have died at once"
    Limit count dht.upkeep.probes_at_once: "Probes under way at once"
    Limit number dht.upkeep.admission_burst: "Peers heard of that are asked at once whether they are worth an entry"
    Limit often dht.upkeep.admissions_per_second: "The same in the long run, a second"
    Limit number dht.upkeep.hint_burst: "Messages at once that tell others of peers that don't answer"
    Limit often dht.upkeep.hints_per_second: "The same in the long run, a second"
    Limit number dht.upkeep.doubt_burst: "Peers at once that are looked at because others say that they don't answer"
    Limit often dht.upkeep.doubts_per_second: "The same in the long run, a second"
    Limit count dht.upkeep.seen_peers: "Peers of whom is remembered when they were seen last"
    Limit bytes dht.store.max_bytes: "Bytes of all records kept for others, with what is kept about each"
    Limit count dht.store.max_records: "Records kept for others"
    Limit bytes dht.store.publisher_bytes: "Bytes of one publisher's records"
    Limit count dht.store.publisher_records: "Records of one publisher"
    Limit number dht.store.namespace_share: "The share of `max_bytes` and of `max_records` that one namespace, or one kind of ours, may take"
    Limit count dht.store.key_records: "Records under one key: the ads of a shard. Beyond it whoever has brought most of them gives way to who has brought fewer"
    Limit number dht.store.put_burst: "Records that one peer may send at once"
    Limit often dht.store.puts_per_second: "Records that one peer may send in a second, in the long run"
    Limit number dht.store.subnet_factor: "A subnet (/24, /48) may send so many times what one peer may. Loopback is exempt"
    Limit often dht.store.checks_per_second: "Signatures that are checked for one peer in a second, and at once: records that come by repair included"
    Limit count dht.store.max_senders: "Peers, and as many subnets, whose rates are remembered; while all of them are busy, further ones are told so"
    Limit count dht.store.max_marks: "Records that are gone and of which it is remembered how new they were"
    Limit count dht.store.max_providers: "Provider records in all; beyond it those of the furthest key go"
    Limit count dht.store.providers_per_key: "Providers of one key. Beyond it the subnet that has most of them gives way to one that has fewer"
    Limit count dht.store.providers_per_peer: "Keys that one peer provides"
    Limit time dht.store.provider_ttl: "How long a provider record is kept"
    Limit time dht.store.write_after: "How long a change may wait before it is handed out to be written"
    Limit count dht.store.write_batch: "So many changes are handed out at once, and at the latest when there are so many"
    Limit time dht.store.sync_every: "How often what was written is to be made durable"
    Limit count dht.store.max_unwritten: "Changes that may wait for the disk; beyond that others are told that we are busy"
    Limit number dht.replication.loss_per_period: "The chance that all replicas of a record vanish between two comparisons of holders; their pause follows from it and from the churn that is seen"
    Limit time dht.replication.period_least: "The shortest pause between two comparisons of holders"
    Limit time dht.replication.period_most: "The longest pause between two comparisons of holders"
    Limit time dht.replication.rank_wait: "Who is not the closest holder waits so long for each that is closer, so that one alone hands records over"
    Limit count dht.replication.newcomer_ranks: "So many of those who are closest to a newcomer compare with it at once; the others wait for a period"
    Limit count dht.replication.max_rounds: "Questions that one comparison may take"
    Limit count dht.replication.spare_ranks: "Records are kept although as many more than their replicas are closer to them; beyond that, until half their life is over"
    Limit count dht.replication.max_neighbours: "Neighbours that are compared with, at most 63"
    Limit count dht.replication.believed_periods: "For so many periods a neighbour is believed to have what it said that it has, is not asked again for what we did not take from it, and is not offered again what it refused"
    Limit number dht.replication.looks_burst: "Looks at records that one holder's questions may cost us at once. A record that it hands over counts as a hundred"
    Limit often dht.replication.looks_per_second: "The same in a second, in the long run"
    Limit number dht.replication.fresh_burst: "Names of records that have just come, of which neighbours are asked at once whether they have them. What there is no room for waits for the next comparison"
    Limit often dht.replication.fresh_per_second: "The same in a second, in the long run"
    Limit count dht.replication.max_guests: "Verified peers that are no neighbours, but hold records beside us, whose questions are counted; while all of them are busy, further ones are told so"
    Limit count dht.replication.max_hand_over: "Records of one comparison that wait to be handed over; as many to be asked about, and to be asked for; as many that are set aside, and as many that were refused; and as many of which it is noted that they went from one to the other. Also records that have just come and are to be asked about"
    Limit count dht.replication.max_sets: "Records of our own that are looked after"
    Limit count dht.replication.max_copies_at_once: "Copies of our records that are stored, renewed or asked after at once; the next records wait their turn"
    Limit count dht.replication.max_provided: "Things that we provide and tell others again"
    Limit time dht.replication.probe_every: "How often we ask the holders of our records whether they still have them"
    Limit time dht.replication.retry_first: "The first pause before we publish again what too few have stored; each further one doubles, up to `probe_every`"
    Limit count dht.replication.slack: "A set is degraded when it is short of more than so many replicas; where fewer peers are known than replicas are wanted, of as many"
    Limit bytes records.endpoint.max_body_bytes: "Endpoint records: bytes of a body; envelope and framing come to that, 420 bytes at most"
    Limit time records.endpoint.max_ttl: "Endpoint records: the longest time from publishing to expiry"
    Limit time records.endpoint.default_ttl: "Endpoint records: the time to live unless the publisher says otherwise"
    Limit count records.endpoint.replicas: "Endpoint records: at how many peers one is kept"
    Limit bytes records.topic.max_body_bytes: "Topic ads: bytes of a body; envelope and framing come to that, 420 bytes at most"
    Limit time records.topic.max_ttl: "Topic ads: the longest time from publishing to expiry"
    Limit time records.topic.default_ttl: "Topic ads: the time to live unless the publisher says otherwise"
    Limit count records.topic.replicas: "Topic ads: at how many peers one is kept"
    Limit count records.topic_shard_members: "Members of a topic's shard beyond which newcomers stand in a further one. All nodes of a network had best have the same"
    Limit bytes records.mailbox.max_body_bytes: "Mailbox messages: bytes of a body; envelope and framing come to that, 420 bytes at most"
    Limit time records.mailbox.max_ttl: "Mailbox messages: the longest time from publishing to expiry"
    Limit time records.mailbox.default_ttl: "Mailbox messages: the time to live unless the publisher says otherwise"
    Limit count records.mailbox.replicas: "Mailbox messages: at how many peers one is kept"
    Limit bytes records.value.max_body_bytes: "User values: bytes of a body; envelope and framing come to that, 420 bytes at most"
    Limit time records.value.max_ttl: "User values: the longest time from publishing to expiry"
    Limit time records.value.default_ttl: "User values: the time to live unless the publisher says otherwise"
    Limit count records.value.replicas: "User values: at how many peers one is kept"
    Limit bytes records.immutable.max_body_bytes: "Immutable values: bytes of a body; envelope and framing come to that, 420 bytes at most"
    Limit time records.immutable.max_ttl: "Immutable values: the longest time from publishing to expiry"
    Limit time records.immutable.default_ttl: "Immutable values: the time to live unless the publisher says otherwise"
    Limit count records.immutable.replicas: "Immutable values: at how many peers one is kept"
    Limit bytes records.foreign.max_body_bytes: "Values that a validator of the application judges: bytes of a body; envelope and framing come to that, 420 bytes at most"
    Limit time records.foreign.max_ttl: "Values that a validator of the application judges: the longest time from publishing to expiry"
    Limit count records.foreign.replicas: "Values that a validator of the application judges: at how many peers one is kept"
    Limit time records.clock_tolerance: "How far a publisher's clock may be ahead of ours"
    Limit count records.clock_neighbours: "Neighbours of other subnets, at least, whose clocks tell that ours is wrong"
    Limit time records.clock_alarm: "When our clock is further than this from the median of the neighbours', records are not refused for their times any more"
    Limit count records.mailbox_messages: "Messages that one recipient's mailbox may hold at one holder"
    Limit count records.mailbox_unknown: "Messages among them from senders without a token of the recipient"
    Limit count records.mailbox_per_sender: "Messages among them from one sender"
    Limit count records.mailbox_work_bits: "Zero bits of work that a message without a token needs where the recipient has published no rules"
};

impl Choice for ForeignPolicy {
    const ALL: &'static [(&'static str, Self)] = &[("allow", Self::Allow), ("refuse", Self::Refuse)];
}

impl Choice for DhtMode {
    const ALL: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("serve", Self::Serve), ("client", Self::Client), ("off", Self::Off)];
}

impl Choice for Congestion {
    const ALL: &'static [(&'static str, Self)] =
        &[("cubic", Self::Cubic), ("new-reno", Self::NewReno), ("bbr", Self::Bbr)];
}

impl Choice for CertificateKind {
    const ALL: &'static [(&'static str, Self)] = &[("p256", Self::P256), ("ed25519", Self::Ed25519)];
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use toml::de::DeTable;

    /// no setting is known to the code and not to the user, or the other way round.
    #[test]
    fn every_field_of_the_settings_has_its_line() {
        let named: BTreeSet<_> = TABLE.iter().map(|setting| setting.name.to_owned()).collect();
        assert_eq!(named.len(), TABLE.len(), "no name stands twice");
        assert_eq!(named, fields(&format!("{:#?}", Settings::default())));
    }

    /// The fields in pretty debug output, with the sections that they stand in; a rate counts as one field.
    fn fields(debug: &str) -> BTreeSet<String> {
        let mut sections: Vec<&str> = Vec::new();
        let mut found = BTreeSet::new();
        let mut inside_value = 0;
        for line in debug.lines().skip(1) {
            let line = line.trim();
            let opens = line.ends_with(['{', '[', '(']);
            if line.starts_with(['}', ']', ')']) {
                if inside_value > 0 {
                    inside_value -= 1
                } else {
                    let _ = sections.pop();
                }
                continue;
            }
            if inside_value > 0 {
                inside_value += usize::from(opens);
                continue;
            }
            let Some((field, value)) = line.split_once(": ") else { continue };
            match opens {
                true if value.starts_with("Rate") || !value.ends_with('{') => {
                    found.insert([&sections[..], &[field]].concat().join("."));
                    inside_value = 1;
                }
                true => sections.push(field),
                false => {
                    found.insert([&sections[..], &[field]].concat().join("."));
                }
            }
        }
        found
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let mut settings = Settings::default();
        for setting in TABLE {
            let shown = (setting.show)(&settings);
            if shown.is_empty() {
                continue;
            }
            let text = format!("x = {shown}");
            let table = DeTable::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            (setting.set)(&mut settings, table.get_ref()["x"].get_ref()).unwrap();
            assert_eq!((setting.show)(&settings), shown, "{}", setting.name);
        }
    }
}
