#include "worker/checkpoint/safetensors_convert.h"

#include <cstring>

#include "kernels/tensor/half.h"

namespace weft::checkpoint {
namespace {

template <typename Stored, typename Function>
void each(std::span<const char> bytes, std::span<float> out, const Function& function) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    out[i] = function(stored);
  }
}

}  // namespace

bool convertible(std::string_view dtype) {
  return dtype == "F32" || dtype == "F64" || dtype == "F16" || dtype == "BF16" || dtype == "I64";
}

bool convert_to_float(std::string_view dtype, std::span<const char> bytes, std::span<float> out) {
  if (dtype == "F32") {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size_bytes());
  } else if (dtype == "F64") {
    each<double>(bytes, out, [](double x) { return static_cast<float>(x); });
  } else if (dtype == "F16") {
    each<float16>(bytes, out, [](float16 x) { return float{x}; });
  } else if (dtype == "BF16") {
    each<bfloat16>(bytes, out, [](bfloat16 x) { return float{x}; });
  } else if (dtype == "I64") {
    each<int64_t>(bytes, out, [](int64_t x) { return static_cast<float>(x); });
  } else {
    return false;
  }
  return true;
}

}  // namespace weft::checkpoint
