// The one way to a GPU, and how many there are. Which library a program links decides what it does:
// kernels/cuda, or kernels/no_cuda for programs that are built without the toolkit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/tensor/allocator.h"
#include "proto/base/status.h"

namespace weft::cuda {

// Memory of GPU `index` of this process with its stream, whose Backend runs the kernels: everything
// that is computed on tensors of this allocator runs there. Errors: kUnavailable naming what is
// missing (the toolkit in this build, the driver, the GPU).
Result<std::unique_ptr<Allocator>> make_allocator(int index);

// Host memory that a GPU reads and writes without a detour, kept for reuse. What copies to or from
// it is queued: the caller waits for the stream before it touches or releases it.
std::unique_ptr<Allocator> make_pinned_allocator();

// GPUs that this process sees. Errors as above.
Result<int> device_count();

// The same by what tells each from every other one anywhere, in the order of their numbers: its
// UUID as the driver's tools write it ("GPU-8a1f..."). Errors as above.
Result<std::vector<std::string>> device_ids();

}  // namespace weft::cuda
