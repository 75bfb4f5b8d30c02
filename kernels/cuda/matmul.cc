// cuBLASLt's matrices are column-major, so it is asked for the transpose of the product,
// out^T [n, m] = b^T [n, k] a^T [k, m]: its first operand is our b, its vectors run along our n.
#include "kernels/cuda/matmul.h"

#include <string>

namespace weft::cuda {
namespace {

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw StatusError(Status(Code::kUnavailable, std::string("cuBLASLt refuses ") + what +
                                                   ": status " + std::to_string(status)));
}

cudaDataType_t data_type(DType type) {
  WEFT_CHECK(type == DType::kF32 || is_half(type), "a product of {}", dtype_name(type));
  if (type == DType::kBF16) return CUDA_R_16BF;
  return type == DType::kF16 ? CUDA_R_16F : CUDA_R_32F;
}

cublasLtEpilogue_t library_epilogue(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::kGeluBias:
      return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case Epilogue::kDGeluBiasGradient:
      return CUBLASLT_EPILOGUE_DGELU_BGRAD;
    case Epilogue::kBiasGradient:
      return CUBLASLT_EPILOGUE_BGRADA;
    case Epilogue::kNone:
      break;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

// Whether the operand lies row-major; the other way round otherwise.
bool by_rows(const Operand& x) { return x.column_step == 1; }
int64_t leading(const Operand& x) { return by_rows(x) ? x.row_step : x.column_step; }

// The largest power of two up to 256 that divides every address of the operand.
uint32_t alignment(const void* data, int64_t step, int64_t batch_step, DType type) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(data) |
                        static_cast<uint64_t>(step) * size_of(type) |
                        static_cast<uint64_t>(batch_step) * size_of(type) | 256;
  return static_cast<uint32_t>(bits & ~(bits - 1));
}

// What the library asks of the vectors and matrices of an epilogue (cublasLtEpilogue_t and
// CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD in its documentation).
constexpr uint32_t kEpilogueAlignment = 16;
constexpr int64_t kAuxStepUnit = 8;

bool follows_rules(const Product& p) {
  if (alignment(p.bias, 0, 0, p.out_type) < kEpilogueAlignment) return false;
  return p.aux == nullptr || (p.aux_step % kAuxStepUnit == 0 &&
                              alignment(p.aux, p.aux_step, 0, p.out_type) >= kEpilogueAlignment);
}

}  // namespace

// One product in the library's words; its objects live as long as this.
struct Matmul::Descriptions {
  const CublasLt& library;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, out = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;

  explicit Descriptions(const CublasLt& table) : library(table) {}
  ~Descriptions() {
    if (preference != nullptr) library.preference_destroy(preference);
    for (const cublasLtMatrixLayout_t layout : {out, second, first}) {
      if (layout != nullptr) library.layout_destroy(layout);
    }
    if (product != nullptr) library.description_destroy(product);
  }
  Descriptions(const Descriptions&) = delete;
  Descriptions& operator=(const Descriptions&) = delete;

  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(library.description_set(product, attribute, &value, sizeof value), "an attribute");
  }
  template <typename T>
  void prefer(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    check(library.preference_set(preference, attribute, &value, sizeof value), "a preference");
  }

  void describe(const Product& p) {
    const cublasComputeType_t compute =
        p.tf32 && p.type == DType::kF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    check(library.description_create(&product, compute, CUDA_R_32F), "a description");
    set(CUBLASLT_MATMUL_DESC_TRANSA, by_rows(p.b) ? CUBLAS_OP_N : CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_TRANSB, by_rows(p.a) ? CUBLAS_OP_N : CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, library_epilogue(p.epilogue));
    if (p.epilogue != Epilogue::kNone) {
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(p.out_type));
    }
    if (p.epilogue == Epilogue::kGeluBias || p.epilogue == Epilogue::kDGeluBiasGradient) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.aux);
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.aux_step);
    }
    const int64_t b_rows = by_rows(p.b) ? p.n : p.k, a_rows = by_rows(p.a) ? p.k : p.m;
    first = layout(p.type, b_rows, p.n * p.k / b_rows, leading(p.b), p.b.batch_step, p.batch);
    second = layout(p.type, a_rows, p.m * p.k / a_rows, leading(p.a), p.a.batch_step, p.batch);
    out = layout(p.out_type, p.n, p.m, p.out_step, p.out_batch_step, p.batch);
  }

  cublasLtMatrixLayout_t layout(DType type, int64_t rows, int64_t columns, int64_t step,
                                int64_t batch_step, int64_t batches) const {
    cublasLtMatrixLayout_t target = nullptr;
    check(library.layout_create(&target, data_type(type), static_cast<uint64_t>(rows),
                                static_cast<uint64_t>(columns), step),
          "a layout");
    if (batches == 1) return target;
    const int32_t batch = static_cast<int32_t>(batches);
    check(library.layout_set(target, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch),
          "a batch");
    check(library.layout_set(target, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_step,
                             sizeof batch_step),
          "a batch");
    return target;
  }

  void choose_by(const Product& p) {
    check(library.preference_create(&preference), "a preference");
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
           alignment(p.b.data, leading(p.b), p.b.batch_step, p.type));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
           alignment(p.a.data, leading(p.a), p.a.batch_step, p.type));
    const uint32_t of_out = alignment(p.out, p.out_step, p.out_batch_step, p.out_type);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
           alignment(p.added, p.out_step, p.out_batch_step, p.out_type));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_out);
  }
};

Result<std::unique_ptr<Matmul>> Matmul::create() {
  WEFT_ASSIGN_OR_RETURN(const CublasLt* library, cublas_lt());
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = library->create(&handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return fail(Code::kUnavailable, "cuBLASLt does not start: status " + std::to_string(status));
  }
  return std::unique_ptr<Matmul>(new Matmul(*library, handle));
}

Matmul::~Matmul() { library_.destroy(handle_); }

Matmul::Key Matmul::key_of(const Product& p) {
  return {static_cast<int64_t>(p.type),
          static_cast<int64_t>(p.out_type),
          p.m,
          p.n,
          p.k,
          p.batch,
          by_rows(p.a),
          leading(p.a),
          p.a.batch_step,
          by_rows(p.b),
          leading(p.b),
          p.b.batch_step,
          p.out_step,
          p.out_batch_step,
          p.added != nullptr,
          p.tf32,
          static_cast<int64_t>(p.epilogue),
          p.aux_step,
          alignment(p.a.data, leading(p.a), p.a.batch_step, p.type),
          alignment(p.b.data, leading(p.b), p.b.batch_step, p.type),
          alignment(p.out, p.out_step, p.out_batch_step, p.out_type),
          alignment(p.added, p.out_step, p.out_batch_step, p.out_type),
          alignment(p.bias, 0, 0, p.out_type),
          alignment(p.aux, p.aux_step, 0, p.out_type)};
}

const cublasLtMatmulAlgo_t* Matmul::algorithm(const Product& product,
                                              const Descriptions& descriptions) {
  const auto [place, is_new] = algorithms_.try_emplace(key_of(product));
  if (is_new && follows_rules(product)) {
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const cublasStatus_t status = library_.choose(
        handle_, descriptions.product, descriptions.first, descriptions.second, descriptions.out,
        descriptions.out, descriptions.preference, 1, &best, &found);
    if (status == CUBLAS_STATUS_SUCCESS && found > 0) place->second = best.algo;
  }
  return place->second ? &*place->second : nullptr;
}

bool Matmul::supports(const Product& product) {
  Descriptions descriptions(library_);
  descriptions.describe(product);
  descriptions.choose_by(product);
  return algorithm(product, descriptions) != nullptr;
}

void Matmul::run(const Product& product, void* workspace, cudaStream_t stream) {
  WEFT_CHECK(product.m > 0 && product.n > 0 && product.k > 0 && product.batch > 0,
             "a product [{}, {}, {}] x {}", product.m, product.n, product.k, product.batch);
  Descriptions descriptions(library_);
  descriptions.describe(product);
  descriptions.choose_by(product);
  const cublasLtMatmulAlgo_t* chosen = algorithm(product, descriptions);
  if (chosen == nullptr) {
    throw StatusError(
        Status(Code::kUnavailable,
               "cuBLASLt has no algorithm for a product [" + std::to_string(product.m) + ", " +
                   std::to_string(product.k) + "] x [" + std::to_string(product.k) + ", " +
                   std::to_string(product.n) + "] of " + std::string(dtype_name(product.type))));
  }
  const float beta = product.added != nullptr ? 1.0F : 0.0F;
  const void* added = product.added != nullptr ? product.added : product.out;
  check(library_.matmul(handle_, descriptions.product, &product.alpha, product.b.data,
                        descriptions.first, product.a.data, descriptions.second, &beta, added,
                        descriptions.out, product.out, descriptions.out, chosen, workspace,
                        kWorkspaceBytes, stream),
        "a product");
}

}  // namespace weft::cuda
