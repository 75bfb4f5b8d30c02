// Little-endian elements of a safetensors file to float32.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace weft::checkpoint {

// `bytes` holds out.size() elements. False: no conversion from this dtype.
bool convert_to_float(std::string_view dtype, std::span<const char> bytes, std::span<float> out);
bool convertible(std::string_view dtype);

}  // namespace weft::checkpoint
