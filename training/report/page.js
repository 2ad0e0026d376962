"use strict";

const FRAMES_A_SECOND = 3;

/** The same samples and their attention maps over time, with a slider and a button that plays them. */
function timeline(grids) {
  const picture = make("img", { class: "picture", alt: "grid of samples" });
  const maps = make("img", { class: "picture", alt: "grid of attention maps" });
  const attention = make("figure", {}, make("figcaption", {}, "What each pixel attends to most (last layer, first head)"), maps);
  const time = slider("time", grids.length, grids.length - 1, (index) => {
    picture.src = grids[index].src;
    attention.hidden = !grids[index].maps;
    if (grids[index].maps) maps.src = grids[index].maps;
    return `${grids[index].kimg} kimg`;
  });
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  const start = () => {
    if (Number(time.input.value) === grids.length - 1) time.set(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      time.set(Number(time.input.value) + 1);
      if (Number(time.input.value) === grids.length - 1) stop();
    }, 1000 / FRAMES_A_SECOND);
  };
  const play = make("button", { type: "button", onclick: () => (timer === null ? start() : stop()) }, "Play");
  time.row.append(play);
  time.set(grids.length - 1);
  return [time.row, grids.some((grid) => grid.maps) ? make("div", { class: "pair" }, make("figure", {}, make("figcaption", {}, "Samples"), picture), attention) : picture];
}

function interpolation(strips) {
  const rows = strips.rows.map((row) => make("figure", {}, make("figcaption", {}, row.label),
    make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": row.label }, make("img", { src: row.src, alt: row.label }))));
  return [make("h3", {}, strips.title), make("p", { class: "soft" }, strips.note), ...rows];
}

/** [[dotted name, value], ...] of nested objects. */
function flatten(values, prefix) {
  return Object.entries(values).flatMap(([name, value]) =>
    value !== null && typeof value === "object" && !Array.isArray(value) ? flatten(value, `${prefix}${name}.`) : [[prefix + name, value]]);
}

function table(values) {
  const text = (value) => (value === null ? "none" : Array.isArray(value) ? value.join(", ") : String(value));
  const rows = flatten(values, "").map(([name, value]) => make("tr", {}, make("td", {}, name), make("td", {}, text(value))));
  return make("table", {}, ...rows);
}

/** The numbers for snapshots from elsewhere and folders of images. */
function results(rows) {
  const columns = Object.keys(rows[0]).filter((column) => rows.some((row) => row[column] !== null && row[column] !== ""));
  const text = (column, value) => (column === "value" ? brief(value, 5) : typeof value === "number" ? value.toLocaleString("en") : value ?? "");
  const head = make("tr", {}, ...columns.map((column) => make("th", { scope: "col" }, column)));
  const body = rows.map((row) => make("tr", {}, ...columns.map((column) => make("td", { class: column }, text(column, row[column])))));
  return make("table", { class: "results" }, head, ...body);
}

function summary(data) {
  const last = Math.max(0, ...data.grids.map((grid) => grid.kimg), ...data.charts.flatMap((chart) => chart.series.flatMap((series) => series.points.map((point) => point[0]))));
  const images = data.dataset.count ? `: ${data.dataset.count.toLocaleString("en")} images of ${data.dataset.resolution} pixels` : "";
  const metrics = data.metrics.map((chart) => `${chart.title} ${brief(chart.latest)}`);
  const trained = data.grids.length + data.charts.length ? `${last} kimg` : "";
  return [(data.dataset.name || "") + images, trained, ...metrics, `as of ${data.updated}`].filter(Boolean).join(" · ");
}

/** One more picture. A table or strip, much wider than high, gets a row of its own, and scrolls if the row is too narrow. */
function other({ title, note, src }) {
  const image = make("img", { class: "picture", src, alt: title });
  const scroll = make("div", { class: "scroll" }, image);
  const figure = make("figure", {}, make("figcaption", {}, [title, note].filter(Boolean).join(": ")), scroll);
  image.addEventListener("load", () => {
    if (image.naturalWidth < 2.5 * image.naturalHeight) return;
    figure.classList.add("wide");
    scroll.setAttribute("tabindex", 0);
    scroll.setAttribute("role", "group");
    scroll.setAttribute("aria-label", title);
  });
  return figure;
}

/** The sections that have content: [id, title, children]. */
function sections(data) {
  const found = [];
  if (data.grids.length) found.push(["samples", "Samples over time", timeline(data.grids)]);
  const charts = (list) => [make("div", { class: "charts" }, ...list.map((chart) => new Chart(chart).element))];
  const metrics = [...(data.metrics.length ? charts(data.metrics) : []), ...(data.results.length ? [results(data.results)] : [])];
  if (metrics.length) found.push(["metrics", "Metrics", metrics]);
  if (data.charts.length) found.push(["curves", "Training curves", charts(data.charts)]);
  const explorers = data.explorers.flatMap((explorer) => [make("h3", {}, explorer.title), make("p", { class: "soft" }, explorer.note), new Explorer(explorer).element]);
  if (explorers.length) found.push(["attention", "Attention: what each region attends to most", explorers]);
  if (data.strips.length) found.push(["interpolations", "Interpolations", data.strips.flatMap(interpolation)]);
  const others = data.others.map(other);
  if (others.length) found.push(["pictures", "More pictures", [make("div", { class: "others" }, ...others)]]);
  if (data.commands.length) found.push(["commands", "Commands", data.commands.map((command) => make("pre", { tabindex: 0 }, command))]);
  const configuration = Object.entries(data.sections).map(([name, values]) => make("details", {}, make("summary", {}, name), table(values)));
  if (configuration.length) found.push(["configuration", "Configuration", configuration]);
  found.push(["environment", "Environment", [table({ ...data.environment, dataset: data.dataset })]]);
  return found;
}

function build(data) {
  document.getElementById("name").textContent = data.name;
  document.getElementById("summary").textContent = summary(data);
  for (const [id, title, children] of sections(data)) {
    document.getElementById("contents").append(make("a", { href: "#" + id }, title.split(":")[0]));
    document.getElementById("main").append(make("section", { id }, make("h2", {}, title), ...children));
  }
}

build(JSON.parse(document.getElementById("data").textContent));
