# Shared by the scripts beside it: finds the tools a script needs, or says in one line what to install.
# Sourced, never run. It leaves `root`, the top of the checkout, as the current directory.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Installs Debian packages where that needs no question asked: as root, on a system with apt.
# Elsewhere it is the reader who installs, so one line says what.
install_packages() {
  local why=$1; shift
  if [ "$(id -u)" != 0 ] || ! have apt-get; then
    die "$why is missing; on Debian or Ubuntu: sudo apt-get install $*"
  fi
  say "installing $* ($why is missing)"
  [ -n "${apt_updated:-}" ] || DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2
  apt_updated=1
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2 </dev/null \
    || die "$why is missing and apt-get could not install $*"
}

need_cargo() {
  have cargo || PATH="$HOME/.cargo/bin:$PATH"
  have cargo || die "Rust is missing: install rustup (Debian's package 'rustup', or rustup's own installer), then 'rustup toolchain install $(toolchain)'"
  have cc || install_packages "a C compiler" build-essential
}

# The pinned compiler, as rust-toolchain.toml names it.
toolchain() { sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml"; }

need_python() {
  have python3 || install_packages "Python 3" python3 python3-venv
}

# A Python that can make virtual environments (Debian ships that part on its own).
need_venv() {
  need_python
  python3 -c 'import venv, ensurepip' 2>/dev/null || install_packages "Python's venv" python3-venv
}

# Node.js 18 or later, the oldest with a test runner of its own and fetch.
need_node() {
  { have node && have npm; } || install_packages "Node.js" nodejs npm
  [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ] || die "Node.js is too old: 18 or later is needed"
}
