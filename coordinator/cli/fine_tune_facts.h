// What `weft fine-tune` finds out about a model and about data before it writes a job: what nobody
// should have to type, and what is wrong with them while it is cheap to tell.
//
// Thread safety: one thread. Ownership: values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"

namespace weft::cli {

// A head of classes that comes with a model. A job's task takes over that of its own name, or that
// of a folder.
struct HeadFacts {
  std::string task;  // empty: of a folder
  std::string type;  // of the task
  int64_t labels = 0;
  std::vector<std::string> names;  // of its first classes, in order
};

struct ModelFacts {
  std::string from;  // as the job file names it: an id, or an absolute path
  std::string family;
  int64_t positions = 0, heads = 0, vocabulary = 0;  // 0: not known here, of an uploaded object
  int64_t image_size = 0;                            // 0: of none, or not known here
  int64_t seconds = 0;                               // that are heard of a recording; the same
  bool has_tokenizer = false;                        // a tokenizer comes with it
  std::vector<HeadFacts> classifiers;                // none, too, where it is not known here
  bool encoder = false;                              // tokens see those behind them
  bool writes = false;                               // an encoder-decoder
  std::vector<std::string> tasks;                    // that it learns; none: not known here
};

// A checkpoint's, a job's (its best checkpoint or else its newest) or an object's id (asks the
// service: 102 where there is none), or a Hugging Face folder.
Result<ModelFacts> find_model(const Context& context, const std::string& model);

struct DataFacts {
  std::string path;  // absolute, or an object's id
  bool jsonl = false;
  bool images = false;   // each in a folder of its class
  bool audio = false;    // recordings, with their texts in metadata.jsonl
  bool chats = false;    // the first row has messages instead of a text
  bool classes = false;  // what was looked for: each row has a label,
  bool words = false;    // or each word of a row's list
  bool pairs = false;    // rows have a second text
  bool answers = false;  // that answers the first one, a question
  int64_t choices = 0;   // of each row, a list of so many second texts
  std::string text_key, label_key, pair_key;
  int64_t documents = 0;           // rows or files; of an object files
  int64_t bytes = 0;               // of text, or of the images' or recordings' files
  std::vector<double> seconds;     // of each recording
  int64_t labels = 0;              // classes that occur; by number: the largest and one
  std::vector<std::string> names;  // of the labels that are strings, in their order
};

// `options` has the keys and the task; an empty task is decided by the first row. Reads all of the
// data, of images and recordings the headers. Errors name file, line and rule: neither text nor
// JSONL, both mixed in one folder, a row without its keys, labels that are no classes, a file that
// is no image. Of an uploaded object only the files' names are looked at, so that rows need --task,
// and classes or choices --labels.
Result<DataFacts> find_data(const Context& context, const std::string& option,
                            const std::string& path, const FineTuneOptions& options);

}  // namespace weft::cli
