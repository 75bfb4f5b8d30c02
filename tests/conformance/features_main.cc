// weft-features RATE FILE: the recording's samples at that rate, as float32 to standard output.
// weft-features SETTINGS BINS FRAMES FILE: its features by a preprocessor_config.json, of each
// chunk, [frames, bins].
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "worker/data/audio/preprocessor.h"

namespace weft {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(std::span<const float> values) {
  std::fwrite(values.data(), sizeof(float), values.size(), stdout);
}

Status write_samples(const std::string& bytes, int64_t rate) {
  WEFT_ASSIGN_OR_RETURN(Recording recording, Recording::open(bytes, rate));
  std::vector<float> samples(1000);
  for (;;) {
    WEFT_ASSIGN_OR_RETURN(const int64_t count, recording.read(samples));
    if (count == 0) return {};
    write(std::span(samples).first(static_cast<size_t>(count)));
  }
}

Status write_features(const std::string& bytes, const std::string& settings,
                      const AudioLayout& layout) {
  WEFT_ASSIGN_OR_RETURN(const auto preprocessor, AudioPreprocessor::parse(settings, layout));
  WEFT_ASSIGN_OR_RETURN(Recording recording, Recording::open(bytes, preprocessor.rate()));
  std::vector<float> features(static_cast<size_t>(layout.values()));
  for (;;) {
    WEFT_ASSIGN_OR_RETURN(const bool more, preprocessor.write_features(recording, features.data()));
    if (!more) return {};
    write(features);
  }
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.size() != 2 && arguments.size() != 4) {
    fmt::print(stderr, "usage: weft-features RATE FILE | SETTINGS BINS FRAMES FILE\n");
    return 2;
  }
  const std::string bytes = read_file(arguments.back());
  const Status status = arguments.size() == 2
                            ? write_samples(bytes, std::stoll(arguments[0]))
                            : write_features(bytes, read_file(arguments[0]),
                                             {std::stoll(arguments[1]), std::stoll(arguments[2])});
  if (status.ok()) return 0;
  fmt::print(stderr, "{}\n", status.to_string());
  return 1;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) { return weft::run({argv + 1, argv + argc}); }
