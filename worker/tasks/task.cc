#include "worker/tasks/task.h"

#include <algorithm>
#include <array>
#include <functional>

#include "proto/job.pb.h"
#include "proto/json/names.h"
#include "worker/models/learned_tasks.h"
#include "worker/tasks/tasks.h"

namespace weft {

std::vector<Part> micro_batches(const Mesh& mesh, int64_t rows, int64_t micro_batch_size,
                                int64_t together) {
  const Part mine = part_of(rows / together, mesh.size(Axis::kData), mesh.index(Axis::kData));
  const int64_t size =
      std::max<int64_t>(1, micro_batch_size > 0 ? micro_batch_size / together : mine.length);
  std::vector<Part> parts;
  for (int64_t start = 0; start < mine.length; start += size) {
    parts.push_back(
        {(mine.start + start) * together, std::min(size, mine.length - start) * together});
  }
  return parts;
}

std::vector<Part> micro_batch_rounds(const Mesh& mesh, int64_t rows, int64_t micro_batch_size,
                                     int64_t together) {
  std::vector<Part> parts = micro_batches(mesh, rows, micro_batch_size, together);
  const int64_t most = part_of(rows / together, mesh.size(Axis::kData), 0).length;
  const int64_t size =
      std::max<int64_t>(1, micro_batch_size > 0 ? micro_batch_size / together : most);
  const Part mine = part_of(rows / together, mesh.size(Axis::kData), mesh.index(Axis::kData));
  parts.resize(static_cast<size_t>((most + size - 1) / size),
               {(mine.start + mine.length) * together, 0});
  return parts;
}

std::vector<int64_t> first_tokens(const Mesh& mesh, const TaskRows& rows,
                                  int64_t micro_batch_size) {
  std::vector<int64_t> ids;
  if (rows.ids.empty()) return ids;  // of images, recordings
  for (int rank = 0; rank < mesh.size(Axis::kData); ++rank) {
    const Part all = part_of(rows.rows, mesh.size(Axis::kData), rank);
    const int64_t length =
        micro_batch_size > 0 ? std::min(micro_batch_size, all.length) : all.length;
    const auto first = rows.ids.begin() + all.start * rows.tokens;
    ids.insert(ids.end(), first, first + length * rows.tokens);
  }
  return ids;
}

std::vector<Part> blocked_rounds(const Mesh& mesh, int64_t rows, int64_t at_once) {
  const Part mine = part_of(at_once, mesh.size(Axis::kData), mesh.index(Axis::kData));
  WEFT_CHECK(rows % at_once == 0, "{} rows in rounds of {}", rows, at_once);
  std::vector<Part> parts;
  for (int64_t start = 0; start < rows; start += at_once) {
    parts.push_back({start + mine.start, mine.length});
  }
  return parts;
}

void EvaluationSums::add(const EvaluationSums& other) {
  loss += other.loss;
  labels += other.labels;
  correct += other.correct;
  entities_wanted += other.entities_wanted;
  entities_found += other.entities_found;
  entities_correct += other.entities_correct;
  answers.insert(answers.end(), other.answers.begin(), other.answers.end());
}

void EvaluationSums::reduce(Rank& rank) {
  Communicator& replica = rank.mesh.axis(Axis::kReplica);
  if (replica.size() == 1) return;
  const double own_loss = rank.blocks > 0 && replica.rank() > 0 ? 0 : loss;
  const std::array counts{&labels, &correct, &entities_wanted, &entities_found, &entities_correct};
  std::vector<double> own{own_loss};
  for (const int64_t* count : counts) own.push_back(static_cast<double>(*count));
  Tensor sums = Tensor::from<double>(*rank.allocator, {std::ssize(own)}, own);
  replica.all_reduce(sums, ReduceOp::kSum);
  const std::vector<double> all = sums.to_vector<double>();
  loss = all[0];
  for (size_t i = 0; i < counts.size(); ++i) *counts[i] = static_cast<int64_t>(all[i + 1]);
}

std::string Task::file_name(const std::string& parameter) const {
  const std::string prefix = name() + ".";
  return parameter.starts_with(prefix) ? parameter.substr(prefix.size()) : parameter;
}

namespace {

// Of the micro-batch: all its rows share one layout.
parallel::SequenceLayout layout_of(const Mesh& mesh, const parallel::AttentionPattern& attention,
                                   const TaskRows& rows, Part part) {
  if (mesh.size(Axis::kSequence) == 1) return parallel::SequenceLayout::contiguous(rows.tokens, 1);
  std::vector<int64_t> cost(static_cast<size_t>(rows.tokens));
  for (int64_t row = part.start; row < part.start + part.length; ++row) {
    const auto of_row = [&]<typename T>(const std::vector<T>& whole) {
      const auto first = static_cast<size_t>(row * rows.tokens);
      return whole.empty() ? std::span<const T>()
                           : std::span(whole).subspan(first, static_cast<size_t>(rows.tokens));
    };
    const std::vector<int64_t> seen =
        parallel::keys_seen(attention, rows.tokens, of_row(rows.documents), of_row(rows.valid));
    std::transform(cost.begin(), cost.end(), seen.begin(), cost.begin(), std::plus<>());
  }
  return parallel::balanced_layout(cost, mesh.size(Axis::kRing)).divided(mesh.size(Axis::kUlysses));
}

// Of the rows `part`, as the model counts them.
std::vector<int64_t> counted_positions(const TokenRules& rules, const TaskRows& rows, Part part) {
  std::vector<int64_t> positions;
  positions.reserve(static_cast<size_t>(part.length * rows.tokens));
  for (int64_t row = part.start; row < part.start + part.length; ++row) {
    int64_t next = rules.skipped ? *rules.skipped + 1 : 0;
    for (int64_t token = 0; token < rows.tokens; ++token) {
      const bool skips = rules.skipped &&
                         rows.ids[static_cast<size_t>(row * rows.tokens + token)] == *rules.skipped;
      positions.push_back(skips ? *rules.skipped : next++);
    }
  }
  return positions;
}

constexpr int64_t kWindows = 3, kTaps = 3;  // of a token of a recording, of a window

// Class token and patches of so many images.
std::vector<int64_t> ids_of_images(int64_t tokens, int64_t images) {
  std::vector<int64_t> ids(static_cast<size_t>(tokens * images), 1);
  for (int64_t image = 0; image < images; ++image) ids[static_cast<size_t>(image * tokens)] = 0;
  return ids;
}

// Zeros in place of the class token.
Tensor own_patches(Rank& rank, const TokenBatch& batch, const TaskRows& rows, Part part) {
  const int64_t of_row = rows.tokens - 1;
  const int64_t values = std::ssize(rows.patches) / (rows.rows * of_row);
  const Shape shape{part.length, batch.own_tokens, values};
  std::vector<float> own;
  own.reserve(static_cast<size_t>(shape.elements()));
  for (int64_t row = part.start; row < part.start + part.length; ++row) {
    for (const Part& run : batch.layout->runs(rank.mesh.index(Axis::kSequence))) {
      if (run.length == 0) continue;
      const int64_t classes = run.start == 0 ? 1 : 0;
      own.resize(own.size() + static_cast<size_t>(classes * values));
      const float* from = rows.patches.data() + (row * of_row + run.start + classes - 1) * values;
      own.insert(own.end(), from, from + (run.length - classes) * values);
    }
  }
  return Tensor::from<float>(*rank.allocator, shape, own);
}

// Of so many recordings of `tokens` tokens.
std::vector<int64_t> ids_of_windows(int64_t tokens, int64_t recordings) {
  const auto of_row = static_cast<size_t>(tokens * kWindows);
  std::vector<int64_t> ids(of_row * static_cast<size_t>(recordings), 1);
  for (size_t first = 0; first < ids.size(); first += of_row) ids[first] = 0;
  return ids;
}

// What the convolutions of a model that hears see of each token: kWindows windows, whose middles
// are its two frames and the one before them, each bin by bin, zeros beyond the features.
Tensor own_windows(Rank& rank, const TokenBatch& batch, const TaskRows& rows, Part part) {
  const int64_t frames = 2 * rows.tokens;
  const int64_t bins = std::ssize(rows.features) / (rows.rows * frames);
  const Shape shape{part.length, batch.own_tokens, kWindows, bins * kTaps};
  std::vector<float> own(static_cast<size_t>(shape.elements()));
  float* to = own.data();
  for (int64_t row = part.start; row < part.start + part.length; ++row) {
    const float* features = rows.features.data() + row * frames * bins;
    for (const Part& run : batch.layout->runs(rank.mesh.index(Axis::kSequence))) {
      for (int64_t middle = 2 * run.start - 1; middle < 2 * (run.start + run.length) - 1;
           middle += 2) {
        for (int64_t at = middle; at < middle + kWindows; ++at) {
          for (int64_t bin = 0; bin < bins; ++bin) {
            for (int64_t frame = at - 1; frame <= at + 1; ++frame) {
              const bool there = at >= 0 && frame >= 0 && frame < frames;
              *to++ = there ? features[frame * bins + bin] : 0;
            }
          }
        }
      }
    }
  }
  return Tensor::from<float>(*rank.allocator, shape, own);
}

}  // namespace

TokenRules::TokenRules(const ModelConfig& config)
    : attention(config.attention), typed(config.token_types > 1) {
  if (config.positions_skip_padding) skipped = config.pad_token_id;
}

TokenBatch assemble_tokens(Rank& rank, const TokenRules& rules, const TaskRows& rows, Part part) {
  WEFT_CHECK(part.start >= 0 && part.start + part.length <= rows.rows, "rows {} to {} of {}",
             part.start, part.start + part.length, rows.rows);
  TokenBatch batch;
  batch.tokens = rows.tokens;
  const int index = rank.mesh.index(Axis::kSequence);
  batch.layout = std::make_shared<const parallel::SequenceLayout>(
      layout_of(rank.mesh, rules.attention, rows, part));
  batch.own_tokens = batch.layout->length(index);
  batch.rows = rows.rows;
  batch.first_row = part.start;
  const Shape shape{part.length, batch.own_tokens};
  // each: numbers of a token.
  const auto cut_each = [&](const std::vector<int64_t>& whole, int64_t first, int64_t each,
                            const Shape& cut_shape) {
    std::vector<int64_t> own;
    own.reserve(static_cast<size_t>(cut_shape.elements()));
    for (int64_t row = 0; row < part.length; ++row) {
      const int64_t* from = whole.data() + (first + row) * rows.tokens * each;
      for (const Part& run : batch.layout->runs(index)) {
        own.insert(own.end(), from + run.start * each, from + (run.start + run.length) * each);
      }
    }
    return Tensor::from<int64_t>(*rank.allocator, cut_shape, own);
  };
  const auto cut = [&](const std::vector<int64_t>& whole, int64_t first) {
    return cut_each(whole, first, 1, shape);
  };
  const auto rows_of = [&]<typename T>(const std::vector<T>& whole) {
    const auto first = static_cast<size_t>(part.start * rows.tokens);
    const auto count = static_cast<size_t>(part.length * rows.tokens);
    return Tensor::from<T>(*rank.allocator, {part.length, rows.tokens},
                           std::span(whole).subspan(first, count));
  };
  if (!rows.patches.empty()) {
    batch.ids = cut(ids_of_images(rows.tokens, part.length), 0);
    batch.patches = own_patches(rank, batch, rows, part);
  } else if (!rows.features.empty()) {
    batch.ids = cut_each(ids_of_windows(rows.tokens, part.length), 0, kWindows,
                         {part.length, batch.own_tokens, kWindows});
    batch.patches = own_windows(rank, batch, rows, part);
  } else {
    batch.ids = cut(rows.ids, part.start);
  }
  if (!rows.valid.empty()) batch.key_valid = rows_of(rows.valid);
  if (!rows.documents.empty()) batch.documents = rows_of(rows.documents);
  if (rules.typed && !rows.token_types.empty())
    batch.token_types = cut(rows.token_types, part.start);
  batch.positions = rows.positions.empty() ? cut(counted_positions(rules, rows, part), 0)
                                           : cut(rows.positions, part.start);
  return batch;
}

Result<std::unique_ptr<Task>> make_task(Rank& rank, std::string_view type,
                                        const ModelConfig& config, TaskOptions options) {
  const auto refuse = [&](const std::string& rule) {
    return fail(Status::invalid("tasks." + options.name + ".type", std::string(type), rule));
  };
  if (const std::vector<std::string> types = enum_names(*proto::TaskType_descriptor());
      std::ranges::find(types, type) == types.end()) {
    return refuse("must be " + one_of(types));
  }
  if (!learns(config, type)) return refuse(learned_tasks_rule(config));
  if (config.encodes_and_decodes()) return make_seq2seq(rank, config, type, std::move(options));
  if (type == "causal_lm") return make_causal_lm(rank, config, std::move(options));
  if (type == "embedding") return make_embedding(rank, config, std::move(options));
  const std::optional<HeadKind> kind = head_kind(type);
  const bool classes =
      *kind != HeadKind::kMasked && *kind != HeadKind::kPermuted && *kind != HeadKind::kSpan;
  if (classes && options.labels < 2) {
    return fail(Status::invalid("tasks." + options.name + ".labels", std::to_string(options.labels),
                                "must be at least 2"));
  }
  std::optional<Head> head = family_of(config).head(config, *kind, options.labels);
  WEFT_CHECK(head, "{} learns {} without a head", config.family, type);
  if (*kind == HeadKind::kSequence || *kind == HeadKind::kChoice || *kind == HeadKind::kImage) {
    return make_sequence_classification(rank, config, *kind, std::move(*head), std::move(options));
  }
  if (*kind == HeadKind::kToken) {
    return make_token_classification(rank, config, std::move(*head), std::move(options));
  }
  if (*kind == HeadKind::kSpan) {
    return make_question_answering(rank, config, std::move(*head), std::move(options));
  }
  if (*kind == HeadKind::kPermuted) {
    return make_permutation_lm(rank, config, std::move(*head), std::move(options));
  }
  return make_masked_lm(rank, config, std::move(*head), std::move(options));
}

}  // namespace weft
