# For scripts/test: steps that may fail without ending it, and a table of all of
# them at its end.

rows=()
status=0

# check NAME COMMAND...: a step of which a failure counts at the end.
check() {
  local name=$1 begin=$SECONDS result=passed
  shift
  echo "== $name"
  ("$@") || { result=FAILED && status=1; }
  echo "== $name: $result in $((SECONDS - begin)) s"
  rows+=("$(printf '%-46s %6d s  %s' "$name" $((SECONDS - begin)) "$result")")
}

# needed NAME COMMAND...: as check, but nothing after it makes sense without it.
needed() {
  check "$@"
  ((status == 0)) || { print_table && exit "$status"; }
}

# left_out NAME: a row for what only --full runs.
left_out() {
  rows+=("$(printf '%-46s %8s  %s' "$1" - "left out; --full runs it")")
}

print_table() {
  printf '\n%-46s %8s  %s\n' "what" "time" "result"
  printf '%s\n' "${rows[@]}"
  printf '%-46s %6d s\n\n' "all, set-up and build included" "$SECONDS"
}
