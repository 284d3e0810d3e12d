"""Checks a report's page in a browser; started by check_report.sh, with the page in REPORT and the browser in BROWSER.

The browser tells what a page asks of the network in a log of its own, and what its console said on standard error. A
second copy of the page has a script behind it that presses the heads of tables and looks at the result. Both checks are
first shown to fail on a page that is broken on purpose.
"""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

BROWSER = os.environ["BROWSER"]
REPORT = Path(os.environ["REPORT"]).resolve()

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-extensions --hide-scrollbars --enable-logging=stderr --v=0""".split()
# No name leads anywhere, so that the browser's own requests end here too.
FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND")

# What a person would do: press every head twice, and look whether the column is in order and the page is as wide as the
# screen. It answers in an element of its own.
PRESS = """
const wrong = [];
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    for (const way of ["ascending", "descending"]) {
      head.querySelector("button").click();
      if (head.getAttribute("aria-sort") !== way) wrong.push("aria-sort " + head.textContent);
      if (!head.classList.contains("number")) continue;
      const numbers = [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.number)
        .filter((number) => number !== undefined).map(Number);
      const rising = way === "ascending";
      if (numbers.some((number, i) => i > 0 && (rising ? number < numbers[i - 1] : number > numbers[i - 1])))
        wrong.push("order of " + head.textContent);
    }
  });
}
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth) wrong.push("wider than the screen: " + page.scrollWidth);
const drawings = [...document.querySelectorAll("figure svg")];
if (!drawings.length) wrong.push("no charts");
for (const drawing of drawings) {
  if (drawing.getBoundingClientRect().height < 50) wrong.push("a chart without height");
  if (!drawing.getAttribute("aria-label")) wrong.push("a chart without words");
}
for (const region of document.querySelectorAll(".scroll"))
  if (region.tabIndex !== 0) wrong.push("a region that the keyboard does not reach");
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
if (new Set(ids).size !== ids.length) wrong.push("an id twice");
for (const link of document.querySelectorAll("a[href^='#']"))
  if (!document.getElementById(link.getAttribute("href").slice(1))) wrong.push("a link to nowhere: " + link.textContent);
const answer = document.createElement("pre");
answer.id = "answer";
answer.textContent = JSON.stringify({ wrong, tables: document.querySelectorAll("table").length, charts: drawings.length });
document.body.append(answer);
"""


def browse(page, *flags, width=1280, height=1600):
    """What the console said, which addresses were asked for, and standard output."""
    with tempfile.TemporaryDirectory() as profile:
        log = Path(profile) / "network.json"
        command = [BROWSER, *FLAGS, f"--user-data-dir={profile}/profile", f"--log-net-log={log}",
                   f"--window-size={width},{height}", *flags, page.as_uri()]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, f"the browser ended with {result.returncode}: {result.stderr[-2000:]}"
        console = [line for line in result.stderr.splitlines() if ":CONSOLE" in line]
        asked = asked_for(log.read_text(errors="replace"))
    return console, asked, result.stdout


def asked_for(log):
    """The addresses that a page asked for; what the browser asks for itself (the time, dictionaries) has no origin."""
    found = set()
    for line in log.splitlines():
        # An event a line; the log may lack its end when the browser leaves early.
        event = re.search(r'"initiator":"([^"]*)".*"url":"((?:http|ws)s?://[^"]*)"', line)
        if event and event.group(1) != "not an origin":
            found.add(event.group(2))
    return sorted(found)


def checked(page, width):
    """What is wrong with a page that the pressing script was put behind."""
    console, asked, dom = browse(page, "--dump-dom", width=width)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', dom, re.S)
    assert answer, f"{page.name}: the script did not come to its end: {console}"
    return console, asked, json.loads(answer.group(1).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def main():
    text = REPORT.read_text()
    with tempfile.TemporaryDirectory() as folder:
        pressed = Path(folder) / "pressed.html"
        pressed.write_text(text.replace("</body>", f"<script>{PRESS}</script></body>"))
        for width in [1280, 500]:
            console, asked, answer = checked(pressed, width)
            assert not console, f"at {width} pixels the console says: {console}"
            assert not asked, f"at {width} pixels it asks for: {asked}"
            assert not answer["wrong"], f"at {width} pixels: {answer['wrong']}"
            print(f"{width} pixels wide: {answer['tables']} tables sort, {answer['charts']} charts, silent, no request")

        broken = Path(folder) / "broken.html"
        open_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        harm = '<script>console.error("planted")</script><img src="http://127.0.0.1:9/planted.png"><table><thead><tr>'\
               '<th class="number"><button>planted</button></th></tr></thead><tbody></tbody></table>'
        broken.write_text(open_policy.replace("</body>", f"{harm}<script>{PRESS}</script></body>"))
        console, asked, answer = checked(broken, 1280)
        assert any("planted" in line for line in console), "a word on the console was not seen"
        assert any("planted" in address for address in asked), f"a request was not seen: {asked}"
        assert any("planted" in wrong for wrong in answer["wrong"]), "a table that does not sort was not seen"
        print("a planted word, a planted request and a planted table are seen")

    if os.environ.get("SCREENSHOT"):
        target = Path(os.environ["SCREENSHOT"]).resolve()
        browse(REPORT, f"--screenshot={target}", height=int(os.environ.get("SCREENSHOT_HEIGHT", "1500")))
        assert target.stat().st_size > 10_000, "the screenshot is empty"
        print(f"screenshot in {target.name}")


if __name__ == "__main__":
    main()
