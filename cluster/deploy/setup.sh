#!/usr/bin/env bash
# Installs what Weft needs on a Debian 12 machine and makes the user that ranks run as. Idempotent: a
# second run finds everything there and changes nothing. Debian packages only.
#
#   setup.sh            build, run and test on this machine
#   setup.sh --run      run only: what a node needs that gets its programs from elsewhere
set -euo pipefail

build_packages=(
  g++ cmake ninja-build ccache mold pkg-config git ca-certificates
  libopenmpi-dev libboost1.81-dev libboost-context1.81-dev libboost-url1.81-dev
  librocksdb-dev libprotobuf-dev protobuf-compiler nlohmann-json3-dev libfyaml-dev libcli11-dev
  libfmt-dev libspdlog-dev libexpected-dev libssl-dev libxxhash-dev libzstd-dev libonig-dev
  libutf8proc-dev libpng-dev libjpeg62-turbo-dev libsndfile1-dev libsoxr-dev libopenblas-dev libdnnl-dev libgtest-dev libgmock-dev libbenchmark-dev
  python3 iproute2 mount util-linux hostname curl
)
run_packages=(
  openmpi-bin librocksdb7.8 libprotobuf32 libfyaml0 libfmt9 libspdlog1.10 libssl3 libzstd1 libonig5
  libutf8proc2 libpng16-16 libjpeg62-turbo libsndfile1 libsoxr0 libopenblas0-pthread libdnnl2 libboost-context1.81.0 libboost-url1.81.0 ca-certificates procps
)

case "${1:-}" in
  "") wanted=("${build_packages[@]}" "${run_packages[@]}") ;;
  --run) wanted=("${run_packages[@]}") ;;
  -h|--help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "setup.sh: unknown option $1 (try --help)" >&2; exit 2 ;;
esac

missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
need_user=false
id -u weft >/dev/null 2>&1 || need_user=true

if [ "${#missing[@]}" -eq 0 ] && ! $need_user; then
  exit 0
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup.sh: must install ${missing[*]:-nothing} and make the user weft; run it as root" >&2
    exit 1
  fi
  as_root=(sudo)
fi

if [ "${#missing[@]}" -gt 0 ]; then
  # The two versions of Boost's headers conflict; taking one away is not ours to do.
  for conflicting in libboost-dev libboost1.74-dev; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$conflicting" 2>/dev/null || true)
    if [ "$state" = installed ] && [[ " ${missing[*]} " == *" libboost1.81-dev "* ]]; then
      echo "setup.sh: $conflicting is installed and conflicts with libboost1.81-dev;" \
           "remove it first: apt-get remove $conflicting" >&2
      exit 1
    fi
  done
  echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -q --no-install-recommends "${missing[@]}" >"$log" 2>&1
  }
  if ! install; then
    "${as_root[@]}" apt-get update -q >>"$log" 2>&1 || true
    install || { tail -n 20 "$log" >&2; echo "setup.sh: apt-get failed" >&2; exit 1; }
  fi
fi
if $need_user; then
  echo "Making the system user weft, as which ranks run"
  "${as_root[@]}" useradd --system --create-home --home-dir /var/lib/weft \
    --shell /usr/sbin/nologin weft
fi
