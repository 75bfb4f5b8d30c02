#include "kernels/cpu/gemm_choice.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <optional>
#include <vector>

#include "kernels/cpu/gemm_libraries.h"
#include "kernels/cpu/level.h"

namespace weft::cpu {
namespace {

constexpr std::array<std::string_view, kGemmClasses> kClassNames{"large", "small", "thin", "bf16"};
constexpr std::array<std::string_view, 4> kLibraryNames{"openblas", "onednn", "widened", "pairs"};
constexpr std::string_view kMeasure = "measure";
constexpr int kRuns = 5;
constexpr double kLead = 1.25;
constexpr int64_t kSmallMax = int64_t{1} << 19, kThinMax = 8;

// By class; measured in its order, kLarge first, which the measure of kBf16 uses.
std::array<std::atomic<GemmLibrary>, kGemmClasses> in_force;

template <size_t N>
std::optional<size_t> find(const std::array<std::string_view, N>& names, std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return static_cast<size_t>(found - names.begin());
}

// The libraries that compete for a class; the first is known to lead. The code that oneDNN
// generates leads wherever there is AVX-512, but of small products on Zen 4, which runs it in
// halves (docs/PERFORMANCE.md, "Products").
std::vector<GemmLibrary> candidates(GemmClass which) {
  if (which == GemmClass::kBf16) {
    if (level() == Level::kBf16) return {GemmLibrary::kPairs, GemmLibrary::kOneDnn};
    if (!onednn_has_avx512()) return {GemmLibrary::kWidened};
    if (!onednn_has_avx512_bf16()) return {GemmLibrary::kWidened, GemmLibrary::kOneDnn};
    return {GemmLibrary::kOneDnn, GemmLibrary::kWidened};
  }
  const bool family_of_zen4 = __builtin_cpu_is("amdfam19h") != 0;
  if (!onednn_has_avx512() || (family_of_zen4 && which == GemmClass::kSmall)) {
    return {GemmLibrary::kOpenBlas, GemmLibrary::kOneDnn};
  }
  return {GemmLibrary::kOneDnn, GemmLibrary::kOpenBlas};
}

bool can(GemmLibrary library, GemmClass which) {
  if (library == GemmLibrary::kOneDnn) return true;
  return (library == GemmLibrary::kOpenBlas) == (which != GemmClass::kBf16);
}

void run(GemmLibrary library, const Product<float>& product) {
  library == GemmLibrary::kOneDnn ? multiply_onednn(product) : multiply_openblas(product);
}
template <typename Out>
void run(GemmLibrary library, const Product<bfloat16, Out>& product) {
  if (library == GemmLibrary::kPairs) return multiply_pairs(product);
  library == GemmLibrary::kOneDnn ? multiply_onednn(product)
                                  : multiply_widened(product, in_force[0]);
}

template <typename T>
GemmLibrary fastest(const std::vector<GemmLibrary>& libraries, const Product<T, float>& product,
                    int repeats) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> best(libraries.size(), std::numeric_limits<double>::infinity());
  for (int round = -1; round < kRuns; ++round) {  // round -1 warms up
    for (size_t i = 0; i < libraries.size(); ++i) {
      const auto start = Clock::now();
      for (int repeat = 0; repeat < repeats; ++repeat) run(libraries[i], product);
      const double took = std::chrono::duration<double>(Clock::now() - start).count();
      if (round >= 0) best[i] = std::min(best[i], took);
    }
  }
  size_t chosen = 0;
  for (size_t i = 1; i < libraries.size(); ++i) {
    if (best[i] * kLead < best[chosen]) chosen = i;
  }
  return libraries[chosen];
}

template <typename T>
GemmLibrary measure(const std::vector<GemmLibrary>& libraries, int64_t m, int64_t n, int64_t k,
                    int repeats) {
  if (libraries.size() == 1) return libraries.front();
  const std::vector<T> a(static_cast<size_t>(m * k), T(0.5F)),
      b(static_cast<size_t>(k * n), T(0.5F));
  std::vector<float> out(static_cast<size_t>(m * n));
  return fastest<T>(
      libraries, {m, n, k, {a.data(), k, false}, {b.data(), n, false}, out.data(), n, false, 1.0F},
      repeats);
}

GemmLibrary measure(GemmClass which) {
  switch (which) {
    case GemmClass::kLarge:
      return measure<float>(candidates(which), 256, 384, 768, 1);
    case GemmClass::kSmall:
      return measure<float>(candidates(which), 64, 64, 64, 64);
    case GemmClass::kThin:
      return measure<float>(candidates(which), 1, 768, 768, 16);
    case GemmClass::kBf16:
      return measure<bfloat16>(candidates(which), 256, 384, 768, 1);
  }
  return GemmLibrary::kOpenBlas;
}

// The parts of "class=library,..." into `libraries`.
Status read_parts(std::string_view text,
                  std::array<std::optional<GemmLibrary>, kGemmClasses>& libraries) {
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), part.size() + 1));
    const size_t equals = std::min(part.find('='), part.size());
    const auto which = find(kClassNames, part.substr(0, equals));
    const auto library = find(kLibraryNames, part.substr(std::min(part.size(), equals + 1)));
    if (!which || !library ||
        !can(static_cast<GemmLibrary>(*library), static_cast<GemmClass>(*which))) {
      return Status::invalid("WEFT_GEMM", std::string(part),
                             "must be measure, or parts: large, small or thin, then = and "
                             "openblas or onednn; bf16= and onednn, widened or pairs");
    }
    libraries[*which] = static_cast<GemmLibrary>(*library);
  }
  return {};
}

bool available(GemmLibrary library) {
  return library == GemmLibrary::kPairs ? supported(Level::kBf16) : onednn_has_avx512();
}

void put_in_force(size_t which, GemmLibrary library) {
  const bool bf16 = which == static_cast<size_t>(GemmClass::kBf16);
  in_force[which] = bf16 && !available(library) ? GemmLibrary::kWidened : library;
}

void decide_once() {
  static const bool decided = [] {
    std::array<std::optional<GemmLibrary>, kGemmClasses> wanted;
    const char* variable = std::getenv("WEFT_GEMM");
    const std::string_view text = variable == nullptr ? "" : variable;
    const bool measured = text == kMeasure;
    const Status status = read_parts(measured ? "" : text, wanted);
    if (!status.ok()) throw StatusError(status);
    for (size_t i = 0; i < kGemmClasses; ++i) {
      const auto which = static_cast<GemmClass>(i);
      put_in_force(i, wanted[i]  ? *wanted[i]
                      : measured ? measure(which)
                                 : candidates(which).front());
    }
    return true;
  }();
  (void)decided;
}

GemmLibrary library_of(GemmClass which) {
  decide_once();
  return in_force[static_cast<size_t>(which)].load(std::memory_order_relaxed);
}

std::atomic<int64_t> operations{0};

template <typename T, typename Out>
void count(const Product<T, Out>& p) {
  operations.fetch_add(2 * p.m * p.n * p.k, std::memory_order_relaxed);
}

}  // namespace

GemmClass gemm_class(int64_t m, int64_t n, int64_t k) {
  if (std::min(m, n) < kThinMax) return GemmClass::kThin;
  return m * n <= kSmallMax / k ? GemmClass::kSmall : GemmClass::kLarge;
}

std::string to_string(const GemmChoice& choice) {
  std::string text;
  for (size_t i = 0; i < kGemmClasses; ++i) {
    if (i > 0) text += ',';
    text += kClassNames[i];
    text += '=';
    text += kLibraryNames[static_cast<size_t>(choice.libraries[i])];
  }
  return text;
}

Result<GemmChoice> parse_gemm_choice(std::string_view text, const GemmChoice& rest) {
  std::array<std::optional<GemmLibrary>, kGemmClasses> parts;
  const Status status = read_parts(text, parts);
  if (!status.ok()) return fail(status);
  GemmChoice choice = rest;
  for (size_t i = 0; i < kGemmClasses; ++i) {
    if (parts[i]) choice.libraries[i] = *parts[i];
  }
  return choice;
}

GemmChoice gemm_choice() {
  decide_once();
  GemmChoice choice;
  for (size_t i = 0; i < kGemmClasses; ++i) choice.libraries[i] = in_force[i];
  return choice;
}

void choose_gemm(const GemmChoice& choice) {
  decide_once();
  for (size_t i = 0; i < kGemmClasses; ++i) put_in_force(i, choice.libraries[i]);
}

void multiply(const Product<float>& p) {
  count(p);
  run(library_of(gemm_class(p.m, p.n, p.k)), p);
}
void multiply(const Product<double>& p) {
  count(p);
  multiply_openblas(p);
}
void multiply(const Product<bfloat16, float>& p) {
  count(p);
  run(library_of(GemmClass::kBf16), p);
}
int64_t multiplied() { return operations.load(std::memory_order_relaxed); }
void multiply(const Product<bfloat16>& p) {
  count(p);
  run(library_of(GemmClass::kBf16), p);
}

}  // namespace weft::cpu
