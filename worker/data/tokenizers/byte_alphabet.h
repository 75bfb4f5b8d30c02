// The printable stand-ins that byte-level BPE vocabularies have for the 256 byte values: GPT-2's
// table (Radford et al. 2019). Bytes that print in Latin-1 stand for themselves, the others follow
// from U+0100 on in the order of their values.
//
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace weft::tokenizers {

// Code point that stands for each byte.
const std::array<uint32_t, 256>& byte_to_code_point();
// The byte for a code point; -1: none.
int code_point_to_byte(uint32_t code_point);
// UTF-8 of a code point.
std::string utf8_of(uint32_t code_point);
// The bytes that a token (UTF-8) stands for; nullopt: it holds other characters.
std::optional<std::string> raw_bytes(std::string_view token);

}  // namespace weft::tokenizers
