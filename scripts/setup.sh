#!/usr/bin/env bash
# Installs what is missing to build, run and test this project on Debian 12, and says what and why. What is there already is
# never touched; run it as often as you like. Without root it prints the exact commands instead.
#
#   scripts/setup.sh             to build and run (make devnet)
#   scripts/setup.sh --kernel    also the toolchain that rebuilds the BPF objects (cargo xtask kernel build|verify)
#   scripts/setup.sh --bench     also what the guard is compared with (make bench-guard)
#   scripts/setup.sh --browser   also a Chromium, in which the notebooks are tested (make test-jupyter-browser)
#   scripts/setup.sh --python    also a Python with an Ed25519 package for the foreign verifier, in $EBPF_VENV
set -euo pipefail

RUST_MIN=95          # 1.95: rust-version in Cargo.toml
BPF_LINKER=0.13.0    # the version in objects.lock
LLVM=22              # the LLVM that bpf-linker and Debian's rustc-web share

kernel=no python=no bench=no browser=no
for option in "$@"; do
    case "$option" in
        --kernel) kernel=yes ;;
        --bench) bench=yes ;;
        --python) python=yes ;;
        --browser) browser=yes ;;
        *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done

packages=()
say() { printf 'setup: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }
installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# need PACKAGE "why" TEST...: notes a package when the test fails.
need() {
    local package=$1 why=$2
    shift 2
    if ! "$@"; then
        say "missing $package: $why"
        packages+=("$package")
    fi
}

rust_ok() {
    local minor
    minor=$(cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p')
    [ -n "$minor" ] && [ "$minor" -ge "$RUST_MIN" ] && have rustc
}
libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null; }
xdp_filter() { compgen -G '/usr/lib/*/bpf/xdpfilt_alw_all.o' >/dev/null; }
a_chromium() { have chromium || have chromium-browser || have google-chrome; }
fonts() { compgen -G '/usr/share/fonts/truetype/*' >/dev/null; }
venv_module() { /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null; }

need g++ "compiles RocksDB" have g++
need make "the two commands are make targets" have make
need pkg-config "finds C libraries for crates" have pkg-config
need cmake "some crates build their C code with it" have cmake
need libclang-dev "bindgen reads RocksDB's header with it" libclang
need ccache "keeps RocksDB's objects over clean builds (16 minutes on two cores)" have ccache
need iproute2 "the devnet's namespaces, bridge and veth pairs" have ip
need ca-certificates "downloads of crates" test -d /etc/ssl/certs
if ! rust_ok; then
    need cargo-web "Debian's Rust, at least 1.$RUST_MIN (a rustup toolchain of your own is as good)" installed cargo-web
    need rustc-web "the same" installed rustc-web
    need rustfmt-web "cargo fmt" installed rustfmt-web
    need rust-web-clippy "cargo clippy" installed rust-web-clippy
fi
if [ "$kernel" = yes ]; then
    need rustc-web "a Rust with the BPF target" installed rustc-web
    need libstd-rust-web-dev-bpf "its core library for BPF" installed libstd-rust-web-dev-bpf
    need "llvm-$LLVM-dev" "bpf-linker links against it" installed "llvm-$LLVM-dev"
    need "llvm-$LLVM" "strips the objects" have "llvm-strip-$LLVM"
    need "libpolly-$LLVM-dev" "llvm-config of LLVM $LLVM names it" installed "libpolly-$LLVM-dev"
    need zlib1g-dev "LLVM's libraries need it" installed zlib1g-dev
    need libzstd-dev "LLVM's libraries need it" installed libzstd-dev
    need bpftool "to look at loaded programs and maps" test -x /usr/sbin/bpftool
    need systemd "systemd-analyze checks the units" have systemd-analyze
fi
if [ "$bench" = yes ]; then
    need nftables "drops the same flood at ingress" test -x /usr/sbin/nft
    need iptables "drops the same flood in its table raw" test -x /usr/sbin/iptables-legacy
    need xdp-tools "brings xdp-filter's programs" xdp_filter
    need ethtool "gives a veth pair a NAPI" test -x /usr/sbin/ethtool
fi
if [ "$browser" = yes ]; then
    need chromium "shows the notebooks to their tests" a_chromium
    need fonts-dejavu-core "letters for it" fonts
fi
if [ "$python" = yes ]; then
    need python3 "runs the foreign verifier" test -x /usr/bin/python3
    need python3-venv "keeps its package apart from the system's" venv_module
fi

if [ "${#packages[@]}" -gt 0 ]; then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    if [ "$(id -u)" != 0 ]; then
        say "not root. Please run:"
        printf '    sudo apt-get update && sudo apt-get install --no-install-recommends %s\n' "${packages[*]}"
        exit 1
    fi
    if ! have apt-get; then
        say "no apt-get here; install the equivalents of: ${packages[*]}"
        exit 1
    fi
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null || say "apt-get update failed; trying with the lists at hand"
    apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null
fi

if [ "$kernel" = yes ] && ! have bpf-linker && ! [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/bpf-linker" ]; then
    say "missing bpf-linker $BPF_LINKER: links the BPF objects; building it takes a few minutes"
    LLVM_PREFIX=$("llvm-config-$LLVM" --prefix) \
        cargo install -q bpf-linker --locked --version "$BPF_LINKER" --no-default-features --features "llvm-$LLVM"
fi

bin=${CARGO_HOME:-$HOME/.cargo}/bin
if [ "$kernel" = yes ] && ! have promtool && ! [ -x "$bin/promtool" ]; then
    say "missing promtool: checks the guard's metrics page; taken out of Debian's package prometheus, without its daemon"
    folder=$(mktemp -d)
    chmod 755 "$folder"
    (cd "$folder" && apt-get download -q prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb .) || say "promtool can't be had: its test is skipped"
    [ ! -x "$folder/usr/bin/promtool" ] || install -D -m 755 "$folder/usr/bin/promtool" "$bin/promtool"
    rm -rf "$folder"
fi

if [ "$python" = yes ]; then
    venv=${EBPF_VENV:-target/venv}
    if ! "$venv/bin/python3" -c 'import cryptography' 2>/dev/null; then
        say "missing $venv: a Python with the package cryptography, for the foreign verifier"
        /usr/bin/python3 -m venv "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check cryptography
    fi
fi
say "ready"
