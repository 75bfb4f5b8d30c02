// Chat templates: transformers' renderings, the language, what is refused, and hostile templates.
#include "worker/data/chat/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <random>
#include <sstream>

#include "proto/json/parse.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string fixture(const std::string& name) {
  std::ifstream in(WEFT_SOURCE_DIR "/tests/fixtures/chat/" + name, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Conversation conversation_of(const std::string& json) {
  const auto parsed = parse_json(json);
  EXPECT_TRUE(parsed);
  auto read = Conversation::read("messages", *parsed, nullptr);
  EXPECT_TRUE(read) << read.error().to_string();
  return std::move(*read);
}

constexpr const char* kTalk = R"([{"role": "user", "content": "Hi"},
  {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "2+2?"},
  {"role": "assistant", "content": "4"}])";

Result<RenderedChat> rendered(const std::string& source, const std::string& messages = kTalk,
                              bool prompt = false) {
  const auto made = ChatTemplate::parse(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  if (!made) return fail(made.error());
  const Conversation conversation = conversation_of(messages);
  return (*made)->render(conversation, conversation.messages.size(), prompt, fixed_time());
}

void expect_text(const std::string& source, const std::string& expected) {
  const auto text = rendered(source);
  ASSERT_TRUE(text) << source << "\n" << text.error().to_string();
  EXPECT_EQ(text->text, expected) << source;
}

void expect_refused(const std::string& source, const std::string& expected) {
  const auto text = rendered(source);
  ASSERT_FALSE(text) << source << "\n" << text->text;
  EXPECT_THAT(text.error().to_string(), HasSubstr(expected)) << source;
}

TEST(ChatTemplate, RendersAsTransformersDoes) {
  const auto special = parse_json(fixture("special_tokens.json"));
  ASSERT_TRUE(special);
  std::istringstream lines(fixture("cases.jsonl"));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto given = parse_json(line);
    ASSERT_TRUE(given);
    const std::string name = given->find("template")->text;
    ChatTemplate::Names names;
    for (const JsonMember& token : special->find(name)->members) {
      names.emplace_back(token.key, token.value.text);
    }
    const auto made = ChatTemplate::parse(fixture(name + ".jinja"), names);
    ASSERT_TRUE(made) << made.error().to_string();
    const auto conversation = Conversation::read("messages", *given->find("messages"), nullptr);
    ASSERT_TRUE(conversation) << conversation.error().to_string();
    const auto text = (*made)->render(*conversation, conversation->messages.size(),
                                      given->find("add_generation_prompt")->boolean, fixed_time());
    if (const JsonValue* expected = given->find("expected")) {
      ASSERT_TRUE(text) << line << "\n" << text.error().to_string();
      EXPECT_EQ(text->text, expected->text) << line;
    } else {
      ASSERT_FALSE(text) << line;
      EXPECT_THAT(text.error().to_string(), HasSubstr(given->find("error")->text));
    }
  }
  EXPECT_EQ(count, 96);
}

TEST(ChatTemplate, WhiteSpaceIsJinjas) {
  expect_text("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc");
  expect_text("a {% if true %} b {%- endif -%}  \n c", "a  bc");
  expect_text("a\n  {%+ if true %}\nb{% endif +%}\nc\n\n", "a\n  b\nc\n");
  expect_text("a  {#- gone #}\n b {# gone #} c", "a b  c");
  expect_text("a\n  {{ 1 }}\nb {{- 2 -}} c", "a\n  1\nb2c");
  expect_text("a\r\nb\r{{ 'x\r\ny' }}", "a\nb\nx\ny");
  expect_text("{{ {'a': {'b': 1}}['a']['b'] }}", "1");
}

TEST(ChatTemplate, ExpressionsArePythons) {
  expect_text(
      "{{ 1 + 2 * 3 }}{{ 3 ~ 4 * 2 }}{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 1e16 }} {{ 0.1 }}",
      "738-4 2 3.5 1e+16 0.1");
  expect_text("{{ 'a' if false else 'b' if true else 'c' }}{{ 1 if false }}", "b");
  expect_text("{{ 1 < 2 < 3 }} {{ 'i' in 'Hi' }} {{ 3 not in [1, 2] }} {{ not 1 == 2 }}",
              "True True True True");
  expect_text("{{ messages[::-1][0].content }}{{ messages[1:][0]['content'] }}{{ 'äbc'[:2] }}",
              "4Hoäb");
  expect_text("{{ [1, 'a', none, true, 1.5, {'k': \"it's\"}] }} {{ (1,) }}",
              "[1, 'a', None, True, 1.5, {'k': \"it's\"}] (1,)");
  expect_text("{{ '\\n\\t\\x41\\u00e9\\d' 'b' }}", "\n\tAé\\db");
  expect_text("{{ missing }}|{{ missing is defined }}|{{ messages[9] is undefined }}",
              "|False|True");
  expect_text("{{ true + 1 }}{{ 'ab' * 2 }}{{ [1] + [2] }}{{ 0 or 'x' }}{{ 1 and 2 }}",
              "2abab[1, 2]x2");
}

TEST(ChatTemplate, FiltersMethodsAndTests) {
  expect_text(
      "{{ ' x ' | trim }}{{ 'abc' | upper | length }}{{ 'x' | default('y') }}"
      "{{ nope | default('y') }}{{ '' | default('z', true) }}",
      "x3xyz");
  expect_text(
      "{{ messages | map(attribute='role') | join(',') }} "
      "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} "
      "{{ (messages | rejectattr('role', 'eq', 'user') | first).content }}",
      "user,assistant,user,assistant 2 Ho");
  expect_text("{{ messages[0] | tojson }} {{ {'b': [1, {}], 'a': 'é\"\\n'} | tojson }}",
              "{\"role\": \"user\", \"content\": \"Hi\"} {\"b\": [1, {}], \"a\": \"é\\\"\\n\"}");
  expect_text("{{ {'b': [1, 2], 'a': []} | tojson(indent=2) }}",
              "{\n  \"b\": [\n    1,\n    2\n  ],\n  \"a\": []\n}");
  expect_text("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}",
              "role=user;content=Hi;");
  expect_text(
      "{{ 'a-b-c'.split('-') | last }}{{ ' a b '.split() }}{{ 'Hi there'.title() }}"
      "{{ 'x</think>y'.split('</think>')[-1].lstrip('\\n') }}{{ 'ab'.startswith(('x', 'a')) }}",
      "c['a', 'b']Hi ThereyTrue");
  expect_text("{{ 'a\nb\n\nc' | indent(2) }}|{{ '12' | int + 1 }}|{{ 'x' | int(7) }}",
              "a\n  b\n\n  c|13|7");
  expect_text(
      "{{ messages is iterable and messages[0] is mapping and 'a' is string }}"
      "{{ 1 is number }}{{ none is none }}{{ 4 is divisibleby 2 }}{{ 'a' is in 'ab' }}",
      "TrueTrueTrueTrueTrue");
}

TEST(ChatTemplate, StatementsAndScopes) {
  expect_text(
      "{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}"
      "{% if true %}{% set x = 3 %}{% endif %}{{ x }}",
      "13");
  expect_text(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
      "{% endfor %}{{ ns.n }}",
      "4");
  expect_text(
      "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}"
      "{{ '' if loop.last else ',' }}{% else %}none{% endfor %}",
      "1/2,2/2");
  expect_text(
      "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i > 3 %}{% break %}"
      "{% endif %}{{ i }}{% endfor %}",
      "023");
  expect_text(
      "{% macro m(a, b='y') %}<{{ a }}{{ b }}>{% endmacro %}{{ m('x') }}{{ m(b=1, a=2) }}"
      "{% set z %} {{ m(0) }} {% endset %}{{ z | trim }}",
      "<xy><21><0y>");
  expect_text("{{ strftime_now('%d %b %Y') }}{% if strftime_now is defined %}!{% endif %}",
              "26 Jul 2024!");
}

TEST(ChatTemplate, RefusesWithThePlace) {
  expect_refused("a\n {% include 'x' %}", "line 2 column 5: the statement 'include'");
  expect_refused("{{ 1 | xmlattr }}", "column 8: the filter 'xmlattr' is not supported");
  expect_refused("{{ 1 is odder }}", "the test 'odder' is not supported");
  expect_refused("{{ 1 ", "the {{ has no }}");
  expect_refused("{% if 1 %}", "{% endif %} is expected, and the template ends");
  expect_refused("{{ (1 }}", "closes nothing");
  expect_refused("\n{{ raise_exception('No: ' ~ messages[0].role) }}",
                 "line 2 column 19: No: user");
  expect_refused("{{ missing.x }}", "'missing' is undefined");
  expect_refused("{{ missing + 'x' }}", "'missing' is undefined");
  expect_refused("{{ messages[0].content.text.x }}", "'str object' has no attribute 'text'");
  expect_refused("{{ messages.append(1) }}", "'append' would change a list");
  expect_refused("{{ 'x'.format(1) }}", "the method 'format' of a str is not supported");
  expect_refused("{{ 'ä' | upper }}", "beyond ASCII is not supported");
  expect_refused("{{ 'a' + 1 }}", "+ of a str and a int");
  expect_refused("{{ 1 // 0 }}", "division by zero");
  expect_refused("{{ 9223372036854775807 + 1 }}", "beyond 64 bits");
  expect_refused("{% break %}", "'break' stands in no loop");
}

TEST(ChatTemplate, AnswersAreMarkedOrFoundByDifference) {
  const std::string line = "{{ '[' ~ m.role ~ ']' }}";
  const std::string marking = "{% for m in messages %}" + line +
                              "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}."
                              "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}";
  const std::string plain = "{% for m in messages %}" + line +
                            "{{ m.content }}.{% endfor %}"
                            "{% if add_generation_prompt %}[assistant]{% endif %}";
  for (const std::string& source : {marking, plain}) {
    const auto made = ChatTemplate::parse(source, {});
    ASSERT_TRUE(made) << made.error().to_string();
    const auto learned = render_to_learn(**made, conversation_of(kTalk));
    ASSERT_TRUE(learned) << learned.error().to_string();
    std::vector<std::string> answers;
    for (const TextSpan& span : learned->answers) {
      answers.push_back(learned->text.substr(span.begin, span.end - span.begin));
    }
    EXPECT_THAT(answers, ElementsAre("Ho.", "4."));
    const auto last = render_to_learn(**made, conversation_of(R"([{"role": "user", "content": "a"},
          {"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": "c"},
          {"role": "assistant", "content": "d", "weight": 1}])"));
    ASSERT_TRUE(last) << last.error().to_string();
    ASSERT_EQ(last->answers.size(), 1U);
    EXPECT_EQ(last->text.substr(last->answers[0].begin), "d.");
  }
}

TEST(ChatTemplate, RefusesAnswersThatCannotBeTold) {
  const auto drops = ChatTemplate::parse(
      "{% for m in messages %}[{{ m.role }}]{% if m.role == 'user' or loop.last %}{{ m.content }}"
      "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
      {});
  ASSERT_TRUE(drops);
  const auto refused = render_to_learn(**drops, conversation_of(kTalk));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field(), "messages[1]");
  EXPECT_THAT(refused.error().rule(), HasSubstr("cannot be told from the rest"));
  const auto silent =
      render_to_learn(**drops, conversation_of(R"([{"role": "user", "content": "a"}])"));
  ASSERT_FALSE(silent);
  EXPECT_THAT(silent.error().rule(), HasSubstr("must have an answer"));
}

TEST(ChatTemplate, ConversationsAreChecked) {
  const auto expect = [](const std::string& json, const std::string& expected) {
    const auto parsed = parse_json(json);
    ASSERT_TRUE(parsed);
    const auto read = Conversation::read("messages", *parsed, nullptr);
    ASSERT_FALSE(read) << json;
    EXPECT_THAT(read.error().to_string(), HasSubstr(expected)) << json;
  };
  expect("[]", "must be a list of messages");
  expect("\"x\"", "must be a list of messages");
  expect("[1]", "messages[0]");
  expect(R"([{"content": "x"}])", "messages[0].role");
  expect(R"([{"role": 1}])", "must be a string that is not empty");
  expect(R"([{"role": "assistant", "weight": 0.5}])", "messages[0].weight");
  expect(R"([{"role": "user", "content": 18446744073709551615}])", "64 bits");
}

TEST(ChatTemplate, IsFoundInATokenizersFiles) {
  const auto find = [](std::vector<TokenizerFile> files) { return ChatTemplate::find(files); };
  EXPECT_FALSE(*find({}));
  EXPECT_FALSE(*find({{"tokenizer_config.json", "{\"bos_token\": \"<s>\"}"}}));
  const Conversation talk = conversation_of(kTalk);
  const auto text = [&](std::vector<TokenizerFile> files) {
    const auto found = find(std::move(files));
    EXPECT_TRUE(found) << found.error().to_string();
    return (*found)->render(talk, 4, false, fixed_time())->text;
  };
  const std::string config = R"({"bos_token": {"content": "<s>"}, "eos_token": null,
    "chat_template": "{{ bos_token }}c{{ eos_token }}"})";
  EXPECT_EQ(text({{"tokenizer_config.json", config}}), "<s>c");
  EXPECT_EQ(text({{"tokenizer_config.json", config},
                  {"special_tokens_map.json", R"({"eos_token": "</s>"})"}}),
            "<s>c</s>");
  EXPECT_EQ(text({{"tokenizer_config.json", config}, {"chat_template.jinja", "j{{ bos_token }}"}}),
            "j<s>");
  const std::string several = R"({"chat_template": [{"name": "rag", "template": "r"},
    {"name": "default", "template": "d"}]})";
  EXPECT_EQ(text({{"tokenizer_config.json", several}}), "d");
  EXPECT_FALSE(find({{"tokenizer_config.json", R"({"chat_template": 1})"}}));
}

TEST(ChatTemplate, HostileTemplatesEnd) {
  expect_refused("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                 "renders without end");
  expect_refused("{{ 'x' * 9223372036854775807 }}", "renders without end");
  expect_refused("{{ [1] * 9223372036854775807 }}", "renders without end");
  expect_refused("{{ ('x' * 100000) | replace('', 'x' * 100000) }}", "renders without end");
  expect_refused("{{ 'x' | indent(9223372036854775807, true) }}", "renders without end");
  expect_refused(
      "{% set n = namespace(a=[1]) %}{% for i in range(9999) %}{% set n.a = [n.a] %}"
      "{% endfor %}",
      "nested too deep");
  expect_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deep");
  expect_refused("{% set n = namespace() %}{% set n.n = n %}", "must not hold a namespace");
  expect_refused("{{ [namespace()] }}", "in a list or dict is not supported");
  expect_refused("{{ " + std::string(5000, '(') + std::string(5000, ')') + " }}", "too deep");
  expect_refused("{{ " + std::string(5000, '-') + "1 }}", "too deep");
  std::string sum = "1", chain = "x", tests = "1";
  for (int i = 0; i < 5000; ++i) {
    sum += "+1";
    chain += ".x";
    tests += "|int";
  }
  expect_refused("{{ " + sum + " }}", "too deep");
  expect_refused("{{ " + chain + " }}", "too deep");
  expect_refused("{{ " + tests + " }}", "too deep");
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "{% if 1 %}";
  expect_refused(nested, "too deep");
  expect_refused(
      "{{ [1, 2, 3][9223372036854775806:9223372036854775807:9223372036854775807] "
      "~ [1][::0] }}",
      "step must not be 0");
  expect_text("{{ [1, 2, 3][::9223372036854775807] }}{{ [1, 2][::-9223372036854775807] }}",
              "[1][2]");
  expect_refused(std::string((size_t{1} << 20) + 1, 'x'), "at most 1048576");
  expect_refused("\xff", "not valid UTF-8");
}

// Templates of random pieces of templates: whatever they are, they end, in a text or an error.
TEST(ChatTemplate, RandomTemplatesEnd) {
  std::istringstream all(
      "{{ }} {% %} {%- -%} {# #} if elif else endif for in endfor set x messages loop m . , ( ) [ "
      "] { } : ::-1 | is not and or + - * / // % ~ == < 'a' \"\\n\" 'ä' 0 1 -3 1.5 99999999 none "
      "true trim tojson join first list map selectattr 'role' content items range namespace macro "
      "endmacro break continue generation = split replace defined string length endgeneration x=1 "
      "index last sort endset {{m}} {{messages[0]}} {%-for(m)in(messages)%} {%endfor%} {%if(x)%} "
      "{%endif%} \xff");
  const std::vector<std::string> pieces{std::istream_iterator<std::string>(all), {}};
  std::mt19937 random(7);
  int rendered_count = 0;
  for (int round = 0; round < 30000; ++round) {
    std::string source;
    for (size_t i = random() % 24; i > 0; --i) {
      source += pieces[random() % pieces.size()] + (random() % 2 == 0 ? " " : "");
    }
    rendered_count += rendered(source) ? 1 : 0;
  }
  EXPECT_GT(rendered_count, 100);
}

// The same with published shapes, of which bytes are changed, doubled or left out.
TEST(ChatTemplate, ChangedTemplatesEnd) {
  std::mt19937 random(11);
  int rendered_count = 0;
  for (const char* name : {"chatml.jinja", "llama2.jinja", "llama3.jinja"}) {
    const std::string whole = fixture(name);
    for (int round = 0; round < 3000; ++round) {
      std::string source = whole;
      for (size_t i = random() % 4; i < 4; ++i) {
        const size_t at = random() % source.size(), size = random() % 12;
        if (random() % 2 == 0) {
          source.insert(at, source.substr(random() % source.size(), size));
        } else if (random() % 2 == 0) {
          source.erase(at, size);
        } else {
          source[at] = static_cast<char>(random());
        }
        if (source.empty()) source = whole;
      }
      rendered_count += rendered(source, kTalk, true) ? 1 : 0;
    }
  }
  EXPECT_GT(rendered_count, 100);
}

}  // namespace
}  // namespace weft
