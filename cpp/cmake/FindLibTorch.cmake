# Finds LibTorch and defines
#   LibTorch::torch    headers, libtorch_cpu, libc10; no Python
#   LibTorch::python   the above and libtorch_python, for the extension module
#   LibTorch_VERSION, LibTorch_LIBRARY_DIR
#
# Torch's own TorchConfig.cmake is not used: for a CUDA build of torch it fails
# unless the whole CUDA toolkit is installed, which this project never compiles
# against, and it drags compiler flags and protobuf, kineto and MKL probes along.
#
# Looked for, in this order: LibTorch_ROOT or CMAKE_PREFIX_PATH (a LibTorch
# archive, or <site-packages>/torch), the torch package of Python_EXECUTABLE,
# of .venv, of python3.

set(_candidates ${Python_EXECUTABLE})
if(NOT SKBUILD)
  list(APPEND _candidates ${PROJECT_SOURCE_DIR}/.venv/bin/python python3)
endif()

find_path(LibTorch_INCLUDE_DIR torch/csrc/jit/serialization/import.h)
foreach(_python IN LISTS _candidates)
  if(LibTorch_INCLUDE_DIR)
    break()
  endif()
  # find_spec does not import torch, which would take seconds.
  execute_process(
    COMMAND ${_python} -c
            "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE _torch_dir
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(_torch_dir)
    find_path(LibTorch_INCLUDE_DIR torch/csrc/jit/serialization/import.h
              PATHS ${_torch_dir}/include NO_DEFAULT_PATH)
  endif()
endforeach()

if(LibTorch_INCLUDE_DIR)
  get_filename_component(_root ${LibTorch_INCLUDE_DIR} DIRECTORY)
  foreach(_name IN ITEMS torch_cpu c10 torch_python)
    find_library(LibTorch_${_name}_LIBRARY ${_name} PATHS ${_root}/lib NO_DEFAULT_PATH)
  endforeach()
  get_filename_component(LibTorch_LIBRARY_DIR ${LibTorch_c10_LIBRARY} DIRECTORY)
  file(STRINGS ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h _lines
       REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX MATCHALL "[0-9]+" _numbers "${_lines}")
  list(JOIN _numbers "." LibTorch_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  LibTorch
  REQUIRED_VARS LibTorch_torch_cpu_LIBRARY LibTorch_c10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE
    "install torch 2.11 or newer (pip install torch==2.13.0), or set -DLibTorch_ROOT=/path/to/libtorch")

if(LibTorch_FOUND AND NOT TARGET LibTorch::torch)
  add_library(LibTorch::torch INTERFACE IMPORTED)
  target_include_directories(LibTorch::torch SYSTEM INTERFACE
    ${LibTorch_INCLUDE_DIR} ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include)
  target_link_libraries(LibTorch::torch INTERFACE ${LibTorch_torch_cpu_LIBRARY} ${LibTorch_c10_LIBRARY})
  # A CUDA build of libtorch_cpu needs libraries that are only found at run
  # time, through its own run path; the linker must not insist on them.
  target_link_options(LibTorch::torch INTERFACE LINKER:--allow-shlib-undefined)
  if(LibTorch_torch_python_LIBRARY)
    add_library(LibTorch::python INTERFACE IMPORTED)
    target_link_libraries(LibTorch::python INTERFACE LibTorch::torch ${LibTorch_torch_python_LIBRARY})
  endif()
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_torch_cpu_LIBRARY LibTorch_c10_LIBRARY LibTorch_torch_python_LIBRARY)
