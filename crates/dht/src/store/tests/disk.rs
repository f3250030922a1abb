//! What of the store survives on the disk: batches, full disks, damage, restarts.

use super::*;

/// Writes all that is to be written.
pub(super) fn write_all(store: &mut Store, disk: &mut MemoryDisk, now: Now) {
    while let Some(batch) = store.flush(now) {
        store.written(now, batch.number, disk.write(&batch).is_ok());
    }
}

pub(super) fn reloaded(disk: &mut MemoryDisk, now: Now) -> (Store, Restored) {
    let mut store = store(StoreConfig::default());
    let restored = store.restore(now, &rules(), disk.load().unwrap());
    (store, restored)
}

/// Contract C-58.
#[test]
fn what_was_written_is_there_after_a_restart_with_what_is_remembered_of_the_rest() {
    let (mut store, mut disk) = (store(StoreConfig::default()), MemoryDisk::default());
    let records = many(20);
    records.iter().for_each(|record| assert_eq!(put(&mut store, 0, record), Put::Stored));
    put(&mut store, 0, &signed(100, "gone", 7, 50, "x"));
    let target = Target::new(b"multihash").unwrap();
    store.provide(at(0), &peer(1), None, &target, contact(1));
    store.expire(at(60));
    write_all(&mut store, &mut disk, at(60));
    assert_eq!(disk.len(), 22);
    let (mut again, restored) = reloaded(&mut disk, at(100));
    assert_eq!(restored, Restored { records: 20, providers: 1, ..Restored::default() });
    assert_eq!(
        (again.used(), again.providers(target.key(), None, 9, 999).0),
        (store.used(), vec![contact(1)])
    );
    assert!(records.iter().all(|record| get(&mut again, record) == [record.to_bytes()]));
    assert_eq!(put(&mut again, 100, &signed(100, "gone", 6, TTL, "x")), Put::Stale(None));
    assert!(again.flush(at(100)).is_none(), "nothing has changed");
    let (_, restored) = reloaded(&mut disk, at(TTL));
    assert_eq!((restored.records, restored.expired), (0, 21));
}

#[test]
fn changes_are_handed_out_in_batches_and_made_durable_every_two_seconds() {
    let mut store = store(StoreConfig { write_batch: 4, ..StoreConfig::default() });
    let records = many(5);
    let millis = |millis| Now { mono: Duration::from_millis(millis), unix: Duration::ZERO };
    put_by(&mut store, millis(10), Sender::Own, &records[0]);
    assert!(store.poll_batch(millis(59)).is_none());
    assert_eq!(store.poll_timeout(millis(10)), Some(Duration::from_millis(60)));
    let batch = store.poll_batch(millis(60)).unwrap();
    assert_eq!((batch.changes.len(), batch.durable), (1, false));
    records[1..]
        .iter()
        .for_each(|record| assert_eq!(put_by(&mut store, millis(70), Sender::Own, record), Put::Stored));
    assert!(store.poll_batch(millis(500)).is_none(), "one batch at a time");
    store.written(millis(500), batch.number, true);
    let batch = store.poll_batch(millis(500)).unwrap();
    assert_eq!(batch.changes.len(), 4);
    store.written(millis(600), batch.number, true);
    assert!(store.poll_batch(millis(2000)).is_none());
    let batch = store.poll_batch(millis(2060)).unwrap();
    assert_eq!((batch.changes.len(), batch.durable), (0, true));
    store.written(millis(2061), batch.number, true);
    assert!(store.poll_batch(millis(9000)).is_none() && store.flush(millis(9000)).is_none());
}

#[test]
fn a_full_disk_makes_us_busy_and_nothing_is_lost_when_there_is_room_again() {
    let mut store = store(StoreConfig { max_unwritten: 4, ..StoreConfig::default() });
    let mut disk = MemoryDisk::default();
    disk.full = true;
    let records = many(8);
    let stored = records.iter().filter(|record| put(&mut store, 0, record) == Put::Stored).count();
    assert_eq!(stored, 4);
    let batch = store.poll_batch(at(1)).unwrap();
    store.written(at(1), batch.number, disk.write(&batch).is_ok());
    assert!(store.poll_batch(at(1)).is_none(), "not again at once");
    assert_eq!(put(&mut store, 1, &records[7]), Put::Busy);
    disk.full = false;
    let batch = store.poll_batch(at(3)).unwrap();
    assert_eq!(batch.changes.len(), 4);
    store.written(at(3), batch.number, disk.write(&batch).is_ok());
    assert_eq!((disk.len(), put(&mut store, 3, &records[7])), (4, Put::Stored));
}

/// A disk that stays full is asked once a second, also when what it has is overdue to be made durable.
#[test]
fn a_disk_that_stays_full_is_asked_again_after_a_second_and_not_at_once() {
    let (mut store, mut disk) = (store(StoreConfig::default()), MemoryDisk::default());
    let records = many(3);
    put(&mut store, 0, &records[0]);
    write_all(&mut store, &mut disk, at(3));
    disk.full = true;
    put(&mut store, 10, &records[1]);
    let mut asked = 0;
    for tenth in 100..200u64 {
        let now = Now { mono: Duration::from_millis(tenth * 100), ..at(10) };
        while let Some(batch) = store.poll_batch(now) {
            asked += 1;
            assert!(asked < 20, "again and again");
            store.written(now, batch.number, disk.write(&batch).is_ok());
            let due = store.poll_timeout(now).unwrap();
            assert!(due > now.mono, "it is not due at once");
        }
    }
    assert!((9..=11).contains(&asked), "{asked} in ten seconds");
    disk.full = false;
    let batch = store.poll_batch(at(30)).unwrap();
    store.written(at(30), batch.number, disk.write(&batch).is_ok());
    assert_eq!(disk.len(), 2);
}

#[test]
fn what_a_disk_gives_back_wrong_is_dropped_and_the_rest_is_good() {
    for seed in 0..60 {
        let fault = [DiskFault::LostTail, DiskFault::TornCommit, DiskFault::BitFlip][seed as usize % 3];
        let (mut store, mut disk) = (store(StoreConfig::default()), MemoryDisk::default());
        let records = many(10);
        records[..5].iter().for_each(|record| assert_eq!(put(&mut store, 0, record), Put::Stored));
        write_all(&mut store, &mut disk, at(3));
        records[5..].iter().for_each(|record| assert_eq!(put(&mut store, 3, record), Put::Stored));
        let batch = store.poll_batch(at(4)).unwrap();
        disk.write(&batch).unwrap();
        disk.crash(fault, &mut Random::from_number(seed));
        let (mut again, restored) = reloaded(&mut disk, at(5));
        let found = records.iter().filter(|record| get(&mut again, record) == [record.to_bytes()]).count();
        assert_eq!(found, restored.records, "seed {seed}: {fault:?}");
        let enough = match fault {
            DiskFault::LostTail => found == 5,
            DiskFault::TornCommit => (5..10).contains(&found),
            DiskFault::BitFlip => found == 9 && restored.damaged == 1,
        };
        assert!(enough, "seed {seed}: {fault:?} left {found}");
    }
}

#[test]
fn a_forged_row_is_found_out_when_it_is_first_asked_for() {
    let (mut store, mut disk) = (store(StoreConfig::default()), MemoryDisk::default());
    let record = signed(1, "a", 1, TTL, "x");
    put(&mut store, 0, &record);
    // The signature's last byte, under a checksum that is right.
    let spot = store.by_id.get(&record.id()).unwrap().clone();
    let entry = store.entries.get_mut(&spot).unwrap();
    let mut forged = entry.value.to_vec();
    let body = 1 + 2;
    let at_signature = forged.len() - body - 1;
    forged[at_signature] ^= 1;
    entry.value = forged.into();
    write_all(&mut store, &mut disk, at(1));
    let (mut again, restored) = reloaded(&mut disk, at(1));
    assert_eq!(restored.records, 1);
    assert!(get(&mut again, &record).is_empty());
    assert_eq!((again.used().records, again.damaged()), (0, 1));
    assert_eq!(put(&mut again, 1, &record), Put::Stored);
}

/// Strangers are known as such after a restart, whatever work the owner asks of them; also from a row that an earlier version wrote, which says nothing of it.
#[test]
fn strangers_messages_are_strangers_messages_after_a_restart() {
    // Whoever has no rules asks for work, this owner for none.
    let rules = Records::new(network(), RecordsConfig::default());
    let (mut store, mut disk) = (store(StoreConfig::default()), MemoryDisk::default());
    let token = crate::record::MailboxToken::issue(&key(1), &peer(3), TTL);
    let (stranger, known) = (message(2, 1, Bytes::new()), message(3, 1, token));
    let owners = owners_rules(1, MailboxPolicy::Open { work_bits: 0 }, vec![]);
    for record in [&owners, &stranger, &known] {
        let put = store.put(at(0), &rules, &ALONE, Sender::Own, record.target(), &record.to_bytes());
        assert_eq!(put, Put::Stored);
    }
    write_all(&mut store, &mut disk, at(1));
    let now = disk.load().unwrap();
    let earlier = now.iter().map(|(key, row)| {
        let row = crate::store::disk::unchecked(key, row).unwrap();
        (key.clone(), crate::store::disk::checked(key, &row[..row.len() - 5]))
    });
    for rows in [earlier.collect(), now.clone()] {
        let mut again = super::store(StoreConfig::default());
        assert_eq!(again.restore(at(1), &rules, rows).records, 3);
        let is_stranger = |record: &Record| again.entries[&again.by_id[&record.id()]].stranger;
        assert_eq!([&owners, &stranger, &known].map(is_stranger), [false, true, false]);
    }
}

struct Only(PeerId);

impl crate::record::Authority for Only {
    fn allows(&self, _: Now, _: &Place, publisher: &PeerId) -> Result<(), &'static str> {
        (*publisher == self.0).then_some(()).ok_or("not one of ours")
    }
}

/// What the rules of today would not take in does not come back, but for its time: a clock that is wrong at the start throws nothing away.
#[test]
fn what_comes_from_the_disk_is_held_to_the_rules() {
    let (mut store, mut disk) = (store(StoreConfig::default()), MemoryDisk::default());
    for (publisher, bytes) in [(1, 10), (1, 500), (2, 10)] {
        let record = signed(publisher, &bytes.to_string(), 1, 30 * TTL, &"x".repeat(bytes));
        assert_eq!(put_by(&mut store, at(29 * TTL), Sender::Own, &record), Put::Stored);
    }
    write_all(&mut store, &mut disk, at(29 * TTL));
    let mut again = |rules: &Records| {
        let mut store = super::store(StoreConfig::default());
        let restored = store.restore(at(0), rules, disk.load().unwrap());
        (restored.records, restored.damaged)
    };
    let mut config = RecordsConfig::default();
    assert_eq!(again(&rules()), (3, 0));
    assert_eq!(again(&rules().with_authority(std::sync::Arc::new(Only(peer(1))))), (2, 1));
    config.value.max_body_bytes = 100;
    assert_eq!(again(&Records::new(network(), config)), (2, 1));
}
