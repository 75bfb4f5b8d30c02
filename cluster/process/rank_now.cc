#include "cluster/process/rank_now.h"

#include <fmt/format.h>

#include <string_view>

namespace weft {
namespace {

const char* text(const char* name) { return name == nullptr ? "" : name; }

// The same number on every rank of the group: FNV-1a, as many bits as a JSON number keeps.
uint64_t id_of(const RankGroup& group) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&](uint64_t value) { hash = (hash ^ value) * 0x100000001b3; };
  for (const char letter : std::string_view(group.axis)) add(static_cast<unsigned char>(letter));
  for (const int rank : group.ranks) add(static_cast<uint64_t>(rank) + 256);
  return hash & ((uint64_t{1} << 53) - 1);
}

void fill(const CollectiveCall& call, double seconds, proto::CollectiveNow& now) {
  now.set_name(call.name);
  now.set_axis(call.group->axis);
  if (call.group->axis != std::string_view("world")) {
    now.mutable_ranks()->Assign(call.group->ranks.begin(), call.group->ranks.end());
  }
  now.set_number(call.number);
  now.set_elements(call.elements);
  now.set_bytes(call.bytes);
  now.set_dtype(call.dtype);
  now.set_site(place_of(call.site));
  now.set_op(text(call.op));
  if (call.layer >= 0) now.set_layer(call.layer);
  now.set_seconds(seconds);
  now.set_group(id_of(*call.group));
}

std::string bytes_text(int64_t bytes) {
  if (bytes >= int64_t{1} << 20) return fmt::format("{:.1f} MiB", double(bytes) / (1 << 20));
  if (bytes >= int64_t{1} << 10) return fmt::format("{:.1f} KiB", double(bytes) / (1 << 10));
  return fmt::format("{} bytes", bytes);
}

std::string place_text(const proto::RankNow& now) {
  std::string text;
  if (!now.phase().empty()) text += " in " + now.phase();
  if (now.has_layer()) text += fmt::format(" of layer {}", now.layer());
  if (!now.op().empty()) text += fmt::format(", op {}", now.op());
  return text;
}

std::string collective_text(const proto::CollectiveNow& call) {
  std::string text = call.name();
  if (!call.dtype().empty())
    text += fmt::format(" of {} {}", bytes_text(call.bytes()), call.dtype());
  text += fmt::format(" on the {} axis (", call.axis());
  if (call.ranks().empty()) {
    text += "all ranks";
  } else {
    text += fmt::format("ranks {}", fmt::join(call.ranks(), ", "));
  }
  return text + fmt::format("; call {}) at {}", call.number(), call.site());
}

}  // namespace

proto::RankNow rank_now(const Activity::Now& now, int rank) {
  proto::RankNow told;
  told.set_rank(rank);
  told.set_step(now.step);
  told.set_phase(text(now.phase));
  told.set_phase_seconds(now.phase_seconds);
  if (now.layer >= 0) told.set_layer(now.layer);
  told.set_op(text(now.op));
  told.set_progress(now.progress);
  if (now.in_collective) fill(now.collective, now.collective_seconds, *told.mutable_collective());
  told.set_waits(now.waits);
  for (const auto& [group, calls] : now.groups) {
    proto::GroupCalls* begun = told.add_groups();
    begun->set_group(id_of(*group));
    begun->set_calls(calls);
  }
  return told;
}

bool is_halted(const proto::RankNow& now) {
  return now.process() == "stopped" || now.process() == "gone";
}

std::string describe(const proto::RankNow& now) {
  const bool ended = is_halted(now);
  std::string text = fmt::format("rank {}", now.rank());
  if (ended) text += fmt::format(" is {} (process {})", now.process(), now.pid());
  if (now.has_collective()) {
    text += ended ? " in " : fmt::format(" waits since {:.0f} s in ", now.collective().seconds());
    text += collective_text(now.collective()) + fmt::format(", step {}", now.step());
  } else {
    text += fmt::format("{} at step {}", ended ? "" : " is", now.step());
  }
  return text + place_text(now);
}

}  // namespace weft
