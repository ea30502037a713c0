//! Any conversation with the record layer, and any state of one.

use super::fields::Fields;
use super::keys::{Cipher, Keys, Material};
use super::layer::Layer;
use super::version::Version;
use tokio::io::ReadBuf;

const LENGTHS: [usize; 3] = [16, 32, 32];

fn material(version: Version, cipher: Cipher, n: u8) -> Option<Material> {
    let key = vec![n; LENGTHS[cipher as usize]];
    let material = Material::new(cipher, &key, &[n; 12], 0)?;
    match version {
        Version::Tls12 => Some(material),
        Version::Tls13 => material.with_secret(&vec![n; cipher.secret_length()]),
    }
}

/// The client seals anything, or sends what is no record; the layer is cut in on anywhere, and
/// moves. What it has packed it can go on with.
pub(crate) fn records(bytes: &[u8]) {
    let [suite, cut, room, moves, bytes @ ..] = bytes else { return };
    let version = if suite & 1 == 0 { Version::Tls13 } else { Version::Tls12 };
    let cipher = Cipher::ALL[usize::from(suite >> 1) % 3];
    let make = |n| material(version, cipher, n).expect("lengths that fit");
    let mut layer = Layer::new(version, make(1), make(2)).expect("memory");
    let mut client = Keys::new(version, make(1)).expect("memory");
    let mut rest = bytes;
    let mut plain = 0;
    while let [what, length, more @ ..] = rest {
        let (part, after) = more.split_at(more.len().min(usize::from(*length)));
        rest = after;
        let mut sent = Vec::new();
        match what % 8 {
            0 => sent.extend_from_slice(part),
            // its key changes as the layer must think that it does
            1 if version == Version::Tls13 => {
                client.seal(22, &[&[24, 0, 0, 1, length & 1]], &mut sent).expect("few records");
                client.update().expect("its secret is known");
            }
            2 => {
                let repeated = part.repeat(usize::from(what >> 3) * 8);
                client.seal(23, &[&repeated[..repeated.len().min(17_000)]], &mut sent).expect("few records");
            }
            3 => client.seal(what >> 3, &[part], &mut sent).expect("few records"),
            kind => client.seal(19 + kind, &[part], &mut sent).expect("few records"),
        }
        for piece in sent.chunks_mut(usize::from(*cut) + 1) {
            let mut first = true;
            loop {
                let mut space = vec![0; usize::from(*room) + 1];
                let mut buf = ReadBuf::new(&mut space);
                let read = layer.read(if first { &mut *piece } else { &mut [] }, &mut buf);
                first = false;
                plain += buf.filled().len();
                match read {
                    Ok(true) if !buf.filled().is_empty() => {}
                    Ok(true) | Err(_) => return,
                    Ok(false) => break,
                }
            }
            assert!(layer.to_send().len() < 200, "it answers a little");
        }
        if moves & what == *moves {
            layer = again(&layer);
        }
    }
    assert!(plain <= bytes.len() * 32 * 8, "no more than was sent");
}

/// A state that was made by anybody: it is refused, or stays the same.
pub(crate) fn state(bytes: &[u8]) {
    let Some(fields) = Fields::read(bytes) else { return };
    if let Ok(layer) = Layer::unpack(&fields) {
        again(&layer);
    }
}

fn again(layer: &Layer) -> Layer {
    let pack = |layer: &Layer| {
        let mut fields = Fields::default();
        layer.pack(&mut fields);
        fields.into_bytes()
    };
    let bytes = pack(layer);
    let fields = Fields::read(&bytes).expect("what was written is read");
    let again = Layer::unpack(&fields).expect("what was packed is unpacked");
    assert!(pack(&again) == bytes, "it stays the same");
    again
}
