"""Checks a report's page in a browser; started by check_report.sh, with the page in REPORT and the browser in BROWSER.

The page is shown in a frame of the width of a phone and of a desktop, because a browser's own window has a minimum width.

The browser logs network requests to a file, and console messages to standard error. A second copy of the page has a script
that clicks the table headers and checks the order. Both checks are also run on a page that is broken on purpose.
"""

import html
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
const named = (element) => element.tagName.toLowerCase() + " '" + element.textContent.trim().slice(0, 40) + "'";
for (const region of document.querySelectorAll(".scroll"))
  if (region.scrollWidth > region.clientWidth) wrong.push("cut: " + region.getAttribute("aria-label"));
for (const element of document.querySelectorAll("h1, h2, h3, p, li, dd, td, caption, figcaption, figure svg")) {
  const box = element.getBoundingClientRect();
  if (box.width > 0 && (box.left < 0 || box.right > page.clientWidth + 1)) wrong.push("outside: " + named(element));
  if (element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1) wrong.push("cut: " + named(element));
}
const smallest = Math.min(...[...document.querySelectorAll("figure svg text")].map((text) =>
  parseFloat(text.getAttribute("font-size")) * text.ownerSVGElement.getBoundingClientRect().width /
  text.ownerSVGElement.viewBox.baseVal.width));
if (smallest < 9) wrong.push("text of " + smallest.toFixed(1) + " pixels in a chart");
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


def framed(page, width):
    """A page that shows `page` in a frame of `width` pixels and copies the answer of its script."""
    source = html.escape(page.read_text(), quote=True)
    copy = "document.body.append(this.contentDocument.getElementById('answer') ?? '')"
    frame = page.with_name(f"{page.stem}-{width}.html")
    frame.write_text('<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body style="margin:0">'
                     f'<iframe style="width:{width}px;height:3000px;border:0" onload="{copy}" srcdoc="{source}"></iframe>')
    return frame


def checked(page, width):
    """Console messages, requests, and defects of a page with the click script, in a frame of `width` pixels."""
    console, requested, dom = browse(framed(page, width), "--dump-dom", width=max(width, 1400), height=3000)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', dom, re.S)
    assert answer, f"{page.name}: the script did not finish: {console}"
    return console, requested, json.loads(answer.group(1).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def main():
    text = REPORT.read_text()
    with tempfile.TemporaryDirectory() as directory:
        clicked = Path(directory) / "clicked.html"
        clicked.write_text(text.replace("</body>", f"<script>{CLICK_SCRIPT}</script></body>"))
        for width in [1280, 390]:
            console, requested, answer = checked(clicked, width)
            assert not console, f"at {width} pixels the console has messages: {console}"
            assert not requested, f"at {width} pixels the page requests: {requested}"
            assert not answer["wrong"], f"at {width} pixels: {answer['wrong']}"
            print(f"{width} pixels wide: {answer['tables']} tables sort, {answer['charts']} charts, no console messages, no requests")

        broken = Path(directory) / "broken.html"
        open_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        harm = '<script>console.error("injected")</script><img src="http://127.0.0.1:9/injected.png"><table><thead><tr>'\
               '<th class="number"><button>injected</button></th></tr></thead><tbody></tbody></table>'\
               '<p style="width:3000px">injected width</p><div class="scroll" tabindex="0" aria-label="injected region">'\
               '<div style="width:3000px">wide</div></div>'
        broken.write_text(open_policy.replace("</body>", f"{harm}<script>{CLICK_SCRIPT}</script></body>"))
        console, requested, answer = checked(broken, 1280)
        assert any("injected" in line for line in console), "a console message was not detected"
        assert any("injected" in address for address in requested), f"a request was not detected: {requested}"
        assert any("injected" in wrong for wrong in answer["wrong"]), "an unsortable table was not detected"
        for defect in ["outside: p 'injected width'", "cut: injected region"]:
            assert defect in answer["wrong"], f"'{defect}' was not detected: {answer['wrong']}"
        print("an injected message, request, table, width and cut region are detected")

    if os.environ.get("SCREENSHOT"):
        target = Path(os.environ["SCREENSHOT"]).resolve()
        width, height = (int(os.environ.get(f"SCREENSHOT_{name}", default)) for name, default in
                         [("WIDTH", "1280"), ("HEIGHT", "1500")])
        browse(REPORT, f"--screenshot={target}", width=width, height=height)
        assert target.stat().st_size > 10_000, "the screenshot is empty"
        print(f"screenshot in {target.name}")


if __name__ == "__main__":
    main()
