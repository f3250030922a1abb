//! What peers ask the DHT.

use peerage::fuzzing::{dht_asked, dht_question};
use peerage_dht::{MAX_CONTACT_ADDRESSES, MAX_CURSOR_BYTES, MAX_REPAIR_BYTES, MAX_SILENT, MAX_VALUE_BYTES, Query};

use crate::owned;
use crate::text::assert_plain;

/// What is read is within bounds, and is the same when it is asked again, by Peerage nodes and by others.
pub fn run(data: &[u8]) {
    for extras in [false, true] {
        match dht_question(owned(data), extras) {
            Ok(query) => {
                assert_bounds(&query);
                assert_eq!(dht_question(dht_asked(&query, extras), extras), Ok(query));
            }
            Err(words) => assert_plain(&words, 2048),
        }
    }
}

fn assert_bounds(query: &Query) {
    match query {
        Query::GetValue { cursor, .. } | Query::GetProviders { cursor, .. } => {
            assert!(cursor.as_ref().is_none_or(|cursor| (1..=MAX_CURSOR_BYTES).contains(&cursor.len())));
        }
        Query::PutValue { value, .. } => assert!(value.len() <= MAX_VALUE_BYTES),
        Query::AddProvider { provider, .. } => assert!(provider.addresses().len() <= MAX_CONTACT_ADDRESSES),
        Query::Repair(bytes) => assert!(bytes.len() <= MAX_REPAIR_BYTES),
        Query::Silent { peers } => assert!(peers.len() <= MAX_SILENT),
        Query::FindNode { .. } | Query::Ping => {}
    }
}
