#include "tests/testing/cuda_on_cpu/include/cublasLt.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "kernels/cuda/cublas_lt.h"
#include "kernels/tensor/half.h"
#include "tests/testing/cuda_on_cpu/libraries/installed.h"

namespace cpu = weft::cuda_on_cpu;

struct cublasLtContext {};
struct cublasLtMatmulDescStruct {
  cublasOperation_t of_a = CUBLAS_OP_N, of_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void *bias = nullptr, *aux = nullptr;
  int64_t aux_step = 0;
  cudaDataType_t bias_type = CUDA_R_32F;
};
struct cublasLtMatrixLayoutStruct {
  cudaDataType_t type;
  int64_t rows, columns, step;
  int32_t batch = 1;
  int64_t batch_step = 0;
};
struct cublasLtMatmulPreferenceStruct {
  uint64_t workspace_bytes = 0;
  uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
};

namespace {

using Layout = cublasLtMatrixLayoutStruct;

template <typename T>
cublasStatus_t take(T& target, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&target, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

size_t bytes_of(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }

float load(const void* data, cudaDataType_t type, int64_t at) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[at];
  if (type == CUDA_R_16BF) return static_cast<const weft::bfloat16*>(data)[at];
  return static_cast<const weft::float16*>(data)[at];
}
void store(void* data, cudaDataType_t type, int64_t at, float value) {
  if (type == CUDA_R_32F) static_cast<float*>(data)[at] = value;
  if (type == CUDA_R_16BF) static_cast<weft::bfloat16*>(data)[at] = weft::bfloat16(value);
  if (type == CUDA_R_16F) static_cast<weft::float16*>(data)[at] = weft::float16(value);
}

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}
double gelu_slope(double x) {
  const double t = std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
}

struct Call {
  cublasLtMatmulDescStruct description;
  Layout a_layout, b_layout, c_layout, d_layout;
  float alpha, beta;
  const void *a, *b, *c;
  void* d;
  uint64_t cut;  // of the algorithm: where the sum is cut, modulo its length

  int64_t rows() const { return d_layout.rows; }
  int64_t columns() const { return d_layout.columns; }
  int64_t inner() const {
    return description.of_a == CUBLAS_OP_N ? a_layout.columns : a_layout.rows;
  }
  float a_at(int64_t batch, int64_t i, int64_t p) const {
    const bool plain = description.of_a == CUBLAS_OP_N;
    const int64_t at = plain ? i + p * a_layout.step : p + i * a_layout.step;
    return load(a, a_layout.type, batch * a_layout.batch_step + at);
  }
  float b_at(int64_t batch, int64_t p, int64_t j) const {
    const bool plain = description.of_b == CUBLAS_OP_N;
    const int64_t at = plain ? p + j * b_layout.step : j + p * b_layout.step;
    return load(b, b_layout.type, batch * b_layout.batch_step + at);
  }

  void run() const {
    std::vector<double> sums(static_cast<size_t>(rows()), 0.0);  // of the bias gradient
    for (int64_t batch = 0; batch < d_layout.batch; ++batch) {
      const std::vector<double> left = left_of(batch);
      for (int64_t j = 0; j < columns(); ++j) column(batch, j, left, sums);
    }
    if (description.epilogue == CUBLASLT_EPILOGUE_BGRADA) {
      for (int64_t i = 0; i < rows(); ++i) {
        for (int64_t p = 0; p < inner(); ++p) {
          sums[static_cast<size_t>(i)] += static_cast<double>(a_at(0, i, p));
        }
      }
    } else if (description.epilogue != CUBLASLT_EPILOGUE_DGELU_BGRAD) {
      return;
    }
    for (int64_t i = 0; i < rows(); ++i) {
      store(description.bias, description.bias_type, i,
            static_cast<float>(sums[static_cast<size_t>(i)]));
    }
  }

  // a of a batch, the rows of one term of the sums after the other.
  std::vector<double> left_of(int64_t batch) const {
    std::vector<double> left;
    left.reserve(static_cast<size_t>(rows() * inner()));
    for (int64_t p = 0; p < inner(); ++p) {
      for (int64_t i = 0; i < rows(); ++i) left.push_back(static_cast<double>(a_at(batch, i, p)));
    }
    return left;
  }

  void column(int64_t batch, int64_t j, const std::vector<double>& left,
              std::vector<double>& sums) const {
    const auto count = static_cast<size_t>(rows());
    const auto middle = static_cast<int64_t>(cut % static_cast<uint64_t>(inner()));
    std::vector<double> parts[2] = {std::vector<double>(count), std::vector<double>(count)};
    for (int64_t p = 0; p < inner(); ++p) {
      const auto right = static_cast<double>(b_at(batch, p, j));
      const double* const from = left.data() + static_cast<size_t>(p) * count;
      double* const part = parts[p < middle ? 0 : 1].data();
      for (size_t i = 0; i < count; ++i) part[i] += from[i] * right;
    }
    for (size_t i = 0; i < count; ++i) {
      const double value = double{static_cast<float>(parts[0][i])} +  // each part is rounded
                           double{static_cast<float>(parts[1][i])};
      finish(batch, static_cast<int64_t>(i), j, value, sums[i]);
    }
  }

  void finish(int64_t batch, int64_t i, int64_t j, double value_of_parts, double& sum) const {
    double value = static_cast<double>(alpha) * value_of_parts;
    if (beta != 0) {
      value += static_cast<double>(beta) *
               static_cast<double>(
                   load(c, c_layout.type, batch * c_layout.batch_step + i + j * c_layout.step));
    }
    const int64_t aux_at = i + j * description.aux_step;
    switch (description.epilogue) {
      case CUBLASLT_EPILOGUE_BIAS:
        value += static_cast<double>(load(description.bias, description.bias_type, i));
        break;
      case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
        value += static_cast<double>(load(description.bias, description.bias_type, i));
        store(description.aux, d_layout.type, aux_at, static_cast<float>(value));
        value = gelu(value);
        break;
      case CUBLASLT_EPILOGUE_DGELU_BGRAD:
        value *= gelu_slope(static_cast<double>(load(description.aux, d_layout.type, aux_at)));
        sum += value;
        break;
      default:
        break;
    }
    store(d, d_layout.type, batch * d_layout.batch_step + i + j * d_layout.step,
          static_cast<float>(value));
  }
};

bool fits(const Layout& layout) {
  return layout.rows > 0 && layout.columns > 0 && layout.step >= layout.rows;
}

// Whether shapes, types and the epilogue's parts belong together.
bool is_possible(const cublasLtMatmulDescStruct& what, const Layout& a, const Layout& b,
                 const Layout& d) {
  const bool plain_a = what.of_a == CUBLAS_OP_N, plain_b = what.of_b == CUBLAS_OP_N;
  const bool shapes = (plain_a ? a.rows : a.columns) == d.rows &&
                      (plain_b ? b.columns : b.rows) == d.columns &&
                      (plain_a ? a.columns : a.rows) == (plain_b ? b.rows : b.columns);
  const bool batches = a.batch == d.batch && b.batch == d.batch;
  const bool types = a.type == b.type && (a.type == d.type || d.type == CUDA_R_32F);
  if (!fits(a) || !fits(b) || !fits(d) || !shapes || !batches || !types) return false;
  const bool has_aux = what.epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS ||
                       what.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
  if (has_aux && (what.aux_step < d.rows || what.aux_step % 8 != 0)) return false;
  return what.epilogue == CUBLASLT_EPILOGUE_DEFAULT || what.bias != nullptr;
}

bool is_aligned(const void* data, const Layout& layout, uint64_t to) {
  const uint64_t bytes = bytes_of(layout.type);
  return (reinterpret_cast<uintptr_t>(data) | static_cast<uint64_t>(layout.step) * bytes |
          static_cast<uint64_t>(layout.batch_step) * bytes) %
             to ==
         0;
}

// Where an algorithm cuts sums: as the library's choice, it follows from shapes, strides,
// alignments, and which dims are innermost.
uint64_t cut_of(const cublasLtMatmulDescStruct& what, std::initializer_list<const Layout*> layouts,
                const cublasLtMatmulPreferenceStruct& preference) {
  uint64_t mixed = 14695981039346656037U;  // FNV-1a, a number at a time
  const auto mix = [&](auto value) {
    mixed = (mixed ^ static_cast<uint64_t>(value)) * 1099511628211U;
  };
  mix(what.of_a);
  mix(what.of_b);
  for (const Layout* layout : layouts) {
    mix(layout->rows);
    mix(layout->columns);
    mix(layout->step);
    mix(layout->batch);
  }
  mix(preference.alignment_a);
  mix(preference.alignment_b);
  mix(preference.alignment_d);
  return mixed >> 32;
}

}  // namespace

size_t cublasLtGetVersion() { return 130000; }
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t,
                                        cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *description = new cublasLtMatmulDescStruct;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete description;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return take(description->of_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return take(description->of_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return take(description->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return take(description->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return take(description->aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return take(description->aux_step, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return take(description->bias_type, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t columns, int64_t step) {
  *layout = new Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), step, 1, 0};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, size_t bytes) {
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return take(layout->batch, value, bytes);
  return take(layout->batch_step, value, bytes);
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceStruct;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return take(preference->workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return take(preference->alignment_a, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return take(preference->alignment_b, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return take(preference->alignment_c, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return take(preference->alignment_d, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

// The algorithm is what it was promised: the alignments, and the shape it was chosen for.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
  *found = 0;
  if (wanted < 1 || !is_possible(*description, *a, *b, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
  results[0] = {};
  results[0].algo.data[0] = preference->alignment_a;
  results[0].algo.data[1] = preference->alignment_b;
  results[0].algo.data[2] = preference->alignment_d;
  results[0].algo.data[3] = static_cast<uint64_t>(d->rows);
  results[0].algo.data[4] = static_cast<uint64_t>(d->columns);
  results[0].algo.data[5] = static_cast<uint64_t>(description->epilogue);
  results[0].algo.data[6] = cut_of(*description, {a, b, d}, *preference);
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void*, size_t,
                              cudaStream_t stream) {
  const uint64_t* chosen = algorithm->data;
  const bool as_chosen = chosen[3] == static_cast<uint64_t>(d_layout->rows) &&
                         chosen[4] == static_cast<uint64_t>(d_layout->columns) &&
                         chosen[5] == static_cast<uint64_t>(description->epilogue) &&
                         is_aligned(a, *a_layout, chosen[0]) &&
                         is_aligned(b, *b_layout, chosen[1]) && is_aligned(d, *d_layout, chosen[2]);
  if (!as_chosen || !is_possible(*description, *a_layout, *b_layout, *d_layout)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const Call call{*description,
                  *a_layout,
                  *b_layout,
                  *c_layout,
                  *d_layout,
                  *static_cast<const float*>(alpha),
                  *static_cast<const float*>(beta),
                  a,
                  b,
                  c,
                  d,
                  chosen[6]};
  cpu::enqueue(stream, [call] { call.run(); });
  return CUBLAS_STATUS_SUCCESS;
}

namespace weft::cuda {

Result<const CublasLt*> cublas_lt() {
  WEFT_RETURN_IF_ERROR(cpu::look_for_library("libcublasLt.so.13"));
  static const CublasLt table{cublasLtGetVersion,
                              cublasLtCreate,
                              cublasLtDestroy,
                              cublasLtMatmulDescCreate,
                              cublasLtMatmulDescDestroy,
                              cublasLtMatmulDescSetAttribute,
                              cublasLtMatrixLayoutCreate,
                              cublasLtMatrixLayoutDestroy,
                              cublasLtMatrixLayoutSetAttribute,
                              cublasLtMatmulPreferenceCreate,
                              cublasLtMatmulPreferenceDestroy,
                              cublasLtMatmulPreferenceSetAttribute,
                              cublasLtMatmulAlgoGetHeuristic,
                              cublasLtMatmul};
  return &table;
}

}  // namespace weft::cuda
