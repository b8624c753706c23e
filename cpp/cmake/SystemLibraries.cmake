# Finds every library that the distribution provides, and names all that are
# missing in one line that can be typed.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE) # used from several folders
set(_missing "")

function(convship_need found package)
  if(NOT ${found})
    set(_missing "${_missing} ${package}" PARENT_SCOPE)
  endif()
endfunction()

find_package(JPEG QUIET) # decodes as Pillow does
convship_need(JPEG_FOUND libjpeg-dev)
find_package(PNG QUIET)
convship_need(PNG_FOUND libpng-dev)
find_package(OpenSSL QUIET COMPONENTS Crypto SSL) # SHA-256 of model files; TLS of convship-run serve
convship_need(OPENSSL_FOUND libssl-dev)
find_package(nlohmann_json 3.10 QUIET) # the manifest, --json
convship_need(nlohmann_json_FOUND nlohmann-json3-dev)
find_path(HIGHWAY_INCLUDE_DIR hwy/highway.h) # SIMD in the kernels; headers only
convship_need(HIGHWAY_INCLUDE_DIR libhwy-dev)
find_package(Boost 1.74 QUIET) # headers only: Asio and Beast in convship-run serve
convship_need(Boost_FOUND libboost-dev)
find_package(CLI11 2.1 QUIET) # arguments of convship-run
convship_need(CLI11_FOUND libcli11-dev)
# The structure of model files. Its CMake package insists on the libzip tools,
# which nobody needs here, hence pkg-config.
find_package(PkgConfig QUIET)
convship_need(PkgConfig_FOUND pkg-config)
if(PkgConfig_FOUND)
  pkg_check_modules(LIBZIP QUIET IMPORTED_TARGET GLOBAL libzip)
endif()
convship_need(LIBZIP_FOUND libzip-dev)
if(NOT SKBUILD)
  include(CTest)
  if(BUILD_TESTING)
    find_package(doctest QUIET)
    convship_need(doctest_FOUND doctest-dev)
  endif()
endif()

if(_missing)
  message(FATAL_ERROR "system libraries are missing; on Debian and Ubuntu type:\n"
                      "  sudo apt-get install -y${_missing}")
endif()
