use super::*;
use crate::numbered::{key, peer};
use crate::record::{Draft, EntryId, solve_work};
use proptest::prelude::*;
use std::time::Duration;

fn network() -> Network {
    Network::new("acme").unwrap()
}

fn records() -> Records {
    Records::new(network(), RecordsConfig::default())
}

fn at(unix: u64) -> Now {
    Now { mono: Duration::ZERO, unix: Duration::from_secs(unix) }
}

fn value(not_after: u64, body: Bytes) -> Record {
    let place = Place::Value { publisher: peer(1), salt: Bytes::new() };
    Record::sign(&key(1), &network(), Draft::new(place, 1, not_after, body)).unwrap()
}

fn fault(now: u64, record: &Record) -> Option<RecordFault> {
    records().check(at(now), record.target(), &record.to_bytes()).err()
}

const TTL: u64 = 48 * 3600;

// AL-36: verification, with tolerance for clocks.
#[test]
fn a_record_lives_until_its_expiry_and_may_come_from_a_clock_ten_minutes_ahead() {
    let record = value(1000 + TTL, Bytes::from_static(b"x"));
    assert_eq!(fault(1000, &record), None);
    assert_eq!(fault(1000 + TTL - 1, &record), None);
    assert_eq!(fault(1000 + TTL, &record), Some(RecordFault::Expired));
    assert_eq!(fault(1000 - 600, &record), None);
    assert_eq!(fault(1000 - 601, &record), Some(RecordFault::TooFarAhead));
}

#[test]
fn nothing_is_refused_for_its_times_while_our_clock_is_wrong() {
    let record = value(1000, Bytes::from_static(b"x"));
    let records = records();
    records.count_times(false);
    for now in [0, 5000, 1 << 40] {
        assert!(records.check(at(now), record.target(), &record.to_bytes()).is_ok());
    }
}

// AL-35: each kind has its own bound.
#[test]
fn every_kind_has_a_bound_on_its_body() {
    let config = RecordsConfig::default();
    let bounds: Vec<_> = Kind::ALL.iter().map(|kind| config.of(*kind).max_body_bytes).collect();
    assert_eq!(bounds, [700, 256, 4096, 4096, 8192]);
    let hours: Vec<_> = Kind::ALL.iter().map(|kind| config.of(*kind).max_ttl.as_secs() / 3600).collect();
    assert_eq!(hours, [6, 2, 168, 48, 48]);
    let replicas: Vec<_> = Kind::ALL.iter().map(|kind| config.of(*kind).replicas).collect();
    assert_eq!(replicas, [12, 20, 8, 12, 8]);
    assert_eq!(fault(0, &value(TTL, vec![0; 4096].into())), None);
    assert_eq!(fault(0, &value(TTL, vec![0; 4097].into())), Some(RecordFault::TooLarge { bytes: 4097 }));
}

#[test]
fn a_record_under_another_key_is_refused() {
    let record = value(TTL, Bytes::from_static(b"x"));
    let other = Place::Value { publisher: peer(1), salt: Bytes::from_static(b"other") };
    let target = other.target(&network()).unwrap();
    let result = records().check(at(0), &target, &record.to_bytes());
    assert_eq!(result, Err(RecordFault::OtherKey));
}

#[test]
fn a_reader_gets_no_record_without_its_body_and_an_empty_one_is_a_tombstone() {
    let record = value(TTL, Bytes::from_static(b"x"));
    let result = records().check(at(0), record.target(), &record.extension());
    assert_eq!(result, Err(RecordFault::NoBody));
    assert_eq!(fault(0, &value(TTL, Bytes::new())), None);
}

// AL-38: the ad's topic must be the one that it stands under.
#[test]
fn an_ad_stands_under_its_own_topic_and_nothing_else_does() {
    let place = Place::of_topic("chess", 0);
    let signed = |body| Record::sign(&key(1), &network(), Draft::new(place.clone(), 1, 3600, body)).unwrap();
    let ad = |topic: &str| Ad { topic: topic.into(), ..Ad::default() }.encode();
    assert_eq!(fault(0, &signed(ad("chess"))), None);
    assert_eq!(fault(0, &signed(ad("go"))), Some(RecordFault::Body));
    assert_eq!(fault(0, &signed(Bytes::from_static(b"noise"))), Some(RecordFault::Body));
}

struct Guild;

impl Authority for Guild {
    fn allows(&self, _: Now, place: &Place, publisher: &PeerId) -> Result<(), &'static str> {
        let member = *publisher == peer(1) || place.kind() == Kind::Mailbox;
        member.then_some(()).ok_or("not a member")
    }
}

// AL-40: a policy of the application says who may publish, on top of the keys' own rule, for holders and readers alike.
#[test]
fn an_authority_says_who_may_publish() {
    let records = records().with_authority(Arc::new(Guild));
    for (publisher, expected) in [(1, Ok(())), (2, Err(RecordFault::Policy("not a member")))] {
        let place = Place::Value { publisher: peer(publisher), salt: Bytes::new() };
        let record =
            Record::sign(&key(publisher), &network(), Draft::new(place, 1, TTL, Bytes::new())).unwrap();
        let value = record.to_bytes();
        assert_eq!(records.check(at(0), record.target(), &value).map(drop), expected);
        assert_eq!(records.judge(at(0), record.target(), &value).is_ok(), expected.is_ok());
    }
}

struct Longest;

impl Validator for Longest {
    fn validate(&self, _: Now, name: &[u8], value: &Bytes) -> Result<Judged, Invalid> {
        if !value.starts_with(b"ok") || name.len() > 20 {
            return Err(Invalid { why: "it must begin with ok" });
        }
        let rank = Bytes::copy_from_slice(&(value.len() as u64).to_be_bytes());
        Ok(Judged { slot: Bytes::new(), rank, is_final: false })
    }
}

#[test]
fn a_namespace_has_the_validator_that_the_application_gives_it() {
    let records = records().with_validator("long", Arc::new(Longest));
    let check = |name: &[u8], value: &'static [u8]| {
        let target = Target::new(name).unwrap();
        records.check(at(0), &target, &Bytes::from_static(value))
    };
    for name in [&b"/long/x"[..], b"/acme/long/x"] {
        assert!(matches!(check(name, b"okay"), Ok(Checked::Foreign(_))));
        assert_eq!(check(name, b"no"), Err(RecordFault::Policy("it must begin with ok")));
        assert!(records.keeping(name).is_some());
    }
    assert_eq!(check(b"/other/x", b"okay"), Err(RecordFault::UnknownNamespace));
    assert_eq!(check(b"/acme/other/x", b"okay"), Err(RecordFault::UnknownNamespace));
    assert_eq!(check(b"/acme/endpoint/x", b"okay"), Err(RecordFault::Key));
    assert_eq!(check(b"/long/x", &[b'o'; 5000]), Err(RecordFault::TooLarge { bytes: 5000 }));
    assert!(records.keeping(b"/other/x").is_none());
}

fn message(sender: u64, token: Bytes, bits: u32) -> Record {
    let place = Place::Mailbox { recipient: peer(1), slot: 0 };
    let body = Bytes::from_static(b"sealed");
    let work =
        solve_work(&network(), &place, &peer(sender), 1, &body, bits, |tried| tried < 1 << 24).unwrap();
    let draft = Draft { work, token, ..Draft::new(place, 1, TTL, body) };
    Record::sign(&key(sender), &network(), draft).unwrap()
}

// AL-39: mailboxes; here with a say of the recipient in who writes.
#[test]
fn a_mailbox_is_open_with_work_or_for_contacts_or_closed() {
    let rules = |policy| MailboxRules { policy, cleared: Vec::new() };
    let open = rules(MailboxPolicy::Open { work_bits: 10 });
    let records = records();
    let welcome =
        |message: &Record, rules: Option<&MailboxRules>| records.check_welcome(at(50), message, rules);
    let worked = message(2, Bytes::new(), 13);
    let lazy = (0..).map(|sender| message(sender + 2, Bytes::new(), 0)).find(|m| !meets_work(m, 10)).unwrap();
    let token = MailboxToken::issue(&key(1), &peer(2), 100);
    let contact = message(2, token.clone(), 0);
    let stolen = message(3, token, 0);
    let late = message(2, MailboxToken::issue(&key(1), &peer(2), 50), 0);

    assert_eq!(welcome(&worked, None), Ok(Welcome::Stranger));
    assert_eq!(welcome(&worked, Some(&open)), Ok(Welcome::Stranger));
    assert_eq!(welcome(&lazy, Some(&open)), Err(RecordFault::NotWelcome));
    assert_eq!(welcome(&contact, Some(&open)), Ok(Welcome::Known));
    let contacts = rules(MailboxPolicy::Contacts);
    assert_eq!(welcome(&worked, Some(&contacts)), Err(RecordFault::NotWelcome));
    assert_eq!(welcome(&contact, Some(&contacts)), Ok(Welcome::Known));
    assert_eq!(welcome(&stolen, Some(&contacts)), Err(RecordFault::NotWelcome));
    assert_eq!(welcome(&late, Some(&contacts)), Err(RecordFault::NotWelcome));
    assert_eq!(welcome(&contact, Some(&rules(MailboxPolicy::Closed))), Err(RecordFault::NotWelcome));
}

#[test]
fn the_owner_keeps_its_rules_in_its_mailbox() {
    let place = Place::Mailbox { recipient: peer(1), slot: 0 };
    let rules = MailboxRules { policy: MailboxPolicy::Closed, cleared: vec![EntryId::from_bytes([1; 16])] };
    let signed = |body| Record::sign(&key(1), &network(), Draft::new(place.clone(), 1, TTL, body)).unwrap();
    let record = signed(rules.encode());
    assert_eq!(fault(0, &record), None);
    assert_eq!(records().check_welcome(at(0), &record, Some(&rules)), Ok(Welcome::Known));
    assert_eq!(fault(0, &signed(Bytes::from_static(b"noise"))), Some(RecordFault::Body));
}

#[test]
fn only_content_that_cannot_change_ends_a_lookup_whatever_its_quorum() {
    let body = Bytes::from_static(b"x");
    let immutable =
        Record::sign(&key(1), &network(), Draft::new(Place::of_content(&body), 0, TTL, body.clone()));
    for (record, is_final) in [(immutable.unwrap(), true), (value(TTL, body), false)] {
        let judged = records().judge(at(0), record.target(), &record.to_bytes()).unwrap();
        assert_eq!(judged.is_final, is_final);
    }
}

/// A place of each kind where peer 1 may publish, by its limits.
fn places(config: &mut RecordsConfig) -> [(Place, &mut KindLimits); 5] {
    let RecordsConfig { endpoint, topic, mailbox, value, immutable, .. } = config;
    [
        (Place::Endpoint { peer: peer(1) }, endpoint),
        (Place::of_topic("t", 0), topic),
        (Place::Mailbox { recipient: peer(2), slot: 0 }, mailbox),
        (Place::Value { publisher: peer(1), salt: Bytes::new() }, value),
        (Place::of_content(b""), immutable),
    ]
}

/// whatever each kind is allowed in bytes and in time is what it gets, and the tolerance comes on top.
#[test]
fn each_kind_has_the_bytes_and_the_time_that_are_configured() {
    for kind in 0..5 {
        let tolerance = Duration::from_secs(7);
        let mut config = RecordsConfig { clock_tolerance: tolerance, ..RecordsConfig::default() };
        let (place, limits) = places(&mut config).into_iter().nth(kind).unwrap();
        (limits.max_body_bytes, limits.max_ttl) = (50, Duration::from_secs(1000));
        let records = Records::new(network(), config);
        let fault = |bytes: usize, not_after| {
            let body = Bytes::from(vec![7; bytes]);
            let place =
                if place.kind() == Kind::Immutable { Place::of_content(&body) } else { place.clone() };
            let record = Record::sign(&key(1), &network(), Draft::new(place, 0, not_after, body)).unwrap();
            records.read(at(0), record.target(), &record.to_bytes()).err()
        };
        let place = &place;
        // Bytes come first, then times, then what the body says.
        assert_eq!(fault(51, 1), Some(RecordFault::TooLarge { bytes: 51 }), "{place:?}");
        assert_eq!(fault(50, 1008), Some(RecordFault::TooFarAhead), "{place:?}");
        let rest = fault(50, 1007);
        assert!(rest.is_none() || rest == Some(RecordFault::Body), "{place:?}: {rest:?}");
    }
}

/// a stranger's message costs the configured work where the recipient says nothing of it.
#[test]
fn a_strangers_message_needs_the_configured_work() {
    let worked = (2..).map(|sender| message(sender, Bytes::new(), 8)).find(|m| !meets_work(m, 9)).unwrap();
    let welcome = |mailbox_work_bits| {
        let config = RecordsConfig { mailbox_work_bits, ..RecordsConfig::default() };
        Records::new(network(), config).check_welcome(at(50), &worked, None)
    };
    assert_eq!([welcome(8), welcome(9)], [Ok(Welcome::Stranger), Err(RecordFault::NotWelcome)]);
}

proptest! {
    #[test]
    fn a_reader_prefers_what_the_order_prefers(a in (0u64..4, 1u64..4, any::<u8>()), b in (0u64..4, 1u64..4, any::<u8>())) {
        let signed = |(seq, not_after, body): (u64, u64, u8)| {
            let place = Place::Value { publisher: peer(1), salt: Bytes::new() };
            Record::sign(&key(1), &network(), Draft::new(place, seq, not_after, vec![body].into())).unwrap()
        };
        let (a, b) = (signed(a), signed(b));
        let rank = |record: &Record| records().judge(at(0), record.target(), &record.to_bytes()).unwrap().rank;
        prop_assert_eq!(rank(&a).cmp(&rank(&b)), a.version().cmp(b.version()));
    }
}
