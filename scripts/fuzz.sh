#!/usr/bin/env bash
# Runs libFuzzer on every parser of src/fuzzing.rs, this many seconds each: fuzz.sh SECONDS [TARGET...]
# What it finds is in fuzz/artifacts/; an input that failed goes into the target's seeds once it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."

secs=${1:-60}
shift || true
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v '^viva-fuzz$')
fi
VIVA_FUZZ_SEEDS="$PWD/fuzz/corpus" cargo test --locked --quiet --test fuzz_bodies the_seeds_get_far >/dev/null
for target in "${targets[@]}"; do
    echo "== $target"
    # A slow input is a hang in the making; parsers take microseconds.
    cargo +nightly fuzz run "$target" -- -max_total_time="$secs" -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 2>&1 |
        grep -E 'stat::|ERROR|panicked|SUMMARY|Test unit' || true
    if compgen -G "fuzz/artifacts/$target/*" >/dev/null; then
        echo "$target failed: see fuzz/artifacts/$target" >&2
        exit 1
    fi
done
