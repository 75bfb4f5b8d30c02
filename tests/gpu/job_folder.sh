#!/usr/bin/env bash
# Usage: job_folder.sh PROGRAMS FOLDER
# Makes FOLDER anew: the programs of a cluster from the folder PROGRAMS (preset gpu-jobs: their run path
# is $ORIGIN/../lib), Open MPI, every library that they ask the loader for but for those of libc, and
# jobs.py, which runs jobs there. It works wherever it is put on a machine with a libc as new as this
# one's: Open MPI is told its place by two scripts, which stand where its programs are looked for.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
programs=$1 folder=$2 tests=$(cd "$(dirname "$0")/.." && pwd)
mpi=$(ompi_info --path pkglibdir --parsable | cut -d: -f3)  # of its plugins
help=$(ompi_info --path pkgdatadir --parsable | cut -d: -f3)
pmix=$(dirname "$(readlink -f "$(ldd "$mpi/mca_pmix_ext3x.so" | awk '$1 ~ /^libpmix/ { print $3 }')")")
rm -rf "$folder"
mkdir -p "$folder"/{bin,lib,libexec,lib/openmpi,lib/pmix,share/pmix}

for name in weft weft-coordinator weft-agent weft-worker weft-worker-cuda; do
  if [ -e "$programs/$name" ]; then strip -o "$folder/bin/$name" "$programs/$name"; fi
done
for name in mpirun orted; do
  cp -L "$(command -v $name)" "$folder/libexec/$name"
  cat >"$folder/bin/$name" <<'EOF'
#!/bin/sh
home=${0%/*}/..
export LD_LIBRARY_PATH="$home/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export OPAL_PKGLIBDIR="$home/lib/openmpi" OPAL_PKGDATADIR="$home/share/openmpi"
export PMIX_PKGLIBDIR="$home/lib/pmix" PMIX_PKGDATADIR="$home/share/pmix"
exec "$home/libexec/${0##*/}" "$@"
EOF
  chmod 755 "$folder/bin/$name"
done
for plugin in "$mpi"/mca_*.so; do
  case $plugin in  # other networks, and what no rank of ours calls
    *ucx* | *ofi* | *psm* | *openib* | *fcoll* | *fbtl* | *_fs_* | *_io_* | *osc* | *scoll* | *spml* | *memheap* | \
      *sshmem* | *sharedfp* | *monitoring*) ;;
    *) cp "$plugin" "$folder/lib/openmpi" ;;
  esac
done
for plugin in "$pmix"/pmix/*.so; do
  if [ -e "$plugin" ]; then cp "$plugin" "$folder/lib/pmix"; fi
done
cp -r "$help" "$folder/share/openmpi"
cp "$pmix"/../share/pmix/*.txt "$folder/share/pmix"

{ ldd "$folder"/bin/weft* "$folder"/libexec/* "$folder"/lib/*/*.so; } |
  awk '$3 ~ /^\// { print $3 }' | sort -u |
  grep -vE '/(ld-linux[^/]*|lib(c|m|mvec|dl|rt|pthread)\.so[^/]*)$' | while read -r library; do
  case $library in "$folder"/*) ;; *) cp -L "$library" "$folder/lib" ;; esac
done
strip --strip-unneeded "$folder"/lib/*.so* "$folder"/lib/*/*.so
cp "$tests"/gpu/jobs.py "$tests"/gpu/jobs_peer.py "$tests"/e2e/cluster.py "$folder"
du -sm "$folder"
