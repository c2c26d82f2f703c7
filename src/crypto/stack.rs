//! What a computation with a secret leaves on the stack.
//!
//! The heap is wiped as it is freed, by the allocator of the program. A stack is not: what a function had in its frame, and
//! what moving a value left behind, stays until a later call happens to write there, and a thread that waits for work keeps it
//! for hours. Key derivation and ciphers work on the stack, in code that is not ours and wipes nothing (`ring` keeps the
//! state of HMAC, the derived key and the expanded key schedule in values that it moves). So all that handles a key in clear
//! on the stack runs inside [`wiped`], which overwrites what lay below when it is done, and what comes back is boxed: a move
//! copies a pointer.
//!
//! By cases, where a key in clear can be:
//! - *a [`Secret`](super::secret::Secret)*: a box, wiped when dropped, filled in place;
//! - *a key schedule*: in the box of a sealing or an opening key; the allocator wipes it;
//! - *on the way there*: in frames of [`super::label::derive`] and of `ring`, below [`wiped`];
//! - *a page that is decoded, a root that is read from a slot, a veil that is lifted*: below [`wiped`], in `keys`;
//! - *registers*, and what the kernel keeps of them while a thread waits: not ours to wipe.

use std::{cell::Cell, hint::black_box};

/// Bytes that are overwritten, which takes a fraction of a microsecond. What runs inside goes deeper only where it calls into
/// storage, which sees sealed bytes alone.
const DEPTH: usize = 16 << 10;

thread_local! {
    /// Whether this thread is inside [`wiped`].
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, then overwrites what it left on the stack. Inside of another it leaves that to the outer one, whose frame lies
/// above: so a page with hundreds of secrets is decoded, or sealed, for the price of one.
#[inline(never)]
pub fn wiped<R>(work: impl FnOnce() -> R) -> R {
    if INSIDE.get() {
        return work();
    }
    let inside = Inside::enter();
    let result = apart(work);
    drop(inside);
    overwrite();
    result
}

/// Being inside, which ends by a panic too.
struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.set(true);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// In a frame of its own, where the one of [`overwrite`] will lie.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[inline(never)]
fn overwrite() {
    // Somebody might look at it, as far as the compiler knows: so it is written.
    black_box(&mut [0_u8; DEPTH]);
}
