// The server under requests of every shape, over real sockets, with routes of the test's own.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "coordinator/api/api_server.h"
#include "proto/job.pb.h"
#include "tests/coordinator/api/raw_client.h"

namespace weft::api {
namespace {

const std::string kToken = "0123456789abcdef0123";
const std::string kGood = "Host: localhost\r\nAuthorization: Bearer " + kToken + "\r\n";

class CountStream final : public BodyStream {
 public:
  Result<Next> read(std::string& out) override {
    out += std::to_string(++count_) + ";";
    return count_ < 3 ? Next::kMore : Next::kEnd;
  }

 private:
  int count_ = 0;
};

class SilentStream final : public BodyStream {
 public:
  Result<Next> read(std::string&) override { return Next::kWait; }
  std::string heartbeat() const override { return ": heartbeat\n\n"; }
};

class BrokenStream final : public BodyStream {
 public:
  Result<Next> read(std::string& out) override {
    if (sent_) return fail(Code::kCorruption, "broken");
    sent_ = true;
    out += "begin";
    return Next::kMore;
  }

 private:
  bool sent_ = false;
};

Route route(const std::string& method, const std::string& pattern,
            std::function<Result<Response>(const Request&)> handler) {
  Route made;
  made.method = method;
  made.pattern = pattern;
  made.handler = std::move(handler);
  return made;
}

template <typename Stream>
Result<Response> streamed(const Request&) {
  Response response;
  response.content_type = "text/plain";
  response.stream = std::make_unique<Stream>();
  return response;
}

Router test_router() {
  Router router;
  const auto echo = [](const Request& request) -> Result<Response> {
    Response response;
    response.content_type = "text/plain";
    response.body = request.parameter("id") + ":" + request.body;
    return response;
  };
  router.add(route("GET", "/v1/things/{id}", echo));
  Route put = route("PUT", "/v1/things/{id}", echo);
  put.body = BodyKind::kBytes;
  router.add(put);
  Route json = route("POST", "/v1/things/{id}", echo);
  json.body = BodyKind::kJson;
  router.add(json);
  Route open =
      route("GET", "/v1/open", [](const Request&) -> Result<Response> { return Response{}; });
  open.open = true;
  open.query = {{"x", "anything"}};
  router.add(open);
  router.add(route("GET", "/v1/stream", streamed<CountStream>));
  router.add(route("GET", "/v1/silent", streamed<SilentStream>));
  router.add(route("GET", "/v1/broken", streamed<BrokenStream>));
  router.add(route("GET", "/v1/throws", [](const Request&) -> Result<Response> {
    throw std::runtime_error("secret detail");
  }));
  return router;
}

class HttpTest : public ::testing::Test {
 protected:
  void SetUp() override { start({}); }
  void start(ServerOptions options) {
    options.token = kToken;
    auto started = ApiServer::start(options, test_router(), Logger());
    ASSERT_TRUE(started.has_value()) << started.error().to_string();
    server_ = std::move(*started);
  }
  RawAnswer ask(const std::string& line, const std::string& rest = "") {
    RawClient client(server_->port());
    client.send(line + " HTTP/1.1\r\n" + kGood + rest + "\r\n");
    return client.answer(line.starts_with("HEAD"));
  }
  RawAnswer raw(const std::string& bytes) {
    RawClient client(server_->port());
    client.send(bytes);
    return client.answer(bytes.starts_with("HEAD"));
  }
  std::unique_ptr<ApiServer> server_;
};

TEST_F(HttpTest, AnswersWithTheRequestId) {
  const RawAnswer answer = ask("GET /v1/things/a%20b");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "a b:");
  EXPECT_NE(answer.head.find("X-Request-Id: req-"), std::string::npos);
}

TEST_F(HttpTest, ErrorsHaveOneShape) {
  const RawAnswer answer = ask("GET /v1/nothing");
  EXPECT_EQ(answer.status, 404);
  for (const char* part : {"{\"error\":{\"code\":\"not_found\"",
                           "\"message\":", "\"field\":", "\"value\":\"/v1/nothing\"",
                           "\"rule\":", "\"line\":0", "\"request_id\":\"req-"}) {
    EXPECT_NE(answer.body.find(part), std::string::npos) << answer.body;
  }
}

TEST(ErrorResponse, KeepsWhatIsWrittenInAnyLanguage) {
  const Status status = Status::invalid("labels.größe", "\"名\"\n\xff", "must be a word");
  const std::string body = error_response(status, "req-1").body;
  EXPECT_NE(body.find(R"("field":"labels.größe","value":"\"名\"\n�")"), std::string::npos) << body;
}

TEST_F(HttpTest, EveryMethodNeedsTokenAndHost) {
  for (const char* method : {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"}) {
    const std::string line = std::string(method) + " /v1/things/a HTTP/1.1\r\n";
    EXPECT_EQ(raw(line + "Host: localhost\r\n\r\n").status, 401) << method;
    EXPECT_EQ(
        raw(line + "Host: evil.example\r\nAuthorization: Bearer " + kToken + "\r\n\r\n").status,
        403)
        << method;
    EXPECT_EQ(raw(line + kGood + "Origin: http://evil.example\r\n\r\n").status, 403) << method;
    EXPECT_EQ(raw(line + kGood + "Sec-Fetch-Site: cross-site\r\n\r\n").status, 403) << method;
  }
  EXPECT_EQ(
      raw("GET /v1/things/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n")
          .status,
      401);
  EXPECT_EQ(raw("GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 401);
  EXPECT_EQ(raw("GET /../x HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 401);
}

TEST_F(HttpTest, AnOpenRouteNeedsNoTokenButTheRightHost) {
  EXPECT_EQ(raw("GET /v1/open HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
  EXPECT_EQ(raw("GET /v1/open HTTP/1.1\r\nHost: evil.example\r\n\r\n").status, 403);
  EXPECT_EQ(raw("POST /v1/open HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 401);
}

TEST_F(HttpTest, WrongMethodTypeAndQueryAreNamed) {
  const RawAnswer method = ask("DELETE /v1/things/a");
  EXPECT_EQ(method.status, 405);
  EXPECT_NE(method.head.find("Allow: GET, HEAD, OPTIONS, POST, PUT"), std::string::npos);
  EXPECT_EQ(ask("OPTIONS /v1/things/a").status, 204);
  EXPECT_EQ(ask("POST /v1/things/a", "Content-Length: 0\r\n").status, 415);
  EXPECT_EQ(ask("POST /v1/things/a", "Content-Type: text/plain\r\nContent-Length: 0\r\n").status,
            415);
  const auto json = [&](const std::string& type) {
    return ask("POST /v1/things/a", "Content-Type: " + type + "\r\nContent-Length: 0\r\n").status;
  };
  EXPECT_EQ(json("application/json; charset=latin1"), 415);
  EXPECT_EQ(json("application/json; version=2"), 415);
  EXPECT_EQ(json("application/json\r\nContent-Type: application/json"), 415);
  EXPECT_NE(json("Application/JSON ; charset=\"UTF-8\""), 415);
  EXPECT_EQ(ask("PUT /v1/things/a",
                "Content-Type: application/octet-stream\r\n"
                "Content-Encoding: gzip\r\nContent-Length: 0\r\n")
                .status,
            415);
  EXPECT_EQ(ask("GET /v1/open?y=1").status, 400);
  EXPECT_EQ(ask("GET /v1/open?x=1&x=2").status, 400);
  EXPECT_EQ(ask("GET /v1/open?x=1").status, 200);
}

TEST_F(HttpTest, HeadIsGetWithoutBody) {
  RawClient client(server_->port());
  client.send("HEAD /v1/things/abc HTTP/1.1\r\n" + kGood + "\r\nGET /v1/open HTTP/1.1\r\n" + kGood +
              "\r\n");
  const RawAnswer head = client.answer(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_NE(head.head.find("Content-Length: 4"), std::string::npos);
  EXPECT_EQ(client.answer().status, 200);  // the next answer follows at once
}

TEST_F(HttpTest, BodiesByLengthAndInChunks) {
  const std::string type = "Content-Type: application/octet-stream\r\n";
  RawClient client(server_->port());
  const std::string put = "PUT /v1/things/a HTTP/1.1\r\n" + kGood + type;
  client.send(put + "Content-Length: 3\r\n\r\nxyz");
  EXPECT_EQ(client.answer().body, "a:xyz");
  client.send(put + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(client.answer().body, "a:abcde");
  client.send(put + "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n");
  EXPECT_EQ(client.answer().status, 100);
  client.send("q");
  EXPECT_EQ(client.answer().body, "a:q");
}

TEST_F(HttpTest, AmbiguousLengthsAreRefused) {
  const std::string put =
      "PUT /v1/things/a HTTP/1.1\r\n" + kGood + "Content-Type: application/octet-stream\r\n";
  for (const char* lengths :
       {"Content-Length: 3\r\nContent-Length: 4\r\n", "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "Content-Length: -1\r\n",
        "Content-Length: 3x\r\n", "Content-Length: 99999999999999999999\r\n"}) {
    EXPECT_EQ(raw(put + lengths + "\r\nabc").status, 400) << lengths;
  }
  for (const char* bad :
       {"GARBAGE\r\n\r\n", "GET /v1/open\r\n\r\n", "GET /v1/open HTTP/9.9\r\n\r\n",
        "GET  /v1/open HTTP/1.1\r\n\r\n", "GET /v1/o\x01pen HTTP/1.1\r\n\r\n",
        "GET /v1/open HTTP/1.1\r\nHost localhost\r\n\r\n"}) {
    EXPECT_EQ(raw(bad).status, 400) << bad;
  }
}

TEST_F(HttpTest, SizesAreBounded) {
  const auto large = ask("GET /v1/open", "X: " + std::string(20000, 'a') + "\r\n");
  EXPECT_EQ(large.status, 431);
  EXPECT_NE(large.body.find("must have at most "), std::string::npos) << large.body;
  EXPECT_EQ(ask("GET /v1/" + std::string(20000, 'a')).status, 431);
  const std::string put =
      "PUT /v1/things/a HTTP/1.1\r\n" + kGood + "Content-Type: application/octet-stream\r\n";
  EXPECT_EQ(raw(put + "Content-Length: 9000000\r\n\r\n").status, 413);
  RawClient client(server_->port());
  client.send(put + "Transfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "100000\r\n" + std::string(0x100000, 'x') + "\r\n";
  for (int i = 0; i < 9 && client.send(chunk); ++i) {
  }
  EXPECT_EQ(client.answer().status, 413);
  RawClient whole(server_->port());  // reads only once it has sent everything, as many do
  ASSERT_TRUE(whole.send(put + "Content-Length: 30000000\r\n\r\n"));
  EXPECT_TRUE(whole.send(std::string(30'000'000, 'x')));
  EXPECT_EQ(whole.answer().status, 413);
}

TEST_F(HttpTest, BodyWhereNoneIsTaken) {
  EXPECT_EQ(raw("GET /v1/things/a HTTP/1.1\r\n" + kGood + "Content-Length: 2\r\n\r\nhi").status,
            400);
}

TEST_F(HttpTest, StreamsInChunksAndToOldClients) {
  RawClient client(server_->port());
  client.send("GET /v1/stream HTTP/1.1\r\n" + kGood + "\r\n");
  ASSERT_TRUE(client.read_until("0\r\n\r\n"));
  EXPECT_NE(client.received().find("2\r\n1;\r\n2\r\n2;\r\n2\r\n3;\r\n0\r\n\r\n"),
            std::string::npos);
  RawClient old(server_->port());
  old.send("GET /v1/stream HTTP/1.0\r\n" + kGood + "\r\n");
  EXPECT_TRUE(old.closed());
  EXPECT_NE(old.received().find("\r\n\r\n1;2;3;"), std::string::npos);
}

TEST_F(HttpTest, AStreamThatBreaksIsCutOff) {
  RawClient client(server_->port());
  client.send("GET /v1/broken HTTP/1.1\r\n" + kGood + "\r\n");
  EXPECT_TRUE(client.closed());
  EXPECT_NE(client.received().find("begin"), std::string::npos);
  EXPECT_EQ(client.received().find("0\r\n\r\n"), std::string::npos);
}

TEST_F(HttpTest, AnExceptionIsAnInternalErrorWithoutItsText) {
  const RawAnswer answer = ask("GET /v1/throws");
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.body.find("secret"), std::string::npos);
}

TEST_F(HttpTest, AFullHouseSaysSoAndRecovers) {
  ServerOptions options;
  options.connections_max = 2;
  start(options);
  auto first = std::make_unique<RawClient>(server_->port());
  RawClient second(server_->port());
  const std::string get = "GET /v1/open HTTP/1.1\r\n" + kGood + "\r\n";
  first->send(get);
  second.send(get);
  EXPECT_EQ(first->answer().status, 200);
  EXPECT_EQ(second.answer().status, 200);
  RawClient third(server_->port());
  EXPECT_EQ(third.answer().status, 503);
  first.reset();
  while (raw(get).status != 200) {  // until the server has noticed; else the test's limit ends it
  }
}

TEST_F(HttpTest, SlowRequestsAreCutOff) {
  ServerOptions options;
  options.head_seconds_max = 0.2;
  options.body_seconds_max = 0.2;
  options.idle_seconds_max = 0.2;
  start(options);
  EXPECT_EQ(raw("GET /v1/open HTT").status, 0);
  EXPECT_EQ(raw("PUT /v1/things/a HTTP/1.1\r\n" + kGood +
                "Content-Type: application/octet-stream\r\nContent-Length: 9\r\n\r\nabc")
                .status,
            0);
  EXPECT_EQ(raw("").status, 0);
}

TEST_F(HttpTest, SilentStreamsHaveAHeartbeat) {
  ServerOptions options;
  options.heartbeat_seconds = 0.05;
  options.stream_poll_seconds = 0.02;
  start(options);
  RawClient client(server_->port());
  client.send("GET /v1/silent HTTP/1.1\r\n" + kGood + "\r\n");
  EXPECT_TRUE(client.read_until("\r\n\r\n"));
  EXPECT_TRUE(client.read_until(": heartbeat\n\n\r\n"));
  server_->stop();  // with the stream still open
}

TEST(ApiServer, RefusesABusyPortAndAShortToken) {
  ServerOptions options;
  options.token = kToken;
  auto first = ApiServer::start(options, test_router(), Logger());
  ASSERT_TRUE(first.has_value());
  options.port = (*first)->port();
  const auto second = ApiServer::start(options, test_router(), Logger());
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code(), Code::kUnavailable);
  EXPECT_NE(second.error().message().find(std::to_string(options.port)), std::string::npos);
  options.port = 0;
  options.token = "short";
  EXPECT_FALSE(ApiServer::start(options, test_router(), Logger()).has_value());
}

}  // namespace
}  // namespace weft::api
