// The forms that values of options have, checked while the command line is parsed.
// Thread safety: pure functions.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "proto/job.pb.h"

namespace weft::cli {

CLI::Validator id();               // of a job or checkpoint: not empty, no "/"
CLI::Validator node_name();        // as the coordinator takes it
CLI::Validator idempotency_key();  // likewise
CLI::Validator key_and_value();    // KEY=VALUE
CLI::Validator mesh();             // as parse_mesh takes it
CLI::Validator job_states();       // states of jobs, separated by commas
std::string state_choices();       // all of them, so separated
CLI::Validator rank_choice();      // a number, all or launcher
CLI::Validator ipv4_address();     // a.b.c.d
CLI::Validator whole_number_from(int64_t min, int64_t max);
// Neither NaN, which no comparison of CLI11's own ranges refuses, nor infinite.
CLI::Validator number_from(double min, double max);
CLI::Validator server_address();  // HOST[:PORT], http:// in front or not

// "auto", or keys of a job file's parallel with their values: "data=2,tensor=2".
Result<proto::ParallelSpec> parse_mesh(const std::string& text);

// Of `words` the one that `word` is most likely a misspelling of; empty: none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& words);

}  // namespace weft::cli
