// The extents of a tensor, outermost first. At most 8 dimensions, each >= 0; no dimension: a
// scalar. Thread safety: a value.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "proto/base/check.h"

namespace weft {

class Shape {
 public:
  static constexpr int kDimsMax = 8;
  Shape() = default;
  Shape(std::initializer_list<int64_t> extents)
      : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const int64_t> extents) {
    WEFT_CHECK(extents.size() <= kDimsMax, "{} dimensions", extents.size());
    for (int64_t extent : extents) push_back(extent);
  }

  int dims() const { return dims_; }
  // Negative dim counts from the end: shape[-1] is the innermost extent.
  int64_t operator[](int dim) const { return extents_[index(dim)]; }
  int64_t& operator[](int dim) { return extents_[index(dim)]; }
  void push_back(int64_t extent) {
    WEFT_CHECK(dims_ < kDimsMax && extent >= 0, "extent {}", extent);
    extents_[dims_++] = extent;
  }
  int64_t elements() const {
    int64_t product = 1;
    for (int i = 0; i < dims_; ++i) product *= extents_[i];
    return product;
  }
  std::span<const int64_t> extents() const { return {extents_.data(), static_cast<size_t>(dims_)}; }
  bool operator==(const Shape& other) const {
    if (dims_ != other.dims_) return false;
    for (int i = 0; i < dims_; ++i) {
      if (extents_[i] != other.extents_[i]) return false;
    }
    return true;
  }
  std::string to_string() const {
    std::string text = "[";
    for (int i = 0; i < dims_; ++i) text += (i ? ", " : "") + std::to_string(extents_[i]);
    return text + "]";
  }

 private:
  size_t index(int dim) const {
    const int positive = dim < 0 ? dim + dims_ : dim;
    WEFT_CHECK(positive >= 0 && positive < dims_, "dim {} of {}", dim, to_string());
    return static_cast<size_t>(positive);
  }
  std::array<int64_t, kDimsMax> extents_{};
  int dims_ = 0;
};

}  // namespace weft
