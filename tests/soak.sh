#!/usr/bin/env bash
# soak.sh [RUNS]: the cluster tests RUNS times in a row (10), beside two busy loops, against the installed mesh of KUBECONFIG.
# A test that passes only on an idle machine fails here. Logs go to target/soak; last line: N passed, N failed.
set -uo pipefail
cd "$(dirname "$0")/.."
runs=${1:-10}
# A loop ends by itself after this many seconds, also when this script is killed.
readonly LOOP_SECONDS=36000
logs=target/soak
mkdir -p "$logs"
loops=()
trap '[ ${#loops[@]} = 0 ] || kill "${loops[@]}" 2>/dev/null' EXIT

cargo test --locked -p ambit-kind-tests --no-run || exit 1
for _ in 1 2; do
  timeout "$LOOP_SECONDS" sh -c 'while :; do :; done' &
  loops+=($!)
done

# A failed test leaves its namespaces, and the next run must not meet them.
clean() {
  "${KUBECTL:-kubectl}" get namespace -o name | grep -E -- '-(test|outside)$' |
    xargs -r "${KUBECTL:-kubectl}" delete --timeout=180s >/dev/null
}

printf '%4s %7s %7s %8s  %s\n' RUN PASSED FAILED SECONDS 'FAILED TESTS'
passed=0 failed=0
for run in $(seq "$runs"); do
  begin=$SECONDS log=$logs/$run.log
  clean
  cargo test --locked -p ambit-kind-tests --no-fail-fast -- --ignored --test-threads=1 > "$log" 2>&1
  status=$?
  ok=$(grep -cE '^test .* \.\.\. ok$' "$log")
  names=$(grep -oE '^test .* \.\.\. FAILED$' "$log" | awk '{ print $2 }')
  bad=$(grep -c . <<< "$names")
  # Nothing failed by name, and still it did not pass: it did not run.
  [ "$status" = 0 ] || [ "$bad" != 0 ] || bad=1 names="see $log"
  passed=$((passed + ok)) failed=$((failed + bad))
  printf '%4d %7d %7d %8d  %s\n' "$run" "$ok" "$bad" $((SECONDS - begin)) "$(tr '\n' ' ' <<< "$names")"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
