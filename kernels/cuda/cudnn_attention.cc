#include "kernels/cuda/cudnn_attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "kernels/cuda/cudnn_graph.h"

namespace weft::cuda {
namespace {

constexpr size_t kVersionMin = 91100;
// Up to here keys that are no multiple of 128 are summed up wrong in the backward pass.
constexpr size_t kVersionOfWholeTiles = 91500;
constexpr int64_t kAlignment = 16, kElementBytes = 2, kWorkspaceAlignment = 256;
constexpr int64_t kReachMax = std::numeric_limits<int32_t>::max();

int64_t rounded_up(int64_t bytes) {
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

cudnnDataType_t data_type(DType type) {
  return type == DType::kBF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF;
}

struct Operand {
  const AttentionHeads<void>* heads;
  Extents4 extents;  // [rows, heads, tokens, features]
};

Extents4 steps_of(const Operand& x) {
  Extents4 steps{x.heads->row_step, x.heads->head_step, x.heads->token_step, 1};
  int64_t packed = 1;
  for (size_t dim = 4; dim-- > 0;) {  // where there is one only, the step may be anything
    if (x.extents[dim] == 1) steps[dim] = packed;
    packed = std::max(packed, steps[dim] * x.extents[dim]);
  }
  return steps;
}

std::vector<Operand> operands_of(const CudnnCall& call) {
  const AttentionShape& s = call.shape;
  const Extents4 q{s.rows, s.heads, s.queries, s.width}, k{s.rows, s.key_heads, s.keys, s.width};
  const Extents4 v{s.rows, s.key_heads, s.keys, s.value_width};
  const Extents4 out{s.rows, s.heads, s.queries, s.value_width};
  std::vector<Operand> all{{&call.q, q}, {&call.k, k}, {&call.v, v}, {&call.out, out}};
  if (call.backward) {
    for (const Operand& each :
         {Operand{&call.d_out, out}, {&call.dq, q}, {&call.dk, k}, {&call.dv, v}}) {
      all.push_back(each);
    }
  }
  return all;
}

bool lies_well(const Operand& x) {
  if (reinterpret_cast<uintptr_t>(x.heads->data) % kAlignment != 0) return false;
  const Extents4 steps = steps_of(x);
  int64_t reach = 0;
  for (size_t dim = 0; dim < 4; ++dim) {
    if (steps[dim] <= 0) return false;
    if (dim < 3 && steps[dim] * kElementBytes % kAlignment != 0) return false;
    reach += (x.extents[dim] - 1) * steps[dim];
  }
  return reach < kReachMax;
}

bool is_taken(const CudnnCall& call, bool partial_tiles) {
  const AttentionShape& s = call.shape;
  if (!is_half(call.type) || s.width % 8 != 0 || s.value_width % 8 != 0) return false;
  if (s.rows < 1 || s.heads < 1 || s.queries < 2 || s.keys < 1 || !(call.scale > 0)) return false;
  if (call.window_left >= 0 && (!call.causal || s.queries > s.keys)) return false;
  if (call.backward && !partial_tiles && s.keys % 128 != 0) return false;
  const std::vector<Operand> operands = operands_of(call);
  return std::all_of(operands.begin(), operands.end(), lies_well);
}

// The operations of softmax(scale q k^T + what hides) v, in the order in which the library's
// engines know them (Dao et al. 2022 for the backward pass), and what is in memory.
class AttentionGraph {
 public:
  AttentionGraph(const Cudnn& library, const CudnnCall& call)
      : graph(library), type_(data_type(call.type)), call_(call), s_(call.shape) {
    call.backward ? backward() : forward();
  }

  CudnnGraph graph;
  // Beside the operands of the call; of the workspace, in this order.
  std::vector<std::pair<int64_t, int64_t>> scratch;  // tensor, bytes
  std::vector<int64_t> operands;                     // in the order of operands_of
  int64_t statistics = 0;

 private:
  Extents4 scores() const { return {s_.rows, s_.heads, s_.queries, s_.keys}; }
  Extents4 scores_turned() const { return {s_.rows, s_.heads, s_.keys, s_.queries}; }
  Extents4 queries() const { return {s_.rows, s_.heads, s_.queries, 1}; }
  int64_t number_of_queries() const { return s_.rows * s_.heads * s_.queries; }

  int64_t in_memory(const Operand& x, bool turned) {
    Extents4 extents = x.extents, steps = steps_of(x);
    if (turned) {
      std::swap(extents[2], extents[3]);
      std::swap(steps[2], steps[3]);
    }
    operands.push_back(graph.tensor(type_, extents, steps));
    return operands.back();
  }
  int64_t fp32_in_memory(const Extents4& extents) {
    return graph.tensor(
        CUDNN_DATA_FLOAT, extents,
        {extents[1] * extents[2] * extents[3], extents[2] * extents[3], extents[3], 1});
  }
  int64_t in_workspace(const Extents4& extents) {
    const int64_t bytes =
        extents[0] * extents[1] * extents[2] * extents[3] * int64_t{sizeof(float)};
    scratch.emplace_back(fp32_in_memory(extents), bytes);
    return scratch.back().first;
  }
  // A new wire, fp32.
  int64_t with(cudnnPointwiseMode_t mode, int64_t x, int64_t b, const Extents4& extents) {
    const int64_t y = graph.wire(CUDNN_DATA_FLOAT, extents);
    graph.pointwise(mode, x, b, y);
    return y;
  }
  int64_t with(cudnnPointwiseMode_t mode, int64_t x, const Extents4& extents) {
    const int64_t y = graph.wire(CUDNN_DATA_FLOAT, extents);
    graph.pointwise(mode, x, y);
    return y;
  }
  int64_t reduced(cudnnReduceTensorOp_t op, int64_t x, const Extents4& extents) {
    const int64_t y = graph.wire(CUDNN_DATA_FLOAT, extents);
    graph.reduce(op, x, y);
    return y;
  }

  int64_t scaled_scores(int64_t q, int64_t k_turned, int64_t scale) {
    const int64_t products = graph.wire(CUDNN_DATA_FLOAT, scores());
    graph.matmul(q, k_turned, products);
    return with(CUDNN_POINTWISE_MUL, products, scale, scores());
  }

  // Minus infinity where a query does not see the key.
  int64_t masked(int64_t x) {
    if (!call_.causal) return x;
    x = where(x, CUDNN_POINTWISE_CMP_GE, index(x, 2), index(x, 3));
    if (call_.window_left < 0) return x;
    const int64_t query = index(x, 2), key = index(x, 3);
    const int64_t reach = graph.number(static_cast<float>(call_.window_left + 1));
    return where(x, CUDNN_POINTWISE_CMP_GT, with(CUDNN_POINTWISE_ADD, key, reach, scores()), query);
  }
  int64_t index(int64_t x, int64_t axis) {
    const int64_t y = graph.wire(CUDNN_DATA_INT32, scores());
    graph.index(x, axis, y);
    return y;
  }
  int64_t where(int64_t x, cudnnPointwiseMode_t compare, int64_t a, int64_t b) {
    const int64_t seen = graph.wire(CUDNN_DATA_BOOLEAN, scores());
    graph.pointwise(compare, a, b, seen, CUDNN_DATA_BOOLEAN);
    const int64_t y = graph.wire(CUDNN_DATA_FLOAT, scores());
    graph.select(x, graph.number(-std::numeric_limits<float>::infinity()), seen, y);
    return y;
  }

  void forward() {
    const std::vector<Operand> all = operands_of(call_);
    const int64_t q = in_memory(all[0], false), k_turned = in_memory(all[1], true);
    const int64_t v = in_memory(all[2], false), out = in_memory(all[3], false);
    statistics = fp32_in_memory(queries());
    const int64_t scale = graph.number(static_cast<float>(call_.scale));
    const int64_t x = masked(scaled_scores(q, k_turned, scale));
    const int64_t largest = reduced(CUDNN_REDUCE_TENSOR_MAX, x, queries());
    const int64_t shifted = with(CUDNN_POINTWISE_SUB, x, largest, scores());
    const int64_t weights = with(CUDNN_POINTWISE_EXP, shifted, scores());
    const int64_t total = reduced(CUDNN_REDUCE_TENSOR_ADD, weights, queries());
    graph.pointwise(CUDNN_POINTWISE_ADD, largest, with(CUDNN_POINTWISE_LOG, total, queries()),
                    statistics);
    const int64_t normal = graph.wire(type_, scores());
    graph.pointwise(CUDNN_POINTWISE_DIV, weights, total, normal);
    graph.matmul(normal, v, out);
  }

  void backward() {
    const std::vector<Operand> all = operands_of(call_);
    const int64_t q = in_memory(all[0], false), k_turned = in_memory(all[1], true);
    const int64_t v_turned = in_memory(all[2], true), out = in_memory(all[3], false);
    const int64_t d_out = in_memory(all[4], false), dq = in_memory(all[5], false);
    const int64_t dk = in_memory(all[6], false), dv = in_memory(all[7], false);
    statistics = fp32_in_memory(queries());
    const int64_t scale = graph.number(static_cast<float>(call_.scale));

    const int64_t products = with(CUDNN_POINTWISE_MUL, d_out, out, all[3].extents);
    const int64_t delta = in_workspace(queries());
    graph.pointwise(CUDNN_POINTWISE_MUL, reduced(CUDNN_REDUCE_TENSOR_ADD, products, queries()),
                    graph.number(1), delta);

    const int64_t x = scaled_scores(q, k_turned, scale);
    const int64_t shifted = masked(with(CUDNN_POINTWISE_SUB, x, statistics, scores()));
    const int64_t weights = with(CUDNN_POINTWISE_EXP, shifted, scores());
    add_up(turned(weights), d_out, all[7].extents, dv);

    const int64_t d_weights = graph.wire(CUDNN_DATA_FLOAT, scores());
    graph.matmul(d_out, v_turned, d_weights);
    const int64_t centred = with(CUDNN_POINTWISE_SUB, d_weights, delta, scores());
    const int64_t d_scores = with(CUDNN_POINTWISE_MUL, centred, weights, scores());
    const int64_t d_products = with(CUDNN_POINTWISE_MUL, d_scores, scale, scores());
    add_up(turned(d_products), q, all[6].extents, dk);

    const int64_t k = keys_turned_back(all[1], k_turned);
    if (call_.repeatable) {
      graph.matmul(d_products, k, dq);
    } else {
      const int64_t sums = in_workspace(all[5].extents);
      graph.matmul(d_products, k, sums);
      graph.pointwise(CUDNN_POINTWISE_IDENTITY, sums, dq);
    }
  }

  int64_t turned(int64_t x) {
    const Extents4 extents = scores_turned();
    const int64_t y = graph.wire(
        type_, extents, {s_.heads * s_.queries * s_.keys, s_.queries * s_.keys, 1, s_.keys});
    graph.reshape(x, y);
    return y;
  }
  int64_t keys_turned_back(const Operand& keys, int64_t k_turned) {
    const int64_t k = graph.wire(type_, keys.extents, steps_of(keys));
    graph.reshape(k_turned, k);
    return k;
  }
  // to := a b, summed over the heads that share one of `extents`.
  void add_up(int64_t a, int64_t b, Extents4 extents, int64_t to) {
    if (s_.heads == s_.key_heads) return graph.matmul(a, b, to);
    extents[1] = s_.heads;
    const int64_t each = graph.wire(type_, extents);
    graph.matmul(a, b, each);
    graph.reduce(CUDNN_REDUCE_TENSOR_ADD, each, to);
  }

  const cudnnDataType_t type_;
  const CudnnCall call_;
  const AttentionShape s_;
};

class Attention final : public CudnnAttention {
 public:
  Attention(const Cudnn& library, cudnnHandle_t handle) : library_(library), handle_(handle) {}
  ~Attention() override {
    planned_.clear();
    (void)library_.destroy(handle_);
  }

  bool takes_partial_tiles() const override { return library_.version() > kVersionOfWholeTiles; }
  bool knows(const CudnnCall& call) const override { return planned_.contains(key_of(call)); }

  std::optional<int64_t> workspace_bytes(const CudnnCall& call) override {
    const Planned* planned = find(call);
    if (planned == nullptr) return std::nullopt;
    return planned->workspace_bytes;
  }

  void run(const CudnnCall& call, void* workspace, cudaStream_t stream) override {
    const Planned* planned = find(call);
    WEFT_CHECK(planned != nullptr, "a call that cuDNN does not take");
    const AttentionGraph& attention = *planned->attention;
    std::vector<std::pair<int64_t, void*>> places{{attention.statistics, call.log_sum_exp}};
    const std::vector<Operand> operands = operands_of(call);
    for (size_t i = 0; i < operands.size(); ++i) {
      places.emplace_back(attention.operands[i], operands[i].heads->data);
    }
    char* next = static_cast<char*>(workspace);
    for (const auto& [tensor, bytes] : attention.scratch) {
      places.emplace_back(tensor, next);
      next += rounded_up(bytes);
    }
    if (const cudnnStatus_t status = library_.set_stream(handle_, stream);
        status != CUDNN_STATUS_SUCCESS) {
      throw StatusError(
          Status(Code::kUnavailable, "cuDNN refuses a stream: status " + std::to_string(status)));
    }
    attention.graph.run(handle_, places, next);
  }

 private:
  struct Planned {
    std::unique_ptr<AttentionGraph> attention;  // null: the library does not take it
    int64_t workspace_bytes = 0;
  };
  using Key = std::vector<int64_t>;

  // All that the plan depends on. Numbers are part of the graph.
  static Key key_of(const CudnnCall& call) {
    const AttentionShape& s = call.shape;
    Key key{static_cast<int64_t>(call.type),
            call.backward,
            call.repeatable,
            call.causal,
            call.window_left,
            std::bit_cast<int64_t>(call.scale),
            s.rows,
            s.heads,
            s.key_heads,
            s.queries,
            s.keys,
            s.width,
            s.value_width};
    for (const Operand& each : operands_of(call)) {
      const Extents4 steps = steps_of(each);
      key.insert(key.end(), steps.begin(), steps.end());
      key.push_back(reinterpret_cast<uintptr_t>(each.heads->data) % kAlignment == 0);
    }
    return key;
  }

  const Planned* find(const CudnnCall& call) {
    const auto [place, is_new] = planned_.try_emplace(key_of(call));
    Planned& planned = place->second;
    if (is_new && is_taken(call, takes_partial_tiles())) {
      try {
        auto attention = std::make_unique<AttentionGraph>(library_, call);
        if (attention->graph.plan(handle_, call.repeatable)) {
          planned.workspace_bytes = attention->graph.workspace_bytes();
          for (const auto& [tensor, bytes] : attention->scratch) {
            planned.workspace_bytes += rounded_up(bytes);
          }
          planned.attention = std::move(attention);
        }
      } catch (const StatusError&) {  // the same as no engine
      }
    }
    return planned.attention ? &planned : nullptr;
  }

  const Cudnn& library_;
  const cudnnHandle_t handle_;
  std::map<Key, Planned> planned_;
};

}  // namespace

Result<std::unique_ptr<CudnnAttention>> CudnnAttention::create() {
  WEFT_ASSIGN_OR_RETURN(const Cudnn* library, cudnn());
  if (library->version() < kVersionMin) {
    return fail(Code::kUnavailable, "cuDNN " + std::to_string(library->version()) +
                                        " is too old: it must be " + std::to_string(kVersionMin));
  }
  cudnnHandle_t handle = nullptr;
  const cudnnStatus_t status = library->create(&handle);
  if (status != CUDNN_STATUS_SUCCESS) {
    return fail(Code::kUnavailable, "cuDNN does not start: status " + std::to_string(status));
  }
  return std::unique_ptr<CudnnAttention>(std::make_unique<Attention>(*library, handle));
}

}  // namespace weft::cuda
