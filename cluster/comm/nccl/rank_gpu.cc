#include "cluster/comm/rank_gpu.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <sstream>
#include <utility>

#include "cluster/comm/nccl/nccl_communicator.h"
#include "cluster/comm/single/single_communicator.h"
#include "cluster/comm/staged/staged_communicator.h"
#include "kernels/cuda/device.h"
#include "kernels/tensor/transfer.h"

namespace weft::comm {
namespace {

// The largest of what the ranks say.
int64_t largest(Communicator& world, int64_t own) {
  const auto host = make_caching_allocator();
  Tensor value = Tensor::full(*host, {1}, static_cast<double>(own), DType::kI64);
  world.all_reduce(value, ReduceOp::kMax);
  return static_cast<int64_t>(read_scalar(value));
}

// What every rank says, by rank.
std::vector<std::string> gather(Communicator& world, const std::string& own) {
  const auto host = make_caching_allocator();
  const int64_t width = largest(world, std::ssize(own));
  if (width == 0) return std::vector<std::string>(static_cast<size_t>(world.size()));
  std::string padded = own;
  padded.resize(static_cast<size_t>(width), '\n');
  const Tensor in = Tensor::from<uint8_t>(
      *host, {width}, {reinterpret_cast<const uint8_t*>(padded.data()), padded.size()});
  Tensor out = Tensor::empty(*host, {width * world.size()}, DType::kU8);
  world.all_gather(in, out, std::vector<int64_t>(static_cast<size_t>(world.size()), width));
  std::vector<std::string> all;
  for (int rank = 0; rank < world.size(); ++rank) {
    const auto* text = reinterpret_cast<const char*>(out.data<uint8_t>()) + rank * width;
    const std::string_view line(text, static_cast<size_t>(width));
    all.emplace_back(line.substr(0, line.find_last_not_of('\n') + 1));
  }
  return all;
}

// The first rank's trouble, the same on every rank; good where all are.
Status agree(Communicator& world, const Status& own) {
  const std::vector<std::string> troubles = gather(world, own.message());
  for (size_t rank = 0; rank < troubles.size(); ++rank) {
    if (troubles[rank].empty()) continue;
    return Status(Code::kUnavailable, "rank " + std::to_string(rank) + ": " + troubles[rank]);
  }
  return {};
}

// The GPUs that this rank chooses from: the one it was given, or all that it sees.
Result<std::vector<std::string>> choice_of(const std::string& wanted) {
  WEFT_ASSIGN_OR_RETURN(std::vector<std::string> ids, cuda::device_ids());
  if (ids.empty()) return fail(Code::kUnavailable, "no GPU: the driver shows none");
  if (wanted.empty()) return ids;
  if (std::find(ids.begin(), ids.end(), wanted) != ids.end()) return std::vector{wanted};
  std::string seen;
  for (const std::string& id : ids) seen += (seen.empty() ? "" : ", ") + id;
  return fail(Code::kUnavailable,
              "the GPU of its slot, " + wanted + ", is gone; the driver shows " + seen);
}

// The number by which this process knows a GPU.
int number_of(const std::string& id) {
  const auto ids = cuda::device_ids().value_or(std::vector<std::string>());
  return static_cast<int>(std::find(ids.begin(), ids.end(), id) - ids.begin());
}

}  // namespace

std::vector<size_t> share_out(const std::vector<std::vector<std::string>>& seen) {
  std::vector<size_t> order(seen.size()), chosen(seen.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return seen[a].size() < seen[b].size(); });
  std::map<std::string, int> ranks;
  for (const size_t rank : order) {
    const auto least =
        std::min_element(seen[rank].begin(), seen[rank].end(),
                         [&](const auto& a, const auto& b) { return ranks[a] < ranks[b]; });
    ++ranks[*least];
    chosen[rank] = static_cast<size_t>(least - seen[rank].begin());
  }
  return chosen;
}

Result<RankPlace> take_gpu(std::unique_ptr<Communicator> world, const std::string& wanted) {
  const auto choice = choice_of(wanted);
  WEFT_RETURN_IF_ERROR(agree(*world, choice ? Status() : choice.error()));
  std::string lines;
  for (const std::string& id : *choice) lines += id + "\n";
  std::vector<std::vector<std::string>> seen;
  for (const std::string& text : gather(*world, lines)) {
    std::istringstream in(text);
    std::vector<std::string>& ids = seen.emplace_back();
    for (std::string id; in >> id;) ids.push_back(id);
  }
  const std::vector<size_t> chosen = share_out(seen);
  std::set<std::string> distinct;
  for (size_t rank = 0; rank < seen.size(); ++rank) distinct.insert(seen[rank][chosen[rank]]);
  const auto own = static_cast<size_t>(world->rank());
  const std::string& id = seen[own][chosen[own]];
  auto memory = cuda::make_allocator(number_of(id));
  WEFT_RETURN_IF_ERROR(agree(*world, memory ? Status() : memory.error()));
  if (seen.size() == 1) return RankPlace{std::move(*memory), single_world(), id};
  if (distinct.size() < seen.size()) {
    return RankPlace{std::move(*memory),
                     make_staged_communicator(std::move(world), cuda::make_pinned_allocator()),
                     id + ", some ranks share one: they talk by way of pinned memory"};
  }
  WEFT_ASSIGN_OR_RETURN(auto nccl, make_nccl_communicator(std::move(world), **memory));
  return RankPlace{std::move(*memory), std::move(nccl), id + ", ranks talk over NCCL"};
}

}  // namespace weft::comm
