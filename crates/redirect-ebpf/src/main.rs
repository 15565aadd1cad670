//! The kernel's half of redirection: capture what a pod opens, steer what reaches it.
//!
//! Whatever cannot be captured is refused: no program lets a connection out because something was missing, except that
//! a network namespace absent from `PODS` is none of our business.

#![no_std]
#![no_main]

mod capture;
mod connect4;
mod connect6;
mod ctx;
mod forward;
mod inpod;
mod maps;
mod packet;
mod probe;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The helpers that set socket options are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
