#include <fmt/format.h>

#include <cstdio>
#include <deque>
#include <vector>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/local_model.h"
#include "coordinator/cli/progress_line.h"
#include "proto/json/writer.h"
#include "worker/data/mapped_file.h"
#include "worker/data/source.h"
#include "worker/serve/transcribe.h"

namespace weft::cli {
namespace {

struct Heard {
  std::string file;
  double seconds = 0;
  std::string text;
  int64_t waiting = 0;  // chunks that are not yet written down
  bool whole = false;   // all its chunks have been read
};

// Every file's header is read before the model is: a wrong one costs no waiting.
Result<std::vector<RecordingHeader>> read_headers(const std::vector<std::string>& files) {
  std::vector<RecordingHeader> headers;
  for (const std::string& file : files) {
    const Result<data::MappedFile> mapped = data::MappedFile::open(file);
    if (!mapped) return fail(Status::invalid("FILE", file, mapped.error().message()));
    const Result<RecordingHeader> header = read_recording_header(mapped->bytes());
    if (!header) return fail(header.error().with_prefix(file));
    headers.push_back(*header);
  }
  return headers;
}

// Chunks of recordings, `at_once` of which are written down together; each recording is told once
// all of it is.
class Transcriber {
 public:
  Transcriber(const Context& context, Rank& rank, LoadedModel& model, const ModelUse& use,
              size_t recordings)
      : context_(context),
        rank_(rank),
        model_(model),
        use_(use),
        recordings_(recordings),
        line_(context.json) {}

  Status add(const std::string& file, double seconds) {
    heard_.push_back({file, seconds, "", 0, false});
    const Result<data::MappedFile> mapped = data::MappedFile::open(file);
    if (!mapped) return mapped.error().with_prefix(file);
    Result<Recording> recording = Recording::open(mapped->bytes(), model_.audio->rate());
    if (!recording) return recording.error().with_prefix(file);
    const auto values = static_cast<size_t>(model_.audio->layout().values());
    for (;;) {
      rows_.features.resize((static_cast<size_t>(rows_.rows) + 1) * values);
      const Result<bool> more = model_.audio->write_features(
          *recording, rows_.features.data() + static_cast<size_t>(rows_.rows) * values);
      if (!more) return more.error().with_prefix(file);
      if (!*more) break;
      ++rows_.rows;
      owners_.push_back(&heard_.back());
      ++heard_.back().waiting;
      if (rows_.rows == use_.rows_at_once) WEFT_RETURN_IF_ERROR(flush());
    }
    heard_.back().whole = true;
    tell();
    return {};
  }

  Status finish() {
    WEFT_RETURN_IF_ERROR(flush());
    line_.clear();
    return {};
  }

 private:
  Status flush() {
    if (rows_.rows == 0) return {};
    const AudioLayout& layout = model_.audio->layout();
    rows_.tokens = layout.frames / 2;
    rows_.features.resize(static_cast<size_t>(rows_.rows * layout.values()));
    WEFT_ASSIGN_OR_RETURN(const std::vector<std::string> texts,
                          transcribe(rank_, model_, rows_, model_.folder.config->target_positions));
    for (size_t i = 0; i < texts.size(); ++i) add_text(texts[i], *owners_[i]);
    owners_.clear();
    rows_ = {};
    tell();
    return {};
  }

  // Chunks' texts, with a space between two.
  static void add_text(const std::string& text, Heard& heard) {
    --heard.waiting;
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) return;
    if (!heard.text.empty()) heard.text += ' ';
    heard.text += text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
  }

  void tell() {
    bool told = false;
    for (; !heard_.empty() && heard_.front().whole && heard_.front().waiting == 0; ++told_) {
      const Heard& heard = heard_.front();
      line_.clear();
      if (context_.json) {
        JsonWriter out;
        out.begin_object().key("file").string(heard.file).key("text").string(heard.text);
        out.key("seconds").number(heard.seconds).end_object();
        print(out.take() + "\n");
      } else {
        const std::string file = recordings_ == 1 ? "" : printable(heard.file) + ": ";
        print(file + printable(heard.text) + "\n");
      }
      heard_.pop_front();
      told = true;
    }
    if (!told) return;
    std::fflush(stdout);
    line_.show(fmt::format("transcribed {} of {} recordings", told_, recordings_));
  }

  const Context& context_;
  Rank& rank_;
  LoadedModel& model_;
  const ModelUse& use_;
  const size_t recordings_;
  ProgressLine line_;
  std::deque<Heard> heard_;     // whose ends do not move what is between
  std::vector<Heard*> owners_;  // of the rows
  TaskRows rows_;               // features of chunks that wait
  size_t told_ = 0;
};

Status run(const Context& context, const TranscribeOptions& options) {
  WEFT_ASSIGN_OR_RETURN(const auto headers, read_headers(options.files));
  WEFT_ASSIGN_OR_RETURN(LocalModel source,
                        find_local_model(context, "MODEL", options.model, options.task,
                                         {proto::TASK_TYPE_SPEECH_RECOGNITION}));
  WEFT_ASSIGN_OR_RETURN(ModelUse use, choose_use(context, source, options));
  WEFT_ASSIGN_OR_RETURN(Rank rank, make_rank());
  WEFT_ASSIGN_OR_RETURN(LoadedModel model, load_model(context, rank, source, use));
  Transcriber transcriber(context, rank, model, use, options.files.size());
  for (size_t i = 0; i < headers.size(); ++i) {
    WEFT_RETURN_IF_ERROR(transcriber.add(options.files[i], headers[i].seconds()));
  }
  return transcriber.finish();
}

}  // namespace

int transcribe(const Context& context, const TranscribeOptions& options) {
  Status status;
  try {
    status = run(context, options);
  } catch (const StatusError& error) {
    status = error.status();
  }
  return status.ok() ? kExitOk : report(context, status);
}

}  // namespace weft::cli
