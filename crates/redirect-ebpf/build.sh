#!/usr/bin/env bash
# Builds the kernel programs: `build.sh` writes the object that is committed, `build.sh check` compares it with a fresh one.
#
# The same source gives the same bytes in every clone: no debug information, and paths remapped.
set -euo pipefail
cd "$(dirname "$0")"

here=$(pwd -P)
object=$here/ambit-redirect.o
target=bpfel-unknown-none
work=${CARGO_TARGET_DIR:-$here/target}

need() { # file or command, then what brings it
    command -v "$1" >/dev/null || [ -e "$1" ] || { printf 'missing: %s\n  run: %s\n' "$1" "$2" >&2; exit 1; }
}
apt='apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev libpolly-22-dev'
need /usr/bin/rustc "$apt"
need /usr/bin/cargo "$apt"
need /usr/lib/rustlib/$target "$apt"
need bpf-linker 'LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0'

# rustup's cargo would pick another compiler through these.
unset RUSTUP_TOOLCHAIN RUSTC_WRAPPER RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$work
export CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER=bpf-linker
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
export CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS="--cfg bpf_target_arch=\"x86_64\" \
--remap-path-prefix=$(dirname "$here")=/crates --remap-path-prefix=$registry=/registry"
/usr/bin/cargo build --quiet --locked --release --target $target
built=$work/$target/release/ambit-redirect

case ${1:-build} in
build)
    cp "$built" "$object"
    chmod 644 "$object"
    printf 'wrote %s (%s bytes)\n' "${object#"$here"/}" "$(stat -c %s "$object")"
    ;;
check)
    cmp "$built" "$object" || { echo 'the committed object is not what the source gives; run: make ebpf' >&2; exit 1; }
    echo 'the committed object is what the source gives'
    ;;
*)
    echo "usage: ${0##*/} [check]" >&2
    exit 2
    ;;
esac
