# What both scripts need: the place, the compiler, the names of the targets, and the limits of an input.
cd "$(dirname "${BASH_SOURCE[0]}")"
CARGO=(cargo "+${PEERAGE_NIGHTLY:-nightly}")

need() { printf 'fuzz: %s\n' "$1" >&2; exit 2; }

"${CARGO[@]}" --version >/dev/null 2>&1 ||
    need "a nightly compiler is needed: rustup toolchain install nightly (or name one that is there in PEERAGE_NIGHTLY)"
cargo fuzz --version >/dev/null 2>&1 || need 'cargo-fuzz is needed: cargo install cargo-fuzz --locked'
command -v c++ >/dev/null || need 'a C++ compiler is needed, for libFuzzer: on Debian, apt-get install g++'

ALL=()
for file in fuzz_targets/*.rs; do
    ALL+=("$(basename "$file" .rs)")
done
known() { [[ -e fuzz_targets/$1.rs ]] || need "there is no target $1; there are: ${ALL[*]}"; }

# Built once, so that one run tests one state of the sources.
build() {
    mkdir -p out
    if ! "${CARGO[@]}" fuzz build >out/build.log 2>&1; then
        tail -n 30 out/build.log >&2
        need 'the targets cannot be built; the whole output is in fuzz/out/build.log'
    fi
}

host=$(rustc "+${PEERAGE_NIGHTLY:-nightly}" -vV | sed -n 's/^host: //p')
fuzzer() {
    local target=$1
    shift
    mkdir -p "artifacts/$target"
    ASAN_OPTIONS=detect_odr_violation=0 "${CARGO_TARGET_DIR:-target}/$host/release/$target" \
        "${LIMITS[@]}" -artifact_prefix="artifacts/$target/" "$@" >"out/$target.log" 2>&1
}
LIMITS=(-max_len=4096 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64)
