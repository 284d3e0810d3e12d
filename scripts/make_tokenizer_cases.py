"""Writes harness/activations/tests/data/tokenizer_cases.json: tokenizer directories with the ids of transformers 5.24.

Small tokenizers (SentencePiece-like BPE with byte fallback, Metaspace of each kind, byte-level with and without
`add_prefix_space` and `ignore_merges`) are combined with tokenizer classes, special tokens, added tokens and their
flags, in every file that transformers reads. A case is a directory's files, two dialogues, and their ids or null where
transformers fails. Named cases come first, random ones (fixed seed) after them.

    pip install transformers==5.24.0
    python scripts/make_tokenizer_cases.py            # writes the file
    python scripts/make_tokenizer_cases.py --check    # only compares it with what is there
"""

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "critical"

import transformers  # noqa: E402
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "harness" / "activations" / "tests" / "data" / "tokenizer_cases.json"
SEED = 20261130
RANDOM_CASES = 160

CORPUS = [
    "Is it true? It is true. What is this 1234 and 5678?",
    "Sample text with  spaces\nand lines\n\nand more, ok! naïve ﬁ café ½",
    "user assistant system tool hello world isn't we'll",
] * 20
SPM_SPECIAL = ["<unk>", "<s>", "</s>"]
BYTE_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = SPM_SPECIAL + BYTE_SPECIAL + ["<|new|>", "[X]", "it", "true", "<pad>", "Is it", " is", "T"]
STANDARD = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"]
CLASSES = [
    "LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "GPT2Tokenizer", "GPT2TokenizerFast",
    "GPTNeoXTokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast", "Qwen3_5Tokenizer", "GemmaTokenizerFast",
    "CohereTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", "BloomTokenizerFast", "OfNoLibrary", None,
]  # fmt: skip
# AutoTokenizer treats the declared class of these model types in other ways than that of a Llama.
MODEL_TYPES = [
    "mistral", "phi3", "olmo2", "smollm3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt_neox", "gpt2",
]  # fmt: skip
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
PLAIN = "{% for m in messages %}<|new|> {{ m.role }}: {{ m.content }} [X] <unk> <|endoftext|> {% endfor %}"
TYPE_CLASSES = [
    (None, "bytes-nfkc", CHATML), (None, "spm-always", INST), ("LlamaTokenizer", "spm-prepend", INST),
    ("LlamaTokenizerFast", "bytes-nfkc", CHATML), ("GPT2Tokenizer", "bytes-nfkc", CHATML),
    ("PreTrainedTokenizerFast", "bytes-nfkc", CHATML),
]  # fmt: skip
DIALOGUES = [
    [("user", "Is it true?  Sample 2024 naïve ﬁ"), ("assistant", "It is true. isn't 12345  ok")],
    [("user", " it"), ("assistant", "B it  is\n\nok ½ ﷺ [X]x")],
]


def added(identity, content, **flags):
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": identity, "content": content, **plain, **flags}


def sentence_piece(rule):
    """A BPE over `▁` with byte tokens. `rule`: `prepend` (a normalizer) or a scheme of Metaspace."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁")
    special = SPM_SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    shell = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if rule == "prepend":
        shell.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        shell.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=rule, split=False)
    tokenizer, model = json.loads(shell.to_str()), json.loads(trained.to_str())["model"]
    tokenizer["model"] |= {"vocab": model["vocab"], "merges": model["merges"]}
    tokenizer["added_tokens"] = [added(identity, content) for identity, content in enumerate(SPM_SPECIAL)]
    return tokenizer


def byte_level(prefix=False, ignore_merges=False, normalizer=None):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=BYTE_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    if normalizer:
        trained.normalizer = normalizer
    tokenizer = json.loads(trained.to_str())
    tokenizer["model"]["ignore_merges"] = ignore_merges
    if ignore_merges:
        tokenizer["model"]["vocab"]["Sample"] = len(tokenizer["model"]["vocab"])
    return tokenizer


def bases():
    return {
        "spm-prepend": sentence_piece("prepend"),
        "spm-first": sentence_piece("first"),
        "spm-always": sentence_piece("always"),
        "spm-never": sentence_piece("never"),
        "bytes": byte_level(),
        "bytes-prefix": byte_level(prefix=True),
        "bytes-nfkc": byte_level(normalizer=normalizers.NFKC()),
        "bytes-ignore-merges": byte_level(ignore_merges=True),
    }


def case(name, base, template=CHATML, config=None, **others):
    """`others`: special_tokens_map, added_tokens (JSON files), model (config.json), changes (to tokenizer.json),
    templates (further template files)."""
    given = {"name": name, "base": base, "template": template, "config": config or {}, **others}
    return {key: value for key, value in given.items() if value is not None}


def named_cases():
    markers = ["<|im_start|>", "<|im_end|>"]
    bare = {"added_tokens": []}
    yield case("llama legacy false", "spm-prepend", INST, {"tokenizer_class": "LlamaTokenizer", "legacy": False})
    yield case("llama legacy absent", "spm-prepend", INST, {"tokenizer_class": "LlamaTokenizerFast"})
    yield case("llama legacy true", "spm-first", INST, {"tokenizer_class": "LlamaTokenizer", "legacy": True})
    yield case("llama over byte-level", "bytes", CHATML, {"tokenizer_class": "LlamaTokenizerFast"})
    for name in CLASSES:
        if name:
            yield case(f"{name} bytes", "bytes-nfkc", "{{ bos_token }}{{ eos_token }}" + CHATML, {"tokenizer_class": name})
            yield case(f"{name} spm", "spm-always", "{{ bos_token }}{{ eos_token }}" + INST, {"tokenizer_class": name})
    for model_type in MODEL_TYPES:
        model, head = {"model_type": model_type}, "{{ bos_token }}{{ eos_token }}"
        for name, base, template in TYPE_CLASSES:
            config = {"tokenizer_class": name} if name else {}
            yield case(f"{model_type} {name} {base}", base, head + template, config, model=model)
    yield case("class of config.json", "bytes", "{{ bos_token }}" + CHATML, model={"tokenizer_class": "GPT2Tokenizer"})
    for key in [*STANDARD, "eot_token"]:
        yield case(f"{key} in a template", "bytes", "{{ %s }}" % key + CHATML, {key: "<|im_end|>"})
    named = {"extra_special_tokens": {"turn_end": "<|im_end|>"}}
    yield case("named extra token", "bytes", "{{ turn_end }}" + CHATML, named)
    specific = {"model_specific_special_tokens": {"turn_end": "<|im_end|>"}}
    yield case("model-specific token", "bytes", "{{ turn_end }}" + CHATML, specific)
    decoder = {str(1 + place): added(0, content) for place, content in enumerate(markers)}
    yield case("added_tokens_decoder", "bytes", CHATML, {"added_tokens_decoder": decoder}, changes=bare)
    yield case("added_tokens.json", "bytes", CHATML, added_tokens={"<|im_start|>": 1, "<|im_end|>": 2}, changes=bare)
    yield case("bos and eos", "bytes", CHATML, {"bos_token": markers[0], "eos_token": markers[1]}, changes=bare)
    yield case("additional tokens", "bytes", CHATML, {"additional_special_tokens": markers}, changes=bare)
    yield case("extra tokens", "bytes", CHATML, {"extra_special_tokens": markers}, changes=bare)
    listed = {"additional_special_tokens": markers}
    yield case("special_tokens_map", "bytes", CHATML, special_tokens_map=listed, changes=bare)
    both = {"bos_token": "<|im_start|>"}
    yield case("map over config", "bytes", "{{ bos_token }}" + CHATML, both, special_tokens_map={"bos_token": "<|im_end|>"})
    with_decoder = {"bos_token": None, "added_tokens_decoder": decoder}
    defined = "{{ bos_token is defined }}" + CHATML
    yield case("decoder over map", "bytes", defined, with_decoder, special_tokens_map={"bos_token": "<|im_end|>"})
    for flag in ["lstrip", "rstrip", "single_word", "normalized"]:
        flags = {"7": added(0, "it", **{flag: True}), "8": added(0, "[X]", special=False, **{flag: True})}
        yield case(f"flag {flag}", "bytes", CHATML, {"added_tokens_decoder": flags})
        yield case(f"flag {flag} spm", "spm-first", INST, {"added_tokens_decoder": flags})
    yield case("split_special_tokens", "bytes", CHATML, {"split_special_tokens": True})
    for prefix in [True, False]:
        yield case(f"prefix {prefix}", "bytes-prefix", CHATML, {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": prefix})
    yield case("only a named file", "bytes", None, templates={"default": CHATML})
    yield case("file without default", "bytes", None, {"chat_template": CHATML}, templates={"rag": CHATML})
    yield case("one named template", "bytes", None, {"chat_template": [{"name": "rag", "template": CHATML}]})
    yield case("map of templates", "bytes", None, {"chat_template": {"default": CHATML, "rag": "x"}})
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    yield case("padding token", "bytes", "{{ pad_token }}" + CHATML, changes={"padding": {**padding, "pad_token": "[X]"}})
    yield case("not in the vocabulary", "bytes", "{{ bos_token }}" + CHATML, {"bos_token": "<|new|>", "eos_token": "[X]"})
    yield case("code llama", "spm-prepend", "{{ eot_token }}{{ prefix_token }}" + INST, {"tokenizer_class": "CodeLlamaTokenizer"})
    yield case("token without type", "bytes", CHATML, {"bos_token": {"content": "<|im_start|>", "lstrip": False}})


def random_flags(dice, content):
    return {"content": content} | {
        key: dice.random() < 0.4
        for key in ["lstrip", "rstrip", "single_word", "normalized", "special"]
        if dice.random() < 0.8
    }


def random_value(dice):
    content, choice = dice.choice(TOKENS), dice.random()
    if choice < 0.75:
        return content
    return {**random_flags(dice, content), "__type": "AddedToken"} if choice < 0.95 else None


def random_list(dice):
    return [value for value in (random_value(dice) for _ in range(dice.randint(0, 3))) if value]


def random_case(dice, number, tokenizers):
    base = dice.choice(list(tokenizers))
    config, others = {}, {}
    likely = lambda chance: dice.random() < chance  # noqa: E731
    name = dice.choice(CLASSES)
    if name:
        config["tokenizer_class"] = name
    for key in STANDARD:
        if likely(0.35):
            config[key] = random_value(dice)
    for key in ["eot_token", "turn_token", "prefix_token"]:
        if likely(0.12):
            config[key] = random_value(dice)
    for key, chance in [("add_prefix_space", 0.2), ("legacy", 0.3), ("split_special_tokens", 0.1), ("add_bos_token", 0.2)]:
        if likely(chance):
            config[key] = likely(0.5)
    if likely(0.2):
        config["additional_special_tokens"] = random_list(dice)
    if likely(0.2):
        config["extra_special_tokens"] = dice.choice([random_list(dice), {"turn_end": dice.choice(TOKENS)}])
    if likely(0.45):
        identities = dice.sample(range(800), dice.randint(1, 6))
        contents = dice.sample(TOKENS, len(identities))
        pairs = zip(identities, contents)
        config["added_tokens_decoder"] = {str(identity): random_flags(dice, content) for identity, content in pairs}
    if likely(0.5):
        tokens, vocabulary = list(tokenizers[base]["added_tokens"]), tokenizers[base]["model"]["vocab"]
        known = {token["content"] for token in tokens}
        free = len(vocabulary)
        for content in dice.sample(TOKENS, dice.randint(1, 4)):
            if content in known:
                continue
            identity = vocabulary.get(content, free)
            free += identity == free
            flags = {key: likely(0.4) for key in ["lstrip", "rstrip", "normalized", "special"]}
            tokens.append(added(identity, content, **flags))
        others["changes"] = {"added_tokens": sorted(tokens, key=lambda token: token["id"])}
    if likely(0.35):
        entries = {key: dice.choice([dice.choice(TOKENS), random_flags(dice, dice.choice(TOKENS))]) for key in STANDARD[:4] if likely(0.5)}
        if likely(0.3):
            entries["additional_special_tokens"] = dice.sample(TOKENS, 2)
        others["special_tokens_map"] = entries
    if likely(0.3):
        others["added_tokens"] = {content: dice.randint(300, 900) for content in dice.sample(TOKENS, dice.randint(1, 4))}
    shown = dice.sample([*STANDARD, "eot_token", "turn_end", "prefix_token"], 3)
    head = "".join("{{ %s if %s is defined else '~' }}|" % (key, key) for key in shown)
    return case(f"random {number}", base, head + dice.choice([CHATML, INST, PLAIN]), config, **others)


def write_directory(directory, given, tokenizers):
    write = lambda name, value: (directory / name).write_text(json.dumps(value, ensure_ascii=False), "utf-8")  # noqa: E731
    write("tokenizer.json", tokenizers[given["base"]] | given.get("changes", {}))
    write("config.json", {"model_type": "llama", **given.get("model", {})})
    write("tokenizer_config.json", given["config"])
    for name in ["special_tokens_map", "added_tokens"]:
        if name in given:
            write(f"{name}.json", given[name])
    if "template" in given:
        (directory / "chat_template.jinja").write_text(given["template"], "utf-8")
    for name, source in given.get("templates", {}).items():
        (directory / "additional_chat_templates").mkdir(exist_ok=True)
        (directory / "additional_chat_templates" / f"{name}.jinja").write_text(source, "utf-8")


def reference(given, tokenizers):
    with tempfile.TemporaryDirectory() as name:
        write_directory(Path(name), given, tokenizers)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            return [
                tokenizer.apply_chat_template(
                    [{"role": role, "content": content} for role, content in dialogue], return_dict=False
                )
                for dialogue in DIALOGUES
            ]
        except Exception:  # noqa: BLE001 any failure means that the directory is rejected
            return None


def build():
    tokenizers, dice = bases(), random.Random(SEED)
    cases = [*named_cases(), *(random_case(dice, number, tokenizers) for number in range(RANDOM_CASES))]
    for given in cases:
        given["ids"] = reference(given, tokenizers)
    dialogues = [[{"role": role, "content": content} for role, content in dialogue] for dialogue in DIALOGUES]
    head = {"transformers": transformers.__version__, "dialogues": dialogues, "bases": tokenizers}
    lines = [json.dumps(given, ensure_ascii=False, separators=(",", ":")) for given in cases]
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1]
    return text + ',"cases":[\n' + ",\n".join(lines) + "\n]}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    text = build()
    if parser.parse_args().check:
        sys.exit(None if FILE.read_text("utf-8") == text else f"{FILE} is not what this script writes")
    FILE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
