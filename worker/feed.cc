#include "worker/feed.h"

#include "worker/data/source.h"

namespace weft {

struct Feed::State {
  std::string field;
  std::shared_ptr<const Dataset> train, held_out;
  Sampler sampler;
};

Feed::Feed(std::unique_ptr<State> state) : state_(std::move(state)) {}
Feed::Feed(Feed&&) noexcept = default;
Feed& Feed::operator=(Feed&&) noexcept = default;
Feed::~Feed() = default;

namespace {

Result<std::shared_ptr<const Dataset>> load(const std::string& id, const std::string& field,
                                            const DatasetOptions& dataset,
                                            const Tokenizer* tokenizer,
                                            const FeedOptions& options) {
  const Result<std::string> path = staged_input(options.objects_folder, id);
  if (!path) return fail(path.error().with_prefix(field));
  const auto files = input_files(*path);
  if (!files) return fail(files.error().with_prefix(field));
  auto loaded = tokenizer == nullptr ? Dataset::load_images(*files, dataset)
                                     : Dataset::load(*files, dataset, *tokenizer);
  if (!loaded) return fail(loaded.error().with_prefix(field));
  return loaded;
}

// The rows that are read; of an image or a recording that cannot be, the field is named too.
template <typename Read>
TaskRows named(const std::string& field, const Read& read) {
  try {
    return read();
  } catch (const StatusError& error) {
    throw StatusError(error.status().with_prefix(field));
  }
}

}  // namespace

Result<Feed> Feed::open(const proto::TaskSpec& task, const Tokenizer* tokenizer,
                        const FeedOptions& options) {
  DatasetOptions dataset = dataset_options(task, options.sequence_length, options.target_length);
  dataset.first_labels = options.first_labels;
  dataset.mask_key =
      RandomKey{options.seed, 0}.derive(/*a=*/0x6d61736b, static_cast<uint64_t>(options.index));
  dataset.preprocessor = options.preprocessor;
  dataset.audio = options.audio;
  dataset.start_id = options.start_id;
  dataset.pool = options.pool;
  if (task.data().augment()) {
    dataset.augment_key =
        RandomKey{options.seed, 0}.derive(/*a=*/0x61756776, static_cast<uint64_t>(options.index));
  }
  WEFT_ASSIGN_OR_RETURN(auto train, load(task.data().train(), options.field + ".data.train",
                                         dataset, tokenizer, options));
  std::shared_ptr<const Dataset> held_out;
  if (!task.data().validation().empty()) {
    dataset.label_names = train->label_names();
    WEFT_ASSIGN_OR_RETURN(
        held_out, load(task.data().validation(), options.field + ".data.validation", dataset,
                       tokenizer, options));
  }
  const RandomKey key = RandomKey{options.seed, 0}.derive(
      /*a=*/0x6f72646572, static_cast<uint64_t>(options.index));
  Sampler sampler(train->samples(), options.shuffle, key);
  return Feed(std::make_unique<State>(
      State{options.field, std::move(train), std::move(held_out), std::move(sampler)}));
}

int64_t Feed::cut_recordings() const {
  const auto& held_out = state_->held_out;
  return state_->train->cut_recordings() + (held_out ? held_out->cut_recordings() : 0);
}

TaskRows Feed::next(int64_t rows) {
  return named(state_->field + ".data.train", [&] {
    return state_->train->rows(state_->sampler.next(rows / state_->train->rows_per_sample()));
  });
}

int64_t Feed::validation_rows() const {
  if (state_->held_out == nullptr) return 0;
  return state_->held_out->samples() * state_->held_out->rows_per_sample();
}

TaskRows Feed::validation(int64_t first, int64_t rows) const {
  const int64_t each = state_->held_out->rows_per_sample();
  return named(state_->field + ".data.validation",
               [&] { return state_->held_out->range(first / each, rows / each); });
}

std::map<std::string, double> Feed::answer_scores(std::span<const FoundAnswer> found) const {
  return weft::answer_scores(*state_->held_out, found);
}

const std::vector<std::string>& Feed::label_names() const { return state_->train->label_names(); }

proto::DataPosition Feed::position() const {
  proto::DataPosition position;
  position.set_epoch(state_->sampler.position().epoch);
  position.set_sample(state_->sampler.position().sample);
  return position;
}

Status Feed::restore(const proto::DataPosition& position) {
  return state_->sampler.restore({position.epoch(), position.sample()});
}

}  // namespace weft
