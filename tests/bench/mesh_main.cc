// weft-bench-mesh key=value... under mpirun: a training step (training_step.h) on the mesh
// of the degrees data, sequence (of it ulysses) and tensor. As weft-bench, with rank 0 taking the
// lines: "N", N steps; "compute N", the same with every transfer left out; "communication N", a
// step's collectives alone, without the step. Behind the seconds of one stands the processor time
// that all ranks together took for it. "trace", where trace=FILE was given, does two steps, of
// which rank R writes to FILE.R what each of its threads did when, a line a span: thread, name,
// detail (an axis, a phase), layer, start and end in ms, bytes. "state" is answered with the loss
// of the second step, how much the largest process has grown, and the payload bytes that the
// busiest rank sent in a step.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>

#include "cluster/comm/mpi/mpi_world.h"
#include "cluster/comm/watched_communicator.h"
#include "kernels/cpu/environment.h"
#include "proto/base/activity.h"
#include "tests/bench/rehearsed.h"
#include "tests/bench/training_step.h"

namespace weft::bench {
namespace {

enum Request : int64_t { kEnd, kTogether, kCompute, kCommunication, kState, kTrace };

struct Line {
  int64_t request = kEnd, count = 0;
};

Line read_line() {
  std::string word;
  if (!(std::cin >> word)) return {};
  if (word == "state") return {kState, 0};
  if (word == "trace") return {kTrace, 0};
  Line line{kTogether, 0};
  if (word == "compute" || word == "communication") {
    line.request = word == "compute" ? kCompute : kCommunication;
    if (!(std::cin >> word)) return {};
  }
  line.count = std::max<int64_t>(1, std::strtoll(word.c_str(), nullptr, 10));
  return line;
}

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class MeshBench {
 public:
  MeshBench(const Options& options, comm::MpiWorld& mpi)
      : control_(mpi.world()),
        rehearsal_(std::make_shared<Rehearsal>()),
        bytes_before_(process_bytes("VmRSS")) {
    MeshDegrees degrees;
    for (auto [key, degree] : {std::pair{"data", &degrees.data},
                               {"sequence", &degrees.sequence},
                               {"tensor", &degrees.tensor},
                               {"ulysses", &degrees.ulysses}}) {
      if (options.has(key)) *degree = static_cast<int>(options.integer(key));
    }
    std::unique_ptr<Communicator> world = rehearsed(mpi.world(), rehearsal_);
    if (options.has("trace")) {
      trace_ = options.text("trace");
      world = comm::watched(std::move(world), activity_, {});
    }
    auto mesh = Mesh::create(std::move(world), degrees);
    if (!mesh) throw StatusError(std::move(mesh).error());
    step_ = std::make_unique<TrainingStep>(options, std::move(*mesh));
    if (!trace_.empty()) step_->rank().activity = &activity_;
    step_->run();         // fills caches and sizes the allocator
    control_->barrier();  // what a step leaves on its way is sent
    const int64_t sent = bytes_sent();
    rehearsal_->records = true;
    step_->run();
    control_->barrier();  // else what is on its way would be logged on some ranks only
    rehearsal_->records = false;
    loss_ = step_->loss();
    bytes_sent_ = bytes_sent() - sent;
  }

  void serve() {
    if (control_->rank() == 0) std::puts("ready");
    for (;;) {
      std::fflush(stdout);
      const Line line = next_line();
      if (line.request == kEnd) return;
      if (line.request == kState) {
        const double grown = largest(process_bytes("VmHWM") - bytes_before_);
        const double sent = largest(bytes_sent_);
        if (control_->rank() == 0) std::printf("%.9g %.0f %.0f\n", loss_, grown, sent);
        continue;
      }
      if (line.request == kTrace) {
        trace();
        continue;
      }
      control_->barrier();  // nothing is on its way
      rehearsal_->transfers = line.request != kCompute;
      const auto start = std::chrono::steady_clock::now();
      const double before = processor_seconds();
      for (int64_t i = 0; i < line.count; ++i) once(line.request);
      const double used = total(processor_seconds() - before) / double(line.count);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (control_->rank() == 0)
        std::printf("%.9g %.9g\n", took.count() / double(line.count), used);
    }
  }

 private:
  void trace() {
    if (trace_.empty()) {
      if (control_->rank() == 0) std::puts("trace=FILE is missing");
      return;
    }
    constexpr std::array kLanes = {"compute", "communication", "storage"};
    rehearsal_->transfers = true;
    step_->run();
    activity_.start_recording({});
    const int64_t start = Activity::clock_ns();
    for (int i = 0; i < 2; ++i) step_->run();
    control_->barrier();
    std::ofstream out(trace_ + "." + std::to_string(control_->rank()));
    const auto ms = [&](int64_t ns) { return static_cast<double>(ns - start) * 1e-6; };
    for (const Span& span : activity_.take_recording().spans) {
      out << kLanes[static_cast<size_t>(span.lane)] << ' ' << span.name << ' '
          << (span.detail != nullptr ? span.detail : "-") << ' ' << span.number << ' '
          << ms(span.start_ns) << ' ' << ms(span.end_ns) << ' ' << span.bytes << '\n';
    }
    out.close();
    control_->barrier();  // all are written
    if (control_->rank() == 0) std::puts(out ? "written" : "not written");
  }

  int64_t bytes_sent() {
    int64_t sum = 0;
    for (Axis axis : {Axis::kData, Axis::kSequence, Axis::kTensor, Axis::kReplica, Axis::kWorld,
                      Axis::kRing, Axis::kUlysses}) {
      sum += step_->rank().mesh.axis(axis).bytes_sent();
    }
    return sum;
  }

  void once(int64_t request) {
    if (request == kCommunication) {
      for (const auto& collective : rehearsal_->log) collective(*step_->rank().allocator);
      return;
    }
    step_->run();
  }

  Line next_line() {
    Tensor words = Tensor::zeros(*step_->rank().allocator, {2}, DType::kI64);
    if (control_->rank() == 0) {
      const Line line = read_line();
      words.data<int64_t>()[0] = line.request;
      words.data<int64_t>()[1] = line.count;
    }
    control_->broadcast(words, 0);
    return {words.data<int64_t>()[0], words.data<int64_t>()[1]};
  }

  double largest(int64_t value) { return reduced(double(value), ReduceOp::kMax); }
  double total(double value) { return reduced(value, ReduceOp::kSum); }
  double reduced(double value, ReduceOp op) {
    Tensor all = Tensor::full(*step_->rank().allocator, {1}, value, DType::kF64);
    control_->all_reduce(all, op);
    return *all.data<double>();
  }

  Activity activity_;
  std::unique_ptr<Communicator> control_;
  std::shared_ptr<Rehearsal> rehearsal_;
  const int64_t bytes_before_;
  std::string trace_;  // empty: nothing is recorded
  std::unique_ptr<TrainingStep> step_;
  double loss_ = 0;
  int64_t bytes_sent_ = 0;
};

int run(int count, char** texts) {
  auto mpi = comm::MpiWorld::create();
  if (!mpi) {
    std::fprintf(stderr, "weft-bench-mesh: %s\n", mpi.error().to_string().c_str());
    return 1;
  }
  try {
    cpu::read_environment();
    MeshBench(Options(count, texts), **mpi).serve();
  } catch (const StatusError& error) {
    std::fprintf(stderr, "weft-bench-mesh: %s\n", error.status().to_string().c_str());
    comm::MpiWorld::abort(1);
  }
  return 0;
}

}  // namespace
}  // namespace weft::bench

int main(int argc, char** argv) { return weft::bench::run(argc - 1, argv + 1); }
