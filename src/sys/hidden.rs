//! Values in memory that is in no core dump, and is wiped when they are dropped.
//!
//! # References
//! mmap(2), madvise(2) `MADV_DONTDUMP`.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

use crate::sys::secret::wipe;

/// The room for one value.
const SLOT: usize = 896;
/// Slots are made so many at once; a multiple of every page size.
const BLOCK: usize = 448 * 1024;
/// What a value may need at most; pages and slots are aligned to more.
const ALIGN: usize = 64;

/// A value in such memory.
#[derive(Debug)]
pub(crate) struct Hidden<T> {
    slot: NonNull<u8>,
    value: PhantomData<T>,
}

// SAFETY: it owns its value, as a box does.
unsafe impl<T: Send> Send for Hidden<T> {}
// SAFETY: it lends its value as a box does.
unsafe impl<T: Sync> Sync for Hidden<T> {}

/// Slots that are free. Blocks live as long as the process.
struct Free(Vec<NonNull<u8>>);

// SAFETY: nobody else has a pointer to a free slot.
unsafe impl Send for Free {}

static FREE: Mutex<Free> = Mutex::new(Free(Vec::new()));

fn free() -> MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take() -> io::Result<NonNull<u8>> {
    let mut free = free();
    if let Some(slot) = free.0.pop() {
        return Ok(slot);
    }
    let length = NonZeroUsize::new(BLOCK).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: new memory, which nobody has.
    let block =
        unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)? };
    // SAFETY: this block is ours, and the advice changes nothing that it holds.
    unsafe { madvise(block, BLOCK, MmapAdvise::MADV_DONTDUMP)? };
    // SAFETY: each slot is within the block.
    let slots = (0..BLOCK / SLOT).map(|n| unsafe { block.cast::<u8>().add(n * SLOT) });
    free.0.extend(slots);
    free.0.pop().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl<T> Hidden<T> {
    const FITS: () =
        assert!(size_of::<T>() <= SLOT && ALIGN.is_multiple_of(align_of::<T>()) && SLOT.is_multiple_of(ALIGN));

    /// Puts the value there.
    ///
    /// # Errors
    /// There is no memory.
    pub(crate) fn new(value: T) -> io::Result<Self> {
        let () = Self::FITS;
        let slot = take()?;
        // SAFETY: the slot is ours alone from now on, large enough, and aligned.
        unsafe { slot.cast::<T>().write(value) };
        Ok(Self { slot, value: PhantomData })
    }
}

impl<T> Deref for Hidden<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the slot holds a value for as long as this lives.
        unsafe { self.slot.cast().as_ref() }
    }
}

impl<T> DerefMut for Hidden<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the slot holds a value for as long as this lives, and nobody else has it.
        unsafe { self.slot.cast().as_mut() }
    }
}

impl<T> Drop for Hidden<T> {
    fn drop(&mut self) {
        // SAFETY: it holds a value, which nobody sees any more.
        unsafe { self.slot.cast::<T>().drop_in_place() };
        // SAFETY: these bytes are ours; what they held is gone, and any bytes are valid ones.
        wipe(unsafe { std::slice::from_raw_parts_mut(self.slot.as_ptr(), size_of::<T>()) });
        free().0.push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the mapping that an address is in: "dd" among its flags says that it is not dumped.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((Ok(from), Ok(to))) =
                range.map(|(from, to)| (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)))
            {
                inside = (from..to).contains(&address);
            }
            if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.to_owned();
            }
        }
        panic!("no mapping has {address:x}");
    }

    #[test]
    fn values_are_in_no_core_and_their_memory_is_used_again() {
        let one = Hidden::new([7_u8; 600]).unwrap();
        let address = one.slot.as_ptr() as usize;
        assert!(flags(address).split(' ').any(|flag| flag == "dd"), "{}", flags(address));
        assert!(one.iter().all(|byte| *byte == 7));
        let many: Vec<_> = (0..2000_u32).map(|n| Hidden::new([n; 100]).unwrap()).collect();
        assert!(many.iter().zip(0..).all(|(value, n)| value.iter().all(|m| *m == n)), "none is in another's place");
        drop(one);
        drop(many);
        assert!((0..2000).all(|_| Hidden::new(0_u64).is_ok_and(|zero| *zero == 0)));
    }
}
