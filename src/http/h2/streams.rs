//! The streams of a connection that are not over.

/// The client has sent all of its request.
const CLIENT: u8 = 1;
/// All of the answer is sent.
const SERVER: u8 = 2;

/// They are few, and the latest is opened last: a list in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct OpenStreams(Vec<(u32, u8)>);

impl OpenStreams {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn first(&self) -> Option<u32> {
        self.0.first().map(|(id, _)| *id)
    }

    pub(super) fn latest(&self) -> Option<u32> {
        self.0.last().map(|(id, _)| *id)
    }

    /// Notes a new one, whose id is above all before.
    #[inline]
    pub(super) fn open(&mut self, id: u32, client_done: bool) {
        self.0.push((id, if client_done { CLIENT } else { 0 }));
    }

    #[inline]
    pub(super) fn client_done(&mut self, id: u32) {
        self.done(id, CLIENT);
    }

    #[inline]
    pub(super) fn server_done(&mut self, id: u32) {
        self.done(id, SERVER);
    }

    /// Notes that nothing more is sent on it, by either side.
    pub(super) fn reset(&mut self, id: u32) {
        self.done(id, CLIENT | SERVER);
    }

    #[inline]
    fn done(&mut self, id: u32, who: u8) {
        if let Ok(at) = self.0.binary_search_by_key(&id, |(id, _)| *id)
            && let Some((_, done)) = self.0.get_mut(at)
        {
            *done |= who;
            if *done == CLIENT | SERVER {
                self.0.remove(at);
            }
        }
    }
}
