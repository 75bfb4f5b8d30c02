#include "kernels/cpu/convolution_onednn.h"

#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>
#include <map>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels/cpu/gemm_libraries.h"

namespace weft::cpu {
namespace {

using dnnl::memory;
using Pair = ConvolutionSizes::Pair;

enum class Side : uint8_t { kForward, kBack, kWeights };

using Type = memory::data_type;
template <typename T>
constexpr Type kType = std::is_same_v<T, float> ? Type::f32 : Type::bf16;

// Everything that the generated code depends on.
using Key =
    std::tuple<Type, Side, int64_t, int64_t, int64_t, int64_t, Pair, Pair, Pair, Pair, Pair, Pair>;
Key key_of(Type type, Side side, const ConvolutionSizes& s) {
  return {type, side,  s.samples, s.groups, s.channels, s.out_channels,
          s.in, s.out, s.kernel,  s.stride, s.before,   s.dilation};
}

// One tensor: as it lies for us, and as the code wants it.
class Operand {
 public:
  Operand(const dnnl::engine& engine, const memory::dims& dims, const memory::desc& wanted)
      : plain_(memory::desc(dims, wanted.data_type(),
                            dims.size() == 1   ? memory::format_tag::a
                            : dims.size() == 5 ? memory::format_tag::abcde
                                               : memory::format_tag::abcd),
               engine, nullptr),
        blocked_(wanted, engine, nullptr),
        same_(plain_.get_desc() == wanted) {}

  // The code's own copy of `data`, or `data` itself.
  memory& take(dnnl::stream& stream, const void* data) {
    plain_.set_data_handle(const_cast<void*>(data));
    if (same_) return plain_;
    dnnl::reorder(plain_, room()).execute(stream, plain_, blocked_);
    return blocked_;
  }
  memory& target(void* data) {
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
  std::unique_ptr<Operand> x, weight, y, bias;
  dnnl::primitive code;
};

constexpr size_t kReadyMax = 256;

class Thread {
 public:
  Thread() : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) { omp_set_num_threads(1); }

  dnnl::stream& stream() { return stream_; }
  Ready& ready(Type type, Side side, const ConvolutionSizes& s) {
    const Key key = key_of(type, side, s);
    auto found = ready_.find(key);
    if (found == ready_.end()) {
      if (ready_.size() >= kReadyMax) ready_.clear();
      found = ready_.emplace(key, make(type, side, s)).first;
    }
    return found->second;
  }

 private:
  Ready make(Type type, Side side, const ConvolutionSizes& s) const {
    using dnnl::algorithm;
    const memory::dims x{s.samples, s.channels, s.in[0], s.in[1]};
    memory::dims w{s.group_outputs(), s.group_channels(), s.kernel[0], s.kernel[1]};
    if (s.groups > 1) w.insert(w.begin(), s.groups);
    const memory::dims y{s.samples, s.out_channels, s.out[0], s.out[1]};
    const auto any = [type](const memory::dims& dims) {
      return memory::desc(dims, type, memory::format_tag::any);
    };
    const memory::desc bias({s.out_channels}, type, memory::format_tag::a);
    const memory::dims stride{s.stride[0], s.stride[1]}, before{s.before[0], s.before[1]};
    const memory::dims between{s.dilation[0] - 1, s.dilation[1] - 1};
    memory::dims after(2);
    for (const size_t d : {0U, 1U}) {
      const int64_t reach = s.dilation[d] * (s.kernel[d] - 1) + 1;
      after[d] = (s.out[d] - 1) * s.stride[d] + reach - s.in[d] - s.before[d];
    }
    const dnnl::convolution_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, algorithm::convolution_direct, any(x), any(w), bias,
         any(y), stride, between, before, after},
        engine_);
    const auto operands = [&](const memory::desc& dx, const memory::desc& dw,
                              const memory::desc& dy, dnnl::primitive code) {
      return Ready{
          std::make_unique<Operand>(engine_, x, dx), std::make_unique<Operand>(engine_, w, dw),
          std::make_unique<Operand>(engine_, y, dy),
          std::make_unique<Operand>(engine_, memory::dims{s.out_channels}, bias), std::move(code)};
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
    const memory::desc sum(w, Type::f32, memory::format_tag::any);
    const dnnl::convolution_backward_weights::primitive_desc weights(
        {algorithm::convolution_direct, any(x), sum, any(y), stride, between, before, after},
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
template <typename T, typename F>
void for_samples(ThreadPool& pool, Side side, const ConvolutionSizes& sizes, const T* weight, F f) {
  ConvolutionSizes one = sizes;
  one.samples = 1;
  pool.parallel_for(sizes.samples, 1, [&](int64_t begin, int64_t end) {
    Thread& thread = this_thread();
    Ready& ready = thread.ready(kType<T>, side, one);
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

template <typename T>
bool onednn_convolves(const ConvolutionSizes& sizes) {
  return suits(sizes) && (std::is_same_v<T, float> || onednn_has_avx512_bf16());
}

template <typename T>
bool onednn_convolves_back(const ConvolutionSizes& sizes) {
  return onednn_convolves<T>(sizes) && sizes.channels >= kBlock;
}

template <typename T>
void convolve_onednn(ThreadPool& pool, const ConvolutionSizes& s, const T* x, const T* weight,
                     const T* bias, T* y) {
  const std::vector<T> none(bias == nullptr ? static_cast<size_t>(s.out_channels) : 0, T(0.0F));
  const T* offsets = bias == nullptr ? none.data() : bias;
  for_samples(pool, Side::kForward, s, weight,
              [&](Ready& ready, memory& w, dnnl::stream& stream, int64_t sample) {
                memory& from = ready.x->take(stream, x + sample * s.channels * s.places_in());
                memory& to = ready.y->target(y + sample * s.out_channels * s.places());
                ready.code.execute(stream, {{DNNL_ARG_SRC, from},
                                            {DNNL_ARG_WEIGHTS, w},
                                            {DNNL_ARG_BIAS, ready.bias->take(stream, offsets)},
                                            {DNNL_ARG_DST, to}});
                ready.y->bring_back(stream);
              });
}

template <typename T>
void convolve_back_onednn(ThreadPool& pool, const ConvolutionSizes& s, const T* dy, const T* weight,
                          T* dx) {
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

template <typename T>
void convolve_weights_onednn(const ConvolutionSizes& s, int64_t begin, int64_t end, const T* x,
                             const T* dy, float* dweight) {
  if (begin == end) {
    std::fill_n(dweight, s.weights(), 0.0F);
    return;
  }
  ConvolutionSizes some = s;
  some.samples = end - begin;
  Thread& thread = this_thread();
  Ready& ready = thread.ready(kType<T>, Side::kWeights, some);
  memory& from = ready.x->take(thread.stream(), x + begin * s.channels * s.places_in());
  memory& to = ready.y->take(thread.stream(), dy + begin * s.out_channels * s.places());
  ready.code.execute(thread.stream(), {{DNNL_ARG_SRC, from},
                                       {DNNL_ARG_DIFF_DST, to},
                                       {DNNL_ARG_DIFF_WEIGHTS, ready.weight->target(dweight)}});
  ready.weight->bring_back(thread.stream());
}

#define WEFT_CONVOLVE(T)                                                                       \
  template bool onednn_convolves<T>(const ConvolutionSizes&);                                  \
  template bool onednn_convolves_back<T>(const ConvolutionSizes&);                             \
  template void convolve_onednn(ThreadPool&, const ConvolutionSizes&, const T*, const T*,      \
                                const T*, T*);                                                 \
  template void convolve_back_onednn(ThreadPool&, const ConvolutionSizes&, const T*, const T*, \
                                     T*);                                                      \
  template void convolve_weights_onednn(const ConvolutionSizes&, int64_t, int64_t, const T*,   \
                                        const T*, float*);
WEFT_CONVOLVE(float)
WEFT_CONVOLVE(bfloat16)
#undef WEFT_CONVOLVE

}  // namespace weft::cpu
