# Promises about inputs that are wrong, strange or hostile, and about outputs that are not plain files. Sourced by
# ../acceptance.sh, which explains the form.

# A directory with the real model's files as links, to be changed: variant NAME FILE... The FILEs are copies.
variant() {
  local directory=$work/$1 source file
  source=$(realpath "$(model)")
  mkdir -p "$directory"
  ln -sf "$source"/* "$directory"
  for file in "${@:2}"; do
    rm "$directory/$file"
    cp "$source/$file" "$directory/$file"
  done
  echo "$directory"
}

# Sets a key of a JSON file: set_key FILE KEY VALUE-AS-PYTHON.
set_key() {
  python3 - "$@" <<'PYTHON'
import json
import sys

path, key, value = sys.argv[1:]
document = json.load(open(path))
document[key] = eval(value)
json.dump(document, open(path, "w"))
PYTHON
}

# 24 dialogues of two labels, all different, as lines of JSON.
rows() {
  python3 - <<'PYTHON'
import json

for row in range(24):
    messages = [{"role": "user", "content": f"Question {row}?"}, {"role": "assistant", "content": f"Answer {row}."}]
    print(json.dumps({"messages": messages, "label": row % 2}))
PYTHON
}

untimed_output_kinds() { : "outputs go through pipes and links; a full device gives status 1; a second run on one output gives status 2"
  mkfifo "$work/pipe"
  cat "$work/pipe" >"$work/from-pipe.json" &
  "$ACTBENCH" run --samples 40 --tasks train --methods lazy --repetitions 1 --warmup 0 --quiet --output "$work/pipe" >"$work/pipe.log" 2>&1
  wait $!
  [ -p "$work/pipe" ]
  holds "$work/from-pipe.json" 'len(rows) == 1 and rows[0]["status"] == "ok"'

  ln -s target.json "$work/link.json"
  "$ACTBENCH" run --samples 40 --tasks train --methods lazy --repetitions 1 --warmup 0 --quiet --output "$work/link.json" >"$work/link.log" 2>&1
  [ -L "$work/link.json" ]
  holds "$work/target.json" 'len(rows) == 1'

  local got=0
  "$ACTBENCH" models >/dev/full 2>"$work/err" || got=$?
  [ $got = 1 ]

  "$ACTBENCH" run --samples 2000 --repetitions 20 --quiet --output "$work/locked.json" >"$work/locked.log" 2>&1 &
  local first=$!
  for _ in $(seq 200); do
    pgrep -P $first >/dev/null && break
    sleep 0.1
  done
  status 2 "$ACTBENCH" run --samples 40 --output "$work/locked.json"
  grep -q locked.json "$work/err"
  kill -INT $first
  got=0
  wait $first || got=$?
  [ $got = 130 ]
}

untimed_hostile_hub() { : "a server in place of the hub cannot write a file outside of the cache, and a short file is not kept"
  echo mine >"$work/mine"
  python3 -u - "$work/mine" >"$work/port" 2>"$work/server.log" <<'PYTHON' &
import http.server
import json
import sys

HASH = "0123456789abcdef0123456789abcdef01234567"
climb = "../" * 12 + sys.argv[1].lstrip("/")


class Hub(http.server.BaseHTTPRequestHandler):
    def answer(self):
        etag = climb if "/hostile/" in self.path else '"' + "a" * 40 + '"'
        body = b"{}"
        if "/api/models/" in self.path:
            body = json.dumps({"sha": HASH, "siblings": [{"rfilename": "config.json"}]}).encode()
        self.send_response(200)
        self.send_header("ETag", etag)
        self.send_header("X-Repo-Commit", HASH)
        # A file of 100 bytes is announced, and two are sent.
        self.send_header("Content-Length", str(len(body) if "/api/" in self.path else 100))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD = answer

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(server.server_port)
server.serve_forever()
PYTHON
  local server=$! name
  for _ in $(seq 200); do
    [ -s "$work/port" ] && break
    sleep 0.1
  done
  export HF_ENDPOINT="http://127.0.0.1:$(cat "$work/port")" HF_HOME=$work/hub
  for name in hostile short; do
    status 2 timeout 60 "$ACTBENCH" features --model $name/model --samples 20 --out "$work/hub.safetensors"
    cat "$work/err"
  done
  kill $server
  [ "$(cat "$work/mine")" = mine ]
  # No file of the model is in the cache.
  [ -z "$(find "$work/hub" -name config.json 2>/dev/null)" ]
  ! find "$work/hub" -path '*/blobs/*' -type f ! -name '*.incomplete' 2>/dev/null | grep .
}

untimed_bounded_templates() { : "templates that nest deeply, double a list or multiply a text end with status 2 and one line"
  local directory template
  directory=$(variant bombs tokenizer_config.json)
  rows >"$work/rows.jsonl"
  for template in \
    '"{{ " + "-" * 200000 + "1 }}"' \
    '"{% if 0 %}" + "{% elif 0 %}" * 10000 + "{% endif %}x"' \
    '"{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = n.l + n.l %}{% endfor %}{{ n.l|length }}"' \
    '"{% set n = namespace(t=\"aa\") %}{% for i in range(60) %}{% set n.t = n.t|replace(\"a\", \"aaaaaaaa\") %}{% endfor %}{{ n.t }}"'; do
    set_key "$directory/tokenizer_config.json" chat_template "$template"
    (ulimit -v 4000000; status 2 timeout 60 "$ACTBENCH" features --model "$directory" --dataset "$work/rows.jsonl" --samples 20 --layer 1 --out "$work/bomb.safetensors")
    grep -q '^error: ' "$work/err"
  done
}

untimed_line_ends_of_templates() { : "a chat template with CRLF line ends gives the tokens of the same template with LF"
  local directory ends
  directory=$(variant ends tokenizer_config.json)
  rows >"$work/rows.jsonl"
  for ends in '\n' '\r\n'; do
    set_key "$directory/tokenizer_config.json" chat_template \
      "'{% for m in messages %}E<|im_start|>{{ m.role }}E{{ m.content }}<|im_end|>E{% endfor %}'.replace('E', '$ends')"
    "$ACTBENCH" features --model "$directory" --dataset "$work/rows.jsonl" --samples 20 --layer 1 --out "$work/ends.safetensors" >"$work/out" 2>&1
    # The tensors behind the header, which names the template's digest.
    python3 -c 'import hashlib, sys; f = open(sys.argv[1], "rb"); f.seek(8 + int.from_bytes(f.read(8), "little")); print(hashlib.sha256(f.read()).hexdigest())' \
      "$work/ends.safetensors" >>"$work/ends.digests"
  done
  [ "$(wc -l <"$work/ends.digests")" = 2 ]
  [ "$(sort -u "$work/ends.digests" | wc -l)" = 1 ]
}

untimed_refused_models() { : "quantized weights and attention in both directions are refused by the name of their key"
  local directory
  directory=$(variant refused config.json)
  set_key "$directory/config.json" quantization_config '{"quant_method": "gptq", "bits": 4}'
  status 2 "$ACTBENCH" features --model "$directory" --samples 20 --out "$work/refused.safetensors"
  grep -q quantization_config "$work/err"
  rm "$directory/config.json"
  cp "$(model)/config.json" "$directory/config.json"
  set_key "$directory/config.json" is_causal False
  status 2 "$ACTBENCH" features --model "$directory" --samples 20 --out "$work/refused.safetensors"
  grep -q is_causal "$work/err"
}

untimed_refused_data() { : "an unclosed quote and a key that appears twice are errors with their line; rows in both parts of the split are reported"
  python3 -c 'print("system,user,assistant,label"); [print(f",q{i},a{i},{i % 2}") for i in range(20)]; print(",q,\"a,1\n,q,b,0")' >"$work/quote.csv"
  status 2 "$ACTBENCH" features --dataset "$work/quote.csv" --samples 20 --out "$work/data.safetensors"
  grep -q 'quote.csv:22' "$work/err"

  rows | sed '5s/"label"/"label": 1, "label"/' >"$work/twice.jsonl"
  status 2 "$ACTBENCH" features --dataset "$work/twice.jsonl" --samples 20 --out "$work/data.safetensors"
  grep -q 'twice.jsonl:5' "$work/err"

  for _ in 1 2 3; do rows; done >"$work/doubled.jsonl"
  "$ACTBENCH" run --dataset "$work/doubled.jsonl" --samples 72 --tasks train --methods lazy --repetitions 1 --warmup 0 \
    --output "$work/doubled.json" >"$work/out" 2>&1
  grep -q 'also a training row' "$work/out"
}

untimed_absurd_counts() { : "more threads than the machine can have are refused with the reason"
  status 2 "$ACTBENCH" run --threads 20000 --samples 40 --output "$work/threads.json"
  grep -q threads "$work/err"
}

timed_many_samples() { : "'plan', 'explain' and 'matrix --dry-run' take at most 2 s for 10^9 samples"
  printf '[[grid]]\nmodels = ["embedded"]\nsamples = [1000000000]\n' >"$work/many.toml"
  local start
  for command in "plan --samples 1000000000 --layers 4" "explain --samples 1000000000" "matrix $work/many.toml --dry-run --out $work/many"; do
    start=$(date +%s%N)
    # shellcheck disable=SC2086
    "$ACTBENCH" $command >"$work/out" 2>"$work/err"
    start=$((($(date +%s%N) - start) / 1000000))
    echo "$start ms: $command"
    [ $start -le 2000 ]
  done
}
