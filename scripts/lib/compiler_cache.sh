# For the scripts beside this folder. The wheel and the native build compile the
# same files with the same options: the second build takes them from a cache, which
# lies in build/ and goes with it. To be called once ccache is installed.
use_compiler_cache() {
  command -v ccache >/dev/null || return 0
  export CC=${CC:-gcc} CXX=${CXX:-g++} # by one name, or nothing is found again
  export CCACHE_DIR=${CCACHE_DIR:-$PWD/build/ccache}
  export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$PWD} # what CMake generates in both build folders is the same, too
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
}
