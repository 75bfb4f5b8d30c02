#!/bin/sh
# links_shell.sh HOST COMMAND...: runs the command on a host of links.py; mpirun's remote shell.
host=$WEFT_BENCH_HOSTS$1
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
