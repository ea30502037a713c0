//! Keys are changed before they have sealed too much.

use super::Layer;
use crate::tls::record::Version;
use crate::tls::record::keys::{Cipher, Material};
use std::io::IoSlice;
use tokio::io::ReadBuf;

/// Both ends.
fn pair(version: Version, cipher: Cipher) -> [Layer; 2] {
    let lengths = [16, 32, 32];
    let material = |n: u8| {
        let material = Material::new(cipher, &vec![n; lengths[cipher as usize]], &[n; 12], 0).unwrap();
        match version {
            Version::Tls13 => material.with_secret(&vec![n; cipher.secret_length()]).unwrap(),
            Version::Tls12 => material,
        }
    };
    [(1, 2), (2, 1)].map(|(read, write)| Layer::new(version, material(read), material(write)).unwrap())
}

fn pass(from: &mut Layer, to: &mut Layer) -> Vec<u8> {
    let mut sent = from.to_send().to_vec();
    from.sent(sent.len());
    let mut space = vec![0; 1 << 17];
    let mut buf = ReadBuf::new(&mut space);
    to.read(&mut sent, &mut buf).unwrap();
    buf.filled().to_vec()
}

#[test]
fn tls13_changes_its_key() {
    for cipher in Cipher::ALL {
        let [mut ours, mut theirs] = pair(Version::Tls13, cipher);
        let first = ours.write.material().key().to_vec();
        for round in 0..100_u8 {
            ours.write.set_limit(5);
            assert_eq!(ours.write(&[IoSlice::new(&[round; 40_000])]).unwrap(), 40_000);
            assert_eq!(pass(&mut ours, &mut theirs), [round; 40_000]);
            assert!(ours.write.material().sequence() <= 5);
        }
        assert_ne!(ours.write.material().key(), first);
    }
}

#[test]
fn tls12_says_that_it_is_the_end() {
    for cipher in Cipher::ALL {
        let [mut ours, mut theirs] = pair(Version::Tls12, cipher);
        ours.write.set_limit(5);
        for _ in 0..4 {
            assert_eq!(ours.write(&[IoSlice::new(b"x")]).unwrap(), 1);
        }
        assert!(ours.write(&[IoSlice::new(b"x")]).is_err());
        assert_eq!(pass(&mut ours, &mut theirs), b"xxxx");
        assert!(theirs.end(), "it was said");
    }
}

#[test]
fn pieces_are_put_together_and_what_is_long_is_cut() {
    let [mut ours, mut theirs] = pair(Version::Tls13, Cipher::Aes128Gcm);
    let pieces: Vec<Vec<u8>> = (0..60_u8).map(|n| vec![n; usize::from(n) * 10]).collect();
    let bufs: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let all = pieces.concat();
    assert_eq!(ours.write(&bufs).unwrap(), all.len());
    assert_eq!(pass(&mut ours, &mut theirs), all);
    ours.set_fragment(100);
    assert_eq!(ours.write(&[IoSlice::new(&all)]).unwrap(), all.len());
    assert_eq!(ours.to_send().len(), all.len() + all.len().div_ceil(100) * 22);
    assert_eq!(pass(&mut ours, &mut theirs), all);
    let long = vec![7; 1 << 20];
    ours.set_fragment(1 << 20);
    let taken = ours.write(&[IoSlice::new(&long)]).unwrap();
    assert_eq!(taken, 64 << 10, "some at a time");
    assert_eq!(ours.to_send().len(), taken + 4 * 22);
}
