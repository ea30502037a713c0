//! Session tickets that every generation can read.
//!
//! Each key is made one rotation before it is used, and shared then. So whoever shares the set at
//! any moment knows the key that the others will go over to, and at what time: nobody needs to be
//! told of a rotation when it happens. The shared set is changed under a lock, and has the last
//! word: of two generations that both make a next key, the second one to come there finds that of
//! the first, and takes it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::server::ProducesTickets;
use zeroize::Zeroize as _;

use super::pair::now;

const NAME: usize = 16;

/// The keys that session tickets are encrypted with: the current one, the next one, and those that
/// can still be met.
///
/// They are public for sharing them among machines or over restarts by means of your own; within
/// one service [`Tls::share_tickets`](super::Tls::share_tickets) does it. Whoever has them can read
/// recorded connections that were resumed without a fresh key exchange, and pose as the server to
/// clients that resume: keep them as you keep the private key. `Debug` shows no secret, and memory
/// is wiped on drop; what serde makes of them is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKeys {
    keys: Vec<TicketKey>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TicketKey {
    name: [u8; NAME],
    secret: [u8; 32],
    /// When the key begins, in seconds since 1970. From then on it encrypts for one rotation, and
    /// decrypts for two.
    from: u64,
    /// Whether it encrypts no more.
    retired: bool,
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("from", &self.from).field("retired", &self.retired).finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Retires these keys, but for those that are among `others`, which come in.
    pub(super) fn give_way_to(&mut self, others: &Self) {
        for key in &mut self.keys {
            key.retired = true;
        }
        self.keys.retain(|key| others.keys.iter().all(|other| other.name != key.name));
        self.keys.extend_from_slice(&others.keys);
    }
}

/// What rustls makes tickets with.
pub(super) struct Tickets {
    /// How long a key encrypts, in seconds.
    rotation: u64,
    /// What a session was allowed to skip. A ticket of another realm cannot be read, whoever has
    /// its key.
    realm: Vec<u8>,
    ring: RwLock<Ring>,
}

#[derive(Default)]
struct Ring {
    keys: Vec<Key>,
    /// When the last key comes into use: then there must be another one after it.
    due: u64,
}

struct Key {
    key: TicketKey,
    aead: LessSafeKey,
    /// We encrypted something with it, so somebody may come back with it.
    used: AtomicBool,
}

impl Tickets {
    pub(super) fn new(rotation: Duration, realm: Vec<u8>) -> Result<Self, Unspecified> {
        let tickets = Self { rotation: rotation.as_secs().max(1), realm, ring: RwLock::default() };
        tickets.advance(now())?;
        Ok(tickets)
    }

    /// Returns the keys, for whoever shall be able to read our tickets. They come in one order, so
    /// that they can be compared.
    pub(super) fn keys(&self) -> TicketKeys {
        let mut keys: Vec<_> = self.read().keys.iter().map(|k| k.key.clone()).collect();
        keys.sort_by_key(|key| (key.from, key.name));
        TicketKeys { keys }
    }

    pub(super) fn rotation(&self) -> Duration {
        Duration::from_secs(self.rotation)
    }

    /// Encrypts with these from now on. Tickets that were made before can still be read.
    pub(super) fn adopt(&self, theirs: &TicketKeys, now: u64) -> Result<(), Unspecified> {
        if theirs.keys.is_empty() {
            return self.advance(now);
        }
        let new = theirs.keys.iter().map(|key| Key::new(key.clone())).collect::<Result<Vec<_>, _>>()?;
        let mut ring = self.write();
        let old = std::mem::replace(&mut ring.keys, new);
        for mut own in old.into_iter().filter(|own| own.used.load(Relaxed)) {
            match ring.keys.iter_mut().find(|key| key.key.name == own.key.name) {
                Some(same) => same.used = own.used,
                None => {
                    own.key.retired = true;
                    ring.keys.push(own);
                }
            }
        }
        ring.advance(now, self.rotation)
    }

    /// Makes ours and the shared ones the same; whether these have changed.
    pub(super) fn meet(&self, shared: &mut TicketKeys, now: u64) -> Result<bool, Unspecified> {
        self.adopt(shared, now)?;
        let before = std::mem::replace(shared, self.keys());
        Ok(*shared != before)
    }

    /// Lets go of keys that are too old, and makes those that are missing.
    pub(super) fn advance(&self, now: u64) -> Result<(), Unspecified> {
        self.write().advance(now, self.rotation)
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        if now >= self.read().due {
            self.advance(now).ok()?;
        }
        let ring = self.read();
        let usable = || ring.keys.iter().filter(|k| !k.key.retired);
        // Before all of them: the clock was set back.
        let current = usable().filter(|k| k.key.from <= now).max_by_key(|k| (k.key.from, k.key.name));
        let key = current.or_else(|| usable().min_by_key(|k| k.key.from))?;
        let mut nonce = [0; NONCE_LEN]; // random: several processes use the key
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + CHACHA20_POLY1305.tag_len());
        ticket.extend(key.key.name);
        ticket.extend(nonce);
        ticket.extend(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .aead
            .seal_in_place_separate_tag(nonce, self.bound_to(&key.key.name), &mut ticket[NAME + NONCE_LEN..])
            .ok()?;
        ticket.extend(tag.as_ref());
        key.used.store(true, Relaxed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.read();
        let key = ring.keys.iter().find(|k| k.key.name == *name && k.key.decrypts(now, self.rotation))?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.aead.open_in_place(nonce, self.bound_to(name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    fn bound_to(&self, name: &[u8; NAME]) -> Aad<Vec<u8>> {
        Aad::from([name, self.realm.as_slice()].concat())
    }

    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Ring> {
        self.ring.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// Returns how long a ticket lives: one that was made at the last moment of its key can be read
    /// for one rotation more.
    fn lifetime(&self) -> u32 {
        u32::try_from(self.rotation).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, now())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("rotation", &self.rotation).finish_non_exhaustive()
    }
}

impl Ring {
    fn advance(&mut self, now: u64, rotation: u64) -> Result<(), Unspecified> {
        // No key is made that far ahead: the clock was wrong then, or is now.
        let ahead = now.saturating_add(rotation.saturating_mul(2));
        self.keys.retain(|k| k.key.decrypts(now, rotation) && k.key.from <= ahead);
        let newest = |keys: &[Key], wanted: &dyn Fn(u64) -> bool| {
            keys.iter().filter(|k| !k.key.retired && wanted(k.key.from)).map(|k| k.key.from).max()
        };
        let current = match newest(&self.keys, &|from| from <= now) {
            Some(from) if now < from.saturating_add(rotation) => from,
            _ => {
                self.keys.push(Key::generate(now)?);
                now
            }
        };
        self.due = match newest(&self.keys, &|from| from > now) {
            Some(from) => from,
            None => {
                let from = current.saturating_add(rotation);
                self.keys.push(Key::generate(from)?);
                from
            }
        };
        Ok(())
    }
}

impl Key {
    fn generate(from: u64) -> Result<Self, Unspecified> {
        let mut key = TicketKey { name: [0; NAME], secret: [0; 32], from, retired: false };
        let random = SystemRandom::new();
        random.fill(&mut key.name)?;
        random.fill(&mut key.secret)?;
        Self::new(key)
    }

    fn new(key: TicketKey) -> Result<Self, Unspecified> {
        let aead = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key.secret)?);
        Ok(Self { key, aead, used: AtomicBool::new(false) })
    }
}

impl TicketKey {
    fn decrypts(&self, now: u64, rotation: u64) -> bool {
        now < self.from.saturating_add(rotation.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const SIX: u64 = 6 * HOUR;

    /// With keys as of `now`.
    fn tickets(now: u64) -> Tickets {
        in_realm(now, &[0])
    }

    fn in_realm(now: u64, realm: &[u8]) -> Tickets {
        let tickets = Tickets::new(Duration::from_secs(SIX), realm.to_vec()).unwrap();
        tickets.write().keys.clear();
        tickets.advance(now).unwrap();
        tickets
    }

    fn sharing(with: &Tickets, now: u64) -> Tickets {
        let tickets = tickets(now);
        let json = serde_json::to_vec(&with.keys()).unwrap();
        tickets.adopt(&serde_json::from_slice(&json).unwrap(), now).unwrap();
        tickets
    }

    #[test]
    fn a_ticket_lives_for_one_rotation_and_its_key_for_two() {
        let start = 1_800_000_000;
        let tickets = tickets(start);
        let (first, last) = (tickets.seal(b"first", start).unwrap(), tickets.seal(b"last", start + SIX - 1).unwrap());
        assert_eq!(first[..NAME], last[..NAME], "one key for six hours");
        let next = tickets.seal(b"next", start + SIX).unwrap();
        assert_ne!(first[..NAME], next[..NAME]);
        for age in [0, 1, 6, 11] {
            assert_eq!(tickets.open(&first, start + age * HOUR).unwrap(), b"first", "{age} h");
        }
        assert_eq!(tickets.open(&last, start + 2 * SIX - 1).unwrap(), b"last", "for all its lifetime");
        assert_eq!(tickets.open(&first, start + 2 * SIX), None);
        for rotation in 2..50 {
            let now = start + rotation * SIX + 7;
            tickets.seal(b"x", now).unwrap();
            tickets.advance(now).unwrap();
            assert!(tickets.read().keys.len() <= 4, "{:?}", tickets.keys());
        }
    }

    #[test]
    fn both_generations_read_each_other_s_tickets_over_a_rotation_in_either() {
        let start = 1_800_000_000;
        let old = tickets(start);
        old.seal(b"used", start).unwrap();
        let new = sharing(&old, start + 5 * HOUR);
        for hour in 5..12 {
            let now = start + hour * HOUR;
            for (by, reader) in [(&old, &new), (&new, &old)] {
                let ticket = by.seal(b"session", now).unwrap();
                assert_eq!(reader.open(&ticket, now).as_deref(), Some(&b"session"[..]), "after {hour} h");
            }
            // It rotates in the one that is asked first; the other one is on its own.
            old.advance(now).unwrap();
        }
    }

    #[test]
    fn what_was_shared_before_a_crash_is_enough_after_it() {
        let start = 1_800_000_000;
        let killed = tickets(start);
        let saved = killed.keys();
        let ticket = killed.seal(b"session", start + SIX + 1).unwrap(); // by the key that was made ahead
        let restarted = tickets(start + SIX + 2);
        restarted.adopt(&saved, start + SIX + 2).unwrap();
        assert_eq!(restarted.open(&ticket, start + SIX + 2).unwrap(), b"session");
    }

    #[test]
    fn own_tickets_can_be_read_after_the_keys_of_others_came() {
        let start = 1_800_000_000;
        let (ours, theirs) = (tickets(start), tickets(start));
        let before = ours.seal(b"before", start).unwrap();
        ours.adopt(&theirs.keys(), start + 1).unwrap();
        assert_eq!(ours.open(&before, start + 2).unwrap(), b"before");
        let after = ours.seal(b"after", start + 2).unwrap();
        assert_eq!(theirs.open(&after, start + 2).unwrap(), b"after");
        let mut shared = theirs.keys();
        assert!(ours.meet(&mut shared, start + 2).unwrap(), "the others should know our old ones, too");
        assert!(!ours.meet(&mut shared, start + 3).unwrap(), "once");
        theirs.adopt(&shared, start + 3).unwrap();
        assert_eq!(theirs.open(&before, start + 3).unwrap(), b"before");
        assert_eq!(theirs.seal(b"x", start + 3).unwrap()[..NAME], after[..NAME], "but make none with them");
    }

    /// Days of three generations, of which two live at a time, and which look at the shared set at
    /// other times.
    #[test]
    fn through_the_shared_set_any_two_read_each_other_s_tickets() {
        let start = 1_800_000_000;
        let mut shared = TicketKeys::default();
        let mut old = tickets(start);
        old.meet(&mut shared, start).unwrap();
        let mut now = start;
        for reload in 0..40 {
            let new = tickets(now);
            new.meet(&mut shared, now).unwrap();
            let mut made = Vec::new();
            for step in 0..9 {
                now += 1000 + 77 * reload;
                made.push((old.seal(b"old", now).unwrap(), new.seal(b"new", now).unwrap()));
                for (by_old, by_new) in made.iter().rev().take(4) {
                    assert!(new.open(by_old, now).is_some() && old.open(by_new, now).is_some(), "{reload} {step}");
                }
                // Each looks more often than once in a rotation.
                let due = if step % 2 == reload % 2 { &old } else { &new };
                due.meet(&mut shared, now).unwrap();
            }
            assert!(shared.keys.len() <= 5, "{shared:?}");
            old = new;
        }
    }

    #[test]
    fn a_lost_shared_set_comes_back() {
        let start = 1_800_000_000;
        let (ours, mut shared) = (tickets(start), TicketKeys::default());
        let ticket = ours.seal(b"session", start).unwrap();
        assert!(ours.meet(&mut shared, start).unwrap());
        shared = TicketKeys::default();
        assert!(ours.meet(&mut shared, start + 1).unwrap());
        let next = tickets(start + 2);
        next.meet(&mut shared, start + 2).unwrap();
        assert_eq!(next.open(&ticket, start + 2).unwrap(), b"session");
        assert_eq!(ours.seal(b"x", start + 2).unwrap()[..NAME], ticket[..NAME], "and the same key stays in use");
    }

    #[test]
    fn keys_that_are_given_come_before_the_shared_ones() {
        let start = 1_800_000_000;
        let (ours, given, mut shared) = (tickets(start), tickets(start), TicketKeys::default());
        ours.meet(&mut shared, start).unwrap();
        let before = ours.seal(b"before", start).unwrap();
        shared.give_way_to(&given.keys());
        ours.meet(&mut shared, start + 1).unwrap();
        assert_eq!(given.open(&ours.seal(b"after", start + 1).unwrap(), start + 1).unwrap(), b"after");
        assert_eq!(ours.open(&before, start + 1).unwrap(), b"before");
        assert!(!ours.meet(&mut shared, start + 2).unwrap());
    }

    #[test]
    fn a_ticket_of_another_realm_is_not_read() {
        let start = 1_800_000_000;
        let (anyone, verified) = (in_realm(start, &[0]), in_realm(start, &[1, 7]));
        verified.adopt(&anyone.keys(), start).unwrap();
        let ticket = anyone.seal(b"session", start).unwrap();
        assert_eq!(verified.open(&ticket, start), None);
        let ticket = verified.seal(b"session", start).unwrap();
        assert_eq!(anyone.open(&ticket, start), None);
        assert_eq!(verified.open(&ticket, start).unwrap(), b"session");
    }

    #[test]
    fn a_clock_that_jumps_leaves_it_working() {
        let start = 1_800_000_000;
        let tickets = tickets(start);
        for now in [start + 90 * 24 * HOUR, start - HOUR, 0, start, u64::MAX, start] {
            tickets.advance(now).unwrap();
            let ticket = tickets.seal(b"session", now).unwrap();
            assert!(now == u64::MAX || tickets.open(&ticket, now).is_some(), "at {now}");
        }
        assert!(tickets.read().keys.len() <= 6, "{:?}", tickets.keys());
    }

    #[test]
    fn what_is_no_ticket_of_ours_is_not_read() {
        let tickets = tickets(1_800_000_000);
        let ticket = tickets.seal(b"session", 1_800_000_000).unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.open(&ticket[..length], 1_800_000_000), None);
        }
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(&changed, 1_800_000_000), None);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let tickets = tickets(1_800_000_000);
        let keys = tickets.keys();
        let text = format!("{keys:?} {tickets:?}");
        assert!(!text.contains("secret") && !text.contains('['.to_string().repeat(2).as_str()), "{text}");
        assert!(text.len() < 400, "{text}");
    }
}
