#include "kernels/cuda/attention_choice.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

namespace weft::cuda {
namespace {

// Where cuDNN leads: heads as wide as this, rows of so many keys. docs/PERFORMANCE.md has the
// measurements.
struct Lead {
  int capability;
  bool backward, causal;
  int width_min, width_max;
  int64_t keys_min;
};
constexpr std::array<Lead, 0> kLeads{};

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
  const int width = call.shape.widest();
  return std::any_of(kLeads.begin(), kLeads.end(), [&](const Lead& lead) {
    return lead.capability == capability && lead.backward == call.backward &&
           lead.causal == call.causal && width >= lead.width_min && width <= lead.width_max &&
           call.shape.keys >= lead.keys_min;
  });
}

int64_t cudnn_runs() { return runs; }
void count_cudnn_run() { ++runs; }

}  // namespace weft::cuda
