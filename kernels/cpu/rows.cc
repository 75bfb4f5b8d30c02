#include "kernels/cpu/rows.h"

#include "kernels/cpu/rows_levels.h"

namespace weft::cpu {
namespace {

int level() {
  static const int found = [] {
    if (__builtin_cpu_supports("x86-64-v4")) return 4;
    return __builtin_cpu_supports("x86-64-v3") ? 3 : 2;
  }();
  return found;
}

}  // namespace

template <>
const RowKernels<float>& rows<float>() {
  return level() == 4 ? rows_f32_v4 : level() == 3 ? rows_f32_v3 : rows_f32_v2;
}

template <>
const RowKernels<double>& rows<double>() {
  return level() == 4 ? rows_f64_v4 : level() == 3 ? rows_f64_v3 : rows_f64_v2;
}

}  // namespace weft::cpu
