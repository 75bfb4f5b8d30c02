// What each kernel must compute, as functions of the kernels, so that the same judge hears the
// originals and the mutants.
//
// Thread safety: none (one launch at a time).
#pragma once

#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kernels.h"

namespace weft::cuda {

// The kernels of sm_90a are those of the half types.
template <typename T>
auto forward_of_sm90() -> decltype(&attention_forward_sm90<T>) {
  if constexpr (!std::is_same_v<T, float>) return &attention_forward_sm90<T>;
  return nullptr;
}
template <typename T>
auto backward_of_sm90() -> decltype(&attention_backward_sm90<T>) {
  if constexpr (!std::is_same_v<T, float>) return &attention_backward_sm90<T>;
  return nullptr;
}

template <typename T>
struct TypedKernels {
  decltype(&cuda::binary<T>) binary = &cuda::binary<T>;
  decltype(&cuda::scale<T>) scale = &cuda::scale<T>;
  decltype(&cuda::fill<T>) fill = &cuda::fill<T>;
  decltype(&cuda::copy<T, T>) copy = &cuda::copy<T, T>;
  decltype(&cuda::copy<T, float>) copy_to_float = &cuda::copy<T, float>;
  decltype(&cuda::copy<float, T>) copy_from_float = &cuda::copy<float, T>;
  decltype(&cuda::add<T, T>) add = &cuda::add<T, T>;
  decltype(&cuda::add<T, float>) add_to_float = &cuda::add<T, float>;
  decltype(&cuda::curve<T>) curve = &cuda::curve<T>;
  decltype(&cuda::curve_backward<T>) curve_backward = &cuda::curve_backward<T>;
  decltype(&cuda::unary<T>) unary = &cuda::unary<T>;
  decltype(&cuda::unary_backward<T>) unary_backward = &cuda::unary_backward<T>;
  decltype(&cuda::compare<T>) compare = &cuda::compare<T>;
  decltype(&cuda::extreme<T>) extreme = &cuda::extreme<T>;
  decltype(&cuda::choose<T>) choose = &cuda::choose<T>;
  decltype(&cuda::swiglu<T>) swiglu = &cuda::swiglu<T>;
  decltype(&cuda::swiglu_backward<T>) swiglu_backward = &cuda::swiglu_backward<T>;
  decltype(&cuda::norm<T>) norm = &cuda::norm<T>;
  decltype(&cuda::norm_backward<T>) norm_backward = &cuda::norm_backward<T>;
  decltype(&cuda::softmax<T>) softmax = &cuda::softmax<T>;
  decltype(&cuda::softmax_backward<T>) softmax_backward = &cuda::softmax_backward<T>;
  decltype(&cuda::loss_and_gradient<T>) loss_and_gradient = &cuda::loss_and_gradient<T>;
  decltype(&cuda::loss_terms<T>) loss_terms = &cuda::loss_terms<T>;
  decltype(&cuda::loss_gradient<T>) loss_gradient = &cuda::loss_gradient<T>;
  decltype(&cuda::reseed<T>) reseed = &cuda::reseed<T>;
  decltype(&cuda::embedding<T>) embedding = &cuda::embedding<T>;
  decltype(&cuda::embedding_backward<T>) embedding_backward = &cuda::embedding_backward<T>;
  decltype(&cuda::gather_rows<T>) gather_rows = &cuda::gather_rows<T>;
  decltype(&cuda::gather_rows_backward<T>) gather_rows_backward = &cuda::gather_rows_backward<T>;
  decltype(&cuda::rotary_angles<T>) rotary_angles = &cuda::rotary_angles<T>;
  decltype(&cuda::rotary<T>) rotary = &cuda::rotary<T>;
  decltype(&cuda::adamw<T, T>) adamw = &cuda::adamw<T, T>;
  decltype(&cuda::dropout<T>) dropout = &cuda::dropout<T>;
  decltype(&cuda::lstm_gates<T>) lstm_gates = &cuda::lstm_gates<T>;
  decltype(&cuda::lstm_gates_backward<T>) lstm_gates_backward = &cuda::lstm_gates_backward<T>;
  decltype(&cuda::gru_gates<T>) gru_gates = &cuda::gru_gates<T>;
  decltype(&cuda::gru_gates_backward<T>) gru_gates_backward = &cuda::gru_gates_backward<T>;
  decltype(&cuda::gather_columns<T>) gather_columns = &cuda::gather_columns<T>;
  decltype(&cuda::scatter_columns<T>) scatter_columns = &cuda::scatter_columns<T>;
  decltype(&cuda::max_pool<T>) max_pool = &cuda::max_pool<T>;
  decltype(&cuda::max_pool_backward<T>) max_pool_backward = &cuda::max_pool_backward<T>;
  decltype(&cuda::average_pool<T>) average_pool = &cuda::average_pool<T>;
  decltype(&cuda::average_pool_backward<T>) average_pool_backward = &cuda::average_pool_backward<T>;
  decltype(&cuda::sum<T, double>) sum = &cuda::sum<T, double>;
  decltype(&cuda::sum<T, float>) sum_to_float = &cuda::sum<T, float>;
  decltype(&cuda::sum_middle<T>) sum_middle = &cuda::sum_middle<T>;
  decltype(&cuda::log_softmax<T>) log_softmax = &cuda::log_softmax<T>;
  decltype(&cuda::log_softmax_backward<T>) log_softmax_backward = &cuda::log_softmax_backward<T>;
  decltype(&cuda::extreme_along<T>) extreme_along = &cuda::extreme_along<T>;
  decltype(&cuda::cumulative_sum<T>) cumulative_sum = &cuda::cumulative_sum<T>;
  decltype(&cuda::sort_rows<T>) sort_rows = &cuda::sort_rows<T>;
  decltype(&cuda::take_along<T>) take_along = &cuda::take_along<T>;
  decltype(&cuda::put_along<T>) put_along = &cuda::put_along<T>;
  decltype(&cuda::one_hot<T>) one_hot = &cuda::one_hot<T>;
  decltype(&cuda::segment_sum<T>) segment_sum = &cuda::segment_sum<T>;
  decltype(&cuda::segment_max<T>) segment_max = &cuda::segment_max<T>;
  decltype(&cuda::segment_max_backward<T>) segment_max_backward = &cuda::segment_max_backward<T>;
  decltype(&cuda::segment_softmax<T>) segment_softmax = &cuda::segment_softmax<T>;
  decltype(&cuda::group_moments<T>) group_moments = &cuda::group_moments<T>;
  decltype(&cuda::channel_sums<T>) channel_sums = &cuda::channel_sums<T>;
  decltype(&cuda::normalize_channels<T>) normalize_channels = &cuda::normalize_channels<T>;
  decltype(&cuda::channel_gradient_sums<T>) channel_gradient_sums = &cuda::channel_gradient_sums<T>;
  decltype(&cuda::channel_gradient<T>) channel_gradient = &cuda::channel_gradient<T>;
  decltype(&cuda::compared<T>) compared = &cuda::compared<T>;
  decltype(&cuda::compared_backward<T>) compared_backward = &cuda::compared_backward<T>;
  decltype(&cuda::relative_scores<T>) relative_scores = &cuda::relative_scores<T>;
  decltype(&cuda::relative_by_distance<T>) relative_by_distance = &cuda::relative_by_distance<T>;
  decltype(&cuda::relative_queries<T>) relative_queries = &cuda::relative_queries<T>;
  decltype(&cuda::draw<T>) draw = &cuda::draw<T>;
  decltype(&cuda::ctc<T>) ctc = &cuda::ctc<T>;
  decltype(&cuda::ctc_backward<T>) ctc_backward = &cuda::ctc_backward<T>;
  decltype(&cuda::attention_forward<T>) attention_forward = &cuda::attention_forward<T>;
  decltype(&cuda::attention_forward_sm90<T>) attention_forward_sm90 = forward_of_sm90<T>();
  decltype(&cuda::attention_backward_sm90<T>) attention_backward_sm90 = backward_of_sm90<T>();
  decltype(&cuda::attention_delta<T>) attention_delta = &cuda::attention_delta<T>;
  decltype(&cuda::attention_backward<T>) attention_backward = &cuda::attention_backward<T>;
  decltype(&cuda::attention_bias_gradient<T>) attention_bias_gradient =
      &cuda::attention_bias_gradient<T>;
  decltype(&cuda::attention_distance_gradient<T>) attention_distance_gradient =
      &cuda::attention_distance_gradient<T>;
  decltype(&cuda::attention_sinks_gradient<T>) attention_sinks_gradient =
      &cuda::attention_sinks_gradient<T>;
};

struct KernelSet {
  std::tuple<TypedKernels<float>, TypedKernels<bfloat16>, TypedKernels<float16>> of_type;
  template <typename T>
  TypedKernels<T>& typed() {
    return std::get<TypedKernels<T>>(of_type);
  }
  template <typename T>
  const TypedKernels<T>& typed() const {
    return std::get<TypedKernels<T>>(of_type);
  }
  decltype(&cuda::shift_terms) shift_terms = &cuda::shift_terms;
  decltype(&cuda::loss_total) loss_total = &cuda::loss_total;
  decltype(&cuda::sum_of_squares) sum_of_squares = &cuda::sum_of_squares;
  decltype(&cuda::sort_rows<int64_t>) sort_numbers = &cuda::sort_rows<int64_t>;
  decltype(&cuda::targets_along) targets_along = &cuda::targets_along;
  decltype(&cuda::triangular_mask) triangular_mask = &cuda::triangular_mask;
  decltype(&cuda::rows_of_index) rows_of_index = &cuda::rows_of_index;
  decltype(&cuda::segment_starts) segment_starts = &cuda::segment_starts;
  decltype(&cuda::segments_of_offsets) segments_of_offsets = &cuda::segments_of_offsets;
  decltype(&cuda::rstd_of) rstd_of = &cuda::rstd_of;
  decltype(&cuda::attention_merge) attention_merge = &cuda::attention_merge;
  decltype(&cuda::largest_size) largest_size = &cuda::largest_size;
  decltype(&cuda::cut_squares) cut_squares = &cuda::cut_squares;
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

// The case of cases_far.cc.
std::string check_far(const KernelSet& kernels);
// The cases of cases_rows.cc.
std::string check_norm(const KernelSet& kernels);
std::string check_norm_backward(const KernelSet& kernels);
std::string check_softmax(const KernelSet& kernels);
std::string check_softmax_backward(const KernelSet& kernels);
std::string check_cross_entropy(const KernelSet& kernels);
std::string check_sums(const KernelSet& kernels);
// The cases of cases_update.cc.
std::string check_adamw(const KernelSet& set);
std::string check_squares(const KernelSet& set);
// The cases of cases_functions.cc.
std::string check_functions(const KernelSet& set);
std::string check_selection(const KernelSet& set);
// The cases of cases_convolution.cc.
std::string check_columns(const KernelSet& set);
std::string check_pooling(const KernelSet& set);
std::string check_recurrent(const KernelSet& set);
// The cases of cases_lines.cc.
std::string check_log_softmax(const KernelSet& set);
std::string check_lines(const KernelSet& set);
std::string check_sort(const KernelSet& set);
std::string check_numbers(const KernelSet& set);
std::string check_segments(const KernelSet& set);
// The cases of cases_channels.cc.
std::string check_channel_norm(const KernelSet& set);
std::string check_ctc(const KernelSet& set);
std::string check_compared(const KernelSet& set);
std::string check_draw(const KernelSet& set);
// The case of cases_relative.cc.
std::string check_relative(const KernelSet& set);
// The cases of cases_attention.cc.
std::string check_attention_plain(const KernelSet& set);
std::string check_attention_widths(const KernelSet& set);
std::string check_attention_rules(const KernelSet& set);
std::string check_attention_tables(const KernelSet& set);
std::string check_attention_distances(const KernelSet& set);
std::string check_attention_sm90(const KernelSet& set);
std::string check_attention_merge(const KernelSet& set);
std::string check_exact_squares(const KernelSet& set);

}  // namespace weft::cuda
