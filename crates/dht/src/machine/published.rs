//! What we have published and what we provide: into our own store where that is one of its places, looked after while that is wanted, and taken back.
//!
//! A publishing that its caller gives up, or that had nobody to go to, before anybody has stored the record is as if it had never begun. One that ended with too few copies is
//! looked after: the record is published again until enough have it, or until holders say that they have a newer one.

use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Now;

use super::operation::Aim;
use super::store::Store as Copies;
use super::{Class, Dht, Ended, Mode, OperationId, Options, Outcome};
use crate::lookup::Goal;
use crate::record::{EntryId, Record, Version};
use crate::replication::{SetView, Tell};
use crate::store::Sender;
use crate::{Contact, Key, Query, Target};

/// What a caller's operation is to have looked after.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    /// A record of ours.
    Record(EntryId, Version),
    /// Something that we provide.
    Provided(Key),
}

/// A record for which there is room among those that are looked after.
pub(super) struct Accepted {
    pub(super) target: Target,
    pub(super) value: Bytes,
    pub(super) replicas: usize,
}

/// Why one is not taken.
pub(super) enum NotTaken {
    /// The node has no part in records.
    NoRecords,
    /// There are as many as there may be.
    TooMany,
}

impl Dht {
    /// How the records that we have published stand.
    pub fn published(&self) -> Vec<SetView> {
        self.holder.as_ref().map(|holder| holder.sets.views()).unwrap_or_default()
    }

    /// Renews a record that we have published no more. Says whether it was looked after. Others keep it until it expires; a tombstone hides it at once.
    pub fn forget(&mut self, now: Now, id: &EntryId) -> bool {
        let known = self.holder.as_mut().is_some_and(|holder| holder.sets.forget(id));
        self.note_due(now);
        known
    }

    /// What we provide, and tell again.
    pub fn provided(&self) -> Vec<Target> {
        self.holder.iter().flat_map(|holder| holder.provided.targets().cloned()).collect()
    }

    /// We provide something no more. Says whether we did. Others say so until they forget it: nobody can be told.
    pub fn stop_providing(&mut self, now: Now, target: &Target) -> bool {
        let peer = self.peer;
        let Some(holder) = self.holder.as_mut() else { return false };
        let was = holder.provided.stop(target.key());
        let was = holder.store.unprovide(now, target.key(), &peer) || was;
        let aim = Aim::Provided(*target.key());
        let telling = self.operations.iter().find(|(_, op)| op.aim == aim).map(|(operation, _)| *operation);
        if let Some(operation) = telling {
            self.finish(now, operation, Ended::Cancelled);
        }
        self.settle_holder(now);
        was
    }

    /// We are to be found at other addresses: those whom we told what we provide are told again.
    pub fn moved(&mut self, now: Now, provider: &Contact) {
        if let Some(holder) = self.holder.as_mut() {
            holder.provided.moved(now, provider);
            self.note_due(now);
        }
    }

    /// What a caller wants to publish goes into our own store too, where that is one of its places, and is looked after from now on.
    pub(super) fn on_publish(
        &mut self,
        now: Now,
        id: OperationId,
        record: &Record,
        renew: Option<Duration>,
    ) -> Result<Accepted, NotTaken> {
        let serves = self.mode == Mode::Server;
        let peer = self.peer;
        let (target, value) = (record.target().clone(), record.to_bytes());
        let taken = self.with_holder(now, |holder, near, _| {
            let replicas = holder.records.config().of(record.place().kind()).replicas;
            let left = Duration::from_secs(record.version().not_after).saturating_sub(now.unix);
            if !holder.sets.publish(now, record.clone(), replicas, renew.unwrap_or(left), renew.is_some()) {
                return Err(NotTaken::TooMany);
            }
            holder.keeps.insert(id, Keep::Record(record.id(), *record.version()));
            if serves {
                holder.store.put(
                    now,
                    &holder.records,
                    near,
                    Sender::Holder { peer, subnet: None },
                    &target,
                    &value,
                );
            }
            Ok(replicas)
        });
        self.settle_holder(now);
        let replicas = taken.ok_or(NotTaken::NoRecords)??;
        Ok(Accepted { target, value, replicas })
    }

    /// What a caller wants to provide goes into our own store too, where that is one of its places, and is told again if that is wanted.
    pub(super) fn on_provide(
        &mut self,
        now: Now,
        id: OperationId,
        target: &Target,
        provider: &Contact,
        replicas: usize,
        renew: bool,
    ) -> Result<(), NotTaken> {
        if *provider.peer() != self.peer {
            // Holders refuse what others say of it.
            return Ok(());
        }
        let taken = self.with_holder(now, |holder, _, _| {
            if renew {
                if !holder.provided.begin(now, target, provider.clone(), replicas) {
                    return Err(NotTaken::TooMany);
                }
                holder.keeps.insert(id, Keep::Provided(*target.key()));
            }
            Ok(())
        });
        self.provide_here(now, target, provider);
        taken.unwrap_or(Ok(()))
    }

    fn provide_here(&mut self, now: Now, target: &Target, provider: &Contact) {
        let (serves, peer, replicas) = (self.mode == Mode::Server, self.peer, self.config.table.k);
        self.with_holder(now, |holder, near, _| {
            if serves && holder.store.is_ours_to_keep(near, target.key(), replicas) {
                holder.store.provide(now, &peer, None, target, provider.clone());
            }
        });
        self.settle_holder(now);
    }

    /// Whether what a caller's operation has published is looked after so far.
    pub(super) fn is_kept(&self, caller: OperationId) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.keeps.contains_key(&caller))
    }

    /// A caller's store of something that is to be looked after is over, or has nobody to go to.
    pub(super) fn published_at(&mut self, now: Now, caller: OperationId, outcome: &mut Outcome) {
        let peer = self.peer;
        let Some(holder) = self.holder.as_mut() else { return };
        let dropped =
            matches!(outcome.ended, Ended::Cancelled | Ended::NoContacts) && outcome.stored.is_empty();
        match holder.keeps.remove(&caller) {
            Some(Keep::Record(id, version)) if holder.sets.seq(&id) == Some(version.seq) => {
                if dropped {
                    holder.sets.abandon(now, &id);
                    holder.store.take_back(now, &id, &version);
                } else {
                    outcome.looked_after =
                        self.set_settled(now, &id, version.seq, &outcome.stored, outcome.superseded);
                }
            }
            Some(Keep::Provided(key)) => {
                let enough = outcome.ended == Ended::Stored;
                outcome.looked_after = holder.provided.told(now, &key, enough, dropped, &mut self.random);
                if !outcome.looked_after {
                    holder.store.unprovide(now, &key, &peer);
                }
            }
            _ => {}
        }
        self.settle_holder(now);
    }

    /// A store of a record of ours is over: who has it now, and who not. Says whether the record is looked after still.
    pub(super) fn set_settled(
        &mut self,
        now: Now,
        id: &EntryId,
        seq: u64,
        stored: &[Contact],
        superseded: bool,
    ) -> bool {
        let Some(holder) = self.holder.as_mut() else { return false };
        holder.sets.among(self.table.usable());
        // A newer version has its own stores.
        if holder.sets.seq(id) != Some(seq) {
            return false;
        }
        match superseded {
            // A newer version of our own, looked after until just now, is again.
            true => holder.sets.abandon(now, id),
            false => holder.sets.settled(now, id, stored),
        }
        self.note_due(now);
        !superseded
    }

    /// Tells again that we provide something, if it is time.
    pub(super) fn drive_provided(&mut self, now: Now) {
        let Some(holder) = self.holder.as_mut() else { return };
        let Some(Tell { target, provider, replicas }) = holder.provided.poll(now) else { return };
        self.provide_here(now, &target, &provider);
        let key = *target.key();
        let query = Query::AddProvider { target: target.clone(), provider };
        let options = Options { class: Class::Frugal, ..Options::default() };
        let copies = Copies::new(query, replicas.clamp(1, self.config.table.k), 0);
        match self.create(now, Aim::Provided(key), target, Goal::Closest, Some(copies), options) {
            Some(operation) => self.drive(now, operation),
            None => self.told_again(now, &key, Ended::NoContacts),
        }
    }

    /// Those whom we wanted to tell again were told, or not enough of them.
    pub(super) fn told_again(&mut self, now: Now, key: &Key, ended: Ended) {
        if let Some(holder) = self.holder.as_mut() {
            holder.provided.told_again(now, key, ended == Ended::Stored, &mut self.random);
            self.note_due(now);
        }
    }
}
