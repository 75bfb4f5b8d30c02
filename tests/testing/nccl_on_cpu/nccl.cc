// NCCL with ranks that are threads, or processes of this machine. A collective runs once every
// rank's stream has come to it; it is a Fault if the ranks' calls do not fit together, or if what a
// rank puts in changes meanwhile. A send that is not in one group with the receives of its rank is
// done only when it has been received, as in the library's worst case, so that a ring without
// groups hangs here too. After an abort streams go on and do nothing; an abort inside a group is a
// Fault. Two ranks of a communicator on one GPU are refused.
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "cluster/comm/nccl/nccl_library.h"
#include "cluster/comm/reduce_elements.h"
#include "tests/testing/cuda_on_cpu/libraries/installed.h"
#include "tests/testing/nccl_on_cpu/nccl_on_cpu.h"
#include "tests/testing/nccl_on_cpu/post.h"

namespace cpu = weft::cuda_on_cpu;

namespace {

using weft::nccl_on_cpu::Post;
using Bytes = std::vector<std::byte>;

enum class Kind { kAllReduce, kAllGather, kReduceScatter, kBroadcast };

// What has to be alike on all ranks.
struct Call {
  Kind kind;
  int root;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t op;
  bool operator==(const Call&) const = default;
};
static_assert(std::has_unique_object_representations_v<Call>);  // it goes from rank to rank

struct World {
  int size = 0;
  std::unique_ptr<Post> post;  // guarded by the device's mutex
  bool lost() const { return post->has("lost"); }
};

std::atomic<int> alive{0};
thread_local int sends_to_refusal = 0;  // 0: none is refused

std::mutex registry_mutex;
std::map<std::string, std::weak_ptr<World>> registry;
uint64_t next_id = 1;

// A folder; empty: ranks are threads.
std::string& meeting_place() {
  static std::string folder;
  return folder;
}

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

// The name of what a rank puts into a collective.
std::string name_of(uint64_t number, int rank) {
  return "put-" + std::to_string(number) + "-" + std::to_string(rank);
}

// A rank's part: its call, then its elements.
Bytes pack(const Call& call, const std::byte* send, size_t bytes) {
  Bytes packed(sizeof call + bytes);
  std::memcpy(packed.data(), &call, sizeof call);
  if (bytes > 0) std::memcpy(packed.data() + sizeof call, send, bytes);
  return packed;
}

// What all ranks put in; throws Fault where it does not fit together.
std::vector<Bytes> collect(const World& world, uint64_t number) {
  std::vector<Bytes> parts;
  Call first{};
  for (int rank = 0; rank < world.size; ++rank) {
    Bytes packed = world.post->read(name_of(number, rank));
    Call call{};
    std::memcpy(&call, packed.data(), sizeof call);
    if (rank == 0) first = call;
    if (call != first) {
      throw cpu::Fault("rank " + std::to_string(rank) + " calls another collective than rank 0");
    }
    packed.erase(packed.begin(), packed.begin() + sizeof call);
    parts.push_back(std::move(packed));
  }
  return parts;
}

// `bytes` of every part from `offset` on, reduced in rank order.
void sum_up(const std::vector<Bytes>& parts, size_t offset, const Call& call, std::byte* receive) {
  Bytes sum(
      parts[0].begin() + static_cast<std::ptrdiff_t>(offset),
      parts[0].begin() + static_cast<std::ptrdiff_t>(offset + call.count * bytes_of(call.type)));
  for (size_t rank = 1; rank < parts.size(); ++rank) {
    reduce(sum.data(), parts[rank].data() + offset, call.count, call);
  }
  std::copy(sum.begin(), sum.end(), receive);
}

void perform(const std::vector<Bytes>& parts, const Call& call, int rank, std::byte* receive) {
  switch (call.kind) {
    case Kind::kAllReduce:
      return sum_up(parts, 0, call, receive);
    case Kind::kReduceScatter:
      return sum_up(parts, static_cast<size_t>(rank) * call.count * bytes_of(call.type), call,
                    receive);
    case Kind::kAllGather:
      for (const Bytes& part : parts) receive = std::copy(part.begin(), part.end(), receive);
      return;
    case Kind::kBroadcast:
      const Bytes& part = parts[static_cast<size_t>(call.root)];
      std::copy(part.begin(), part.end(), receive);
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
  uint64_t next = 0;                                // number of its next collective
  std::map<std::pair<int, int>, uint64_t> letters;  // by sender and receiver, so far
};

namespace {

// How much a rank of `size` puts in.
size_t bytes_in(const Call& call, int rank, int size) {
  if (call.kind == Kind::kBroadcast && call.root != rank) return 0;
  const size_t parts = call.kind == Kind::kReduceScatter ? static_cast<size_t>(size) : 1;
  return parts * call.count * bytes_of(call.type);
}

ncclResult_t collective(const Call& call, const void* send, void* receive, ncclComm_t comm,
                        cudaStream_t stream) {
  const std::lock_guard lock(cpu::device_mutex());
  const std::shared_ptr<World> world = comm->world;
  if (world->lost()) return ncclRemoteError;
  const uint64_t number = comm->next++;
  const int rank = comm->rank;
  const auto own = [=, bytes = bytes_in(call, rank, world->size)] {
    return pack(call, static_cast<const std::byte*>(send), bytes);
  };
  const auto all_have_come = [=] {
    int come = 0;
    while (come < world->size && world->post->has(name_of(number, come))) ++come;
    return come == world->size;
  };
  cpu::enqueue(stream, [=] { world->post->put(name_of(number, rank), own()); });
  cpu::enqueue_when(
      stream, [=] { return all_have_come() || world->lost(); },
      [=] {
        if (world->lost()) return;
        if (world->post->read(name_of(number, rank)) != own()) {
          throw cpu::Fault("what is under way in a collective was written to");
        }
        perform(collect(*world, number), call, rank, static_cast<std::byte*>(receive));
        // Whoever came to this one has ended the one before.
        if (number > 0) world->post->remove(name_of(number - 1, rank));
      });
  return ncclSuccess;
}

// The world that an id stands for, shared by the threads of this process.
std::shared_ptr<World> world_of(const std::string& id, int ranks) {
  const std::lock_guard lock(registry_mutex);
  std::shared_ptr<World> world = registry[id].lock();
  if (world == nullptr) {
    world = std::make_shared<World>();
    world->size = ranks;
    world->post =
        id.starts_with('/') ? weft::nccl_on_cpu::make_post(id) : weft::nccl_on_cpu::make_post();
    registry[id] = world;
  }
  return world;
}

// Tells all ranks which GPU this one has and waits for them; true: each has one of its own.
bool meet(const World& world, int rank) {
  const int gpu = cpu::gpu_numbers()[static_cast<size_t>(cpu::chosen_gpu())];
  const auto name = [](int of) { return "gpu-" + std::to_string(of); };
  std::set<Bytes> gpus;
  Bytes own(sizeof gpu);
  std::memcpy(own.data(), &gpu, sizeof gpu);
  for (int next = -1; next < world.size;) {
    {
      const std::lock_guard lock(cpu::device_mutex());
      if (next < 0) world.post->put(name(rank), own);
      next = std::max(next, 0);
      for (; next < world.size && world.post->has(name(next)); ++next) {
        gpus.insert(world.post->read(name(next)));
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return std::ssize(gpus) == world.size;
}

}  // namespace

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(registry_mutex);
  *id = {};
  std::string text = std::to_string(next_id++);
  if (!meeting_place().empty()) {
    text = meeting_place() + "/nccl-XXXXXX";
    if (text.size() >= sizeof id->internal || ::mkdtemp(text.data()) == nullptr) {
      return ncclSystemError;
    }
  }
  text.copy(id->internal, sizeof id->internal - 1);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  if (ranks < 1 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  std::shared_ptr<World> world = world_of(id.internal, ranks);
  if (world->size != ranks) return ncclInvalidArgument;
  if (!meet(*world, rank)) return ncclInvalidUsage;
  cpu::expect_others(1);
  ++alive;
  *comm = new ncclComm{std::move(world), rank, 0, {}};
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
    comm->world->post->put("lost", {});
  }
  return ncclCommDestroy(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const std::lock_guard lock(cpu::device_mutex());
  *error = comm->world->lost() ? ncclRemoteError : ncclSuccess;
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
  return collective({Kind::kAllReduce, 0, count, type, op}, send, receive, comm, stream);
}
ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return collective({Kind::kAllGather, 0, count, type, ncclSum}, send, receive, comm, stream);
}
ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return collective({Kind::kReduceScatter, 0, count, type, op}, send, receive, comm, stream);
}
ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  return collective({Kind::kBroadcast, root, count, type, ncclSum}, send, receive, comm, stream);
}

namespace {

// The name of the next message on this way.
std::string next_letter(ncclComm_t comm, int from, int to) {
  const uint64_t number = comm->letters[{from, to}]++;
  return "mail-" + std::to_string(from) + "-" + std::to_string(to) + "-" + std::to_string(number);
}

}  // namespace

ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  const std::shared_ptr<World> world = comm->world;
  if (peer < 0 || peer >= world->size) return ncclInvalidArgument;
  if (sends_to_refusal > 0 && --sends_to_refusal == 0) return ncclSystemError;
  const std::string letter = next_letter(comm, comm->rank, peer);
  const auto* from = static_cast<const std::byte*>(send);
  const size_t bytes = count * bytes_of(type);
  group.posts.push_back(
      [=] { cpu::enqueue(stream, [=] { world->post->put(letter, Bytes(from, from + bytes)); }); });
  group.deliveries.push_back([=] {
    cpu::enqueue_when(
        stream, [=] { return !world->post->has(letter) || world->lost(); }, [] {});
  });
  if (group.depth == 0) close_group();
  return ncclSuccess;
}

ncclResult_t ncclRecv(void* receive, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  const std::shared_ptr<World> world = comm->world;
  if (peer < 0 || peer >= world->size) return ncclInvalidArgument;
  const std::string letter = next_letter(comm, peer, comm->rank);
  const size_t bytes = count * bytes_of(type);
  group.receives.push_back([=, rank = comm->rank] {
    cpu::enqueue_when(
        stream, [=] { return world->post->has(letter) || world->lost(); },
        [=] {
          if (world->lost()) return;
          const Bytes mail = world->post->read(letter);
          if (mail.size() != bytes) {
            throw cpu::Fault("rank " + std::to_string(rank) + " expects " + std::to_string(bytes) +
                             " bytes and gets " + std::to_string(mail.size()));
          }
          if (bytes > 0) std::memcpy(receive, mail.data(), bytes);
          world->post->remove(letter);
        });
  });
  if (group.depth == 0) close_group();
  return ncclSuccess;
}

namespace weft::nccl_on_cpu {

void meet_in(const std::string& folder) { meeting_place() = folder; }

int communicators() { return alive; }
int open_groups() { return group.depth; }
void refuse_send(int n) { sends_to_refusal = n; }

}  // namespace weft::nccl_on_cpu

namespace weft::comm {

Result<const Nccl*> nccl() {
  WEFT_RETURN_IF_ERROR(cpu::look_for_library("libnccl.so.2"));
  static const Nccl table{
      ncclGetUniqueId,    ncclCommInitRank, ncclCommDestroy, ncclCommAbort, ncclCommGetAsyncError,
      ncclGetErrorString, ncclGroupStart,   ncclGroupEnd,    ncclAllReduce, ncclAllGather,
      ncclReduceScatter,  ncclBroadcast,    ncclSend,        ncclRecv};
  return &table;
}

}  // namespace weft::comm
