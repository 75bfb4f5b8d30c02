// Connectionist temporal classification (Graves et al. 2006, section 4), a block a sample (time by
// time, its threads share the states) or a sample and time. Numerical policy: as on the CPU in
// double and in logarithms; sums in a fixed order. A length or a target that the rules do not allow
// makes the sample's loss NaN and is noted.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/outside.cuh"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

__device__ inline double log_add(double a, double b) {
  const double larger = a < b ? b : a, smaller = a < b ? a : b;
  return larger == -INFINITY ? larger : larger + log1p(exp(smaller - larger));
}

// One sample: its states are a blank before, between and after the labels.
struct Sample {
  int64_t times, labels, states;
  const int64_t* targets;
  int64_t blank;
  bool allowed;

  __device__ int64_t class_of(int64_t s) const { return s % 2 == 0 ? blank : targets[s / 2]; }
  // Whether state s may be entered from s - 2: a label unlike the one before.
  __device__ bool skips(int64_t s) const {
    return s >= 3 && s % 2 == 1 && targets[s / 2] != targets[s / 2 - 1];
  }
};

// to: where a length or a target that is not allowed is noted, or null.
template <typename T>
__device__ Sample sample_of(const CtcProblem<T>& p, int64_t b, Note* to = nullptr) {
  Sample sample{p.input_lengths[b], p.target_lengths[b], 0, p.targets + b * p.width, p.blank, true};
  sample.allowed = noted_inside({to, ops::Numbers::kInputLength}, sample.times, p.times + 1) &&
                   noted_inside({to, ops::Numbers::kTargetLength}, sample.labels, p.width + 1);
  for (int64_t i = 0; sample.allowed && i < sample.labels; ++i) {
    const int64_t target = sample.targets[i];
    sample.allowed = inside(target, p.classes) && target != p.blank;
    if (!sample.allowed) note({to, ops::Numbers::kTarget}, target, p.classes, p.blank);
  }
  if (!sample.allowed) sample.times = sample.labels = 0;
  sample.states = 2 * sample.labels + 1;
  return sample;
}

template <typename T>
__device__ double log_p(const CtcProblem<T>& p, const Sample& sample, int64_t b, int64_t t,
                        int64_t s) {
  const int64_t row = t * p.batch + b;
  return static_cast<double>(widen(p.logits[row * p.classes + sample.class_of(s)])) -
         p.log_sums[row];
}

// log sum exp of each row of logits [times, batch, classes].
template <typename T>
__global__ void log_sums_kernel(CtcProblem<T> p) {
  double* partials = shared_memory<double>();
  for (int64_t row = blockIdx.x; row < p.times * p.batch; row += gridDim.x) {
    const T* from = p.logits + row * p.classes;
    double largest = -INFINITY, total = 0.0;
    for (int64_t c = threadIdx.x; c < p.classes; c += blockDim.x) {
      largest = Max::combine(largest, static_cast<double>(widen(from[c])));
    }
    largest = block_reduce<Max>(largest, partials);
    for (int64_t c = threadIdx.x; c < p.classes; c += blockDim.x) {
      total += exp(static_cast<double>(widen(from[c])) - largest);
    }
    total = block_reduce<Add>(total, partials);
    if (threadIdx.x == 0) p.log_sums[row] = largest + log(total);
  }
}

// log of the sum over paths that reach each state at each time from the start, p of it included.
template <typename T>
__global__ void forward_kernel(CtcProblem<T> p) {
  for (int64_t b = blockIdx.x; b < p.batch; b += gridDim.x) {
    const Sample sample = sample_of(p, b);
    double* now = p.alpha + b * p.times * p.states_max();
    for (int64_t t = 0; t < sample.times; ++t, now += p.states_max()) {
      const double* before = now - p.states_max();
      for (int64_t s = threadIdx.x; s < sample.states; s += blockDim.x) {
        double sum = t == 0 && s < 2 ? 0.0 : -INFINITY;
        if (t > 0) {
          sum = before[s];
          if (s > 0) sum = log_add(sum, before[s - 1]);
          if (sample.skips(s)) sum = log_add(sum, before[s - 2]);
        }
        now[s] = sum + log_p(p, sample, b, t, s);
      }
      __syncthreads();
    }
  }
}

// The same from each state to the end, p of it included.
template <typename T>
__global__ void backward_kernel(CtcProblem<T> p) {
  for (int64_t b = blockIdx.x; b < p.batch; b += gridDim.x) {
    const Sample sample = sample_of(p, b);
    for (int64_t t = sample.times - 1; t >= 0; --t) {
      double* now = p.beta + (b * p.times + t) * p.states_max();
      const double* after = now + p.states_max();
      for (int64_t s = threadIdx.x; s < sample.states; s += blockDim.x) {
        double sum = t == sample.times - 1 && s >= sample.states - 2 ? 0.0 : -INFINITY;
        if (t < sample.times - 1) {
          sum = after[s];
          if (s + 1 < sample.states) sum = log_add(sum, after[s + 1]);
          if (s + 2 < sample.states && sample.skips(s + 2)) sum = log_add(sum, after[s + 2]);
        }
        now[s] = sum + log_p(p, sample, b, t, s);
      }
      __syncthreads();
    }
  }
}

template <typename T>
__device__ double log_likelihood(const CtcProblem<T>& p, const Sample& sample, int64_t b) {
  if (sample.times == 0) return sample.states == 1 ? 0.0 : -INFINITY;
  const double* last = p.alpha + (b * p.times + sample.times - 1) * p.states_max();
  if (sample.states == 1) return last[0];
  return log_add(last[sample.states - 1], last[sample.states - 2]);
}

template <typename T>
__global__ void loss_kernel(CtcProblem<T> p, T* loss) {
  constexpr uint32_t kNan = 0x7FC00000;
  for (int64_t b = first_element(); b < p.batch; b += elements_of_grid()) {
    const Sample sample = sample_of(p, b, p.note);
    loss[b] = narrow<T>(sample.allowed ? static_cast<float>(-log_likelihood(p, sample, b))
                                       : float_of_bits(kNan));
  }
}

// How likely it is, given the targets, that a path is in state s or in another of the same class at
// time t; s is the first state of its class.
template <typename T>
__device__ double posterior(const CtcProblem<T>& p, const Sample& sample, int64_t b, int64_t t,
                            int64_t s, double total) {
  const int64_t own = sample.class_of(s), start = (b * p.times + t) * p.states_max();
  double sum = 0.0;
  for (int64_t other = s; other < sample.states; other += 2) {
    if (sample.class_of(other) != own) continue;
    sum +=
        exp(p.alpha[start + other] + p.beta[start + other] - log_p(p, sample, b, t, other) - total);
  }
  return sum;
}
__device__ inline bool first_of_class(const Sample& sample, int64_t s) {
  if (s % 2 == 0) return s == 0;
  for (int64_t other = 1; other < s; other += 2) {
    if (sample.class_of(other) == sample.class_of(s)) return false;
  }
  return true;
}

// dx = dloss (softmax - posterior), a block a time and sample.
template <typename T>
__global__ void gradient_kernel(CtcProblem<T> p, const T* dloss, T* dx) {
  for (int64_t row = blockIdx.x; row < p.times * p.batch; row += gridDim.x) {
    const int64_t t = row / p.batch, b = row % p.batch, start = row * p.classes;
    const Sample sample = sample_of(p, b);
    const double total = log_likelihood(p, sample, b), d = static_cast<double>(widen(dloss[b]));
    const bool reached = t < sample.times && total != -INFINITY;
    for (int64_t c = threadIdx.x; c < p.classes; c += blockDim.x) {
      const double share = exp(static_cast<double>(widen(p.logits[start + c])) - p.log_sums[row]);
      dx[start + c] = narrow<T>(reached ? static_cast<float>(d * share) : 0.0F);
    }
    __syncthreads();  // the classes of the targets are written again
    for (int64_t s = threadIdx.x; reached && s < sample.states; s += blockDim.x) {
      if (!first_of_class(sample, s)) continue;
      const int64_t at = start + sample.class_of(s);
      const double share = exp(static_cast<double>(widen(p.logits[at])) - p.log_sums[row]);
      dx[at] = narrow<T>(static_cast<float>(d * (share - posterior(p, sample, b, t, s, total))));
    }
  }
}

template <typename T>
void paths(const CtcProblem<T>& p, cudaStream_t stream) {
  launch_shared(stream, blocks_of(p.times * p.batch, 1), row_threads(p.classes),
                kWarp * sizeof(double), log_sums_kernel<T>, p);
  launch(stream, blocks_of(p.batch, 1), row_threads(p.states_max()), forward_kernel<T>, p);
}

}  // namespace

template <typename T>
void ctc(const CtcProblem<T>& problem, T* loss, cudaStream_t stream) {
  paths(problem, stream);
  launch(stream, blocks_of(problem.batch), kThreads, loss_kernel<T>, problem, loss);
}
template <typename T>
void ctc_backward(const CtcProblem<T>& problem, const T* dloss, T* dx, cudaStream_t stream) {
  paths(problem, stream);
  launch(stream, blocks_of(problem.batch, 1), row_threads(problem.states_max()), backward_kernel<T>,
         problem);
  launch(stream, blocks_of(problem.times * problem.batch, 1), row_threads(problem.classes),
         gradient_kernel<T>, problem, dloss, dx);
}

#define WEFT_INSTANTIATE(T)                                     \
  template void ctc<T>(const CtcProblem<T>&, T*, cudaStream_t); \
  template void ctc_backward<T>(const CtcProblem<T>&, const T*, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
