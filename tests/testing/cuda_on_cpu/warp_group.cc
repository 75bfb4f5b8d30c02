#include "tests/testing/cuda_on_cpu/warp_group.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/testing/cuda_on_cpu/traffic.h"

namespace weft::cuda_on_cpu {
namespace {

constexpr int kRowBytes = 128, kBoxFeatures = 64;
constexpr float kNotThere = NAN;

// A thread's sums that products are under way to.
struct Sums {
  float* d;
  std::vector<float> values;
  int products = 0;
};

struct Part {
  GroupProduct product;
  Lanes<std::shared_ptr<Sums>> sums;  // of the warp; filled in for its first thread
  Lanes<const uint32_t*> registers;
};

void gather_parts(void* const* parts, unsigned, const Where& where) {
  const GroupProduct& first = static_cast<const Part*>(parts[0])->product;
  for (unsigned i = 0; i < kGroupThreads; ++i) {
    const auto* part = static_cast<const Part*>(parts[i]);
    const GroupProduct& own = part->product;
    if (own.a != first.a || own.b != first.b || own.accumulate != first.accumulate ||
        own.columns != first.columns) {
      throw Fault(line_of(where) + ": thread " + std::to_string(i) +
                  " of a group has another product than the first");
    }
    auto* warp = static_cast<Part*>(parts[i / 32 * 32]);
    warp->sums[i % 32] = part->sums[i % 32];
    warp->registers[i % 32] = own.registers;
  }
}

void check_matrix(uint64_t matrix, bool by_lines, int lines, const Where& where) {
  const MatrixView view = matrix_view(matrix);
  if (view.swizzle != 1)
    throw Fault(line_of(where) + ": a matrix that is not swizzled by 128 bytes");
  for (const int line : {0, lines - 1}) {
    for (const int k : {0, 15}) {
      check_shared(
          static_cast<std::byte*>(dynamic_shared()) + element_address(view, by_lines, line, k), 2,
          where);
    }
  }
}

// Of the running thread: what it had is kept aside.
std::shared_ptr<Sums> sums_under_way(const GroupProduct& product) {
  std::shared_ptr<void>& known = thread_traffic().sums_under_way[product.d];
  auto sums = std::static_pointer_cast<Sums>(known);
  if (sums == nullptr || sums->products == 0) {
    const auto count = static_cast<size_t>(product.columns / 2);
    sums = std::make_shared<Sums>(Sums{product.d, {product.d, product.d + count}});
    std::fill_n(product.d, count, kNotThere);
    known = sums;
  }
  ++sums->products;
  return sums;
}

// Both operands, one behind the other.
std::vector<float> operands_of(const Part& part, int warp) {
  const GroupProduct& p = part.product;
  const auto* shared = static_cast<const std::byte*>(dynamic_shared());
  std::vector<float> values(static_cast<size_t>(16 * 16 + 16 * p.columns));
  if (p.registers != nullptr) {
    gather_left(p.kind, part.registers, values.data());
  } else {
    gather_left(p.kind, shared, matrix_view(p.a), 16 * warp, values.data());
  }
  gather_right(p.kind, shared, matrix_view(p.b), p.registers != nullptr, p.columns,
               values.data() + 16 * 16);
  return values;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void none(void* const*, unsigned, const Where&) {}

}  // namespace

uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(static_cast<const std::byte*>(shared) -
                               static_cast<const std::byte*>(dynamic_shared()));
}

void copy_box(void* to_shared, const cuda::TensorMap& map, const int (&at)[4], void* barrier,
              const Where& where) {
  const MapContents x = contents_of(map);
  if (x.magic != MapContents::kMagic) throw Fault(line_of(where) + ": no tensor map");
  const uint32_t to = shared_address(to_shared);
  if (to % 1024 != 0) throw Fault(line_of(where) + ": a box that is not aligned to 1024 bytes");
  std::vector<std::byte> bytes(static_cast<size_t>(x.box_tokens * kRowBytes));
  const auto inside = [&](int dim, int64_t index) { return index >= 0 && index < x.extents[dim]; };
  for (int64_t token = 0; token < x.box_tokens; ++token) {
    for (int64_t feature = 0; feature < kBoxFeatures; ++feature) {
      const int64_t place[4] = {at[0] + feature, at[1] + token, at[2], at[3]};
      int64_t offset = 0;
      bool there = true;
      for (int dim = 0; dim < 4; ++dim) {
        there = there && inside(dim, place[dim]);
        offset += place[dim] * x.steps[dim];
      }
      if (!there) continue;
      const uint32_t address =
          swizzled_128(to + static_cast<uint32_t>(token * kRowBytes + feature * 2));
      std::memcpy(bytes.data() + (address - to), static_cast<const std::byte*>(x.data) + offset * 2,
                  2);
    }
  }
  copy_bulk(to_shared, std::move(bytes), barrier, where);
}

void group_multiply(const GroupProduct& product, const Where& where) {
  if (!thread_traffic().fenced) throw Fault(line_of(where) + ": a product without a fence before");
  Part part{product, {}, {}};
  part.sums[lane()] = sums_under_way(product);
  meet_in_group(&part, gather_parts, where);
  if (lane() != 0) return;
  if (product.registers == nullptr) check_matrix(product.a, false, 64, where);
  check_matrix(product.b, product.registers != nullptr, product.columns, where);
  const int warp = static_cast<int>(thread_in_block() % kGroupThreads / 32);
  product_start([part, warp, started = operands_of(part, warp)] {
    Lanes<float*> to;
    for (int lane = 0; lane < 32; ++lane) to[lane] = part.sums[lane]->values.data();
    group_multiply_of(part.product.kind, started.data(), started.data() + 16 * 16,
                      part.product.columns, part.product.accumulate, to);
    const bool intact = same(started, operands_of(part, warp));
    for (const std::shared_ptr<Sums>& sums : part.sums) {
      if (!intact) std::fill(sums->values.begin(), sums->values.end(), kNotThere);
      if (--sums->products == 0) std::copy(sums->values.begin(), sums->values.end(), sums->d);
    }
  });
}

void group_fence() { thread_traffic().fenced = true; }

void group_wait(int groups_left, const Where& where) {
  char part = 0;
  meet_in_warp(0xFFFFFFFFU, &part, none, where);
  if (lane() == 0) product_wait(groups_left);
  thread_traffic().fenced = false;
  meet_in_warp(0xFFFFFFFFU, &part, none, where);
}

}  // namespace weft::cuda_on_cpu
