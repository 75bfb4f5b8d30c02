// weft-worker and weft-worker-cuda: one rank of one attempt of one job, on the CPU or on a GPU.
// Started by mpirun under a shepherd; what it is to do stands in the launch record, a file whose
// path is in WEFT_LAUNCH_RECORD.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>

#include "cluster/comm/mpi/mpi_world.h"
#include "cluster/comm/watched_communicator.h"
#include "cluster/process/agent_link.h"
#include "cluster/process/output_pipe.h"
#include "cluster/process/process.h"
#include "cluster/process/rank_device.h"
#include "cluster/process/rank_now.h"
#include "cluster/process/thread_stacks.h"
#include "kernels/cpu/environment.h"
#include "proto/base/retry.h"
#include "proto/launch.pb.h"
#include "worker/parallel/pending.h"
#include "worker/parallel/refusals.h"
#include "worker/trace_message.h"
#include "worker/trainer.h"

namespace weft {
namespace {

constexpr int kFailed = 1;
constexpr double kTellSeconds = 20;  // so long a failing rank tries to tell why

Result<proto::LaunchRecord> read_record() {
  const char* path = std::getenv("WEFT_LAUNCH_RECORD");
  if (path == nullptr) {
    return fail(Code::kFailedPrecondition,
                "WEFT_LAUNCH_RECORD is not set: weft-agent starts this program, not a person");
  }
  std::ifstream in(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(in), {});
  proto::LaunchRecord record;
  if (!in || !record.ParseFromString(bytes)) {
    return fail(Code::kCorruption, std::string("cannot read the launch record ") + path);
  }
  return record;
}

MeshDegrees degrees_of(const proto::ParallelSpec& spec) {
  return {spec.data(), spec.sequence(), spec.tensor()};
}

bool compares_collectives(const proto::LaunchRecord& record) {
#ifdef __OPTIMIZE__
  return record.spec().training().check_collectives();
#else
  return true;
#endif
}

Result<Rank> make_rank(const comm::MpiWorld& mpi, const proto::LaunchRecord& record,
                       Activity& activity) {
  const proto::LaunchRank& mine = record.ranks(mpi.rank());
  const std::vector<int> cpus(mine.cpus().begin(), mine.cpus().end());
  WEFT_ASSIGN_OR_RETURN(RankPlace place, place_rank(mpi.world(), mine.gpu()));
  auto world =
      comm::watched(std::move(place.world), activity, {.compare = compares_collectives(record)});
  WEFT_ASSIGN_OR_RETURN(Mesh mesh,
                        Mesh::create(std::move(world), degrees_of(record.spec().parallel())));
  Rank rank{std::move(place.memory),
            std::make_unique<ThreadPool>(std::max(1, mine.threads()), cpus), std::move(mesh),
            Logger::open("rank " + std::to_string(mpi.rank()))};
  rank.activity = &activity;
  if (!place.description.empty()) rank.log.info("computes on {}", place.description);
  return rank;
}

proto::RankHello hello_of(const proto::LaunchRecord& record, int number) {
  proto::RankHello hello;
  hello.set_job(record.job());
  hello.set_attempt(record.attempt());
  hello.set_rank(number);
  hello.set_secret(record.secret());
  hello.set_pid(::getpid());
  return hello;
}

proto::RankHello hello_of(const proto::LaunchRecord& record, const Rank& rank, int number) {
  proto::RankHello hello = hello_of(record, number);
  hello.set_data(rank.mesh.index(Axis::kData));
  hello.set_sequence(rank.mesh.index(Axis::kSequence));
  hello.set_tensor(rank.mesh.index(Axis::kTensor));
  return hello;
}

void tell_failure(AgentLink& link, const Status& status) {
  proto::RankEnvelope message;
  message.mutable_failed()->set_code(std::string(code_name(status.code())));
  message.mutable_failed()->set_message(status.to_string());
  message.mutable_failed()->set_retryable(retryable(status.code()));
  if (link.send(std::move(message)).ok()) (void)link.flush_for(kTellSeconds);
}

void answer_questions(AgentLink& link, const Activity& activity, int number) {
  answer_with_stack();
  link.on_inspect([&activity, number] {
    proto::RankStack stack;
    *stack.mutable_now() = rank_now(activity.now(), number);
    for (proto::ThreadStack& thread : thread_stacks()) stack.add_threads()->Swap(&thread);
    return stack;
  });
  link.on_trace_now([&](uint64_t request) { return trace_so_far(activity, request); });
}

// The training of this rank; its end is told through the agent.
Status work(const comm::MpiWorld& mpi, const proto::LaunchRecord& record) {
  Activity activity;
  std::optional<Rank> rank;
  std::optional<AgentLink> link;
  const auto train = [&] {
    Result<Rank> made = make_rank(mpi, record, activity);
    if (!made) throw StatusError(std::move(made).error());
    rank = std::move(*made);
    link.emplace(record.agent_socket(), hello_of(record, *rank, mpi.rank()), [&] {
      proto::RankNow now = rank_now(activity.now(), mpi.rank());
      now.set_progress(now.progress() + comm::MpiWorld::messages_moved());
      return now;
    });
    answer_questions(*link, activity, mpi.rank());
    if (Status trained = run_training(*rank, record, *link); !trained.ok()) {
      throw StatusError(std::move(trained));
    }
    if (Status told = link->flush(); !told.ok()) throw StatusError(std::move(told));
  };
  Status status = failure_of([&] { tell_refusals(train); });
  if (status.ok()) {
    // Nobody leaves before rank 0's last word is durable: mpirun ends with the first that exits.
    return failure_of([&] { rank->mesh.axis(Axis::kWorld).barrier(); });
  }
  status = out_of_memory(std::move(status), record, mpi.rank());
  (void)failure_of([&] {
    if (rank) rank->log.error("{}", status.to_string());
    if (!link) link.emplace(record.agent_socket(), hello_of(record, mpi.rank()));
    tell_failure(*link, status);
  });
  return status;
}

int run() {
  if (::geteuid() == 0) {
    std::fputs("weft-worker: ranks do not run as root; a root agent starts them as user weft\n",
               stderr);
    return kFailed;
  }
  offer_to_oom_killer();
  const Result<proto::LaunchRecord> record = read_record();
  if (!record) {
    std::fprintf(stderr, "weft-worker: %s\n", record.error().to_string().c_str());
    return kFailed;
  }
  const auto mpi = comm::MpiWorld::create();
  if (!mpi) {
    std::fprintf(stderr, "weft-worker: %s\n", mpi.error().to_string().c_str());
    return kFailed;
  }
  Status status;
  if ((*mpi)->size() != record->ranks_size()) {
    status = Status(Code::kInternal, "started with " + std::to_string((*mpi)->size()) +
                                         " ranks, the launch record has " +
                                         std::to_string(record->ranks_size()));
  }
  if (status.ok()) {
    const proto::LaunchRank& mine = record->ranks((*mpi)->rank());
    if (mine.gpu().empty()) make_stacks_small();  // what a GPU's driver needs of its is not known
    give_back_large_blocks();
    cpu::reserve_buffers(std::max(1, mine.threads()));
    keep_room_for_failures();
    limit_memory(mine.memory_bytes());
    status = redirect_output(*record, (*mpi)->rank());
  }
  if (status.ok()) status = work(**mpi, *record);
  if (!status.ok()) {
    std::fprintf(stderr, "weft-worker: %s\n", status.to_string().c_str());
    std::fflush(nullptr);
    comm::MpiWorld::abort(kFailed);
  }
  return 0;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  CLI::App app(
      "One rank of a training job, over MPI. weft-agent starts it; people use `weft submit`.",
      "weft-worker");
  app.set_version_flag("--version", "weft-worker " WEFT_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return weft::run();
}
