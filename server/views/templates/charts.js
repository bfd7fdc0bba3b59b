"use strict";
(() => {
  const height = (n) => `${Math.min(90, Math.max(14, 3 + n * 1.3))}rem`;
  const cut = (text) => plain(text.length > 40 ? `${text.slice(0, 39)}…` : text);
  // Two groups may begin alike: the axis needs each to have a name of its own.
  const unlike = (labels) => {
    const seen = new Map();
    return labels.map(cut).map((label) => {
      const n = seen.get(label) ?? 0;
      seen.set(label, n + 1);
      return label + "\u200b".repeat(n);
    });
  };
  const kinds = {
    sizes: ({ labels, sizes }, ink) => [[{
      type: "bar", x: sizes.map((_, i) => i + 1), y: sizes, hovertext: labels.map(plain),
      hovertemplate: "%{hovertext}: %{y:,}<extra></extra>", marker: { color: ink.groups[0] },
    }], { xaxis: { title: { text: "group, by size" } }, yaxis: { title: { text: "documents" } } }],

    silhouettes: ({ labels, quantiles }, ink) => {
      const at = (i) => quantiles.map((row) => row[i]).reverse();
      return [[{
        type: "box", orientation: "h", y: unlike(labels).reverse(), lowerfence: at(0), q1: at(1),
        median: at(2), q3: at(3), upperfence: at(4), marker: { color: ink.groups[0] },
      }], { xaxis: { title: { text: "silhouette" }, range: [-1, 1], zeroline: true }, yaxis: { automargin: true } },
      height(labels.length)];
    },

    tree: ({ bars }, ink) => {
      const trace = (isSelected) => {
        const rows = bars.label.map((_, i) => i).filter((i) => (bars.label[i] !== null) === isSelected);
        const pick = (read) => rows.map(read);
        return {
          type: "bar", x: pick((i) => bars.left[i] + bars.width[i] / 2), width: pick((i) => bars.width[i]),
          base: pick((i) => bars.top[i]), y: pick((i) => bars.bottom[i] - bars.top[i]),
          hovertext: pick((i) => `${plain(bars.label[i] ?? "not selected")}: ${bars.size[i].toLocaleString("en")} documents`),
          hovertemplate: "%{hovertext}<extra></extra>", name: isSelected ? "selected" : "not selected",
          marker: { color: isSelected ? ink.groups[1] : ink.noise, line: { width: 0.6, color: theme.color("--page") } },
        };
      };
      return [[trace(false), trace(true)], {
        barmode: "overlay", showlegend: true, xaxis: { title: { text: "documents" } },
        yaxis: { title: { text: "λ = 1 / distance" }, autorange: "reversed" },
      }, "32rem"];
    },

    elbow: ({ n_clusters, inertia }, ink) => [[{
      type: "scatter", mode: "lines+markers", x: n_clusters, y: inertia, line: { color: ink.groups[0] },
      hovertemplate: "%{x} groups: %{y:.4g}<extra></extra>",
    }], { xaxis: { title: { text: "number of groups" } }, yaxis: { title: { text: "mean squared distance" }, rangemode: "tozero" } }],

    timings: ({ labels, begins, seconds }, ink) => [[{
      type: "bar", orientation: "h", y: [...labels].reverse(), x: [...seconds].reverse(),
      base: [...begins].reverse(), customdata: [...begins].reverse(), marker: { color: ink.groups[0] },
      text: [...seconds].reverse().map((took) => `${took.toFixed(2)} s`), textposition: "none",
      hovertemplate: "%{y}: %{text} from %{customdata:.2f} s<extra></extra>",
    }], { barmode: "overlay", xaxis: { title: { text: "seconds" } }, yaxis: { automargin: true } }, "16rem"],

    flows: ({ nodes, links }, ink) => [[{
      type: "sankey", arrangement: "snap",
      node: {
        label: nodes.map((node) => cut(node.label)), pad: 12, thickness: 14,
        color: nodes.map((node) => (node.isNoise ? ink.noise : ink.groups[node.color])),
        hovertemplate: "%{label}: %{value:,} documents<extra></extra>",
      },
      link: {
        source: links.map((link) => link.from), target: links.map((link) => link.to),
        value: links.map((link) => link.count), color: links.map(({ from }) => `${nodes[from].isNoise ? ink.noise : ink.groups[nodes[from].color]}66`),
        hovertemplate: "%{source.label} → %{target.label}: %{value:,} documents<extra></extra>",
      },
    }], {}, height(nodes.length / 2)],
  };

  const draw = (chart, at) => {
    const place = document.getElementById(`chart-${at}`);
    const [traces, own, tall] = kinds[chart.kind](chart, data.palettes[theme.name]);
    if (tall) place.style.height = tall;
    const line = theme.color("--line");
    const axis = { gridcolor: line, zerolinecolor: theme.color("--faint"), linecolor: line };
    return Plotly.react(place, traces, {
      margin: { l: 70, r: 20, t: 10, b: 50 }, showlegend: false,
      paper_bgcolor: theme.color("--page"), plot_bgcolor: theme.color("--page"),
      font: { color: theme.color("--text"), size: 13 },
      ...own, xaxis: { ...axis, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis },
    }, { displayModeBar: false, responsive: true });
  };
  const drawAll = () => Promise.all(data.charts.map(draw));
  theme.onChange(drawAll);
  drawAll().then(() => { document.documentElement.dataset.ready = "true"; });
})();
