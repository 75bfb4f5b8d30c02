// weft-bench-plan predict JOB [slots=N] [cores=N] [memory=BYTES]: the planner's JSON for this
// machine as one node, its speed measured now. hosts=N: as so many nodes, whose links carry
// megabits=N a second (1000), with slots=N and cores=N all together. gflops=N: instead of what is
// measured, so many 1e9 operations a second of a core in large products, and copy_mb=N so many 1e6
// bytes a second that it copies, read and written counted.
// weft-bench-plan run JOB FOLDER [threads=N] [memory=BYTES] [late=1] under mpirun: trains the job,
// whose inputs lie in FOLDER, each rank under that limit; rank 0 prints "seconds S peak P process
// D kept K": the median step, the most that a rank's tensors took, and the most that its process
// did, as its limit counts it, and what its own tensors take between two steps. late:
// transfers end only when they are waited for, so that the peak is the most that can be. plan.py
// calls both.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cluster/comm/mpi/mpi_world.h"
#include "cluster/process/process.h"
#include "kernels/cpu/environment.h"
#include "proto/json/job_rules.h"
#include "proto/json/message_json.h"
#include "proto/json/yaml.h"
#include "tests/testing/late_communicator.h"
#include "worker/admission/check_model.h"
#include "worker/admission/memory.h"
#include "worker/planner/planner.h"
#include "worker/planner/probe.h"
#include "worker/trainer.h"

namespace weft {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

void require(const Status& status) {
  if (!status.ok()) throw StatusError(status);
}

proto::JobSpec read_job(const std::string& path) {
  proto::JobSpec spec;
  require(read_yaml(text_of(path), spec));
  require(finish_job(spec));
  return spec;
}

std::map<std::string, int64_t> numbers(std::span<char*> words) {
  std::map<std::string, int64_t> found;
  for (const std::string word : words) {
    const size_t equals = word.find('=');
    found[word.substr(0, equals)] = std::stoll(word.substr(equals + 1));
  }
  return found;
}

// Measured where it is not given.
HostSpeed speed_of(std::map<std::string, int64_t>& given) {
  HostSpeed speed = given["gflops"] > 0 ? HostSpeed() : measure_speed();
  if (given["gflops"] > 0) {
    speed.flops = speed.half_flops = 1e9 * static_cast<double>(given["gflops"]);
    if (given["copy_mb"] > 0) speed.memory = 1e6 * static_cast<double>(given["copy_mb"]);
  }
  if (given["megabits"] > 0) speed.link = 1e6 / 8 * static_cast<double>(given["megabits"]);
  return speed;
}

int predict(const std::string& path, std::map<std::string, int64_t> given) {
  proto::JobSpec spec = read_job(path);
  AdmittedModel model;
  require(check_model(spec, {}, &model));
  const int slots = static_cast<int>(given["slots"]), cores = static_cast<int>(given["cores"]);
  const int nodes = static_cast<int>(std::clamp<int64_t>(given["hosts"], 1, std::max(1, slots)));
  const int64_t allowed = memory_of_slot(given["memory"], slots);
  const HostSpeed speed = speed_of(given);
  const auto hosts = [&](int ranks,
                         const RankNeeds& needs) -> std::optional<std::vector<HostShare>> {
    if (ranks > slots || (allowed > 0 && needs.memory > allowed)) return std::nullopt;
    std::vector<HostShare> found;
    for (const int each = slots / nodes; ranks > 0; ranks -= each) {
      found.push_back({speed, cores / nodes, std::max(1, cores / slots), std::min(ranks, each)});
    }
    return found;
  };
  std::vector<int> choices;
  for (int n = 1; n <= slots; ++n) choices.push_back(n);
  if (spec.resources().slots() > 0) choices = {spec.resources().slots()};
  const proto::JobPlan plan =
      plan_job({*model.family,
                *model.config,
                spec,
                choices,
                {{.memory = allowed, .threads = std::max(1, cores / slots)}},
                hosts});
  std::printf("%s\n", write_json(plan).c_str());
  return 0;
}

// Keeps the figures of each step; of checkpoints nothing.
class Figures final : public Progress {
 public:
  explicit Figures(const Allocator& allocator) : allocator_(allocator) {}

  Status send(proto::RankEnvelope message) override {
    const std::lock_guard lock(mutex_);
    if (message.has_metrics()) kept_ = std::min(kept_, allocator_.stats().live_bytes);
    for (const proto::MetricRecord& record : message.metrics().records()) {
      const auto& values = record.values();
      const auto rate = values.find("tokens_per_second");
      if (rate != values.end()) rates_.push_back(rate->second);
      const auto peak = values.find("memory_peak_bytes");
      if (peak != values.end()) peak_ = std::max(peak_, peak->second);
    }
    return {};
  }
  Status flush() override { return {}; }
  std::optional<proto::Control> take_control() override { return std::nullopt; }
  Status put_chunk(const std::string&, std::string_view) override {
    look();
    return {};
  }
  Result<std::string> get_chunk(const std::string& hash) override {
    return fail(Code::kNotFound, hash);
  }

  void look() {
    const std::lock_guard lock(mutex_);
    data_ = std::max(data_, data_bytes());
  }
  double peak() const { return peak_; }
  int64_t data() const { return data_; }  // most that the process was seen to have
  int64_t kept() const { return kept_; }
  double median_rate() {
    std::sort(rates_.begin(), rates_.end());
    return rates_.empty() ? 0 : rates_[rates_.size() / 2];
  }

 private:
  const Allocator& allocator_;
  std::mutex mutex_;
  std::vector<double> rates_;
  int64_t kept_ = INT64_MAX;  // least of what was in use as a step was told of, by rank 0
  double peak_ = 0;
  int64_t data_ = 0;
};

int run(const std::string& path, const std::string& folder, std::map<std::string, int64_t> given) {
  const auto world = comm::MpiWorld::create();
  if (!world) throw StatusError(world.error());
  try {
    proto::LaunchRecord record;
    *record.mutable_spec() = read_job(path);
    record.set_job("job-bench");
    record.set_attempt(1);
    record.set_objects_folder(folder);
    for (int r = 0; r < (*world)->size(); ++r)
      record.add_ranks()->set_memory_bytes(given["memory"]);
    const int threads = static_cast<int>(std::max<int64_t>(1, given["threads"]));
    make_stacks_small();
    give_back_large_blocks();
    cpu::reserve_buffers(threads);
    const int64_t unused = unused_memory_bytes();
    limit_memory(given["memory"]);
    const proto::ParallelSpec& spec = record.spec().parallel();
    std::unique_ptr<Communicator> all = (*world)->world();
    if (given["late"] != 0) all = testing::late(std::move(all));
    Result<Mesh> mesh = Mesh::create(std::move(all), {spec.data(), spec.sequence(), spec.tensor()});
    if (!mesh) throw StatusError(mesh.error());
    Rank rank{make_caching_allocator(), std::make_unique<ThreadPool>(threads), std::move(*mesh),
              Logger()};
    Figures figures(*rank.allocator);
    require(run_training(rank, record, figures));
    figures.look();  // segments stay; the checkpoint's copy was seen with its last chunk
    const auto counted = static_cast<double>(figures.data() - unused);
    Tensor most = Tensor::full(*rank.allocator, {1}, counted, DType::kF64);
    rank.mesh.axis(Axis::kWorld).all_reduce(most, ReduceOp::kMax);
    if (rank.mesh.index(Axis::kWorld) == 0) {
      const proto::TrainingSpec& training = record.spec().training();
      const double tokens = static_cast<double>(training.batch_size()) * training.sequence_length();
      std::printf("seconds %.6f peak %.0f process %.0f kept %.0f\n", tokens / figures.median_rate(),
                  figures.peak(), *most.data<double>(), static_cast<double>(figures.kept()));
    }
    return 0;
  } catch (const StatusError& error) {
    std::fprintf(stderr, "%s\n", error.status().to_string().c_str());
    comm::MpiWorld::abort(error.status().code() == Code::kResourceExhausted ? 7 : 1);
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  const std::span<char*> words(argv, static_cast<size_t>(argc));
  try {
    if (words.size() >= 3 && std::string(words[1]) == "predict") {
      return weft::predict(words[2], weft::numbers(words.subspan(3)));
    }
    if (words.size() >= 4 && std::string(words[1]) == "run") {
      return weft::run(words[2], words[3], weft::numbers(words.subspan(4)));
    }
    std::fprintf(stderr, "weft-bench-plan: predict JOB ... or run JOB FOLDER ...\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}
