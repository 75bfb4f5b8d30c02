#!/bin/sh
# Writes job-file.md, cli.md and rest.md from the programs in build/release/bin (or $WEFT_BIN).
# --check: compares the pages with what the programs say, and writes nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=${WEFT_BIN:-$here/../../build/release/bin}
PATH=$(cd "$bin" && pwd):$PATH
export PATH HOME=/nonexistent LC_ALL=C
unset WEFT_DATA WEFT_SERVER 2>/dev/null || true

# The text of `$@ --help`, indented; the common tail of weft's subcommands stands in the page once.
help_text() {
  "$@" --help | awk '/^The coordinator is looked for in/ && tail == "cut" { exit } { print }' \
      tail="${TAIL:-}" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' | sed -e 's/^/    /' -e 's/ *$//'
}

cli_page() {
  printf '# The command line\n\n'
  printf '<!-- Printed by docs/reference/generate.sh from --help; change it in the programs. -->\n\n'
  printf 'Every subcommand of `weft` also takes the options of `weft` itself.\n\n## weft\n\n'
  TAIL='' help_text weft
  commands=$(weft --help | awk '/^Subcommands:/ { on = 1; next } /^$/ { on = 0 }
                                on && /^  [a-z]/ { print $1 }')
  for command in $commands; do
    printf '\n## weft %s\n\n' "$command"
    TAIL=cut help_text weft "$command"
  done
  for program in weft-coordinator weft-agent weft-worker weft-golden; do
    printf '\n## %s\n\n' "$program"
    TAIL='' help_text "$program"
  done
}

write_pages() {  # into the folder $1
  weft-reference >"$1/job-file.md"
  cli_page >"$1/cli.md"
  WEFT_WRITE_REFERENCE=$1/rest.md coordinator_api_reference_test \
    --gtest_filter='*TheCommittedPageIsTheGeneratedOne' >/dev/null
}

case "${1:-}" in
  '')
    write_pages "$here"
    echo "wrote job-file.md, cli.md and rest.md in $here"
    ;;
  --check)
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    write_pages "$made"
    for page in job-file.md cli.md rest.md; do
      diff -u "$here/$page" "$made/$page" || { echo "run docs/reference/generate.sh" >&2; exit 1; }
    done
    ;;
  *)
    echo "generate.sh: unknown option $1 (there is --check)" >&2
    exit 2
    ;;
esac
