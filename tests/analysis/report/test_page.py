"""The page: well-formed, without network, and with hostile text nowhere but in its data."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from ilp_jax.analysis.report import charts, report
from ilp_jax.analysis.report.render import safe_json, short_number, two_digits
from ilp_jax.analysis.report.svg import svg

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    "]]><img src=x onerror=\"document.title='owned'\">",
    "</table></div></body>",
    "{{ 7 * 7 }}${7*7}",
    "\u2028\u2029\x00\x07\u202eevil",
    "javascript:document.title='owned'",
    "😀👩‍👩‍👧 שלום",
    "y" * 100_000,
)
VOID = {"meta", "link", "br", "img", "input"}


class Outline(HTMLParser):
    """Elements in order, their attributes, and the text of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self.open = [], {}, []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.texts.setdefault(self.open[-1], []).append(data)


def hostile_run(make_run, **changes):
    texts = [(text, text) for text in HOSTILE]
    name = '</script><script>alert(1)</script><b>"\u202e'
    return make_run(
        texts=texts, answer=HOSTILE[1], source=name, told=True, note=HOSTILE[0], **changes
    )


def test_hostile_text_is_data_and_nothing_else(make_run, limits, data_of):
    html = report(hostile_run(make_run), limits).read_text(encoding="utf-8")
    outline = Outline(html)
    scripts = [attributes for tag, attributes in outline.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert len(outline.texts["script"]) == 2 and len(outline.texts["style"]) == 1
    tags = {tag for tag, _ in outline.elements}
    assert not tags & {"img", "iframe", "object", "embed", "link", "base", "b-", "foreignobject"}
    for tag, attributes in outline.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "style" not in attributes, tag
        for name in ("href", "src", "action", "xlink:href"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\u202e]", html)
    rows = {row["i"]: row for row in data_of(html)["runs"][0]["rows"]}
    for i, text in enumerate(HOSTILE):
        row = rows.get(str(2**60 + i))
        if row and len(text) < 100 and "\u2028" not in text:
            assert row["x"]["p"] == row["x"]["a"] == text
    assert rows[str(2**60 + 8)]["x"]["p"] == HOSTILE[8]
    assert len(html) < 300_000


def test_the_policy_allows_the_pages_own_parts_alone(make_run, limits):
    outline = Outline(report(make_run(), limits).read_text())
    metas = [attributes for tag, attributes in outline.elements if tag == "meta"]
    policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    own = {
        kind: base64.b64encode(hashlib.sha256(outline.texts[kind][-1].encode()).digest()).decode()
        for kind in ("script", "style")
    }
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{own['script']}'; "
        f"style-src 'sha256-{own['style']}'; base-uri 'none'; form-action 'none'"
    )
    # The policy comes before anything that it speaks of.
    names = [tag for tag, _ in outline.elements]
    assert names.index("style") > 2 and metas[1]["http-equiv"] == "Content-Security-Policy"


def test_nothing_is_fetched(make_run, limits):
    html = report(make_run(told=True), limits).read_text()
    addresses = set(re.findall(r"\b(?:https?|wss?|ftp|data|blob):[^\s\"'<>)]*", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"url\((?!#)|@import|\bimport\(|fetch\(|XMLHttpRequest", html)


@pytest.mark.parametrize("include", [True, False])
def test_texts_can_be_left_out(make_run, limits, include):
    folder = make_run(told=True, texts=[("secret", "secret")] * 12, answer="secret")
    html = report(folder, {**limits, "include_text": include}).read_text()
    assert ("secret" in html) is include
    assert ("Texts of the data set are left out" in html) is not include


def test_a_cap_names_the_whole(make_run, limits, data_of):
    folder = make_run()
    html = report(folder, {**limits, "max_rows": 3}).read_text()
    assert "3 of 10 are in this page (field report.max_rows" in html
    assert "What the list leaves out" in html
    assert f"{folder}/diagnosis.parquet" in html and len(data_of(html)["runs"][0]["rows"]) == 3


def test_every_share_is_on_the_page(make_run, limits):
    folder = make_run()
    html = report(folder, limits).read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))
    summary = json.loads((folder / "summary.json").read_text())
    whole = [c for c in summary["shares"] if c["stage"] is None and c["source"] is None]
    for cell in whole:
        low, high = map(two_digits, cell["interval"])
        assert f"{cell['n']} {cell['unlearned']} {two_digits(cell['share'])} {low}–{high}" in text
    assert "8 of 12 trained rows (67%, 95% interval 39% to 86%) are unlearned" in text


def test_causes_and_their_absence(make_run, limits):
    assert "No method of diagnosis was run" in report(make_run("plain"), limits).read_text()
    folder = make_run("told", told=True)
    summary = json.loads((folder / "summary.json").read_text())
    figures = {"n_unlearned": 9, "flagged_unlearned": 7, "n_learned": 5, "flagged_learned": 1}
    rates = dict.fromkeys(("rate_learned", "low_learned", "high_learned"), 0.2)
    rates |= dict.fromkeys(("rate_unlearned", "low_unlearned", "high_unlearned"), 0.8)
    row = {"point": "final", "detector": "exact_match", "cause": "base_conflict", **figures}
    row |= rates | {"difference": 0.6, "low": 0.1, "high": 0.9, "verdict": "separates"}
    none = dict.fromkeys([*rates, "difference", "low", "high"])
    summary["separation"] = [
        row | {"decides": True},
        row | none | {"cause": "data_conflict", "verdict": "does not separate", "decides": False},
        row | {"point": "base", "verdict": "of another point", "decides": True},
    ]
    (folder / "summary.json").write_text(json.dumps(summary))
    html = report(folder, limits).read_text()
    assert "No method of diagnosis" not in html and "separates" in html and "+0.60" in html
    assert "does not separate; does not decide" in html and "of another point" not in html


@given(st.recursive(st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5))
def test_json_in_a_script(value):
    text = safe_json(value)
    assert not re.search("[<>&\u2028\u2029]", text) and json.loads(text) == value


@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])
@example("\U0001f600" * 40)
@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_drawings_hold_drawing_alone(label):
    cell = {"detector": "choice", "n": 9, "unlearned": 3, "share": 1 / 3, "interval": [0.1, 0.6]}
    drawing = svg(charts.shares_chart([cell | {"label": label}], 400), "a")
    names = {element.tag.split("}")[1] for element in ElementTree.fromstring(drawing).iter()}
    assert names <= {"svg", "g", "path", "line", "rect", "text", "circle", "defs", "clipPath"}
    assert not re.search(r"\son\w+=|href|<script", drawing)


def test_numbers_as_shown():
    assert [two_digits(x) for x in (0.0, 0.125, 1.0)] == [".00", ".12", "1.00"]
    assert short_number(None) == "–" and short_number(0.00012345) == "0.000123"
