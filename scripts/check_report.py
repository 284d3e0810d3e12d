"""Checks a report's page in a browser; started by check_report.sh, with the page in REPORT and the browser in BROWSER.

The browser logs network requests to a file, and console messages to standard error. A second copy of the page has a script
that clicks the table headers and checks the order. Both checks are also run on a page that is broken on purpose.
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
# No host name resolves, so the browser's own requests fail too.
FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND")

# Clicks every table header twice, and checks the order of its column and that the page fits the screen. The result is
# written to an element of the page.
CLICK_SCRIPT = """
const wrong = [];
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    for (const order of ["ascending", "descending"]) {
      head.querySelector("button").click();
      if (head.getAttribute("aria-sort") !== order) wrong.push("aria-sort " + head.textContent);
      if (!head.classList.contains("number")) continue;
      const numbers = [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.number)
        .filter((number) => number !== undefined).map(Number);
      const rising = order === "ascending";
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
  if (!drawing.getAttribute("aria-label")) wrong.push("a chart without a label");
}
for (const region of document.querySelectorAll(".scroll"))
  if (region.tabIndex !== 0) wrong.push("a region that the keyboard cannot reach");
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
if (new Set(ids).size !== ids.length) wrong.push("a duplicate id");
for (const link of document.querySelectorAll("a[href^='#']"))
  if (!document.getElementById(link.getAttribute("href").slice(1))) wrong.push("a link without a target: " + link.textContent);
const answer = document.createElement("pre");
answer.id = "answer";
answer.textContent = JSON.stringify({ wrong, tables: document.querySelectorAll("table").length, charts: drawings.length });
document.body.append(answer);
"""


def browse(page, *flags, width=1280, height=1600):
    """Console messages, requested addresses, and standard output."""
    with tempfile.TemporaryDirectory() as profile:
        log = Path(profile) / "network.json"
        command = [BROWSER, *FLAGS, f"--user-data-dir={profile}/profile", f"--log-net-log={log}",
                   f"--window-size={width},{height}", *flags, page.as_uri()]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, f"the browser exited with {result.returncode}: {result.stderr[-2000:]}"
        console = [line for line in result.stderr.splitlines() if ":CONSOLE" in line]
        requested = requested_addresses(log.read_text(errors="replace"))
    return console, requested, result.stdout


def requested_addresses(log):
    """The addresses that a page requested; the browser's own requests (time, dictionaries) have no origin."""
    found = set()
    for line in log.splitlines():
        # One event per line; the log may be truncated if the browser exits early.
        event = re.search(r'"initiator":"([^"]*)".*"url":"((?:http|ws)s?://[^"]*)"', line)
        if event and event.group(1) != "not an origin":
            found.add(event.group(2))
    return sorted(found)


def checked(page, width):
    """Console messages, requests, and defects of a page with the click script."""
    console, requested, dom = browse(page, "--dump-dom", width=width)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', dom, re.S)
    assert answer, f"{page.name}: the script did not finish: {console}"
    return console, requested, json.loads(answer.group(1).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def main():
    text = REPORT.read_text()
    with tempfile.TemporaryDirectory() as directory:
        clicked = Path(directory) / "clicked.html"
        clicked.write_text(text.replace("</body>", f"<script>{CLICK_SCRIPT}</script></body>"))
        for width in [1280, 500]:
            console, requested, answer = checked(clicked, width)
            assert not console, f"at {width} pixels the console has messages: {console}"
            assert not requested, f"at {width} pixels the page requests: {requested}"
            assert not answer["wrong"], f"at {width} pixels: {answer['wrong']}"
            print(f"{width} pixels wide: {answer['tables']} tables sort, {answer['charts']} charts, no console messages, no requests")

        broken = Path(directory) / "broken.html"
        open_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        harm = '<script>console.error("injected")</script><img src="http://127.0.0.1:9/injected.png"><table><thead><tr>'\
               '<th class="number"><button>injected</button></th></tr></thead><tbody></tbody></table>'
        broken.write_text(open_policy.replace("</body>", f"{harm}<script>{CLICK_SCRIPT}</script></body>"))
        console, requested, answer = checked(broken, 1280)
        assert any("injected" in line for line in console), "a console message was not detected"
        assert any("injected" in address for address in requested), f"a request was not detected: {requested}"
        assert any("injected" in wrong for wrong in answer["wrong"]), "an unsortable table was not detected"
        print("an injected message, request and table are detected")

    if os.environ.get("SCREENSHOT"):
        target = Path(os.environ["SCREENSHOT"]).resolve()
        browse(REPORT, f"--screenshot={target}", height=int(os.environ.get("SCREENSHOT_HEIGHT", "1500")))
        assert target.stat().st_size > 10_000, "the screenshot is empty"
        print(f"screenshot in {target.name}")


if __name__ == "__main__":
    main()
