// The products of a linear map of a language model: forward, its input's gradient and its
// weight's, as the trainer calls them, or each as one call of a library.
//
// Shapes: x [tokens, in], dy [tokens, out]; the weight [in, out], or with logits=1 the table
// [out, in], of which the loss takes chunks of tokens (linear_cross_entropy.cc).
#include <cblas.h>
#include <omp.h>

#include <dnnl.hpp>

#include "kernels/cpu/gemm.h"
#include "kernels/ops/linear_parts.h"
#include "proto/base/check.h"
#include "tests/bench/bench.h"

namespace weft::bench {
namespace {

using cpu::Matrix;
enum class Pass { kForward, kInput, kWeight };

struct Operands {
  explicit Operands(const Options& options)
      : machine(std::make_shared<Machine>(options.integer("threads"))),
        tokens(options.integer("tokens")),
        logits(options.flag("logits")),
        pass(options.text("pass") == "forward" ? Pass::kForward
             : options.text("pass") == "input" ? Pass::kInput
                                               : Pass::kWeight) {
    flush_denormals();
    const int64_t in = options.integer("in"), out = options.integer("out");
    const DType dtype = options.flag("bf16") ? DType::kBF16 : DType::kF32;
    const auto drawn = [&](Shape shape, uint64_t seed) {
      return ops::cast(machine->plain, machine->random(shape, seed, false), dtype);
    };
    x = drawn({tokens, in}, 1);
    weight = drawn(logits ? Shape{out, in} : Shape{in, out}, 2);
    dy = drawn({tokens, out}, 3);
  }

  std::shared_ptr<Machine> machine;
  int64_t tokens;
  bool logits;
  Pass pass;
  Tensor x, weight, dy;
};

// A chunk of tokens after another, into the same room; the table's gradient is a sum of theirs.
template <typename T>
Body make_chunks(const Operands& o) {
  using Sum = cpu::Sum<T>;
  constexpr int64_t kLogits = int64_t{1} << 25;
  const int64_t in = o.x.dim(1), out = o.dy.dim(1);
  const int64_t chunks = (o.tokens + kLogits / out - 1) / (kLogits / out);
  const int64_t step = (o.tokens + chunks - 1) / chunks;
  const bool narrow = o.pass == Pass::kInput;
  const Shape shape = o.pass == Pass::kForward ? Shape{step, out}
                      : narrow                 ? Shape{o.tokens, in}
                                               : Shape{out, in};
  const Tensor room =
      Tensor::empty(*o.machine->allocator, shape, narrow ? DTypeOf<T>::value : DTypeOf<Sum>::value);
  return [=] {
    ThreadPool& pool = o.machine->pool;
    for (int64_t first = 0; first < o.tokens; first += step) {
      const int64_t count = std::min(step, o.tokens - first);
      const Matrix<T> x{o.x.data<T>() + first * in, in, false};
      const T* dy = o.dy.data<T>() + first * out;
      if (o.pass == Pass::kForward) {
        cpu::gemm(pool, count, out, in, x, Matrix<T>{o.weight.data<T>(), in, true},
                  room.data<Sum>(), out);
      } else if (narrow) {
        cpu::gemm(pool, count, in, out, Matrix<T>{dy, out, false},
                  Matrix<T>{o.weight.data<T>(), in, false}, room.data<T>() + first * in, in);
      } else {
        cpu::gemm(pool, out, in, count, Matrix<T>{dy, out, true}, x, room.data<Sum>(), in,
                  first > 0);
      }
    }
  };
}

Body make_product(const Options& options) {
  const Operands o(options);
  if (o.logits) {
    return o.x.dtype() == DType::kBF16 ? make_chunks<bfloat16>(o) : make_chunks<float>(o);
  }
  return [o] {
    Context& cx = o.machine->plain;
    constexpr auto kLayout = ops::WeightLayout::kInOut;
    switch (o.pass) {
      case Pass::kForward:
        ops::linear(cx, o.x, o.weight, Tensor(), kLayout);
        break;
      case Pass::kInput:
        ops::matmul_values(cx, o.dy, ops::transposed_view(o.weight), o.dy.dtype());
        break;
      case Pass::kWeight:
        ops::weight_gradient(cx, o.x, o.dy, kLayout);
        break;
    }
  };
}

// a [m, k] and b [k, n] of a pass, row-major where they are not transposed.
struct Whole {
  explicit Whole(const Operands& o) : machine(o.machine) {
    const Tensor& left = o.pass == Pass::kWeight  ? (o.logits ? o.dy : o.x)
                         : o.pass == Pass::kInput ? o.dy
                                                  : o.x;
    const Tensor& right = o.pass == Pass::kWeight ? (o.logits ? o.x : o.dy) : o.weight;
    a = left;
    b = right;
    a_transposed = o.pass == Pass::kWeight;
    b_transposed = o.pass != Pass::kWeight && o.logits == (o.pass == Pass::kForward);
    m = a.dim(a_transposed ? 1 : 0);
    k = a.dim(a_transposed ? 0 : 1);
    n = b.dim(b_transposed ? 0 : 1);
    out = Tensor::empty(*o.machine->allocator, {m, n}, a.dtype());
  }
  std::shared_ptr<Machine> machine;
  Tensor a, b, out;
  bool a_transposed, b_transposed;
  int64_t m, n, k;
};

Body by_openblas(const Whole& w, int threads) {
  openblas_set_num_threads(threads);
  return [w] {
    cblas_sgemm(CblasRowMajor, w.a_transposed ? CblasTrans : CblasNoTrans,
                w.b_transposed ? CblasTrans : CblasNoTrans, static_cast<int>(w.m),
                static_cast<int>(w.n), static_cast<int>(w.k), 1.0F, w.a.data<float>(),
                static_cast<int>(w.a.dim(1)), w.b.data<float>(), static_cast<int>(w.b.dim(1)), 0.0F,
                w.out.data<float>(), static_cast<int>(w.n));
  };
}

Body by_sgemm(const Whole& w) {
  return [w] {
    dnnl::sgemm(w.a_transposed ? 'T' : 'N', w.b_transposed ? 'T' : 'N', w.m, w.n, w.k, 1.0F,
                w.a.data<float>(), w.a.dim(1), w.b.data<float>(), w.b.dim(1), 0.0F,
                w.out.data<float>(), w.n);
  };
}

Body by_primitive(const Whole& w) {
  using dnnl::memory;
  const auto type = w.a.dtype() == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const auto matrix = [&](const Tensor& x, bool transposed) {
    const int64_t rows = x.dim(0), columns = x.dim(1);
    const memory::desc desc = transposed
                                  ? memory::desc({columns, rows}, type, memory::dims{1, columns})
                                  : memory::desc({rows, columns}, type, memory::dims{columns, 1});
    return memory(desc, engine, x.raw());
  };
  const memory a = matrix(w.a, w.a_transposed), b = matrix(w.b, w.b_transposed);
  const memory out = matrix(w.out, false);
  const dnnl::matmul code(dnnl::matmul::primitive_desc(
      dnnl::matmul::desc(a.get_desc(), b.get_desc(), out.get_desc()), engine));
  return [w, a, b, out, code, stream = std::make_shared<dnnl::stream>(engine)] {
    code.execute(*stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, out}});
    stream->wait();
  };
}

Body make_library_product(const Options& options) {
  const Whole whole{Operands(options)};
  const int threads = static_cast<int>(options.integer("threads"));
  const std::string library = options.text("library");
  omp_set_num_threads(threads);
  if (library == "openblas") return by_openblas(whole, threads);
  return library == "sgemm" ? by_sgemm(whole) : by_primitive(whole);
}

}  // namespace

const std::map<std::string, Maker>& product_makers() {
  static const std::map<std::string, Maker> makers{{"product", make_product},
                                                   {"library_product", make_library_product}};
  return makers;
}

}  // namespace weft::bench
