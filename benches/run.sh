#!/bin/sh
# All benches, in release, one after the other; then one document with every table. Ratios against floors that were measured
# in the same run; nothing is asserted. Arguments are benches to run instead of all.
set -eu
cd "$(dirname "$0")/.."
QUIETUS_BENCH_TABLE=$(mktemp)
export QUIETUS_BENCH_TABLE
trap 'rm -f "$QUIETUS_BENCH_TABLE"' EXIT
[ $# -gt 0 ] || set -- segments keys journal ingest scale backup
for bench in "$@"; do
    cargo bench --locked --bench "$bench"
done
echo
echo "================ all benches, $(nproc) processors ================"
cat "$QUIETUS_BENCH_TABLE"
