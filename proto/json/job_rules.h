// The rules of a job that no single field can tell: what a kind needs, how mesh and slots belong
// together, what a task may and may not have. The command line's `validate`, the REST API and the
// coordinator all ask here, so that a job is right or wrong everywhere alike.
//
// Thread safety: pure functions. Ownership: none.
// Invariants: 1. A finished spec has every default, every task's name, micro_batch_size and
// resources.slots; with parallel.mode auto, these two, activation_checkpointing and all else of
// parallel are as they were given, for the service to choose (worker/planner). 2. Finishing a
// finished spec changes nothing.
#pragma once

#include <string>

#include "proto/base/status.h"

namespace google::protobuf {
class Struct;
}
namespace weft::proto {
class JobSpec;
class TaskSpec;
}  // namespace weft::proto

namespace weft {

class LineMap;

// Of a masked_lm that does not say its own (Devlin et al. 2019, section 3.1).
inline constexpr double kMaskRate = 0.15;

// The same of a permutation_lm: one token in six, as Yang et al. 2019 have it (section 2.3).
inline constexpr double kPermutedRate = 1.0 / 6;

// Of a sequence, what windows of a context share where nobody says: one in so many tokens.
inline constexpr int32_t kStrideShare = 3;

// Applies defaults, checks each field's rules and those across fields, fills in what follows from
// the rest. Rows over the data axis and heads over the tensor axis need not divide evenly; only a
// mesh that would leave a rank without any is refused.
Status finish_job(proto::JobSpec& spec, const LineMap* lines = nullptr);

// The name of a task's type, as a job file has it.
std::string task_type_name(const proto::TaskSpec& task);
// Whether it learns from images; such a job has no other tasks.
bool sees_images(const proto::TaskSpec& task);
bool sees_images(const proto::JobSpec& spec);
// Whether the task gives classes.
bool classifies(const proto::TaskSpec& task);
// Whether it tells the choices of a question apart.
bool chooses(const proto::TaskSpec& task);
// Of the sequences of a step, so many, one after the other, are of one question: a divisor of the
// batch and of a micro-batch. 1: no task has questions.
int64_t rows_together(const proto::JobSpec& spec);
// Whether it gives tokens: a language model's.
bool models_language(const proto::TaskSpec& task);
// Whether it predicts tokens in an order of their own.
bool permutes(const proto::TaskSpec& task);
// How many of so many tokens it predicts at this rate, rounded: at least one and never all.
int64_t permuted_tokens(double rate, int64_t tokens);
// Of the job's rows, in the task with most: each is computed beside the row's tokens. 0: of none.
int64_t permuted_tokens(const proto::JobSpec& spec);
// Whether it gives vectors, each told apart from all others of the step.
bool embeds(const proto::TaskSpec& task);
// Whether it finds answers in texts.
bool finds_answers(const proto::TaskSpec& task);
// Whether it writes a text for what it reads or hears, which an encoder-decoder does.
bool writes_targets(const proto::TaskSpec& task);
bool writes_targets(const proto::JobSpec& spec);
// Of these, whether it learns from recordings; such a job has no other tasks.
bool hears(const proto::TaskSpec& task);
bool hears(const proto::JobSpec& spec);

// The part of it that needs the model's configuration: positions, heads, vocabulary, and of a job
// of images or recordings training.sequence_length, of recordings target_length too, which are set.
// finish_job calls it where the job brings a
// configuration; call it again once that of model.from is known.
Status finish_model_fit(proto::JobSpec& spec, const google::protobuf::Struct& config,
                        const LineMap* lines = nullptr);

}  // namespace weft
