// A rank's line to its agent, against an agent that reads but answers late.
#include "cluster/process/agent_link.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <optional>
#include <vector>

#include "cluster/process/frame_io.h"
#include "cluster/process/process.h"
#include "cluster/process/rank_now.h"

namespace weft {
namespace {

int listen_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto* plain = static_cast<const sockaddr*>(static_cast<const void*>(&address));
  EXPECT_EQ(::bind(fd, plain, sizeof(address)), 0);
  EXPECT_EQ(::listen(fd, 4), 0);
  return fd;
}

proto::RankEnvelope next_message(int fd) {
  proto::RankFrame frame;
  const auto bytes = read_frame(fd);
  EXPECT_TRUE(bytes && frame.ParseFromString(*bytes));
  return frame.envelope();
}

void acknowledge(int fd, uint64_t sequence) {
  proto::RankFrame frame;
  frame.mutable_reply()->set_sequence(sequence);
  EXPECT_TRUE(write_all(fd, framed(frame)));
}

TEST(AgentLink, MetricsBehindALateAnswerShareMessagesAndNoneIsLost) {
  constexpr int kSteps = 500;
  const std::string path =
      std::filesystem::temp_directory_path() / ("weft-link-" + std::to_string(::getpid()));
  const int listener = listen_at(path);
  AgentLink link(path, {});
  const int fd = ::accept(listener, nullptr, nullptr);
  next_message(fd);  // the hello
  for (int step = 1; step <= kSteps; ++step) {
    proto::RankEnvelope message;
    message.mutable_metrics()->add_records()->set_step(step);
    ASSERT_TRUE(link.send(std::move(message)).ok());
  }
  std::vector<int64_t> steps;
  uint64_t messages = 0;
  while (steps.size() < kSteps) {
    const proto::RankEnvelope message = next_message(fd);
    EXPECT_EQ(message.sequence(), ++messages);
    for (const auto& record : message.metrics().records()) steps.push_back(record.step());
    acknowledge(fd, message.sequence());
  }
  for (int step = 1; step <= kSteps; ++step) EXPECT_EQ(steps[static_cast<size_t>(step - 1)], step);
  EXPECT_LE(messages, 5u);  // four on their way, and one for all that waited behind them
  EXPECT_TRUE(link.flush().ok());
  ::close(fd);
  ::close(listener);
  std::filesystem::remove(path);
}

TEST(AgentLink, TellsOnceASecondWhatTheRankDoes) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("weft-link-now-" + std::to_string(::getpid()));
  const int listener = listen_at(path);
  Activity activity;
  activity.set_step(9);
  const Activity::Phase phase(&activity, "backward");
  const auto start = std::chrono::steady_clock::now();
  AgentLink link(path, {}, [&] { return rank_now(activity.now(), 3); });
  const int fd = ::accept(listener, nullptr, nullptr);
  next_message(fd);  // the hello
  for (int told = 0; told < 2; ++told) {
    proto::RankFrame frame;
    const auto bytes = read_frame(fd);
    ASSERT_TRUE(bytes && frame.ParseFromString(*bytes) && frame.has_now());
    EXPECT_EQ(frame.now().rank(), 3);
    EXPECT_EQ(frame.now().step(), 9);
    EXPECT_EQ(frame.now().phase(), "backward");
    EXPECT_FALSE(frame.now().has_layer());
    EXPECT_FALSE(frame.now().has_collective());
  }
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(990));
  ::close(fd);
  ::close(listener);
  std::filesystem::remove(path);
}

TEST(AgentLink, ATraceUnderWayIsSentAsItIs) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("weft-trace-" + std::to_string(::getpid()));
  const int listener = listen_at(path);
  AgentLink link(path, {});
  link.on_trace_now([](uint64_t request) {
    std::optional<proto::RankTrace> trace;
    if (request == 7) trace.emplace().set_request(7);
    return trace;
  });
  const int fd = ::accept(listener, nullptr, nullptr);
  next_message(fd);                          // the hello
  for (const uint64_t request : {6U, 7U}) {  // of the first nothing is recorded
    proto::RankFrame frame;
    frame.mutable_inspect()->set_request(request);
    frame.mutable_inspect()->set_trace_now(true);
    EXPECT_TRUE(write_all(fd, framed(frame)));
  }
  proto::RankFrame answer;
  const auto bytes = read_frame(fd);
  ASSERT_TRUE(bytes && answer.ParseFromString(*bytes));
  EXPECT_EQ(answer.trace().request(), 7u);
  EXPECT_FALSE(link.take_trace_request()) << "no new one was asked for";
  ::close(fd);
  ::close(listener);
  std::filesystem::remove(path);
}

void leave_4_mib() {
  const rlimit limit{static_cast<rlim_t>(data_bytes()) + (4 << 20), RLIM_INFINITY};
  ::setrlimit(RLIMIT_DATA, &limit);
}

bool throws_that_memory_is_short(auto& outcome) {
  try {
    (void)outcome.get();
  } catch (const StatusError& error) {
    return error.status().code() == Code::kResourceExhausted;
  }
  return false;
}

// The process may take 4 MiB more, and the agent announces a message of 12, when it has read of a
// chunk that is sent to it the beginning only.
bool tells_that_memory_is_short(const std::string& path) {
  const int listener = listen_at(path);
  AgentLink link(path, {});
  int fd = ::accept(listener, nullptr, nullptr);
  next_message(fd);  // the hello
  auto chunk = std::async(std::launch::async, [&] { return link.get_chunk("abc"); });
  if (!read_frame(fd)) return false;
  const std::string large(12 << 20, 'x');
  auto put = std::async(std::launch::async, [&] { return link.put_chunk("def", large); });
  char begun = 0;
  if (::recv(fd, &begun, 1, 0) != 1) return false;
  leave_4_mib();
  const std::string header{0, static_cast<char>(12 << 4), 0, 0};
  if (!write_all(fd, header)) return false;
  const bool thrown = throws_that_memory_is_short(chunk) && throws_that_memory_is_short(put);
  proto::RankEnvelope metrics, last_word;
  metrics.mutable_metrics()->add_records()->set_step(1);
  last_word.mutable_failed()->set_message("out of memory");
  const bool refused = link.send(std::move(metrics)).code() == Code::kResourceExhausted;
  const bool sent = link.send(std::move(last_word)).ok();
  ::close(fd);
  fd = ::accept(listener, nullptr, nullptr);
  next_message(fd);  // the hello
  const bool told = next_message(fd).failed().message() == "out of memory";
  acknowledge(fd, 1);
  return thrown && refused && sent && told && link.flush_for(10);
}

// The process may take 4 MiB more, and sends a chunk of 12.
bool sends_a_chunk_from_where_it_lies(const std::string& path) {
  const int listener = listen_at(path);
  AgentLink link(path, {});
  const int fd = ::accept(listener, nullptr, nullptr);
  next_message(fd);  // the hello
  std::string chunk(12 << 20, 'x');
  chunk.back() = 'y';
  std::string told((12 << 20) + 1000, '\0');
  make_stacks_small();
  leave_4_mib();
  auto put = std::async(std::launch::async, [&] { return link.put_chunk("abc", chunk); });
  std::array<unsigned char, 4> header{};
  if (::recv(fd, header.data(), header.size(), MSG_WAITALL) != 4) return false;
  size_t length = 0;
  for (const unsigned char byte : header) length = length << 8 | byte;
  if (length > told.size()) return false;
  if (::recv(fd, told.data(), length, MSG_WAITALL) != static_cast<ssize_t>(length)) return false;
  told.resize(length);
  proto::RankFrame answer;
  answer.mutable_chunk_put_result()->set_request(1);
  if (!write_all(fd, framed(answer)) || !put.get().ok()) return false;
  const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
  ::setrlimit(RLIMIT_DATA, &none);
  proto::RankFrame frame;
  return frame.ParseFromString(told) && frame.chunk_put().request() == 1 &&
         frame.chunk_put().chunk().hash() == "abc" &&
         frame.chunk_put().chunk().size() == (12 << 20) && frame.chunk_put().data() == chunk;
}

TEST(AgentLink, AChunkIsSentFromWhereItLies) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's allocator is not limited";
#endif
  const std::string path =
      std::filesystem::temp_directory_path() / ("weft-chunk-" + std::to_string(::getpid()));
  EXPECT_EXIT(std::_Exit(sends_a_chunk_from_where_it_lies(path) ? 7 : 1),
              testing::ExitedWithCode(7), testing::Eq(std::string()));
  std::filesystem::remove(path);
}

TEST(AgentLink, AThreadThatIsRefusedMemoryFailsTheCallsAndStillTellsWhy) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's allocator is not limited";
#endif
  const std::string path =
      std::filesystem::temp_directory_path() / ("weft-short-" + std::to_string(::getpid()));
  // No pattern: libonig's regexec stands before the C library's here.
  EXPECT_EXIT(std::_Exit(tells_that_memory_is_short(path) ? 7 : 1), testing::ExitedWithCode(7),
              testing::Eq(std::string()));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace weft
