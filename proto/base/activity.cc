#include "proto/base/activity.h"

#include <chrono>
#include <string_view>
#include <utility>

namespace weft {
namespace {

double seconds_since(int64_t ns) { return static_cast<double>(Activity::clock_ns() - ns) * 1e-9; }

}  // namespace

std::string place_of(const std::source_location& site) {
  std::string_view file = site.file_name();
  for (const std::string_view top : {"/tests/", "/worker/", "/cluster/", "/kernels/"}) {
    const size_t at = file.rfind(top);
    if (at == std::string_view::npos) continue;
    file.remove_prefix(at + 1);
    break;
  }
  return std::string(file) + ":" + std::to_string(site.line());
}

int64_t Activity::clock_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

Activity::Now Activity::now() const {
  Now now;
  now.step = step_.load(std::memory_order_relaxed);
  now.phase = phase_.load(std::memory_order_relaxed);
  now.layer = layer();
  now.op = op();
  const int64_t since_ns = phase_since_ns_.load(std::memory_order_relaxed);
  if (now.phase != nullptr) now.phase_seconds = seconds_since(since_ns);
  now.progress = progress_.load(std::memory_order_relaxed) + 2 * collectives_.load();
  now.waits = waits_.load(std::memory_order_relaxed) > 0;
  const std::lock_guard lock(mutex_);
  for (const auto& weak : groups_) {
    if (auto group = weak.lock()) now.groups.emplace_back(group, group->calls.load());
  }
  now.in_collective = call_.name != nullptr;
  if (now.in_collective) {
    now.collective = call_;
    now.collective_seconds = seconds_since(call_since_ns_);
    ++now.progress;
  }
  return now;
}

void Activity::add_group(const std::shared_ptr<const RankGroup>& group) {
  const std::lock_guard lock(mutex_);
  std::erase_if(groups_, [](const auto& weak) { return weak.expired(); });
  groups_.push_back(group);
}

void Activity::start_recording(const RecordingHead& head) {
  const std::lock_guard lock(mutex_);
  recorded_ = {};
  recorded_.head = head;
  recording_ = true;
}

Activity::Recording Activity::take_recording() {
  const std::lock_guard lock(mutex_);
  recording_ = false;
  return std::exchange(recorded_, {});
}

std::optional<Activity::Recording> Activity::recording_so_far() const {
  const std::lock_guard lock(mutex_);
  if (!recording_) return std::nullopt;
  Recording so_far = recorded_;
  if (call_.name != nullptr) {
    so_far.spans.push_back({call_.name, call_.group->axis, Lane::kCommunication, -1, call_since_ns_,
                            clock_ns(), call_.bytes});
  }
  return so_far;
}

Activity::Recorded::Recorded(Activity* activity, Lane lane, const char* name, int64_t number,
                             int64_t bytes, const char* detail)
    : activity_(activity) {
  if (activity_ == nullptr) return;
  if (!activity_->recording_.load(std::memory_order_relaxed)) {
    activity_ = nullptr;
    return;
  }
  span_ = {name, detail, lane, number, clock_ns(), 0, bytes};
  if (lane == Lane::kCompute) span_.detail = activity_->phase_.load(std::memory_order_relaxed);
}

Activity::Recorded::~Recorded() {
  if (activity_ == nullptr) return;
  const std::lock_guard lock(activity_->mutex_);
  end();
}

void Activity::Recorded::end() {
  Activity* const activity = std::exchange(activity_, nullptr);
  if (activity == nullptr || !activity->recording_) return;  // it ended after the recording
  span_.end_ns = clock_ns();
  Recording& recorded = activity->recorded_;
  if (recorded.spans.size() == kSpansMax) {
    recorded.truncated = true;
  } else {
    recorded.spans.push_back(span_);
  }
}

Activity::Phase::Phase(Activity* activity, const char* name)
    : activity_(activity), recorded_(activity, Lane::kCompute, name) {
  if (activity_ == nullptr) return;
  before_ = activity_->phase_.exchange(name, std::memory_order_relaxed);
  activity_->phase_since_ns_.store(clock_ns(), std::memory_order_relaxed);
  activity_->tick();
}

Activity::Phase::~Phase() {
  if (activity_ == nullptr) return;
  activity_->phase_.store(before_, std::memory_order_relaxed);
  activity_->phase_since_ns_.store(clock_ns(), std::memory_order_relaxed);
}

// What lies outside of the layers has no line of its own.
Activity::Layer::Layer(Activity* activity, int layer)
    : activity_(activity),
      recorded_(layer < 0 ? nullptr : activity, Lane::kCompute, "layer", layer) {
  if (activity_ != nullptr) before_ = activity_->layer_.exchange(layer, std::memory_order_relaxed);
}

Activity::Layer::~Layer() {
  if (activity_ != nullptr) activity_->layer_.store(before_, std::memory_order_relaxed);
}

Activity::Wait::Wait(Activity* activity)
    : activity_(activity), recorded_(activity, Lane::kCompute, kWaitSpan) {
  if (activity_ != nullptr) ++activity_->waits_;
}

Activity::Wait::~Wait() {
  if (activity_ != nullptr) --activity_->waits_;
}

Activity::Collective::Collective(Activity& activity, CollectiveCall call)
    : activity_(activity),
      recorded_(&activity, Lane::kCommunication, call.name, -1, call.bytes, call.group->axis) {
  const std::lock_guard lock(activity_.mutex_);
  activity_.call_ = std::move(call);
  activity_.call_since_ns_ = clock_ns();
}

// It is the present call or a span that was kept, whenever somebody asks: both change at once.
Activity::Collective::~Collective() {
  const std::lock_guard lock(activity_.mutex_);
  recorded_.end();
  activity_.call_.name = nullptr;
  ++activity_.collectives_;
}

}  // namespace weft
