// NCCL with ranks that are threads. A collective runs once every rank's stream has come to it; it
// is a Fault if the ranks' calls do not fit together. A send that is not in one group with the
// receives of its rank is done only when it has been received, as in the library's worst case, so
// that a ring without groups hangs here too. After an abort streams go on and do nothing; an abort
// inside a group is a Fault. Two ranks of a communicator on one GPU are refused.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "cluster/comm/nccl/nccl_library.h"
#include "cluster/comm/reduce_elements.h"
#include "tests/testing/nccl_on_cpu/nccl_on_cpu.h"

namespace cpu = weft::cuda_on_cpu;

namespace {

enum class Kind { kAllReduce, kAllGather, kReduceScatter, kBroadcast };

struct Call {
  Kind kind;
  const std::byte* send;
  std::byte* receive;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t op;
  int root;
};

struct Meeting {
  std::map<int, Call> calls;  // by rank
  int arrived = 0;            // streams
  bool done = false;
};

struct Mail {
  std::vector<std::byte> bytes;
  bool taken = false;
};

// Guarded by the device's mutex but for `joined` and `gpus`.
struct World {
  int size = 0;
  int joined = 0;
  std::set<int> gpus;  // of those that joined
  bool lost = false;
  std::map<uint64_t, std::shared_ptr<Meeting>> meetings;                  // by number
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Mail>>> mail;  // by sender and receiver
};

std::atomic<int> alive{0};
thread_local int sends_to_refusal = 0;  // 0: none is refused

std::mutex registry_mutex;
std::condition_variable joined;
std::map<std::string, std::weak_ptr<World>> registry;
uint64_t next_id = 1;

size_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    default:
      return 8;
  }
}

// The library's extremes leave a NaN aside.
template <typename T>
void take_extremes(std::byte* into, const std::byte* from, size_t count, bool largest) {
  auto* here = reinterpret_cast<T*>(into);
  const auto* there = reinterpret_cast<const T*>(from);
  for (size_t i = 0; i < count; ++i) {
    here[i] = largest ? std::fmax(here[i], there[i]) : std::fmin(here[i], there[i]);
  }
}

void reduce(std::byte* into, const std::byte* from, size_t count, const Call& call) {
  const bool extreme = call.op == ncclMax || call.op == ncclMin;
  if (extreme && call.type == ncclFloat32) {
    return take_extremes<float>(into, from, count, call.op == ncclMax);
  }
  if (extreme && call.type == ncclFloat64) {
    return take_extremes<double>(into, from, count, call.op == ncclMax);
  }
  const weft::ReduceOp op = call.op == ncclMax   ? weft::ReduceOp::kMax
                            : call.op == ncclMin ? weft::ReduceOp::kMin
                                                 : weft::ReduceOp::kSum;
  const weft::DType type = call.type == ncclFloat64    ? weft::DType::kF64
                           : call.type == ncclInt64    ? weft::DType::kI64
                           : call.type == ncclBfloat16 ? weft::DType::kBF16
                           : call.type == ncclFloat16  ? weft::DType::kF16
                                                       : weft::DType::kF32;
  weft::comm::reduce_elements(into, from, static_cast<int64_t>(count), type, op);
}

// What all ranks put in, reduced in rank order.
std::vector<std::byte> reduced(const Meeting& meeting, size_t count) {
  const Call& first = meeting.calls.at(0);
  const size_t bytes = count * bytes_of(first.type);
  std::vector<std::byte> sum(first.send, first.send + bytes);
  for (const auto& [rank, call] : meeting.calls) {
    if (rank > 0) reduce(sum.data(), call.send, count, first);
  }
  return sum;
}

void check_alike(const Meeting& meeting) {
  const Call& first = meeting.calls.at(0);
  for (const auto& [rank, call] : meeting.calls) {
    if (call.kind != first.kind || call.count != first.count || call.type != first.type ||
        call.op != first.op || call.root != first.root) {
      throw cpu::Fault("rank " + std::to_string(rank) + " calls another collective than rank 0");
    }
  }
}

void perform(const Meeting& meeting) {
  check_alike(meeting);
  const Call& first = meeting.calls.at(0);
  const size_t size = meeting.calls.size(), part = first.count * bytes_of(first.type);
  std::vector<std::byte> whole;
  switch (first.kind) {
    case Kind::kAllReduce:
      whole = reduced(meeting, first.count);
      break;
    case Kind::kReduceScatter:
      whole = reduced(meeting, first.count * size);
      break;
    case Kind::kAllGather:
      for (const auto& [rank, call] : meeting.calls) {
        whole.insert(whole.end(), call.send, call.send + part);
      }
      break;
    case Kind::kBroadcast:
      whole.assign(meeting.calls.at(first.root).send, meeting.calls.at(first.root).send + part);
      break;
  }
  for (const auto& [rank, call] : meeting.calls) {
    const bool scattered = first.kind == Kind::kReduceScatter;
    const std::byte* from = whole.data() + (scattered ? static_cast<size_t>(rank) * part : 0);
    std::memcpy(call.receive, from, scattered ? part : whole.size());
  }
}

// One group's sends and receives: what every one of them queues, phase by phase.
struct Group {
  int depth = 0;
  std::vector<std::function<void()>> posts, receives, deliveries;
};
thread_local Group group;

void close_group() {
  Group closed;
  std::swap(closed, group);
  for (const auto* phase : {&closed.posts, &closed.receives, &closed.deliveries}) {
    for (const auto& queue : *phase) queue();
  }
}

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  int rank = 0;
  uint64_t next = 0;  // number of its next collective
};

namespace {

ncclResult_t collective(const Call& call, ncclComm_t comm, cudaStream_t stream) {
  const std::lock_guard lock(cpu::device_mutex());
  const std::shared_ptr<World> world = comm->world;
  if (world->lost) return ncclRemoteError;
  const uint64_t number = comm->next++;
  std::shared_ptr<Meeting>& place = world->meetings[number];
  if (!place) place = std::make_shared<Meeting>();
  const std::shared_ptr<Meeting> meeting = place;
  meeting->calls.emplace(comm->rank, call);
  if (static_cast<int>(meeting->calls.size()) == world->size) world->meetings.erase(number);
  cpu::enqueue(stream, [meeting] { ++meeting->arrived; });
  cpu::enqueue_when(
      stream, [world, meeting] { return world->lost || meeting->arrived == world->size; },
      [world, meeting] {
        if (world->lost || meeting->done) return;
        perform(*meeting);
        meeting->done = true;
      });
  return ncclSuccess;
}

}  // namespace

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(registry_mutex);
  *id = {};
  std::memcpy(id->internal, &next_id, sizeof next_id);
  ++next_id;
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  if (ranks < 1 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  std::unique_lock lock(registry_mutex);
  std::weak_ptr<World>& entry = registry[std::string(id.internal, sizeof id.internal)];
  std::shared_ptr<World> world = entry.lock();
  if (!world) {
    world = std::make_shared<World>();
    world->size = ranks;
    entry = world;
  }
  if (world->size != ranks) return ncclInvalidArgument;
  ++world->joined;
  world->gpus.insert(cpu::gpu_number());
  joined.notify_all();
  joined.wait(lock, [&] { return world->joined == world->size; });
  if (std::ssize(world->gpus) < world->size) return ncclInvalidUsage;
  cpu::expect_others(1);
  ++alive;
  *comm = new ncclComm{std::move(world), rank};
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  --alive;
  cpu::expect_others(-1);
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (group.depth > 0) throw cpu::Fault("a communicator is aborted inside a group");
  {
    const std::lock_guard lock(cpu::device_mutex());
    comm->world->lost = true;
  }
  return ncclCommDestroy(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const std::lock_guard lock(cpu::device_mutex());
  *error = comm->world->lost ? ncclRemoteError : ncclSuccess;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess       ? "no error"
         : result == ncclRemoteError ? "remote process exited or there was a network error"
                                     : "invalid argument";
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group.depth == 0) return ncclInvalidUsage;
  if (--group.depth == 0) close_group();
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return collective({Kind::kAllReduce, static_cast<const std::byte*>(send),
                     static_cast<std::byte*>(receive), count, type, op, 0},
                    comm, stream);
}
ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return collective({Kind::kAllGather, static_cast<const std::byte*>(send),
                     static_cast<std::byte*>(receive), count, type, ncclSum, 0},
                    comm, stream);
}
ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return collective({Kind::kReduceScatter, static_cast<const std::byte*>(send),
                     static_cast<std::byte*>(receive), count, type, op, 0},
                    comm, stream);
}
ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  return collective({Kind::kBroadcast, static_cast<const std::byte*>(send),
                     static_cast<std::byte*>(receive), count, type, ncclSum, root},
                    comm, stream);
}

ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  const std::shared_ptr<World> world = comm->world;
  if (peer < 0 || peer >= world->size) return ncclInvalidArgument;
  if (sends_to_refusal > 0 && --sends_to_refusal == 0) return ncclSystemError;
  const auto mail = std::make_shared<Mail>();
  const std::pair way(comm->rank, peer);
  const auto* from = static_cast<const std::byte*>(send);
  const size_t bytes = count * bytes_of(type);
  group.posts.push_back([=] {
    cpu::enqueue(stream, [=] {
      mail->bytes.assign(from, from + bytes);
      world->mail[way].push_back(mail);
    });
  });
  group.deliveries.push_back([=] {
    cpu::enqueue_when(
        stream, [=] { return world->lost || mail->taken; }, [] {});
  });
  if (group.depth == 0) close_group();
  return ncclSuccess;
}

ncclResult_t ncclRecv(void* receive, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  const std::shared_ptr<World> world = comm->world;
  if (peer < 0 || peer >= world->size) return ncclInvalidArgument;
  const std::pair way(peer, comm->rank);
  const size_t bytes = count * bytes_of(type);
  group.receives.push_back([=] {
    cpu::enqueue_when(
        stream, [=] { return world->lost || !world->mail[way].empty(); },
        [=] {
          if (world->lost) return;
          const std::shared_ptr<Mail> mail = world->mail[way].front();
          world->mail[way].pop_front();
          if (mail->bytes.size() != bytes) {
            throw cpu::Fault("rank " + std::to_string(way.second) + " expects " +
                             std::to_string(bytes) + " bytes and gets " +
                             std::to_string(mail->bytes.size()));
          }
          std::memcpy(receive, mail->bytes.data(), bytes);
          mail->taken = true;
        });
  });
  if (group.depth == 0) close_group();
  return ncclSuccess;
}

namespace weft::nccl_on_cpu {

int communicators() { return alive; }
int open_groups() { return group.depth; }
void refuse_send(int n) { sends_to_refusal = n; }

}  // namespace weft::nccl_on_cpu

namespace weft::comm {

Result<const Nccl*> nccl() {
  static const Nccl table{
      ncclGetUniqueId,    ncclCommInitRank, ncclCommDestroy, ncclCommAbort, ncclCommGetAsyncError,
      ncclGetErrorString, ncclGroupStart,   ncclGroupEnd,    ncclAllReduce, ncclAllGather,
      ncclReduceScatter,  ncclBroadcast,    ncclSend,        ncclRecv};
  return &table;
}

}  // namespace weft::comm
