#!/bin/sh
# Usage: ops.sh PROGRAM RESULTS JOBS
# Runs every test of `PROGRAM ops` in a process of its own, since an error of a GPU spoils all that a
# process does afterwards, JOBS at a time; prints the ones that failed with what they say first, and
# keeps their output in RESULTS. Exit status 0: all passed.
set -u
program=$1 results=$2 jobs=$3
rm -rf "$results"
mkdir -p "$results"
"$program" ops --gtest_list_tests >"$results/listed" || exit 2
awk '/^[^ ].*\./ { suite = $1 } /^  / { print suite $1 }' "$results/listed" >"$results/tests"
if ! [ -s "$results/tests" ]; then
  echo "there is no test"
  exit 2
fi
export program results
xargs -P "$jobs" -n 1 sh -c '
  log=$results/$(echo "$1" | tr / _).txt
  timeout -k 5 120 "$program" ops --gtest_filter="$1" >"$log" 2>&1
  status=$?
  echo "$status $1" >>"$results/ended"
  if [ $status -eq 0 ]; then rm "$log"; fi
  true' each <"$results/tests"
count=$(wc -l <"$results/tests")
passed=$(grep -c '^0 ' "$results/ended")
grep -v '^0 ' "$results/ended" | sort -k 2 | while read -r status name; do
  log=$results/$(echo "$name" | tr / _).txt
  says=$(grep -m 1 -iE 'error|actual:|exception|what\(\)|abort' "$log" | cut -c 1-160)
  case $status in 124 | 137) says="more than 120 s" ;; esac
  printf '%-60s status %3s  %s\n' "$name" "$status" "$says"
done
echo "$passed of $count tests passed"
[ "$passed" -eq "$count" ]
