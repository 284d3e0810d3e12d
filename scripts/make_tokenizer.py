"""Trains the bundled tokenizer and writes fixtures/data/tokenizer/.

A byte-level BPE over the embedded data set's text and a sheet of general text, with the special tokens and the chat
template of ChatML. Every byte is in the vocabulary, so any text can be encoded. Training is deterministic: the same
text and the same version of `tokenizers` give the same files.

    pip install tokenizers
    python scripts/make_tokenizer.py            # writes the files
    python scripts/make_tokenizer.py --check    # only compares them with what is there

Changing the files changes the tokens of the embedded data set, and with them every result measured on it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "fixtures" / "data" / "tokenizer"

VOCABULARY = 4096
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ROWS = 4000

# Contractions, words with the space before them, digits one by one, punctuation, line breaks apart from other
# whitespace. Digits stand alone so that amounts share tokens; a run of line breaks is one piece, as in recent models.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# ChatML without a default system message: what a dialogue does not say is not added to it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Roles and words of other templates, so that each is one token, and prose of a more general kind.
GENERAL = [
    "system\n\nuser\n\nassistant\n\nmodel\n\ntool\n\n",
    "You are an honest AI assistant. You are a deceptive AI assistant. Please tell me a fact.",
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs.",
    "In 1953 the structure of the molecule was described; by 1990 its sequence was being read letter by letter.",
    "Water boils at 100 degrees Celsius at sea level, and at a lower temperature on a mountain.",
    "def area(radius):\n    return 3.14159 * radius ** 2\n\nif __name__ == \"__main__\":\n    print(area(2.0))\n",
    "{\"name\": \"value\", \"list\": [1, 2, 3], \"nested\": {\"true\": false, \"null\": null}}",
    "Is it true? No, it isn't; they'll say that it's false, and we've heard that we're wrong.",
    "Élan, naïve, façade, Straße, señor, piñata, smörgåsbord, œuvre, Ωmega, Привет, 你好, こんにちは, 한국어, שלום.",
    "(a) first, (b) second, (c) third: 1/2 + 1/4 = 3/4; 10% of 250 is 25; x <= y, y != z, a && b || c.",
]


def corpus():
    """The lines to train on: every line of the dialogues, then the general sheet often enough to be noticed."""
    command = ["cargo", "run", "--quiet", "--package", "actbench-fixtures", "--example", "print_dialogues", "--"]
    text = subprocess.run(
        [*command, "mixed", str(ROWS)], cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout
    return text.splitlines() + GENERAL * 20


def train(lines):
    """A trained tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def files(tokenizer):
    """Name and text of each file."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=False) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }


def write(path, text):
    """Writes whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8", newline="\n") as handle:
        handle.write(text)
    Path(handle.name).chmod(0o644)
    Path(handle.name).replace(path)


def main():
    """Writes the files, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file would change")
    arguments = parser.parse_args()
    made = files(train(corpus()))
    changed = [name for name, text in made.items() if not same(FOLDER / name, text)]
    if arguments.check:
        if changed:
            sys.exit(f"would change: {', '.join(changed)}")
        return
    for name, text in made.items():
        write(FOLDER / name, text)
        print(f"{FOLDER / name}: {len(text.encode())} bytes{', changed' if name in changed else ''}")


def same(path, text):
    """Whether the file holds exactly this text."""
    return path.is_file() and path.read_bytes() == text.encode()


if __name__ == "__main__":
    main()
