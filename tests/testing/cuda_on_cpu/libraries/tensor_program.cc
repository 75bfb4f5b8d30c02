#include "tests/testing/cuda_on_cpu/libraries/tensor_program.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/tensor/half.h"

namespace weft::cuda_on_cpu {
namespace {

using Values = std::vector<double>;  // packed

// f(packed index, place in each dim) for every element.
template <typename F>
void for_each(const Extents4& extents, F f) {
  size_t at = 0;
  Extents4 i{};
  for (i[0] = 0; i[0] < extents[0]; ++i[0]) {
    for (i[1] = 0; i[1] < extents[1]; ++i[1]) {
      for (i[2] = 0; i[2] < extents[2]; ++i[2]) {
        for (i[3] = 0; i[3] < extents[3]; ++i[3]) f(at++, i);
      }
    }
  }
}

int64_t offset(const Extents4& place, const Extents4& steps) {
  int64_t sum = 0;
  for (size_t dim = 0; dim < 4; ++dim) sum += place[dim] * steps[dim];
  return sum;
}

// Of what stands in for `place` in a tensor of fewer elements: dims of one are shared, and
// consecutive places of a dim that is a multiple share one.
size_t shared_index(const Extents4& place, const Extents4& whole, const Extents4& extents) {
  int64_t index = 0;
  for (size_t dim = 0; dim < 4; ++dim) {
    index = index * extents[dim] + place[dim] / (whole[dim] / extents[dim]);
  }
  return static_cast<size_t>(index);
}

bool divides(const Extents4& whole, const Extents4& part) {
  for (size_t dim = 0; dim < 4; ++dim) {
    if (part[dim] < 1 || whole[dim] % part[dim] != 0) return false;
  }
  return true;
}

double rounded(cudnnDataType_t type, double value) {
  const float single = static_cast<float>(value);
  if (type == CUDNN_DATA_BFLOAT16) return static_cast<double>(static_cast<float>(bfloat16(single)));
  if (type == CUDNN_DATA_HALF) return static_cast<double>(static_cast<float>(float16(single)));
  return static_cast<double>(single);
}

Values load(const ProgramTensor& tensor, const void* memory) {
  Values values(static_cast<size_t>(tensor.elements()));
  for_each(tensor.extents, [&](size_t at, const Extents4& place) {
    const int64_t from = offset(place, tensor.steps);
    if (tensor.type == CUDNN_DATA_BFLOAT16) {
      values[at] =
          static_cast<double>(static_cast<float>(static_cast<const bfloat16*>(memory)[from]));
    } else if (tensor.type == CUDNN_DATA_HALF) {
      values[at] =
          static_cast<double>(static_cast<float>(static_cast<const float16*>(memory)[from]));
    } else {
      values[at] = static_cast<double>(static_cast<const float*>(memory)[from]);
    }
  });
  return values;
}

void store(const ProgramTensor& tensor, const Values& values, double factor, void* memory) {
  for_each(tensor.extents, [&](size_t at, const Extents4& place) {
    const int64_t to = offset(place, tensor.steps);
    const auto value = static_cast<float>(values[at] * factor);
    if (tensor.type == CUDNN_DATA_BFLOAT16) {
      static_cast<bfloat16*>(memory)[to] = bfloat16(value);
    } else if (tensor.type == CUDNN_DATA_HALF) {
      static_cast<float16*>(memory)[to] = float16(value);
    } else {
      static_cast<float*>(memory)[to] = value;
    }
  });
}

double combined(int mode, double x, double b) {
  switch (mode) {
    case CUDNN_POINTWISE_ADD:
      return x + b;
    case CUDNN_POINTWISE_SUB:
      return x - b;
    case CUDNN_POINTWISE_MUL:
      return x * b;
    case CUDNN_POINTWISE_DIV:
      return x / b;
    case CUDNN_POINTWISE_CMP_GE:
      return x >= b ? 1 : 0;
    case CUDNN_POINTWISE_CMP_GT:
      return x > b ? 1 : 0;
    case CUDNN_POINTWISE_EXP:
      return std::exp(x);
    case CUDNN_POINTWISE_LOG:
      return std::log(x);
    default:
      return x;
  }
}

bool takes_two(int mode) {
  return mode != CUDNN_POINTWISE_EXP && mode != CUDNN_POINTWISE_LOG &&
         mode != CUDNN_POINTWISE_IDENTITY && mode != CUDNN_POINTWISE_GEN_INDEX;
}

class Run {
 public:
  Run(const TensorProgram& program, const std::map<int64_t, void*>& memory, double factor)
      : program_(program), memory_(memory), factor_(factor) {}

  void operator()(const ProgramOperation& operation) {
    const ProgramTensor& y = program_.tensors.at(operation.y);
    Values result(static_cast<size_t>(y.elements()));
    switch (operation.kind) {
      case OperationKind::kMatmul:
        multiply(operation, y, result);
        break;
      case OperationKind::kPointwise:
        by_element(operation, y, result);
        break;
      case OperationKind::kReduction:
        reduce(operation, y, result);
        break;
      case OperationKind::kReshape:
        reshape(operation, y, result);
        break;
    }
    for (double& value : result) value = rounded(y.type, value);
    if (!y.is_virtual) store(y, result, factor_, memory_.at(operation.y));
    values_[operation.y] = std::move(result);
  }

 private:
  const Values& values_of(int64_t name) {
    const auto [place, is_new] = values_.try_emplace(name);
    if (is_new) place->second = load(program_.tensors.at(name), memory_.at(name));
    return place->second;
  }

  void multiply(const ProgramOperation& operation, const ProgramTensor& y, Values& result) {
    const ProgramTensor &a = program_.tensors.at(operation.x),
                        &b = program_.tensors.at(operation.b);
    const Values left = values_of(operation.x), right = values_of(operation.b);
    const int64_t inner = a.extents[3], columns = b.extents[3];
    Extents4 rows = y.extents;
    rows[3] = 1;
    for_each(rows, [&](size_t at, const Extents4& place) {
      const int64_t shared = place[1] / (a.extents[1] / b.extents[1]);
      const int64_t row = (place[0] * a.extents[1] + place[1]) * a.extents[2] + place[2];
      const int64_t matrix = (place[0] * b.extents[1] + shared) * inner;
      double* const sums = result.data() + at * static_cast<size_t>(columns);
      for (int64_t p = 0; p < inner; ++p) {
        const double factor = left[static_cast<size_t>(row * inner + p)];
        const double* const from = right.data() + (matrix + p) * columns;
        for (int64_t i = 0; i < columns; ++i) sums[i] += factor * from[i];
      }
    });
  }

  void by_element(const ProgramOperation& operation, const ProgramTensor& y, Values& result) {
    const Values x = values_of(operation.x);
    const Values b = operation.b == 0 ? Values() : values_of(operation.b);
    const Values mask = operation.mask == 0 ? Values() : values_of(operation.mask);
    for_each(y.extents, [&](size_t at, const Extents4& place) {
      if (operation.mode == CUDNN_POINTWISE_GEN_INDEX) {
        result[at] = static_cast<double>(place[static_cast<size_t>(operation.axis)]);
        return;
      }
      const double other =
          b.empty() ? 0
                    : b[shared_index(place, y.extents, program_.tensors.at(operation.b).extents)];
      const bool other_taken = !mask.empty() && mask[at] == 0;
      result[at] = other_taken ? other : combined(operation.mode, x[at], other);
    });
  }

  void reduce(const ProgramOperation& operation, const ProgramTensor& y, Values& result) {
    const bool largest = operation.mode == CUDNN_REDUCE_TENSOR_MAX;
    if (largest) result.assign(result.size(), -std::numeric_limits<double>::infinity());
    const ProgramTensor& x = program_.tensors.at(operation.x);
    const Values values = values_of(operation.x);
    for_each(x.extents, [&](size_t at, const Extents4& place) {
      double& to = result[shared_index(place, x.extents, y.extents)];
      to = largest ? std::max(to, values[at]) : to + values[at];
    });
  }

  void reshape(const ProgramOperation& operation, const ProgramTensor& y, Values& result) {
    const ProgramTensor& x = program_.tensors.at(operation.x);
    const Values values = values_of(operation.x);
    const auto in_memory = [](const ProgramTensor& tensor, const Extents4& place) {
      return static_cast<size_t>(offset(place, tensor.steps));
    };
    size_t reach = 0;
    for_each(x.extents, [&](size_t, const Extents4& place) {
      reach = std::max(reach, in_memory(x, place) + 1);
    });
    Values lying(reach, std::numeric_limits<double>::quiet_NaN());
    for_each(x.extents,
             [&](size_t at, const Extents4& place) { lying[in_memory(x, place)] = values[at]; });
    for_each(y.extents,
             [&](size_t at, const Extents4& place) { result[at] = lying.at(in_memory(y, place)); });
  }

  const TensorProgram& program_;
  const std::map<int64_t, void*>& memory_;
  const double factor_;
  std::map<int64_t, Values> values_;
};

std::string misfit(const ProgramOperation& operation, const ProgramTensor& x,
                   const ProgramTensor* b, const ProgramTensor* mask, const ProgramTensor& y) {
  const Extents4 &from = x.extents, &to = y.extents;
  if (operation.kind == OperationKind::kMatmul) {
    const bool fits = b != nullptr && from[0] == b->extents[0] && from[1] % b->extents[1] == 0 &&
                      from[3] == b->extents[2] &&
                      to == Extents4{from[0], from[1], from[2], b->extents[3]};
    return fits ? "" : "a product of other extents";
  }
  if (operation.kind == OperationKind::kReduction) {
    return divides(from, to) ? "" : "a sum of other extents";
  }
  if (operation.kind == OperationKind::kReshape) {
    return x.elements() == y.elements() ? "" : "a reshape of other extents";
  }
  const bool selects = operation.mode == CUDNN_POINTWISE_BINARY_SELECT;
  if (from != to || selects != (mask != nullptr) || takes_two(operation.mode) != (b != nullptr)) {
    return "operands that do not belong to the mode";
  }
  if (b != nullptr && !divides(to, b->extents)) return "an operand of other extents";
  return mask == nullptr || mask->extents == to ? "" : "a mask of other extents";
}

}  // namespace

std::string TensorProgram::finding() const {
  std::set<int64_t> written;
  for (const ProgramOperation& operation : operations) {
    for (const int64_t name : {operation.x, operation.b, operation.mask}) {
      if (name == 0) continue;
      const auto place = tensors.find(name);
      if (place == tensors.end()) return "a tensor that nobody described";
      if (place->second.is_virtual && !written.contains(name)) return "read before it is written";
    }
    const auto find = [&](int64_t name) { return name == 0 ? nullptr : &tensors.at(name); };
    if (!written.insert(operation.y).second) return "written twice";
    const std::string why = misfit(operation, tensors.at(operation.x), find(operation.b),
                                   find(operation.mask), tensors.at(operation.y));
    if (!why.empty()) return why;
  }
  return "";
}

void TensorProgram::run(const std::map<int64_t, void*>& memory, double factor) const {
  Run step(*this, memory, factor);
  for (const ProgramOperation& operation : operations) step(operation);
}

}  // namespace weft::cuda_on_cpu
