#include "kernels/cpu/convolution_onednn.h"

#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "kernels/cpu/gemm_libraries.h"
#include "kernels/cpu/vectors.h"

namespace weft::cpu {
namespace {

using dnnl::memory;
using Pair = ConvolutionSizes::Pair;

enum class Side : uint8_t { kForward, kBack, kWeights };

// Everything that the generated code depends on.
using Key =
    std::tuple<Side, int64_t, int64_t, int64_t, int64_t, Pair, Pair, Pair, Pair, Pair, Pair>;
Key key_of(Side side, const ConvolutionSizes& s) {
  return {side,  s.samples, s.groups, s.channels, s.out_channels, s.in,
          s.out, s.kernel,  s.stride, s.before,   s.dilation};
}

// One tensor: as it lies for us, and as the code wants it.
class Operand {
 public:
  Operand(const dnnl::engine& engine, const memory::dims& dims, const memory::desc& wanted)
      : plain_(
            memory::desc(dims, memory::data_type::f32,
                         dims.size() == 5 ? memory::format_tag::abcde : memory::format_tag::abcd),
            engine, nullptr),
        blocked_(wanted, engine, nullptr),
        same_(plain_.get_desc() == wanted) {}

  // The code's own copy of `data`, or `data` itself.
  memory& take(dnnl::stream& stream, const float* data) {
    plain_.set_data_handle(const_cast<float*>(data));
    if (same_) return plain_;
    dnnl::reorder(plain_, room()).execute(stream, plain_, blocked_);
    return blocked_;
  }
  memory& target(float* data) {
    plain_.set_data_handle(data);
    return same_ ? plain_ : room();
  }
  void bring_back(dnnl::stream& stream) {
    if (!same_) dnnl::reorder(blocked_, plain_).execute(stream, blocked_, plain_);
  }

 private:
  memory& room() {
    bytes_.resize(blocked_.get_desc().get_size());
    blocked_.set_data_handle(bytes_.data());
    return blocked_;
  }

  memory plain_, blocked_;
  const bool same_;
  std::vector<char> bytes_;
};

// A convolution made ready for so many samples: x, weight and y.
struct Ready {
  std::unique_ptr<Operand> x, weight, y;
  dnnl::primitive code;
};

constexpr size_t kReadyMax = 256;

class Thread {
 public:
  Thread() : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) { omp_set_num_threads(1); }

  dnnl::stream& stream() { return stream_; }
  Ready& ready(Side side, const ConvolutionSizes& s) {
    const Key key = key_of(side, s);
    auto found = ready_.find(key);
    if (found == ready_.end()) {
      if (ready_.size() >= kReadyMax) ready_.clear();
      found = ready_.emplace(key, make(side, s)).first;
    }
    return found->second;
  }

 private:
  Ready make(Side side, const ConvolutionSizes& s) const {
    using dnnl::algorithm;
    const memory::dims x{s.samples, s.channels, s.in[0], s.in[1]};
    memory::dims w{s.group_outputs(), s.group_channels(), s.kernel[0], s.kernel[1]};
    if (s.groups > 1) w.insert(w.begin(), s.groups);
    const memory::dims y{s.samples, s.out_channels, s.out[0], s.out[1]};
    const auto any = [](const memory::dims& dims) {
      return memory::desc(dims, memory::data_type::f32, memory::format_tag::any);
    };
    const memory::dims stride{s.stride[0], s.stride[1]}, before{s.before[0], s.before[1]};
    const memory::dims between{s.dilation[0] - 1, s.dilation[1] - 1};
    memory::dims after(2);
    for (const size_t d : {0U, 1U}) {
      const int64_t reach = s.dilation[d] * (s.kernel[d] - 1) + 1;
      after[d] = (s.out[d] - 1) * s.stride[d] + reach - s.in[d] - s.before[d];
    }
    const dnnl::convolution_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, algorithm::convolution_direct, any(x), any(w), any(y),
         stride, between, before, after},
        engine_);
    const auto operands = [&](const memory::desc& dx, const memory::desc& dw,
                              const memory::desc& dy, dnnl::primitive code) {
      return Ready{std::make_unique<Operand>(engine_, x, dx),
                   std::make_unique<Operand>(engine_, w, dw),
                   std::make_unique<Operand>(engine_, y, dy), std::move(code)};
    };
    if (side == Side::kForward) {
      return operands(forward.src_desc(), forward.weights_desc(), forward.dst_desc(),
                      dnnl::convolution_forward(forward));
    }
    if (side == Side::kBack) {
      const dnnl::convolution_backward_data::primitive_desc back(
          {algorithm::convolution_direct, any(x), any(w), any(y), stride, between, before, after},
          engine_, forward);
      return operands(back.diff_src_desc(), back.weights_desc(), back.diff_dst_desc(),
                      dnnl::convolution_backward_data(back));
    }
    const dnnl::convolution_backward_weights::primitive_desc weights(
        {algorithm::convolution_direct, any(x), any(w), any(y), stride, between, before, after},
        engine_, forward);
    return operands(weights.src_desc(), weights.diff_weights_desc(), weights.diff_dst_desc(),
                    dnnl::convolution_backward_weights(weights));
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  std::map<Key, Ready> ready_;
};

Thread& this_thread() {
  thread_local Thread thread;
  return thread;
}

// f(ready, stream, sample) for each sample; the weight is brought in once a thread.
template <typename F>
void for_samples(ThreadPool& pool, Side side, const ConvolutionSizes& sizes, const float* weight,
                 F f) {
  ConvolutionSizes one = sizes;
  one.samples = 1;
  pool.parallel_for(sizes.samples, 1, [&](int64_t begin, int64_t end) {
    Thread& thread = this_thread();
    Ready& ready = thread.ready(side, one);
    memory& w = ready.weight->take(thread.stream(), weight);
    for (int64_t sample = begin; sample < end; ++sample) f(ready, w, thread.stream(), sample);
  });
}

constexpr int64_t kBlock = 16;  // channels of a block

// Measured on processors with AVX-512, where products of columns lead for one tap, which needs no
// columns, and for one dim. Threads share samples, whose number does not matter here: it differs
// from mesh to mesh.
bool suits(const ConvolutionSizes& s) {
  const bool whole = s.groups == 1 && s.kernel[0] > 1 && s.channels > 0;
  const bool by_channel = s.groups > 1 && s.groups == s.channels && s.groups == s.out_channels;
  return (whole || (by_channel && s.taps() > 1)) && s.out_channels >= kBlock && onednn_has_avx512();
}

}  // namespace

bool onednn_convolves(const ConvolutionSizes& sizes) { return suits(sizes); }

bool onednn_convolves_back(const ConvolutionSizes& sizes) {
  return suits(sizes) && sizes.channels >= kBlock;
}

void convolve_onednn(ThreadPool& pool, const ConvolutionSizes& s, const float* x,
                     const float* weight, const float* bias, float* y) {
  for_samples(pool, Side::kForward, s, weight,
              [&](Ready& ready, memory& w, dnnl::stream& stream, int64_t sample) {
                memory& from = ready.x->take(stream, x + sample * s.channels * s.places_in());
                float* result = y + sample * s.out_channels * s.places();
                memory& to = ready.y->target(result);
                ready.code.execute(
                    stream, {{DNNL_ARG_SRC, from}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, to}});
                ready.y->bring_back(stream);
                for (int64_t o = 0; o < s.out_channels && bias != nullptr; ++o) {
                  float* row = result + o * s.places();
                  vectors<float>().binary(Binary::kAdd, row, 1, bias + o, 0, row, s.places());
                }
              });
}

void convolve_back_onednn(ThreadPool& pool, const ConvolutionSizes& s, const float* dy,
                          const float* weight, float* dx) {
  for_samples(pool, Side::kBack, s, weight,
              [&](Ready& ready, memory& w, dnnl::stream& stream, int64_t sample) {
                memory& from = ready.y->take(stream, dy + sample * s.out_channels * s.places());
                memory& to = ready.x->target(dx + sample * s.channels * s.places_in());
                ready.code.execute(
                    stream,
                    {{DNNL_ARG_DIFF_DST, from}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DIFF_SRC, to}});
                ready.x->bring_back(stream);
              });
}

void convolve_weights_onednn(const ConvolutionSizes& s, int64_t begin, int64_t end, const float* x,
                             const float* dy, float* dweight) {
  if (begin == end) {
    std::fill_n(dweight, s.weights(), 0.0F);
    return;
  }
  ConvolutionSizes some = s;
  some.samples = end - begin;
  Thread& thread = this_thread();
  Ready& ready = thread.ready(Side::kWeights, some);
  memory& from = ready.x->take(thread.stream(), x + begin * s.channels * s.places_in());
  memory& to = ready.y->take(thread.stream(), dy + begin * s.out_channels * s.places());
  ready.code.execute(thread.stream(), {{DNNL_ARG_SRC, from},
                                       {DNNL_ARG_DIFF_DST, to},
                                       {DNNL_ARG_DIFF_WEIGHTS, ready.weight->target(dweight)}});
  ready.weight->bring_back(thread.stream());
}

}  // namespace weft::cpu
