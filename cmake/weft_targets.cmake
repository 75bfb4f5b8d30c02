# weft_library(NAME DEPS ...)   a static library of every .cc in this folder (not below it); programs'
#                               entry points (*main.cc) are left out.
# weft_program(NAME MAIN DEPS ...)
# weft_test_library(NAME SOURCES ... DEPS ...)   what several test programs share, compiled once.
# weft_test_program(NAME SOURCES ... DEPS ...)   what a test runs that is not of GoogleTest: a rank under mpirun.
# weft_test(NAME SOURCES ... DEPS ... [LABELS ...] [TIMEOUT s] [PROCESSORS n] [COST s])
#                               one GoogleTest program; CTest starts those of the greatest COST first.
include(GoogleTest)

# Headers that many files include are parsed once: a third of a build's time. kernels/ and what is
# below it take the ones without the schema, so that a change of it does not compile them again. A file
# still includes what it uses: preset plain compiles each on its own.
set(common <algorithm> <array> <chrono> <cmath> <condition_variable> <filesystem> <fstream> <functional>
  <future> <map> <memory> <mutex> <numeric> <optional> <set> <span> <sstream> <string> <string_view> <thread>
  <tuple> <unordered_map> <unordered_set> <variant> <vector> <fmt/format.h> <tl/expected.hpp>)
set(schema <google/protobuf/map.h> <google/protobuf/message.h> <google/protobuf/struct.pb.h>)
foreach(name api checkpoint job launch node object options shepherd train)
  list(APPEND schema <proto/${name}.pb.h>)
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/precompiled.cc CONTENT "")
function(weft_precompiled name libraries)  # headers...
  add_library(${name} OBJECT ${CMAKE_BINARY_DIR}/precompiled.cc)
  target_link_libraries(${name} PRIVATE fmt::fmt ${libraries})
  target_precompile_headers(${name} PRIVATE ${common} ${ARGN})
endfunction()
weft_precompiled(weft_precompiled "")
weft_precompiled(weft_precompiled_schema weft_proto ${schema})
weft_precompiled(weft_precompiled_test GTest::gtest <gtest/gtest.h>)
weft_precompiled(weft_precompiled_schema_test "GTest::gtest;weft_proto" <gtest/gtest.h> ${schema})
foreach(test weft_precompiled_test weft_precompiled_schema_test)  # programs, and what is made for libraries does not fit
  target_compile_options(${test} PRIVATE -fPIE)
endforeach()

# weft_precompile(TARGET [_test])
function(weft_precompile target)
  if(CMAKE_DISABLE_PRECOMPILE_HEADERS)
    return()
  endif()
  string(REPLACE "${CMAKE_SOURCE_DIR}" "" folder "${CMAKE_CURRENT_SOURCE_DIR}")
  if(folder MATCHES "/(base|kernels|cuda_on_cpu)(/|$)")
    target_precompile_headers(${target} REUSE_FROM weft_precompiled${ARGN})
  else()
    target_precompile_headers(${target} REUSE_FROM weft_precompiled_schema${ARGN})
  endif()
  # With precompiled headers GCC 12 and 13 take a moved std::string's own 16 bytes for where a longer text
  # lies (https://bugs.launchpad.net/bugs/1983852). Preset plain has these warnings as errors.
  target_compile_options(${target} PRIVATE
    "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread>")
endfunction()

# Preset release compiles several files of a folder as one: what they include is instantiated once, a
# quarter of a build's time. Folders whose loops are measured set CMAKE_UNITY_BUILD OFF.
# weft_alone(SOURCES...)   of this folder that use a neighbour's names for their own, or which some programs leave out.
function(weft_alone)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

function(weft_library name)
  cmake_parse_arguments(ARG "" "" "DEPS;SOURCES" ${ARGN})
  if(NOT ARG_SOURCES)
    file(GLOB ARG_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
    list(FILTER ARG_SOURCES EXCLUDE REGEX "main\\.cc$")
  endif()
  if(ARG_SOURCES)
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE weft_warnings)
    weft_precompile(${name})
    target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ${ARG_DEPS})
    target_include_directories(${name} INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
  endif()
endfunction()

function(weft_program name main)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_executable(${name} ${main})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} weft_warnings)
  weft_precompile(${name})
  target_compile_options(${name} PRIVATE -fPIC)  # as what is precompiled
endfunction()

# Tests are compiled more often than run: a quarter of the time goes into what -O2 does beyond this.
set(test_options $<$<CONFIG:Release>:-O1>)
function(weft_test_library name)
  weft_library(${name} ${ARGN})
  target_compile_options(${name} PRIVATE ${test_options})
endfunction()

function(weft_test_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest weft_warnings)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
  weft_precompile(${name} _test)
  target_compile_options(${name} PRIVATE ${test_options})
endfunction()

function(weft_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS;COST" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(NOT ARG_PROCESSORS)
    set(ARG_PROCESSORS 1)
  endif()
  if(NOT ARG_COST)
    set(ARG_COST 0)
  endif()
  weft_test_program(${name} SOURCES ${ARG_SOURCES} DEPS ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  # Only where a file asks for them: other programs hit the compiler cache from any folder.
  set(written ${ARG_SOURCES})
  list(FILTER written EXCLUDE REGEX "^/")  # made by the build
  foreach(source ${written})
    file(STRINGS ${source} asks REGEX "WEFT_(SOURCE|BINARY)_DIR" LIMIT_COUNT 1)
    if(asks)
      target_compile_definitions(${name} PRIVATE
        "WEFT_SOURCE_DIR=\"${CMAKE_SOURCE_DIR}\"" "WEFT_BINARY_DIR=\"${CMAKE_BINARY_DIR}\"")
      break()
    endif()
  endforeach()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${ARG_PROCESSORS} COST ${ARG_COST} LABELS "${ARG_LABELS}")
endfunction()

# weft_on_demand(TARGET TEST)   the default build leaves out what only a test of a label runs, so that another builds it first.
function(weft_on_demand target test)
  set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL ON)
  get_property(labels TEST ${test} PROPERTY LABELS)
  add_test(NAME ${target}_built COMMAND ${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --target ${target})
  set_tests_properties(${target}_built PROPERTIES FIXTURES_SETUP ${target} LABELS "${labels}" TIMEOUT 1800
                       RUN_SERIAL ON)
  set_tests_properties(${test} PROPERTIES FIXTURES_REQUIRED ${target})
endfunction()

# weft_use_cuda_on_cpu(TARGET)   its sources find <cuda_runtime.h> and the instructions of
# kernels/cuda/ptx*.cuh in the harness tests/testing/cuda_on_cpu before anywhere else.
function(weft_use_cuda_on_cpu target)
  target_include_directories(${target} BEFORE PRIVATE ${CMAKE_SOURCE_DIR}/tests/testing/cuda_on_cpu/include)
  target_link_libraries(${target} PRIVATE weft_cuda_on_cpu)
endfunction()
