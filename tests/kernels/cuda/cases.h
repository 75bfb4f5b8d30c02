// What each kernel must compute, as functions of the kernels, so that the same judge hears the
// originals and the mutants.
//
// Thread safety: none (one launch at a time).
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kernels.h"

namespace weft::cuda {

template <typename T>
struct AttentionKernels {
  decltype(&cuda::attention_forward<T>) forward = &cuda::attention_forward<T>;
  decltype(&cuda::attention_delta<T>) delta = &cuda::attention_delta<T>;
  decltype(&cuda::attention_backward<T>) backward = &cuda::attention_backward<T>;
};

struct KernelSet {
  std::tuple<AttentionKernels<float>, AttentionKernels<bfloat16>, AttentionKernels<float16>>
      attentions;
  template <typename T>
  AttentionKernels<T>& attention() {
    return std::get<AttentionKernels<T>>(attentions);
  }
  template <typename T>
  const AttentionKernels<T>& attention() const {
    return std::get<AttentionKernels<T>>(attentions);
  }

  decltype(&cuda::add) add = &cuda::add;
  decltype(&cuda::multiply) multiply = &cuda::multiply;
  decltype(&cuda::scale_bias) scale_bias = &cuda::scale_bias;
  decltype(&cuda::gelu_tanh) gelu_tanh = &cuda::gelu_tanh;
  decltype(&cuda::gelu_tanh_backward) gelu_tanh_backward = &cuda::gelu_tanh_backward;
  decltype(&cuda::layer_norm) layer_norm = &cuda::layer_norm;
  decltype(&cuda::layer_norm_backward) layer_norm_backward = &cuda::layer_norm_backward;
  decltype(&cuda::softmax) softmax = &cuda::softmax;
  decltype(&cuda::softmax_backward) softmax_backward = &cuda::softmax_backward;
  decltype(&cuda::cross_entropy) cross_entropy = &cuda::cross_entropy;
  decltype(&cuda::cross_entropy_backward) cross_entropy_backward = &cuda::cross_entropy_backward;
  decltype(&cuda::embedding) embedding = &cuda::embedding;
  decltype(&cuda::embedding_scatter_add) embedding_scatter_add = &cuda::embedding_scatter_add;
  decltype(&cuda::adamw) adamw = &cuda::adamw;
  decltype(&cuda::dropout) dropout = &cuda::dropout;
  decltype(&cuda::sum) sum = &cuda::sum;
  decltype(&cuda::sum_of_squares) sum_of_squares = &cuda::sum_of_squares;
};

// run() says what is wrong, or nothing. It may throw what the harness and launch() throw.
struct Case {
  std::string name;
  std::string (*run)(const KernelSet& kernels);
};
const std::vector<Case>& cases();

struct Mutant {
  std::string name;
  std::string caught_by;  // the name of a case
  void (*apply)(KernelSet& kernels);
};
const std::vector<Mutant>& mutants();

// The cases of cases_rows.cc.
std::string check_layer_norm(const KernelSet& kernels);
std::string check_layer_norm_backward(const KernelSet& kernels);
std::string check_softmax(const KernelSet& kernels);
std::string check_softmax_backward(const KernelSet& kernels);
std::string check_cross_entropy(const KernelSet& kernels);
std::string check_cross_entropy_backward(const KernelSet& kernels);
std::string check_sums(const KernelSet& kernels);
// The cases of cases_attention.cc.
std::string check_attention_plain(const KernelSet& set);
std::string check_attention_widths(const KernelSet& set);
std::string check_attention_rules(const KernelSet& set);

}  // namespace weft::cuda
