// The parts of JobStore that read and write what belongs to a job (events, metrics, logs), and the
// records that belong to none (checkpoints by id, objects, nodes).
#include <algorithm>
#include <utility>

#include "coordinator/store/job_store.h"
#include "coordinator/store/keys.h"
#include "coordinator/store/topics.h"

namespace weft {
namespace {

constexpr int64_t kLogBytesMax = int64_t{256}
                                 << 20;  // of one rank in one attempt; the rest is dropped

template <typename Message>
bool parse_into(std::string_view bytes, Message& message) {
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

Status damaged(std::string_view key) {
  return {Code::kCorruption,
          "a record of the job store cannot be read: " + std::string(key.substr(0, 2))};
}

template <typename Message>
Result<std::vector<Message>> read_after(const KeyValue& bytes, const std::string& prefix,
                                        int64_t after, int limit) {
  std::vector<Message> found;
  Status broken;
  const std::string from = prefix + keys::big_endian(static_cast<uint64_t>(after + 1), 8);
  WEFT_RETURN_IF_ERROR(bytes.scan(from, keys::after(prefix), [&](auto key, auto value) {
    if (static_cast<int>(found.size()) >= limit) return false;
    if (!parse_into(value, found.emplace_back())) return broken = damaged(key), false;
    return true;
  }));
  WEFT_RETURN_IF_ERROR(broken);
  return found;
}

template <typename Message>
Result<Message> read_one(const KeyValue& bytes, const std::string& key, const std::string& kind,
                         const std::string& id, const std::string& list) {
  WEFT_ASSIGN_OR_RETURN(const auto value, bytes.get(key));
  if (!value) {
    return fail(
        Status(Code::kNotFound, "no such " + kind).with_field("id").with_value(id).with_rule(list));
  }
  Message message;
  if (!parse_into(*value, message)) return fail(damaged(key));
  return message;
}

template <typename Message>
Status visit_all(const KeyValue& bytes, const std::string& prefix,
                 const std::function<void(const Message&)>& visit) {
  Status broken;
  WEFT_RETURN_IF_ERROR(bytes.scan(prefix, keys::after(prefix), [&](auto key, auto value) {
    Message message;
    if (!parse_into(value, message)) return broken = damaged(key), false;
    visit(message);
    return true;
  }));
  return broken;
}

Result<int64_t> length_of(const KeyValue& bytes, const std::string& log) {
  WEFT_ASSIGN_OR_RETURN(const auto end, bytes.last(log, log + std::string(9, '\xff')));
  if (!end) return int64_t{0};
  const auto offset = keys::from_big_endian(std::string_view(end->first).substr(log.size()));
  return static_cast<int64_t>(offset + end->second.size());
}

}  // namespace

Result<std::vector<proto::JobEvent>> JobStore::events(const std::string& job, int64_t after,
                                                      int limit) const {
  return read_after<proto::JobEvent>(*bytes_, keys::events(job), after, limit);
}

Result<std::vector<proto::MetricRecord>> JobStore::metrics(const std::string& job, int64_t after,
                                                           int limit) const {
  return read_after<proto::MetricRecord>(*bytes_, keys::metrics(job), after, limit);
}

Result<int64_t> JobStore::append_log(const std::string& job, int32_t attempt, int32_t rank,
                                     int64_t offset, std::string_view data) {
  std::lock_guard writer(write_mutex_);
  const JobPointer found = find(job);
  if (!found) return fail(Code::kNotFound, "no such job: " + job);
  if (attempt < 1 || attempt > found->attempt() || rank < -1 || rank >= 65536 || offset < 0 ||
      offset > int64_t{1} << 50) {
    return fail(Code::kInvalidArgument, job + ": log bytes of an unknown attempt, rank or place");
  }
  const std::string log = keys::log(job, attempt, rank);
  WEFT_ASSIGN_OR_RETURN(const int64_t length, length_of(*bytes_, log));
  const int64_t end = offset + static_cast<int64_t>(data.size());
  if (length >= kLogBytesMax) return std::max(length, end);
  if (offset > length || end <= length) return length;
  WriteSet set;
  set.puts.emplace_back(keys::log(job, attempt, rank, length),
                        data.substr(static_cast<size_t>(length - offset)));
  WEFT_RETURN_IF_ERROR(bytes_->write(set));
  hub_.notify(job, kTopicLogs);
  return end;
}

Result<std::string> JobStore::read_log(const std::string& job, int32_t attempt, int32_t rank,
                                       int64_t offset, int64_t limit) const {
  const std::string log = keys::log(job, attempt, rank);
  std::string from = keys::log(job, attempt, rank, offset);
  WEFT_ASSIGN_OR_RETURN(const auto piece, bytes_->last(log, from + '\0'));
  if (piece) from = piece->first;
  std::string data;
  const auto add = [&](std::string_view key, std::string_view value) {
    const auto start = static_cast<int64_t>(keys::from_big_endian(key.substr(log.size())));
    const int64_t skip = std::max<int64_t>(0, offset - start);
    if (skip < static_cast<int64_t>(value.size())) data += value.substr(static_cast<size_t>(skip));
    return static_cast<int64_t>(data.size()) < limit;
  };
  WEFT_RETURN_IF_ERROR(bytes_->scan(from, log + std::string(9, '\xff'), add));
  if (static_cast<int64_t>(data.size()) > limit) data.resize(static_cast<size_t>(limit));
  return data;
}

Result<std::vector<LogExtent>> JobStore::log_extents(const std::string& job) const {
  const std::string prefix = keys::logs(job);
  std::vector<LogExtent> extents;
  std::string from = prefix;
  while (true) {
    std::string first;
    WEFT_RETURN_IF_ERROR(bytes_->scan(from, keys::after(prefix), [&](auto key, auto) {
      first = std::string(key);
      return false;
    }));
    if (first.empty()) return extents;
    const std::string_view numbers = std::string_view(first).substr(prefix.size());
    LogExtent extent;
    extent.attempt = static_cast<int32_t>(keys::from_big_endian(numbers.substr(0, 4)));
    extent.rank = static_cast<int32_t>(keys::from_big_endian(numbers.substr(4, 4))) - 1;
    const std::string log = keys::log(job, extent.attempt, extent.rank);
    WEFT_ASSIGN_OR_RETURN(extent.bytes, length_of(*bytes_, log));
    extents.push_back(extent);
    from = log + std::string(9, '\xff');
  }
}

Result<int64_t> JobStore::log_length(const std::string& job, int32_t attempt, int32_t rank) const {
  return length_of(*bytes_, keys::log(job, attempt, rank));
}

Result<std::vector<std::string>> JobStore::checkpoint_ids(const std::string& job) const {
  const std::string prefix = keys::checkpoints(job);
  std::vector<std::string> ids;
  WEFT_RETURN_IF_ERROR(bytes_->scan(prefix, keys::after(prefix), [&](auto key, auto) {
    ids.emplace_back(key.substr(prefix.size() + 8));
    return true;
  }));
  return ids;
}

Result<std::vector<proto::CheckpointManifest>> JobStore::checkpoints(const std::string& job) const {
  WEFT_ASSIGN_OR_RETURN(const auto ids, checkpoint_ids(job));
  std::vector<proto::CheckpointManifest> found;
  for (const std::string& id : ids) {
    WEFT_ASSIGN_OR_RETURN(auto manifest, checkpoint(id));
    found.push_back(std::move(manifest));
  }
  return found;
}

Result<proto::CheckpointManifest> JobStore::checkpoint(const std::string& id) const {
  return read_one<proto::CheckpointManifest>(*bytes_, keys::checkpoint(id), "checkpoint", id,
                                             "'weft checkpoints' and GET /api/v1/checkpoints list "
                                             "what there is");
}

Status JobStore::for_each_checkpoint(
    const std::function<void(const proto::CheckpointManifest&)>& visit) const {
  return visit_all<proto::CheckpointManifest>(*bytes_, keys::checkpoint(""), visit);
}

Status JobStore::put_object(const proto::ObjectManifest& manifest) {
  WriteSet set;
  set.puts.emplace_back(keys::object(manifest.id()), manifest.SerializeAsString());
  return bytes_->write(set);
}

Result<proto::ObjectManifest> JobStore::object(const std::string& id) const {
  return read_one<proto::ObjectManifest>(*bytes_, keys::object(id), "object", id,
                                         "POST /api/v1/objects answers with an object's id");
}

Status JobStore::for_each_object(
    const std::function<void(const proto::ObjectManifest&)>& visit) const {
  return visit_all<proto::ObjectManifest>(*bytes_, keys::object(""), visit);
}

Status JobStore::put_node(const proto::NodeInfo& node, bool durable) {
  if (durable) {
    std::lock_guard lock(write_mutex_);
    WriteSet set;
    set.puts.emplace_back(keys::node(node.name()), node.SerializeAsString());
    WEFT_RETURN_IF_ERROR(bytes_->write(set));
  }
  {
    std::lock_guard lock(cache_mutex_);
    nodes_[node.name()] = node;
  }
  hub_.notify("", kTopicNodes);
  return {};
}

Status JobStore::forget_node(const std::string& name) {
  std::lock_guard lock(write_mutex_);
  {
    std::lock_guard cache_lock(cache_mutex_);
    const auto node = nodes_.find(name);
    if (node == nodes_.end()) {
      return Status(Code::kNotFound, "no such node")
          .with_field("name")
          .with_value(name)
          .with_rule("'weft nodes' and GET /api/v1/nodes list what there is");
    }
    if (node->second.state() != proto::NODE_STATE_LOST) {
      return Status(Code::kFailedPrecondition, "the node " + name + " answers")
          .with_field("name")
          .with_value(name)
          .with_rule("must be lost; stop its agent first ('weft down' on its machine)");
    }
    for (const auto& [id, job] : jobs_) {
      const auto& placed = job->placement().nodes();
      const bool there = std::any_of(placed.begin(), placed.end(),
                                     [&](const auto& part) { return part.name() == name; });
      if (!is_active(job->state()) || !there) continue;
      return Status(Code::kFailedPrecondition, id + " still counts on the node " + name)
          .with_field("name")
          .with_value(name)
          .with_rule("must run nothing; the attempt ends soon");
    }
  }
  WriteSet set;
  set.removes.push_back(keys::node(name));
  WEFT_RETURN_IF_ERROR(bytes_->write(set));
  {
    std::lock_guard lock_again(cache_mutex_);
    nodes_.erase(name);
  }
  hub_.notify("", kTopicNodes);
  return {};
}

bool JobStore::has_node(const std::string& name) const {
  std::lock_guard lock(cache_mutex_);
  return nodes_.contains(name);
}

std::vector<proto::NodeInfo> JobStore::nodes() const {
  std::lock_guard lock(cache_mutex_);
  std::vector<proto::NodeInfo> all;
  for (const auto& [name, node] : nodes_) all.push_back(node);
  return all;
}

}  // namespace weft
