"""Renders the templates of this folder as Hugging Face Transformers does, into golden.json.

    pip install jinja2==3.1.6 && python golden.py

The environment is that of `transformers.utils.chat_template_utils` (5.23.0): an immutable sandbox with trim_blocks,
lstrip_blocks, loop controls, a `generation` block, and its own tojson, raise_exception and strftime_now; the time is
fixed. The templates follow those of the model families they are named after; smollm2.jinja is the model's own.
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
NOW = 1709219045


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(lineno)

    def _render(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.UTC).replace(tzinfo=None).strftime(f)
    return env


def msg(role, content, **extra):
    return {"role": role, "content": content, **extra}


SHORT = [msg("user", "Hi!")]
TURNS = [
    msg("system", "  Be brief. \n"),
    msg("user", " What is 1 < 2 & \"3\"?\n"),
    msg("assistant", "True, naïve ☃.\n"),
    msg("user", "Thanks"),
]
NO_SYSTEM = TURNS[1:]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place, in \"°C\" or '°F'",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Name of the place "},
                "days": {"type": ["integer", "string"], "description": "Days ahead"},
                "units": {"type": "object", "additionalProperties": {"type": "boolean"}, "description": "Units"},
            },
            "required": ["place"],
        },
        "return": {"type": "number"},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Time", "parameters": {"type": "object", "properties": {}}}}


def call(arguments, id="abcdefghi"):
    return {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def tool_turns(arguments, content=None):
    return [
        msg("user", "Weather in Ulm?"),
        msg("assistant", content, tool_calls=[call(arguments)]),
        msg("tool", '{"t": 21.5}', tool_call_id="abcdefghi", name="get_weather"),
    ]


TOOLS = [WEATHER, CLOCK]
ARGS = {"place": "Ulm <&>", "days": 2, "f": 0.5, "deep": {"a": [True, None]}}
THINK = [
    msg("user", "One?"),
    msg("assistant", "<think>\nold thought\n</think>\n\nOne."),
    msg("user", "Two?"),
    msg("assistant", "<think>\nnew thought\n</think>\n\nTwo."),
]
PARTS = [
    msg("system", [{"type": "text", "text": "Be kind."}]),
    msg("user", [{"type": "image"}, {"type": "text", "text": " Which colour? "}]),
]
BOS_EOS = {
    "smollm2": ("<|im_start|>", "<|im_end|>"),
    "llama31": ("<|begin_of_text|>", "<|eot_id|>"),
    "qwen25": (None, "<|im_end|>"),
    "qwen3": (None, "<|im_end|>"),
    "gemma2": ("<bos>", "<eos>"),
    "gemma3": ("<bos>", "<eos>"),
    "phi35": ("<s>", "<|endoftext|>"),
    "deepseek-r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "hermes": ("<|begin_of_text|>", "<|im_end|>"),
    "documents": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
}

CASES = []


def case(template, messages, generate=True, tools=None, documents=None, **variables):
    CASES.append((template, messages, generate, tools, documents, variables))


for name in ["smollm2", "llama31", "qwen25", "qwen3", "mistral", "gemma2", "gemma3", "phi35", "zephyr", "deepseek-r1", "llama2"]:
    case(name, SHORT)
    case(name, TURNS)
    case(name, NO_SYSTEM, generate=False)
for name in ["llama31", "qwen25", "qwen3", "mistral", "hermes"]:
    case(name, tool_turns(ARGS, "Let me see."), tools=TOOLS)
    case(name, [msg("user", "Which tools?")], tools=TOOLS)
case("llama31", TURNS, tools=TOOLS, tools_in_user_message=False, date_string="1 Apr 2025")
case("llama31", [], tools=TOOLS)
case("llama31", [msg("user", "2+2?")], builtin_tools=["brave_search", "code_interpreter"])
case("mistral", tool_turns(ARGS)[:1] + [msg("assistant", "", tool_calls=[call(ARGS, "short")])])
case("mistral", [msg("user", "a"), msg("user", "b")])
case("qwen3", THINK)
case("qwen3", THINK[:3], enable_thinking=False)
case("qwen3", tool_turns('{"place": "Ulm"}', "") + [msg("assistant", "Warm.", reasoning_content="It is 21.5")])
case("deepseek-r1", tool_turns('{"place": "Ulm"}'))
case("deepseek-r1", THINK)
case("gemma3", PARTS)
case("documents", NO_SYSTEM, documents=[{"title": "One", "text": "first"}, {"title": "Two", "text": "second", "n": 2}])
case("documents", NO_SYSTEM)
case("features", [msg("user", "  some Text\n"), msg("assistant", "ok"), msg("user", "bye")])


def render(name, messages, generate, tools, documents, variables):
    bos, eos = BOS_EOS.get(name, ("<s>", "</s>"))
    special = {k: v for k, v in (("bos_token", bos), ("eos_token", eos)) if v is not None}
    case = {
        "template": name, "messages": messages, "tools": tools, "documents": documents,
        "add_generation_prompt": generate, "variables": {**special, **variables},
    }
    try:
        template = environment().from_string((HERE / f"{name}.jinja").read_text())
        case["text"] = template.render(
            messages=messages, tools=tools, documents=documents, add_generation_prompt=generate, **special, **variables
        )
    except (jinja2.exceptions.TemplateError, TypeError) as error:
        case["error"] = str(error)
    return case


cases = [render(*case) for case in CASES]
(HERE / "golden.json").write_text(
    "[\n" + ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases) + "\n]\n"
)
print(len(cases), "cases,", sum("error" in case for case in cases), "errors")
for case in cases:
    if "error" in case:
        print(case["template"], "|", case["error"])
print([c for c in cases if c["template"] == "features"][0].get("text"))
