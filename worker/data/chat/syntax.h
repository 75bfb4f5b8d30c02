// A chat template as a tree.
//
// Thread safety: const use from any thread. Ownership: a tree owns what is below it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/data/chat/run.h"
#include "worker/data/chat/value.h"

namespace weft::chat {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Expression {
  enum class Kind {
    kConstant,
    kName,
    kList,
    kTuple,
    kDict,  // parts: key, value, key, value, ...
    kNegative,
    kPositive,
    kNot,
    kBinary,  // name: the operator
    kConcat,
    kCompare,  // parts: one more than operators
    kAnd,
    kOr,
    kConditional,  // parts: the test, what it chooses, else (may lack)
    kAttribute,    // parts: of what
    kItem,         // parts: of what, which
    kSlice,        // parts: of what, start, stop, step; null where left out
    kCall,         // parts: what, positional arguments
    kFilter,       // parts: the value, positional arguments
    kTest,         // as kFilter
  };
  Kind kind = Kind::kConstant;
  Place place;
  int depth = 1;  // of the tree
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> parts;
  std::vector<std::string> operators;
  std::vector<std::pair<std::string, ExpressionPtr>> named;  // arguments
};

struct Statement;
using Body = std::vector<Statement>;

struct MacroSyntax {
  struct Parameter {
    std::string name;
    ExpressionPtr otherwise;  // null: none
  };
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
};

struct Statement {
  enum class Kind {
    kText,
    kOutput,    // expressions[0]
    kIf,        // expressions[i] chooses bodies[i]; one more body: else
    kFor,       // names in expressions[0] if expressions[1] (may lack); bodies: each, else
    kSet,       // names[0], or names[0].names[1], = expressions[0]
    kSetBlock,  // names as of kSet; bodies[0]
    kMacro,
    kGeneration,  // bodies[0]
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  Place place;
  std::string text;
  std::vector<std::string> names;
  std::vector<ExpressionPtr> expressions;
  std::vector<Body> bodies;
  std::unique_ptr<const MacroSyntax> macro;
};

}  // namespace weft::chat
