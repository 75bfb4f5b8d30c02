// The routes over a real service.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "proto/api.pb.h"
#include "proto/json/message_json.h"
#include "proto/json/parse.h"
#include "proto/json/value.h"
#include "tests/coordinator/api/served.h"

namespace weft::api {
namespace {

using testing::HasSubstr;

TEST(Routes, SubmitShowListAndDelete) {
  Served served;
  const std::string id = served.submit();
  const RawAnswer shown = served.ask("GET", "jobs/" + id);
  EXPECT_EQ(shown.status, 200);
  for (const char* part : {"\"state\":\"queued\"", "\"attempt\":0", "\"step\":0", "\"steps\":10",
                           "\"batch_size\":8"}) {
    EXPECT_THAT(shown.body, HasSubstr(part));
  }
  EXPECT_EQ(served.ask("DELETE", "jobs/" + id).status, 409);
  EXPECT_EQ(served.ask("POST", "jobs/" + id + "/cancel").status, 200);
  EXPECT_EQ(served.ask("POST", "jobs/" + id + "/resume").status, 409);
  EXPECT_EQ(served.ask("DELETE", "jobs/" + id).status, 204);
  EXPECT_EQ(served.ask("GET", "jobs/" + id).status, 404);
  EXPECT_EQ(served.ask("POST", "jobs/" + id + "/pause").status, 404);
}

TEST(Routes, ABadJobIsRefusedWithFieldValueRuleAndLine) {
  Served served;
  const RawAnswer unknown = served.ask("POST", "jobs", "{\n\"name\":\"x\",\n\"stpes\":1}");
  EXPECT_EQ(unknown.status, 400);
  EXPECT_THAT(unknown.body, HasSubstr("\"field\":\"stpes\""));
  EXPECT_THAT(unknown.body, HasSubstr("\"line\":3"));
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "[";
  for (const std::string& bad :
       {std::string("{"), std::string("[]"), std::string("{\"name\":\"a\",\"name\":\"b\"}"),
        std::string("{\"priority\":1.5}"), std::string("{\"priority\":9223372036854775808}"),
        std::string("{\"training\":{\"gradient_clip\":NaN}}"),
        std::string("{\"training\":{\"gradient_clip\":1e999}}"),
        std::string("{\"name\":\"\\ud800\"}"), std::string("{\"name\":\"\xff\"}"), deep}) {
    EXPECT_EQ(served.ask("POST", "jobs", bad).status, 400) << bad.substr(0, 80);
  }
  const RawAnswer path = served.ask("POST", "jobs", served.job_text("/etc/passwd"));
  EXPECT_EQ(path.status, 400);
  EXPECT_THAT(path.body, HasSubstr("tasks[0].data.train"));
  EXPECT_EQ(served.ask("POST", "jobs/validate", served.job_text(served.upload("x"))).status, 200);
  EXPECT_THAT(served.ask("GET", "jobs").body, HasSubstr("\"total\":0"));
}

TEST(Routes, AResumeTakesAnotherMeshOrNoBodyAtAll) {
  Served served;
  const std::string id = served.submit(), path = "jobs/" + id + "/resume";
  EXPECT_EQ(served.ask("POST", "jobs/" + id + "/pause").status, 200);
  EXPECT_EQ(served.ask("POST", path).status, 200);
  EXPECT_EQ(served.ask("POST", path, "{}").status, 200);
  const RawAnswer changed = served.ask("POST", path, R"({"parallel": {"data": 2}})");
  EXPECT_EQ(changed.status, 200) << changed.body;
  EXPECT_THAT(changed.body, HasSubstr("\"parallel\":{\"data\":2,"));
  EXPECT_THAT(changed.body, HasSubstr("\"slots\":2"));
  for (const auto& [body, field] :
       std::map<std::string, std::string>{{R"({"parallel": {"data": 9}})", "parallel.data"},
                                          {R"({"parallel": {"dat": 2}})", "parallel.dat"},
                                          {R"({"parallel": "fast"})", "parallel"},
                                          {R"({"training": {"batch_size": 2}})", "training"},
                                          {R"({"resources": {"slots": 3}})", "resources.slots"}}) {
    const RawAnswer bad = served.ask("POST", path, body);
    EXPECT_EQ(bad.status, 400) << body;
    EXPECT_THAT(bad.body, HasSubstr("\"field\":\"" + field + "\"")) << body;
  }
  EXPECT_EQ(served.ask("POST", path, "[").status, 400);
  EXPECT_EQ(served.ask("POST", "jobs/job-absent/resume", "{}").status, 404);
  served.set_state(id, proto::JOB_STATE_RUNNING);
  EXPECT_EQ(served.ask("POST", path, R"({"parallel": {"tensor": 2}})").status, 409);
  served.set_state(id, proto::JOB_STATE_FAILED);
  EXPECT_EQ(served.ask("POST", path).status, 200);
}

TEST(Routes, OnlyRanksThatRunCanBeLookedAt) {
  Served served;
  const std::string id = served.submit();
  for (const char* absent : {"stack", "trace", "trace/events"}) {
    EXPECT_EQ(served.ask("GET", std::string("jobs/job-absent/") + absent).status, 404) << absent;
  }
  const RawAnswer stack = served.ask("GET", "jobs/" + id + "/stack");
  EXPECT_EQ(stack.status, 409);
  EXPECT_THAT(stack.body, HasSubstr("\"field\":\"state\""));
  EXPECT_EQ(served.ask("GET", "jobs/" + id + "/stack?x=1").status, 400);
  EXPECT_EQ(served.ask("GET", "jobs/" + id + "/trace").status, 404);
  EXPECT_EQ(served.ask("POST", "jobs/" + id + "/trace", "{}").status, 409);
  served.set_state(id, proto::JOB_STATE_RUNNING);
  for (const char* bad : {"{\"steps\":0}", "{\"steps\":1001}", "{\"stpes\":1}", "["}) {
    EXPECT_EQ(served.ask("POST", "jobs/" + id + "/trace", bad).status, 400) << bad;
  }
  const RawAnswer begun = served.ask("POST", "jobs/" + id + "/trace", "{}");
  EXPECT_EQ(begun.status, 202);
  EXPECT_THAT(begun.body, HasSubstr("\"steps\":3"));
  EXPECT_EQ(served.ask("GET", "jobs/" + id + "/trace/events").status, 409);
  // Without ranks that are placed, there is nobody to ask.
  EXPECT_THAT(served.ask("GET", "jobs/" + id + "/stack").body, HasSubstr("\"ranks\":[]"));
}

TEST(Routes, PlansWithoutStoringAnything) {
  Served served;
  proto::NodeInfo node;
  node.set_name("a");
  node.set_slots(2);
  node.set_state(proto::NODE_STATE_READY);
  ASSERT_TRUE(served.store->put_node(node, true).ok());
  std::string job = served.job_text("obj-none");
  job.insert(job.size() - 1, ",\"parallel\":\"auto\"");
  const RawAnswer planned = served.ask("POST", "jobs/plan", "{\"job\":" + job + "}");
  EXPECT_EQ(planned.status, 200) << planned.body;
  for (const char* part : {"\"chosen\":{\"data\":", "\"reason\":\"", "\"meshes\":[{",
                           "\"memory_bytes\":", "\"step_seconds\":", "\"tensor_bytes\":"}) {
    EXPECT_THAT(planned.body, HasSubstr(part));
  }
  EXPECT_THAT(served.ask("GET", "jobs").body, HasSubstr("\"total\":0"));
  EXPECT_EQ(served.ask("POST", "jobs/plan", "{}").status, 400);
  EXPECT_EQ(served.ask("POST", "jobs/plan?x=1", "{\"job\":" + job + "}").status, 400);
  job.replace(job.find("\"auto\""), 6, "\"fast\"");
  const RawAnswer bad = served.ask("POST", "jobs/plan", "{\"job\":" + job + "}");
  EXPECT_EQ(bad.status, 400);
  EXPECT_THAT(bad.body, HasSubstr("\"field\":\"job.parallel\""));
}

TEST(Routes, TheSameIdempotencyKeyGivesTheSameJob) {
  Served served;
  const std::string text = served.job_text(served.upload("text"));
  const RawAnswer first = served.ask("POST", "jobs", text, "Idempotency-Key: k1\r\n");
  const RawAnswer again = served.ask("POST", "jobs", text, "Idempotency-Key: k1\r\n");
  EXPECT_EQ(first.status, 201);
  EXPECT_EQ(again.status, 201);
  EXPECT_EQ(Served::value(first.body, "id"), Served::value(again.body, "id"));
  EXPECT_EQ(served.ask("POST", "jobs", text + " ", "Idempotency-Key: k1\r\n").status, 409);
  EXPECT_EQ(served.ask("POST", "jobs", text, "Idempotency-Key: \r\n").status, 400);
  EXPECT_EQ(
      served.ask("POST", "jobs", text, "Idempotency-Key: " + std::string(201, 'k') + "\r\n").status,
      400);
  EXPECT_THAT(served.ask("GET", "jobs").body, HasSubstr("\"total\":1"));
}

TEST(Routes, ListsAreFilteredAndPaged) {
  Served served;
  std::vector<std::string> ids;
  for (const char* name : {"a", "b", "a", "b", "a"}) ids.push_back(served.submit(name));
  std::vector<std::string> seen;
  std::string after;
  do {
    const RawAnswer page = served.ask("GET", "jobs?name=a&limit=2&after=" + after);
    const auto json = parse_json(page.body);
    ASSERT_TRUE(json.has_value()) << page.body;
    for (const JsonValue& job : json->find("jobs")->items) seen.push_back(job.find("id")->text);
    after = json->find("next")->text;
  } while (!after.empty());
  EXPECT_EQ(seen, (std::vector<std::string>{ids[0], ids[2], ids[4]}));
  EXPECT_THAT(served.ask("GET", "jobs?label=team%3Da&state=queued,running").body,
              HasSubstr("\"total\":5"));
  EXPECT_THAT(served.ask("GET", "jobs?label=team%3Db").body, HasSubstr("\"total\":0"));
  for (const char* bad : {"limit=0", "limit=1001", "limit=x", "state=queud", "kind=other",
                          "label=team", "order=up", "other=1"}) {
    EXPECT_EQ(served.ask("GET", std::string("jobs?") + bad).status, 400) << bad;
  }
}

TEST(Routes, PriorityIsChangedInPlace) {
  Served served;
  const std::string id = served.submit();
  EXPECT_EQ(served.ask("PATCH", "jobs/" + id, "{\"priority\":7}").status, 200);
  EXPECT_THAT(served.ask("GET", "jobs/" + id).body, HasSubstr("\"priority\":7"));
  for (const char* bad :
       {"{}", "{\"priority\":\"7\"}", "{\"name\":\"x\"}", "{\"priority\":5000}"}) {
    EXPECT_EQ(served.ask("PATCH", "jobs/" + id, bad).status, 400) << bad;
  }
}

TEST(Routes, UploadsAreCheckedAgainstTheirHash) {
  Served served;
  const std::string bytes = "chunk", hash = sha256_hex(bytes);
  const std::string type = "application/octet-stream";
  EXPECT_EQ(served.ask("PUT", "chunks/" + sha256_hex("other"), bytes, "", type).status, 400);
  EXPECT_EQ(served.ask("PUT", "chunks/..%2f..%2fx", bytes, "", type).status, 404);
  EXPECT_EQ(served.ask("PUT", "chunks/abc", bytes, "", type).status, 400);
  const std::string large(static_cast<size_t>((4 << 20) + 1), 'x');
  EXPECT_EQ(served.ask("PUT", "chunks/" + sha256_hex(large), large, "", type).status, 413);
  const std::string ask = "{\"hashes\":[\"" + hash + "\"]}";
  EXPECT_THAT(served.ask("POST", "chunks/missing", ask).body, HasSubstr(hash));
  EXPECT_EQ(served.ask("PUT", "chunks/" + hash, bytes, "", type).status, 204);
  EXPECT_THAT(served.ask("POST", "chunks/missing", ask).body, Not(HasSubstr(hash)));
  EXPECT_EQ(served.ask("POST", "chunks/missing", "{\"hashes\":[\"../x\"]}").status, 400);
  const std::string id = served.upload("some");
  EXPECT_EQ(served.ask("GET", "objects/" + id).status, 200);
  EXPECT_EQ(served.ask("GET", "objects/obj-0").status, 404);
  EXPECT_EQ(served
                .ask("POST", "objects",
                     R"({"files":[{"path":"../a","size":5,"chunks":[{"hash":")" + hash +
                         R"(","size":5}]}]})")
                .status,
            400);
}

TEST(Routes, RecordsArePaged) {
  Served served;
  const std::string id = served.submit();
  served.set_state(id, proto::JOB_STATE_RUNNING);
  served.add_metrics(id, 5);
  const RawAnswer page = served.ask("GET", "jobs/" + id + "/metrics?after=2&limit=2");
  EXPECT_THAT(page.body, HasSubstr("\"next\":4"));
  EXPECT_THAT(page.body, HasSubstr("\"more\":true"));
  EXPECT_THAT(served.ask("GET", "jobs/" + id + "/events").body, HasSubstr("\"more\":false"));
  EXPECT_EQ(served.ask("GET", "jobs/" + id + "/metrics?after=-1").status, 400);
  EXPECT_EQ(served.ask("GET", "jobs/job-x/events").status, 404);
}

TEST(Routes, LogsKeepCharactersWhole) {
  Served served;
  const std::string id = served.submit();
  served.set_state(id, proto::JOB_STATE_RUNNING);
  const std::string text = "a\xc3\xa4\xff\xe2\x82\xac!";  // a, ä, a broken byte, €, !
  ASSERT_TRUE(served.store->append_log(id, 1, 0, 0, text).has_value());
  std::string joined;
  int64_t offset = 0;
  for (int i = 0; i < 20 && offset < static_cast<int64_t>(text.size()); ++i) {
    const RawAnswer page =
        served.ask("GET", "jobs/" + id + "/logs?limit=4&offset=" + std::to_string(offset));
    ASSERT_EQ(page.status, 200) << page.body;
    joined += parse_json(page.body)->find("text")->text;
    offset = parse_json(page.body)->find("next")->integer;
  }
  EXPECT_EQ(joined, "a\xc3\xa4\xef\xbf\xbd\xe2\x82\xac!");
  EXPECT_THAT(served.ask("GET", "jobs/" + id + "/logs/sources").body, HasSubstr("\"bytes\":8"));
  const std::string stream = "Accept: text/event-stream\r\n";
  EXPECT_EQ(served.ask("GET", "jobs/" + id + "/logs?rank=9", "", stream).status, 400);
  EXPECT_EQ(served.ask("GET", "jobs/" + id + "/logs?attempt=9", "", stream).status, 400);
}

// A whole list, asked for in pages of two.
template <typename Page>
Page in_pages(Served& served, const std::string& path) {
  Page all, page;
  do {
    const RawAnswer answer = served.ask("GET", path + "?limit=2&after=" + page.next());
    page.Clear();
    EXPECT_TRUE(read_json(answer.body, page, {.lenient = true}).ok()) << answer.body;
    all.MergeFrom(page);
  } while (page.more());
  return all;
}

TEST(Routes, NodesAndLogSourcesComeInPages) {
  Served served;
  for (const char* name : {"n5", "n1", "n4", "n2", "n3"}) {
    proto::NodeInfo node;
    node.set_name(name);
    node.set_slots(1);
    ASSERT_TRUE(served.store->put_node(node, true).ok());
  }
  std::string names;
  const auto nodes = in_pages<proto::NodeList>(served, "nodes");
  for (const auto& node : nodes.nodes()) names += node.name();
  EXPECT_EQ(names, "n1n2n3n4n5");
  EXPECT_THAT(served.ask("GET", "nodes?after=n5").body, HasSubstr("\"nodes\":[]"));
  EXPECT_THAT(served.ask("GET", "nodes?after=n%2F5").body, HasSubstr("page of nodes"));
  EXPECT_EQ(served.ask("GET", "nodes?limit=0").status, 400);
  EXPECT_EQ(served.ask("GET", "nodes?limit=1001").status, 400);

  proto::NodeInfo lost = served.store->nodes().at(0);
  EXPECT_EQ(served.ask("DELETE", "nodes/n1").status, 409);
  lost.set_state(proto::NODE_STATE_LOST);
  ASSERT_TRUE(served.store->put_node(lost, true).ok());
  EXPECT_EQ(served.ask("DELETE", "nodes/n1").status, 204);
  EXPECT_EQ(served.ask("DELETE", "nodes/n1").status, 404);
  EXPECT_EQ(in_pages<proto::NodeList>(served, "nodes").nodes_size(), 4);

  const std::string id = served.submit();
  served.set_state(id, proto::JOB_STATE_RUNNING, 2);
  for (const auto& [attempt, rank] : {std::pair{1, -1}, {1, 0}, {1, 1}, {2, -1}, {2, 0}}) {
    const std::string text(static_cast<size_t>(10 * attempt + rank), 'x');
    ASSERT_TRUE(served.store->append_log(id, attempt, rank, 0, text).has_value());
  }
  const std::string sources = "jobs/" + id + "/logs/sources";
  std::vector<int64_t> bytes;
  const auto logs = in_pages<proto::LogSourceList>(served, sources);
  for (const auto& source : logs.sources()) bytes.push_back(source.bytes());
  EXPECT_EQ(bytes, (std::vector<int64_t>{9, 10, 11, 19, 20}));
  EXPECT_THAT(served.ask("GET", sources + "?after=2").body, HasSubstr("page of sources"));
  EXPECT_THAT(served.ask("GET", sources + "?after=2.0x").body, HasSubstr("page of sources"));
  EXPECT_EQ(served.ask("GET", sources + "?limit=1001").status, 400);
}

TEST(Routes, HealthNodesAndTheDocument) {
  Served served;
  RawClient client(served.server->port());
  client.send("GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const RawAnswer health = client.answer();
  EXPECT_EQ(health.status, 200);
  EXPECT_EQ(health.body, "{\"status\":\"ok\"}\n");
  EXPECT_EQ(served.ask("GET", "status").status, 200);
  EXPECT_THAT(served.ask("GET", "nodes").body, HasSubstr("\"nodes\":[]"));
  const RawAnswer document = served.ask("GET", "openapi.json");
  const auto json = parse_json(document.body);
  ASSERT_TRUE(json.has_value()) << json.error().to_string();
  const Router router = make_router(served.service);
  for (const Route& route : router.routes()) {
    const JsonValue* path = json->find("paths")->find(route.pattern);
    ASSERT_NE(path, nullptr) << route.pattern;
    for (const char* type : {"JobSpec", "ErrorBody", "TrainingSpec"}) {
      EXPECT_NE(json->find("components")->find("schemas")->find(type), nullptr) << type;
    }
  }
}

TEST(Routes, OpenApiNamesTheHeadersThatAreRead) {
  Served served;
  const RawAnswer document = served.ask("GET", "openapi.json");
  const auto json = parse_json(document.body);
  ASSERT_TRUE(json.has_value()) << json.error().to_string();
  std::multiset<std::string> headers;
  for (const JsonMember& path : json->find("paths")->members) {
    for (const JsonMember& method : path.value.members) {
      const JsonValue* parameters = method.value.find("parameters");
      if (parameters == nullptr) continue;
      for (const JsonValue& parameter : parameters->items) {
        if (parameter.find("in")->text != "header") continue;
        headers.insert(parameter.find("name")->text + " of " + method.key + " " + path.key);
      }
    }
  }
  EXPECT_THAT(headers, testing::ElementsAre("Idempotency-Key of post /api/v1/jobs",
                                            "Last-Event-ID of get /api/v1/jobs/{id}/checkpoints",
                                            "Last-Event-ID of get /api/v1/jobs/{id}/events",
                                            "Last-Event-ID of get /api/v1/jobs/{id}/logs",
                                            "Last-Event-ID of get /api/v1/jobs/{id}/metrics"));
}

}  // namespace
}  // namespace weft::api
