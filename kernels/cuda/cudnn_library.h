// cuDNN's descriptors as a table of functions: loaded when first wanted, so that programs start
// without it, and given by the tests' harness in place of the library.
//
// Thread safety: cudnn() from any thread; the functions as NVIDIA says. Ownership: the library
// stays loaded.
#pragma once

#include <cudnn.h>

#include "proto/base/status.h"

namespace weft::cuda {

struct Cudnn {
  decltype(&::cudnnGetVersion) version;
  decltype(&::cudnnCreate) create;
  decltype(&::cudnnDestroy) destroy;
  decltype(&::cudnnSetStream) set_stream;
  decltype(&::cudnnBackendCreateDescriptor) descriptor_create;
  decltype(&::cudnnBackendDestroyDescriptor) descriptor_destroy;
  decltype(&::cudnnBackendSetAttribute) descriptor_set;
  decltype(&::cudnnBackendGetAttribute) descriptor_get;
  decltype(&::cudnnBackendFinalize) descriptor_finalize;
  decltype(&::cudnnBackendExecute) execute;
};

// Error: kUnavailable, naming the library or the function that is missing.
Result<const Cudnn*> cudnn();

}  // namespace weft::cuda
