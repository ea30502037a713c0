//! Parts of messages of the handshake.

use super::differential::{Conversation, clients, server};

/// It is refused when it is whole, and until then what there is of it is waited with.
#[test]
fn a_part_of_what_is_no_key_update_goes_along() {
    // the first has a suite of TLS 1.3
    let [client, ..] = clients();
    let mut conversation = Conversation::begin(&server(), &client);
    assert!(conversation.hears_a_part(&[24, 0, 0]));
    assert!(conversation.hears_a_part(&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]));
    conversation.compare();
}
