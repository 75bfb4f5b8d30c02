"""Chat templates of the published shapes against transformers: random conversations, with what marks
the assistant's tokens, and the messages of raise_exception. Expressions against Jinja, too."""
import json
import os
import random
import subprocess
import unittest
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("WEFT_BIN", ROOT / "build/release/bin"))
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
              "+ '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
              "{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "chatml-marked": """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
            {{- message.content ~ '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
             "supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != "
             "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
             "user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}"
             "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
             "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
             "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "phi": "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
           "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
           "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
           "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
           "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "llama2-system": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
                     "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
                     "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
                     "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
                     "{{ raise_exception('Roles must alternate') }}{% endif %}"
                     "{% if loop.index0 == 0 and system_message != false %}"
                     "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
                     "{% else %}{% set content = message['content'] %}{% endif %}"
                     "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
                     "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
                     "{% endif %}{% endfor %}",
    "llama3-tools": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "qwen": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""",
    "parts": """{% macro part(p, mark="!") -%}
  {%- if p is string -%}{{ p }}{%- elif p.type == 'text' -%}{{ p.text | trim }}{{ mark }}
  {%- else -%}<{{ p.type | upper }}>{%- endif -%}
{%- endmacro -%}
{% for m in messages %}
  {# what follows is one turn #}
  {%- if m.role == "tool" %}{% continue %}{% endif %}
  {% set text %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ part(p, mark='?') }}{% endfor %}{% endif %}{% endset %}
{{ loop.index }}/{{ loop.length }} {{ m.role.title() }}: {{ text | replace('\\n', ' ') }}{{ "" if loop.last else ";" }}
{% endfor %}""",
}

WORDS = ["Hello", "  padded ", "line\nbreak", "tab\t", "", "quote \"it's\"", "naïve café", "日本語", "🙂🙃",
         "<|im_end|>", "{{ x }}", "\\n", "\u2028", "\u00a0x\u00a0", "<think>\nhm\n</think>\n\nso", "a" * 300,
         "</think>", "\r\n", "\x1f", "%"]


def text(choose):
    return "".join(choose.choice(WORDS) for _ in range(choose.randrange(1, 4)))


def value(choose, depth=0):
    kind = choose.randrange(8 if depth < 3 else 6)
    if kind == 6:
        return [value(choose, depth + 1) for _ in range(choose.randrange(3))]
    if kind == 7:
        return {text(choose): value(choose, depth + 1) for _ in range(choose.randrange(3))}
    return [text(choose), choose.randrange(-9, 9 ** 9), choose.choice([0.5, 1e20, -1e-7, 3.0, 1e16, 123456.75]),
            None, choose.random() < 0.5, choose.random()][kind]


def message(choose, role):
    made = {"role": role, "content": text(choose)}
    if role == "assistant" and choose.random() < 0.15:
        made["tool_calls"] = [
            {"id": f"call{i}", "type": "function",
             "function": {"name": "look_up", "arguments": {"q": value(choose), "n": choose.randrange(9)}}}
            for i in range(choose.randrange(1, 3))]
        if choose.random() < 0.3:
            made["content"] = None
    if role == "assistant" and choose.random() < 0.1:
        made[choose.choice(["reasoning_content", "thinking", "reasoning"])] = text(choose)
    return made


def conversation(choose):
    if choose.random() < 0.15:  # any roles
        roles = [choose.choice(["system", "user", "assistant", "tool"]) for _ in range(choose.randrange(1, 6))]
    else:
        roles = ["user", "assistant"] * choose.randrange(1, 4)
        roles = (["system"] if choose.random() < 0.5 else []) + roles[:len(roles) - choose.randrange(2)]
    return [message(choose, role) for role in roles]


def tools(choose):
    return [{"type": "function", "function": {"name": f"f{i}", "description": text(choose),
                                              "parameters": {"type": "object", "properties": value(choose)}}}
            for i in range(choose.randrange(1, 3))]


EXPRESSIONS = r"""
1 + 2 * 3 - 4 // 3 % 2 / 5 ; -7 // 2 ; -7 % 3 ; 7 % -3 ; 7.5 // 2 ; -7.5 % 2 ; 2 ~ 3 + 4 ; 1.0 * 3 ; 10 / 4
not 1 == 2 and 3 in [3] or false ; 1 < 2 < 3 > 2 ; 'a' < 'b' ; [1, 2] < [1, 3] ; 1 == 1.0 == true ; none == false
x.y is defined ; x is undefined ; (x|default(3)) + 1 ; x | default('a', true) ; '' | default('b', true)
'abc'[::-1] ; 'abc'[-2:] ; 'äöü'[1] ; 'äöü'[9] is defined ; [1, 2, 3][::-2] ; (1, 2)[0] ; 'abc'[5:1:-1]
[1, 'a', none, true, 1.5, {'k': "it's"}, ('x',), "\"'"] ; {'a': {'b': [1]}}.a.b[0] ; {'items': 1}.get('items')
{'items': 1}['items'] ; 'a-b--c'.split('-') ; ' a  b '.split() ; ' a b c '.split(none, 1) ; 'a,b,c'.rsplit(',', 1)
' a b c '.rsplit(none, 1) ; 'xxaxx'.strip('x') ; '\u00a0a\u2003'.strip() ; 'a\nb\r\nc\n'.splitlines() ; ''.split(',')
'hello wOrld'.title() ; 'hello wOrld' ; 'they\'re bill\'s'.title() ; 'aaa'.replace('a', 'bb', 2) ; 'ab'.replace('', '-')
'abcabc'.find('c') ; 'abcabc'.rfind('c') ; 'äb'.find('b') ; 'aXbX'.count('X') ; 'x'.join(['a', 'b']) ; '12'.isdigit()
'a1'.startswith(('b', 'a')) ; 'prefix-x'.removeprefix('prefix-') ; 'x.py'.removesuffix('.py') ; 'ABC'.lower() ; 'abc'.upper()
[3, 1, 2] | sort ; ['b', 'A', 'c'] | sort ; ['b', 'A'] | sort(case_sensitive=true) ; [1, 2] | reverse | list ; 'abc' | reverse
{'b': 1, 'a': 2} | dictsort ; {'b': 1, 'a': 2} | dictsort(by='value', reverse=true) ; ['a', 'A', 'b'] | unique | list
[{'a': 1}, {'a': 2}, {}] | map(attribute='a', default=0) | list ; ['a', 'b'] | map('upper') | join('+') ; [1, 2, 3] | select('odd') | list
[{'a': {'b': 1}}] | map(attribute='a.b') | list ; [0, 1, '', 'x'] | select | list ; [1, 2, 3] | reject('gt', 1) | list
['x', 'y'] | join ; [1, 2] | first ; [] | first ; [1, 2] | last ; 'abc' | last ; {'a': 1} | length ; 'äöü' | length
'12' | int + 1 ; '1.9' | int ; 'x' | int(5) ; ' 7 ' | int ; 1.9 | int ; true | int ; '1.5' | float ; 'q' | float ; -3 | abs
'a\nb\n\nc' | indent ; 'a\nb\n\nc' | indent(2, true, true) ; 'a\nb' | indent('>>') ; 'they\'re (so) cold-blooded' | title ; 'aBC' | capitalize
{'b': [1, 2.0, none, true, 'é"\\\n\x7f'], 'a': {}} | tojson ; {'b': 1, 'a': [1, []]} | tojson(indent=2, sort_keys=true)
'é🙂' | tojson(ensure_ascii=true) ; [1, 2] | tojson(separators=(',', ':')) ; 1e100 ; 0.1 ; 1e-5 ; 123456789012345680.0 ; 1e22 ; 5e-324
'a' is string ; 1 is number ; true is integer ; 1 is integer ; {} is mapping ; 'a' is sequence ; {} is iterable ; 1 is iterable
none is none ; true is true ; 1 is true ; 4 is even ; 3 is divisibleby(3) ; 1 is in [1] ; 'a' is eq 'a' ; 2 is gt 1 ; 'a' is lower
range(5) | list ; range(1, 9, 3) | list ; range(5, 0, -2) | list ; dict(a=1, b=2) ; namespace(a=1).a ; (1 if false) is defined
1 if false ; 'a' 'b' ; "\x41\u00e9\n\t\101\q\\" ; 'x' * 3 ; 2 * [1] ; [1] + [2] ; 'a' ~ 1 ~ none
loop is defined ; true and 'x' ; 0 or [] ; not '' ; -2 ; +3 ; - 2 ; 'b' in {'b': 1} ; 'z' not in 'abc' ; 3 is not none ; undefined_name ~ 'x'
"""

FAILING = ["{{ x.y }}", "{{ x + 1 }}", "{{ 'a' + 1 }}", "{{ 1 // 0 }}", "{{ none.a.b }}", "{{ [].append(1) }}",
           "{{ {}.update(a=1) }}", "{{ x() }}", "{{ 'a'() }}", "{{ [1] < 2 }}", "{{ 1 in 2 }}", "{{ 1 in 'a' }}",
           "{{ 1 | length }}", "{% for a, b in [1] %}{% endfor %}", "{% for a in 1 %}{% endfor %}", "{{ x | tojson }}",
           "{% set n = namespace() %}{% set n._a = 1 %}", "{{ 'a'.split('') }}", "{{ [1][::0] }}", "{% break %}",
           "{{ raise_exception('no ' ~ 1) }}", "{% if %}{% endif %}", "{{ 1 + }}", "{{ (1 }}", "{% for %}", "{{ '",
           "{% endif %}", "{{ 1 | nofilter }}", "{{ 1 is notest }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
           "{{ m.n.o }}", "{{ range(100001) }}", "{{ [3, 'a'] | sort }}", "{{ 'a' - 'b' }}", "{{ -'a' }}"]

LAYOUTS = ["a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a  {%- if true +%}  \n b {%+ endif -%} \n\n c\n\n",
           "  {# c #}\nx {#- d -#} y\n {#+ e +#}\n z", "{{ 1 }}\n{{- 2 -}}\n {{ 3 }}\n", "\r\n{% if 1 %}\r\nq\r{% endif %}\r\n",
           "{%if 1%}a{%else%}b{%endif%}", "x{%- set a -%} \n y {% endset %}{{ a }}|", "{{ {'a': {'b': '}}'}}['a']['b'] }}",
           " \t{% for i in [1, 2] %}\n \t {{ i }}\n\t{% endfor %}\t\n", "{{ '%}' }}{% if '}}' %}{{ \"{{\" }}{% endif %}",
           "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}",
           "{% for i in range(4) if i is odd %}{{ loop.index }}{{ loop.revindex }}{{ loop.previtem }}{{ loop.nextitem }}"
           "{{ loop.cycle('a', 'b') }}{{ loop.changed(i // 2) }}{{ loop.depth }}{% else %}none{% endfor %}",
           "{% macro m(a, b=2) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{% set c = 3 %}{{ m(1) }}{{ m(b=1, a=0) }}{{ m() }}"]


def answers_of(requests):
    done = subprocess.run([BIN / "weft-render"], capture_output=True, text=True, check=True,
                          input="".join(json.dumps(request) + "\n" for request in requests))
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def expected_of(request):
    messages = [{key: it for key, it in one.items() if it is not None} for one in request["messages"]]
    marks = "generation %}" in request["template"]
    try:
        rendered, answers = render_jinja_template(
            [messages], tools=request["tools"], chat_template=request["template"],
            add_generation_prompt=request["add_generation_prompt"], return_assistant_tokens_mask=marks,
            **request["names"])
    except Exception as error:  # whatever Python raises
        return {"error": str(error)}
    return {"text": rendered[0], "answers": [list(span) for span in answers[0]] if marks else []}


class ChatTemplateAgrees(unittest.TestCase):
    def compare(self, requests):
        answers = answers_of(requests)
        self.assertEqual(len(answers), len(requests))
        differences = []
        for request, answer in zip(requests, answers):
            expected = expected_of(request)
            if "error" in expected:
                said = expected["error"] if "raise_exception" in request["template"] else ""
                same = "error" in answer and (said in answer["error"] or "' is undefined" in said
                                              or "has no attribute" in said or "concatenate" in said)
            else:
                same = answer == expected
            if not same:
                differences.append((request["template"][:200], request["messages"], expected, answer))
        self.assertEqual(differences[:3], [], f"{len(differences)} of {len(requests)} differ")
        return sum("text" in answer for answer in answers)

    def request(self, template, messages, tools=None, prompt=False):
        return {"template": template, "names": NAMES, "messages": messages, "tools": tools,
                "add_generation_prompt": prompt}

    def test_published_shapes(self):
        choose = random.Random(3)
        for name, template in TEMPLATES.items():
            with self.subTest(name):
                requests = [self.request(template, conversation(choose),
                                         tools(choose) if choose.random() < 0.2 else None, choose.random() < 0.5)
                            for _ in range(400)]
                self.assertGreater(self.compare(requests), 40)

    def test_contents_in_parts(self):
        parts = [{"role": "user", "content": [{"type": "text", "text": " hi "}, {"type": "image"}, "x"]}]
        self.compare([self.request(TEMPLATES["parts"], parts)])

    def test_expressions(self):
        one = [{"role": "user", "content": "x"}]
        expressions = [part for line in EXPRESSIONS.strip().split("\n") for part in line.split(" ; ")]
        self.assertGreater(self.compare([self.request("{{ " + it + " }}", one) for it in expressions]), 100)

    def test_layouts(self):
        one = [{"role": "user", "content": "x"}]
        self.assertEqual(self.compare([self.request(it, one) for it in LAYOUTS]), len(LAYOUTS))

    def test_errors(self):
        one = [{"role": "user", "content": "x"}]
        self.assertEqual(self.compare([self.request(it, one) for it in FAILING]), 0)


if __name__ == "__main__":
    unittest.main()
