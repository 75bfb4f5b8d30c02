// Attention of tensors.
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/typed.h"

namespace weft::cuda {
namespace {

static_assert(static_cast<double>(kLeastScore) == attention::kLeastScore);

template <typename T>
AttentionHeads<T> heads_of(const Tensor& x) {
  return {static_cast<T*>(x.raw()), x.strides()[0], x.strides()[1], x.strides()[2]};
}

// In T, or in fp32.
template <typename T>
AttentionResult<T> result_of(const Tensor& x) {
  if (x.dtype() == DTypeOf<T>::value) return {heads_of<T>(x), {}};
  WEFT_CHECK(x.dtype() == DType::kF32, "a result in {}", dtype_name(x.dtype()));
  return {{}, heads_of<float>(x)};
}

const int64_t* numbers(const Tensor& x) { return x ? x.data<int64_t>() : nullptr; }

AttentionShape shape_of(const Tensor& q, const Tensor& k, const Tensor& v) {
  const auto fits = [](int64_t width) { return 1 <= width && width <= kAttentionWidth; };
  if (!fits(q.dim(3)) || !fits(v.dim(3))) {
    throw_no_kernel(q, "attention with heads of " + std::to_string(q.dim(3)) + " and values of " +
                           std::to_string(v.dim(3)) + " features, not 1 to " +
                           std::to_string(kAttentionWidth) + " both,");
  }
  return {q.dim(0),
          q.dim(1),
          k.dim(1),
          q.dim(2),
          k.dim(2),
          static_cast<int>(q.dim(3)),
          static_cast<int>(v.dim(3))};
}

// [B or 1, N or 1, Tq, Tk]
template <typename T>
ScoreTable<T> table_of(const Tensor& x) {
  if (!x) return {};
  const auto step = [&](int dim) {
    return x.dim(dim) == 1 ? 0 : x.strides()[static_cast<size_t>(dim)];
  };
  return {static_cast<const T*>(x.raw()), step(0), step(1), step(2), step(3)};
}

// The rules, and the tensors that they point into.
struct Rules {
  attention::Parameters parameters;
  Tensor slopes;
  AttentionRules rules;
};

Rules rules_of(attention::Parameters contiguous, int64_t rows, const DeviceKey& dropout_key,
               Allocator& memory) {
  Rules held{std::move(contiguous), {}, {}};
  const attention::Parameters& parameters = held.parameters;
  const attention::Visibility& seen = parameters.visibility;
  AttentionRules& rules = held.rules;
  rules.scale = parameters.scale;
  rules.soft_cap = parameters.soft_cap;
  if (!parameters.alibi_slopes.empty()) {
    const std::vector<float> slopes(parameters.alibi_slopes.begin(), parameters.alibi_slopes.end());
    held.slopes = Tensor::from<float>(memory, {std::ssize(slopes)}, slopes);
    rules.alibi_slopes = held.slopes.data<float>();
  }
  rules.causal = seen.causal;
  rules.window_left = seen.window_left;
  rules.window_right = seen.window_right;
  rules.query_position = numbers(seen.query_position);
  rules.key_position = numbers(seen.key_position);
  rules.key_valid = seen.key_valid ? seen.key_valid.data<uint8_t>() : nullptr;
  rules.query_document = numbers(seen.query_document);
  rules.key_document = numbers(seen.key_document);
  rules.mask = table_of<uint8_t>(seen.mask);
  rules.bias = table_of<void>(parameters.bias);
  if (const Tensor& tables = parameters.distance_bias) {
    rules.distance_bias = tables.raw();
    rules.distance_reach = (tables.shape()[-1] - 1) / 2;
    if (tables.shape().dims() == 3) rules.distance_rows = rows / tables.dim(0);
  }
  rules.sinks = parameters.sinks ? parameters.sinks.raw() : nullptr;
  const attention::WeightDropout& dropout = parameters.dropout;
  rules.dropout_rate = dropout.rate;
  rules.dropout_key = dropout_key;
  rules.dropout_heads = dropout.heads;
  rules.dropout_queries = dropout.queries;
  rules.dropout_keys = dropout.keys;
  rules.first_row = dropout.first_row;
  rules.first_head = dropout.first_head;
  rules.first_query = dropout.first_query;
  rules.first_key = dropout.first_key;
  rules.query_index = numbers(dropout.query_index);
  rules.key_index = numbers(dropout.key_index);
  return held;
}

// What cuDNN is to compute, but for its operands; absent: rules that it does not know.
std::optional<CudnnCall> cudnn_call_of(const AttentionShape& shape, const AttentionRules& rules,
                                       DType type) {
  const bool plain = rules.soft_cap == 0 && rules.alibi_slopes == nullptr &&
                     rules.query_position == nullptr && rules.key_position == nullptr &&
                     rules.key_valid == nullptr && rules.query_document == nullptr &&
                     rules.key_document == nullptr && rules.mask.data == nullptr &&
                     rules.bias.data == nullptr && rules.distance_bias == nullptr &&
                     rules.sinks == nullptr && rules.dropout_rate == 0 &&
                     (rules.causal || (rules.window_left < 0 && rules.window_right < 0));
  if (!plain || !is_half(type)) return std::nullopt;
  CudnnCall call;
  call.type = type;
  call.shape = shape;
  call.scale = rules.scale;
  call.causal = rules.causal;
  call.window_left = rules.window_left;
  return call;
}

}  // namespace

bool Gpu::run_by_cudnn(CudnnCall& call, Repeats repeats) {
  if (repeats == Repeats::kTopology) return false;  // also where the environment asks for it
  const AttentionMode mode = attention_mode();
  const bool measured = mode == AttentionMode::kMeasured;
  const bool any_order =
      mode == AttentionMode::kUnordered || (measured && repeats == Repeats::kNothing);
  call.repeatable = !call.backward || !any_order;
  if (measured) {
    // Where it does not lead in any order, it may in the one that repeats.
    call.repeatable |= !cudnn_leads(capability_, call);
    if (!cudnn_leads(capability_, call)) return false;
  }
  if (mode == AttentionMode::kOwn) return false;
  if (!cudnn_) {
    refuse_in_recording("a plan of cuDNN");
    cudnn_ = CudnnAttention::create();
  }
  if (!*cudnn_ && measured) return false;
  if (!*cudnn_) throw StatusError(cudnn_->error());
  CudnnAttention& cudnn = ***cudnn_;
  if (!cudnn.knows(call)) refuse_in_recording("a plan of cuDNN");
  const std::optional<int64_t> bytes = cudnn.workspace_bytes(call);
  if (!bytes || (measured && *bytes > kCudnnWorkspaceMax)) return false;
  const Tensor workspace = scratch(Shape{*bytes}, DType::kU8);
  cudnn.run(call, workspace.raw(), stream_);
  count_cudnn_run();
  return true;
}

// All but what comes with its strides.
attention::Parameters Gpu::contiguous(attention::Parameters parameters) {
  attention::Visibility& seen = parameters.visibility;
  for (Tensor* each :
       {&seen.query_position, &seen.key_position, &seen.key_valid, &seen.query_document,
        &seen.key_document, &parameters.distance_bias, &parameters.sinks}) {
    if (*each) *each = contiguous(*each);
  }
  return parameters;
}

// Heads' features have to lie next to each other.
Tensor Gpu::with_tight_features(const Tensor& x) {
  return x.dim(3) == 1 || x.strides()[3] == 1 ? x : contiguous(x);
}

void Gpu::attention(const Tensor& q, const Tensor& k, const Tensor& v,
                    const attention::Parameters& parameters, Repeats repeats, const Tensor& output,
                    const Tensor& lse) {
  activate_device();
  const AttentionShape shape = shape_of(q, k, v);
  if (output.elements() == 0) return;
  const Tensor query = with_tight_features(q), key = with_tight_features(k);
  const Tensor value = with_tight_features(v);
  const Rules held =
      rules_of(contiguous(parameters), shape.rows, device_key(parameters.dropout.key), memory_);
  if (auto call = cudnn_call_of(shape, held.rules, q.dtype());
      call && output.dtype() == q.dtype()) {
    call->q = heads_of<void>(query);
    call->k = heads_of<void>(key);
    call->v = heads_of<void>(value);
    call->out = heads_of<void>(output);
    call->log_sum_exp = lse.data<float>();
    if (run_by_cudnn(*call, repeats)) return;
  }
  const Tensor room = scratch(Shape{attention_scratch_bytes(shape)}, DType::kU8);
  for_floating(q, "attention", [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      if (sm90_ &&
          attention_forward_sm90<T>(shape, held.rules, heads_of<const T>(query),
                                    heads_of<const T>(key), heads_of<const T>(value),
                                    result_of<T>(output), lse.data<float>(), room.raw(), stream_)) {
        return;
      }
    }
    attention_forward<T>(shape, held.rules, heads_of<const T>(query), heads_of<const T>(key),
                         heads_of<const T>(value), result_of<T>(output), lse.data<float>(),
                         room.raw(), stream_);
  });
}

void Gpu::attention_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& output, const Tensor& d_output, const Tensor& lse,
                             const Tensor& delta, const attention::Parameters& parameters,
                             Repeats repeats, const Tensor& dq, const Tensor& dk,
                             const Tensor& dv) {
  activate_device();
  const AttentionShape shape = shape_of(q, k, v);
  const Tensor query = with_tight_features(q), key = with_tight_features(k);
  const Tensor value = with_tight_features(v), d_out = with_tight_features(d_output);
  const Tensor log_sums = contiguous(lse);
  const Rules held =
      rules_of(contiguous(parameters), shape.rows, device_key(parameters.dropout.key), memory_);
  const bool whole = output && output.dtype() == q.dtype() && dq.dtype() == q.dtype();
  if (auto call = cudnn_call_of(shape, held.rules, q.dtype()); call && whole) {
    const Tensor out = with_tight_features(output);
    call->backward = true;
    call->q = heads_of<void>(query);
    call->k = heads_of<void>(key);
    call->v = heads_of<void>(value);
    call->out = heads_of<void>(out);
    call->log_sum_exp = log_sums.data<float>();
    call->d_out = heads_of<void>(d_out);
    call->dq = heads_of<void>(dq);
    call->dk = heads_of<void>(dk);
    call->dv = heads_of<void>(dv);
    if (run_by_cudnn(*call, repeats)) return;
  }
  const Tensor dots = delta ? contiguous(delta) : scratch(lse.shape());
  if (!delta) row_dots(output, d_output, dots);
  const Tensor room = scratch(Shape{attention_scratch_bytes(shape)}, DType::kU8);
  for_floating(q, "attention", [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      if (sm90_ && attention_backward_sm90<T>(
                       shape, held.rules, heads_of<const T>(query), heads_of<const T>(key),
                       heads_of<const T>(value), heads_of<const T>(d_out), log_sums.data<float>(),
                       dots.data<float>(), result_of<T>(dq), result_of<T>(dk), result_of<T>(dv),
                       room.raw(), stream_)) {
        return;
      }
    }
    cuda::attention_backward<T>(shape, held.rules, heads_of<const T>(query), heads_of<const T>(key),
                                heads_of<const T>(value), heads_of<const T>(d_out),
                                log_sums.data<float>(), dots.data<float>(), result_of<T>(dq),
                                result_of<T>(dk), result_of<T>(dv), room.raw(), stream_);
  });
}

void Gpu::attention_bias_gradient(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& d_output, const Tensor& lse, const Tensor& delta,
                                  const attention::Parameters& parameters, const Tensor& d_bias) {
  activate_device();
  if (d_bias.elements() == 0) return;
  const AttentionShape shape = shape_of(q, k, v);
  const Tensor query = with_tight_features(q), key = with_tight_features(k);
  const Tensor value = with_tight_features(v), d_out = with_tight_features(d_output);
  const Tensor log_sums = contiguous(lse), dots = contiguous(delta);
  const Rules held =
      rules_of(contiguous(parameters), shape.rows, device_key(parameters.dropout.key), memory_);
  const Tensor room = scratch(Shape{attention_scratch_bytes(shape)}, DType::kU8);
  const BiasSharing shared{d_bias.dim(0) == 1, d_bias.dim(1) == 1};
  for_floating(q, "attention", [&]<typename T>() {
    cuda::attention_bias_gradient<T>(
        shape, held.rules, heads_of<const T>(query), heads_of<const T>(key),
        heads_of<const T>(value), heads_of<const T>(d_out), log_sums.data<float>(),
        dots.data<float>(), shared, d_bias.data<T>(), room.raw(), stream_);
  });
}

void Gpu::attention_distance_gradient(const Tensor& q, const Tensor& k, const Tensor& v,
                                      const Tensor& d_output, const Tensor& lse,
                                      const Tensor& delta, const attention::Parameters& parameters,
                                      const Tensor& d_table) {
  activate_device();
  const AttentionShape shape = shape_of(q, k, v);
  const Tensor query = with_tight_features(q), key = with_tight_features(k);
  const Tensor value = with_tight_features(v), d_out = with_tight_features(d_output);
  const Tensor log_sums = contiguous(lse), dots = contiguous(delta);
  const Rules held =
      rules_of(contiguous(parameters), shape.rows, device_key(parameters.dropout.key), memory_);
  const Tensor room =
      scratch(Shape{attention_distance_scratch_bytes(shape, held.rules)}, DType::kU8);
  for_floating(q, "attention", [&]<typename T>() {
    cuda::attention_distance_gradient<T>(
        shape, held.rules, heads_of<const T>(query), heads_of<const T>(key),
        heads_of<const T>(value), heads_of<const T>(d_out), log_sums.data<float>(),
        dots.data<float>(), d_table.data<float>(), room.raw(), stream_);
  });
}

void Gpu::attention_sinks_gradient(const Tensor& sinks, const Tensor& lse, const Tensor& delta,
                                   const Tensor& d_sinks) {
  activate_device();
  const Tensor values = contiguous(sinks), log_sums = contiguous(lse), dots = contiguous(delta);
  const AttentionShape shape{lse.dim(0), lse.dim(1), lse.dim(1), lse.dim(2), 0, 1, 1};
  AttentionRules rules;
  rules.sinks = values.raw();
  for_floating(sinks, "attention", [&]<typename T>() {
    cuda::attention_sinks_gradient<T>(shape, rules, log_sums.data<float>(), dots.data<float>(),
                                      d_sinks.data<T>(), stream_);
  });
}

void Gpu::row_dots(const Tensor& a, const Tensor& b, const Tensor& out) {
  activate_device();
  if (out.elements() == 0) return;
  const Tensor left = with_tight_features(a), right = with_tight_features(b);
  const AttentionShape shape = shape_of(a, b, b);
  for_floating(a, "attention", [&]<typename T>() {
    attention_delta<T>(shape, heads_of<const T>(left), heads_of<const T>(right), out.data<float>(),
                       stream_);
  });
}

void Gpu::attention_merge(const Tensor& output, const Tensor& lse, const Tensor& other_output,
                          const Tensor& other_lse) {
  activate_device();
  cuda::attention_merge(output.data<float>(), lse.data<float>(), other_output.data<float>(),
                        other_lse.data<float>(), lse.elements(), output.shape()[-1], stream_);
}

}  // namespace weft::cuda
