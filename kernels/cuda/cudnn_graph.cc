#include "kernels/cuda/cudnn_graph.h"

#include <algorithm>
#include <iterator>
#include <string>

namespace weft::cuda {
namespace {

constexpr int64_t kAlignment = 16;
constexpr size_t kEnginesMax = 16;

void check(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw StatusError(Status(Code::kUnavailable, std::string("cuDNN refuses ") + what + ": status " +
                                                   std::to_string(status)));
}

Extents4 packed(const Extents4& extents) {
  return {extents[1] * extents[2] * extents[3], extents[2] * extents[3], extents[3], 1};
}

}  // namespace

CudnnDescriptor::CudnnDescriptor(const Cudnn& library, cudnnBackendDescriptorType_t type)
    : library_(library) {
  check(library.descriptor_create(type, &raw_), "a descriptor");
}

CudnnDescriptor::~CudnnDescriptor() {
  if (raw_ != nullptr) library_.descriptor_destroy(raw_);
}

void CudnnDescriptor::set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                              int64_t count, const void* values) {
  check(library_.descriptor_set(raw_, name, type, count, values), "an attribute");
}

int64_t CudnnDescriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                             int64_t room, void* values) const {
  int64_t count = 0;
  check(library_.descriptor_get(raw_, name, type, room, &count, values), "an attribute's value");
  return count;
}

void CudnnDescriptor::finalize() { check(library_.descriptor_finalize(raw_), "a description"); }

int64_t CudnnGraph::add_tensor(cudnnDataType_t type, const Extents4& extents, const Extents4& steps,
                               bool is_virtual, bool by_value) {
  const int64_t name = static_cast<int64_t>(tensors_.size()) + 1;
  CudnnDescriptor tensor = descriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
  tensor.set<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, std::span(extents));
  tensor.set<int64_t>(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, std::span(steps));
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, name);
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, kAlignment);
  tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, is_virtual);
  tensor.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, by_value);
  tensor.finalize();
  tensors_.push_back(std::move(tensor));
  return name;
}

int64_t CudnnGraph::tensor(cudnnDataType_t type, const Extents4& extents, const Extents4& steps) {
  return add_tensor(type, extents, steps, false, false);
}

int64_t CudnnGraph::wire(cudnnDataType_t type, const Extents4& extents) {
  return wire(type, extents, packed(extents));
}

int64_t CudnnGraph::wire(cudnnDataType_t type, const Extents4& extents, const Extents4& steps) {
  return add_tensor(type, extents, steps, true, false);
}

int64_t CudnnGraph::number(float value) {
  const Extents4 one{1, 1, 1, 1};
  numbers_.emplace_back(add_tensor(CUDNN_DATA_FLOAT, one, one, false, true), value);
  return numbers_.back().first;
}

void CudnnGraph::finish(CudnnDescriptor operation) {
  operation.finalize();
  operations_.push_back(std::move(operation));
}

void CudnnGraph::matmul(int64_t a, int64_t b, int64_t c) {
  CudnnDescriptor product = descriptor(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  product.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  product.finalize();
  CudnnDescriptor operation = descriptor(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, at(a));
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, at(b));
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, at(c));
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, product);
  details_.push_back(std::move(product));
  finish(std::move(operation));
}

CudnnDescriptor CudnnGraph::pointwise_of(cudnnPointwiseMode_t mode, cudnnDataType_t math,
                                         std::optional<int64_t> axis) {
  CudnnDescriptor pointwise = descriptor(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  pointwise.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  pointwise.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, math);
  if (axis) pointwise.set(CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, *axis);
  pointwise.finalize();
  return pointwise;
}

CudnnDescriptor CudnnGraph::pointwise_operation(const CudnnDescriptor& pointwise, int64_t x,
                                                int64_t y) {
  CudnnDescriptor operation = descriptor(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, at(x));
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, at(y));
  return operation;
}

void CudnnGraph::pointwise(cudnnPointwiseMode_t mode, int64_t x, int64_t b, int64_t y,
                           cudnnDataType_t math) {
  CudnnDescriptor pointwise = pointwise_of(mode, math, std::nullopt);
  CudnnDescriptor operation = pointwise_operation(pointwise, x, y);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, at(b));
  details_.push_back(std::move(pointwise));
  finish(std::move(operation));
}

void CudnnGraph::pointwise(cudnnPointwiseMode_t mode, int64_t x, int64_t y) {
  CudnnDescriptor pointwise = pointwise_of(mode, CUDNN_DATA_FLOAT, std::nullopt);
  CudnnDescriptor operation = pointwise_operation(pointwise, x, y);
  details_.push_back(std::move(pointwise));
  finish(std::move(operation));
}

void CudnnGraph::index(int64_t x, int64_t axis, int64_t y) {
  CudnnDescriptor pointwise = pointwise_of(CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, axis);
  CudnnDescriptor operation = pointwise_operation(pointwise, x, y);
  details_.push_back(std::move(pointwise));
  finish(std::move(operation));
}

void CudnnGraph::select(int64_t x, int64_t b, int64_t mask, int64_t y) {
  CudnnDescriptor pointwise =
      pointwise_of(CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, std::nullopt);
  CudnnDescriptor operation = pointwise_operation(pointwise, x, y);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, at(b));
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, at(mask));
  details_.push_back(std::move(pointwise));
  finish(std::move(operation));
}

void CudnnGraph::reduce(cudnnReduceTensorOp_t op, int64_t x, int64_t y) {
  CudnnDescriptor reduction = descriptor(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  reduction.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  reduction.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, op);
  reduction.finalize();
  CudnnDescriptor operation = descriptor(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, reduction);
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, at(x));
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, at(y));
  details_.push_back(std::move(reduction));
  finish(std::move(operation));
}

void CudnnGraph::reshape(int64_t x, int64_t y) {
  CudnnDescriptor operation = descriptor(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, at(x));
  operation.set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, at(y));
  finish(std::move(operation));
}

bool CudnnGraph::is_repeatable(const CudnnDescriptor& configuration) const {
  const CudnnDescriptor engine(library_, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.raw();
  configuration.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  const int64_t count = engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                   std::ssize(notes), notes.data());
  for (int64_t i = 0; i < count; ++i) {
    if (notes[static_cast<size_t>(i)] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) return false;
  }
  return true;
}

bool CudnnGraph::plan(cudnnHandle_t handle, bool repeatable) {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const CudnnDescriptor& operation : operations_) raw.push_back(operation.raw());
  CudnnDescriptor graph = descriptor(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
  graph.set<cudnnBackendDescriptor_t>(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                      std::span(raw));
  graph.finalize();
  CudnnDescriptor heuristics = descriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
  heuristics.finalize();
  planned_.push_back(std::move(graph));

  raw.clear();
  for (size_t i = 0; i < kEnginesMax; ++i) {
    planned_.push_back(descriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    raw.push_back(planned_.back().raw());
  }
  const int64_t found = heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                       std::ssize(raw), raw.data());
  for (size_t i = 1; i <= std::min(static_cast<size_t>(found), kEnginesMax); ++i) {
    if (repeatable && !is_repeatable(planned_[i])) continue;
    CudnnDescriptor plan = descriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, planned_[i]);
    if (library_.descriptor_finalize(plan.raw()) != CUDNN_STATUS_SUCCESS) continue;
    planned_.push_back(std::move(plan));
    return true;
  }
  return false;
}

int64_t CudnnGraph::workspace_bytes() const {
  int64_t bytes = 0;
  planned_.back().get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &bytes);
  return bytes;
}

void CudnnGraph::run(cudnnHandle_t handle, std::span<const std::pair<int64_t, void*>> places,
                     void* workspace) const {
  std::vector<int64_t> names;
  std::vector<void*> pointers;
  for (const auto& [name, place] : places) {
    names.push_back(name);
    pointers.push_back(place);
  }
  std::vector<float> values;
  values.reserve(numbers_.size());
  for (const auto& [name, value] : numbers_) {
    names.push_back(name);
    values.push_back(value);
    pointers.push_back(&values.back());
  }
  CudnnDescriptor pack(library_, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::span(pointers));
  pack.set<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, std::span(names));
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  pack.finalize();
  check(library_.execute(handle, planned_.back().raw(), pack.raw()), "to run a graph");
}

}  // namespace weft::cuda
