// What the agent's tests run in place of weft-worker: real MPI, the real line to the agent, no
// training. The job's name says what to do: quick, wait (until told to pause), fail (rank 1 leaves
// with code 3).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include "cluster/comm/mpi/mpi_world.h"
#include "cluster/process/agent_link.h"
#include "cluster/process/output_pipe.h"
#include "proto/base/hash.h"
#include "proto/launch.pb.h"

namespace weft {
namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

void tell(AgentLink& link, const std::string& type, const std::string& message) {
  proto::RankEnvelope envelope;
  envelope.mutable_event()->set_type(type);
  envelope.mutable_event()->set_message(message);
  (void)link.send(std::move(envelope));
}

void wait_for_pause(AgentLink& link, int rank) {
  for (int i = 0;; ++i) {
    if (const auto control = link.take_control()) {
      tell(link, "paused", proto::ControlKind_Name(control->kind()));
      return;
    }
    if (i % 20 == 0) {
      tell(link, "tick", std::to_string(i));
      std::printf("tick %d of rank %d\n", i, rank);
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

int run() {
  proto::LaunchRecord record;
  if (!record.ParseFromString(contents(std::getenv("WEFT_LAUNCH_RECORD")))) return 90;
  const auto mpi = comm::MpiWorld::create();
  if (!mpi || (*mpi)->size() != record.ranks_size()) return 91;
  const int rank = (*mpi)->rank();
  if (record.ranks(rank).node() != record.node()) return 92;
  if (!redirect_output(record, rank).ok()) return 93;
  std::printf("rank %d on %s as %u\n", rank, record.node().c_str(), ::geteuid());
  std::fflush(stdout);

  proto::RankHello hello;
  hello.set_job(record.job());
  hello.set_attempt(record.attempt());
  hello.set_rank(rank);
  hello.set_pid(::getpid());
  hello.set_secret(record.secret());
  AgentLink link(record.agent_socket(), hello);
  const std::string& mode = record.spec().name();
  if (mode == "fail" && rank == 1) std::_Exit(3);
  for (const auto& object : record.objects()) {
    tell(link, "object", contents(record.objects_folder() + "/" + object.id() + "/" +
                                  object.files(0).path()));
  }
  const std::string bytes = "chunk of rank " + std::to_string(rank);
  const Status put = link.put_chunk(sha256_hex(bytes), bytes);
  const auto got = link.get_chunk(sha256_hex(bytes));
  tell(link, "chunk", put.ok() && got && *got == bytes ? "same" : "different");
  if (mode == "wait" || mode == "fail") wait_for_pause(link, rank);
  const bool durable = link.flush().ok();
  (*mpi)->world()->barrier();
  return durable ? 0 : 94;
}

}  // namespace
}  // namespace weft

int main() { return weft::run(); }
