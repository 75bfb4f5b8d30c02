# Language level, warnings, compiler cache and linker of every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2")

find_program(WEFT_CCACHE ccache)
if(WEFT_CCACHE)
  # Paths are relative to the source, so that a clone elsewhere hits too. A precompiled header has up to
  # 200 MB: the cache knows its hash by the inode, else each file that takes it would read it again. What
  # is not there yet is compiled at once, and its dependencies are those that the compiler tells: else each
  # file would go through the preprocessor first.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_DEPEND=1 CCACHE_NOHASHDIR=1 CCACHE_INODECACHE=1
      CCACHE_SLOPPINESS=pch_defines,time_macros ${WEFT_CCACHE})
endif()
find_program(WEFT_MOLD ld.mold)
if(WEFT_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# The compiler's own heap: from 128 MB on it would look for garbage again and again, a twentieth of its time.
add_compile_options("$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:SHELL:--param ggc-min-heapsize=1000000>")

set(WEFT_SANITIZE "" CACHE STRING "address (with undefined) or thread")
if(WEFT_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=address,undefined)
elseif(WEFT_SANITIZE STREQUAL "thread")
  # GCC warns of every std::atomic_thread_fence, for the sanitizer does not model them. The only ones
  # are Boost.Asio's around handlers, which its own mutex has handed over already (that it does
  # model), and none of ours: no race is hidden and none invented. Only that warning goes.
  add_compile_options(-fsanitize=thread -g1 -Wno-tsan)
  add_link_options(-fsanitize=thread)
endif()

# Our own code is compiled with these; generated code and third-party headers are not.
add_library(weft_warnings INTERFACE)
target_compile_options(weft_warnings INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-qual -Woverloaded-virtual
  -Wno-missing-field-initializers)
if(CMAKE_UNITY_BUILD)  # what a file's local names shadow is a neighbour's; preset plain has the warning
  target_compile_options(weft_warnings INTERFACE -Wno-shadow)
endif()
