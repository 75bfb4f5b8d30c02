// A training step of an encoder of BERT's shape (Devlin et al. 2018): post-norm blocks of attention
// that sees all tokens, erf-GELU, the loss over the vocabulary by the tied embedding at the 15% of
// the positions that are masked. The weights are those of transformers' BertModel.
#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "cluster/comm/single/single_communicator.h"
#include "kernels/attention/attention.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "tests/bench/bench.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/optimizer/gradients.h"
#include "worker/optimizer/optimizer.h"

namespace weft::bench {
namespace {

constexpr double kEpsilon = 1e-12;
constexpr int64_t kMaskId = 103;  // [MASK] of bert-base-uncased

template <typename T>
T take(Result<T> result) {
  if (!result) throw StatusError(std::move(result).error());
  return std::move(*result);
}

struct Encoder {
  explicit Encoder(const Options& options)
      : rank{make_caching_allocator(),
             std::make_unique<ThreadPool>(static_cast<int>(options.integer("threads")),
                                          processors(options.integer("threads"))),
             take(Mesh::create(comm::single_world(), MeshDegrees{})), Logger()},
        files(take(SafetensorsSet::open_folder(options.text("weights")))),
        layers(options.integer("layers")),
        heads(options.integer("heads")),
        hidden(options.integer("hidden")),
        rows(options.integer("batch")),
        tokens(options.integer("tokens")) {
    for (const char* table : {"word_embeddings", "position_embeddings", "token_type_embeddings"}) {
      read({fmt::format("embeddings.{}.weight", table)});
    }
    read_norm("embeddings.LayerNorm");
    for (int64_t layer = 0; layer < layers; ++layer) {
      const std::string block = fmt::format("encoder.layer.{}.", layer);
      const std::string self = block + "attention.self.";
      read({self + "query.weight", self + "key.weight", self + "value.weight"});
      read({self + "query.bias", self + "key.bias", self + "value.bias"});
      read_linear(block + "attention.output.dense");
      read_norm(block + "attention.output.LayerNorm");
      read_linear(block + "intermediate.dense");
      read_linear(block + "output.dense");
      read_norm(block + "output.LayerNorm");
    }
    optimizer = std::make_unique<AdamW>(rank, parameters, AdamWOptions(),
                                        options.flag("bf16") ? DType::kBF16 : DType::kF32);
    std::vector<int64_t> words = step_ids(options),
                         wanted(words.size(), ops::TokenLoss().ignore_index);
    for (size_t i = 0; i < words.size(); ++i) {
      if (i * 31 % 20 >= 3) continue;
      wanted[i] = std::exchange(words[i], kMaskId);
      ++masked;
    }
    ids = Tensor::from<int64_t>(*rank.allocator, {rows, tokens}, words);
    labels = Tensor::from<int64_t>(*rank.allocator, {rows, tokens}, wanted);
    std::vector<int64_t> places(static_cast<size_t>(tokens));
    for (size_t i = 0; i < places.size(); ++i) places[i] = static_cast<int64_t>(i);
    positions = Tensor::from<int64_t>(*rank.allocator, {tokens}, places);
    types = Tensor::from<int64_t>(*rank.allocator, {1}, std::vector<int64_t>{0});
  }

  // Several tensors of the file become one, row below row.
  void read(const std::vector<std::string>& names) {
    Shape shape(files.find(names[0])->shape);
    shape[0] *= static_cast<int64_t>(names.size());
    Tensor value = Tensor::empty(*rank.allocator, shape);
    const int64_t each = value.elements() / static_cast<int64_t>(names.size());
    for (size_t i = 0; i < names.size(); ++i) {
      const Status status = files.read(
          names[i], -1, 0, 0,
          {value.data<float>() + static_cast<int64_t>(i) * each, static_cast<size_t>(each)});
      if (!status.ok()) throw StatusError(status);
    }
    ParameterInfo info{.name = names[0], .shape = shape};
    info.decay = shape.dims() > 1;
    parameters.push_back({info, value.set_requires_grad(true)});
  }
  void read_linear(const std::string& name) {
    read({name + ".weight"});
    read({name + ".bias"});
  }
  void read_norm(const std::string& name) {
    read_linear(name);
    for (size_t i = 1; i <= 2; ++i) parameters[parameters.size() - i].info.keep_fp32 = true;
  }

  const Tensor& next() { return optimizer->parameters()[at++].value; }

  Tensor norm(Context& cx, const Tensor& x) {
    const Tensor& gamma = next();
    return ops::layer_norm(cx, x, gamma, next(), kEpsilon);
  }
  Tensor linear(Context& cx, const Tensor& x, std::optional<ops::Activation> activation = {},
                const Tensor& residual = {}) {
    const Tensor& weight = next();
    return ops::linear(cx, x, weight, next(), ops::WeightLayout::kOutIn, activation, residual);
  }

  Tensor block(Context& cx, const Tensor& input) {
    const int64_t features = hidden / heads;
    Tensor x = ops::reshape(cx, linear(cx, input), {rows, tokens, 3, heads, features});
    x = ops::contiguous(cx, ops::permute(cx, x, std::array{2, 0, 3, 1, 4}));
    std::array<Tensor, 3> parts;
    for (int i = 0; i < 3; ++i) {
      parts[static_cast<size_t>(i)] =
          ops::reshape(cx, ops::slice(cx, x, 0, i, 1), {rows, heads, tokens, features});
    }
    attention::Parameters how;
    how.scale = 1 / std::sqrt(static_cast<double>(features));
    x = attention::scaled_dot_product(cx, parts[0], parts[1], parts[2], how);
    x = ops::reshape(cx, ops::permute(cx, x, std::array{0, 2, 1, 3}), {rows, tokens, hidden});
    const Tensor attended = norm(cx, linear(cx, x, std::nullopt, input));
    x = linear(cx, attended, ops::Activation::kGeluErf);
    return norm(cx, linear(cx, x, std::nullopt, attended));
  }

  void step() {
    Context cx = rank.context();
    cx.tape = &tape;
    at = 0;
    const Tensor words = next(), places = next(), kinds = next();
    Tensor x = ops::add(cx, ops::embedding(cx, ids, words), ops::embedding(cx, positions, places));
    x = norm(cx, ops::add(cx, x, ops::embedding(cx, types, kinds)));
    for (int64_t layer = 0; layer < layers; ++layer) x = block(cx, x);
    const double share = 1.0 / static_cast<double>(masked);
    const Tensor sum = ops::linear_cross_entropy_sum(cx, x, words, labels, {.seed = share});
    loss = read_scalar(sum) * share;
    tape.backward(cx, sum, Tensor::full(*rank.allocator, sum.shape(), share, sum.dtype()));
    const double norm = global_gradient_norm(rank, optimizer->parameters());
    optimizer->step(1e-4, clip_factor(norm, 1.0));
  }

  Rank rank;
  SafetensorsSet files;
  const int64_t layers, heads, hidden, rows, tokens;
  std::vector<Parameter> parameters;
  std::unique_ptr<AdamW> optimizer;
  Tensor ids, labels, positions, types;
  int64_t masked = 0;
  Tape tape;
  size_t at = 0;  // the parameter that the forward pass takes next
  double loss = 0;
};

}  // namespace

Step make_encoder_step(const Options& options) {
  flush_denormals();
  auto encoder = std::make_shared<Encoder>(options);
  return {[encoder] { encoder->step(); }, [encoder] { return encoder->loss; }};
}

}  // namespace weft::bench
