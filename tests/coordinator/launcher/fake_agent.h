// A supervisor on simulated time, and agents that are scripted by a test. Frames are delivered at
// once on the calling thread, so every test is deterministic.
#pragma once

#include <gtest/gtest.h>
#include <filesystem>

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "coordinator/coordinator_service.h"
#include "coordinator/launcher/supervisor.h"
#include "proto/base/hash.h"
#include "tests/coordinator/memory_chunks.h"

namespace weft {

// The coordinator's end; what it sends is kept for the test.
class ScriptedChannel final : public Channel {
 public:
  void start(Handlers handlers) override { handlers_ = std::move(handlers); }
  bool send(const proto::NodeFrame& frame) override {
    std::lock_guard lock(mutex_);
    if (!open) return false;
    sent_.push_back(frame);
    return true;
  }
  void close(Status why) override {
    if (!open.exchange(false)) return;
    if (handlers_.on_close) handlers_.on_close(std::move(why));
  }
  size_t queued_bytes() const override { return 0; }
  std::string peer() const override { return "test"; }
  void deliver(proto::NodeFrame frame) {
    if (open) handlers_.on_frame(std::move(frame));
  }

  std::vector<proto::NodeFrame> take(proto::NodeFrame::BodyCase which) {
    std::lock_guard lock(mutex_);
    std::vector<proto::NodeFrame> found;
    std::erase_if(sent_, [&](const auto& frame) {
      if (frame.body_case() != which) return false;
      found.push_back(frame);
      return true;
    });
    return found;
  }

  std::atomic<bool> open = true;

 private:
  Handlers handlers_;
  std::mutex mutex_;  // guards sent_
  std::vector<proto::NodeFrame> sent_;
};

class FakeAgent {
 public:
  FakeAgent(std::string name, int slots) {
    info.set_name(std::move(name));
    info.set_slots(slots);
    info.set_cores(2 * slots);
    info.set_address("127.0.0.1");
    info.set_session(random_hex(4));
  }
  // A new connection; the old one, if any, just goes silent unless `close_old`.
  void connect(Supervisor& supervisor, bool close_old = true) {
    dial(supervisor, close_old);
    supervisor.step();
  }
  void dial(Supervisor& supervisor, bool close_old = true) {
    if (channel && close_old) channel->close({Code::kUnavailable, "gone"});
    channel = std::make_shared<ScriptedChannel>();
    supervisor.accept(channel);
    proto::NodeFrame frame;
    fill(*frame.mutable_hello()->mutable_node(), *frame.mutable_hello()->mutable_running());
    channel->deliver(frame);
  }
  void beat() {
    proto::NodeFrame frame;
    fill(*frame.mutable_heartbeat()->mutable_node(), *frame.mutable_heartbeat()->mutable_running());
    frame.mutable_heartbeat()->mutable_now()->Assign(now.begin(), now.end());
    channel->deliver(frame);
  }
  void prepared(const proto::AttemptRef& ref) {
    running["" + ref.job() + "/" + std::to_string(ref.attempt())] = ref;
    proto::NodeFrame frame;
    *frame.mutable_prepared()->mutable_attempt() = ref;
    channel->deliver(frame);
  }
  void exit(const proto::AttemptRef& ref, int code, const std::string& message) {
    running.erase(ref.job() + "/" + std::to_string(ref.attempt()));
    proto::NodeFrame frame;
    *frame.mutable_exit()->mutable_attempt() = ref;
    frame.mutable_exit()->set_node(info.name());
    frame.mutable_exit()->set_exit_code(code);
    frame.mutable_exit()->set_message(message);
    channel->deliver(frame);
  }
  void rank(const proto::RankEnvelope& envelope) {
    proto::NodeFrame frame;
    *frame.mutable_rank()->mutable_envelope() = envelope;
    channel->deliver(frame);
  }
  std::vector<proto::NodeFrame> take(proto::NodeFrame::BodyCase which) {
    return channel->take(which);
  }

  proto::NodeInfo info;
  std::shared_ptr<ScriptedChannel> channel;
  std::map<std::string, proto::AttemptRef> running;
  std::vector<proto::AttemptNow> now;  // told with each heartbeat

 private:
  void fill(proto::NodeInfo& node, google::protobuf::RepeatedPtrField<proto::AttemptRef>& list) {
    node = info;
    for (const auto& [key, ref] : running) {
      node.add_attempts(key);
      *list.Add() = ref;
    }
  }
};

// Refuses writes while `full` is set; lets them wait from stall() to flow().
class SwitchedDisk final : public KeyValue {
 public:
  explicit SwitchedDisk(std::shared_ptr<KeyValue> bytes = make_memory_key_value())
      : inner_(std::move(bytes)) {}
  Status write(const WriteSet& set) override {
    {
      std::unique_lock lock(mutex_);
      waiting_ = stalled_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return !stalled_; });
      waiting_ = false;
    }
    if (full) return {Code::kResourceExhausted, "disk full"};
    return inner_->write(set);
  }
  void stall() {
    std::lock_guard lock(mutex_);
    stalled_ = true;
  }
  void flow() {
    std::lock_guard lock(mutex_);
    stalled_ = false;
    changed_.notify_all();
  }
  void wait_for_writer() {  // until a write waits
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_; });
  }
  Result<std::optional<std::string>> get(const std::string& key) const override {
    return inner_->get(key);
  }
  Status scan(const std::string& from, const std::string& to,
              const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    return inner_->scan(from, to, visit);
  }
  Result<std::optional<std::pair<std::string, std::string>>> last(
      const std::string& from, const std::string& to) const override {
    return inner_->last(from, to);
  }
  std::shared_ptr<KeyValue> bytes() const { return inner_; }  // what outlives the coordinator
  bool full = false;

 private:
  const std::shared_ptr<KeyValue> inner_;
  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  bool stalled_ = false;
  bool waiting_ = false;
};

class SupervisorTest : public testing::Test {
 protected:
  SupervisorTest() {
    open(std::make_unique<SwitchedDisk>());
    restart();
  }
  void open(std::unique_ptr<SwitchedDisk> disk) {
    disk_ = disk.get();
    store_ = JobStore::open(std::move(disk), clock_).value();
    content_ = std::make_unique<Content>(chunks_, *store_, clock_);
  }
  // The coordinator dies and comes back; the agents' connections are gone.
  void restart(SupervisorOptions options = {}) {
    supervisor_.reset();
    options.data_threads = 0;
    options.secret = "a secret of this test";
    options.data_folder = std::filesystem::temp_directory_path();
    supervisor_ = std::make_unique<Supervisor>(
        Supervisor::Parts{*store_, *content_, clock_, Logger(), &drain_, &inspector_}, options);
  }
  // As restart(), and all that it knew is read anew from the disk's bytes.
  void restart_from_disk() {
    auto disk = std::make_unique<SwitchedDisk>(disk_->bytes());
    supervisor_.reset();
    content_.reset();
    open(std::move(disk));
    restart();
  }
  Result<proto::Job> ask_for_checkpoint(const std::string& id) {
    return CoordinatorService({*store_, *content_, clock_, "", "test"}).checkpoint_now(id);
  }
  void step(double seconds = 0) {
    clock_.advance(std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds)));
    for (int i = 0; i < 3; ++i) supervisor_->step();
  }
  // Time passes while these agents send heartbeats.
  void live(double seconds, std::vector<FakeAgent*> agents) {
    for (double passed = 0; passed < seconds; passed += 1) {
      for (FakeAgent* agent : agents) agent->beat();
      step(1);
    }
  }
  std::string submit(int slots, int nodes = 0, int max_restarts = 5) {
    JobEdit edit;
    edit.job.set_id("job-" + std::to_string(++submitted_));
    edit.job.set_state(proto::JOB_STATE_QUEUED);
    edit.job.set_steps(100);
    edit.job.mutable_spec()->mutable_resources()->set_slots(slots);
    edit.job.mutable_spec()->mutable_resources()->set_nodes(nodes);
    edit.job.mutable_spec()->mutable_checkpoint()->set_keep_last(2);
    edit.job.mutable_spec()->set_max_restarts(max_restarts);
    EXPECT_TRUE(store_->create_job(edit));
    step();
    return edit.job.id();
  }
  void set_state(const std::string& id, proto::JobState state) {
    ASSERT_TRUE(store_->edit_job(id, [&](JobEdit& edit) {
      edit.job.set_state(state);
      edit.event(state_name(state), "info", "by request");
      return Status();
    }));
    step();
  }
  proto::Job job(const std::string& id) { return store_->job(id).value(); }
  static proto::AttemptRef ref(const std::string& id, int attempt) {
    proto::AttemptRef ref;
    ref.set_job(id);
    ref.set_attempt(attempt);
    return ref;
  }
  static proto::RankEnvelope envelope(const std::string& id, int attempt, int rank,
                                      uint64_t sequence) {
    proto::RankEnvelope envelope;
    envelope.set_job(id);
    envelope.set_attempt(attempt);
    envelope.set_rank(rank);
    envelope.set_sequence(sequence);
    return envelope;
  }
  // Prepared by all, started, rank 0 training. The next sequence of rank 0 is 2.
  void bring_up(const std::string& id, int attempt, std::vector<FakeAgent*> agents) {
    for (FakeAgent* agent : agents) {
      ASSERT_EQ(agent->take(proto::NodeFrame::kPrepare).size(), 1u) << agent->info.name();
      agent->prepared(ref(id, attempt));
    }
    step();
    ASSERT_EQ(agents[0]->take(proto::NodeFrame::kStart).size(), 1u);
    auto hello = envelope(id, attempt, 0, 0);
    hello.mutable_hello()->set_pid(42);
    agents[0]->rank(hello);
    auto started = envelope(id, attempt, 0, 1);
    started.mutable_started()->set_steps(100);
    agents[0]->rank(started);
    step();
    ASSERT_EQ(job(id).state(), proto::JOB_STATE_RUNNING);
  }
  void finish(FakeAgent& agent, const std::string& id, int attempt, uint64_t sequence,
              const std::string& outcome) {
    auto finished = envelope(id, attempt, 0, sequence);
    finished.mutable_finished()->set_outcome(outcome);
    finished.mutable_finished()->set_step(100);
    agent.rank(finished);
    step();
  }
  proto::RankEnvelope commit(const std::string& id, int attempt, uint64_t sequence,
                             const std::string& bytes, int64_t at_step) {
    auto message = envelope(id, attempt, 0, sequence);
    auto& manifest = *message.mutable_checkpoint()->mutable_manifest();
    manifest.mutable_state()->set_step(at_step);
    auto& chunk = *manifest.add_tensors()->add_tiles()->add_chunks();
    chunk.set_hash(sha256_hex(bytes));
    chunk.set_size(static_cast<int64_t>(bytes.size()));
    return message;
  }
  std::string last_event(const std::string& id) {
    const auto events = store_->events(id, 0, 1000).value();
    return events.empty() ? "" : events.back().type();
  }

  SimulatedClock clock_{1'000'000};
  Drain drain_{clock_};
  Inspector inspector_{clock_};
  MemoryChunks chunks_;
  SwitchedDisk* disk_ = nullptr;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Content> content_;
  std::unique_ptr<Supervisor> supervisor_;
  int submitted_ = 0;
};

}  // namespace weft
