// weft-attention-cases FILE   writes every attention case, computed in float32 and in bf16, as
// safetensors of F32: the inputs (which bf16 holds exactly) "CASE/q", "k", "v", "bias",
// "distance_bias", "sinks", "cotangent"; what hides and drops "CASE/mask", "keep"; "CASE/numbers":
// scale, soft cap, causal, window left and right, tokens of a document, padding (0 none, 1 left, 2
// right, 3 a whole row), first query's position, tokens until positions restart; "CASE/slopes"; and
// results "CASE/F32/output", "CASE/F32/d_q", ..., likewise "CASE/BF16/...".
// tests/conformance/attention_test.py computes the same with PyTorch.
#include <cstdio>
#include <map>
#include <vector>

#include "kernels/autograd/tape.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/attention_cases.h"
#include "tests/testing/gradient_check.h"
#include "worker/checkpoint/safetensors.h"

namespace weft::attention {
namespace {

using testing::Bench;

class Exporter {
 public:
  void add(const std::string& name, const Tensor& x) {
    const Tensor single = ops::cast(bench_.context, x.detach(), DType::kF32);
    const auto extents = single.shape().extents();
    specs_.push_back({name, {extents.begin(), extents.end()}});
    values_[name] = single.to_vector<float>();
  }
  void add(const std::string& name, const std::vector<float>& values) {
    specs_.push_back({name, {static_cast<int64_t>(values.size())}});
    values_[name] = values;
  }

  void add_case(const Case& c) {
    const std::string prefix = c.name + "/";
    const std::map<std::string, float> padding{{"", 0}, {"left", 1}, {"right", 2}, {"none", 3}};
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Inputs in = inputs_of(bench_.context, c, dtype, true);
      Parameters p = parameters_of(bench_.context, c, in.all);
      p.scale = static_cast<float>(p.scale);
      const Tensor cotangent = ops::cast(
          bench_.context,
          testing::random_tensor(bench_.context, {c.rows, c.heads, c.queries, c.values()}, 9),
          DType::kBF16);
      if (dtype == DType::kF32) {
        add_inputs(prefix, c, in, p);
        add(prefix + "cotangent", cotangent);
        add(prefix + "numbers",
            {static_cast<float>(p.scale), static_cast<float>(c.soft_cap),
             static_cast<float>(c.causal), static_cast<float>(c.left), static_cast<float>(c.right),
             static_cast<float>(c.document), padding.at(c.valid),
             static_cast<float>(c.query_offset), static_cast<float>(c.restart)});
      }
      add_results(prefix + std::string(dtype_name(dtype)) + "/", c, in, p,
                  ops::cast(bench_.context, cotangent, dtype));
    }
  }

  Status write(const std::string& path) {
    return write_safetensors(path, specs_, [&](const SafetensorSpec& tensor, const FloatSink& to) {
      return to(values_.at(tensor.name));
    });
  }

 private:
  static std::vector<std::string> names(const Case& c) {
    std::vector<std::string> all{"q", "k", "v"};
    if (!c.bias.empty()) all.emplace_back("bias");
    if (c.reach >= 0) all.emplace_back("distance_bias");
    if (c.sinks) all.emplace_back("sinks");
    return all;
  }
  void add_inputs(const std::string& prefix, const Case& c, const Inputs& in, const Parameters& p) {
    const std::vector<std::string> all = names(c);
    for (size_t i = 0; i < all.size(); ++i) add(prefix + all[i], in.all[i]);
    if (p.visibility.mask) {
      add(prefix + "mask", ops::cast(bench_.context, p.visibility.mask, DType::kF32));
    }
    if (c.dropout > 0) {
      add(prefix + "keep", kept_weights(bench_.context, {c.rows, c.heads, c.queries, c.keys},
                                        p.dropout, DType::kF32));
    }
    if (c.alibi) {
      add(prefix + "slopes", std::vector<float>(p.alibi_slopes.begin(), p.alibi_slopes.end()));
    }
  }
  void add_results(const std::string& prefix, const Case& c, const Inputs& in, const Parameters& p,
                   const Tensor& cotangent) {
    Context cx = bench_.context;
    cx.tape = &bench_.tape;
    const Tensor y = scaled_dot_product(cx, in.q(), in.k(), in.v(), p);
    bench_.tape.backward(cx, y, cotangent);
    add(prefix + "output", y);
    const std::vector<std::string> all = names(c);
    for (size_t i = 0; i < all.size(); ++i) add(prefix + "d_" + all[i], in.all[i].grad());
  }

  Bench bench_;
  std::vector<SafetensorSpec> specs_;
  std::map<std::string, std::vector<float>> values_;
};

int main_of(int count, char** arguments) {
  if (count != 2) {
    std::fputs("usage: weft-attention-cases FILE\n", stderr);
    return 2;
  }
  Exporter exporter;
  for (const Case& c : cases()) {
    if (c.rows * c.queries * c.keys > 0) exporter.add_case(c);
  }
  const Status status = exporter.write(arguments[1]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "weft-attention-cases: %s\n", status.to_string().c_str());
  return 1;
}

}  // namespace
}  // namespace weft::attention

int main(int count, char** arguments) { return weft::attention::main_of(count, arguments); }
