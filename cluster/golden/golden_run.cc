#include "cluster/golden/golden_run.h"

#include <fmt/format.h>

#include <mutex>

#include "cluster/comm/rank_gpu.h"
#include "cluster/comm/threads/thread_ranks.h"
#include "kernels/cpu/environment.h"
#include "proto/json/writer.h"
#include "worker/golden/golden.h"

namespace weft {
namespace {

using golden::Deviation;
using golden::Report;

RankPlace on_gpu(std::unique_ptr<Communicator> threads) {
  auto gpu = comm::take_gpu(std::move(threads), "");
  if (!gpu) throw StatusError(gpu.error());
  return std::move(*gpu);
}

Result<Report> run_one(const std::string& folder, const GoldenOptions& options) {
  WEFT_ASSIGN_OR_RETURN(const golden::Case golden, golden::read_case(folder));
  Report report;
  try {
    cpu::read_environment();
    const DType precision = options.precision == "bf16"      ? DType::kBF16
                            : options.precision == "float64" ? DType::kF64
                                                             : DType::kF32;
    run_on_threads(
        options.mesh,
        [&](Rank& rank) {
          Report mine = golden::run_case(rank, golden, precision);
          if (rank.mesh.index(Axis::kWorld) == 0) report = std::move(mine);
        },
        options.device == "cuda" ? on_gpu : PlaceRank());
  } catch (const StatusError& error) {
    return fail(error.status());
  }
  return report;
}

void write_deviation(JsonWriter& json, const Deviation& deviation) {
  json.begin_object().key("what").string(deviation.what);
  json.key("error").number(deviation.error).key("bar").number(deviation.bar).end_object();
}

void write_report(JsonWriter& json, const Report& report, bool all) {
  json.begin_object().key("case").string(report.name);
  json.key("passed").boolean(report.passed());
  json.key("compared").integer(static_cast<int64_t>(report.deviations.size()));
  json.key("worst");
  write_deviation(json, report.worst());
  if (all) {
    json.key("deviations").begin_array();
    for (const Deviation& deviation : report.deviations) write_deviation(json, deviation);
    json.end_array();
  }
  json.end_object();
}

}  // namespace

void print_report(std::ostream& out, const Report& report, bool all) {
  const Deviation& worst = report.worst();
  out << fmt::format("{:<16} {}  {} values compared, worst {} {:.2e} (bar {:.0e})\n", report.name,
                     report.passed() ? "ok    " : "FAILED", report.deviations.size(), worst.what,
                     worst.error, worst.bar);
  if (!all) return;
  for (const Deviation& deviation : report.deviations) {
    out << fmt::format("    {:<52} {:.2e}{}\n", deviation.what, deviation.error,
                       deviation.within() ? "" : "  beyond its bar");
  }
}

int run_golden(const GoldenOptions& options, std::ostream& out, std::ostream& errors) {
  bool failed = false;
  JsonWriter json(2);
  json.begin_object().key("mesh").string(mesh_text(options.mesh));
  json.key("precision").string(options.precision).key("device").string(options.device);
  json.key("cases").begin_array();
  for (const std::string& folder : options.cases) {
    const Result<Report> report = run_one(folder, options);
    failed = failed || !report || !report->passed();
    if (!report) {
      errors << folder << ": " << report.error().to_string() << "\n";
      json.begin_object().key("case").string(folder).key("passed").boolean(false);
      json.key("error").string(report.error().to_string()).end_object();
      continue;
    }
    write_report(json, *report, options.verbose);
    if (!options.json) print_report(out, *report, options.verbose);
  }
  json.end_array().key("passed").boolean(!failed).end_object();
  if (options.json) out << json.take() << "\n";
  return failed ? 1 : 0;
}

}  // namespace weft
