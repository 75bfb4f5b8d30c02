// weft-op-table FILE   writes every case of the table, computed in float64, as safetensors: inputs
// "<op>/<case>/input0", outputs ".../output0", the cotangents of floating outputs ".../cotangent0"
// and the gradients ".../gradient0" by input. The metadata's "cases" is a JSON array of {op, case,
// attributes, inputs, outputs}. tests/conformance/op_table_test.py computes the same with PyTorch.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/tensor/strided.h"
#include "tests/kernels/op_table/run.h"

namespace weft::op_table {
namespace {

class Writer {
 public:
  explicit Writer(Bench& bench) : bench_(bench) {}

  void add(const std::string& name, const Tensor& x) {
    const Tensor whole = clone(bench_.pool, x.detach());
    const auto extents = whole.shape().extents();
    header_[name] = {{"dtype", dtype_name(whole.dtype())},
                     {"shape", std::vector<int64_t>(extents.begin(), extents.end())},
                     {"data_offsets", {bytes_.size(), bytes_.size() + whole.bytes()}}};
    bytes_.append(static_cast<const char*>(whole.raw()), whole.bytes());
  }

  bool write(const char* path, const nlohmann::json& cases) {
    header_["__metadata__"] = {{"cases", cases.dump()}};
    std::string header = header_.dump();
    header.append((8 - header.size() % 8) % 8, ' ');
    std::ofstream file(path, std::ios::binary);
    const uint64_t size = header.size();
    for (int byte = 0; byte < 8; ++byte) file.put(static_cast<char>(size >> (8 * byte) & 0xFF));
    file << header << bytes_;
    return static_cast<bool>(file.flush());
  }

 private:
  Bench& bench_;
  nlohmann::json header_;
  std::string bytes_;
};

nlohmann::json export_case(Bench& bench, Writer& writer, const Row& row, size_t number) {
  const Case& item = row.cases[number];
  const std::string prefix = row.op + "/" + std::to_string(number) + "/";
  const std::vector<Tensor> inputs = draw(bench.context, item);
  const Outcome outcome = run(bench, item, row.f, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    writer.add(prefix + "input" + std::to_string(i), inputs[i]);
    const Tensor& gradient = outcome.gradients[i];
    if (gradient) writer.add(prefix + "gradient" + std::to_string(i), gradient);
  }
  size_t floating = 0;
  for (size_t i = 0; i < outcome.outputs.size(); ++i) {
    const Tensor& output = outcome.outputs[i];
    writer.add(prefix + "output" + std::to_string(i), output);
    if (!is_floating(output.dtype())) continue;
    writer.add(prefix + "cotangent" + std::to_string(i),
               cotangent(bench.context, output, floating++));
  }
  return {{"op", row.op},
          {"case", number},
          {"attributes", item.attributes.values()},
          {"inputs", inputs.size()},
          {"outputs", outcome.outputs.size()}};
}

int main_of(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: weft-op-table FILE\n");
    return 2;
  }
  Bench bench;
  Writer writer(bench);
  nlohmann::json cases = nlohmann::json::array();
  for (const Row& row : rows()) {
    for (size_t number = 0; number < row.cases.size(); ++number) {
      cases.push_back(export_case(bench, writer, row, number));
    }
  }
  if (writer.write(arguments[1], cases)) return 0;
  std::fprintf(stderr, "weft-op-table: cannot write %s\n", arguments[1]);
  return 1;
}

}  // namespace
}  // namespace weft::op_table

int main(int count, char** arguments) { return weft::op_table::main_of(count, arguments); }
