#!/usr/bin/env python3
"""Compares rendered chat templates of a folder with jinja2, over a set of conversations.

usage: compare.py FOLDER [--output RENDERS.jsonl]

Renders every *.jinja file and every chat template in a *tokenizer_config.json below the folder with jinja2 (package python3-jinja2), writes the renders to a file,
and runs tests/LlamaKivi.Templates.Tests on it, which report the number of byte-identical renders.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import environment

ROOT = pathlib.Path(__file__).resolve().parents[2]


def templates(folder):
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".jinja", ".jinja2", ".j2"):
            yield str(path.relative_to(folder)), path.read_bytes().decode()
        elif path.name.endswith("tokenizer_config.json"):
            given = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
            for name, source in [("", given)] if isinstance(given, str) else [(item["name"], item["template"]) for item in given or []]:
                yield f"{path.relative_to(folder)} {name}".strip(), source


def conversations():
    """Conversations that cover what templates use: system messages, tools, calls, reasoning, content parts, unusual text."""
    tools = [
        {"type": "function", "function": {"name": "get_weather", "description": "The weather \"now\" in a city: 5 < 6 & é 😀", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Its name"}, "days": {"type": "integer", "default": 3}, "unit": {"type": "string", "enum": ["c", "f"]}, "near": {"type": ["array", "null"], "items": {"type": "number"}}}, "required": ["city"]}}},
        {"type": "function", "function": {"name": "stop", "description": "", "parameters": {"type": "object", "properties": {}}, "return": {"type": "string"}}},
    ]
    system = {"role": "system", "content": " Be brief.\n"}
    user = {"role": "user", "content": "Hi\tthere \u00a0\u2028 'quoted' \"double\" <|im_end|> 日本 😀"}
    answer = {"role": "assistant", "content": "Hello!\n"}
    call = {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "near": [47.4, 1e-07, 8.0], "ok": True, "none": None, "deep": {"a": ["\n\u001b\u007f"]}}}}
    textual = {"id": "call12346", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps({"city": "Bern"})}}
    result = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": "{\"temperature\": 21.5}"}
    made = {
        "user": [user],
        "system": [system, user],
        "turns": [system, user, answer, {"role": "user", "content": "And now?"}],
        "answer last": [user, answer],
        "only system": [system],
        "nothing": [],
        "two users": [user, user],
        "two systems": [system, system, user],
        "late system": [user, answer, system, user],
        "developer": [{"role": "developer", "content": "Rules."}, user],
        "other role": [{"role": "critic", "content": "x"}, user],
        "empty texts": [{"role": "system", "content": ""}, {"role": "user", "content": ""}, {"role": "assistant", "content": ""}, {"role": "user", "content": " "}],
        "none": [user, {"role": "assistant", "content": None}, user],
        "no content": [user, {"role": "assistant"}, user],
        "parts": [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]}, answer, {"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "image": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe."}, {"type": "image_url", "image_url": {"url": "http://a"}}]}],
        "thoughts": [user, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."}, user, {"role": "assistant", "content": "No.", "reasoning_content": "Well.\n"}, user],
        "thinking": [user, {"role": "assistant", "content": "No.", "thinking": "Well.", "reasoning": "Well."}],
        "call": [system, user, {"role": "assistant", "content": None, "tool_calls": [call]}, result],
        "call with text": [user, {"role": "assistant", "content": "Let me see.", "tool_calls": [call]}, result, {"role": "assistant", "content": "21.5"}, user],
        "calls": [user, {"role": "assistant", "content": "", "tool_calls": [call, call]}, result, result, {"role": "assistant", "content": "Both."}],
        "textual call": [user, {"role": "assistant", "content": "", "tool_calls": [textual]}, result],
        "bare call": [user, {"role": "assistant", "content": "", "tool_calls": [call["function"]]}, result],
        "no arguments": [user, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "000000001", "function": {"name": "stop", "arguments": {}}}]}, {"role": "tool", "tool_call_id": "000000001", "content": "done"}],
        "thought call": [user, {"role": "assistant", "content": "", "reasoning_content": "I need it.", "tool_calls": [call]}, result, {"role": "assistant", "content": "ok"}, user],
        "result object": [user, {"role": "assistant", "content": "", "tool_calls": [call]}, dict(result, content={"temperature": 21.5, "list": [1, 2]})],
        "result parts": [user, {"role": "assistant", "content": "", "tool_calls": [call]}, dict(result, content=[{"type": "text", "text": "21"}])],
        "long": [system] + [user, answer] * 15 + [user],
    }
    options = {"plain": {}, "prompt": {"add_generation_prompt": True}, "tools": {"add_generation_prompt": True, "tools": tools}, "no thinking": {"add_generation_prompt": True, "enable_thinking": False, "thinking": False, "reasoning_effort": "low"}, "thinking": {"add_generation_prompt": True, "enable_thinking": True, "thinking": True, "tools": tools, "documents": [{"title": "T", "text": "D", "contents": "C"}], "builtin_tools": ["browser", "python"], "date_string": "01 Jan 2026", "tools_in_user_message": False}}
    for (name, messages), (option, more) in ((conversation, option) for conversation in made.items() for option in options.items()):
        yield f"{name}, {option}", {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "add_generation_prompt": False, "tools": None, "documents": None} | more


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args()
    path = arguments.output or pathlib.Path(tempfile.mkdtemp()) / "renders.jsonl"
    jinja = environment.make()
    counts = {"templates": 0, "renders": 0, "refused": 0}
    with open(path, "w", encoding="utf-8") as file:
        for source_name, source in templates(arguments.folder):
            counts["templates"] += 1
            for name, variables in conversations():
                expected = environment.render(jinja, source, variables)
                counts["renders"] += 1
                counts["refused"] += expected.startswith("raises ")
                file.write(json.dumps({"name": f"{source_name}: {name}", "template": source, "variables": variables, "expected": expected}) + "\n")
    print(f"jinja2: {counts['templates']} templates, {counts['renders']} renders, {counts['refused']} of them refused; written to {path}")
    if arguments.output:
        return 0
    tests = ["dotnet", "run", "-c", "Release", "--project", str(ROOT / "tests/LlamaKivi.Templates.Tests"), "--", "-method", "*Templates_of_a_folder*", "-showLiveOutput"]
    return subprocess.run(tests, env=os.environ | {"LLAMA_KIVI_TEMPLATE_RENDERS": str(path)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
