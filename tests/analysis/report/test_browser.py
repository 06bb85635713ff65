"""The page in headless Chromium: nothing of a data set runs, and a reader can use it."""

import html as html_lib
import json
import re
import shutil
import subprocess

import pytest

from ilp_jax.analysis.report import compare, report

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed"),
]
OWN = "document['title']='owned'"
HOSTILE = (
    f"<script>{OWN}</script>",
    f"</script><script>{OWN}</script>",
    f'<img src=x onerror="{OWN}"><svg onload="{OWN}">',
    f'"><iframe srcdoc="<script>parent.{OWN}</script>">',
    f"javascript:{OWN}",
    "</table></section></main></body>",
    "\u202eevil\x00\x1b[31m",
    "😀 שלום " * 9,
    "long " * 20_000,
    "{{constructor}}`${1}`",
)


def dom(path, width=1400):
    """The document as it stands after its scripts have run, and what was logged."""
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
        + ["--enable-logging=stderr", f"--window-size={width},1000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def ask(path, code, width=1400):
    """What the code gives in the page; a copy without the policy, since it forbids our code."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    script = f"<script>document.body.append(Object.assign(document.createElement('pre'), \
{{id: 'answer', textContent: JSON.stringify((() => {{{code}}})())}}))</script>"
    copy = path.with_name("asked.html")
    copy.write_text(page.replace("</body>", script + "</body>"))
    found, logged = dom(copy, width)
    assert not logged, logged
    answer = re.search(r'<pre id="answer">(.*?)</pre>', found, re.DOTALL)
    assert answer, found[-3000:]
    return json.loads(html_lib.unescape(answer[1]))


@pytest.fixture
def hostile(make_run, limits):
    folder = make_run(
        texts=[(text, text) for text in HOSTILE],
        answer=HOSTILE[1],
        source=HOSTILE[1],
        note=HOSTILE[0],
        told=True,
    )
    return report(folder, limits)


def test_nothing_of_the_data_runs(hostile):
    found, logged = dom(hostile)
    assert not logged, logged
    assert "<title>run – what stayed unlearned</title>" in found
    assert found.count('class="row"') == 8 and "8 of 10 rows" in found


def test_nothing_runs_without_the_policy_either(hostile):
    code = """
      document.querySelectorAll(".row > button").forEach((button) => button.click());
      document.querySelectorAll(".text + button").forEach((button) => button.click());
      return {
        owned: document.title,
        open: document.querySelectorAll(".open").length,
        alien: document.querySelectorAll("iframe, img, object, main script, [onerror]").length,
        sections: document.querySelectorAll("main > section").length,
        footed: document.querySelector("main > section:last-child").id,
        texts: [...document.querySelectorAll(".text")].map((node) => node.textContent),
      };"""
    found = ask(hostile, code)
    assert found["owned"] == "run – what stayed unlearned"
    assert (found["open"], found["alien"], found["footed"]) == (8, 0, "definitions")
    assert found["sections"] == 8
    assert HOSTILE[1] in found["texts"] and HOSTILE[2] in found["texts"]
    assert "long " * 800 in found["texts"]  # shown whole up to report.max_text


def test_long_answers_are_cut_until_asked_for(hostile):
    code = """
      document.querySelectorAll(".row > button").forEach((button) => button.click());
      const texts = [...document.querySelectorAll(".text")];
      const long = texts.find((node) => node.textContent.startsWith("long"));
      const related = document.body.textContent.includes("Related rows (1 of 1)");
      if (!related) return [];
      const button = long.nextElementSibling;
      const before = [long.textContent.length, button.textContent];
      button.click();
      const note = long.parentElement.querySelector(".cutnote").textContent;
      return [...before, long.textContent.length, note];
    """
    before, words, after, note = ask(hostile, code)
    assert before == 401 and words == "show all 4000 characters" and after == 4000
    assert note == "cut at 4000 of 100000 characters; the whole stands in the Parquet files"


def test_filters(page_of):
    cases = [
        ({}, 8),
        ({"point": "any"}, 10),
        ({"point": "stage_1"}, 8),
        ({"detector": "choice"}, 0),
        ({"stage": "1"}, 4),
        ({"source": "second"}, 4),
        ({"fate": "lost"}, 2),
        ({"fate": "never", "stage": "2"}, 4),
    ]
    code = f"""
      const first = {{detector: "default", point: "end", stage: "", source: "", fate: ""}};
      return {json.dumps([changes for changes, _ in cases])}.map((changes) => {{
        for (const [id, value] of Object.entries({{...first, ...changes}})) {{
          document.getElementById(id).value = value;
          document.getElementById(id).dispatchEvent(new Event("change"));
        }}
        const count = document.getElementById("count").textContent;
        return [document.querySelectorAll(".row").length, count];
      }});
    """
    wanted = [[rows, f"{rows} of 10 rows"] for _, rows in cases]
    assert ask(page_of, code) == wanted


@pytest.fixture
def page_of(make_run, limits):
    return report(make_run(told=True), limits)


@pytest.mark.parametrize("width", [1400, 390])
def test_fits_its_window(page_of, width):
    code = """
      document.querySelectorAll(".row > button")[0].click();
      const shown = (kind) => [...document.querySelectorAll(`.drawing .${kind}`)]
        .filter((node) => getComputedStyle(node).display !== "none").length;
      return [document.documentElement.scrollWidth, innerWidth, shown("wide"), shown("narrow")];
    """
    wide, window, of_wide, of_narrow = ask(page_of, code, width)
    assert wide <= window
    assert (of_wide > 0, of_narrow > 0) == ((True, False) if window > 800 else (False, True))


def test_several_runs(make_run, limits, tmp_path):
    out = compare([make_run("a", told=True), make_run("b")], tmp_path / "both.html", limits)
    code = """
      const run = document.getElementById("of-run");
      run.value = "1"; run.dispatchEvent(new Event("change"));
      const names = [...run.options].map((option) => option.textContent);
      return [names, document.querySelectorAll(".row").length];
    """
    assert ask(out, code) == [["all", "A: a", "B: b"], 8]
