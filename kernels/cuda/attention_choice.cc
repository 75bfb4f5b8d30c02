#include "kernels/cuda/attention_choice.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

namespace weft::cuda {
namespace {

enum class Pass : uint8_t { kForward, kBackward, kUnorderedBackward };

// Where cuDNN leads: heads as wide as this, rows of so many queries and of so many keys.
struct Lead {
  int capability;
  Pass pass;
  bool causal;
  int width_min, width_max;
  int64_t tokens_min;
};
// Measured on an H200 in bf16 (docs/PERFORMANCE.md): rows of 512 to 8,192 tokens, 16,384 in all, 16
// heads of 64 and of 128 features. Between those two our kernels take as long as for 128, and
// cuDNN's no longer; what is narrower or shorter was not measured.
constexpr std::array kLeads{
    Lead{90, Pass::kForward, true, 64, 128, 512},
    Lead{90, Pass::kForward, false, 64, 128, 512},
    Lead{90, Pass::kBackward, true, 65, 128, 512},
    Lead{90, Pass::kBackward, false, 65, 128, 512},
    Lead{90, Pass::kUnorderedBackward, true, 64, 64, 512},
    Lead{90, Pass::kUnorderedBackward, false, 64, 64, 512},
    Lead{90, Pass::kUnorderedBackward, true, 65, 128, 2048},
    Lead{90, Pass::kUnorderedBackward, false, 65, 128, 1024},
};

Pass pass_of(const CudnnCall& call) {
  if (!call.backward) return Pass::kForward;
  return call.repeatable ? Pass::kBackward : Pass::kUnorderedBackward;
}

// Other kinds were not measured.
bool is_of_measured_kind(const CudnnCall& call) {
  const AttentionShape& s = call.shape;
  return s.width == s.value_width && call.window_left < 0 &&
         (!call.backward || s.heads == s.key_heads);
}

std::atomic<AttentionMode>& in_force() {
  static std::atomic<AttentionMode> mode = [] {
    const char* variable = std::getenv("WEFT_ATTENTION");
    if (variable == nullptr) return AttentionMode::kMeasured;
    const Result<AttentionMode> wanted = parse_attention_mode(variable);
    if (!wanted) throw StatusError(wanted.error());
    return *wanted;
  }();
  return mode;
}

std::atomic<int64_t> runs{0};

}  // namespace

Result<AttentionMode> parse_attention_mode(std::string_view text) {
  if (text == "own") return AttentionMode::kOwn;
  if (text == "cudnn") return AttentionMode::kCudnn;
  if (text == "unordered") return AttentionMode::kUnordered;
  return fail(Status::invalid("WEFT_ATTENTION", std::string(text),
                              "must be own, cudnn or unordered, or be left out"));
}

AttentionMode attention_mode() { return in_force(); }

void choose_attention(AttentionMode mode) { in_force() = mode; }

bool cudnn_leads(int capability, const CudnnCall& call) {
  if (!is_of_measured_kind(call)) return false;
  const Pass pass = pass_of(call);
  const int width = call.shape.width;
  const int64_t tokens = std::min(call.shape.queries, call.shape.keys);
  return std::any_of(kLeads.begin(), kLeads.end(), [&](const Lead& lead) {
    return lead.capability == capability && lead.pass == pass && lead.causal == call.causal &&
           width >= lead.width_min && width <= lead.width_max && tokens >= lead.tokens_min;
  });
}

int64_t cudnn_runs() { return runs; }
void count_cudnn_run() { ++runs; }

}  // namespace weft::cuda
