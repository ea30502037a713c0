//! The layer as fields, and back.

use super::{Layer, Seen};
use crate::tls::record::fields::{Field, Fields};
use crate::tls::record::keys::{Cipher, Keys, MAX_PLAIN, Material};
use crate::tls::record::version::Version;
use std::io;

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

impl Layer {
    /// Writes all that another process needs to go on with it.
    pub(crate) fn pack(&self, to: &mut Fields) {
        let of = |keys: &Keys| keys.material().cipher as u8;
        to.put(Field::Suite, &[self.version as u8, of(&self.read), of(&self.write)]);
        for (keys, key, secret) in
            [(&self.read, Field::ReadKey, Field::ReadSecret), (&self.write, Field::WriteKey, Field::WriteSecret)]
        {
            let material = keys.material();
            to.put_parts(key, &[&material.sequence().to_be_bytes(), material.iv(), material.key()]);
            to.put_some(secret, material.secret().unwrap_or_default());
        }
        to.put_some(Field::Sealed, &self.sealed);
        to.put_some(Field::Plain, &self.plain[self.plain_at..]);
        to.put_some(Field::Handshake, &self.handshake);
        to.put_some(Field::Out, self.to_send());
        to.put_flag(Field::Update, self.update);
        to.put_flag(Field::Ended, self.ended);
        if self.fragment != MAX_PLAIN {
            let fragment = u16::try_from(self.fragment).unwrap_or(u16::MAX);
            to.put(Field::Fragment, &fragment.to_be_bytes());
        }
        let Seen { empty, warnings, updates, renegotiations } = self.seen;
        if self.seen != Seen::default() {
            to.put(Field::Seen, &[empty, warnings, updates, renegotiations]);
        }
    }

    /// Goes on with what was packed.
    ///
    /// # Errors
    /// It is damaged, or there is no memory for its keys.
    pub(crate) fn unpack(fields: &[(Field, &[u8])]) -> io::Result<Self> {
        let get = |wanted| fields.iter().find(|(field, _)| *field == wanted).map(|(_, bytes)| *bytes);
        let all = || {
            let &[version, read, write] = get(Field::Suite)? else { return None };
            let version = VERSIONS.into_iter().find(|one| *one as u8 == version)?;
            let read = material(read, get(Field::ReadKey)?, get(Field::ReadSecret))?;
            let write = material(write, get(Field::WriteKey)?, get(Field::WriteSecret))?;
            let fragment = match get(Field::Fragment) {
                Some(bytes) => usize::from(u16::from_be_bytes(bytes.try_into().ok()?)),
                None => MAX_PLAIN,
            };
            let seen = match get(Field::Seen) {
                Some(&[empty, warnings, updates, renegotiations, ..]) => {
                    Seen { empty, warnings, updates, renegotiations }
                }
                Some(_) => return None,
                None => Seen::default(),
            };
            Some((version, read, write, fragment, seen))
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the state of TLS is damaged");
        let (version, read, write, fragment, seen) = all().ok_or_else(damaged)?;
        let bytes = |field| get(field).unwrap_or_default().to_vec();
        let mut layer = Self::new(version, read, write)?;
        layer.set_fragment(fragment);
        layer.restore(bytes(Field::Sealed), bytes(Field::Plain), bytes(Field::Out), get(Field::Ended).is_some());
        (layer.handshake, layer.update, layer.seen) = (bytes(Field::Handshake), get(Field::Update).is_some(), seen);
        Ok(layer)
    }
}

fn material(cipher: u8, key: &[u8], secret: Option<&[u8]>) -> Option<Material> {
    let cipher = Cipher::ALL.into_iter().find(|one| *one as u8 == cipher)?;
    let (sequence, rest) = key.split_first_chunk()?;
    let (iv, key) = rest.split_first_chunk::<12>()?;
    let material = Material::new(cipher, key, iv, u64::from_be_bytes(*sequence))?;
    match secret {
        Some(secret) => material.with_secret(secret),
        None => Some(material),
    }
}
