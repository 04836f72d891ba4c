// @ts-check
"use strict";

/**
 * @typedef {{title: string, values: (number | null)[], texts: string[], low: (number | null)[], high: (number | null)[], better: number}} Axis
 * better: 1 higher, -1 lower, 0 neither
 * @typedef {{names: string[], x: Axis, y: Axis, front: boolean[] | null, lines: number[][], labels: (string | null)[]}} Chart
 * front: rows that compete for the Pareto front, null for a plot without one; lines: rows joined in order; labels: what stands beside a point
 */

const data = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("data")).textContent || "");

/** @param {string} label @param {[string | number, string][]} options @param {string | number} chosen @param {(value: string) => void} change */
const choice = (label, options, chosen, change) =>
  make("label", {}, label, make("select", { change: (/** @type {any} */ event) => change(event.target.value) },
    ...options.map(([value, text]) => make("option", { value, selected: String(value) === String(chosen) }, text))));

/** @param {string} id @param {string} title @param {...(Node | string | null)} content */
const section = (id, title, ...content) => make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title), ...content);

/** @param {number} value */
const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

// Plots

/** @param {string} key of a column of the results @returns {Axis} */
function axisOf(key) {
  const { columns, rows } = data.tables[0];
  /** @param {string} name */
  const cells = (name) => {
    const at = columns.findIndex((/** @type {Column} */ column) => column.key === name);
    return rows.map((/** @type {Cell[]} */ row) => (at < 0 ? null : row[at]));
  };
  /** @param {string} name */
  const numbers = (name) => cells(name).map((/** @type {Cell | null} */ cell) => (cell ? cell.value : null));
  const title = columns.find((/** @type {Column} */ column) => column.key === key).header;
  const texts = cells(key).map((/** @type {Cell} */ cell) => cell.shown.join(" "));
  return { title, values: numbers(key), texts, low: numbers(`${key}_low`), high: numbers(`${key}_high`), better: title.includes("↑") ? 1 : title.includes("↓") ? -1 : 0 };
}

/** @param {"K" | "N"} name @returns {Axis} */
function countAxis(name) {
  const values = data.points.map((/** @type {any} */ point) => point[name]);
  const title = name === "K" ? "K, scales: resolutions that decoding passes through" : "N, steps: network calls an image over all scales (NFE)";
  return { title, values, texts: values.map(String), low: values.map(() => null), high: values.map(() => null), better: 0 };
}

/**
 * Values to pixels; logarithmic where the largest is 20 times the smallest.
 * @param {number[]} values @param {number} from @param {number} to
 */
function scaleOf(values, from, to) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const log = least > 0 && most / least > 20;
  const [into, back] = log ? [Math.log10, (/** @type {number} */ v) => 10 ** v] : [(/** @type {number} */ v) => v, (/** @type {number} */ v) => v];
  const margin = (into(most) - into(least)) * 0.08 || Math.abs(into(most)) * 0.1 || 1;
  const [low, high] = [into(least) - margin, into(most) + margin];
  const step = [1, 2, 5, 10].map((factor) => factor * 10 ** Math.floor(Math.log10((high - low) / 5))).find((size) => (high - low) / size <= 6) || 1;
  const steps = Array.from({ length: 8 }, (_, place) => (Math.ceil(low / step) + place) * step);
  const decades = Array.from({ length: 24 }, (_, place) => (Math.floor(low) + Math.floor(place / 3)) + Math.log10([1, 2, 5][place % 3]));
  const ticks = (log && high - low < 7 ? decades : steps).filter((tick) => tick >= low && tick <= high);
  const sparse = log && ticks.length > 9 ? ticks.filter((tick) => Number.isInteger(tick)) : ticks;
  return { at: (/** @type {number} */ value) => from + ((into(value) - low) / (high - low)) * (to - from), ticks: sparse.map(back) };
}

/**
 * A plot that is drawn again when its width or its axes change.
 * @param {string} label @param {() => Chart} chart
 * @returns {{element: HTMLElement, draw: () => void}}
 */
function makePlot(label, chart) {
  const host = make("div", { class: "plot" });
  const hint = "Point at a mark, or move to it by the Tab key, to read its values.";
  const readout = make("p", { class: "readout quiet" }, hint);
  const draw = () => {
    const { names, x, y, front, lines, labels } = chart();
    const width = host.clientWidth;
    const shown = names.map((_, row) => row).filter((row) => x.values[row] !== null && y.values[row] !== null);
    if (!width || !shown.length) return host.replaceChildren(shown.length ? "" : "No row has both values.");
    const height = Math.min(460, Math.max(300, width * 0.5));
    const number = (/** @type {number | null} */ value) => /** @type {number} */ (value);
    const across = scaleOf(shown.map((row) => number(x.values[row])), 64, width - 16);
    const ends = shown.flatMap((row) => [y.values[row], y.low[row], y.high[row]]).filter((value) => value !== null);
    const up = scaleOf(ends.map(number), height - 56, 12);
    const place = (/** @type {number} */ row) => [across.at(number(x.values[row])), up.at(number(y.values[row]))];
    const svg = make("svg:svg", { width, height, role: "group", "aria-label": `${label}: ${y.title} against ${x.title}` });
    /** @param {Record<string, unknown>} where @param {string} text */
    const write = (where, text) => svg.append(make("svg:text", where, text));
    for (const tick of up.ticks) {
      svg.append(make("svg:line", { class: "grid", x1: 64, x2: width - 16, y1: up.at(tick), y2: up.at(tick) }));
      write({ x: 56, y: up.at(tick) + 4, "text-anchor": "end" }, short(tick));
    }
    for (const tick of across.ticks) write({ x: across.at(tick), y: height - 36, "text-anchor": "middle" }, short(tick));
    write({ x: (width + 48) / 2, y: height - 8, "text-anchor": "middle", class: "title" }, x.title);
    write({ transform: `translate(14 ${(height - 44) / 2}) rotate(-90)`, "text-anchor": "middle", class: "title" }, y.title);
    const rivals = front ? shown.filter((row) => front[row]) : [];
    const beaten = (/** @type {number} */ row) => rivals.some((other) => {
      const [dx, dy] = [number(x.values[other]) - number(x.values[row]), y.better * (number(y.values[other]) - number(y.values[row]))];
      return dx <= 0 && dy >= 0 && (dx < 0 || dy > 0);
    });
    const best = y.better ? rivals.filter((row) => !beaten(row)).sort((one, other) => number(x.values[one]) - number(x.values[other])) : [];
    const steps = best.map((row, index) => `${index ? `H${place(row)[0]}V` : `M${place(row)[0]} `}${place(row)[1]}`).join("");
    svg.append(make("svg:path", { class: "front", d: steps }));
    for (const line of lines) svg.append(make("svg:path", { class: "line", d: line.filter((row) => shown.includes(row)).map((row, index) => `${index ? "L" : "M"}${place(row)}`).join("") }));
    /** @type {number[][]} */
    const taken = shown.map((row) => [place(row)[0] - 6, place(row)[1] - 6, place(row)[0] + 6, place(row)[1] + 6]);
    for (const row of shown) {
      const [cx, cy] = place(row);
      const apart = front && !front[row];
      const text = `${names[row]}: ${y.title} ${y.texts[row]}, ${x.title} ${x.texts[row]}${apart ? "; of another rate, or exact: not ranked" : ""}`;
      const read = () => { readout.textContent = text; readout.classList.remove("quiet"); };
      const [low, high] = [y.low[row], y.high[row]];
      const whisker = low !== null && high !== null ? make("svg:line", { x1: cx, x2: cx, y1: up.at(low), y2: up.at(high) }) : null;
      svg.append(make("svg:g", { class: apart ? "mark apart" : "mark", tabindex: 0, role: "img", "aria-label": text, focus: read, pointerenter: read, click: read },
        whisker, make("svg:circle", { cx, cy, r: 14, class: "target" }), make("svg:circle", { cx, cy, r: 5 })));
      const name = labels[row];
      if (!name) continue;
      const long = name.length * 6.8;
      const spots = [[cx + 10, cy + 4], [cx - 10 - long, cy + 4], [cx + 10, cy - 10], [cx + 10, cy + 18], [cx - 10 - long, cy - 10], [cx - 10 - long, cy + 18]];
      const free = spots.find(([left, base]) => left > 64 && left + long < width && base > 12 && base < height - 56 &&
        !taken.some(([l, t, r, b]) => left < r && left + long > l && base - 11 < b && base + 3 > t));
      if (!free) continue;
      taken.push([free[0], free[1] - 11, free[0] + long, free[1] + 3]);
      write({ x: free[0], y: free[1], class: "name" }, name);
    }
    host.replaceChildren(svg);
    readout.textContent = hint;
    readout.classList.add("quiet");
  };
  new ResizeObserver(draw).observe(host);
  return { element: make("div", {}, readout, host), draw };
}

/** Quality against cost, with the front. */
function pareto() {
  if (!data.quality.length || !data.cost.length) return null;
  const names = data.points.map((/** @type {any} */ point) => point.name);
  const front = data.points.map((/** @type {any} */ point) => point.ranked);
  let [quality, cost] = [data.quality.includes("lpips") ? "lpips" : data.quality[0], data.cost[0]];
  const plot = makePlot("Quality against cost", () => {
    const x = axisOf(cost);
    return { names, x, y: axisOf(quality), front: /bits/.test(cost) ? names.map(() => true) : front, lines: [], labels: names };
  });
  const options = (/** @type {string[]} */ keys) => keys.map((key) => /** @type {[string, string]} */ ([key, axisOf(key).title]));
  return section("cost", "Quality against cost",
    make("p", {}, "The line joins the rows that no other row of their rate beats in both; bars are 95 % intervals over images, and rows whose bars overlap may not differ. Hollow marks are of another rate, or exact, and not ranked."),
    make("div", { class: "controls" }, choice("Quality", options(data.quality), quality, (key) => { quality = key; plot.draw(); }), choice("Cost", options(data.cost), cost, (key) => { cost = key; plot.draw(); })),
    plot.element);
}

/** Quality or cost over scales or steps, where a decoder is there with several. */
function overScales() {
  /** @param {"K" | "N"} name @returns {number[][]} rows of one decoder that differ in it alone, in order */
  const series = (name) => {
    /** @type {Map<string, number[]>} */
    const groups = new Map();
    data.points.forEach((/** @type {any} */ point, /** @type {number} */ row) => {
      const key = JSON.stringify([point.family, name === "K" ? point.N : point.K]);
      groups.set(key, [...(groups.get(key) || []), row]);
    });
    return [...groups.values()].filter((rows) => new Set(rows.map((row) => data.points[row][name])).size > 1)
      .map((rows) => rows.sort((one, other) => data.points[one][name] - data.points[other][name]));
  };
  const ways = /** @type {("K" | "N")[]} */ (["K", "N"]).filter((name) => series(name).length);
  if (!ways.length || !data.quality.length) return null;
  const titles = { K: "K, scales", N: "N, steps (NFE)" };
  let [name, figure] = [ways[0], data.quality.includes("lpips") ? "lpips" : data.quality[0]];
  const plot = makePlot("Over scales and steps", () => {
    const lines = series(name);
    const labels = data.points.map((/** @type {any} */ point, /** @type {number} */ row) => {
      const line = lines.find((rows) => rows.includes(row));
      if (!line) return point.N ? point.name : null;
      return row === line[line.length - 1] ? `${point.family}, ${name === "K" ? `N = ${point.N}` : `K = ${point.K}`}` : null;
    });
    const axis = countAxis(name);
    const x = { ...axis, values: axis.values.map((value, row) => (data.points[row].N ? value : null)) };
    return { names: data.points.map((/** @type {any} */ point) => point.name), x, y: axisOf(figure), front: null, lines, labels };
  });
  return section("scales", "Over scales and steps",
    make("p", {}, "Lines join rows of one decoder that differ in the number shown alone. A decoder of K scales goes from a coarse image to the full one through K resolutions; N counts the network calls an image over all of them."),
    make("div", { class: "controls" },
      choice("Figure", [...data.quality, ...data.cost].map((key) => [key, axisOf(key).title]), figure, (key) => { figure = key; plot.draw(); }),
      choice("Over", ways.map((key) => [key, titles[key]]), name, (key) => { name = /** @type {"K" | "N"} */ (key); plot.draw(); })),
    plot.element);
}

// Images

/** @param {any} images of `image_document` in tiles.py */
function browser(images) {
  const lpips = images.metrics.findIndex((/** @type {any} */ metric) => metric.title.startsWith("LPIPS"));
  const state = { metric: Math.max(lpips, 0), row: Math.min(1, images.rows.length - 1), list: "worst", image: 0, sides: [-1, 0], view: "slider", gain: 8, split: 50, zoom: 1, x: 0, y: 0 };
  state.sides[1] = state.row;
  /** @type {any[]} */
  let frames = [];
  const name = (/** @type {number} */ row) => (row < 0 ? "original" : images.rows[row]);
  const tile = (/** @type {number} */ row) => images.tiles[state.image][row + 1];
  const picture = (/** @type {string} */ src, /** @type {string} */ alt) => make("img", { src, alt, class: "moving", draggable: "false" });

  /** @param {number} factor @param {number} px @param {number} py the point that stays, in shares of the frame */
  const zoomAt = (factor, px, py) => {
    const zoom = Math.min(16, Math.max(1, state.zoom * factor));
    [state.x, state.y] = [px - ((px - state.x) * zoom) / state.zoom, py - ((py - state.y) * zoom) / state.zoom];
    state.zoom = zoom;
    move(0, 0);
  };
  /** @param {number} dx @param {number} dy in shares of the frame */
  const move = (dx, dy) => {
    [state.x, state.y] = [state.x + dx, state.y + dy].map((value) => Math.min(0, Math.max(1 - state.zoom, value)));
    for (const frame of frames) {
      frame.classList.toggle("zoomed", state.zoom > 1);
      for (const one of frame.querySelectorAll(".moving")) one.style.transform = `translate(${100 * state.x}%, ${100 * state.y}%) scale(${state.zoom})`;
    }
  };
  /** @type {Record<string, () => void>} */
  const keys = {
    "+": () => zoomAt(1.5, 0.5, 0.5), "=": () => zoomAt(1.5, 0.5, 0.5), "-": () => zoomAt(1 / 1.5, 0.5, 0.5), 0: () => zoomAt(0, 0, 0),
    ArrowLeft: () => move(0.1, 0), ArrowRight: () => move(-0.1, 0), ArrowUp: () => move(0, 0.1), ArrowDown: () => move(0, -0.1),
  };

  /** A frame that zooms and moves with all others. @param {string} label @param {...Node} content */
  const makeFrame = (label, ...content) => {
    /** @type {Map<number, {x: number, y: number}>} */
    const down = new Map();
    const release = (/** @type {PointerEvent} */ event) => down.delete(event.pointerId);
    const frame = make("div", {
      class: "frame", tabindex: 0, role: "group", "aria-label": `${label}: plus and minus zoom, arrows move, 0 resets`,
      keydown: (/** @type {KeyboardEvent} */ event) => {
        if (event.target !== frame || event.ctrlKey || event.metaKey || !keys[event.key]) return;
        event.preventDefault();
        keys[event.key]();
      },
      wheel: (/** @type {WheelEvent} */ event) => {
        if (!event.ctrlKey && frame !== document.activeElement) return; // the page scrolls until a frame is chosen
        event.preventDefault();
        const box = frame.getBoundingClientRect();
        zoomAt(Math.exp(-event.deltaY / 400), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
      },
      pointerdown: (/** @type {PointerEvent} */ event) => { down.set(event.pointerId, { x: event.clientX, y: event.clientY }); frame.setPointerCapture(event.pointerId); },
      pointermove: (/** @type {PointerEvent} */ event) => {
        const before = down.get(event.pointerId);
        if (!before) return;
        const box = frame.getBoundingClientRect();
        const now = { x: event.clientX, y: event.clientY };
        const other = [...down].find(([id]) => id !== event.pointerId);
        down.set(event.pointerId, now);
        if (other) {
          const spread = (/** @type {{x: number, y: number}} */ one) => Math.hypot(one.x - other[1].x, one.y - other[1].y) || 1;
          zoomAt(spread(now) / spread(before), ((now.x + other[1].x) / 2 - box.left) / box.width, ((now.y + other[1].y) / 2 - box.top) / box.height);
        } else if (state.zoom > 1) move((now.x - before.x) / box.width, (now.y - before.y) / box.height);
        else if (state.view === "slider") split((100 * (now.x - box.left)) / box.width);
      },
      pointerup: release, pointercancel: release,
    }, ...content);
    frames.push(frame);
    return frame;
  };

  const slider = make("input", { type: "range", min: 0, max: 100, step: 0.5, "aria-label": "Where the first image ends and the second begins", input: () => split(Number(slider.value)) });
  /** @param {number} share */
  const split = (share) => {
    state.split = Math.min(100, Math.max(0, share));
    slider.value = String(state.split);
    stage.querySelectorAll(".over").forEach((/** @type {any} */ over) => { over.style.clipPath = `inset(0 0 0 ${state.split}%)`; });
    stage.querySelectorAll(".seam").forEach((/** @type {any} */ seam) => { seam.style.left = `${state.split}%`; });
  };

  /** The difference to the original, times the gain. @param {number} row */
  const difference = (row) => {
    const canvas = make("canvas", { class: "moving", role: "img", "aria-label": `Difference of ${name(row)} to the original` });
    const sources = [tile(-1), tile(row)].map((src) => Object.assign(new Image(), { src }));
    Promise.all(sources.map((one) => one.decode())).then(() => {
      [canvas.width, canvas.height] = [sources[0].naturalWidth, sources[0].naturalHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const [one, other] = sources.map((source) => { context.drawImage(source, 0, 0); return context.getImageData(0, 0, canvas.width, canvas.height); });
      for (let at = 0; at < one.data.length; at += 1) if (at % 4 < 3) one.data[at] = state.gain * Math.abs(one.data[at] - other.data[at]);
      context.putImageData(one, 0, 0);
    });
    return canvas;
  };

  /** @param {number} row @param {Node} frame @param {string} [before] */
  const captioned = (row, frame, before = "") => {
    const figures = row < 0 ? [] : images.metrics.map((/** @type {any} */ metric) => ({ title: metric.title, own: metric.rows[row] })).filter((/** @type {any} */ one) => one.own);
    const text = figures.map((/** @type {any} */ one) => `${one.title} ${one.own.texts[state.image]} (rank ${one.own.ranks[state.image]})`).join(", ");
    return make("figure", {}, frame, make("figcaption", {}, make("span", {}, before, make("b", {}, name(row)), make("small", {}, text || " "))));
  };
  const unique = () => [...new Set(state.sides)];
  const panels = {
    slider: () => {
      const [one, two] = state.sides;
      const frame = makeFrame(`${name(one)} and ${name(two)}`, picture(tile(one), name(one)), make("div", { class: "over" }, picture(tile(two), name(two))), make("div", { class: "seam" }));
      return [make("div", { class: "wide" }, frame, slider, make("div", { class: "pair" }, captioned(one, ""), captioned(two, "")))];
    },
    side: () => [...new Set([-1, ...state.sides])].map((row) => captioned(row, makeFrame(name(row), picture(tile(row), name(row))))),
    difference: () => unique().filter((row) => row >= 0).map((row) => captioned(row, makeFrame(`difference of ${name(row)}`, difference(row)), "original − ")),
  };

  const stage = make("div", { class: "stage" });
  const thumbs = make("div", { class: "thumbs", role: "group", "aria-label": "Images of the list" });
  const status = make("p", { class: "quiet", role: "status" });
  const below = make("div", { class: "below" });
  const gain = make("label", {}, "Gain", make("input", { type: "range", min: 1, max: 32, value: state.gain, input: (/** @type {any} */ event) => { state.gain = Number(event.target.value); show(); } }));

  /** The images of the list. @returns {number[]} */
  const listed = () => {
    const own = images.metrics[state.metric].rows[state.row];
    if (state.list === "random" || !own) return images.drawn;
    const all = own.ranks.map((/** @type {number} */ rank, /** @type {number} */ image) => ({ rank: state.list === "worst" ? rank : images.n + 1 - rank, image }));
    return all.filter((/** @type {any} */ one) => one.rank <= images.each).sort((/** @type {any} */ one, /** @type {any} */ other) => one.rank - other.rank).map((/** @type {any} */ one) => one.image);
  };
  const list = () => {
    const found = listed();
    const own = images.metrics[state.metric].rows[state.row];
    if (!found.includes(state.image)) state.image = found[0] || 0;
    const by = own ? ` by ${images.metrics[state.metric].title} of ${name(state.row)}` : `: ${name(state.row)} has no ${images.metrics[state.metric].title}`;
    const wanted = Math.min(images.each, images.n);
    status.textContent = state.list === "random" || !own ? `${found.length} of ${images.n} images, drawn at random (seed 0)${own ? "" : by}` :
      `The ${found.length < wanted ? `${found.length} in this page of the ` : ""}${wanted} ${state.list} of ${images.n} images${by}`;
    thumbs.replaceChildren(...found.map((image) => make("button", { type: "button", "aria-pressed": String(image === state.image), click: () => { state.image = image; show(); } },
      make("img", { src: images.tiles[image][0], alt: images.keys[image], loading: "lazy" }), make("small", {}, own ? own.texts[image] : " "))));
    show();
  };
  const show = () => {
    frames = [];
    gain.hidden = state.view !== "difference";
    stage.className = `stage ${state.view}`;
    stage.replaceChildren(...panels[/** @type {"slider" | "side" | "difference"} */ (state.view)]());
    const [first] = frames;
    const size = Object.assign(new Image(), { src: tile(-1) });
    size.decode().then(() => frames.forEach((frame) => { frame.style.aspectRatio = `${size.naturalWidth} / ${size.naturalHeight}`; }));
    if (!first) stage.append(make("p", {}, "Choose a decoder as A or B: the original does not differ from itself."));
    [...thumbs.children].forEach((one, at) => one.setAttribute("aria-pressed", String(listed()[at] === state.image)));
    split(state.split);
    move(0, 0);
    below.replaceChildren(...unique().filter((row) => row >= 0).map(onTheWay));
  };
  /** Latents and ends of scales. @param {number} row */
  const onTheWay = (row) => {
    const { latents, scales, reason } = images.redone[row];
    const strip = (/** @type {string} */ title, /** @type {string[]} */ parts) => make("div", {}, make("h3", {}, title), make("div", { class: "strip" }, ...parts.map((src) => make("img", { src, alt: "" }))));
    return make("div", {},
      latents ? strip(`${name(row)}: latents, three principal components as red, green, blue`, [latents[state.image]]) : make("p", { class: "quiet" }, `${name(row)}, latents and scales: ${reason}.`),
      scales ? strip(`${name(row)}: the end of each scale, coarse to fine`, [...scales[state.image], tile(row)]) : null);
  };

  const rows = /** @type {[number, string][]} */ (images.rows.map((/** @type {string} */ label, /** @type {number} */ row) => [row, label]));
  const sides = ["A", "B"].map((label, at) => choice(label, [[-1, "original"], ...rows], state.sides[at], (value) => { state.sides[at] = Number(value); show(); }));
  const views = make("div", { class: "buttons", role: "group", "aria-label": "View" }, ...[["slider", "Slider"], ["side", "Side by side"], ["difference", "Difference"]].map(([view, text]) =>
    make("button", { type: "button", "aria-pressed": String(view === state.view), click: (/** @type {any} */ event) => {
      state.view = view;
      for (const one of views.children) one.setAttribute("aria-pressed", String(one === event.target));
      show();
    } }, text)));
  const content = [
    make("p", {}, `${images.keys.length} of ${images.n} images are in this page${images.keys.length < images.n ? `: ${images.drawn.length} drawn at random, and the worst and best by every metric and decoder in turn` : ""}. They are lossy here (JPEG, quality ${images.quality}), the figures are of the exact ones.`),
    make("div", { class: "controls" },
      choice("Show the", [["worst", "worst"], ["best", "best"], ["random", "random"]], state.list, (value) => { state.list = value; list(); }),
      choice("by", images.metrics.map((/** @type {any} */ metric, /** @type {number} */ at) => [at, metric.title]), state.metric, (value) => { state.metric = Number(value); list(); }),
      choice("of", rows, state.row, (value) => {
        state.row = Number(value);
        state.sides[1] = state.row;
        sides[1].querySelector("select").value = value;
        list();
      })),
    status, thumbs,
    make("div", { class: "controls" }, ...sides, views, gain),
    stage,
    make("p", { class: "quiet" }, "Choose an image by click or Tab, then zoom by wheel, pinch, + and −, move by dragging or the arrows, 0 resets. All images move together. Ranks: 1 is the worst."),
    below,
  ];
  list();
  return content;
}

// The page

const sections = [
  section("results", "Results", ...data.tables.map(makeTable)),
  pareto(),
  overScales(),
  section("images", "Images", ...(data.images.reason ? [make("p", {}, data.images.reason)] : browser(data.images))),
  section("provenance", "Environment and provenance",
    data.warnings.length ? make("h3", {}, "Warnings") : null,
    make("ul", { class: "notes" }, ...data.warnings.map((/** @type {string} */ line) => make("li", {}, line))),
    ...data.provenance.map(makeTable),
    make("p", { class: "quiet" }, `Made by ${data.made}. This file is whole: it fetches nothing.`)),
].filter((one) => one !== null);

/** @type {HTMLElement} */ (document.getElementById("page")).append(
  make("header", {},
    make("h1", {}, data.about),
    make("p", { class: "verdict" }, ...data.verdict.map((/** @type {string} */ text, /** @type {number} */ at) => (at % 2 ? make("b", {}, text) : text))),
    make("nav", { "aria-label": "Sections" }, ...sections.map((one) => make("a", { href: `#${one.id}` }, one.querySelector("h2").textContent)))),
  ...sections);
