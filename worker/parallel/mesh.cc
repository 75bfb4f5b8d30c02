#include "worker/parallel/mesh.h"

#include <fmt/format.h>

#include <algorithm>

namespace weft {

Part common_part(const Part& a, const Part& b) {
  const int64_t start = std::max(a.start, b.start);
  const int64_t end = std::min(a.start + a.length, b.start + b.length);
  return {start, std::max<int64_t>(0, end - start)};
}

Part part_of(int64_t whole, int count, int index) {
  WEFT_CHECK(whole >= 0 && count >= 1 && index >= 0 && index < count, "part {} of {} of {}", index,
             count, whole);
  const int64_t each = whole / count, rest = whole % count;
  const auto start = [&](int64_t i) { return i * each + (i * rest + count - 1) / count; };
  return {start(index), start(index + 1) - start(index)};
}

int part_with(int64_t whole, int count, int64_t element) {
  WEFT_CHECK(element >= 0 && element < whole, "element {} of {}", element, whole);
  return static_cast<int>(element * count / whole);
}

Result<Mesh> Mesh::create(std::unique_ptr<Communicator> world, MeshDegrees degrees) {
  const auto text = fmt::format("data {} x sequence {} x tensor {}", degrees.data, degrees.sequence,
                                degrees.tensor);
  if (degrees.data < 1 || degrees.sequence < 1 || degrees.tensor < 1) {
    return fail(Status::invalid("parallel", text, "every degree must be at least 1"));
  }
  if (degrees.world() != world->size()) {
    return fail(Status::invalid("parallel", text,
                                fmt::format("the product must be the {} ranks", world->size())));
  }
  if (degrees.ulysses < 1 || degrees.sequence % degrees.ulysses != 0) {
    return fail(Status::invalid(
        "parallel.ulysses", std::to_string(degrees.ulysses),
        "must divide the degree of the sequence axis, " + std::to_string(degrees.sequence)));
  }
  Mesh mesh;
  mesh.degrees_ = degrees;
  mesh.world_ = std::move(world);
  mesh.divide_replicas(degrees.data, degrees.sequence);
  mesh.divide_sequence(degrees.ulysses);
  return mesh;
}

void Mesh::divide_replicas(int data, int sequence) {
  WEFT_CHECK(data * sequence == degrees_.data * degrees_.sequence, "{} x {} of {} x {}", data,
             sequence, degrees_.data, degrees_.sequence);
  degrees_.data = data;
  degrees_.sequence = sequence;
  const int rank = world_->rank();
  const int t = rank % degrees_.tensor;
  const int s = rank / degrees_.tensor % sequence;
  const int d = rank / degrees_.tensor / sequence;
  key_heads_.reset();
  tensor_ = world_->split(d * sequence + s, t, "tensor");
  sequence_ = world_->split(d * degrees_.tensor + t, s, "sequence");
  data_ = world_->split(s * degrees_.tensor + t, d, "data");
  replica_ = world_->split(t, d * sequence + s, "replica");
  divide_sequence(1);
}

void Mesh::divide_sequence(int ulysses) {
  WEFT_CHECK(ulysses >= 1 && degrees_.sequence % ulysses == 0, "{} of {} ranks exchange heads",
             ulysses, degrees_.sequence);
  degrees_.ulysses = ulysses;
  const int index = sequence_->rank();
  ulysses_ = sequence_->split(index / ulysses, index % ulysses, "ulysses");
  ring_ = sequence_->split(index % ulysses, index / ulysses, "ring");
}

void Mesh::share_heads(Part keys) {
  const int rank = tensor_->rank(), alone = tensor_->size() + rank;
  WEFT_CHECK(keys.start < tensor_->size(), "heads of keys from {}", keys.start);
  key_heads_ =
      tensor_->split(keys.length > 0 ? static_cast<int>(keys.start) : alone, rank, "heads");
}

Communicator& Mesh::axis(Axis axis) const {
  switch (axis) {
    case Axis::kData:
      return *data_;
    case Axis::kSequence:
      return *sequence_;
    case Axis::kTensor:
      return *tensor_;
    case Axis::kReplica:
      return *replica_;
    case Axis::kWorld:
      return *world_;
    case Axis::kRing:
      return *ring_;
    case Axis::kUlysses:
      return *ulysses_;
    case Axis::kKeyHeads:
      return *key_heads_;
  }
  WEFT_CHECK(false, "axis {}", static_cast<int>(axis));
}

}  // namespace weft
