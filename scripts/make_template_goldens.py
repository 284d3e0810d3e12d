"""Renders the snippets of harness/activations/tests/data/jinja_snippets.txt with transformers' own Jinja environment
(ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop controls, the `generation` tag, raise_exception,
transformers' tojson) and writes harness/activations/tests/data/jinja_goldens.json: the snippet, and its text or that it
raises an error.

    python scripts/make_template_goldens.py

Needs transformers 5.24.0 and jinja2 3.1.6 (Python 3.11).
"""

import datetime
import json
import re
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils

DATA = Path(__file__).resolve().parent.parent / "harness/activations/tests/data"

# The variables of every snippet.
VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hi there \n"},
        {"role": "assistant", "content": "It's <b>fine</b> & \"good\" — é😀", "tool_calls": [
            {"type": "function", "function": {"name": "get", "arguments": {"city": "Köln", "days": 3, "deep": {"a": [1, 2.5, None, True]}}}},
        ]},
    ],
    "numbers": [3, 1, 2],
    "mixed": [1, 2.5, "a", None, True, [1, "x"], {"k": "v"}],
    "words": ["banana", "Apple", "cherry", "apple"],
    "people": [{"name": "Bo", "age": 3}, {"name": "al", "age": 1}, {"name": "Cy", "age": 3}],
    "text": "Hello, World",
    "lines": "one\ntwo\r\nthree\u2028four\x0bfive\x85six",
    "empty": "",
    "nothing": None,
    "zero": 0,
    "float": 1234.5678,
    "big": 1e20,
    "flag": True,
    "dict": {"b": 1, "a": {"x": [1, 2]}, "items": "own"},
    "add_generation_prompt": False,
}


class FixedDate(datetime.datetime):
    """The date of the default of actbench."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


def render(snippet):
    try:
        template = chat_template_utils._cached_compile_jinja_template(snippet)
        return {"text": template.render(**json.loads(json.dumps(VARIABLES)))}
    except Exception as error:
        return {"error": type(error).__name__}


def split(line):
    """The expressions of a line that has nothing else but separators between them."""
    parts = re.findall(r"\{\{.*?\}\}(?=$|[ |{]+\{\{|\|$)", line, flags=re.DOTALL)
    rest = line
    for part in parts:
        rest = rest.replace(part, "", 1)
    return parts if len(parts) > 1 and not rest.strip(" |") else [line]


def main():
    chat_template_utils.datetime = FixedDate
    snippets = (DATA / "jinja_snippets.txt").read_text(encoding="utf-8").split("\n")
    # X
    snippets = [line.replace("␤", "\n").replace("␍", "\r") for line in snippets if line and not line.startswith("##")]
    # A line of several expressions is one snippet for each: an error of one must not hide the others.
    snippets = [part for line in snippets for part in split(line)]
    goldens = [{"template": snippet, **render(snippet)} for snippet in snippets]
    # Addresses differ from run to run.
    goldens = [golden for golden in goldens if " at 0x" not in golden.get("text", "")]
    document = {
        "reference": f"transformers {transformers.__version__}, jinja2 {jinja2.__version__}",
        "variables": VARIABLES,
        "goldens": goldens,
    }
    with open(DATA / "jinja_goldens.json", "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=0)
        file.write("\n")
    print(len(goldens), "snippets,", sum("error" in golden for golden in goldens), "of them errors")


if __name__ == "__main__":
    main()
