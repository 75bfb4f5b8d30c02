// The twin of kernels/cuda in programs that are built without the toolkit.
#include "kernels/cuda/device.h"

namespace weft::cuda {
namespace {

Status without_toolkit() {
  return {Code::kUnavailable,
          "this program was built without CUDA; build the preset cuda, which needs the toolkit"};
}

}  // namespace

Result<std::unique_ptr<Allocator>> make_allocator(int) { return fail(without_toolkit()); }

std::unique_ptr<Allocator> make_pinned_allocator() { return make_caching_allocator(); }

Result<int> device_count() { return fail(without_toolkit()); }

Result<std::vector<std::string>> device_ids() { return fail(without_toolkit()); }

}  // namespace weft::cuda
