# Completion of convship-run for bash.
_convship_run() {
  local verbs="predict run serve selftest info bench stages doctor"
  local model="--backend --threads --plain --public-key --op-library --json --help"
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} options
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W "$verbs --help --version" -- "$word")
    return
  fi
  if [[ $before == --backend ]]; then
    mapfile -t COMPREPLY < <(compgen -W "convship libtorch" -- "$word")
    return
  fi
  if [[ $word != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
    return
  fi
  case ${COMP_WORDS[1]} in
    predict) options="$model --top-k" ;;
    run | stages) options="$model --output" ;;
    bench) options="$model --batch --size --input --image --seconds --callers" ;;
    info) options="$model --plan --batch --size" ;;
    serve)
      options="--backend --threads --public-key --op-library --help --host --port --max-batch --max-delay-us --workers --max-queue"
      options+=" --max-body-mib --max-connections --read-timeout --write-timeout --idle-timeout --drain-timeout"
      options+=" --api-key-file --tls-certificate --tls-key --quiet"
      ;;
    doctor) options="--json --help" ;;
    *) options=$model ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}
complete -o filenames -F _convship_run convship-run
