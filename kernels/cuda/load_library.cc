#include "kernels/cuda/load_library.h"

#include <dlfcn.h>

namespace weft::cuda {

Result<LoadedLibrary> LoadedLibrary::open(std::initializer_list<const char*> names) {
  std::string why;
  for (const char* name : names) {
    if (void* handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL)) return LoadedLibrary(handle, name);
    if (why.empty()) why = ::dlerror();
  }
  return fail(Code::kUnavailable, "cannot load " + std::string(*names.begin()) + ": " + why +
                                      "; install it, or name its folder in LD_LIBRARY_PATH (of "
                                      "weft-agent, for the ranks of jobs)");
}

void* LoadedLibrary::symbol(const char* name) {
  void* found = ::dlsym(handle_, name);
  if (found == nullptr && missing_.empty()) missing_ = name;
  return found;
}

Status LoadedLibrary::complete() const {
  if (missing_.empty()) return {};
  return {Code::kUnavailable, name_ + " has no function " + missing_};
}

}  // namespace weft::cuda
