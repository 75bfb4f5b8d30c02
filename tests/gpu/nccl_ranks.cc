#include "tests/gpu/nccl_ranks.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cluster/comm/nccl/nccl_communicator.h"
#include "cluster/comm/rank_place.h"
#include "cluster/golden/golden_options.h"
#include "cluster/golden/golden_run.h"
#include "kernels/cpu/environment.h"
#include "kernels/cuda/device.h"
#include "proto/base/status.h"
#include "tests/cluster/comm/by_gpu.h"
#include "tests/cluster/comm/gpu_collective_cases.h"
#include "tests/testing/rank_processes.h"
#include "worker/golden/golden.h"
#include "worker/parallel/rank.h"

namespace weft::gpu {
namespace {

using testing::CollectiveCase;

constexpr int kStartFailed = 3;
constexpr int kCaseFailed = 100;  // plus the number of the case
constexpr std::chrono::milliseconds kDrain{2000};

struct Options {
  int ranks = 2;
  std::string over = "nccl";
  unsigned seconds = 60;
  std::string only;  // one case
  size_t first = 0;  // the cases before it have run
  std::string how = "killed";
  std::string mesh = "tensor=2", precision = "fp32";
  std::vector<std::string> folders;
};

// What this process does at the moment, for the signal that ends it.
struct Current {
  int rank = 0;
  int exit_status = kStartFailed;
  char text[128] = "";
};
Current current;

extern "C" void tell_and_end(int signal) {
  const char* end = signal == SIGALRM ? " hangs\n" : " crashes\n";
  (void)!::write(STDOUT_FILENO, current.text, std::strlen(current.text));
  (void)!::write(STDOUT_FILENO, end, std::strlen(end));
  ::_exit(current.exit_status);
}

// From now on this process does `what`, for so long at most; else it says so and exits.
void watch(const std::string& what, int exit_status, unsigned seconds) {
  current.exit_status = exit_status;
  std::snprintf(current.text, sizeof current.text, "  rank %d: %s", current.rank, what.c_str());
  for (const int signal : {SIGALRM, SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) {
    (void)std::signal(signal, tell_and_end);
  }
  (void)::alarm(seconds);
}

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

// Where not set already: NCCL over the loopback interface, without shared or pinned memory.
void prepare_nccl(int rank) {
  (void)::setenv("NCCL_HOSTID", ("weft-rank-" + std::to_string(rank)).c_str(), 1);
  for (const auto& [name, value] : {std::pair{"NCCL_MULTI_RANK_GPU_ENABLE", "1"},
                                    {"NCCL_SOCKET_IFNAME", "lo"},
                                    {"NCCL_NET", "Socket"},
                                    {"NCCL_IB_DISABLE", "1"},
                                    {"NCCL_P2P_DISABLE", "1"},
                                    {"NCCL_SHM_DISABLE", "1"},
                                    {"NCCL_DEBUG", "WARN"}}) {
    (void)::setenv(name, value, 0);
  }
}

RankPlace place(std::unique_ptr<Communicator> introduction, const Options& options) {
  if (options.over == "host") return {make_caching_allocator(), std::move(introduction)};
  prepare_nccl(introduction->rank());
  auto memory = cuda::make_allocator(0);
  if (!memory) throw StatusError(memory.error());
  auto nccl = comm::make_nccl_communicator(std::move(introduction), **memory, {.drain = kDrain});
  if (!nccl) throw StatusError(nccl.error());
  return {std::move(*memory), std::move(*nccl)};
}

// The status to exit with, of what went wrong too.
int guarded(const std::function<int()>& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    say(std::string(current.text) + ": " + error.what());
    return current.exit_status;
  }
}

// ---- the suite ----

struct Step {
  const CollectiveCase* item;
  bool on_gpu;  // with tensors of the GPU
};

std::vector<Step> steps_of(const Options& options, std::span<const CollectiveCase> cases) {
  std::vector<Step> steps;
  const bool nccl = options.over == "nccl";
  for (const CollectiveCase& each : cases) {
    if (!nccl || !each.orders_nan) steps.push_back({&each, false});
  }
  for (const CollectiveCase& each : testing::gpu_collective_cases()) {
    if (nccl) steps.push_back({&each, true});
  }
  std::erase_if(steps, [&](const Step& step) {
    return !options.only.empty() && options.only != step.item->name;
  });
  return steps;
}

// What the case's expectations have to say on this rank.
std::vector<std::string> findings_of(const Step& step, Communicator& by_host, Communicator& direct,
                                     Allocator& host, Allocator& memory) {
  ::testing::TestPartResultArray results;
  std::vector<std::string> findings;
  {
    const ::testing::ScopedFakeTestPartResultReporter reporter(
        ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ALL_THREADS, &results);
    try {
      if (step.on_gpu) {
        step.item->run(direct, memory);
      } else {
        step.item->run(by_host, host);
      }
    } catch (const std::exception& error) {
      findings.emplace_back(error.what());
    }
  }
  for (int i = 0; i < results.size(); ++i)
    findings.emplace_back(results.GetTestPartResult(i).message());
  return findings;
}

int run_cases(std::unique_ptr<Communicator> introduction, const Options& options,
              const std::vector<Step>& steps) {
  const int rank = introduction->rank();
  RankPlace placed = place(std::move(introduction), options);
  const auto host = make_caching_allocator();
  Communicator& direct = *placed.world;
  testing::ByGpu by_gpu(std::move(placed.world), *placed.memory);
  Communicator& by_host = options.over == "host" ? direct : static_cast<Communicator&>(by_gpu);
  for (size_t i = options.first; i < steps.size(); ++i) {
    const std::string name = steps[i].item->name;
    const auto start = std::chrono::steady_clock::now();
    watch(name, kCaseFailed + static_cast<int>(i), options.seconds);
    const std::vector<std::string> findings =
        findings_of(steps[i], by_host, direct, *host, *placed.memory);
    for (const std::string& each : findings) say(std::string(current.text) + ": " + each);
    if (!findings.empty()) ::_exit(current.exit_status);
    direct.barrier();  // a rank that failed is gone
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    char line[128];
    std::snprintf(line, sizeof line, "%-24s passed %8.3f s", name.c_str(), took.count());
    if (rank == 0) say(line);
  }
  watch("the end of NCCL", kStartFailed, options.seconds);
  return 0;
}

// The number of the case in which these ranks ended; none: something else is wrong.
std::optional<size_t> failed_case(const std::vector<testing::RankEnd>& ends) {
  std::optional<size_t> found;
  for (const testing::RankEnd& end : ends) {
    if (end.status < kCaseFailed) continue;
    const auto number = static_cast<size_t>(end.status - kCaseFailed);
    found = std::min(found.value_or(number), number);
  }
  return found;
}

bool all_well(const std::vector<testing::RankEnd>& ends) {
  return std::all_of(ends.begin(), ends.end(), [](const auto& end) { return end.well(); });
}

void tell_ends(const std::vector<testing::RankEnd>& ends) {
  for (size_t r = 0; r < ends.size(); ++r) {
    if (!ends[r].well()) say("  rank " + std::to_string(r) + " " + ends[r].text());
  }
}

// What every rank's process is told.
std::vector<std::string> arguments_of(const std::string& what, const Options& options) {
  return {what, "--over", options.over, "--seconds", std::to_string(options.seconds)};
}

int lead_cases(const Options& options, const std::vector<Step>& steps) {
  std::string failed;
  size_t first = 0;
  std::vector<std::string> arguments = arguments_of("collectives", options);
  if (!options.only.empty()) arguments.insert(arguments.end(), {"--case", options.only});
  arguments.insert(arguments.end(), {"--ranks", std::to_string(options.ranks), "--first", "0"});
  while (first < steps.size()) {
    arguments.back() = std::to_string(first);
    const auto ends = testing::run_rank_processes({.ranks = options.ranks, .arguments = arguments});
    if (all_well(ends)) break;
    tell_ends(ends);
    const std::optional<size_t> number = failed_case(ends);
    if (!number || *number >= steps.size()) {
      say("no case can be run");
      return 1;
    }
    say(std::string(steps[*number].item->name) + " FAILED");
    failed += std::string(" ") + steps[*number].item->name;
    first = *number + 1;
  }
  say(std::to_string(options.ranks) + " ranks over " + options.over + ", " +
      std::to_string(steps.size()) + " cases" +
      (failed.empty() ? ", all passed" : ", failed:" + failed));
  return failed.empty() ? 0 : 1;
}

// ---- lost ranks ----

// What a rank hears that waits for the others in a collective; empty: no loss.
std::string heard_in_collective(Communicator& world, Tensor& x) {
  try {
    world.all_reduce(x, ReduceOp::kSum);
    x.to_vector<float>();
  } catch (const StatusError& error) {
    if (error.status().code() == Code::kUnavailable) return error.what();
    throw;
  }
  return "";
}

// Rank 1 is killed while the others wait for it: they hear of it, and come to their end.
int outlive(std::unique_ptr<Communicator> world, Tensor x) {
  if (world->rank() == 1) (void)::raise(SIGKILL);
  const std::string heard = heard_in_collective(*world, x);
  say(std::string(current.text) + ": " + (heard.empty() ? "nothing is heard of it" : heard));
  return heard.empty() ? 1 : 0;
}

// Rank 1 is alive and does not come: the others' communicators come to their end in bounded time,
// and it hears of that when it comes.
int leave_behind(std::unique_ptr<Communicator> world, Tensor x, Communicator& meeting) {
  if (world->rank() == 1) {
    meeting.barrier();
    const std::string heard = heard_in_collective(*world, x);
    say(std::string(current.text) + ": " + (heard.empty() ? "nothing is heard" : heard));
    return heard.empty() ? 1 : 0;
  }
  world->all_reduce(x, ReduceOp::kSum);
  const auto start = std::chrono::steady_clock::now();
  world.reset();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  say(std::string(current.text) + ": gone after " + std::to_string(took.count()) + " s");
  meeting.barrier();
  return took < 10 * kDrain ? 0 : 1;
}

int lose(std::unique_ptr<Communicator> introduction, const Options& options) {
  const auto meeting = introduction->split(0, introduction->rank());
  RankPlace placed = place(std::move(introduction), options);
  Tensor x = Tensor::full(*placed.memory, {100'000}, 1);
  placed.world->all_reduce(x, ReduceOp::kSum);
  if (x.to_vector<float>().back() != static_cast<float>(options.ranks)) return 1;
  meeting->barrier();
  watch("the wait for a lost rank", kStartFailed, options.seconds);
  if (options.how == "killed") return outlive(std::move(placed.world), x);
  return leave_behind(std::move(placed.world), x, *meeting);
}

int lead_loss(const Options& options) {
  std::vector<std::string> arguments = arguments_of("lost-rank", options);
  arguments.insert(arguments.end(),
                   {"--ranks", std::to_string(options.ranks), "--how", options.how});
  const std::chrono::seconds limit(2 * options.seconds);
  const auto ends = testing::run_rank_processes(
      {.ranks = options.ranks, .arguments = arguments, .limit = limit, .grace = limit});
  bool well = true;
  for (size_t r = 0; r < ends.size(); ++r) {
    const bool killed = r == 1 && options.how == "killed";
    const bool right = killed ? ends[r].signal == SIGKILL && !ends[r].late : ends[r].well();
    if (!right) say("  rank " + std::to_string(r) + " " + ends[r].text());
    well = well && right;
  }
  say("rank 1 of " + std::to_string(options.ranks) + " over " + options.over +
      (options.how == "killed" ? " is killed: " : " never comes: ") + (well ? "passed" : "FAILED"));
  return well ? 0 : 1;
}

// ---- trajectories ----

int run_trajectories(std::unique_ptr<Communicator> introduction, const Options& options) {
  cpu::read_environment();
  const bool first = introduction->rank() == 0;
  RankPlace placed = place(std::move(introduction), options);
  auto mesh = Mesh::create(std::move(placed.world), *parse_mesh(options.mesh));
  if (!mesh) throw StatusError(mesh.error());
  Rank rank{std::move(placed.memory), std::make_unique<ThreadPool>(1), std::move(*mesh), Logger()};
  bool passed = true;
  for (const std::string& folder : options.folders) {
    watch(folder, 1, options.seconds);
    const Result<golden::Case> golden = golden::read_case(folder);
    if (!golden) throw StatusError(golden.error());
    const golden::Report report =
        golden::run_case(rank, *golden, options.precision == "bf16" ? DType::kBF16 : DType::kF32);
    if (first) print_report(std::cout, report, !report.passed());
    passed = passed && report.passed();
  }
  std::cout.flush();
  watch("the end of NCCL", kStartFailed, options.seconds);
  return passed ? 0 : 1;
}

int lead_trajectories(const Options& options) {
  std::vector<std::string> arguments = arguments_of("trajectory", options);
  arguments.insert(arguments.end(), {"--mesh", options.mesh, "--precision", options.precision});
  arguments.insert(arguments.end(), options.folders.begin(), options.folders.end());
  const Result<MeshDegrees> mesh = parse_mesh(options.mesh);
  if (!mesh) {
    std::fprintf(stderr, "%s\n", mesh.error().to_string().c_str());
    return 2;
  }
  const auto ends = testing::run_rank_processes(
      {.ranks = static_cast<int>(mesh->world()), .arguments = std::move(arguments)});
  tell_ends(ends);
  const bool well = all_well(ends);
  say(mesh_text(*mesh) + ", " + options.precision + ", over " + options.over +
      (well ? ": passed" : ": FAILED"));
  return well ? 0 : 1;
}

// ---- the command lines ----

// The exit status where the program ends here.
std::optional<int> parse(CLI::App& app, Options& options, int argc, char** argv) {
  app.add_option("--over", options.over, "What the ranks talk over: NCCL, or the sockets alone")
      ->check(CLI::IsMember({"nccl", "host"}))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "The longest that one case may take")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return {};
}

// Leads, or is one of the ranks that were started.
int lead_or_follow(const Options& options, const std::function<int()>& lead,
                   const std::function<int(std::unique_ptr<Communicator>)>& follow) {
  auto world = testing::process_world();
  if (!world) return lead();
  current.rank = world->rank();
  watch("the start", kStartFailed, options.seconds);
  // No destructor of something that failed is waited for.
  const int status = guarded([&] { return follow(std::move(world)); });
  std::fflush(stdout);
  ::_exit(status);
}

}  // namespace

int collectives(int argc, char** argv, std::span<const CollectiveCase> cases) {
  Options options;
  CLI::App app("The suite of collectives with ranks that are processes on one GPU.");
  app.add_option("--ranks", options.ranks)->check(CLI::Range(1, 16))->capture_default_str();
  app.add_option("--case", options.only, "Only the case of this name");
  app.add_option("--first", options.first, "The number of the first case to run");
  if (const auto status = parse(app, options, argc, argv)) return *status;
  const std::vector<Step> steps = steps_of(options, cases);
  if (steps.empty()) {
    std::fprintf(stderr, "--case %s: there is no such case\n", options.only.c_str());
    return 2;
  }
  return lead_or_follow(
      options, [&] { return lead_cases(options, steps); },
      [&](std::unique_ptr<Communicator> world) {
        return run_cases(std::move(world), options, steps);
      });
}

int lost_rank(int argc, char** argv) {
  Options options;
  CLI::App app("What the others hear of a rank that is lost in a collective.");
  app.add_option("--ranks", options.ranks)->check(CLI::Range(2, 16))->capture_default_str();
  app.add_option("--how", options.how, "It is killed, or never comes")
      ->check(CLI::IsMember({"killed", "absent"}))
      ->capture_default_str();
  if (const auto status = parse(app, options, argc, argv)) return *status;
  return lead_or_follow(
      options, [&] { return lead_loss(options); },
      [&](std::unique_ptr<Communicator> world) { return lose(std::move(world), options); });
}

int trajectory(int argc, char** argv) {
  Options options;
  CLI::App app("Golden cases on a mesh of ranks that are processes on one GPU.");
  app.add_option("CASE", options.folders, "Folders of golden cases")->required();
  app.add_option("--mesh", options.mesh, "data=A,sequence=B,tensor=C,ulysses=D")
      ->capture_default_str();
  app.add_option("--precision", options.precision)
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  if (const auto status = parse(app, options, argc, argv)) return *status;
  return lead_or_follow(
      options, [&] { return lead_trajectories(options); },
      [&](std::unique_ptr<Communicator> world) {
        return run_trajectories(std::move(world), options);
      });
}

}  // namespace weft::gpu
