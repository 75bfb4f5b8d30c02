// Full disks: a job whose ranks, or whose coordinator, have no room for a chunk says so.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "cluster/chunks/chunk_store.h"
#include "coordinator/launcher/supervisor.h"
#include "proto/base/disk.h"

namespace weft {
namespace {

std::string utc(int64_t ms) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(ms / 1000)));
}

}  // namespace

void Supervisor::note_room(const std::string& place, int64_t free_bytes, int64_t bytes, bool full) {
  const bool room = free_bytes >= kept_free(bytes) + kChunkBytesMax;
  if (bytes <= 0 || (room && !full)) {  // 0: nothing is known of it
    full_.erase(place);
    return;
  }
  FullDisk& disk = full_[place];
  if (disk.since_ms == 0) disk.since_ms = parts_.clock.wall_ms();
  disk.text = fmt::format("{} ({} of {} MiB free)",
                          place.empty() ? "the coordinator's machine" : "node " + place,
                          free_bytes >> 20, bytes >> 20);
}

void Supervisor::check_room() {
  next_room_ = now() + seconds(1);
  for (const auto& [name, node] : nodes_) {
    note_room(name, node.info.disk_free_bytes(), node.info.disk_bytes());
  }
  std::error_code error;
  const auto space = std::filesystem::space(options_.data_folder, error);
  if (!error) {
    note_room("", static_cast<int64_t>(space.available), static_cast<int64_t>(space.capacity),
              parts_.content.full());
  }
  if (full_.contains("")) next_collect_ = now();  // what is removed makes room at once
  for (const auto& [id, active] : active_) {
    std::vector<std::string> places = active.nodes;
    places.emplace_back();
    std::string text;
    int64_t since_ms = 0;
    for (const std::string& place : places) {
      const auto disk = full_.find(place);
      if (disk == full_.end()) continue;
      text += (text.empty() ? "" : ", ") + disk->second.text;
      since_ms = since_ms == 0 ? disk->second.since_ms : std::min(since_ms, disk->second.since_ms);
    }
    if (!text.empty()) text = "disk full on " + text + ": waiting for room since " + utc(since_ms);
    parts_.store.set_stall(id, text);
  }
}

}  // namespace weft
