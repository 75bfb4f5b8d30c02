#include "worker/optimizer/unit_gate.h"

#include <utility>

namespace weft {

UnitGate::UnitGate(Rank& rank, AdamW& optimizer) : rank_(rank), optimizer_(optimizer) {}

void UnitGate::open(int64_t unit, std::optional<int64_t> next) {
  if (open_ && open_->unit == unit) return;
  std::optional<Gathered> wanted = std::exchange(coming_, std::nullopt);
  if (wanted && wanted->unit != unit) {
    for (Pending& pending : wanted->pending) pending.wait();
    wanted.reset();
  }
  if (open_) hide(*open_);
  open_.reset();
  if (!wanted) wanted = start(unit);
  WEFT_CHECK(wanted.has_value(), "no parameters in unit {}", unit);
  if (next) coming_ = start(*next);
  show(*wanted);
  open_ = std::move(wanted);
}

void UnitGate::close() {
  if (coming_) {
    for (Pending& pending : coming_->pending) pending.wait();
  }
  coming_.reset();
  if (open_) hide(*open_);
  open_.reset();
}

std::optional<UnitGate::Gathered> UnitGate::start(int64_t unit) {
  Gathered gathered;
  gathered.unit = unit;
  const auto& buckets = optimizer_.buckets().all();
  for (size_t b = 0; b < buckets.size(); ++b) {
    if (buckets[b].unit != unit || !optimizer_.gathers(b)) continue;
    gathered.buckets.push_back(b);
    const DType dtype = optimizer_.values_dtype();
    const int64_t places = buckets[b].place_of(buckets[b].elements, dtype);
    gathered.flats.push_back(Tensor::empty(*rank_.allocator, {places}, dtype));
    gathered.pending.push_back(optimizer_.gather(b, gathered.flats.back()));
  }
  if (gathered.buckets.empty()) return std::nullopt;
  return gathered;
}

void UnitGate::show(Gathered& gathered) {
  for (Pending& pending : gathered.pending) pending.wait();
  for (size_t i = 0; i < gathered.buckets.size(); ++i) {
    const Bucket& bucket = optimizer_.buckets().all()[gathered.buckets[i]];
    for (const Bucket::Entry& entry : bucket.entries) {
      const Tensor& value = optimizer_.parameters()[entry.parameter].value;
      value.rebind(values_of(gathered.flats[i], bucket, entry, value.shape()));
    }
  }
}

void UnitGate::hide(Gathered& gathered) {
  for (const size_t bucket : gathered.buckets) {
    for (const Bucket::Entry& entry : optimizer_.buckets().all()[bucket].entries) {
      const Tensor& value = optimizer_.parameters()[entry.parameter].value;
      value.rebind(without_memory(*rank_.allocator, value.shape(), value.dtype()));
    }
  }
}

}  // namespace weft
