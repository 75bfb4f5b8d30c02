// Products fused with what follows them, the loss over a vocabulary that lies in parts, and casts.
#include <functional>

#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/strided.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

// x, weight, bias and, in every other case, a residual; all activations in turn.
std::vector<Case> fused_layers() {
  struct Layer {
    Shape x;
    int64_t out;
  };
  std::vector<Case> cases;
  for (const Layer& layer : std::vector<Layer>{{{2, 3, 5}, 7},
                                               {{1, 1}, 1},
                                               {{0, 5}, 2},
                                               {{2, 3, 0}, 4},
                                               {{3, 5}, 1},
                                               {{1, 37}, 3},
                                               {{13, 11}, 17},
                                               {{2, 2, 2, 3}, 5},
                                               {{7, 2}, 67},
                                               {{5, 3}, 0},
                                               {{31, 4}, 3},
                                               {{67, 9}, 251},
                                               {{2, 131}, 2}}) {
    Case item{{real(layer.x), real({layer.out, layer.x[-1]}), real({layer.out})},
              {{"activation", {static_cast<double>(cases.size() % 6)}}}};
    if (cases.size() % 2 == 0) {
      Shape shape = layer.x;
      shape[-1] = layer.out;
      item.inputs.push_back(real(shape));
    }
    cases.push_back(std::move(item));
  }
  return cases;
}

ops::Activation activation_of(const Attributes& a) {
  return static_cast<ops::Activation>(a.integer("activation"));
}

Outputs fused_linear(Context& cx, Inputs x, const Attributes& a) {
  return {ops::linear(cx, x[0], x[1], x[2], ops::WeightLayout::kOutIn, activation_of(a),
                      x.size() > 3 ? x[3] : Tensor())};
}

Outputs linear_in_parts(Context& cx, Inputs x, const Attributes& a) {
  const Tensor z = ops::linear(cx, x[0], x[1], x[2], ops::WeightLayout::kOutIn);
  const Tensor y = ops::activate(cx, z, activation_of(a));
  return {x.size() > 3 ? ops::add(cx, x[3], y) : y};
}

// Hidden states, the table of the vocabulary and labels, of which -1 is ignored.
std::vector<Case> predictions(const Attributes& attributes) {
  struct Sizes {
    Shape rows;
    int64_t hidden, vocabulary;
  };
  std::vector<Case> cases;
  for (const Sizes& s : std::vector<Sizes>{{{2, 3}, 5, 8},
                                           {{1}, 1, 1},
                                           {{0}, 3, 4},
                                           {{7}, 3, 2},
                                           {{13}, 2, 6},
                                           {{1}, 37, 16},
                                           {{3}, 4, 1030},
                                           {{2, 2, 2}, 3, 10},
                                           {{31}, 5, 36},
                                           {{67}, 11, 250},
                                           {{5, 1}, 7, 4},
                                           {{257}, 3, 12}}) {
    Shape x = s.rows;
    x.push_back(s.hidden);
    cases.push_back(
        {{real(x), real({s.vocabulary, s.hidden}), index(s.rows, -1, s.vocabulary)}, attributes});
  }
  return cases;
}

ops::TokenLoss loss_of(const Attributes& a) {
  return {.ignore_index = -1, .smoothing = a.has("smoothing") ? a.real("smoothing") : 0};
}

// The same with a bias for each word of the vocabulary.
std::vector<Case> biased_predictions() {
  std::vector<Case> cases = predictions({});
  for (Case& item : cases) item.inputs.push_back(real({item.inputs[1].shape[0]}));
  return cases;
}

Tensor bias_of(Inputs x) { return x.size() > 3 ? x[3] : Tensor(); }

Outputs linear_loss(Context& cx, Inputs x, const Attributes& a) {
  return {ops::linear_cross_entropy_sum(cx, x[0], x[1], x[2], loss_of(a), bias_of(x))};
}

Outputs linear_loss_in_parts(Context& cx, Inputs x, const Attributes& a) {
  const Tensor logits = ops::linear(cx, x[0], x[1], bias_of(x), ops::WeightLayout::kOutIn);
  return {ops::cross_entropy_sum(cx, logits, x[2], loss_of(a))};
}

// Ends a part's run once its contribution is known.
struct Contributed {};

// The losses of the parts of the vocabulary, as that many ranks compute them: what each contributes
// is found first, in runs that end there.
Outputs losses_by_part(Context& cx, Inputs x, const Attributes& a) {
  const Tensor &logits = x[0], &labels = x[1];
  const int64_t vocabulary = logits.dim(-1), parts = vocabulary % 2 == 0 ? 2 : 1;
  const int64_t width = vocabulary / parts;
  const auto loss = [&](Context& context, int64_t part, std::function<void(Tensor)> maximum,
                        std::function<void(Tensor)> sum) {
    ops::TokenLoss rule = loss_of(a);
    if (parts > 1)
      rule.shard = {vocabulary, part * width, parts, std::move(maximum), std::move(sum)};
    const Tensor mine = ops::slice(context, logits, -1, part * width, width);
    return ops::cross_entropy_sum(context, mine, labels, rule);
  };
  std::vector<Tensor> maxima, sums;
  const auto keep = [&](std::vector<Tensor>& kept) {
    return [&](const Tensor& own) {
      kept.push_back(clone(cx.pool, own));
      throw Contributed();
    };
  };
  const auto give = [&](const std::vector<Tensor>& all, bool largest) {
    return [&, largest](const Tensor& own) {
      Tensor combined = all[0];
      for (size_t i = 1; i < all.size(); ++i) {
        combined = largest ? ops::maximum(cx, combined, all[i]) : ops::add(cx, combined, all[i]);
      }
      copy_into(cx.pool, combined, own);
    };
  };
  const auto contribute = [&](int64_t part, std::function<void(Tensor)> maximum,
                              std::function<void(Tensor)> sum) {
    Context plain = cx;
    plain.tape = nullptr;
    try {
      loss(plain, part, std::move(maximum), std::move(sum));
    } catch (const Contributed&) {
    }
  };
  if (parts == 1) return {loss(cx, 0, {}, {})};
  for (int64_t part = 0; part < parts; ++part) contribute(part, keep(maxima), {});
  for (int64_t part = 0; part < parts; ++part) contribute(part, give(maxima, true), keep(sums));
  Outputs losses;
  for (int64_t part = 0; part < parts; ++part) {
    losses.push_back(loss(cx, part, give(maxima, true), give(sums, false)));
  }
  return losses;
}

// The loss, which all parts agree on, with the gradients of each part.
Outputs loss_of_parts(Context& cx, Inputs x, const Attributes& a) {
  const Outputs losses = losses_by_part(cx, x, a);
  Tensor loss = losses[0];
  for (size_t part = 1; part < losses.size(); ++part) {
    const Tensor nothing = ops::subtract(cx, losses[part], losses[part].detach());
    loss = ops::add(cx, loss, nothing);
  }
  return {loss};
}

// The logits of predictions(), and the labels.
std::vector<Case> logits(const Attributes& attributes) {
  std::vector<Case> cases;
  for (const Case& item : predictions(attributes)) {
    Shape shape = item.inputs[2].shape;
    shape.push_back(item.inputs[1].shape[0]);
    cases.push_back({{real(shape), item.inputs[2]}, attributes});
  }
  return cases;
}

// To a narrower dtype and back.
Outputs cast(Context& cx, Inputs x, const Attributes&) {
  const DType dtype = x[0].dtype();
  return {ops::cast(cx, ops::cast(cx, x[0], DType::kF32), dtype)};
}

}  // namespace

std::vector<Row> fused_rows() {
  const Attributes smoothed{{"smoothing", {0.1}}};
  return {
      {"linear_fused", fused_linear, fused_layers(), linear_in_parts},
      {"linear_cross_entropy_sum", linear_loss, predictions({}), linear_loss_in_parts, 16},
      {"linear_cross_entropy_biased", linear_loss, biased_predictions(), linear_loss_in_parts, 16},
      {"linear_cross_entropy_smoothed", linear_loss, predictions(smoothed), linear_loss_in_parts,
       16},
      {"vocabulary_parallel_cross_entropy", losses_by_part, logits(smoothed), nullptr, 16, true,
       loss_of_parts},
      {"cast", cast, each(many_shapes()), nullptr, 4, false},
  };
}

}  // namespace weft::op_table
