#!/usr/bin/env bash
# Installs the Debian packages and cargo tools that building and testing need and that are missing.
set -euo pipefail
# BPF: a rustc with a prebuilt core for the BPF target, and the LLVM that bpf-linker links.
packages=(cmake gcc iproute2 iptables nftables make openssl pkg-config python3
  rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev libpolly-22-dev)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" != 0 ]; then
  echo "installing ${missing[*]}"
  apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
tools=${AMBIT_CACHE:-$HOME/.cache/ambit}/tools

# tool NAME VERSION: a cargo tool into the cache, unless it is there in this version
tool() {
  if "$tools/bin/$1" --version 2>/dev/null | grep -qF "$2"; then return; fi
  echo "building $1 $2"
  LLVM_PREFIX=/usr/lib/llvm-22 cargo install --quiet --locked --root "$tools" "$1" --version "$2"
}
tool bpf-linker 0.13.0
tool cargo-deny 0.20.2
