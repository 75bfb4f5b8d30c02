// Scores by distance and segment and their gradients against their definition in float64. What
// products fill up, and what of them a query has no key for, is NaN.
#include <limits>

#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kScale = 0.3;

struct Relative {
  int64_t rows, heads, queries, keys, features;
  bool placed, segmented;
  int64_t pairs() const { return rows * heads; }
  int64_t distances() const { return (placed ? keys : queries) + keys - 1; }
  int64_t width() const { return distances() + 3; }
  int64_t product_features() const { return features + 2; }
};
std::vector<Relative> relatives() {
  return {{1, 1, 1, 1, 1, false, true},    {2, 3, 5, 5, 4, false, true},
          {0, 2, 3, 3, 2, false, true},    {3, 2, 7, 11, 33, false, false},
          {2, 2, 13, 2, 70, true, true},   {1, 3, 37, 41, 7, true, true},
          {2, 1, 3, 100, 32, false, true}, {2, 2, 6, 9, 3, true, false}};
}

std::vector<int64_t> some_of(int64_t n, int64_t bound, uint64_t seed) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < n; ++i) {
    const double uniform = static_cast<double>(uniform_at({seed, 5}, static_cast<uint64_t>(i)));
    numbers.push_back(static_cast<int64_t>(uniform * static_cast<double>(bound)));
  }
  return numbers;
}

size_t at(int64_t i) { return static_cast<size_t>(i); }

// Inputs, of which the kernels get some pairs after the other.
template <typename T>
struct RelativeData {
  explicit RelativeData(const Relative& relative, DeviceMemory& memory)
      : r(relative),
        q(rounded<T>(random_values(r.pairs() * r.queries * r.features, 101))),
        bias(rounded<T>(random_values(r.heads * r.features, 102))),
        vectors(rounded<T>(random_values(2 * r.heads * r.features, 103))),
        places(some_of(r.rows * r.queries, r.keys, 104)),
        of_queries(some_of(r.rows * r.queries, 3, 105)),
        of_keys(some_of(r.rows * r.keys, 3, 106)) {
    if (r.placed && r.rows > 0) places[1] = r.keys;  // that query stands nowhere
    pairs = {0,
             0,
             r.heads,
             r.queries,
             r.keys,
             r.features,
             r.width(),
             r.product_features(),
             r.placed ? memory.input(places) : nullptr,
             static_cast<float>(kScale)};
    if (!r.segmented) return;
    segments = {memory.input(as<T>(q)), memory.input(as<T>(bias)), memory.input(as<T>(vectors)),
                memory.input(of_queries), memory.input(of_keys)};
  }

  bool stands(int64_t row, int64_t query) const {
    return !r.placed || places[at(row * r.queries + query)] < r.keys;
  }
  int64_t first(int64_t row, int64_t query) const {
    return r.placed ? r.keys - 1 - places[at(row * r.queries + query)] : r.queries - 1 - query;
  }
  int64_t kind(int64_t row, int64_t query, int64_t key) const {
    return of_queries[at(row * r.queries + query)] == of_keys[at(row * r.keys + key)] ? 0 : 1;
  }
  double moved(int64_t pair, int64_t query, int64_t d) const {
    return static_cast<double>(q[at((pair * r.queries + query) * r.features + d)]) +
           static_cast<double>(bias[at(pair % r.heads * r.features + d)]);
  }
  double vector(int64_t kind, int64_t pair, int64_t d) const {
    return static_cast<double>(vectors[at((kind * r.heads + pair % r.heads) * r.features + d)]);
  }
  // Two parts of the pairs.
  template <typename Use>
  void for_parts(const Use& use) {
    for (const int64_t count : {r.pairs() / 2, r.pairs() - r.pairs() / 2}) {
      pairs.count = count;
      use();
      pairs.first += count;
    }
    pairs.first = 0;
  }

  const Relative r;
  const std::vector<float> q, bias, vectors;
  std::vector<int64_t> places, of_queries, of_keys;
  RelativePairs pairs;
  RelativeSegments<T> segments{};
};

template <typename T>
std::string check_scores_of(const Relative& r, const TypedKernels<T>& kernels) {
  DeviceMemory memory;
  RelativeData<T> data(r, memory);
  std::vector<float> products = random_values(r.pairs() * r.queries * r.width(), 107);
  std::vector<double> expected;
  for (int64_t pair = 0; pair < r.pairs(); ++pair) {
    const int64_t row = pair / r.heads;
    for (int64_t query = 0; query < r.queries; ++query) {
      float* of_query = products.data() + (pair * r.queries + query) * r.width();
      const int64_t first = data.first(row, query);
      for (int64_t key = 0; key < r.keys; ++key) {
        double score = data.stands(row, query) ? static_cast<double>(of_query[first + key])
                                               : static_cast<double>(kNan);
        for (int64_t d = 0; d < r.features && r.segmented; ++d) {
          score += data.moved(pair, query, d) * data.vector(data.kind(row, query, key), pair, d);
        }
        expected.push_back(kScale * score);
      }
      for (int64_t i = 0; i < r.width(); ++i) {
        if (i < first || i >= first + r.keys) of_query[i] = kNan;
      }
    }
  }
  T* scores = memory.output<T>(r.pairs() * r.queries * r.keys);
  data.for_parts([&] {
    const auto begin = products.begin() + data.pairs.first * r.queries * r.width();
    const std::vector<float> part(begin, begin + data.pairs.count * r.queries * r.width());
    kernels.relative_scores(data.pairs, data.segments, memory.input(part), scores, nullptr);
  });
  return first_of({differs("scores", scores, expected, near<T>(2e-6)), memory.violation()});
}

template <typename T>
std::string check_by_distance_of(const Relative& r, const TypedKernels<T>& kernels) {
  DeviceMemory memory;
  RelativeData<T> data(r, memory);
  const std::vector<float> slopes = rounded<T>(random_values(r.pairs() * r.queries * r.keys, 108));
  const T* dscores = memory.input(as<T>(slopes));
  std::string finding;
  data.for_parts([&] {
    std::vector<double> expected(at(data.pairs.count * r.queries * r.width()));
    std::vector<double> expected_sums(at(r.segmented ? data.pairs.count * r.queries * 2 : 0));
    for (int64_t i = 0; i < data.pairs.count * r.queries; ++i) {
      const int64_t pair = data.pairs.first + i / r.queries, query = i % r.queries;
      const int64_t row = pair / r.heads;
      for (int64_t key = 0; key < r.keys; ++key) {
        const double d = static_cast<double>(slopes[at((pair * r.queries + query) * r.keys + key)]);
        if (data.stands(row, query)) {
          expected[at(i * r.width() + data.first(row, query) + key)] = d;
        }
        if (r.segmented) expected_sums[at(i * 2 + data.kind(row, query, key))] += d;
      }
    }
    T* by_distance = memory.output<T>(std::ssize(expected));
    float* sums = memory.output<float>(std::ssize(expected_sums));
    kernels.relative_by_distance(data.pairs, data.segments, dscores, by_distance, sums, nullptr);
    finding = first_of({finding, differs("by distance", by_distance, expected, 0),
                        differs("sums by segment", sums, expected_sums, 1e-6)});
  });
  return first_of({finding, memory.violation()});
}

template <typename T>
std::string check_queries_of(const Relative& r, const TypedKernels<T>& kernels) {
  DeviceMemory memory;
  RelativeData<T> data(r, memory);
  const int64_t vectors = r.pairs() * r.features, queries = r.pairs() * r.queries;
  std::vector<float> products = random_values(queries * r.product_features(), 109);
  const std::vector<float> sums = random_values(queries * 2, 110);
  std::vector<double> dq, position(at(vectors)), segment(at(vectors)), segments(at(2 * vectors));
  for (int64_t pair = 0; pair < r.pairs(); ++pair) {
    for (int64_t query = 0; query < r.queries; ++query) {
      const int64_t i = pair * r.queries + query;
      for (int64_t d = 0; d < r.features; ++d) {
        const double by_distance = static_cast<double>(products[at(i * r.product_features() + d)]);
        double by_segment = 0;
        for (int64_t kind = 0; kind < 2 && r.segmented; ++kind) {
          const double sum = static_cast<double>(sums[at(i * 2 + kind)]);
          by_segment += sum * data.vector(kind, pair, d);
          segments[at((pair * 2 + kind) * r.features + d)] +=
              kScale * sum * data.moved(pair, query, d);
        }
        dq.push_back(kScale * (by_distance + by_segment));
        position[at(pair * r.features + d)] += kScale * by_distance;
        segment[at(pair * r.features + d)] += kScale * by_segment;
      }
      for (int64_t d = r.features; d < r.product_features(); ++d) {
        products[at(i * r.product_features() + d)] = kNan;
      }
    }
  }
  T* got = memory.output<T>(queries * r.features);
  const RelativeVectors out{memory.output<float>(vectors), memory.output<float>(vectors),
                            memory.output<float>(2 * vectors)};
  data.for_parts([&] {
    const auto part = [&](const std::vector<float>& all, int64_t each) {
      const auto begin = all.begin() + data.pairs.first * r.queries * each;
      return std::vector<float>(begin, begin + data.pairs.count * r.queries * each);
    };
    kernels.relative_queries(data.pairs, data.segments,
                             memory.input(part(products, r.product_features())),
                             memory.input(part(sums, 2)), got, out, nullptr);
  });
  if (!r.segmented) segment = segments = {};
  return first_of({differs("dq", got, dq, near<T>(2e-6)),
                   differs("dv", out.position, position, 1e-5),
                   differs("ds", out.segment, segment, 1e-5),
                   differs("dg", out.segments, segments, 1e-5), memory.violation()});
}

}  // namespace

std::string check_relative(const KernelSet& set) {
  for (const Relative& relative : relatives()) {
    const std::string finding = of_types([&]<typename T>() {
      const TypedKernels<T>& kernels = set.typed<T>();
      return first_of({check_scores_of<T>(relative, kernels),
                       check_by_distance_of<T>(relative, kernels),
                       check_queries_of<T>(relative, kernels)});
    });
    if (!finding.empty()) return finding;
  }
  return "";
}

}  // namespace weft::cuda
