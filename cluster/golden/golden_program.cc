#include "cluster/golden/golden_program.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "cluster/golden/golden_run.h"

namespace weft {

int golden_program(int argc, char** argv) {
  GoldenOptions options;
  std::string mesh;
  CLI::App app(
      "Compares outputs, loss, gradients and 20 AdamW steps of golden cases with what\n"
      "transformers computed. One line a case with its worst value; exit status 1 when a case is\n"
      "beyond its tolerance or cannot be run.");
  app.add_option("CASE", options.cases, "Folders of golden cases")->required();
  app.add_option("--mesh", mesh,
                 "Ranks to run on, as threads: data=A,sequence=B,tensor=C,ulysses=D")
      ->type_name("MESH");
  app.add_option("--precision", options.precision, "Arithmetic; float64 on one rank")
      ->check(CLI::IsMember({"fp32", "bf16", "float64"}))
      ->capture_default_str();
  app.add_option("--device", options.device, "What computes; on cuda ranks share the GPUs out")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_flag("--json", options.json, "One JSON document instead of lines");
  app.add_flag("--verbose", options.verbose, "Every compared value, not only the worst");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const Result<MeshDegrees> degrees = parse_mesh(mesh);
  if (!degrees) {
    std::cerr << "weft-golden: " << degrees.error().to_string() << "\n";
    return 2;
  }
  options.mesh = *degrees;
  return run_golden(options, std::cout, std::cerr);
}

}  // namespace weft
