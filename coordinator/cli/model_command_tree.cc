// The commands that use a model on this machine, but for `generate`.
#include <CLI/CLI.hpp>

#include "coordinator/cli/command_tree_parts.h"
#include "coordinator/cli/usage.h"

namespace weft::cli {
namespace {

constexpr const char* kAnyModel =
    "A checkpoint's id, a job's for its best or else newest, or an exported folder";

// What they have in common.
void add_model(CLI::App* made, ModelOptions& o) {
  made->add_option("MODEL", o.model, kAnyModel)->type_name(kPath)->required();
  made->add_option("--task", o.task, "Of a checkpoint; default: the only one that fits")
      ->type_name("TASK");
  made->add_option("--text-key", o.text_key,
                   "JSONL: the key that holds the text; default: as the model's job, else text")
      ->type_name("KEY");
  made->add_option("--sequence-length", o.sequence_length,
                   "Tokens a row; default: as the model's job, else of an embedding as its "
                   "sentence_bert_config.json, else the model's positions, 1024 at most")
      ->type_name("N")
      ->check(whole_number_from(1, 1 << 30));
  made->add_option("--batch-size", o.batch_size,
                   "Rows at once; default: 8, of an embedding's job as many pairs as in its step")
      ->type_name("N")
      ->check(whole_number_from(1, 1 << 20));
  made->add_option("--precision", o.precision,
                   "What the model computes in; default: as its job, else fp32")
      ->type_name("PRECISION")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
}

void add_pair_key(CLI::App* made, ModelOptions& o) {
  made->add_option("--text-pair-key", o.pair_key,
                   "JSONL: the key that holds the second text of a pair; default: as the model's "
                   "job, of an embedding text_pair, else there is none")
      ->type_name("KEY");
}

CLI::Option* add_texts(CLI::App* made, GivenTexts& given, const char* file) {
  CLI::Option* texts = made->add_option("--text", given.texts, "A text; repeatable")
                           ->type_name("TEXT")
                           ->allow_extra_args(false)
                           ->take_all();
  made->add_option("--file", given.file, file)->type_name("FILE")->excludes(texts);
  return texts;
}

void add_evaluate(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "evaluate", "Measure a model on held-out data",
                       [&p] { return evaluate(p.context, p.evaluate); });
  add_model(made, p.evaluate);
  add_pair_key(made, p.evaluate);
  made->add_option("DATA", p.evaluate.data, "A text or JSONL file, or a folder of such files")
      ->type_name(kPath)
      ->required();
  made->add_option("--label-key", p.evaluate.label_key,
                   "JSONL: the key that holds the label; default: as the model's job, else label")
      ->type_name("KEY");
  made->footer(
      "Loss, accuracy, of a language model perplexity and of words with tags B-, I- and O the F1\n"
      "of entities, as the trainer takes them on its validation data: with the same data and a\n"
      "job's checkpoint the loss is the job's validation_loss of that task, to rounding. A masked\n"
      "language model's tokens are masked alike each time. A label is the name of a class, or its\n"
      "number.\n"
      "A language model's text is cut into windows, its rows, each of the sequence length. It "
      "runs\n"
      "on this machine's cores; a checkpoint's export is kept as 'weft generate' keeps it. Of "
      "chats\n"
      "(rows with messages) only what the assistant says counts.");
}

void add_classify(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "classify", "Tell the classes of texts by a classifier",
                       [&p] { return classify(p.context, p.classify); });
  CLI::Option* texts = add_texts(made, p.classify.given,
                                 "JSONL with a text, or a list of words, a row, a folder of such "
                                 "files, or - for standard input");
  made->add_option("--text-pair", p.classify.given.pairs,
                   "The second text of a pair; as often as --text, in the same order")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->take_all()
      ->needs(texts);
  add_model(made, p.classify);
  add_pair_key(made, p.classify);
  made->footer(
      "Of one text all classes are shown, of several the likeliest of each. With --json each text "
      "is\n"
      "a line: {text, label, class, probability, probabilities, dropped_tokens}, from a file also\n"
      "file and line. label is as in the data: the class's name, or its number where none has "
      "one.\n"
      "A classifier of words shows each word with its class: --text is cut at white space, a row\n"
      "of --file is a list. With --json it gives {words}, each {word, label, class, probability}.\n"
      "A text of more than the sequence length is cut there. It runs on this machine's cores; a\n"
      "checkpoint's export is kept as 'weft generate' keeps it.");
}

void add_embed(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "embed", "Give vectors of texts that lie near where texts are alike",
                       [&p] { return embed(p.context, p.embed); });
  add_texts(made, p.embed.given,
            "JSONL with a text a row, a folder of such files, or - for standard input");
  add_model(made, p.embed);
  made->footer(
      "The mean of the hidden states of a text's tokens, of length 1, by any encoder; so the\n"
      "product of two is the cosine between them. With --json each text is a line: {text,\n"
      "embedding, dropped_tokens}, from a file also file and line; else the first numbers are\n"
      "shown. A text of more than the sequence length is cut there. It runs on this machine's\n"
      "cores; a checkpoint's export is kept as 'weft generate' keeps it.");
}

}  // namespace

void add_model_commands(CLI::App& app, Parsed& p) {
  add_evaluate(app, p);
  add_classify(app, p);
  add_embed(app, p);
}

}  // namespace weft::cli
