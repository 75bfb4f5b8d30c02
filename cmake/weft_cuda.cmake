# WEFT_CUDA (preset cuda): finds the toolkit and declares
#   weft_cuda_library(NAME SOURCES ... DEPS ...)   a static library of .cu and .cc files; what ends in
#   _sm90.cu is compiled for sm_90a alone.
# The runtime is linked statically and libcuda never, so that a program starts without a driver.
option(WEFT_CUDA "Build the CUDA kernels; needs toolkit 13 or newer" OFF)
option(WEFT_GPU_BUNDLE "Build for machines with a GPU and nothing of ours (target bundle)" OFF)
if(NOT WEFT_CUDA)
  return()
endif()

set(WEFT_CUDA_ARCHITECTURES "80-real;90a-real" CACHE STRING "What nvcc compiles for")
find_package(CUDAToolkit QUIET)
set(missing "")
if(NOT CUDAToolkit_NVCC_EXECUTABLE)
  list(APPEND missing "nvcc")
elseif(CUDAToolkit_VERSION VERSION_LESS 13)
  list(APPEND missing "toolkit 13 or newer (found ${CUDAToolkit_VERSION})")
endif()
find_file(WEFT_CUDA_RUNTIME_HEADER cuda_runtime.h PATHS ${CUDAToolkit_INCLUDE_DIRS} NO_DEFAULT_PATH)
if(NOT WEFT_CUDA_RUNTIME_HEADER)
  list(APPEND missing "cuda_runtime.h")
endif()
if(NOT TARGET CUDA::cudart_static)
  list(APPEND missing "libcudart_static.a")
endif()
if(missing)
  list(JOIN missing ", " missing)
  message(FATAL_ERROR "WEFT_CUDA is ON, but the CUDA toolkit lacks: ${missing}. Put nvcc on the PATH, "
                      "set CUDAToolkit_ROOT to the toolkit's folder, or build another preset: "
                      "without WEFT_CUDA the CPU build is complete.")
endif()

if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
endif()
set(CMAKE_CUDA_ARCHITECTURES ${WEFT_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc's flag
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

function(weft_cuda_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  set(sm90 ${ARG_SOURCES})
  list(FILTER sm90 INCLUDE REGEX "_sm90\\.cu$")
  list(FILTER ARG_SOURCES EXCLUDE REGEX "_sm90\\.cu$")
  if(sm90)
    add_library(${name}_sm90 OBJECT ${sm90})
    set_target_properties(${name}_sm90 PROPERTIES CUDA_ARCHITECTURES 90a-real)
    weft_cuda_options(${name}_sm90 ${ARG_DEPS})
    list(APPEND ARG_SOURCES $<TARGET_OBJECTS:${name}_sm90>)
  endif()
  add_library(${name} STATIC ${ARG_SOURCES})
  weft_cuda_options(${name} ${ARG_DEPS})
endfunction()

function(weft_cuda_options name)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
  target_include_directories(${name} SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(${name} PUBLIC ${ARGN} CUDA::cudart_static)
  # Stricter host warnings (old-style casts, shadowing) fire in what nvcc itself generates. Kernels of many
  # types are much alike: compressed for size they take a seventh of what nvcc's default leaves.
  target_compile_options(${name} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings;--compress-mode=size;-Xcompiler=-Wall,-Wextra,-Werror>"
    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-Wshadow;-Wold-style-cast;-Wcast-qual>")
endfunction()
