// What a node's agent and the coordinator would do for the ranks of one attempt, in memory: keeps
// metrics, events, chunks and committed checkpoints, and can fail or ask for something at a step.
//
// Thread safety: every call from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "worker/progress.h"

namespace weft::testing {

// Shared by the ranks of a test, over all its attempts.
struct MemoryCluster {
  std::mutex mutex;
  std::map<std::string, std::string> chunks;
  std::multiset<std::string> puts;  // hashes that were stored
  std::vector<proto::MetricRecord> metrics;
  std::vector<proto::CheckpointManifest> checkpoints;
  std::vector<proto::RankEvent> events;
  std::vector<proto::TrainingStarted> starts;
  std::vector<proto::TrainingFinished> finishes;

  // Sends of later steps are refused, as if the rank were killed, once there is a checkpoint. The
  // threads that write it may come late on a busy machine: those steps leave them the processor.
  int64_t die_after_step = -1;
  int64_t control_at_step = -1;  // `control` is given once this step's metrics have come
  proto::ControlKind control = proto::CONTROL_KIND_UNSPECIFIED;
  int control_times = 1;             // to each rank
  int control_after_calls = 0;       // of take_control, of each rank, which get nothing
  int64_t full_disk_until_step = 0;  // no chunk is stored before
  int64_t event_by_step = 0;         // its metrics wait for the first event; 0: none do
  std::condition_variable told;      // of an event

  int64_t last_step() {
    const std::lock_guard lock(mutex);
    return metrics.empty() ? 0 : metrics.back().step();
  }
  // Training loss by step, of the last attempt that got there.
  std::map<int64_t, double> losses() {
    const std::lock_guard lock(mutex);
    std::map<int64_t, double> by_step;
    for (const proto::MetricRecord& record : metrics) {
      const auto found = record.values().find("loss");
      if (found != record.values().end()) by_step[record.step()] = found->second;
    }
    return by_step;
  }
};

// One rank's.
class MemoryProgress final : public Progress {
 public:
  explicit MemoryProgress(MemoryCluster& cluster) : cluster_(cluster) {}

  Status send(proto::RankEnvelope message) override {
    std::unique_lock lock(cluster_.mutex);
    for (const proto::MetricRecord& record : message.metrics().records()) {
      if (cluster_.die_after_step >= 0 && record.step() > cluster_.die_after_step) {
        if (!cluster_.checkpoints.empty()) return Status(Code::kUnavailable, "killed");
        cluster_.told.wait_for(lock, std::chrono::milliseconds(100));
      }
      if (record.step() == cluster_.event_by_step) {
        cluster_.told.wait(lock, [&] { return !cluster_.events.empty(); });
      }
      cluster_.metrics.push_back(record);
    }
    if (message.has_event()) {
      cluster_.events.push_back(message.event());
      cluster_.told.notify_all();
    }
    if (message.has_started()) cluster_.starts.push_back(message.started());
    if (message.has_finished()) cluster_.finishes.push_back(message.finished());
    if (message.has_checkpoint()) return commit(message.checkpoint().manifest());
    return {};
  }
  Status flush() override { return {}; }

  std::optional<proto::Control> take_control() override {
    if (calls_++ < cluster_.control_after_calls) return std::nullopt;
    const int64_t step = cluster_.last_step();
    if (cluster_.control_at_step < 0 || step < cluster_.control_at_step || step <= given_at_ ||
        given_ == cluster_.control_times) {
      return std::nullopt;
    }
    ++given_;
    given_at_ = step;
    proto::Control control;
    control.set_kind(cluster_.control);
    control.set_request(1);
    return control;
  }

  Status put_chunk(const std::string& hash, std::string_view bytes) override {
    const std::lock_guard lock(cluster_.mutex);
    const int64_t step = cluster_.metrics.empty() ? 0 : cluster_.metrics.back().step();
    if (step < cluster_.full_disk_until_step) {
      return Status(Code::kResourceExhausted, "no space left on device");
    }
    cluster_.puts.insert(hash);
    cluster_.chunks.emplace(hash, bytes);
    return {};
  }

  Result<std::string> get_chunk(const std::string& hash) override {
    const std::lock_guard lock(cluster_.mutex);
    const auto found = cluster_.chunks.find(hash);
    if (found == cluster_.chunks.end()) return fail(Code::kNotFound, "no chunk " + hash);
    return found->second;
  }

 private:
  Status commit(proto::CheckpointManifest manifest) {
    for (const proto::TensorEntry& entry : manifest.tensors()) {
      for (const proto::Tile& tile : entry.tiles()) {
        for (const proto::ChunkRef& chunk : tile.chunks()) {
          if (!cluster_.chunks.contains(chunk.hash())) {
            return Status(Code::kNotFound, "manifest before its chunks");
          }
        }
      }
    }
    manifest.set_id("ckpt-" + std::to_string(cluster_.checkpoints.size() + 1));
    cluster_.checkpoints.push_back(std::move(manifest));
    return {};
  }

  MemoryCluster& cluster_;
  int calls_ = 0, given_ = 0;
  int64_t given_at_ = -1;
};

}  // namespace weft::testing
