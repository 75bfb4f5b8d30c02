// The commands that use a model on this machine, but for `generate`.
#include <CLI/CLI.hpp>

#include "coordinator/cli/command_tree_parts.h"
#include "coordinator/cli/usage.h"

namespace weft::cli {
namespace {

constexpr const char* kAnyModel =
    "A checkpoint's id, a job's for its best or else newest, or an exported folder";

// What they have in common.
void add_choice(CLI::App* made, ModelOptions& o) {
  made->add_option("MODEL", o.model, kAnyModel)->type_name(kPath)->required();
  made->add_option("--task", o.task, "Of a checkpoint; default: the only one that fits")
      ->type_name("TASK");
}

void add_precision(CLI::App* made, ModelOptions& o) {
  made->add_option("--precision", o.precision,
                   "What the model computes in; default: as its job, else fp32")
      ->type_name("PRECISION")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
}

// The same of those that read texts.
void add_model(CLI::App* made, ModelOptions& o) {
  add_choice(made, o);
  made->add_option("--text-key", o.text_key,
                   "JSONL: the key that holds the text; default: as the model's job, else text, of "
                   "questions question")
      ->type_name("KEY");
  made->add_option("--sequence-length", o.sequence_length,
                   "Tokens a row; default: as the model's job, else of an embedding as its "
                   "sentence_bert_config.json, else the model's positions, 1024 at most")
      ->type_name("N")
      ->check(whole_number_from(1, 1 << 30));
  made->add_option("--batch-size", o.batch_size,
                   "Rows at once, of a multiple_choice with all their choices; default: 8, of an "
                   "embedding's job as many pairs as in its step, of a "
                   "question_answering's job as many windows")
      ->type_name("N")
      ->check(whole_number_from(1, 1 << 20));
  add_precision(made, o);
}

void add_pair_key(CLI::App* made, ModelOptions& o) {
  made->add_option("--text-pair-key", o.pair_key,
                   "JSONL: the key that holds the second text of a pair; default: as the model's "
                   "job, of an embedding text_pair, of questions context, of a seq2seq target, of "
                   "recordings transcription, of a multiple_choice choices, else there is none")
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
  made->add_option(
          "--target-length", p.evaluate.target_length,
          "Of a seq2seq or recordings: tokens of a target, its end included; default: as "
          "the model's job, else as the text's, of recordings as the decoder has positions")
      ->type_name("N")
      ->check(whole_number_from(1, 1 << 24));
  made->add_option("DATA", p.evaluate.data,
                   "A text or JSONL file, a folder of such files, a folder of images' folders, one "
                   "a class, or of recordings with their metadata.jsonl")
      ->type_name(kPath)
      ->required();
  made->add_option(
          "--label-key", p.evaluate.label_key,
          "JSONL: the key that holds the label; default: as the model's job, else label, of "
          "questions answers")
      ->type_name("KEY");
  made->footer(
      "Loss, accuracy, of a language model perplexity, of words with tags B-, I- and O the F1\n"
      "of entities, of questions exact match and the F1 of words, as SQuAD has them, of\n"
      "recordings the word and character error rates of what 'weft transcribe' writes; as the\n"
      "trainer takes them on its validation data: with the same data and a job's checkpoint the\n"
      "loss is the job's validation_loss of that task, to rounding. A masked language model's\n"
      "tokens are masked alike each time. A label is the name of a class, or its number.\n"
      "A language model's text is cut into windows, its rows, each of the sequence length. It "
      "runs\n"
      "on this machine's cores; a checkpoint's export is kept as 'weft generate' keeps it. Of "
      "chats\n"
      "(rows with messages) only what the assistant says counts.");
}

void add_classify(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "classify", "Tell the classes of texts or images by a classifier",
                       [&p] { return classify(p.context, p.classify); });
  CLI::Option* images =
      made->add_option("--image", p.classify.images,
                       "An image, PNG or JPEG, or a folder of such files; repeatable")
          ->type_name(kPath);
  CLI::Option* texts = add_texts(made, p.classify.given,
                                 "JSONL with a text, or a list of words, a row, a folder of such "
                                 "files, or - for standard input");
  made->add_option("--text-pair", p.classify.given.pairs,
                   "The second text of a pair; as often as --text, in the same order")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->take_all()
      ->needs(texts);
  images->excludes(texts);
  images->excludes("--file");
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
      "Of images it gives {file, label, class, probability, probabilities}.\n"
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

void add_answer(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "answer", "Find the part of a text that answers a question",
                       [&p] { return answer(p.context, p.answer); });
  CLI::Option* question =
      made->add_option("--question", p.answer.question, "A question")->type_name("TEXT");
  CLI::Option* context =
      made->add_option("--context", p.answer.context, "The text that may hold the answer")
          ->type_name("TEXT")
          ->needs(question);
  question->needs(context);
  made->add_option("--file", p.answer.file,
                   "JSONL with a question and a context a row, a folder of such files, or - for "
                   "standard input")
      ->type_name("FILE")
      ->excludes(question);
  made->add_flag("--allow-none", p.answer.allow_none,
                 "Give no answer where that is likelier; for models that learned from questions "
                 "without one");
  add_model(made, p.answer);
  add_pair_key(made, p.answer);
  made->footer(
      "With --json each question is a line: {question, answer, score, start, end}, from a file "
      "also\n"
      "file and line; start and end are places in the context, in code points, and an answer that\n"
      "there is not is empty. The score is the product of the probabilities that it begins and "
      "ends\n"
      "there. A context that is too long is read in windows that share tokens as in the model's "
      "job,\n"
      "else a third of the sequence length. It runs on this machine's cores; a checkpoint's "
      "export\n"
      "is kept as 'weft generate' keeps it.");
}

void add_transcribe(CLI::App& app, Parsed& p) {
  CLI::App* made = add(app, p, "transcribe", "Write down what recordings say",
                       [&p] { return transcribe(p.context, p.transcribe); });
  add_choice(made, p.transcribe);
  made->add_option("FILE", p.transcribe.files, "A recording: WAV, FLAC, Ogg, MP3; repeatable")
      ->type_name(kPath)
      ->required();
  made->add_option("--batch-size", p.transcribe.batch_size,
                   "Pieces of recordings at once; default: 8")
      ->type_name("N")
      ->check(whole_number_from(1, 1 << 20));
  add_precision(made, p.transcribe);
  made->footer(
      "By a model of a speech_recognition, the likeliest token after each other. What is longer\n"
      "than the model hears at once (chunk_length of its preprocessor_config.json) is written "
      "down\n"
      "in pieces of that length. With --json each recording is a line: {file, text, seconds}. It\n"
      "runs on this machine's cores; a checkpoint's export is kept as 'weft generate' keeps it.");
}

}  // namespace

void add_model_commands(CLI::App& app, Parsed& p) {
  add_evaluate(app, p);
  add_classify(app, p);
  add_embed(app, p);
  add_answer(app, p);
  add_transcribe(app, p);
}

}  // namespace weft::cli
