# Every library Weft uses is found here and nowhere else. docs/ARCHITECTURE.md says from which
# folders each may be used; tests/tidy checks it.
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(GTest REQUIRED)
find_package(PkgConfig REQUIRED)
set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI REQUIRED COMPONENTS C)
find_package(Boost 1.81 REQUIRED COMPONENTS context url)
find_package(RocksDB REQUIRED)
find_package(CLI11 REQUIRED)
find_package(PNG REQUIRED)
find_package(JPEG REQUIRED)
pkg_check_modules(fyaml REQUIRED IMPORTED_TARGET libfyaml)
pkg_check_modules(openblas REQUIRED IMPORTED_TARGET openblas)
# Debian's oneDNN (2.6.3). Its CMake package asks for OpenCL's headers; the library alone does.
find_library(WEFT_ONEDNN dnnl REQUIRED)
find_library(WEFT_GOMP NAMES gomp libgomp.so.1 REQUIRED)  # the OpenMP it runs on
pkg_check_modules(onig REQUIRED IMPORTED_TARGET oniguruma)
pkg_check_modules(sndfile REQUIRED IMPORTED_TARGET sndfile)
pkg_check_modules(soxr REQUIRED IMPORTED_TARGET soxr)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(libzstd REQUIRED IMPORTED_TARGET libzstd)  # "zstd" is the name RocksDB looks for
