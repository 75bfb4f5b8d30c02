// One rendering's bounds and place: what keeps a hostile template from running or growing without
// end, and what an error of it names.
//
// Thread safety: one thread. Ownership: a value.
// Invariants: 1. every step costs units, every byte and item that is made too, so that time and
// memory are bounded by kUnitsMax. 2. nesting is bounded by kDepthMax.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace weft::chat {

inline constexpr int64_t kUnitsMax = int64_t{1} << 29;
inline constexpr int64_t kUnitsOfStep = 32, kUnitsOfItem = 32;
inline constexpr int kDepthMax = 100;  // of syntax, of calls within each other, of values

// 1-based, in the template's text.
struct Place {
  int line = 1, column = 1;
};

// Throws StatusError: "chat template line 3 column 7: ...". Within this folder failures travel as
// exceptions, as in the compute path; chat_template.h turns them into a Status.
[[noreturn]] void refuse(Place place, const std::string& message);

class Run {
 public:
  Place place;  // of what is evaluated
  [[noreturn]] void refuse(const std::string& message) const { chat::refuse(place, message); }
  void spend(int64_t units) {
    units_ -= units;
    if (units_ < 0) refuse("renders without end: it needs more steps or text than are allowed");
  }
  void enter() {
    if (++depth_ > kDepthMax) refuse("is nested too deep");
  }
  void leave() { --depth_; }

 private:
  int64_t units_ = kUnitsMax;
  int depth_ = 0;
};

// One level, for as long as it lives.
class Level {
 public:
  explicit Level(Run& run) : run_(run) { run_.enter(); }
  ~Level() { run_.leave(); }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  Run& run_;
};

// A text that is paid for as it grows.
class Text {
 public:
  explicit Text(Run& run) : run_(run) {}
  Text& operator<<(std::string_view more) {
    run_.spend(static_cast<int64_t>(more.size()));
    text_ += more;
    return *this;
  }
  size_t size() const { return text_.size(); }
  std::string take() { return std::move(text_); }

 private:
  Run& run_;
  std::string text_;
};

}  // namespace weft::chat
