#include "cluster/comm/call_header.h"

#include <fmt/format.h>

#include <cstring>
#include <optional>

#include "proto/base/check.h"

namespace weft::comm {
namespace {

struct Fixed {
  int64_t number = 0, elements = 0, detail = 0, own_elements = 0, layer = -1, exchange = 0;
  std::array<char, 24> name{};
  std::array<char, 8> dtype{};
  std::array<char, 48> op{};
  std::array<char, 80> place{};
};
static_assert(sizeof(Fixed) % sizeof(int64_t) == 0);
constexpr size_t kFixed = sizeof(Fixed) / sizeof(int64_t);

template <size_t N>
void put(std::array<char, N>& to, const std::string& text) {
  // The end of a long one says more.
  const std::string end = text.size() < N ? text : text.substr(text.size() - N + 1);
  std::memcpy(to.data(), end.c_str(), end.size() + 1);
}

// One rank's header.
class Header {
 public:
  Header(const int64_t* data, size_t size) : counts_(data + kFixed), size_(size) {
    std::memcpy(static_cast<void*>(&fixed_), data, sizeof fixed_);
  }
  const Fixed& fixed() const { return fixed_; }
  int64_t sends(size_t to) const { return counts_[to]; }
  int64_t receives(size_t from) const { return counts_[size_ + from]; }
  std::string name() const { return fixed_.name.data(); }

  std::string words() const {
    std::string text = name();
    if (fixed_.dtype[0] != '\0') {
      text += fmt::format(" of {} {}", fixed_.own_elements, fixed_.dtype.data());
    }
    text += fmt::format(" at {}", fixed_.place.data());
    if (fixed_.op[0] != '\0') text += fmt::format(" in {}", fixed_.op.data());
    if (fixed_.layer >= 0) text += fmt::format(" of layer {}", fixed_.layer);
    return text;
  }

 private:
  Fixed fixed_;
  const int64_t* counts_;
  size_t size_;
};

std::string differences(const Header& a, const Header& b, size_t size) {
  std::vector<std::string> found;
  const Fixed &x = a.fixed(), &y = b.fixed();
  if (x.number != y.number) found.push_back(fmt::format("call {} and {}", x.number, y.number));
  if (a.name() != b.name()) {
    found.emplace_back("operation");
  } else {
    if (x.elements != y.elements) {
      found.push_back(fmt::format("elements ({} and {})", x.elements, y.elements));
    }
    if (x.detail != y.detail) {
      found.push_back(fmt::format("root or kind ({} and {})", x.detail, y.detail));
    }
    for (size_t r = 0; r < size && x.exchange == 0 && found.empty(); ++r) {
      if (a.sends(r) == b.sends(r)) continue;
      found.push_back(
          fmt::format("counts ({} and {} of rank {} of the group)", a.sends(r), b.sends(r), r));
    }
  }
  if (x.dtype != y.dtype) found.emplace_back("dtype");
  return fmt::format("{}", fmt::join(found, ", "));
}

// Of an exchange: what one sends against what the other expects.
std::string unequal_pair(const Header& a, size_t rank_a, const Header& b, size_t rank_b) {
  const int64_t sent = a.sends(rank_b), expected = b.receives(rank_a);
  if (sent == expected) return "";
  const auto words = [](int64_t count) {
    return count == kNothing ? std::string("nothing") : fmt::format("{} elements", count);
  };
  return fmt::format("the first sends {}, the second expects {}", words(sent), words(expected));
}

}  // namespace

int64_t header_length(int size) { return static_cast<int64_t>(kFixed) + int64_t{2} * size; }

std::vector<int64_t> pack_header(const CallTerms& terms, const CollectiveCall& call, int size) {
  Fixed fixed;
  fixed.number = static_cast<int64_t>(call.number);
  fixed.elements = terms.elements;
  fixed.detail = terms.detail;
  fixed.own_elements = call.elements;
  fixed.layer = call.layer;
  fixed.exchange = terms.exchange ? 1 : 0;
  put(fixed.name, call.name);
  put(fixed.dtype, call.dtype);
  put(fixed.op, call.op == nullptr ? "" : call.op);
  put(fixed.place, place_of(call.site));
  std::vector<int64_t> header(static_cast<size_t>(header_length(size)), kNothing);
  std::memcpy(header.data(), &fixed, sizeof fixed);
  WEFT_CHECK(terms.sends.size() <= static_cast<size_t>(size), "{} counts", terms.sends.size());
  std::copy(terms.sends.begin(), terms.sends.end(), header.begin() + kFixed);
  std::copy(terms.receives.begin(), terms.receives.end(), header.begin() + kFixed + size);
  return header;
}

std::string mismatch(const std::vector<int64_t>& headers, const RankGroup& group) {
  const size_t size = group.ranks.size(), length = headers.size() / size;
  std::vector<Header> all;
  for (size_t r = 0; r < size; ++r) all.emplace_back(headers.data() + r * length, size);
  const auto told = [&](size_t a, size_t b, const std::string& what) {
    return fmt::format(
        "call {} on the {} axis does not match: rank {} calls {}; rank {} calls {}; "
        "they differ: {}",
        all[a].fixed().number, group.axis, group.ranks[a], all[a].words(), group.ranks[b],
        all[b].words(), what);
  };
  for (size_t r = 1; r < size; ++r) {
    const std::string what = differences(all[0], all[r], size);
    if (!what.empty()) return told(0, r, what);
  }
  if (all[0].fixed().exchange == 0) return "";
  for (size_t a = 0; a < size; ++a) {
    for (size_t b = 0; b < size; ++b) {
      const std::string what = unequal_pair(all[a], a, all[b], b);
      if (!what.empty()) return told(a, b, what);
    }
  }
  return "";
}

}  // namespace weft::comm
