# For the scripts beside this folder: one line a step, with the time it took.

stop() {
  echo "$(basename "$0"): $*" >&2
  exit 5
}

# True where version $1 is older than $2.
older() {
  [[ $1 != "$2" && $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

# step NAME COMMAND...: runs the command; its output is its own affair.
step() {
  local name=$1 begin=$SECONDS
  shift
  echo "== $name"
  "$@"
  echo "== $name: done in $((SECONDS - begin)) s"
}

# Runs a command whose output matters only when it fails.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    stop "this command failed: $*"
  fi
  rm -f "$log"
}
