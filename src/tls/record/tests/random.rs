//! What a conversation is made of, by a seed that says which one it is.

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    pub(super) fn length(&mut self) -> usize {
        let length = match self.below(8) {
            0 => 0,
            1 => 16_384,
            2 => self.below(16_385),
            _ => self.below(200),
        };
        usize::try_from(length).unwrap()
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let first = self.below(256);
        (first..).take(length).map(|n| u8::try_from(n % 256).unwrap()).collect()
    }
}
