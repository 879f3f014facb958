#!/usr/bin/env bash
# Installs what building and running Viva needs, and skips what is there.
# Usage: scripts/setup.sh [--test]     --test adds what the tests need (Chromium, a speech recogniser, coturn, sound tools)
# Written for Debian 12. Runs as root, or as a user with sudo.
. "$(dirname "$0")/lib.sh"

TEST=0
for arg in "$@"; do
	case $arg in
	--test) TEST=1 ;;
	*) die "unknown option $arg; the only option is --test" ;;
	esac
done

# whisper.cpp and Opus are compiled (cmake, clang for the bindings), espeak-ng is the fallback voice.
PACKAGES=(build-essential cmake clang libclang-dev pkg-config git curl ca-certificates python3-venv espeak-ng)
# nftables and iproute2 make the strict networks of some tests; libnss3-tools has certutil, for authorities that Chromium trusts.
TEST_PACKAGES=(chromium pocketsphinx pocketsphinx-en-us sox ffmpeg sqlite3 simple-whip-client gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice python3-gi gir1.2-gst-plugins-bad-1.0 coturn nftables iproute2 openssl libnss3-tools)
NODE_MIN=18
# What is installed where Rust is missing or too old: the checks pass with it; a newer clippy may know more lints.
RUST_TESTED=1.95.0
RUST_MIN=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

system_packages() {
	local wanted=("${PACKAGES[@]}") missing=() package
	[ "$TEST" = 1 ] && wanted+=("${TEST_PACKAGES[@]}")
	if ! have node || ! at_least "$(node --version | tr -d v)" "$NODE_MIN"; then wanted+=(nodejs npm); fi
	if ! have apt-get; then
		note "this is no Debian: please see to it that these are installed: ${wanted[*]}"
		return
	fi
	for package in "${wanted[@]}"; do installed "$package" || missing+=("$package"); done
	[ ${#missing[@]} = 0 ] && return
	local sudo=()
	if [ "$(id -u)" != 0 ]; then
		have sudo || die "these packages are missing and there is no sudo: ${missing[*]}. Install them as root, then run this again."
		sudo=(sudo)
	fi
	say "Installing system packages: ${missing[*]}"
	"${sudo[@]}" apt-get update -q
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

rust() {
	if have cargo && at_least "$(cargo --version | cut -d' ' -f2)" "$RUST_MIN" && { [ "$TEST" = 0 ] || have cargo-clippy; }; then return; fi
	if have rustup; then
		say "Updating Rust (this needs $RUST_MIN or newer)"
		rustup toolchain install "$RUST_TESTED" --profile minimal --component clippy --component rustfmt
		rustup default "$RUST_TESTED"
	else
		say "Installing Rust with rustup"
		curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh |
			sh -s -- -y --default-toolchain "$RUST_TESTED" --profile minimal --component clippy --component rustfmt --no-modify-path
		PATH="$HOME/.cargo/bin:$PATH"
	fi
	at_least "$(cargo --version | cut -d' ' -f2)" "$RUST_MIN" || die "Rust $RUST_MIN or newer is needed, and $(cargo --version) was found first on the PATH. Remove the older one or put ~/.cargo/bin first."
}

# Installs a list of Python packages into .venv, or another environment, where the list has changed since.
python_packages() {
	local requirements=$1 venv=${2:-.venv} stamp sum
	[ -f "$requirements" ] || return 0
	stamp=$venv/.viva-$(tr / - <<<"$requirements")
	sum=$(checksum "$requirements")
	stamped "$stamp" "$sum" && return
	say "Installing the Python packages of $requirements into $venv"
	[ -x "$venv/bin/python" ] || python3 -m venv "$venv" || return
	"$venv/bin/python" -m pip install --disable-pip-version-check -q -r "$requirements" || return
	echo "$sum" >"$stamp"
}

# npm ci in $1, where its lock file has changed since.
node_packages() {
	local dir=$1 sum
	[ -f "$dir/package-lock.json" ] || return 0
	sum=$(checksum "$dir/package-lock.json")
	stamped "$dir/node_modules/.viva-packages" "$sum" && return
	say "Installing the packages of $dir"
	(cd "$dir" && npm ci --no-audit --no-fund)
	echo "$sum" >"$dir/node_modules/.viva-packages"
}

system_packages
rust
if ! python_packages scripts/requirements.txt; then
	[ "$TEST" = 0 ] || die "pip could not install scripts/requirements.txt"
	note "pip could not install the ONNX Runtime library; the interviewer will speak with espeak-ng instead of Piper"
fi
node_packages web
if [ "$TEST" = 1 ]; then
	python_packages tests/interop/requirements.txt || die "pip could not install tests/interop/requirements.txt"
	# It pins an older SDK than the one that the other tests run.
	python_packages tests/interop/requirements-agents.txt .venv-agents ||
		die "pip could not install tests/interop/requirements-agents.txt"
	node_packages tests/e2e
fi
say "Everything that Viva needs is installed"
