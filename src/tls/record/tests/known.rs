//! The records of RFC 8448, 3: "Simple 1-RTT Handshake".

use crate::tls::record::keys::{Cipher, Material};
use crate::tls::record::{Layer, Version};
use std::io::IoSlice;
use tokio::io::ReadBuf;

const CLIENT_SECRET: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const CLIENT_KEY: &str = "17422dda596ed5d9acd890e3c63f5051";
const CLIENT_IV: &str = "5b78923dee08579033e523d9";
const SERVER_SECRET: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
const SERVER_KEY: &str = "9f02283b6c9c07efc26bb9f2ac92e356";
const SERVER_IV: &str = "cf782b88dd83549aadf1e984";
const CLIENT_DATA: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b6297\
                           4e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const SERVER_DATA: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc4\
                           9c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const CLIENT_END: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
const SERVER_END: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn material(key: &str, iv: &str, sequence: u64, secret: &str) -> Material {
    let material = Material::new(Cipher::Aes128Gcm, &bytes(key), &bytes(iv), sequence).unwrap();
    let material = material.with_secret_from(&bytes(secret));
    assert_eq!(material.secret().map(<[u8]>::to_vec), Some(bytes(secret)), "the key is made from it");
    material
}

#[test]
fn records_are_those_of_the_rfc() {
    let client = || material(CLIENT_KEY, CLIENT_IV, 0, CLIENT_SECRET);
    // its first record was a ticket
    let server = || material(SERVER_KEY, SERVER_IV, 1, SERVER_SECRET);
    let sides = [
        (Layer::new(Version::Tls13, client(), server()).unwrap(), CLIENT_DATA, CLIENT_END, SERVER_DATA, SERVER_END),
        (Layer::new(Version::Tls13, server(), client()).unwrap(), SERVER_DATA, SERVER_END, CLIENT_DATA, CLIENT_END),
    ];
    let data: Vec<u8> = (0..50).collect();
    for (mut layer, theirs, their_end, ours, our_end) in sides {
        let mut space = [0; 100];
        let mut buf = ReadBuf::new(&mut space);
        assert!(layer.read(&mut bytes(theirs), &mut buf).unwrap());
        assert_eq!(buf.filled(), data);
        assert_eq!(layer.write(&[IoSlice::new(&data)]).unwrap(), data.len());
        layer.close();
        assert_eq!(layer.to_send(), [bytes(ours), bytes(our_end)].concat());
        assert!(layer.read(&mut bytes(their_end), &mut buf).unwrap() && layer.end(), "it has said so");
    }
}

#[test]
fn a_record_of_another_is_refused() {
    let client = material(CLIENT_KEY, CLIENT_IV, 0, CLIENT_SECRET);
    let server = material(SERVER_KEY, SERVER_IV, 1, SERVER_SECRET);
    let mut layer = Layer::new(Version::Tls13, client, server).unwrap();
    let mut space = [0; 100];
    let mut record = bytes(CLIENT_DATA);
    *record.last_mut().unwrap() ^= 1;
    let error = layer.read(&mut record, &mut ReadBuf::new(&mut space)).unwrap_err();
    assert!(error.to_string().contains("cannot be decrypted (alert 20)"), "{error}");
    assert_eq!(layer.to_send().len(), 5 + 2 + 1 + 16, "the client is told");
    assert!(layer.read(&mut bytes(CLIENT_DATA), &mut ReadBuf::new(&mut space)).is_err(), "for ever");
    assert!(layer.write(&[IoSlice::new(b"x")]).is_err());
}
