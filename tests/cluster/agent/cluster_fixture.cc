#include "tests/cluster/agent/cluster_fixture.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "proto/base/check.h"
#include "proto/base/hash.h"

namespace weft::testing {

namespace fs = std::filesystem;

LocalCluster::LocalCluster(int nodes)
    : nodes_(nodes),
      secret_(random_hex(16)),
      coordinator_(std::make_unique<FakeCoordinator>(secret_)) {
  char name[] = "/tmp/weft-test-XXXXXX";
  WEFT_CHECK(::mkdtemp(name) != nullptr);
  folder_ = name;
  ::chmod(name, 0755);
  WEFT_CHECK(write_file(folder_ + "/secret", secret_ + "\n", 0600).ok());
  for (int i = 0; i < nodes; ++i) start_agent(i);
  const bool joined = coordinator_->wait(
      [&] { return coordinator_->hellos.size() == static_cast<size_t>(nodes); });
  WEFT_CHECK(joined, "the agents did not join; see {}", folder_);
}

LocalCluster::~LocalCluster() {
  for (auto& [node, agent] : agents_) (void)agent->signal(SIGTERM);
  for (auto& [node, agent] : agents_) agent->wait();
  std::error_code ignored;
  if (std::getenv("WEFT_TEST_KEEP") == nullptr) fs::remove_all(folder_, ignored);
}

void LocalCluster::start_agent(int index, const std::vector<std::string>& more) {
  const std::string bin = fs::path(own_program()).parent_path().string() + "/";
  ProcessOptions options;
  options.argv = {bin + "weft-agent", "--data", folder_ + "/" + node(index), "--name", node(index),
                  "--secret-file", folder_ + "/secret", "--slots", "4", "--address", "127.0.0.1",
                  "--coordinator", "127.0.0.1:" + std::to_string(coordinator_->port()), "--worker",
                  bin + "weft-stand-in-rank"};
  for (size_t i = 0; i + 1 < more.size(); i += 2) {  // in place of what stands there
    const auto known = std::find(options.argv.begin(), options.argv.end(), more[i]);
    if (known != options.argv.end()) options.argv.erase(known, known + 2);
    options.argv.insert(options.argv.end(), {more[i], more[i + 1]});
  }
  options.env = {"PATH=/usr/bin:/bin", "HOME=" + folder_};
  options.log_file = folder_ + "/" + node(index) + ".log";
  auto started = start_process(options);
  WEFT_CHECK(started.has_value(), "{}", started.error().to_string());
  agents_[index] = std::move(*started);
}

void LocalCluster::kill_agent(int index) {
  (void)agents_[index]->signal(SIGKILL);
  agents_[index]->wait();
}

int LocalCluster::wait_for_agent(int index) { return agents_[index]->wait(); }

std::string LocalCluster::agent_log(int index) const {
  return read_file(folder_ + "/" + node(index) + ".log", 1 << 20).value();
}

proto::AttemptRef LocalCluster::ref(const std::string& job) {
  proto::AttemptRef made;
  made.set_job(job);
  made.set_attempt(1);
  return made;
}

std::string LocalCluster::attempt_folder(int index, const std::string& job) const {
  return folder_ + "/" + node(index) + "/attempts/" + job + "-1";
}

std::string LocalCluster::note_file(int index, const std::string& job) const {
  return folder_ + "/" + node(index) + "/notes/" + job + "-1";
}

proto::LaunchRecord LocalCluster::record(const std::string& job, const std::string& mode,
                                         int ranks_per_node) {
  proto::LaunchRecord made;
  made.set_job(job);
  made.set_attempt(1);
  made.set_secret(random_hex(16));
  made.mutable_spec()->set_name(mode);
  const std::string text = "the text of " + job;
  auto& object = *made.add_objects();
  object.set_id("obj-" + sha256_hex(text).substr(0, 32));
  auto& file = *object.add_files();
  file.set_path("texts/one.txt");
  file.set_size(static_cast<int64_t>(text.size()));
  file.add_chunks()->set_hash(coordinator_->add_chunk(text));
  file.mutable_chunks(0)->set_size(file.size());
  for (int i = 0; i < nodes_; ++i) {
    auto& each = *made.add_nodes();
    each.set_name(node(i));
    each.set_address("127.0.0.1");
    each.set_subnet_cidr("127.0.0.0/8");
    for (int local = 0; local < ranks_per_node; ++local) {
      auto& rank = *made.add_ranks();
      rank.set_rank(made.ranks_size() - 1);
      rank.set_node(node(i));
      rank.set_local_rank(local);
      rank.set_threads(1);
    }
  }
  return made;
}

bool LocalCluster::launch(const std::string& job, const std::string& mode, int ranks_per_node) {
  return prepare(job, mode, ranks_per_node) && start(job);
}

bool LocalCluster::prepare(const std::string& job, const std::string& mode, int ranks_per_node) {
  proto::NodeFrame prepare;
  *prepare.mutable_prepare()->mutable_record() = record(job, mode, ranks_per_node);
  for (int i = 0; i < nodes_; ++i) coordinator_->send(node(i), prepare);
  return coordinator_->wait([&] {
    for (int i = 0; i < nodes_; ++i) {
      if (!coordinator_->prepared.contains(node(i) + " " + job + "/1")) return false;
    }
    return true;
  });
}

bool LocalCluster::start(const std::string& job) {
  proto::NodeFrame start;
  *start.mutable_start()->mutable_attempt() = ref(job);
  return coordinator_->send(node(0), start);
}

bool LocalCluster::has_ended(const std::string& job, int nodes) {
  return coordinator_->wait([&] {
    for (int i = 0; i < nodes; ++i) {
      if (!coordinator_->exits.contains(node(i) + " " + job + "/1")) return false;
    }
    return true;
  });
}

proto::AttemptExit LocalCluster::exit_of(const std::string& job, int index) {
  const std::lock_guard lock(coordinator_->mutex);
  return coordinator_->exits[node(index) + " " + job + "/1"];
}

void LocalCluster::control(const std::string& job, proto::ControlKind kind) {
  proto::NodeFrame frame;
  *frame.mutable_control()->mutable_attempt() = ref(job);
  frame.mutable_control()->mutable_control()->set_kind(kind);
  for (int i = 0; i < nodes_; ++i) coordinator_->send(node(i), frame);
}

bool LocalCluster::forget(const std::string& job) {
  coordinator_->revoke(ref(job));
  return coordinator_->wait([&] {
    for (const auto& [name, running] : coordinator_->running) {
      if (running.contains(job + "/1")) return false;
    }
    return true;
  });
}

}  // namespace weft::testing
