use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn entries(table: &HeaderTable) -> Vec<(usize, usize)> {
    table.entries.iter().map(|entry| (entry.name_length, entry.size)).collect()
}

#[test]
fn what_a_block_does_to_the_table() {
    let mut table = HeaderTable::default();
    table.note(b"\x82\x41\x02it\x04\x04/n/x\x00\x01a\x01b\x10\x01c\x00\x40\x01n\x03abc").unwrap();
    assert_eq!(entries(&table), [(1, 36), (10, 44)], "two are added");
    table.note(b"\x7f\x00\x02de\x7f\x00\x00").unwrap();
    assert_eq!(entries(&table), [(1, 33), (10, 44), (1, 36), (10, 44)], "with names of those before");
    assert_eq!(table.block(), b"\x41\x02it\x40\x01n\x03abc\x41\x02de\x40\x01n\x00");
    table.note(b"\x82\xc1\x0f\x32\x00").unwrap();
    assert_eq!(table.note(b"\xc2"), None, "there are four");
    assert_eq!(table.note(b"\x3f\xe2\x1f"), None, "larger than it may be");
}

#[test]
fn what_is_old_makes_room() {
    let mut table = HeaderTable::default();
    table.note(b"\x3f\x32\x40\x01a\x01b\x40\x01c\x01d").unwrap(); // 81 in all
    assert_eq!((table.size, table.entries.len()), (68, 2));
    table.note(b"\x40\x01e\x0dthirteen long").unwrap();
    assert_eq!(entries(&table), [(1, 46), (1, 34)]);
    assert_eq!(table.block(), b"\x3f\x32\x40\x01c\x01d\x40\x01e\x0dthirteen long");
    table.note(b"\x2c").unwrap();
    assert_eq!((entries(&table), table.block()), (vec![], b"\x2c".to_vec()));
    table.note(b"\x20\x3f\xe1\x1f\x40\x01a\x01b").unwrap();
    assert_eq!(table.block(), b"\x40\x01a\x01b");
    let large = [&b"\x40\x01a\x7f\x81\x1f"[..], &[b'x'; 4096]].concat();
    table.note(&large).unwrap();
    assert_eq!(table.block(), b"", "one that does not fit empties it");
}

#[test]
fn what_is_damaged_is_not_followed() {
    let damaged: [&[u8]; 11] = [
        b"\x00",
        b"\x00\x05a",
        b"\x04\x04/",
        b"\xff",
        b"\xff\xff\xff\xff\xff\xff",
        b"\x80",
        b"\xbe",
        b"\x0f\x2f\x00",
        b"\x7f\x00\x00",
        b"\x41",
        b"\x41\x82\xff\xff",
    ];
    for block in damaged {
        assert_eq!(HeaderTable::default().note(block), None, "{block:x?}");
    }
}

/// What an encoder does next: a new size, or a field.
#[derive(Debug, Clone)]
enum Step {
    Size(usize),
    /// Added or not, with a name that may be one that is known, and a value.
    Field(bool, u8, Vec<u8>),
    Refer(prop::sample::Index),
    Named(bool, prop::sample::Index, Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = || prop::collection::vec(any::<u8>(), 0..300);
    prop::collection::vec(
        prop_oneof![
            1 => (0..=MOST).prop_map(Step::Size),
            6 => (any::<bool>(), 1..40_u8, value()).prop_map(|(added, name, value)| Step::Field(added, name, value)),
            4 => any::<prop::sample::Index>().prop_map(Step::Refer),
            4 => (any::<bool>(), any::<prop::sample::Index>(), value())
                .prop_map(|(added, index, value)| Step::Named(added, index, value)),
        ],
        1..120,
    )
}

fn push_string(to: &mut Vec<u8>, string: &[u8]) {
    push_integer(to, 0, 7, string.len());
    to.extend_from_slice(string);
}

/// An encoder by the book: its table has names and values.
#[derive(Default)]
struct Encoder {
    table: Vec<(Vec<u8>, Vec<u8>)>,
    most: Option<usize>,
}

impl Encoder {
    fn shrink(&mut self) {
        let most = self.most.unwrap_or(MOST);
        while self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > most {
            self.table.pop();
        }
    }

    fn step(&mut self, step: &Step) -> Vec<u8> {
        let mut block = Vec::new();
        let (added, name, value, index) = match step {
            Step::Size(size) => {
                self.most = Some(*size);
                self.shrink();
                push_integer(&mut block, RESIZED, 5, *size);
                return block;
            }
            Step::Field(added, name, value) => (*added, vec![b'n'; usize::from(*name)], value, 0),
            Step::Refer(_) | Step::Named(..) if self.table.is_empty() => return vec![0x82],
            Step::Refer(index) => {
                push_integer(&mut block, 0x80, 7, 62 + index.index(self.table.len()));
                return block;
            }
            Step::Named(added, index, value) => {
                let index = index.index(self.table.len());
                (*added, self.table[index].0.clone(), value, 62 + index)
            }
        };
        let (pattern, bits) = if added { (ADDED, 6) } else { (0, 4) };
        push_integer(&mut block, pattern, bits, index);
        if index == 0 {
            push_string(&mut block, &name);
        }
        push_string(&mut block, value);
        if added {
            self.table.insert(0, (name, value.clone()));
            self.shrink();
        }
        block
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(7541), ..ProptestConfig::default() })]
    #[test]
    fn it_is_the_encoders_table_and_so_is_another_one(steps in steps()) {
        let (mut encoder, mut table) = (Encoder::default(), HeaderTable::default());
        for step in &steps {
            prop_assert_eq!(table.note(&encoder.step(step)), Some(()));
            let known: Vec<_> = encoder.table.iter().map(|(name, value)| (name.len(), name.len() + value.len() + 32)).collect();
            prop_assert_eq!(entries(&table), known);
        }
        let mut block = Vec::new();
        if let Some(most) = encoder.most.filter(|most| *most != MOST) {
            push_integer(&mut block, RESIZED, 5, most);
        }
        for (name, value) in encoder.table.iter().rev() {
            block.push(ADDED);
            push_string(&mut block, name);
            push_string(&mut block, value);
        }
        prop_assert_eq!(table.block(), block.clone());
        prop_assert_eq!(HeaderTable::of(&block).map(|table| table.block()), Some(block));
    }
}
