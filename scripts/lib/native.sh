# For the scripts beside this folder, after steps.sh and scripts/setup.

source scripts/lib/compiler_cache.sh

# configure_native FOLDER OPTIONS...
configure_native() {
  local folder=$1
  shift
  use_compiler_cache
  quietly cmake -B "$folder" -G Ninja -DLibTorch_ROOT="$(.venv/bin/python -c \
    'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')" "$@"
}

# A build of its own, as a C++ user would make it: CMake and no Python packaging.
# Arguments go to the building step.
build_native() {
  configure_native build/native
  quietly cmake --build build/native "$@"
}
