// Libraries that are looked for at run time.
// Thread safety: any thread. Ownership: what was loaded stays loaded.
#pragma once

#include <string>

#include "proto/base/status.h"

namespace weft::cuda {

class LoadedLibrary {
 public:
  // The first of the names that can be loaded. Error: kUnavailable with the loader's own words.
  static Result<LoadedLibrary> open(std::initializer_list<const char*> names);
  // target := the function; a missing one is remembered.
  template <typename F>
  void find(F& target, const char* name) {
    target = reinterpret_cast<F>(symbol(name));
  }
  // Error: kUnavailable naming the first function that was missing.
  Status complete() const;

 private:
  LoadedLibrary(void* handle, std::string name) : handle_(handle), name_(std::move(name)) {}
  void* symbol(const char* name);
  void* handle_;
  std::string name_, missing_;
};

}  // namespace weft::cuda
