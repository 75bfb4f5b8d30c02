#include "cluster/rpc/rpc.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

namespace weft {
namespace {

// Keeps what comes and waits for it.
struct Inbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<proto::NodeFrame> frames;
  std::vector<Status> closes;

  Channel::Handlers handlers() {
    return {[this](proto::NodeFrame frame) {
              const std::lock_guard lock(mutex);
              frames.push_back(std::move(frame));
              changed.notify_all();
            },
            [this](Status why) {
              const std::lock_guard lock(mutex);
              closes.push_back(std::move(why));
              changed.notify_all();
            }};
  }
  bool wait(const std::function<bool()>& done) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), done);
  }
};

proto::NodeFrame log_frame(int rank, size_t bytes) {
  proto::NodeFrame frame;
  frame.mutable_log()->set_rank(rank);
  frame.mutable_log()->set_data(std::string(bytes, 'x'));
  return frame;
}

void expect_both_ways(const std::shared_ptr<Channel>& a, const std::shared_ptr<Channel>& b) {
  Inbox at_a, at_b;
  a->start(at_a.handlers());
  b->start(at_b.handlers());
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(a->send(log_frame(i, static_cast<size_t>(i) * 997)));
    ASSERT_TRUE(b->send(log_frame(-i, 10)));
  }
  ASSERT_TRUE(at_b.wait([&] { return at_b.frames.size() == 200; }));
  ASSERT_TRUE(at_a.wait([&] { return at_a.frames.size() == 200; }));
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(at_b.frames[static_cast<size_t>(i)].log().rank(), i);
    EXPECT_EQ(at_a.frames[static_cast<size_t>(i)].log().rank(), -i);
  }
  a->close(Status(Code::kCancelled, "enough"));
  ASSERT_TRUE(at_b.wait([&] { return at_b.closes.size() == 1; }));
  ASSERT_TRUE(at_a.wait([&] { return at_a.closes.size() == 1; }));
  EXPECT_FALSE(a->send(log_frame(0, 1)));
  EXPECT_EQ(at_a.closes[0].message(), "enough");
}

struct Accepted {
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<Channel> channel;
  std::shared_ptr<Channel> wait() {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, std::chrono::seconds(20), [&] { return channel != nullptr; });
    return std::move(channel);
  }
  RpcServer::OnAccept handler() {
    return [this](std::shared_ptr<Channel> arrived) {
      const std::lock_guard lock(mutex);
      channel = std::move(arrived);
      changed.notify_all();
    };
  }
};

TEST(ChannelPair, CarriesFramesInOrder) {
  const auto [a, b] = make_channel_pair();
  expect_both_ways(a, b);
}

TEST(Rpc, CarriesFramesInOrder) {
  Accepted accepted;
  const auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const auto client = connect("127.0.0.1", (*server)->port(), "secret");
  ASSERT_TRUE(client.has_value()) << client.error().to_string();
  const auto channel = accepted.wait();
  ASSERT_NE(channel, nullptr);
  expect_both_ways(*client, channel);
}

TEST(Rpc, WrongSecretIsRefused) {
  Accepted accepted;
  const auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const auto client = connect("127.0.0.1", (*server)->port(), "another");
  ASSERT_FALSE(client.has_value());
  EXPECT_EQ(client.error().code(), Code::kUnauthenticated);
  EXPECT_EQ(accepted.channel, nullptr);
}

TEST(Rpc, PlainBytesAreNoPeer) {
  Accepted accepted;
  const auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>((*server)->port()));
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const char hello[] = "GET / HTTP/1.1\r\n\r\n";
  ASSERT_GT(::send(fd, hello, sizeof hello, 0), 0);
  char answer[256];
  while (recv(fd, answer, sizeof answer, 0) > 0) {
  }
  close(fd);
  EXPECT_EQ(accepted.channel, nullptr);
}

TEST(Rpc, NobodyThereAndBusyPort) {
  Accepted accepted;
  auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const int port = (*server)->port();
  const auto second = listen("127.0.0.1", port, "secret", accepted.handler());
  ASSERT_FALSE(second.has_value());
  const std::string busy = second.error().to_string();
  EXPECT_NE(busy.find(std::to_string(port)), std::string::npos) << busy;
  EXPECT_NE(busy.find("--agent-port"), std::string::npos) << "the coordinator's option: " << busy;
  server->reset();
  const auto client = connect("127.0.0.1", port, "secret");
  ASSERT_FALSE(client.has_value());
  EXPECT_EQ(client.error().code(), Code::kUnavailable);
}

TEST(Rpc, AServersEndClosesItsChannels) {
  Accepted accepted;
  auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const auto client = connect("127.0.0.1", (*server)->port(), "secret");
  ASSERT_TRUE(client.has_value());
  const auto channel = accepted.wait();
  Inbox at_client, at_server;
  (*client)->start(at_client.handlers());
  channel->start(at_server.handlers());
  server->reset();
  EXPECT_TRUE(at_client.wait([&] { return at_client.closes.size() == 1; }));
  EXPECT_TRUE(at_server.wait([&] { return at_server.closes.size() == 1; }));
}

// A peer that has done its part of the handshake is accepted or closed.
TEST(Rpc, AServerMayEndInTheMiddleOfAHandshake) {
  for (int round = 0; round < 100; ++round) {
    Inbox inbox;
    Accepted accepted;
    auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
    ASSERT_TRUE(server.has_value());
    const auto client = connect("127.0.0.1", (*server)->port(), "secret");
    ASSERT_TRUE(client.has_value());
    server->reset();
    (*client)->start(inbox.handlers());
    ASSERT_TRUE(inbox.wait([&] { return inbox.closes.size() == 1; }));
  }
}

TEST(Rpc, AChannelMayOutliveItsServer) {
  Accepted accepted;
  auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const auto client = connect("127.0.0.1", (*server)->port(), "secret");
  ASSERT_TRUE(client.has_value());
  const auto channel = accepted.wait();
  server->reset();
  EXPECT_FALSE(channel->send(log_frame(1, 1)));
  channel->close(Status(Code::kCancelled, "late"));
}

TEST(Rpc, WhatWasSentBeforeTheCloseArrives) {
  Accepted accepted;
  const auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const auto client = connect("127.0.0.1", (*server)->port(), "secret");
  ASSERT_TRUE(client.has_value());
  const auto channel = accepted.wait();
  Inbox at_client, at_server;
  (*client)->start(at_client.handlers());
  channel->start(at_server.handlers());
  for (int i = 0; i < 20; ++i) channel->send(log_frame(i, 1 << 20));
  channel->close(Status(Code::kCancelled, "refused"));
  ASSERT_TRUE(at_client.wait([&] { return at_client.closes.size() == 1; }));
  EXPECT_EQ(at_client.frames.size(), 20u);
  ASSERT_TRUE(at_server.wait([&] { return at_server.closes.size() == 1; }));  // its handler too
}

TEST(Rpc, APeerThatSaysNothingHoldsUpNobody) {
  Accepted accepted;
  auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>((*server)->port()));
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  EXPECT_TRUE(connect("127.0.0.1", (*server)->port(), "secret").has_value());
  server->reset();  // closes the silent one too
  char byte = 0;
  EXPECT_LE(recv(fd, &byte, 1, 0), 0);
  close(fd);
}

TEST(Rpc, ASilentServerIsGivenUpOn) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
  socklen_t size = sizeof at;
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  ASSERT_EQ(::listen(fd, 4), 0);
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size), 0);
  EXPECT_FALSE(connect("127.0.0.1", ntohs(at.sin_port), "secret", 0.3).has_value());
  close(fd);
}

TEST(Rpc, AnOversizeFrameIsNotSent) {
  Accepted accepted;
  const auto server = listen("127.0.0.1", 0, "secret", accepted.handler());
  ASSERT_TRUE(server.has_value());
  const auto client = connect("127.0.0.1", (*server)->port(), "secret");
  ASSERT_TRUE(client.has_value());
  Inbox inbox;
  (*client)->start(inbox.handlers());
  EXPECT_FALSE((*client)->send(log_frame(0, kFrameBytesMax + 1)));
  ASSERT_TRUE(inbox.wait([&] { return inbox.closes.size() == 1; }));
  EXPECT_EQ(inbox.closes[0].code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace weft
