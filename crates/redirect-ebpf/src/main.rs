//! The eBPF programs of redirection: they capture outbound connections of a pod and steer inbound
//! ones.
//!
//! A connection that cannot be captured is refused: no program lets one out because something was
//! missing. A network namespace without an entry in `PODS` is not in the mesh and is left alone.

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

// The helpers that set socket options are available to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
