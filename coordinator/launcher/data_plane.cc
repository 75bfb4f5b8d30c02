#include "coordinator/launcher/data_plane.h"

#include <chrono>

namespace weft {

namespace {
// A full disk, and what follows from it until the store is open again.
bool may_pass(Code code) { return code == Code::kResourceExhausted || code == Code::kUnavailable; }
constexpr int kReadsMost = 20;  // of what cannot be read though the disk has room: in 10 s
}  // namespace

bool is_bulk(const proto::NodeFrame& frame) {
  return frame.has_log() || frame.has_chunk_get() || frame.has_chunk_put() ||
         frame.has_object_get() || frame.has_manifest_get();
}

DataPlane::DataPlane(JobStore& store, Content& content, int threads)
    : store_(store), content_(content) {
  if (threads == 0) return;
  threads_.emplace_back([this] { run(logs_); });
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(chunks_); });
}

DataPlane::~DataPlane() {
  for (Queue* queue : {&logs_, &chunks_}) {
    std::lock_guard lock(queue->mutex);
    queue->stopping = true;
    queue->ready.notify_all();
    queue->stopped.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void DataPlane::run(Queue& queue) {
  std::unique_lock lock(queue.mutex);
  while (true) {
    queue.ready.wait(lock, [&] { return queue.stopping || !queue.work.empty(); });
    if (queue.stopping) return;
    auto work = std::move(queue.work.front());
    queue.work.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
}

void DataPlane::add(Queue& queue, std::function<void()> work) {
  if (threads_.empty()) return work();
  std::lock_guard lock(queue.mutex);
  queue.work.push_back(std::move(work));
  queue.ready.notify_one();
}

void DataPlane::post(std::function<void()> work) { add(chunks_, std::move(work)); }

void DataPlane::post(std::shared_ptr<Channel> channel, proto::NodeFrame frame) {
  const bool log = frame.has_log();
  auto shared = std::make_shared<proto::NodeFrame>(std::move(frame));
  add(log ? logs_ : chunks_,
      [this, channel = std::move(channel), shared] { handle(*channel, *shared); });
}

bool DataPlane::waited(Queue& queue) {
  std::unique_lock lock(queue.mutex);
  if (threads_.empty() || queue.stopping) return false;
  queue.stopped.wait_for(lock, std::chrono::milliseconds(500), [&] { return queue.stopping; });
  return !queue.stopping;
}

// A store that a full disk has closed is soon open for reading again.
template <typename Read>
auto DataPlane::once_open(const Read& read) {
  auto result = read();
  for (int reads = 1; !result && may_pass(result.error().code()); ++reads) {
    const bool full = result.error().code() == Code::kResourceExhausted;
    if ((!full && reads == kReadsMost) || !waited(chunks_)) break;
    result = read();
  }
  return result;
}

// While the disk is full the log waits: its node sends each piece once a connection.
void DataPlane::store_log(Channel& channel, const proto::LogChunk& log) {
  Result<int64_t> length = fail(Code::kUnavailable, "");
  while (true) {
    length = store_.append_log(log.attempt().job(), log.attempt().attempt(), log.rank(),
                               log.offset(), log.data());
    if (length || !may_pass(length.error().code())) break;
    if (!waited(logs_)) return;
  }
  proto::NodeFrame answer;
  proto::LogAck& ack = *answer.mutable_log_ack();
  *ack.mutable_attempt() = log.attempt();
  ack.set_rank(log.rank());
  // Of a job that is gone nothing is kept, and its node need not send it again.
  ack.set_offset(length ? *length : log.offset() + static_cast<int64_t>(log.data().size()));
  channel.send(answer);
}

void DataPlane::handle(Channel& channel, const proto::NodeFrame& frame) {
  proto::NodeFrame answer;
  if (frame.has_log()) return store_log(channel, frame.log());
  if (frame.has_chunk_get()) {
    auto bytes = once_open([&] { return content_.get_chunk(frame.chunk_get().hash()); });
    proto::ChunkData& data = *answer.mutable_chunk_data();
    data.set_request(frame.chunk_get().request());
    data.set_hash(frame.chunk_get().hash());
    data.set_found(bytes.has_value());
    if (bytes) data.set_data(std::move(*bytes));
  } else if (frame.has_chunk_put()) {
    const proto::ChunkPut& put = frame.chunk_put();
    const Content::Attempt by{put.attempt().job(), put.attempt().attempt()};
    const Status status = put.has_attempt() ? content_.put_chunk(put.hash(), put.data(), by)
                                            : content_.put_chunk(put.hash(), put.data());
    proto::ChunkPutResult& result = *answer.mutable_chunk_put_result();
    result.set_request(put.request());
    result.set_hash(put.hash());
    result.set_stored(status.ok());
    if (!status.ok()) result.set_code(std::string(code_name(status.code())));
    result.set_message(status.message());
  } else if (frame.has_object_get()) {
    auto manifest = once_open([&] { return store_.object(frame.object_get().id()); });
    answer.mutable_object_data()->set_request(frame.object_get().request());
    answer.mutable_object_data()->set_found(manifest.has_value());
    if (manifest) *answer.mutable_object_data()->mutable_manifest() = std::move(*manifest);
  } else {
    auto manifest = once_open([&] { return store_.checkpoint(frame.manifest_get().checkpoint()); });
    answer.mutable_manifest_data()->set_request(frame.manifest_get().request());
    answer.mutable_manifest_data()->set_found(manifest.has_value());
    if (manifest) *answer.mutable_manifest_data()->mutable_manifest() = std::move(*manifest);
  }
  channel.send(answer);
}

}  // namespace weft
