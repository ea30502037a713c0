//! Beside rustls: both get the same bytes, and must answer with the same bytes.
//!
//! A handshake gives rustls' server its keys, and rustls' client, whose keys are the same, hands
//! them out: to the layer under test, and to a peer that can seal anything. What the peer says is
//! cut anywhere, and now and then damaged. `HANDOVER_TLS_CONVERSATIONS` says how many conversations
//! there are.

use super::random::Random;
use crate::tls::record::extract::{self, KeyCapture};
use crate::tls::record::keys::{Keys, Material};
use crate::tls::record::{Field, Fields, Layer, Recent, Version};
use handover_testing::certs::{self, SUITES, VERSIONS};
use std::collections::BTreeMap;
use std::io::{IoSlice, Read as _, Write as _};
use std::sync::Arc;
use tokio::io::ReadBuf;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, ProtocolVersion, ServerConfig, ServerConnection};

const CONVERSATIONS: u64 = 1500;
const STEPS: u64 = 12;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// What is refused with another alert than rustls', which looks into messages that nobody handles.
const OTHER_WORDS: [&str; 3] = ["what no client sends", "a wrong alert", "what is no record of ours"];

/// What the server of one conversation is made of.
pub(super) struct Conversation {
    rustls: ServerConnection,
    captured: extract::Captured,
    ours: Layer,
    peer: Keys,
    version: Version,
    /// The first message of the client.
    hello: Vec<u8>,
    /// What rustls has had last, and what it has had of a record.
    recent: Recent,
    begun: Vec<u8>,
    /// The rest of a message of which the peer has said a part.
    rest: Vec<u8>,
}

impl Conversation {
    pub(super) fn begin(server: &ServerConfig, client: &Arc<ClientConfig>) -> Self {
        let (capture, server) = KeyCapture::of(server);
        let mut rustls = ServerConnection::new(server).unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), "localhost".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        while client.is_handshaking() || rustls.is_handshaking() || client.wants_write() || rustls.wants_write() {
            let mut sent = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            if hello.is_empty() {
                hello = sent[5..].to_vec();
            }
            let mut sent = &sent[..];
            while !sent.is_empty() {
                rustls.read_tls(&mut sent).unwrap();
                rustls.process_new_packets().unwrap();
            }
            let sent = taken(&mut rustls);
            let mut sent = &sent[..];
            while !sent.is_empty() {
                client.read_tls(&mut sent).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        let captured = capture.captured(&rustls).unwrap();
        let version = match rustls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            _ => Version::Tls12,
        };
        let extracted = client.dangerous_extract_secrets().unwrap();
        let (received, sent) = captured.material(extracted.tx, extracted.rx).unwrap();
        let again = |material: &Material| {
            let copy = Material::new(material.cipher, material.key(), material.iv(), material.sequence()).unwrap();
            material.secret().map_or(Some(copy), |_| copy_with(material)).unwrap()
        };
        let peer = Keys::new(version, again(&received)).unwrap();
        Self {
            rustls,
            captured,
            ours: Layer::new(version, received, sent).unwrap(),
            peer,
            version,
            hello,
            recent: Recent::default(),
            begun: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Both get that of a message of the handshake; whether they can go on.
    pub(super) fn hears_a_part(&mut self, part: &[u8]) -> bool {
        let mut sealed = Vec::new();
        self.peer.seal(HANDSHAKE, &[part], &mut sealed).unwrap();
        self.hear("a part", &sealed, &mut Random(1))
    }

    /// What the peer says next: records, and a name for what they are.
    fn say(&mut self, random: &mut Random) -> (&'static str, Vec<u8>) {
        let mut to = Vec::new();
        let (peer, version) = (&mut self.peer, self.version);
        let mut seal = |kind: u8, parts: &[&[u8]]| peer.seal(kind, parts, &mut to).unwrap();
        if !self.rest.is_empty() && random.below(8) > 0 {
            // one part more, or all
            let now = 1 + usize::try_from(random.below(u64::try_from(self.rest.len()).unwrap())).unwrap();
            let part: Vec<_> = self.rest.drain(..now).collect();
            seal(HANDSHAKE, &[&part]);
            if self.rest.is_empty() {
                peer.update().unwrap();
            }
            return ("a part of a key update", to);
        }
        let name = match random.below(128) {
            30..=33 if version == Version::Tls13 => {
                // its type, and zeros behind
                let (length, zeros) = (usize::try_from(random.below(300)).unwrap(), vec![0; 100]);
                seal(0, &[&random.bytes(length), &[DATA], &zeros]);
                "padding"
            }
            34..=45 if version == Version::Tls13 => {
                let wanted = u8::from(random.below(2) == 1);
                let message = [24, 0, 0, 1, wanted];
                match random.below(4) {
                    0 => {
                        let at = usize::try_from(random.below(4)).unwrap() + 1;
                        seal(HANDSHAKE, &[&message[..at]]);
                        seal(HANDSHAKE, &[&message[at..]]);
                    }
                    1 if self.rest.is_empty() => {
                        let at = usize::try_from(random.below(4)).unwrap() + 1;
                        seal(HANDSHAKE, &[&message[..at]]);
                        self.rest = message[at..].to_vec();
                        return ("a part of a key update", to);
                    }
                    _ => seal(HANDSHAKE, &[&message]),
                }
                peer.update().unwrap();
                "key update"
            }
            0..=45 | 64.. => {
                for _ in 0..=random.below(4) {
                    let length = random.length();
                    seal(DATA, &[&random.bytes(length)]);
                }
                "data"
            }
            46 => {
                seal(HANDSHAKE, &[&[24, 0, 0, 1, 2]]);
                "a wrong key update"
            }
            47 => {
                seal(HANDSHAKE, &[&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]]);
                "two key updates in one record"
            }
            48 => {
                seal(HANDSHAKE, &[&[24, 0, 0]]);
                seal(DATA, &[b"x"]);
                "half a message"
            }
            49 | 50 => {
                let warning = [90, 100, 41, 110][usize::try_from(random.below(4)).unwrap()];
                seal(ALERT, &[&[1, warning]]);
                "a warning"
            }
            51 | 52 => {
                seal(ALERT, &[&[1, 0]]);
                seal(DATA, &[b"behind the end"]);
                "the end"
            }
            53 => {
                seal(ALERT, &[&[2, 40]]);
                "a fatal alert"
            }
            54 => {
                let wrong: &[u8] = [&[3, 0][..], &[1], &[], &[1, 0, 0]][usize::try_from(random.below(4)).unwrap()];
                seal(ALERT, &[wrong]);
                "a wrong alert"
            }
            55 | 56 if version == Version::Tls12 => {
                seal(HANDSHAKE, &[&self.hello]);
                "a handshake anew"
            }
            57 => {
                let kind = [HANDSHAKE, 20, 24, 99][usize::try_from(random.below(4)).unwrap()];
                seal(kind, &[&[4, 0, 0, 0]]);
                "what no client sends"
            }
            58 => {
                for _ in 0..34 {
                    seal(DATA, &[]);
                }
                "many empty records"
            }
            59 => {
                seal(DATA, &[&[0; 16_384], b"x"]);
                "a record that is too long"
            }
            60 => {
                let records: [&[u8]; 6] = [
                    b"\x14\x03\x03\x00\x01\x01",
                    b"\x17\x03\x03\x48\x00",
                    b"\x17\x03\x03\x00\x00",
                    b"\x16\x03\x03\x00\x00",
                    b"\x17\x02\x03\x00\x01a",
                    b"GET / HTTP/1.1\r\n",
                ];
                to.extend(records[usize::try_from(random.below(6)).unwrap()]);
                "what is no record of ours"
            }
            61 => {
                for _ in 0..random.below(40) {
                    if version == Version::Tls13 {
                        peer.seal(HANDSHAKE, &[&[24, 0, 0, 1, 1]], &mut to).unwrap();
                        peer.update().unwrap();
                    }
                }
                "many key updates"
            }
            _ => {
                seal(DATA, &[b"damaged"]);
                let at = usize::try_from(random.below(u64::try_from(to.len()).unwrap())).unwrap();
                to[at] ^= 1 << random.below(8);
                "damaged"
            }
        };
        (name, to)
    }

    /// Both get it, in the same pieces; whether they can go on.
    fn hear(&mut self, name: &str, bytes: &[u8], random: &mut Random) -> bool {
        let mut at = 0;
        while at < bytes.len() {
            let left = u64::try_from(bytes.len() - at).unwrap();
            let piece = if random.below(2) == 0 { left } else { 1 + random.below(left) };
            let piece = usize::try_from(piece).unwrap();
            let theirs = self.rustls_hears(&bytes[at..at + piece]);
            let ours = self.ours_hears(&bytes[at..at + piece], random);
            at += piece;
            assert_eq!(theirs.plain.len(), ours.plain.len());
            assert!(theirs.plain == ours.plain, "the same bytes");
            assert_eq!(theirs.ended, ours.ended, "{name}: {theirs:?} {ours:?}");
            assert_eq!(theirs.failed.is_some(), ours.failed.is_some(), "{name}: {theirs:?} {ours:?}");
            if theirs.failed.is_some() {
                let (theirs_sent, ours_sent) = (taken(&mut self.rustls), taken_of_ours(&mut self.ours));
                // some failures rustls is silent about, and some it has another word for
                let same = ours_sent.starts_with(&theirs_sent);
                assert!(same || OTHER_WORDS.contains(&name), "{name}: {theirs:?} {ours:?}");
                return false;
            }
            if theirs.ended {
                return true;
            }
        }
        true
    }

    fn rustls_hears(&mut self, mut bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        self.begun.extend_from_slice(bytes);
        while let Some(&[_, _, _, high, low]) = self.begun.first_chunk() {
            let length = 5 + usize::from(u16::from_be_bytes([high, low]));
            if self.begun.len() < length {
                break;
            }
            let record: Vec<_> = self.begun.drain(..length).collect();
            self.recent.note(&record);
        }
        loop {
            let read = self.rustls.read_tls(&mut bytes).unwrap();
            let state = self.rustls.process_new_packets();
            let mut space = [0; 4096];
            while let Ok(read @ 1..) = self.rustls.reader().read(&mut space) {
                heard.plain.extend_from_slice(&space[..read]);
            }
            match state {
                Ok(state) => heard.ended = state.peer_has_closed(),
                Err(error) => {
                    heard.failed = Some(error.to_string());
                    return heard;
                }
            }
            if read == 0 || bytes.is_empty() {
                return heard;
            }
        }
    }

    fn ours_hears(&mut self, bytes: &[u8], random: &mut Random) -> Heard {
        let mut heard = Heard::default();
        let mut received = bytes.to_vec();
        loop {
            let mut space = vec![0; 1 + usize::try_from(random.below(20_000)).unwrap()];
            let mut buf = ReadBuf::new(&mut space);
            let read = self.ours.read(&mut received, &mut buf);
            received.clear();
            heard.plain.extend_from_slice(buf.filled());
            match read {
                Ok(true) if buf.filled().is_empty() => {
                    heard.ended = true;
                    return heard;
                }
                Ok(true) => {}
                Ok(false) => return heard,
                Err(error) => {
                    heard.failed = Some(error.to_string());
                    return heard;
                }
            }
        }
    }

    /// Both send the same.
    fn write(&mut self, bytes: &[u8], pieces: usize) {
        self.rustls.writer().write_all(bytes).unwrap();
        let theirs = taken(&mut self.rustls);
        let bufs: Vec<_> = bytes.chunks(bytes.len().div_ceil(pieces).max(1)).map(IoSlice::new).collect();
        assert_eq!(self.ours.write(&bufs).unwrap(), bytes.len());
        let ours = taken_of_ours(&mut self.ours);
        assert!(theirs == ours, "{} bytes in {pieces}: {} and {}", bytes.len(), theirs.len(), ours.len());
    }

    fn moves(&mut self) {
        self.ours = moved(&self.ours);
    }

    /// What rustls hands out in the end is what we have.
    pub(super) fn compare(mut self) {
        // the answer to a key update
        self.write(b"x", 1);
        let layer = Layer::of(self.rustls, &self.captured, Vec::new(), &self.recent).unwrap();
        let [theirs, ours] = [&layer, &self.ours].map(|layer| {
            let mut fields = Fields::default();
            layer.pack(&mut fields);
            fields.into_bytes()
        });
        let keys = |bytes| {
            let all = Fields::read(bytes).unwrap();
            let same = |field: &Field| !matches!(field, Field::Sealed | Field::Seen);
            all.into_iter().filter(|(field, _)| same(field)).collect::<Vec<_>>()
        };
        assert!(keys(&theirs) == keys(&ours), "the same keys");
    }
}

#[derive(Debug, Default)]
struct Heard {
    plain: Vec<u8>,
    ended: bool,
    failed: Option<String>,
}

fn copy_with(material: &Material) -> Option<Material> {
    Material::new(material.cipher, material.key(), material.iv(), material.sequence())?.with_secret(material.secret()?)
}

fn moved(layer: &Layer) -> Layer {
    let mut fields = Fields::default();
    layer.pack(&mut fields);
    let bytes = fields.into_bytes();
    Layer::unpack(&Fields::read(&bytes).unwrap()).unwrap()
}

fn taken(rustls: &mut ServerConnection) -> Vec<u8> {
    let mut sent = Vec::new();
    while rustls.wants_write() {
        rustls.write_tls(&mut sent).unwrap();
    }
    sent
}

fn taken_of_ours(layer: &mut Layer) -> Vec<u8> {
    let sent = layer.to_send().to_vec();
    layer.sent(sent.len());
    sent
}

pub(super) fn server() -> ServerConfig {
    let pair = certs::pair();
    let chain = vec![CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
}

pub(super) fn clients() -> [Arc<ClientConfig>; SUITES.len()] {
    SUITES.map(|suite| {
        let mut config = (*certs::client_as(&VERSIONS, &[suite], &[], None)).clone();
        config.enable_secret_extraction = true;
        Arc::new(config)
    })
}

#[test]
fn both_hear_and_say_the_same() {
    let conversations =
        std::env::var("HANDOVER_TLS_CONVERSATIONS").map_or(CONVERSATIONS, |number| number.parse().unwrap());
    let server = server();
    let clients = clients();
    let mut said: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    let (mut failed, mut ended, mut compared, mut parts) = (0, 0, 0, 0);
    for number in 0..conversations {
        let mut random = Random(number);
        let client = &clients[usize::try_from(number).unwrap() % clients.len()];
        let mut conversation = Conversation::begin(&server, client);
        let mut goes_on = true;
        for step in 0..STEPS {
            match random.below(8) {
                0..=4 => {
                    let (name, bytes) = conversation.say(&mut random);
                    goes_on = conversation.hear(name, &bytes, &mut random);
                    said.entry(name).or_default()[usize::from(!goes_on)] += 1;
                }
                5 => conversation.moves(),
                _ => {
                    let length = usize::try_from(random.below(40_000)).unwrap();
                    let bytes = random.bytes(length);
                    conversation.write(&bytes, 1 + usize::try_from(step).unwrap() % 3);
                }
            }
            if !goes_on {
                failed += 1;
                break;
            }
        }
        if goes_on && number % 2 == 0 {
            parts += u64::from(!conversation.rest.is_empty());
            conversation.compare();
            compared += 1;
        } else if goes_on {
            conversation.rustls.send_close_notify();
            conversation.ours.close();
            assert_eq!(taken(&mut conversation.rustls), taken_of_ours(&mut conversation.ours), "the end");
            ended += 1;
        }
    }
    let text = format!(
        "{conversations} conversations: {failed} failed, {ended} ended, {compared} were compared, \
         {parts} in the middle of a key update; {said:?}"
    );
    tracing::info!(text);
    assert!(ended > conversations / 10 && compared > conversations / 10 && parts > conversations / 200, "{text}");
}
