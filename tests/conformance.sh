#!/usr/bin/env bash
# conformance.sh [--control]: the Gateway API's mesh conformance suite against the installed mesh; with --control where no
# mesh is, where all but plain requests must fail. Events and report go to target/conformance.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/kind/gateway-api.sh
suite=$(tests/kind/conformance/build.sh)
tests/kind/load.sh "$suite/echo.tar"
cargo run --locked --quiet -p ambit-kind-tests --bin conformance -- "$@" "$suite/mesh.test" "$PWD/target/conformance"
