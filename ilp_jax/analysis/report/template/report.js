"use strict";
/* The list of rows: search, filters, and what a row holds when it is opened.

A row's keys: i id, s stages, o source, f fate, n response tokens of its k
replies without end tokens, c 1 if truncated; u a text a
detector with a mark a point (1 unlearned, 0 learned, - no verdict); x prompt p, response a,
options o; y answers by point (answers.py); d diagnosis: m by method (c cause, r runner-up,
s scores, f flags, e evidence; the first counts), r ids of related rows, n how many; v [steps, losses, probabilities,
1 for a training visit]; g values of the signals. A text that was cut is {t, n}.
All of it is shown through textContent: no text is ever read as HTML. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const PAGE = 50;
  const SHOWN = 400;
  const rows = data.runs.flatMap((run, r) => run.rows.map((row) => ({ ...row, run: r })));

  function make(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in node) node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  }

  function draw(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const whole = (text) => (text === null || text === undefined ? "" : typeof text === "string" ? text : text.t);
  const spaced = (name) => String(name).replaceAll("_", " ");
  const detectorName = (name) => data.detectors[name] || name;
  const number = (value) => (value === null || value === undefined ? "–" : String(value));

  /* A text of the data set: its beginning, and a button for the rest. */
  function textBlock(text) {
    const box = make("div");
    if (text === null || text === undefined) {
      box.append(make("p", { className: "cutnote", textContent: "not known" }));
      return box;
    }
    const all = whole(text);
    const body = make("p", { className: "text", dir: "auto", textContent: all.slice(0, SHOWN) || "(empty)" });
    box.append(body);
    if (all.length > SHOWN) {
      body.append("…");
      const button = make("button", { type: "button", textContent: `show all ${all.length} characters` });
      button.addEventListener("click", () => {
        body.textContent = all;
        button.remove();
      });
      box.append(button);
    }
    if (typeof text !== "string") {
      const note = `cut at ${data.most} of ${text.n} characters; the whole stands in the Parquet files`;
      box.append(make("p", { className: "cutnote", textContent: note }));
    }
    return box;
  }

  const textsOf = (run, id) => (rows.find((row) => row.run === run && row.i === id) || {}).x || data.runs[run].others[id];
  const answers = (row, point) => (row.y && row.y[point]) || {};
  const lastPoint = (row) => data.runs[row.run].points.at(-1);

  function causeOf(row) {
    if (!row.d) return null;
    const told = Object.values(row.d.m)[0];
    return told ? told.c : null;
  }

  /* Points of a line through values over steps, in a box; gaps where a value is missing. */
  function line(steps, values, box, low, high) {
    const first = steps[0];
    const span = steps.at(-1) - first || 1;
    return steps
      .map((step, i) => [
        box.x + (box.w * (step - first)) / span,
        box.y + box.h * (1 - (values[i] - low) / (high - low || 1)),
        values[i],
      ])
      .filter((point) => point[2] !== null);
  }
  const joined = (points) => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

  function spark(row) {
    const svg = draw("svg", { class: "spark", viewBox: "0 0 104 30", "aria-hidden": "true" });
    if (!row.v) return svg;
    const [steps, losses, probabilities] = row.v;
    const box = { x: 2, y: 2, w: 100, h: 26 };
    svg.append(
      draw("polyline", { class: "prob-line", points: joined(line(steps, probabilities, box, 0, 1)) }),
      draw("polyline", { class: "loss-line", points: joined(line(steps, losses, box, 0, Math.max(...losses))) }),
    );
    return svg;
  }

  function plot(row) {
    const [steps, losses, probabilities, trained] = row.v;
    const top = Math.max(...losses);
    const box = { x: 42, y: 8, w: 400, h: 92 };
    const label = `Loss from ${losses[0]} to ${losses.at(-1)} nats a token over steps ${steps[0]} to ${steps.at(-1)}`;
    const svg = draw("svg", { class: "plot", viewBox: "0 0 480 130", role: "img", "aria-label": label });
    const mark = (x, y, anchor, text) => {
      const node = draw("text", { x, y, "text-anchor": anchor });
      node.textContent = text;
      svg.append(node);
    };
    svg.append(draw("path", { class: "axis", d: `M${box.x} ${box.y}V${box.y + box.h}H${box.x + box.w}V${box.y}` }));
    mark(box.x - 5, box.y + 9, "end", number(Number(top.toPrecision(3))));
    mark(box.x - 5, box.y + box.h, "end", "0");
    mark(box.x + box.w + 5, box.y + 9, "start", "1");
    mark(box.x + box.w + 5, box.y + box.h, "start", "0");
    mark(box.x, 116, "start", `step ${steps[0]}`);
    mark(box.x + box.w, 116, "end", String(steps.at(-1)));
    const points = line(steps, losses, box, 0, top);
    svg.append(
      draw("polyline", { class: "prob-line", points: joined(line(steps, probabilities, box, 0, 1)) }),
      draw("polyline", { class: "loss-line", points: joined(points) }),
    );
    points.forEach(([x, y], i) => {
      const kind = trained[i] ? "training visit" : "probe";
      const told = `step ${steps[i]}, ${kind}: loss ${losses[i]}, probability ${number(probabilities[i])}`;
      svg.append(draw("circle", { class: trained[i] ? "loss-dot" : "probe-dot", cx: x, cy: y, r: 3, "aria-label": told }));
    });
    return svg;
  }

  function table(head, lines) {
    const body = make("tbody");
    for (const cells of lines) {
      const tr = make("tr");
      cells.forEach((cell, i) => tr.append(make(i ? "td" : "th", i ? {} : { scope: "row" }, cell)));
      body.append(tr);
    }
    const top = make("tr", {}, ...head.map((name) => make("th", { scope: "col", textContent: name })));
    return make("div", { className: "scroll" }, make("table", {}, make("thead", {}, top), body));
  }

  const heading = (text) => make("h4", { textContent: text });

  function said(row, point) {
    const one = answers(row, point);
    const nodes = [];
    // Where nothing was drawn nothing was generated either: each token given the expected ones.
    const how = one.d ? "greedy answer" : "likeliest tokens, each given the expected ones before it";
    if ("g" in one) nodes.push(heading(`${spaced(point)}: ${how}`), textBlock(one.g));
    if ("p" in one) nodes.push(make("p", { className: "cutnote", textContent: `probability of the expected answer: ${number(one.p)}` }));
    if (one.d) {
      nodes.push(heading(`${spaced(point)}: answers drawn`));
      one.d.forEach((text, i) => nodes.push(make("p", { className: "cutnote", textContent: `${one.k[i]} ×` }), textBlock(text)));
    }
    if ("c" in one) {
      const chosen = whole(one.c);
      nodes.push(make("p", { className: "cutnote", dir: "auto", textContent: `by choice: ${chosen.slice(0, SHOWN)} (probability ${number(one.q)})` }));
    }
    return nodes;
  }

  function options(row) {
    if (!row.x || !row.x.o.length) return [];
    const run = data.runs[row.run];
    const points = ["base", run.points.at(-1)].filter((point) => (answers(row, point).o || []).length);
    const expected = whole(row.x.a);
    const lines = row.x.o.map((option, i) => [
      make("bdi", { textContent: whole(option).slice(0, SHOWN) + (whole(option) === expected ? " (expected)" : "") }),
      ...points.map((point) => number(answers(row, point).o[i])),
    ]);
    return [heading("Options, log-likelihood a token"), table(["option", ...points.map(spaced)], lines)];
  }

  function verdicts(row) {
    const run = data.runs[row.run];
    const words = { 1: "unlearned", 0: "learned", "-": "–" };
    const lines = run.points.map((point, p) => [
      spaced(point),
      ...run.detectors.map((_, d) => make("span", { className: row.u[d][p] === "1" ? "yes" : "", textContent: words[row.u[d][p]] })),
    ]);
    return [heading("Verdicts"), table(["point", ...run.detectors.map(detectorName)], lines)];
  }

  function diagnosis(row) {
    if (!row.d) return [];
    const run = data.runs[row.run];
    const nodes = [];
    const others = [];
    Object.entries(row.d.m).forEach(([method, told], place) => {
      const next = told.r ? `; runner-up ${spaced(told.r)}` : "";
      const of = place ? others : nodes;
      of.push(heading(`Cause by the method ${spaced(method)}`), make("p", { textContent: `${spaced(told.c)}${next}` }));
      if (told.e) of.push(textBlock(told.e));
      if (told.s.some((score) => score !== null)) {
        const lines = run.causes.map((cause, i) => [spaced(cause), number(told.s[i]), told.f[i] === null ? "–" : told.f[i] ? "flagged" : "no"]);
        of.push(table(["cause", "score", "flag"], lines));
      }
    });
    if (others.length) nodes.push(make("details", {}, make("summary", { textContent: "By the other methods" }), ...others));
    if (row.d.r.length) {
      nodes.push(heading(`Related rows (${row.d.r.length} of ${row.d.n})`));
      for (const other of row.d.r) {
        const texts = textsOf(row.run, other);
        nodes.push(make("p", { className: "cutnote", textContent: `id ${other}` }));
        if (texts) nodes.push(textBlock(`${whole(texts.p)}\n→ ${whole(texts.a)}`));
      }
    }
    return nodes;
  }

  function signals(row) {
    if (!row.g) return [];
    const lines = data.runs[row.run].signals.map((name, i) => [spaced(name), number(row.g[i])]).filter((cells) => cells[1] !== "–");
    return [make("details", {}, make("summary", { textContent: `${lines.length} signals at the end` }), table(["signal", "value"], lines))];
  }

  function opened(row) {
    const left = make("div");
    const right = make("div");
    if (row.x) {
      left.append(heading("Prompt"), textBlock(row.x.p), heading("Expected"), textBlock(row.x.a));
      left.append(...said(row, "base"));
      if (lastPoint(row) !== "base") left.append(...said(row, lastPoint(row)));
      left.append(...options(row));
    }
    if (row.v) {
      right.append(heading("Loss (solid; filled: training visits, hollow: probes) and probability of the target (dashed)"), plot(row));
    }
    right.append(...diagnosis(row), ...verdicts(row), ...signals(row));
    const replies = row.k > 1 ? ` in ${row.k} trained replies` : "";
    const cutOff = row.c ? " kept, the rest cut off (truncated)" : "";
    const facts = `id ${row.i}, ${row.n} response token${row.n === 1 ? "" : "s"}${replies}${cutOff}`;
    right.append(make("p", { className: "cutnote", textContent: facts }));
    return make("div", { className: "open" }, left, right);
  }

  function field(lead, text, style) {
    return make("span", { className: style || "" }, make("span", { className: "lead", textContent: lead }), make("span", { className: "clip", dir: "auto", textContent: text.slice(0, SHOWN) }));
  }

  function item(row) {
    const last = lastPoint(row);
    const cause = causeOf(row);
    const tag = make("span", { className: "tag" }, make("span", { className: `swatch ${row.f || ""}` }), make("i", { textContent: data.fates[row.f] }));
    const button = make(
      "button",
      { type: "button", "aria-expanded": "false" },
      row.x ? field(`stage ${row.s.join(", ")}, ${row.o}`, whole(row.x.p), "ask") : field(`stage ${row.s.join(", ")}, ${row.o}`, row.i, "ask"),
      field("expected", row.x ? whole(row.x.a) : "–"),
      field(`${spaced(last)} said`, row.x ? whole(answers(row, last).g) || "–" : "–"),
      make("span", {}, tag, cause ? make("span", { className: "lead", textContent: spaced(cause) }) : null),
      spark(row),
    );
    const box = make("div", { className: "row" }, button);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) box.lastChild.remove();
      else box.append(opened(row));
    });
    return box;
  }

  const state = { found: [], shown: 0 };

  function showMore() {
    const next = state.found.slice(state.shown, state.shown + PAGE);
    $("list").append(...next.map(item));
    state.shown += next.length;
    $("more").hidden = state.shown >= state.found.length;
    $("count").textContent = `${state.found.length} of ${rows.length} rows${state.shown < state.found.length ? `, ${state.shown} shown` : ""}`;
  }

  /* What the search looks through, made once a row. */
  function haystack(row) {
    if (row.words === undefined) {
      const texts = [row.i, row.o];
      if (row.x) texts.push(whole(row.x.p), whole(row.x.a), whole(answers(row, "base").g), whole(answers(row, lastPoint(row)).g));
      if (row.d) texts.push(...Object.values(row.d.m).map((told) => told.e || ""));
      row.words = texts.join("\n").toLowerCase();
    }
    return row.words;
  }

  function matches(row, wanted) {
    const run = data.runs[row.run];
    const d = run.detectors.indexOf(wanted.detector);
    const p = run.points.indexOf(wanted.point === "end" ? run.points.at(-1) : wanted.point);
    const marks = d < 0 ? "" : row.u[d];
    if (wanted.point === "any" ? !marks.slice(run.points[0] === "base" ? 1 : 0).includes("1") : marks[p] !== "1") return false;
    if (wanted.stage && !row.s.includes(Number(wanted.stage))) return false;
    if (wanted.source && row.o !== wanted.source) return false;
    if (wanted.fate && row.f !== wanted.fate) return false;
    if (wanted.cause && causeOf(row) !== wanted.cause) return false;
    if (wanted.run && row.run !== Number(wanted.run)) return false;
    return !wanted.search || wanted.search.split(/\s+/).every((word) => haystack(row).includes(word));
  }

  function refresh() {
    const wanted = { search: $("search").value.toLowerCase().trim(), run: $("of-run") ? $("of-run").value : "" };
    for (const name of ["detector", "point", "stage", "source", "fate", "cause"]) wanted[name] = $(name).value;
    state.found = rows.filter((row) => matches(row, wanted));
    state.shown = 0;
    $("list").replaceChildren();
    showMore();
  }

  function fill(id, choices) {
    if (!$(id)) return;
    for (const [value, text] of choices) $(id).append(make("option", { value, textContent: text }));
    if (choices.length < 2 || (choices.length === 2 && choices[0][0] === "")) $(id).parentElement.hidden = choices.length < 2;
    $(id).addEventListener("change", refresh);
  }

  const distinct = (values) => [...new Set(values)].sort((a, b) => (a > b) - (a < b));
  const all = (name, values, words) => [["", name], ...values.map((value) => [String(value), words(value)])];
  fill("detector", [...new Set(data.runs.flatMap((run) => run.detectors))].map((name) => [name, detectorName(name)]));
  const points = [...new Set(data.runs.flatMap((run) => run.points))].filter((point) => point !== "base");
  fill("point", [["end", "the end"], ...points.map((point) => [point, spaced(point)]), ["any", "any point after the base"]]);
  fill("stage", all("all", distinct(rows.flatMap((row) => row.s)), String));
  fill("source", all("all", distinct(rows.map((row) => row.o)), String));
  fill("fate", all("all", distinct(rows.map((row) => row.f).filter(Boolean)), (fate) => data.fates[fate] || fate));
  fill("cause", all("all", distinct(rows.map(causeOf).filter(Boolean)), spaced));
  fill("of-run", all("all", data.runs.map((_, i) => i), (i) => data.runs[i].name));
  $("more").addEventListener("click", showMore);
  let waiting = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 120);
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").hidden = false;
  refresh();

  /* A mark of a chart says its numbers under the pointer. */
  document.addEventListener("pointermove", (event) => {
    const target = event.target.closest ? event.target.closest("svg [aria-label]") : null;
    const told = target && !target.querySelector("*") ? target.getAttribute("aria-label") : "";
    $("tip").hidden = !told;
    if (!told) return;
    $("tip").textContent = told;
    $("tip").style.left = `${Math.min(event.clientX + 12, innerWidth - 250)}px`;
    $("tip").style.top = `${event.clientY + 14}px`;
  });
})();
