"use strict";
(() => {
  const MOST_HITS = 50; // Documents listed for a search; all are marked on the map.
  const MOST_GROUPS = 1000; // Groups listed; the largest come first.
  const LABEL_CHARS = 34;
  const DIMMED = 0.13;
  const NO_GROUP = -1;

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const x = new Float32Array(bytes(data.x));
  const y = new Float32Array(bytes(data.y));
  const groupOf = new Int32Array(bytes(data.groupOf));
  const { groups, titles, ids, fields, values, palettes } = data;
  const plot = document.getElementById("plot");
  const tip = document.getElementById("tip");
  const at = (id) => document.getElementById(id);
  const { format: number } = new Intl.NumberFormat("en");

  // ---- points by colour: a trace for each, since a trace of one colour is fast to draw ----
  const n_colors = palettes.light.groups.length;
  const NOISE = 0;
  const rowsOf = Array.from({ length: n_colors + 1 }, () => []);
  groupOf.forEach((group, row) => {
    rowsOf[group === NO_GROUP ? NOISE : 1 + groups[group].color].push(row);
  });
  const MARKED = rowsOf.length;
  const size = x.length > 100000 ? 2.5 : x.length > 20000 ? 3.5 : x.length > 2000 ? 5 : 8;
  const colorOf = (trace) => {
    const palette = palettes[theme.name];
    return trace === NOISE ? palette.noise : palette.groups[trace - 1];
  };
  const pick = (from, rows) => Float32Array.from(rows, (row) => from[row]);
  const base = rowsOf.map((rows, trace) => ({
    type: "scattergl", mode: "markers", hoverinfo: "none",
    x: pick(x, rows), y: pick(y, rows),
    marker: { size: trace === NOISE ? size * 0.8 : size, color: colorOf(trace) },
    opacity: trace === NOISE ? 0.55 : 0.85,
  }));
  const opacities = base.map((trace) => trace.opacity);
  const marked = {
    type: "scattergl", mode: "markers", hoverinfo: "none", x: [], y: [],
    marker: { size: size + 5, color: [], line: { width: 1.5, color: "#000000" } },
  };
  let namesShown = [];
  let markedRows = [];

  // ---- the opening view: a few documents far away leave no room for all others ----
  const NEAR = 0.005; // Share of the documents that may lie beyond each side.
  const view = [x, y].map((values) => {
    const sorted = values.slice().sort();
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    const margin = 0.08 * (at(1 - NEAR) - at(NEAR));
    return { all: at(1) - at(0), range: [at(NEAR) - margin, at(1 - NEAR) + margin] };
  });
  const isNarrowed = view.some(({ all, range: [from, to] }) => to - from < 0.7 * all);
  if (isNarrowed) {
    const isIn = (row) => view.every(({ range: [from, to] }, i) => {
      const value = (i ? y : x)[row];
      return from <= value && value <= to;
    });
    const n_beyond = groupOf.reduce((n, _, row) => n + !isIn(row), 0);
    at("found").textContent = `${number(n_beyond)} documents lie far from all others; “Whole map” shows them`;
  }

  const axis = { visible: false, zeroline: false, showgrid: false, automargin: false };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, hovermode: "closest",
    dragmode: "pan", hoverdistance: 14,
    paper_bgcolor: theme.color("--page"), plot_bgcolor: theme.color("--page"),
    xaxis: { ...axis, ...(isNarrowed && { range: view[0].range }) },
    yaxis: { ...axis, ...(isNarrowed && { range: view[1].range }), scaleanchor: "x" },
  };
  const options = { displayModeBar: false, scrollZoom: true, responsive: true, doubleClick: "reset" };

  // ---- names: the largest groups first, none over another ----
  const shortened = (text) =>
    text.length <= LABEL_CHARS ? text : text.slice(0, LABEL_CHARS - 1) + "…";
  const parents = new Set(groups.map((group) => group.parent));
  const named = groups.map((_, i) => i)
    .filter((i) => groups[i].place && !parents.has(i))
    .sort((a, b) => groups[b].size - groups[a].size);
  const placeNames = () => {
    const { xaxis, yaxis } = plot._fullLayout;
    const taken = [];
    namesShown = [];
    const wanted = at("names").getAttribute("aria-pressed") === "true" ? named : [];
    for (const i of wanted) {
      const [gx, gy] = groups[i].place;
      const left = xaxis.l2p(gx) - shortened(groups[i].name).length * 3.9;
      const box = { left, right: xaxis.l2p(gx) * 2 - left, top: yaxis.l2p(gy) - 10, bottom: yaxis.l2p(gy) + 10 };
      const isOff = box.right < 0 || box.left > xaxis._length || box.bottom < 0 || box.top > yaxis._length;
      const isCrossed = taken.some((t) =>
        box.left < t.right && t.left < box.right && box.top < t.bottom && t.top < box.bottom);
      if (isOff || isCrossed) continue;
      taken.push(box);
      namesShown.push(i);
    }
    // Annotations, since the drawing of the points lies over every other kind of text.
    return Plotly.relayout(plot, {
      annotations: namesShown.map((i) => ({
        x: groups[i].place[0], y: groups[i].place[1], text: plain(shortened(groups[i].name)),
        showarrow: false, captureevents: true, borderpad: 0,
        font: { size: 13, color: theme.color("--text") },
      })),
    });
  };

  // ---- marking: what is chosen or found stands out, the rest is dimmed ----
  const mark = (rows) => {
    markedRows = rows;
    const isDimmed = rows !== null;
    const shown = rows ?? [];
    const [grown, ring] = shown.length > 2000 ? [1, 0] : shown.length > 200 ? [1.5, 0.5] : [4, 1.5];
    const all = base.map((_, trace) => trace);
    Plotly.restyle(plot, { opacity: opacities.map((o) => (isDimmed ? DIMMED : o)) }, all);
    Plotly.restyle(plot, {
      x: [pick(x, shown)], y: [pick(y, shown)],
      "marker.color": [shown.map((row) => colorOf(groupOf[row] === NO_GROUP ? NOISE : 1 + groups[groupOf[row]].color))],
      "marker.size": size + grown, "marker.line.width": ring,
      "marker.line.color": theme.name === "dark" ? "#ffffff" : "#000000",
    }, [MARKED]);
  };
  const isIn = (group, wanted) => {
    for (let each = group; each !== null && each !== NO_GROUP; each = groups[each].parent)
      if (each === wanted) return true;
    return false;
  };

  // ---- a group in words ----
  let chosen = null;
  const documentLine = ([title, id, ...rest]) => {
    const about = fields.map((name, i) => `${name}: ${rest[i]}`).filter((_, i) => rest[i]);
    return element("li", { title: about.join("\n") }, title);
  };
  const choose = (group) => {
    chosen = group;
    for (const button of at("group-list").querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.group) === group));
    const panel = at("chosen");
    panel.hidden = group === null;
    panel.replaceChildren();
    if (group === null) {
      search();
      return;
    }
    const { label, size: n, summary, keywords, nearest, id } = groups[group];
    const close = element("button", { type: "button", textContent: "Show all groups" });
    close.addEventListener("click", () => choose(null));
    panel.append(
      element("h2", { textContent: label }),
      element("p", { className: "faint", textContent: `${number(n)} documents · ${id}` }),
    );
    if (summary) panel.append(element("p", { textContent: summary }));
    if (keywords.length)
      panel.append(element("p", { className: "keywords", textContent: keywords.join(", ") }));
    if (nearest.length)
      panel.append(element("h2", { textContent: "Nearest to its centre" }),
        element("ol", { className: "nearest" }, ...nearest.map(documentLine)));
    panel.append(close);
    const rows = [];
    groupOf.forEach((own, row) => { if (isIn(own, group)) rows.push(row); });
    mark(rows);
  };

  // ---- search: titles, fields and ids of documents, names and keywords of groups ----
  let haystack = null;
  const search = () => {
    const text = at("search").value.trim().toLocaleLowerCase();
    at("hits").hidden = true;
    at("found").textContent = "";
    for (const item of at("group-list").children) item.hidden = false;
    if (!text) {
      if (chosen === null) mark(null);
      return;
    }
    haystack ??= titles.map((title, row) =>
      [title, ids[row], ...values.map((column) => column[row])].join("\n").toLocaleLowerCase());
    const rows = [];
    haystack.forEach((words, row) => { if (words.includes(text)) rows.push(row); });
    let n_groups = 0;
    for (const item of at("group-list").children) {
      const { label, keywords, id } = groups[item.dataset.group];
      item.hidden = ![label, id, ...keywords].join("\n").toLocaleLowerCase().includes(text);
      n_groups += item.hidden ? 0 : 1;
    }
    at("found").textContent = `${number(rows.length)} documents and ${number(n_groups)} groups found`;
    at("hits").hidden = rows.length === 0;
    at("hit-list").replaceChildren(...rows.slice(0, MOST_HITS).map((row) => {
      const button = element("button", { type: "button", textContent: titles[row] });
      button.addEventListener("click", () => { goTo(row); });
      return element("li", {}, button);
    }));
    mark(rows);
  };
  const goTo = (row) => {
    if (groupOf[row] !== NO_GROUP) choose(groupOf[row]);
    mark([row]);
  };

  // ---- hover ----
  const showTip = (row, event) => {
    const group = groupOf[row];
    const facts = element("dl");
    const add = (name, value) =>
      facts.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
    add("group", group === NO_GROUP ? "Noise" : groups[group].label);
    fields.forEach((name, i) => { if (values[i][row]) add(name, values[i][row]); });
    if (ids[row] !== titles[row]) add("id", ids[row]);
    tip.replaceChildren(element("strong", { textContent: titles[row] }), facts);
    placeTip(event);
  };
  const placeTip = (event) => {
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 8))}px`;
  };
  const rowAt = ({ curveNumber, pointNumber }) =>
    curveNumber === MARKED ? markedRows[pointNumber] : rowsOf[curveNumber][pointNumber];
  const onHover = ({ points: [point], event }) => {
    showTip(rowAt(point), event);
  };
  const onClick = ({ points: [point] }) => {
    const group = groupOf[rowAt(point)];
    choose(group === NO_GROUP ? null : group);
  };

  // ---- moving about without a mouse ----
  const range = (name) => plot._fullLayout[name].range;
  const look = (zoom, dx, dy) => {
    const moved = (name, shift) => {
      const [from, to] = range(name);
      const [middle, half] = [(from + to) / 2 + shift * (to - from), ((to - from) / 2) * zoom];
      return [middle - half, middle + half];
    };
    return Plotly.relayout(plot, { "xaxis.range": moved("xaxis", dx), "yaxis.range": moved("yaxis", dy) });
  };
  const KEYS = {
    ArrowLeft: [1, -0.1, 0], ArrowRight: [1, 0.1, 0], ArrowUp: [1, 0, 0.1], ArrowDown: [1, 0, -0.1],
    "+": [0.8, 0, 0], "=": [0.8, 0, 0], "-": [1.25, 0, 0],
  };
  plot.addEventListener("keydown", (event) => {
    const step = KEYS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    look(...step);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== at("search")) {
      event.preventDefault();
      at("search").focus();
    } else if (event.key === "Escape") {
      at("search").value = "";
      choose(null);
    }
  });

  // ---- the list of groups, children below their parents ----
  const children = new Map();
  groups.forEach((group, i) => {
    const above = group.parent ?? null;
    children.set(above, [...(children.get(above) ?? []), i]);
  });
  const paintSwatches = () => {
    for (const swatch of document.querySelectorAll(".swatch[data-color]"))
      swatch.style.background = palettes[theme.name].groups[swatch.dataset.color];
  };
  const listGroups = () => {
    const waiting = [...(children.get(null) ?? [])].reverse().map((i) => [i, 0]);
    const list = at("group-list");
    while (waiting.length && list.children.length < MOST_GROUPS) {
      const [i, depth] = waiting.pop();
      const swatch = element("span", { className: "swatch" });
      if (!parents.has(i)) swatch.dataset.color = groups[i].color;
      const button = element("button", { type: "button" }, swatch,
        element("span", { className: "name" }, groups[i].label,
          element("span", { className: "keywords", textContent: ` ${groups[i].keywords.slice(0, 3).join(", ")}` })),
        element("span", { className: "size", textContent: number(groups[i].size) }));
      button.dataset.group = i;
      button.setAttribute("aria-pressed", "false");
      button.style.paddingLeft = `${0.3 + depth}rem`;
      button.addEventListener("click", () => choose(chosen === i ? null : i));
      const item = element("li", {}, button);
      item.dataset.group = i;
      list.append(item);
      for (const child of [...(children.get(i) ?? [])].reverse()) waiting.push([child, depth + 1]);
    }
    at("more").hidden = !waiting.length;
    at("more").textContent = `the ${number(MOST_GROUPS)} first of ${number(groups.length)} groups`;
    if (!groups.length) {
      at("more").hidden = false;
      at("more").textContent = "No group was found: every document is noise.";
    }
    paintSwatches();
  };

  const press = (id, onPress) => at(id).addEventListener("click", () => {
    const isOn = at(id).getAttribute("aria-pressed") !== "true";
    at(id).setAttribute("aria-pressed", String(isOn));
    onPress(isOn);
  });
  press("noise", (isOn) => Plotly.restyle(plot, { visible: isOn }, [NOISE]));
  press("names", placeNames);
  at("zoom-in").addEventListener("click", () => look(0.7, 0, 0));
  at("zoom-out").addEventListener("click", () => look(1 / 0.7, 0, 0));
  at("whole").addEventListener("click", () =>
    Plotly.relayout(plot, { "xaxis.autorange": true, "yaxis.autorange": true }));
  at("picture").addEventListener("click", () => Plotly.downloadImage(plot, {
    format: "png", scale: 2, filename: "map",
    width: plot.clientWidth, height: plot.clientHeight,
  }));
  at("tools").addEventListener("submit", (event) => event.preventDefault());
  let typing;
  at("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { if (chosen !== null) choose(null); else search(); }, 120);
  });

  theme.onChange(() => {
    Plotly.restyle(plot, { "marker.color": base.map((_, trace) => colorOf(trace)) }, base.map((_, t) => t));
    Plotly.relayout(plot, { paper_bgcolor: theme.color("--page"), plot_bgcolor: theme.color("--page") })
      .then(placeNames);
    paintSwatches();
    if (markedRows) mark(markedRows);
  });

  listGroups();
  Plotly.newPlot(plot, [...base, marked], layout, options).then(() => {
    plot.on("plotly_hover", onHover);
    plot.on("plotly_unhover", () => { tip.hidden = true; });
    plot.on("plotly_click", onClick);
    plot.on("plotly_clickannotation", ({ index }) => choose(namesShown[index]));
    plot.on("plotly_relayout", (changed) => {
      if (!("annotations" in changed)) placeNames();
    });
    return placeNames();
  }).then(() => {
    markedRows = null;
    document.documentElement.dataset.ready = "true";
  });
})();
