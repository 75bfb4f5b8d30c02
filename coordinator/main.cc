// weft-coordinator: REST API, job store, scheduler, launcher, checkpoint catalogue of one cluster.
#include <cstdio>

#include "coordinator/options.h"
#include "coordinator/run_coordinator.h"

int main(int argc, char** argv) {
  weft::CoordinatorOptions options;
  if (const auto code = weft::parse_options(argc, argv, options)) return *code;
  const weft::Status status = weft::run_coordinator(options);
  if (!status.ok()) std::fprintf(stderr, "weft-coordinator: %s\n", status.to_string().c_str());
  return status.ok() ? 0 : 1;
}
