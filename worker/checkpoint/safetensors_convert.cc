#include "worker/checkpoint/safetensors_convert.h"

#include <bit>
#include <cstring>

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

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1FU;
  const uint32_t mantissa = half & 0x3FFU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float small = static_cast<float>(mantissa) * 0x1p-24F;  // subnormal or zero, exact
  return sign != 0 ? -small : small;
}

bool convertible(std::string_view dtype) {
  return dtype == "F32" || dtype == "F64" || dtype == "F16" || dtype == "BF16" || dtype == "I64";
}

bool convert_to_float(std::string_view dtype, std::span<const char> bytes, std::span<float> out) {
  if (dtype == "F32") {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size_bytes());
  } else if (dtype == "F64") {
    each<double>(bytes, out, [](double x) { return static_cast<float>(x); });
  } else if (dtype == "F16") {
    each<uint16_t>(bytes, out, half_to_float);
  } else if (dtype == "BF16") {
    each<uint16_t>(bytes, out,
                   [](uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); });
  } else if (dtype == "I64") {
    each<int64_t>(bytes, out, [](int64_t x) { return static_cast<float>(x); });
  } else {
    return false;
  }
  return true;
}

}  // namespace weft::checkpoint
