// A whole training step of GPT-2 on one rank.
#include "cluster/comm/single/single_communicator.h"
#include "tests/bench/bench.h"
#include "tests/bench/training_step.h"

namespace weft::bench {
namespace {

Step make_training(const Options& options) {
  auto mesh = Mesh::create(comm::single_world(), MeshDegrees{});
  if (!mesh) throw StatusError(std::move(mesh).error());
  auto training = std::make_shared<TrainingStep>(options, std::move(*mesh));
  return {[training] { training->run(); }, [training] { return training->loss(); }};
}

}  // namespace

const std::map<std::string, StepMaker>& step_makers() {
  static const std::map<std::string, StepMaker> makers{{"gpt2_step", make_training},
                                                       {"bert_step", make_encoder_step}};
  return makers;
}

}  // namespace weft::bench
