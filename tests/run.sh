#!/usr/bin/env bash
# run.sh STAGE...: unit, netns, cluster (brings up, installs, then e2e), e2e (an installed cluster), conformance.
# Without an installed mesh the cluster tests are not run: the stage that broke is the failure.
# Prints what each stage prints and, last, the sum of all test lines: "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
broken=()
# Seconds that one test program may take. libtest names a test that runs for over a minute; a program that ends here has
# no result, and its stage fails. Cluster tests wait for nothing without a limit of its own.
PROGRAM_SECONDS_MAX=600
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
limited="CARGO_TARGET_${host}_RUNNER=timeout $PROGRAM_SECONDS_MAX"

stage() { # NAME COMMAND...
  local name=$1 begin=$SECONDS
  shift
  echo "== $name"
  if ! "$@" 2>&1 | tee -a "$log"; then broken+=("$name"); fi
  echo "== $name took $((SECONDS - begin))s"
}

for wanted in "$@"; do
  case $wanted in
    unit) stage unit env "$limited" cargo test --locked --workspace --no-fail-fast ;;
    # Tests that make namespaces, cgroups and BPF links of their own: one at a time. Cluster tests are another stage.
    netns) stage netns env "$limited" cargo test --locked --workspace --exclude ambit-kind-tests --no-fail-fast -- --ignored --test-threads=1 ;;
    cluster)
      stage install make --no-print-directory install gateway-api providers
      case " ${broken[*]} " in *" install "*) continue ;; esac
      stage e2e cargo test --locked -p ambit-kind-tests --no-fail-fast -- --ignored --test-threads=1
      ;;
    e2e) stage e2e cargo test --locked -p ambit-kind-tests --no-fail-fast -- --ignored --test-threads=1 ;;
    conformance) stage conformance make --no-print-directory conformance ;;
    *) echo "unknown stage $wanted: unit, netns, cluster, e2e or conformance" >&2; exit 2 ;;
  esac
done

# Cargo says "test result: ok. 3 passed; 0 failed; ...", conformance "22 passed, 0 failed".
count() {
  awk -v word="$1" '/^test result:|^[0-9]+ passed, [0-9]+ failed$/ {
    for (i = 2; i <= NF; i++) { said = $i; gsub(/[,;]/, "", said); if (said == word) n += $(i - 1) }
  } END { print n + 0 }' "$log"
}
passed=$(count passed) failed=$(count failed)
# A stage that broke without a failing test (it did not compile, the cluster did not come up) is a failure too.
[ "${#broken[@]}" = 0 ] || { echo "failed: ${broken[*]}"; [ "$failed" != 0 ] || failed=${#broken[@]}; }
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
