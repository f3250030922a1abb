//! each limit of the table has an effect, on both sides of its edge.

use super::*;

fn of(config: TableConfig) -> Table {
    Table::new(own(), config)
}

fn fill(table: &mut Table, now: Now, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        admit(table, now, &contact(number));
    }
}

#[test]
fn a_table_has_buckets_of_k_and_as_many_siblings_as_configured() {
    for (k, siblings) in [(5, 9), (7, 16)] {
        let mut table = of(TableConfig { k, siblings, ..TableConfig::default() });
        fill(&mut table, at(0), 1..=2000);
        let sizes: Vec<usize> = table.buckets().map(|(entries, ..)| entries).collect();
        let (outer, inner) = sizes.split_at(sizes.len() - 2);
        assert!(outer.len() > 3 && outer.iter().all(|size| *size == k), "{sizes:?}");
        assert!(inner.iter().all(|size| *size <= siblings) && inner[0] > k, "{sizes:?}");
        assert_eq!(table.siblings().len(), siblings);
    }
}

#[test]
fn so_many_wait_in_a_bucket_and_in_the_table() {
    for (replacements, replacements_per_table) in [(3, 7), (30, 100)] {
        let mut table = of(TableConfig { replacements, replacements_per_table, ..TableConfig::default() });
        fill(&mut table, at(0), 1..=300);
        (1000..5000).for_each(|number| table.heard(&contact(number)));
        let waiting: Vec<usize> = table.buckets().map(|(.., waiting)| waiting).collect();
        assert_eq!(waiting.iter().max(), Some(&replacements));
        assert_eq!(waiting.iter().sum::<usize>(), replacements_per_table, "{waiting:?}");
    }
}

/// AL-15: whoever has stayed long enough gives way to nobody while it answers.
#[test]
fn who_has_settled_gives_its_place_to_no_newcomer() {
    let displaced = |second| {
        let mut table = of(TableConfig { settled_after: Duration::from_secs(100), ..TableConfig::default() });
        let first = in_bucket(0, 400);
        let (old, new) = first.split_at(20);
        let deeper = (1..4).flat_map(|bits| in_bucket(bits, 20));
        for contact in old.iter().cloned().chain(deeper) {
            admit(&mut table, at(0), &contact);
        }
        for contact in new {
            admit(&mut table, at(second), contact);
        }
        old.iter().filter(|contact| table.get(contact.key()).is_none()).count()
    };
    assert!(displaced(99) > 0);
    assert_eq!(displaced(100), 0);
}

#[test]
fn the_time_of_a_probe_follows_the_model_of_sessions() {
    let due = |shape, scale, share| {
        let mut table = of(TableConfig {
            lifetime_shape: shape,
            lifetime_scale: Duration::from_secs(scale),
            probe_when_dead: share,
            ..TableConfig::default()
        });
        admit(&mut table, at(0), &contact(1));
        table.next_due().unwrap()
    };
    // Where the hazard is constant, half of all are gone after ln 2 of the scale.
    let dues = [due(1.0, 1000, 0.5), due(1.0, 1000, 0.1), due(0.5, 1000, 0.5), due(1.0, 2000, 0.5)];
    assert_eq!(dues, [693, 105, 480, 1386]);
}
