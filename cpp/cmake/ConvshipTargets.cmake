# What every target of the project shares: warnings, and where it is installed.

if(SKBUILD)
  # In a wheel everything lives inside the package; libtorch is its neighbour.
  set(CONVSHIP_INSTALL_LIBDIR convship/lib)
  set(CONVSHIP_INSTALL_INCLUDEDIR convship/include)
  set(CONVSHIP_INSTALL_BINDIR ${SKBUILD_SCRIPTS_DIR})
  set(CONVSHIP_INSTALL_DATADIR ${SKBUILD_DATA_DIR}/share)
else()
  include(GNUInstallDirs)
  set(CONVSHIP_INSTALL_LIBDIR ${CMAKE_INSTALL_LIBDIR})
  set(CONVSHIP_INSTALL_INCLUDEDIR ${CMAKE_INSTALL_INCLUDEDIR})
  set(CONVSHIP_INSTALL_BINDIR ${CMAKE_INSTALL_BINDIR})
  set(CONVSHIP_INSTALL_DATADIR ${CMAKE_INSTALL_DATADIR})
endif()

# Warnings are errors in our code (-DCONVSHIP_WERROR=OFF turns that off);
# libtorch's headers are SYSTEM and stay out of it.
function(convship_target target)
  target_compile_options(${target} PRIVATE -Wall -Wextra $<$<BOOL:${CONVSHIP_WERROR}>:-Werror>)
endfunction()

# Compiles files of a target several at once, because the headers that they share
# take most of the time; those after the target's name by themselves.
function(convship_unity target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${CONVSHIP_UNITY})
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# A shared library with a versioned SONAME that finds its neighbours by itself.
function(convship_shared_library target)
  convship_target(${target})
  set_target_properties(${target} PROPERTIES SOVERSION ${PROJECT_VERSION_MAJOR})
  # -z nodelete: operators stay registered with LibTorch, so the code must stay mapped.
  target_link_options(${target} PRIVATE LINKER:--no-undefined LINKER:--as-needed LINKER:-z,nodelete)
  if(SKBUILD)
    # A wheel holds no symbolic links, so only the file that programs load.
    install(TARGETS ${target} LIBRARY DESTINATION ${CONVSHIP_INSTALL_LIBDIR} NAMELINK_SKIP)
    set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/../../torch/lib")
  else()
    set_target_properties(${target} PROPERTIES VERSION ${PROJECT_VERSION})
    install(TARGETS ${target} LIBRARY DESTINATION ${CONVSHIP_INSTALL_LIBDIR})
    set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN;${LibTorch_LIBRARY_DIR}")
  endif()
endfunction()
