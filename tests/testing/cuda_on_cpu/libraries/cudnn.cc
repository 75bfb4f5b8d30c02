#include "tests/testing/cuda_on_cpu/include/cudnn.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/cudnn_library.h"
#include "tests/testing/cuda_on_cpu/libraries/tensor_program.h"
#include "tests/testing/cuda_on_cpu/streams.h"

namespace cpu = weft::cuda_on_cpu;

struct cudnnContext {
  cudaStream_t stream = nullptr;
};

namespace {

constexpr int64_t kWorkspaceBytes = 512;
enum Engine { kVarying, kUnable, kSteady, kEngines };

struct Object {
  cudnnBackendDescriptorType_t type{};
  bool finished = false;
  std::map<int, std::vector<unsigned char>> values;
  std::map<int, std::vector<std::shared_ptr<Object>>> objects;
  std::shared_ptr<cpu::TensorProgram> program;  // of a graph, and what was made of it
  int engine = 0;

  template <typename T>
  std::vector<T> all(int name) const {
    const auto place = values.find(name);
    if (place == values.end()) return {};
    std::vector<T> out(place->second.size() / sizeof(T));
    std::memcpy(out.data(), place->second.data(), place->second.size());
    return out;
  }
  template <typename T>
  T one(int name) const {
    T value{};
    if (const auto place = values.find(name); place != values.end()) {
      std::memcpy(&value, place->second.data(), sizeof value);
    }
    return value;
  }
  const Object* object(int name) const {
    const auto place = objects.find(name);
    return place == objects.end() ? nullptr : place->second[0].get();
  }
};

// What a descriptor names: others keep what it was when they were given it.
struct Descriptor {
  std::shared_ptr<Object> object = std::make_shared<Object>();
};
Descriptor& descriptor_of(cudnnBackendDescriptor_t raw) { return *static_cast<Descriptor*>(raw); }

size_t bytes_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN:
      return sizeof(bool);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
      return 8;
    default:
      return 4;
  }
}

// Which descriptor has an attribute, of which type, and how many of them; 0: any number.
struct Rule {
  int descriptor, name, type;
  int64_t count;
};
constexpr Rule kRules[] = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1},
    {CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_ADESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_BDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_CDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_DESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_TDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_OPERATOR,
     CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_XDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_YDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_DESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, CUDNN_ATTR_OPERATION_RESHAPE_XDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, CUDNN_ATTR_OPERATION_RESHAPE_YDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE,
     1},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 0},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE,
     1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
     0},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
     CUDNN_TYPE_VOID_PTR, 0},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
     1}};

bool is_allowed(const Object& object, int name, int type, int64_t count) {
  for (const Rule& rule : kRules) {
    if (rule.descriptor == object.type && rule.name == name) {
      return rule.type == type && count > 0 && (rule.count == 0 || rule.count == count);
    }
  }
  return false;
}

cpu::Extents4 four(const std::vector<int64_t>& values) {
  return {values[0], values[1], values[2], values[3]};
}

// Of the tensor that an operation names, 0 where it names none; into the program.
int64_t tensor_of(const Object& operation, int name, cpu::TensorProgram& program) {
  const Object* tensor = operation.object(name);
  if (tensor == nullptr) return 0;
  const auto id = tensor->one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  program.tensors[id] = {tensor->one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE),
                         four(tensor->all<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS)),
                         four(tensor->all<int64_t>(CUDNN_ATTR_TENSOR_STRIDES)),
                         tensor->one<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL),
                         tensor->one<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE)};
  return id;
}

cpu::ProgramOperation operation_of(const Object& from, cpu::TensorProgram& program) {
  const auto tensor = [&](int name) { return tensor_of(from, name, program); };
  cpu::ProgramOperation to{cpu::OperationKind::kReshape};
  if (from.type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) {
    to.kind = cpu::OperationKind::kMatmul;
    to.x = tensor(CUDNN_ATTR_OPERATION_MATMUL_ADESC);
    to.b = tensor(CUDNN_ATTR_OPERATION_MATMUL_BDESC);
    to.y = tensor(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
  } else if (from.type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR) {
    const Object* how = from.object(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    to.kind = cpu::OperationKind::kPointwise;
    to.mode = how->one<int>(CUDNN_ATTR_POINTWISE_MODE);
    to.axis = how->one<int64_t>(CUDNN_ATTR_POINTWISE_AXIS);
    to.x = tensor(CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    to.b = tensor(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    to.mask = tensor(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
    to.y = tensor(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
  } else if (from.type == CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR) {
    to.kind = cpu::OperationKind::kReduction;
    to.mode =
        from.object(CUDNN_ATTR_OPERATION_REDUCTION_DESC)->one<int>(CUDNN_ATTR_REDUCTION_OPERATOR);
    to.x = tensor(CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
    to.y = tensor(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
  } else {
    to.x = tensor(CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
    to.y = tensor(CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
  }
  return to;
}

bool is_complete(const Object& object) {
  for (const Rule& rule : kRules) {
    const bool optional = rule.name == CUDNN_ATTR_POINTWISE_AXIS ||
                          rule.name == CUDNN_ATTR_OPERATION_POINTWISE_BDESC ||
                          rule.name == CUDNN_ATTR_OPERATION_POINTWISE_TDESC;
    if (rule.descriptor == object.type && !optional && !object.values.contains(rule.name) &&
        !object.objects.contains(rule.name)) {
      return false;
    }
  }
  return true;
}

std::shared_ptr<Object> made(cudnnBackendDescriptorType_t type, const Object& of, int engine) {
  auto object = std::make_shared<Object>();
  object->type = type;
  object->finished = true;
  object->program = of.program;
  object->engine = engine;
  return object;
}

}  // namespace

size_t cudnnGetVersion() { return 91900; }

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = new cudnnContext;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* descriptor) {
  auto* made = new Descriptor;
  made->object->type = type;
  *descriptor = made;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  delete &descriptor_of(descriptor);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void* values) {
  Object& object = *descriptor_of(descriptor).object;
  if (object.finished || !is_allowed(object, name, type, count)) return CUDNN_STATUS_BAD_PARAM;
  if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    const auto* bytes = static_cast<const unsigned char*>(values);
    object.values[name].assign(bytes, bytes + static_cast<size_t>(count) * bytes_of(type));
    return CUDNN_STATUS_SUCCESS;
  }
  const auto* others = static_cast<const cudnnBackendDescriptor_t*>(values);
  for (int64_t i = 0; i < count; ++i) {
    const std::shared_ptr<Object>& other = descriptor_of(others[i]).object;
    if (!other->finished) return CUDNN_STATUS_BAD_PARAM;
    object.objects[name].push_back(other);
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  Object& object = *descriptor_of(descriptor).object;
  if (object.finished || !is_complete(object)) return CUDNN_STATUS_BAD_PARAM;
  if (object.type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
    object.program = std::make_shared<cpu::TensorProgram>();
    for (const auto& each : object.objects[CUDNN_ATTR_OPERATIONGRAPH_OPS]) {
      object.program->operations.push_back(operation_of(*each, *object.program));
    }
    if (!object.program->finding().empty()) return CUDNN_STATUS_BAD_PARAM;
  }
  if (object.type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) {
    object.program = object.object(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)->program;
  }
  if (object.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
    const Object* configuration = object.object(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    if (configuration->engine == kUnable) return CUDNN_STATUS_NOT_SUPPORTED;
    object.program = configuration->program;
    object.engine = configuration->engine;
  }
  object.finished = true;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t room, int64_t* count,
                                       void* values) {
  const Object& object = *descriptor_of(descriptor).object;
  if (!object.finished || room < 1) return CUDNN_STATUS_BAD_PARAM;
  *count = 1;
  if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    *count = kEngines;
    for (int i = 0; i < std::min<int64_t>(room, kEngines); ++i) {
      descriptor_of(static_cast<cudnnBackendDescriptor_t*>(values)[i]).object =
          made(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, object, i);
    }
  } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
    descriptor_of(*static_cast<cudnnBackendDescriptor_t*>(values)).object =
        made(CUDNN_BACKEND_ENGINE_DESCRIPTOR, object, object.engine);
  } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && room >= 2) {
    auto* notes = static_cast<cudnnBackendNumericalNote_t*>(values);
    notes[0] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    notes[1] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    *count = object.engine == kVarying ? 2 : 1;
  } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
    *static_cast<int64_t*>(values) = kWorkspaceBytes;
  } else {
    return CUDNN_STATUS_BAD_PARAM;
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  const Object &planned = *descriptor_of(plan).object, &packed = *descriptor_of(pack).object;
  const auto names = packed.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto pointers = packed.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  auto* workspace = packed.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  if (!planned.finished || !packed.finished || names.size() != pointers.size()) {
    return CUDNN_STATUS_BAD_PARAM;
  }
  std::map<int64_t, void*> memory;
  auto numbers = std::make_shared<std::map<int64_t, float>>();  // read now, as the library does
  for (size_t i = 0; i < names.size(); ++i) memory[names[i]] = pointers[i];
  for (const auto& [name, tensor] : planned.program->tensors) {
    if (tensor.is_virtual) continue;
    if (!memory.contains(name)) return CUDNN_STATUS_BAD_PARAM;
    if (tensor.by_value) {
      memory[name] = &((*numbers)[name] = *static_cast<const float*>(memory[name]));
    } else if (reinterpret_cast<uintptr_t>(memory[name]) % 16 != 0) {
      return CUDNN_STATUS_BAD_PARAM;
    }
  }
  cpu::enqueue(handle->stream, [=, program = planned.program, engine = planned.engine] {
    static int runs = 0;
    std::memset(workspace, 0xFF, static_cast<size_t>(kWorkspaceBytes));
    program->run(memory, engine == kVarying ? 1 + 0x1p-8 * (++runs % 2) : 1.0);
    (void)numbers;
  });
  return CUDNN_STATUS_SUCCESS;
}

namespace weft::cuda {

Result<const Cudnn*> cudnn() {
  static const Cudnn table{cudnnGetVersion,
                           cudnnCreate,
                           cudnnDestroy,
                           cudnnSetStream,
                           cudnnBackendCreateDescriptor,
                           cudnnBackendDestroyDescriptor,
                           cudnnBackendSetAttribute,
                           cudnnBackendGetAttribute,
                           cudnnBackendFinalize,
                           cudnnBackendExecute};
  return &table;
}

}  // namespace weft::cuda
