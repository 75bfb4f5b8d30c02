// Which library computes attention on a GPU: our kernels, or cuDNN's where it takes the call.
//
// It follows from the kind of GPU and the call alone: the one that was measured to lead. So two
// runs on machines of one kind give the same bits, however busy they are: what cuDNN computes is
// asked of it in the order that gives the same bits every time, unless the caller forgoes that
// (Repeats::kNothing) and cuDNN leads without. For Repeats::kTopology it is our kernels, whatever
// the environment says: what cuDNN does with a head may follow from how many there are.
//
// Environment: WEFT_ATTENTION. own: our kernels for everything. cudnn: cuDNN's for what it takes,
// however much memory that needs; a missing library is then an error. unordered: the same, but
// gradients of queries are sums in any order, whose last bits vary from run to run. Anything else
// is refused at the first attention.
//
// Thread safety: every function from any thread; choose_attention while nothing is computed.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/cuda/cudnn_attention.h"

namespace weft::cuda {

enum class AttentionMode : uint8_t { kMeasured, kOwn, kCudnn, kUnordered };

// Of WEFT_ATTENTION.
Result<AttentionMode> parse_attention_mode(std::string_view text);
// In force; kMeasured where the environment says nothing. Throws StatusError where it is wrong.
AttentionMode attention_mode();
// From now on, for the whole process.
void choose_attention(AttentionMode mode);

// Whether cuDNN was measured to lead with such calls on GPUs of this compute capability (90: 9.0),
// computed as call.repeatable says.
bool cudnn_leads(int capability, const CudnnCall& call);
// What cuDNN may take then, in bytes of device memory: as much as a chunk of logits (limits.h).
constexpr int64_t kCudnnWorkspaceMax = int64_t{1} << 30;

// Calls that cuDNN has computed in this process.
int64_t cudnn_runs();
void count_cudnn_run();

}  // namespace weft::cuda
