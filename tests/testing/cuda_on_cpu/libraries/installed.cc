#include "tests/testing/cuda_on_cpu/libraries/installed.h"

#include <set>

#include "kernels/cuda/load_library.h"

namespace weft::cuda_on_cpu {
namespace {

std::set<std::string>& lost_libraries() {
  static std::set<std::string> names;
  return names;
}

}  // namespace

void lose_library(const std::string& name) { lost_libraries().insert(name); }

Status look_for_library(const std::string& name) {
  if (!lost_libraries().contains(name)) return {};
  const std::string absent = name + ".absent";
  const auto library = cuda::LoadedLibrary::open({absent.c_str()});
  return library ? Status() : library.error();
}

}  // namespace weft::cuda_on_cpu
