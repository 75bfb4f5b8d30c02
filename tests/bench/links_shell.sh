#!/bin/sh
# links_shell.sh HOST COMMAND...: runs the command on a host of links.py; mpirun's remote shell.
host=$1
shift
exec ip netns exec "weft-bench-$host" unshare --uts sh -c "hostname bench-$host; $*"
