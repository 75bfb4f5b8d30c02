// Tokens of a chat template to its tree.
//
// The subset of Jinja that chat templates use. Statements: if, for (with if and else; break and
// continue), set (of names, of a namespace's attributes, of blocks), macro, generation.
// Expressions: all of Jinja's but ** and arguments behind * and **. What is outside is refused by
// name, filters and tests too.
//
// Thread safety: pure functions.
#pragma once

#include <string_view>

#include "worker/data/chat/syntax.h"

namespace weft::chat {

// Throws (run.h).
Body parse_template(std::string_view source);

}  // namespace weft::chat
