// Jobs drawn at random on meshes drawn at random, whose degrees divide nothing: what a step trains
// is what one rank trains; where it is topology-invariant, bit for bit.
#include <numeric>
#include <random>

#include "tests/worker/trainer/distance.h"
#include "tests/worker/trainer/topology_tasks_fixture.h"
#include "worker/admission/check_blocks.h"

namespace weft {
namespace {

using testing::difference;
using testing::Distance;
using testing::Trace;

class Draws {
 public:
  explicit Draws(uint32_t seed) : random_(seed) {}
  int between(int first, int last) {
    return first + static_cast<int>(random_() % static_cast<uint32_t>(last - first + 1));
  }
  template <typename T>
  T one_of(std::initializer_list<T> all) {
    return all.begin()[between(0, static_cast<int>(all.size()) - 1)];
  }
  // At most `most` ranks, degrees of products of `factors`.
  MeshDegrees mesh(int most, std::initializer_list<int> factors) {
    MeshDegrees mesh;
    for (int i = 0; i < 6; ++i) {
      int* const degree = one_of({&mesh.data, &mesh.sequence, &mesh.tensor});
      const int factor = one_of(factors);
      if (mesh.world() * factor <= most) *degree *= factor;
    }
    return mesh;
  }

 private:
  std::mt19937 random_;
};

class RandomMeshes : public TopologyTasks {
 protected:
  void SetUp() override {
    TopologyTasks::SetUp();
    write_tasks(WEFT_SOURCE_DIR);
  }
  struct Model {
    int heads = 1, features = 8, layers = 1, vocabulary = 257, tokens = 16;
    int key_heads = 0, inner = 0;  // 0: GPT-2; else a Llama
    int window = 0;                // 0: none; else a Qwen3, whose first layer has none
    std::string encoder = {};      // a family; then it classifies, but t5, which writes
    bool gated = false;            // of t5, with a head of its own
    std::string text() const {
      const auto key = [](const char* name, int value) {
        return std::string(name) + ": " + std::to_string(value);
      };
      const std::string shared =
          key(", vocab_size", vocabulary) + key(", num_hidden_layers", layers) +
          key(", num_attention_heads", heads) + key(", hidden_size", heads * features) + "}}";
      if (encoder == "t5") {
        return "{family: t5, config: {num_decoder_layers: 1" + key(", d_ff", inner) +
               key(", d_kv", features) + key(", num_layers", layers) + key(", num_heads", heads) +
               key(", d_model", heads * features) + key(", vocab_size", vocabulary) +
               (gated ? ", feed_forward_proj: gated-gelu, tie_word_embeddings: false" : "") + "}}";
      }
      if (!encoder.empty()) {  // roberta's table begins at its padding
        const char* const name = encoder == "distilbert" ? ", hidden_dim" : ", intermediate_size";
        return "{family: " + encoder + ", config: {max_position_embeddings: 70, pad_token_id: 5" +
               key(name, inner) + shared;
      }
      if (key_heads == 0) return "{family: gpt2, config: {max_position_embeddings: 64" + shared;
      const std::string windows =
          key(", head_dim", features) +
          key(", use_sliding_window: true, max_window_layers: 1, sliding_window", window);
      return std::string("{family: ") + (window > 0 ? "qwen3" : "llama") +
             ", config: {max_position_embeddings: 64" + (window > 0 ? windows : "") +
             key(", num_key_value_heads", key_heads) + key(", intermediate_size", inner) + shared;
    }
  };
  static std::string drawn_adapter(Draws draws) {
    const auto key = [](const char* name, const std::string& value) {
      return std::string(", ") + name + ": " + value;
    };
    return "{type: lora, targets: [all-linear]" +
           key("rank", std::to_string(draws.one_of({1, 2, 3, 5, 8}))) +
           key("dropout", draws.one_of({"0", "0.2"})) +
           key("dora", draws.one_of({"false", "true"})) +
           key("rslora", draws.one_of({"false", "true"})) + "}";
  }
  // Of all jobs but what `training` says.
  static std::string drawn_job(Draws& draws, const Model& model, const std::string& training) {
    const std::string tasks =
        model.encoder.empty()
            ? draws.one_of<std::string>({kLm, kClasses, std::string(kLm) + ", " + kClasses})
        : model.encoder == "t5" ? kTargets
                                : kClasses;
    const bool several = tasks.find("}, {") != std::string::npos;
    return "name: drawn\nkind: " + std::string(several ? "multi_task" : "pretrain") +
           "\nmodel: " + model.text() + "\ntokenizer: {type: byte}\ntasks: [" + tasks +
           "]\ntraining: {steps: 9, seed: 17, sequence_length: " + std::to_string(model.tokens) +
           ", activation_checkpointing: " + draws.one_of({"none", "selective", "full"}) +
           ", dropout: " + draws.one_of({"0", "0.2"}) + ", " + training + "}\n";
  }
};

TEST_F(RandomMeshes, TrainWhatOneRankTrains) {
  for (uint32_t seed = 0; seed < 220; ++seed) {
    Draws draws(seed);
    MeshDegrees mesh = draws.mesh(7, {2, 3, 5, 7});
    Model model{draws.between(1, 6), draws.one_of({4, 8}), draws.between(1, 2),
                draws.between(257, 290), draws.between(7, 40)};
    if (seed >= 150) {
      model.encoder = draws.one_of({"bert", "roberta", "distilbert"});
      model.inner = draws.between(5, 40);
    } else if (seed >= 100) {
      model.key_heads = draws.between(1, 3);
      model.heads = model.key_heads * draws.between(1, 4);
      model.inner = 5 * model.heads + model.vocabulary % 7;
    }
    const int batch = draws.between(mesh.data, 9);
    const int rows = draws.between(1, (batch + mesh.data - 1) / mesh.data);
    const std::string settings = "batch_size: " + std::to_string(batch);
    Draws same = draws;
    const Trace one = run(drawn_job(same, model, settings), {}, 0, 1);
    const std::string text =
        drawn_job(draws, model, settings + ", micro_batch_size: " + std::to_string(rows));
    const int zero = draws.between(0, 3);
    const Distance apart = distance(one, run(text, mesh, zero, 1));
    EXPECT_LE(apart.losses, 2e-6) << name_of(mesh) << " zero " << zero << "\n" << text;
    EXPECT_LE(apart.norms, 2e-5) << name_of(mesh) << " zero " << zero << "\n" << text;
    EXPECT_LE(apart.gradients, 1e-4) << name_of(mesh) << " zero " << zero << "\n" << text;
  }
}

// Each way over the sequence axis, where another one might send less: windows over fewer heads of
// keys than ranks, rings of groups that leave heads over.
TEST_F(RandomMeshes, TrainWhatOneRankTrainsEachWayOverTheSequence) {
  int grids = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    Draws draws(seed);
    MeshDegrees mesh = draws.mesh(2, {2});
    const int sequence = draws.one_of({2, 3, 4, 4, 6});
    if (sequence <= 4) {
      mesh.data *= mesh.sequence;  // which is drawn apart
    } else {
      mesh = {};
    }
    mesh.sequence = sequence;
    Model model{1, draws.one_of({4, 8}), draws.between(1, 2), draws.between(257, 290),
                draws.between(7, 40)};
    model.key_heads = draws.between(1, 3);
    model.heads = model.key_heads * draws.between(1, 4);
    model.inner = 5 * model.heads;
    model.window = draws.between(2, model.tokens);  // of 1 key queries have no gradient
    const int batch = draws.between(mesh.data, 5);
    const int rows = draws.between(1, (batch + mesh.data - 1) / mesh.data);
    std::string way = draws.one_of({"ring", "ulysses", "ulysses_ring", "ulysses_ring"});
    if (way == "ulysses_ring") {
      ++grids;
      way += ", ulysses: " +
             std::to_string(sequence % 2 == 0 ? draws.one_of({2, sequence / 2}) : sequence);
    }
    const std::string settings = "batch_size: " + std::to_string(batch);
    Draws same = draws;
    const Trace one = run(drawn_job(same, model, settings), {}, 0, 1);
    const std::string text =
        drawn_job(draws, model, settings + ", micro_batch_size: " + std::to_string(rows)) +
        "parallel: {sequence_attention: " + way + "}\n";
    const int zero = draws.between(0, 3);
    const Distance apart = distance(one, run(text, mesh, zero, 1));
    EXPECT_LE(apart.losses, 2e-6) << name_of(mesh) << " zero " << zero << "\n" << text;
    EXPECT_LE(apart.norms, 2e-5) << name_of(mesh) << " zero " << zero << "\n" << text;
    EXPECT_LE(apart.gradients, 1e-4) << name_of(mesh) << " zero " << zero << "\n" << text;
  }
  EXPECT_GE(grids, 20);
}

// What a job's rules refuse is drawn again. From 160 on they are of few rows, so that ranks share
// the tokens of a row; the last ones write targets. Of the others a third has adapters.
TEST_F(RandomMeshes, HaveTheBitsOfOneRankWhereTopologyDoesNotMatter) {
  int compared = 0, uneven_heads = 0, uneven_vocabularies = 0, cut_groups = 0, adapted = 0;
  for (uint32_t seed = 0; compared < 280; ++seed) {
    Draws draws(seed);
    MeshDegrees mesh = draws.mesh(8, {2, 4});
    const int blocks = draws.one_of({4, 8, 16});
    int batch = draws.one_of({2, 4, 8, 16});
    if (compared >= 160 && compared < 240) {
      mesh = {1, mesh.data * mesh.sequence, mesh.tensor};
      batch = draws.one_of({1, 2});
    }
    Model model{draws.one_of({2, 3, 4, 6, 8, 12}), draws.one_of({8, 16}), draws.between(1, 2),
                draws.between(257, 272), 8 * draws.between(1, 8)};
    if (compared >= 240) {
      model.encoder = "t5";
      model.inner = 16 * draws.between(1, 5);
      model.gated = draws.between(0, 1) == 1;
    } else if (compared >= 120 && compared < 160) {
      model.encoder = draws.one_of({"bert", "roberta", "distilbert"});
      model.inner = 16 * draws.between(1, 5);
    } else if (compared >= 80 && compared < 200) {
      model.key_heads = draws.one_of({1, 2, 3, 5, 6});
      model.heads = model.key_heads * draws.one_of({1, 2, 4});
      model.inner = 16 * draws.between(1, 5);
    }
    const auto job_on = [&](Draws again, int data) {
      return drawn_job(
          again, model,
          "batch_size: " + std::to_string(batch) +
              ", micro_batch_size: " + std::to_string(batch / data) +
              ", reproducible: topology, reproducible_blocks: " + std::to_string(blocks) +
              ", precision: " + again.one_of({"fp32", "bf16"}));
    };
    const int zero = Draws(seed + 1).between(0, 3);
    const bool adapts = seed % 3 == 0 && compared < 240;
    const std::string adapter = adapts ? drawn_adapter(Draws(seed + 2)) : "";
    proto::JobSpec spec;
    ASSERT_TRUE(read_yaml(job_on(draws, mesh.data), spec).ok());
    spec.mutable_parallel()->set_data(mesh.data);
    spec.mutable_parallel()->set_sequence(mesh.sequence);
    spec.mutable_parallel()->set_tensor(mesh.tensor);
    const auto config =
        find_family(spec.model().family())->parse_config(struct_to_json(spec.model().config()));
    if (!finish_job(spec).ok() || !check_blocks(spec, **config).ok()) continue;
    ++compared;
    if (adapts) ++adapted;
    const int in_row = mesh.data * mesh.sequence / std::gcd(batch, mesh.data * mesh.sequence);
    if (model.heads / mesh.tensor % in_row != 0) ++uneven_heads;
    if (mesh.tensor > 1 && model.vocabulary % blocks > 1) ++uneven_vocabularies;
    const int keys = model.key_heads > 0 ? model.key_heads : model.heads;
    if (keys % mesh.tensor != 0 && mesh.tensor % keys != 0) ++cut_groups;
    EXPECT_EQ(difference(run(job_on(draws, 1), {}, 0, 2, adapter),
                         run(job_on(draws, mesh.data), mesh, zero, 2, adapter)),
              "")
        << name_of(mesh) << " zero " << zero << "\n"
        << adapter << job_on(draws, mesh.data);
  }
  EXPECT_GE(adapted, 50);
  EXPECT_GE(uneven_heads, 20);
  EXPECT_GE(uneven_vocabularies, 20);
  EXPECT_GE(cut_groups, 10);
}

}  // namespace
}  // namespace weft
